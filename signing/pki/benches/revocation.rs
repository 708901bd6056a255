//! What revocation costs (R7): a look-up among so many entries, loading a million, and a check with and without CRLs.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark")]

#[path = "../tests/it/crl_maker.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod crl_maker;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use muster_pki::authority::{Authority, Request};
use muster_pki::{
    Certificate, CertificateDer, Facts, RevocationIndex, Role, Roots, UnixTime, check, newly_revoked,
};

use crate::crl_maker::{CrlMaker, large, serials};

/// 2026-06-01T00:00:00Z.
const NOW: u64 = 1_780_272_000;
const DAY: u64 = 86_400;
const MILLION: u64 = 1_000_000;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// A root, an issuing CA, and the chain of a device.
struct Pki {
    root: Authority,
    issuing: Authority,
    chain: Vec<CertificateDer<'static>>,
    roots: Roots,
}

impl Pki {
    fn new() -> Self {
        let root = Authority::root("Root", Duration::from_secs(3650 * DAY), at(NOW)).unwrap();
        let issuing = root.issue_authority("Issuing", Duration::from_secs(1825 * DAY), at(NOW)).unwrap();
        let request = Request {
            common_name: "w701.acme.local".to_owned(),
            dns_names: vec!["w701.acme.local".to_owned()],
            ip_addresses: Vec::new(),
            role: Role::Device,
            not_before: at(NOW - DAY),
            not_after: at(NOW + 90 * DAY),
            crl_url: Some("http://crl.acme.local/issuing.crl".to_owned()),
        };
        let issued = issuing.issue(&request).unwrap();
        let chain = muster_pki::pem::certificates(issued.chain_pem.as_bytes(), "chain").unwrap();
        let roots = Roots::from_certificates([root.certificate().clone()]).unwrap();
        Self { root, issuing, chain, roots }
    }

    fn issuers(&self) -> [Certificate; 2] {
        [self.root.certificate().clone(), self.issuing.certificate().clone()]
    }

    /// Fresh CRLs of both CAs, that of the issuing one with so many entries.
    fn index(&self, count: u64) -> RevocationIndex {
        let of_root = CrlMaker::new(&self.root, NOW, 1).sign();
        let of_issuing = large(&self.issuing, NOW, 1, count, 7);
        let index = RevocationIndex::default().with_crl(&of_root, &self.issuers(), at(NOW)).unwrap();
        index.with_crl(&of_issuing, &self.issuers(), at(NOW)).unwrap()
    }
}

fn look_up(criterion: &mut Criterion) {
    let pki = Pki::new();
    let name = pki.issuing.certificate().subject_der();
    let mut group = criterion.benchmark_group("look_up");
    for count in [0, 1_000, 100_000, MILLION] {
        let index = pki.index(count);
        // Many, so that the caches are as cold as they would be.
        let listed: Vec<[u8; 20]> = serials(count.min(100_000), 7).collect();
        let others: Vec<[u8; 20]> = serials(100_000, 8).collect();
        let mut others = others.iter().cycle();
        group.bench_function(format!("good/{count}"), |bencher| {
            bencher.iter(|| black_box(index.contains(name, black_box(others.next().unwrap()))));
        });
        let mut listed = listed.iter().cycle();
        if count > 0 {
            group.bench_function(format!("revoked/{count}"), |bencher| {
                bencher.iter(|| black_box(index.contains(name, black_box(listed.next().unwrap()))));
            });
        }
    }
    group.finish();
}

fn load(criterion: &mut Criterion) {
    let pki = Pki::new();
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    for count in [100_000, MILLION] {
        let crl = large(&pki.issuing, NOW, 1, count, 7);
        println!("{count} entries: {} bytes of DER", crl.len());
        group.bench_function(count.to_string(), |bencher| {
            bencher.iter_batched(
                RevocationIndex::default,
                |index| index.with_crl(&crl, &pki.issuers(), at(NOW)).unwrap(),
                BatchSize::PerIteration,
            );
        });
    }
    let (old, new) = (pki.index(MILLION), pki.index(MILLION));
    group.bench_function("newly_revoked/1000000", |bencher| {
        bencher.iter(|| assert_eq!(newly_revoked(&old, &new).count(), 0));
    });
    group.finish();
}

fn check_chain(criterion: &mut Criterion) {
    let pki = Pki::new();
    let mut group = criterion.benchmark_group("check");
    group.measurement_time(Duration::from_secs(10));
    let (few, many) = (pki.index(0), pki.index(100_000));
    for (name, revocation) in [("without", None), ("none", Some(&few)), ("100000", Some(&many))] {
        let facts = Facts { revocation, ..Facts::at(at(NOW)) };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let verdict = check(Role::Device, black_box(&pki.chain), &pki.roots, &facts);
                assert!(verdict.is_accepted());
                verdict
            });
        });
    }
    group.finish();
}

/// Times the three checks in turn, so that what else the machine does hits all alike, and compares their medians.
#[expect(clippy::disallowed_methods, reason = "a benchmark has a clock")]
fn check_ratio(_: &mut Criterion) {
    const ROUNDS: usize = 20_000;
    let pki = Pki::new();
    let (few, many) = (pki.index(0), pki.index(100_000));
    let kinds = [None, Some(&few), Some(&many)];
    let mut times = kinds.map(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (revocation, times) in kinds.into_iter().zip(&mut times) {
            let facts = Facts { revocation, ..Facts::at(at(NOW)) };
            let start = Instant::now();
            assert!(check(Role::Device, black_box(&pki.chain), &pki.roots, &facts).is_accepted());
            times.push(start.elapsed());
        }
    }
    let [without, few, many] = times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2].as_secs_f64() * 1e6
    });
    println!(
        "check: {without:.1} µs without revocation, {few:.1} µs with CRLs without entries, {many:.1} µs with 100,000"
    );
    println!("check: ratio {:.3} to none, {:.3} to without", many / few, many / without);
}

criterion_group!(benches, look_up, load, check_chain, check_ratio);
criterion_main!(benches);
