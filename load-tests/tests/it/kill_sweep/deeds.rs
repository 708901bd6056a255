//! What operators do beside asking while something dies: they stop what runs, approve each other's orders, import definitions, and licences
//! that take a prefix away under its orders and give it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use muster_load_tests::operator::Operator;
use muster_pki::UnixTime;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::licence::{Licence, Terms};
use tokio_util::sync::CancellationToken;

use super::asks::{Ask, Desk};
use crate::support::Place;
use crate::support::orders::{sign_at, signer_of};

/// Deeds of one operator until the fsync must have come: each makes several.
const DEEDS_MAX: usize = 60;
/// Up to when after its instruction a stop comes, in milliseconds: some before it runs, some after it has.
const STOP_AFTER_MS: std::ops::Range<u64> = 0..60;

/// Asks for one approval.
pub(super) const APPROVED: &str = "Acme-Sweep-Approved";
/// Under the prefix that licences take away and give back.
pub(super) const FLIPPED: &str = "Flip-Sweep-Question";
/// That prefix.
const PREFIX: &str = "Flip";

/// A question that is stopped soon after.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) ask: Ask,
    /// The Switch said that it has the stop.
    pub(super) is_accepted: bool,
}

/// A question that needs an approval.
#[derive(Debug)]
pub(super) struct Approval {
    pub(super) ask: Ask,
    /// The Switch said that it has the approval.
    pub(super) is_accepted: bool,
}

/// A definition that is imported.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) envelope: Vec<u8>,
    pub(super) is_accepted: bool,
}

/// A licence that is imported.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) serial: u64,
    pub(super) envelope: Vec<u8>,
    pub(super) is_accepted: bool,
}

/// What was done in a round.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    pub(super) stops: Vec<Stop>,
    pub(super) approvals: Vec<Approval>,
    pub(super) flips: Vec<Ask>,
    pub(super) definitions: Vec<Definition>,
    pub(super) licences: Vec<Import>,
}

/// Who issues and approves, and makes what is imported.
pub(super) struct Office {
    pub(super) desk: Desk,
    pub(super) approver: Desk,
    publisher: Signer,
    licensor: Signer,
    terms: Terms,
    last_serial: AtomicU64,
}

/// Whether the licence of a serial has the prefix.
pub(super) fn has_prefix(serial: u64) -> bool {
    serial.is_multiple_of(2)
}

impl Office {
    pub(super) fn new(place: &Place, approver: &std::path::Path) -> Self {
        let home = place.home();
        let held = std::fs::read(home.join("licence.cms")).expect("the licence");
        let content = envelope::inspect(&held).expect("a licence").content;
        let licence = Licence::parse(&String::from_utf8(content).expect("a text")).expect("a licence");
        Self {
            desk: Desk::new(&home, place.ports.operator),
            approver: Desk::new(approver, place.ports.operator),
            publisher: signer_of(&home, "publisher/cert.pem", "publisher/key.pem"),
            licensor: signer_of(&home, "licensor/cert.pem", "licensor/key.pem"),
            last_serial: AtomicU64::new(licence.serial()),
            terms: licence.terms().clone(),
        }
    }

    /// A question with a parameter `tag`.
    pub(super) fn definition(&self, name: &str, approvals: u32) -> Vec<u8> {
        let text = format!(
            "name = \"{name}\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"Who has %tag%?\"\napprovals = {approvals}\n\n\
             [[parameter]]\nname = \"tag\"\ntype = \"string\"\nmax_length = 64\n\n\
             [[step]]\nquery = \"SELECT name, :tag AS tag FROM os\"\n\n\
             [[result]]\nname = \"name\"\ntype = \"text\"\n\n[[result]]\nname = \"tag\"\ntype = \"text\"\n"
        );
        sign_at(text.as_bytes(), ContentType::Definition, &self.publisher, UnixTime::now())
    }

