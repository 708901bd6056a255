//! Who signs, and whom devices and Switch believe: made once for all seeds of a process, since keys cost milliseconds.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use muster_client::TrustConfig;
use muster_client::simulation::{Name, Trust};
use muster_pki::authority::{Authority, Issued, Request};
use muster_pki::{DeviceId, Role, Roots, UnixTime};
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::licence::{Licence, Terms};
use muster_switch::simulation::Signers;
use tempfile::TempDir;

/// The time of day at which every simulation begins, milliseconds since 1970.
pub(super) const BEGINS_MS: i64 = 1_800_000_000_000;

pub(super) const TENANT: &str = "acme";
pub(super) const OPERATOR: &str = "anna.acme.local";
pub(super) const DEFINITION: &str = "Acme-Test-Kernel";
pub(super) const VERSION: &str = "1.0.0";

/// Devices that a seed may have.
pub(super) const DEVICES_MAX: usize = 8;

const DAY: i64 = 86_400_000;

const TEXT: &str = r#"
name = "Acme-Test-Kernel"
version = "1.0.0"
kind = "question"
says = "Which kernel runs?"

[[step]]
query = "SELECT 1 AS one"

[[result]]
name = "one"
type = "integer"

[limits]
run_time = "10s"
rows = 10
bytes = "64 KiB"

[time_to_live]
gather = { default = "1h", min = "1m", max = "7d" }
keep = { default = "30d", min = "1h", max = "30d" }
"#;

/// What all seeds share.
pub(super) struct Organisation {
    pub(super) signers: Signers,
    pub(super) trust: Trust,
    pub(super) definition: Vec<u8>,
    pub(super) licence: Vec<u8>,
    pub(super) names: Vec<(DeviceId, Name)>,
    /// When every simulation begins, by the clock that only passes.
    pub(super) begins: Instant,
    orders: Signer,
}

struct Party {
    root: Authority,
    issued: Issued,
}

impl Organisation {
    /// Returns it; the first who asks makes it.
    pub(super) fn get() -> &'static Self {
        static MADE: OnceLock<Organisation> = OnceLock::new();
        MADE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let [authors, orders, licensor] = [Role::Author, Role::OrderSigner, Role::Licensor].map(Party::new);
        let folder = TempDir::new().unwrap();
        let file = |name: &str, party: &Party| write(folder.path(), name, &party.root.certificate_pem());
        let files = TrustConfig {
            switch: std::path::PathBuf::new(),
            authors: file("authors.pem", &authors),
            orders: file("orders.pem", &orders),
            licences: file("licences.pem", &licensor),
            ..TrustConfig::default()
        };
        let trust = Trust::load(files, TENANT, at(0)).unwrap();
        let terms = Terms {
            serial: 1,
            licensee: "Acme Inc.".to_owned(),
            tenant: TENANT.to_owned(),
            not_before: at(-20 * DAY),
            not_after: at(90 * DAY),
            refresh_by: None,
            features: [].into(),
            prefixes: [("Acme".to_owned(), [authors.issued.certificate.thumbprint()].into())].into(),
            minimum_versions: [].into(),
            distrusted: [].into(),
        };
        let licence = Licence::new(terms).unwrap().to_text().unwrap();
        let name = |number: usize| {
            let device: DeviceId = format!("d{number:02}.acme.local").parse().unwrap();
            (device.clone(), Name::of(device))
        };
        Self {
            definition: authors.sign(TEXT.as_bytes(), ContentType::Definition),
            licence: licensor.sign(licence.as_bytes(), ContentType::Licence),
            signers: Signers { authors: authors.roots(), orders: orders.roots(), licences: licensor.roots() },
            trust,
            names: (0..DEVICES_MAX).map(name).collect(),
            begins: Instant::now(),
            orders: orders.signer(),
        }
    }

    /// Signs an order as the operator does.
    pub(super) fn sign_order(&self, order: &[u8], now_ms: i64) -> Vec<u8> {
        envelope::sign(order, ContentType::Order, &self.orders, at(now_ms - BEGINS_MS)).unwrap()
    }
}

impl Party {
    fn new(role: Role) -> Self {
        let name = format!("Root of {role:?}");
        let root = Authority::root(&name, Duration::from_secs(365 * 86_400), at(-30 * DAY)).unwrap();
        let request = Request {
            common_name: "signer.acme.local".to_owned(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            role,
            not_before: at(-30 * DAY),
            not_after: at(90 * DAY),
            crl_url: None,
        };
        let issued = root.issue(&request).unwrap();
        Self { root, issued }
    }

    fn roots(&self) -> Roots {
        Roots::from_certificates([self.root.certificate().clone()]).unwrap()
    }

    fn signer(&self) -> Signer {
        Signer::from_pem(self.issued.chain_pem.as_bytes(), self.issued.key_pem.as_bytes()).unwrap()
    }

    fn sign(&self, content: &[u8], content_type: ContentType) -> Vec<u8> {
        envelope::sign(content, content_type, &self.signer(), at(-DAY)).unwrap()
    }
}

fn write(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Returns a moment so many milliseconds after the beginning.
fn at(after_ms: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(BEGINS_MS + after_ms).unwrap()))
}
