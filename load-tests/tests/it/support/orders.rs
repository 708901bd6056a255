//! Orders and documents that are signed by hand: with the keys of a place's home, by whom its CAs vouch for, and by strangers.

use std::path::Path;
use std::time::Duration;

use muster_pki::authority::{Authority, Request};
use muster_pki::{Role, UnixTime};
use muster_proto::ids::InstructionId;
use muster_proto::order::v1::{Audience, Order};
use muster_signing::definition::Definition;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::order;

use super::Place;

/// A minute, in milliseconds.
pub(crate) const MINUTE_MS: i64 = 60_000;

/// An instruction's id, made long before now.
pub(crate) fn id(number: u8) -> InstructionId {
    InstructionId::from([1, 0x97, 0xa6, 0xc8, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, number])
}

/// An order for every device that has the definition run, from a minute ago, for ten minutes.
pub(crate) fn order_of(definition: &[u8], instruction: InstructionId) -> Order {
    let named = parsed(definition);
    Order {
        definition_name: named.name().to_string(),
        definition_version: named.version().to_string(),
        definition_digest: envelope::digest(definition).to_vec(),
        ..order_without(instruction)
    }
}

/// An order that neither names a definition nor stops anything.
pub(crate) fn order_without(instruction: InstructionId) -> Order {
    let now_ms = i64::try_from(UnixTime::now().as_secs()).expect("a time") * 1_000;
    Order {
        tenant: "dev".to_owned(),
        instruction: instruction.to_vec(),
        licence_serial: 1,
        audience: Some(Audience::default()),
        not_before_ms: now_ms - MINUTE_MS,
        expires_at_ms: now_ms + 10 * MINUTE_MS,
        sequence: 1,
        operator: "operator".to_owned(),
        ..Order::default()
    }
}

fn parsed(definition: &[u8]) -> Definition {
    let text = envelope::inspect(definition).expect("a definition").content;
    Definition::parse(&String::from_utf8(text).expect("a text")).expect("a definition")
}

/// Signs an order.
pub(crate) fn sign_order(content: &Order, signer: &Signer) -> Vec<u8> {
    sign_at(&order::encode(content), ContentType::Order, signer, UnixTime::now())
}

/// Signs any content as that type, dated as is wanted.
pub(crate) fn sign_at(content: &[u8], kind: ContentType, signer: &Signer, at: UnixTime) -> Vec<u8> {
    envelope::sign(content, kind, signer, at).expect("an envelope")
}

/// The operator of a place.
pub(crate) fn operator(place: &Place) -> Signer {
    signer_of(&place.home(), "operator/order.pem", "operator/order.key")
}

/// Whoever has these files of a home.
pub(crate) fn signer_of(home: &Path, certificate: &str, key: &str) -> Signer {
    let read = |name: &str| std::fs::read(home.join(name)).expect("a file of the home");
    Signer::from_pem(read(certificate), read(key)).expect("a signer")
}

/// The issuing CA of a place for a role, by the name of its folder.
pub(crate) fn authority(place: &Place, folder: &str) -> Authority {
    let read = |name: &str| {
        std::fs::read_to_string(place.home().join(format!("pki/{folder}/{name}"))).expect("a file of the CA")
    };
    Authority::from_pem(&read("issuing.pem"), &read("issuing.key")).expect("a CA")
}

/// Somebody to whom that CA gives a certificate for a role.
pub(crate) fn issued(authority: &Authority, name: &str, role: Role) -> Signer {
    let now = UnixTime::now();
    let hour = Duration::from_secs(3_600);
    let since = |time: Duration| UnixTime::since_unix_epoch(time);
    let issued = authority.issue(&Request {
        common_name: name.to_owned(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        role,
        not_before: since(Duration::from_secs(now.as_secs()) - hour),
        not_after: since(Duration::from_secs(now.as_secs()) + 12 * hour),
        crl_url: Some("http://localhost/crl".to_owned()),
    });
    let issued = issued.expect("a certificate");
    Signer::from_pem(&issued.chain_pem, &issued.key_pem).expect("a signer")
}

/// Somebody with a certificate for a role, of a CA that nobody here knows.
pub(crate) fn stranger(role: Role) -> Signer {
    let now = UnixTime::now();
    let two_hours_ago = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() - 7_200));
    let root = Authority::root("Liars", Duration::from_secs(86_400), two_hours_ago).expect("a root");
    issued(&root, "operator", role)
}
