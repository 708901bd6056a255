//! What an order costs a client before it runs (signing.md: under 1 ms), with an organisation's usual chains: root, issuing CA, signer, all
//! P-256, and CRLs with 100,000 entries. *First* has a definition that was never seen, *again* one that was opened before; and of *again*
//! the parts: the order's own signature, and all the rest.
//!
//! `cargo bench -p muster-signing --bench order`
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use muster_pki::authority::{Authority, Request, Revoked};
use muster_pki::{Certificate, DeviceId, RevocationIndex, Role, Roots, UnixTime};
use muster_proto::ids::InstructionId;
use muster_proto::order::v1::{Audience, Order};
use muster_proto::session::v1::InclusionProof;
use muster_signing::admit::{self, Device, Documents, Memory, Trust};
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::licence::{Licence, Terms};
use muster_signing::merkle::Tree;
use muster_signing::order;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
const ENTRIES: u64 = 100_000;
const DEVICES: usize = 1_000;
const DEFINITION: &str = include_str!("../definitions/Muster-Certificates-Expiring.toml");

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// A root and an issuing CA of one role, and who signs by it.
struct Party {
    root: Authority,
    issuing: Authority,
    signer: Signer,
}

impl Party {
    fn new(name: &str, role: Role) -> Self {
        let root = Authority::root(name, Duration::from_secs(3_650 * DAY), at(NOW)).unwrap();
        let issuing = root.issue_authority("Issuing", Duration::from_secs(1_825 * DAY), at(NOW)).unwrap();
        let request = Request {
            common_name: "signer".to_owned(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            role,
            not_before: at(NOW - DAY),
            not_after: at(NOW + 90 * DAY),
            crl_url: Some("http://crl.example.org/issuing.crl".to_owned()),
        };
        let issued = issuing.issue(&request).unwrap();
        Self { root, issuing, signer: Signer::from_pem(issued.chain_pem, issued.key_pem).unwrap() }
    }

    fn roots(&self) -> Roots {
        Roots::from_certificates([self.root.certificate().clone()]).unwrap()
    }

    fn thumbprint(&self) -> muster_pki::Thumbprint {
        self.signer.certificate().map(Certificate::thumbprint).unwrap()
    }

    fn sign(&self, content: &[u8], content_type: ContentType) -> Vec<u8> {
        envelope::sign(content, content_type, &self.signer, at(NOW)).unwrap()
    }

    /// Takes the CRLs of both CAs, the issuing one's with so many entries.
    fn revoke(&self, index: &mut RevocationIndex, entries: u64) {
        let revoked = |number: u64| Revoked { serial_hex: format!("01{number:014x}"), at: at(NOW - DAY) };
        let entries: Vec<Revoked> = (1..=entries).map(revoked).collect();
        let issuers = [self.root.certificate().clone(), self.issuing.certificate().clone()];
        for (authority, entries) in [(&self.issuing, &entries[..]), (&self.root, &[])] {
            let list = authority.crl(entries, 1, at(NOW - DAY), at(NOW + DAY)).unwrap();
            index.add(list.as_bytes(), &issuers, at(NOW)).unwrap();
        }
    }
}

/// Everything that a client has when an order comes.
struct Case {
    roots: [Roots; 3],
    revocation: RevocationIndex,
    envelope: Vec<u8>,
    definition: Vec<u8>,
    licence: Vec<u8>,
    proof: Option<InclusionProof>,
}

impl Case {
    fn new() -> Self {
        let parties = [
            Party::new("authors", Role::Author),
            Party::new("orders", Role::OrderSigner),
            Party::new("licences", Role::Licensor),
        ];
        let [author, operator, licensor] = &parties;
        let mut revocation = RevocationIndex::default();
        parties.iter().for_each(|party| party.revoke(&mut revocation, ENTRIES / 3));
        let members: Vec<DeviceId> =
            (0..DEVICES).map(|number| format!("pc-{number:05}.example.org").parse().unwrap()).collect();
        let tree = Tree::new(&members);
        let definition = author.sign(DEFINITION.as_bytes(), ContentType::Definition);
        let order = order(&definition, &tree);
        let envelope = operator.sign(&order::encode(&order), ContentType::Order);
        let licence = Licence::new(terms(author)).unwrap().to_text().unwrap();
        Self {
            envelope,
            licence: licensor.sign(licence.as_bytes(), ContentType::Licence),
            proof: tree.proof(0),
            roots: parties.each_ref().map(Party::roots),
            revocation,
            definition,
        }
    }