    /// The next licence: every other one has the prefix.
    pub(super) fn licence(&self) -> Import {
        let serial = self.last_serial.fetch_add(1, Ordering::SeqCst) + 1;
        let mut terms = Terms { serial, ..self.terms.clone() };
        if has_prefix(serial) {
            let signers = terms.prefixes.get("Acme").expect("the publisher's prefix").clone();
            terms.prefixes.insert(PREFIX.to_owned(), signers);
        }
        let text = Licence::new(terms).and_then(|licence| licence.to_text()).expect("a licence");
        let envelope = sign_at(text.as_bytes(), ContentType::Licence, &self.licensor, UnixTime::now());
        Import { serial, envelope, is_accepted: false }
    }

    /// Stops one question after the other.
    pub(super) async fn stop_until(self: Arc<Self>, name: String, over: CancellationToken) -> Vec<Stop> {
        let mut stops = Vec::new();
        let Ok(operator) = self.desk.operator().await else { return stops };
        while stops.len() < DEEDS_MAX {
            let mut stop = Stop { ask: Ask::new(format!("{name}-{:03}", stops.len())), is_accepted: false };
            let went = over.run_until_cancelled(stop.attempt(&operator)).await;
            stops.push(stop);
            if !matches!(went, Some(Ok(()))) {
                break;
            }
        }
        stops
    }

    /// Issues one question after the other that needs an approval; every second one is approved at once.
    pub(super) async fn approve_until(
        self: Arc<Self>,
        name: String,
        over: CancellationToken,
    ) -> Vec<Approval> {
        let mut approvals = Vec::new();
        let (Ok(issuer), Ok(approver)) = (self.desk.operator().await, self.approver.operator().await) else {
            return approvals;
        };
        while approvals.len() < DEEDS_MAX {
            let key = format!("{name}-{:03}", approvals.len());
            let mut approval = Approval { ask: Ask::of(APPROVED, key), is_accepted: false };
            let is_approved = approvals.len().is_multiple_of(2);
            let went = over
                .run_until_cancelled(async {
                    let id = approval.ask.accept(&issuer).await?;
                    if is_approved {
                        approver.approve(&id).await?;
                        approval.is_accepted = true;
                    }
                    Ok::<(), anyhow::Error>(())
                })
                .await;
            approvals.push(approval);
            if !matches!(went, Some(Ok(()))) {
                break;
            }
        }
        approvals
    }

    /// Gives the prefix and takes it away again, each time with an order under it in between, and imports a definition.
    pub(super) async fn import_until(self: Arc<Self>, name: String, over: CancellationToken) -> Deeds {
        let mut deeds = Deeds::default();
        let Ok(operator) = self.desk.operator().await else { return deeds };
        while deeds.definitions.len() < DEEDS_MAX {
            let went = over.run_until_cancelled(self.import_once(&operator, &name, &mut deeds)).await;
            if !matches!(went, Some(Ok(()))) {
                break;
            }
        }
        deeds
    }

    async fn import_once(&self, operator: &Operator, name: &str, deeds: &mut Deeds) -> anyhow::Result<()> {
        let number = deeds.definitions.len();
        for step in 0..2 {
            deeds.licences.push(self.licence());
            let licence = deeds.licences.last_mut().context("a licence")?;
            operator.import_licence(licence.envelope.clone()).await?;
            licence.is_accepted = true;
            if has_prefix(licence.serial) {
                deeds.flips.push(Ask::of(FLIPPED, format!("{name}-{number:03}{step}")));
                deeds.flips.last_mut().context("a question")?.accept(operator).await?;
            }
        }
        let name = format!("Acme-Sweep-{}-N{number:03}", name.replace('-', ""));
        let envelope = self.definition(&name, 0);
        deeds.definitions.push(Definition { name, envelope, is_accepted: false });
        let definition = deeds.definitions.last_mut().context("a definition")?;
        operator.import_definition(definition.envelope.clone()).await?;
        definition.is_accepted = true;
        Ok(())
    }
}

impl Stop {
    pub(super) async fn attempt(&mut self, operator: &Operator) -> anyhow::Result<()> {
        let id = self.ask.accept(operator).await?;
        tokio::time::sleep(Duration::from_millis(rand::random_range(STOP_AFTER_MS))).await;
        self.is_accepted = operator.stop(&id, "as the sweep wants it").await?;
        Ok(())
    }
}
