//! T1 to T11: merging PEM files into a trust store, and servers before it.

mod merge;
mod server;

use muster_pki::NamedBytes;
use muster_pki::trust_store::TrustStore;

use crate::forge::Forge;

const SELF_SIGNED: &str = "subjectAltName=DNS:site.acme.local";

fn store(text: &str) -> TrustStore {
    TrustStore::read(NamedBytes { what: "cainfo-merged.pem", bytes: text.as_bytes() }).unwrap()
}

fn text(forge: &Forge, name: &str) -> String {
    String::from_utf8(forge.read(&format!("{name}.pem"))).unwrap()
}