    fn trust(&self) -> Trust<'_> {
        let [authors, orders, licences] = &self.roots;
        Trust { authors, orders, licences, timestamps: None, revocation: Some(&self.revocation) }
    }

    /// What a client does with an order that comes.
    fn admit(&self, documents: &Documents) {
        let trust = self.trust();
        let (order, signers) = admit::signed_order(&self.envelope, &trust, at(NOW)).unwrap();
        let people = muster_signing::approval::people(&signers);
        let id: DeviceId = "pc-00000.example.org".parse().unwrap();
        let attributes = BTreeMap::new();
        let version = semver::Version::new(1, 0, 0);
        let device = Device {
            id: &id,
            tenant: "acme",
            attributes: &attributes,
            client_version: &version,
            platform: "linux-x86_64",
        };
        let memory = Memory { highest_version: None, time_floor: at(NOW) };
        let proof = self.proof.as_ref();
        let admitted = admit::admit(
            &order,
            people,
            &self.definition,
            &self.licence,
            proof,
            &trust,
            &device,
            &memory,
            documents,
            at(NOW),
        );
        black_box(admitted.unwrap());
    }
}

fn order(definition: &[u8], tree: &Tree) -> Order {
    let text = String::from_utf8(envelope::inspect(definition).unwrap().content).unwrap();
    let parsed = muster_signing::definition::Definition::parse(&text).unwrap();
    let now_ms = i64::try_from(NOW).unwrap() * 1_000;
    let mut id = [1; 16];
    (id[6], id[8]) = (0x70, 0x80);
    Order {
        tenant: "acme".to_owned(),
        instruction: InstructionId::from(id).to_vec(),
        definition_name: parsed.name().to_string(),
        definition_version: parsed.version().to_string(),
        definition_digest: envelope::digest(definition).to_vec(),
        licence_serial: 5,
        audience: Some(Audience {
            expression: String::new(),
            members_root: tree.root().to_vec(),
            members_count: DEVICES as u64,
        }),
        not_before_ms: now_ms - 60_000,
        expires_at_ms: now_ms + 240_000,
        sequence: 1,
        operator: "ann".to_owned(),
        ..Order::default()
    }
}

fn terms(author: &Party) -> Terms {
    Terms {
        serial: 5,
        licensee: "Acme Ltd".to_owned(),
        tenant: "acme".to_owned(),
        not_before: at(NOW - DAY),
        not_after: at(NOW + DAY),
        refresh_by: None,
        features: Default::default(),
        prefixes: [("Muster".to_owned(), [author.thumbprint()].into())].into(),
        minimum_versions: Default::default(),
        distrusted: Default::default(),
    }
}

fn orders(criterion: &mut Criterion) {
    let case = Case::new();
    let again = Documents::default();
    case.admit(&again);
    let mut group = criterion.benchmark_group("order");
    group.bench_function("first", |bencher| bencher.iter(|| case.admit(&Documents::default())));
    group.bench_function("again", |bencher| bencher.iter(|| case.admit(&again)));
    group.bench_function("signature", |bencher| {
        bencher.iter(|| black_box(admit::order(&case.envelope, &case.trust(), at(NOW)).unwrap()));
    });
    group.finish();
}

criterion_group!(benches, orders);
criterion_main!(benches);
