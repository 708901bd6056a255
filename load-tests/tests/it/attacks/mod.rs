//! The attack table: each row is tried by a lying Switch, or a lying Background Channel, on a real client. Nothing of it runs, what became
//! of it is told by its code, and what is honest runs afterwards. [`TABLE`] says which tests hold which row.
//!
//! What needs the same device and is no attack: answers of several messages ([`parts`]), and timestamps ([`stamped`]).

mod arguments;
mod changed;
mod claimed;
mod clock;
mod endless;
mod endless_content;
mod endless_frames;
mod flipped;
mod flooded;
mod freeze;
mod malleable;
mod mixed;
mod names;
mod parts;
mod replay;
mod rollback;
mod stamped;
mod stolen;
mod table;
mod unapproved;
mod unsupported;
mod welcome;

use std::cell::Cell;

use muster_pki::UnixTime;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::ids::InstructionId;
use muster_proto::order::v1::Order;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::licence::{Licence, Terms};

use crate::liar::{Liar, Session, Welcome};
use crate::support::orders::{id, operator, order_of, sign_at, sign_order, signer_of};
use crate::support::{Place, Service, write};

pub(crate) use parts::large;

const DEVICE: &str = "web1.example.org";

/// It was answered.
const ANSWERED: (TargetState, Refusal) = (TargetState::Answered, Refusal::Unspecified);

/// A device and everybody whose keys it believes.
struct Lab {
    place: Place,
    publisher: Signer,
    operator: Signer,
    licensor: Signer,
    /// The licence that the device is welcomed with.
    licence: Vec<u8>,
    /// Nothing is wrong with it.
    honest: Vec<u8>,
    /// How many instructions were issued.
    issued: Cell<u8>,
}

impl Lab {
    fn new() -> Self {
        let place = Place::with_pki(&[DEVICE]);
        place.client_config_to(DEVICE, place.ports.sessions, "");
        place.record_starts(DEVICE);
        let home = place.home();
        let publisher = signer_of(&home, "publisher/cert.pem", "publisher/key.pem");
        let licensor = signer_of(&home, "licensor/cert.pem", "licensor/key.pem");
        let licence = std::fs::read(home.join("licence.cms")).expect("the licence");
        let honest = definition(&publisher, &text("Acme-Test-Honest", "1.0.0", ""));
        let operator = operator(&place);
        Self { place, publisher, operator, licensor, licence, honest, issued: Cell::new(0) }
    }

    /// Puts lines before the first table of the client's configuration, after the head of `[trust]`, and at its end.
    fn configure(&self, first: &str, trust: &str, last: &str) {
        let path = self.place.path(&format!("{DEVICE}.toml"));
        let text = std::fs::read_to_string(&path).expect("the configuration");
        let text = text.replace("[trust]\n", &format!("[trust]\n{trust}\n"));
        write(&path, &format!("{first}\n{text}\n{last}\n"));
    }

    /// Listens in the Switch's place, with the licence and the honest definition at hand.
    fn liar(&self) -> Liar {
        let liar = Liar::listen(&self.place);
        liar.shelve(&self.licence);
        liar.shelve(&self.honest);
        liar
    }

    fn start(&self) -> Service {
        self.place.start_client(DEVICE)
    }

    /// What an honest Switch would say.
    fn welcome(&self) -> Welcome {
        Welcome { licence: Some(envelope::digest(&self.licence)), ..Welcome::default() }
    }

    /// A later licence than the home's.
    fn licence(&self, serial: u64, change: impl FnOnce(&mut Terms)) -> Vec<u8> {
        let content = envelope::inspect(&self.licence).expect("a licence").content;
        let licence = Licence::parse(&String::from_utf8(content).expect("a text")).expect("a licence");
        let mut terms = licence.terms().clone();
        terms.serial = serial;
        change(&mut terms);
        let text = Licence::new(terms).and_then(|licence| licence.to_text()).expect("a licence");
        sign_at(text.as_bytes(), ContentType::Licence, &self.licensor, UnixTime::now())
    }

    /// Makes a definition by the publisher, which the liar has.
    fn publish(&self, liar: &Liar, text: &str) -> Vec<u8> {
        let definition = definition(&self.publisher, text);
        liar.shelve(&definition);
        definition
    }

    /// The next instruction, for a definition.
    fn order(&self, definition: &[u8]) -> Order {
        order_of(definition, self.next())
    }

    fn next(&self) -> InstructionId {
        self.issued.set(self.issued.get() + 1);
        id(self.issued.get())
    }

    /// Signs as the operator.
    fn signed(&self, order: &Order) -> Vec<u8> {
        sign_order(order, &self.operator)
    }

    /// Delivers an order, of which nothing runs; gives what became of it.
    #[track_caller]
    fn tried(&self, session: &mut Session<'_>, order: &Order, envelope: &[u8]) -> (TargetState, Refusal) {
        let before = self.place.starts();
        session.deliver(envelope);
        let (state, refusal, detail) = session.result_with_detail(instruction(order));
        assert_eq!(self.place.starts(), before, "{state:?} {refusal:?} {detail}");
        (state, refusal)
    }

    /// Delivers an order of the operator's, which is refused by this code.
    #[track_caller]
    fn refused(&self, session: &mut Session<'_>, order: &Order, refusal: Refusal, what: &str) {
        let told = self.tried(session, order, &self.signed(order));
        assert_eq!(told, (TargetState::Refused, refusal), "{what}");
    }

    /// Delivers an order, which runs once.
    #[track_caller]
    fn runs(&self, session: &mut Session<'_>, order: &Order, envelope: &[u8]) {
        let before = self.place.starts();
        session.deliver(envelope);
        let (state, refusal, detail) = session.result_with_detail(instruction(order));
        assert_eq!((state, refusal), ANSWERED, "{detail}");
        assert_eq!(self.place.starts(), before + 1, "what is honest runs once");
    }

    /// An honest order runs: nobody kept the client from it, and its starts are counted.
    #[track_caller]
    fn goes_on(&self, session: &mut Session<'_>) {
        let order = self.order(&self.honest);
        self.runs(session, &order, &self.signed(&order));
    }
}

/// The instruction of an order.
fn instruction(order: &Order) -> InstructionId {
    InstructionId::try_from(&order.instruction[..]).expect("an id")
}

/// A question, in full; `more` are its further tables.
fn text(name: &str, version: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"{version}\"\nkind = \"question\"\nsays = \"Is anybody there?\"\n\n\
         [[step]]\nquery = \"SELECT 1 AS one\"\n\n[[result]]\nname = \"one\"\ntype = \"integer\"\n\n{more}\n"
    )
}

fn definition(signer: &Signer, text: &str) -> Vec<u8> {
    sign_at(text.as_bytes(), ContentType::Definition, signer, UnixTime::now())
}
