//! R6 and what follows from it: `hard`, `grace` and `soft`, cross-signed paths, and how long a verdict may be kept.

use std::time::Duration;

use muster_pki::authority::{Authority, Issued, Request};
use muster_pki::{
    Certificate, CertificateDer, CrlSources, CrlUrl, Facts, GRACE, IssuerRule, RevocationIndex,
    RevocationMode, Role, Roots, Rule, Severity, Standing, URLS_PER_ISSUER_MAX, UnixTime, Verdict, check,
    pem,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};

use crate::crl_maker::{CrlMaker, entry};
use crate::support::{DAY, NOW, Pki, at, chain, now, refusals, request, warnings};

const HOUR: u64 = 3_600;

#[test]
fn r6_an_issuer_is_fresh_then_in_grace_then_lapsed() {
    let pki = Pki::new();
    let issuing = pki.issuing.certificate();
    let index = fresh(&[&pki.issuing]);
    let due = NOW + 7 * DAY;
    for (now, expected) in [
        (NOW, Standing::Fresh { until: at(due) }),
        (due - 1, Standing::Fresh { until: at(due) }),
        (due, Standing::InGrace { until: at(due + DAY) }),
        (due + DAY - 1, Standing::InGrace { until: at(due + DAY) }),
        (due + DAY, Standing::Lapsed { since: at(due + DAY) }),
    ] {
        assert_eq!(index.standing(issuing, at(now), at(0)), expected, "{now}");
    }
    assert_eq!(GRACE, Duration::from_secs(DAY));
}

#[test]
fn r6_an_issuer_that_never_had_a_crl_has_a_day_from_its_configuration() {
    let pki = Pki::new();
    let root = pki.root.certificate();
    let index = fresh(&[&pki.issuing]);

    let standing = |now| index.standing(root, at(now), at(NOW));

    assert_eq!(standing(NOW + DAY - 1), Standing::InGrace { until: at(NOW + DAY) });
    assert_eq!(standing(NOW + DAY), Standing::Lapsed { since: at(NOW + DAY) });
}

#[test]
fn r6_hard_refuses_at_once_grace_after_a_day_and_soft_never() {
    use RevocationMode::{Grace, Hard, Soft};
    let pki = Pki::new();
    let device = pki.issue(Role::Device);
    let index = fresh(&[&pki.issuing, &pki.root]);
    let due = NOW + 7 * DAY;
    for (mode, now, expected) in [
        (Hard, due - 1, None),
        (Hard, due, Some(Severity::Refusal)),
        (Grace, due - 1, None),
        (Grace, due, Some(Severity::Warning)),
        (Grace, due + DAY - 1, Some(Severity::Warning)),
        (Grace, due + DAY, Some(Severity::Refusal)),
        (Soft, due - 1, None),
        (Soft, due, Some(Severity::Warning)),
        (Soft, due + 30 * DAY, Some(Severity::Warning)),
    ] {
        let mut index = index.clone();
        index.set_rule_of_others(mode, Some(at(NOW)));

        let verdict = judge(&pki, &device, &index, now);

        assert_eq!(severity(&verdict), expected, "{mode:?} at {now}: {verdict}");
        assert_eq!(verdict.is_accepted(), expected != Some(Severity::Refusal), "{mode:?} at {now}");
        assert_eq!(verdict.path().len(), 3, "the path is told, refused or not");
    }
}

#[test]
fn r6_an_issuer_without_any_crl_is_judged_by_its_rule() {
    use RevocationMode::{Grace, Hard, Soft};
    let pki = Pki::new();
    let device = pki.issue(Role::Device);
    for (mode, now, expected) in [
        (Hard, NOW, Severity::Refusal),
        (Grace, NOW + DAY - 1, Severity::Warning),
        (Grace, NOW + DAY, Severity::Refusal),
        (Soft, NOW + DAY, Severity::Warning),
    ] {
        let mut index = RevocationIndex::default();
        index.set_rule_of_others(mode, Some(at(NOW)));

        let verdict = judge(&pki, &device, &index, now);

        assert_eq!(severity(&verdict), Some(expected), "{mode:?} at {now}: {verdict}");
    }
}

#[test]
fn r6_each_issuer_has_its_own_rule() {
    let pki = Pki::new();
    let device = pki.issue(Role::Device);
    let rule = |mode| IssuerRule { mode, configured_since: at(NOW) };
    let mut index = fresh(&[&pki.issuing]);
    index.set_rule_of_others(RevocationMode::Hard, Some(at(NOW)));

    let by_others = judge(&pki, &device, &index, NOW);
    index.set_rule(pki.root.certificate(), rule(RevocationMode::Soft));
    let by_own = judge(&pki, &device, &index, NOW);
    index.set_rule(pki.root.certificate(), rule(RevocationMode::Grace));
    let changed = judge(&pki, &device, &index, NOW + DAY);

    assert_eq!(refusals(&by_others), [Rule::R6], "{by_others}");
    assert_eq!((refusals(&by_own), warnings(&by_own)), (vec![], vec![Rule::R6]), "{by_own}");
    assert_eq!(refusals(&changed), [Rule::R6], "{changed}");
    let standings: Vec<_> = index
        .standings(now())
        .map(|(issuer, rule, standing)| (issuer.clone(), rule.mode, standing))
        .collect();
    let until = at(NOW + DAY);
    assert_eq!(
        standings,
        [(pki.root.certificate().clone(), RevocationMode::Grace, Standing::InGrace { until })]
    );
}

#[test]
fn r6_the_finding_says_what_is_lacking_and_until_when_it_passes() {
    let pki = Pki::new();
    let device = pki.issue(Role::Device);
    let mut index = fresh(&[&pki.issuing]);
    index.set_rule_of_others(RevocationMode::Grace, Some(at(NOW)));

    let text = judge(&pki, &device, &index, NOW + HOUR).to_string();
    let later = judge(&pki, &device, &index, NOW + 7 * DAY).to_string();

    assert!(
        text.contains("no CRL of the issuer CN=Test Root, let pass until 2026-06-02T00:00:00Z"),
        "{text}"
    );
    assert!(later.contains("a CRL that expired at 2026-06-08T00:00:00Z of the issuer CN=Test Root Issuing, let pass until 2026-06-09"), "{later}");
}

#[test]
fn r5_of_two_cross_signed_paths_one_that_holds_is_enough() {
    let cross = CrossSigned::new();
    for (case, of_first, of_second, expected) in [
        ("both fresh", Crl::Fresh, Crl::Fresh, vec![]),
        ("the first is stale", Crl::Stale, Crl::Fresh, vec![]),
        ("the second is stale", Crl::Fresh, Crl::Stale, vec![]),
        ("the first revoked it", Crl::Revoked, Crl::Fresh, vec![]),
        ("the second revoked it", Crl::Fresh, Crl::Revoked, vec![]),
        ("both are stale", Crl::Stale, Crl::Stale, vec![Rule::R6]),
        ("both revoked it", Crl::Revoked, Crl::Revoked, vec![Rule::R8]),
        ("one is stale, one revoked it", Crl::Stale, Crl::Revoked, vec![Rule::R6]),
    ] {
        let index = cross.index(of_first, of_second);

        let verdict = cross.check(&index);

        assert_eq!(refusals(&verdict), expected, "{case}: {verdict}");
        assert_eq!(warnings(&verdict), [], "{case}: {verdict}");
    }
}

#[test]
fn r6_of_two_stale_paths_the_one_that_is_let_pass_counts() {
    let cross = CrossSigned::new();
    for strict in [&cross.first, &cross.second] {
        let mut index = cross.index(Crl::Stale, Crl::Stale);
        index.set_rule_of_others(RevocationMode::Soft, Some(at(NOW)));
        let hard = IssuerRule { mode: RevocationMode::Hard, configured_since: at(NOW) };
        index.set_rule(strict.certificate(), hard);

        let verdict = cross.check(&index);

        assert_eq!((refusals(&verdict), warnings(&verdict)), (vec![], vec![Rule::R6]), "{verdict}");
    }
}

#[test]
fn r8_a_number_on_the_crl_of_another_issuer_revokes_nothing() {
    let cross = CrossSigned::new();
    // The number of the first certificate, on the CRL of the second issuer: another certificate.
    let foreign = CrlMaker::new(&cross.second, NOW, 1).entry(&entry(cross.by_first.serial(), &[]));
    let issuers = [cross.second.certificate().clone()];
    let index = fresh(&[&cross.first, &cross.issuing]).with_crl(&foreign.sign(), &issuers, now()).unwrap();

    assert!(cross.check(&index).is_accepted());
    assert!(!index.is_revoked(&cross.by_first));
}

#[test]
fn r6_says_how_long_a_verdict_may_be_kept() {
    use RevocationMode::{Grace, Hard, Soft};
    let pki = Pki::new();
    let path = judge(&pki, &pki.issue(Role::Device), &RevocationIndex::default(), NOW).path().to_vec();
    let due = NOW + 7 * DAY;
    for (mode, crls, expected) in [
        (Hard, vec![&pki.issuing, &pki.root], Some(due)),
        (Grace, vec![&pki.issuing, &pki.root], Some(due + DAY)),
        (Grace, vec![&pki.issuing], Some(NOW + DAY)),
        (Hard, vec![&pki.issuing], Some(0)),
        (Soft, vec![], None),
    ] {
        let mut index = fresh(&crls);
        index.set_rule_of_others(mode, Some(at(NOW)));

        assert_eq!(index.refuses_from(&path), expected.map(at), "{mode:?}");
    }
    assert_eq!(fresh(&[]).refuses_from(&path), None);
}

#[test]
fn r6_modes_have_names_in_configuration_and_grace_is_the_default() {
    let read = |text| RevocationMode::deserialize(StrDeserializer::<ValueError>::new(text)).ok();

    assert_eq!(read("hard"), Some(RevocationMode::Hard));
    assert_eq!(read("grace"), Some(RevocationMode::default()));
    assert_eq!(read("soft"), Some(RevocationMode::Soft));
    assert_eq!(read("off"), None);
}

#[test]
fn r1_fetches_what_configuration_and_verified_paths_name_and_nothing_else() {
    let pki = Pki::new();
    let stranger = Pki::named("Stranger");
    let (root, issuing) = (pki.root.certificate(), pki.issuing.certificate());
    let mut sources = CrlSources::new([root.clone(), issuing.clone()]);
    let url = |text: &str| text.parse::<CrlUrl>().unwrap();
    let learnt = url("http://crl.acme.local/issuing.crl");

    sources.configure(root, url("http://crl.acme.local/root.crl"));
    sources.configure(stranger.root.certificate(), url("http://crl.acme.local/stranger.crl"));
    let of_unverified = sources.learn(&pki.check(Role::Device, &stranger.issue(Role::Device)));
    let of_stranger = sources.learn(&stranger.check(Role::Device, &stranger.issue(Role::Device)));
    let of_verified = sources.learn(&pki.check(Role::Device, &pki.issue(Role::Device)));
    let again = sources.learn(&pki.check(Role::Device, &pki.issue(Role::Device)));

    assert_eq!((of_unverified, of_stranger), (vec![], vec![]));
    assert_eq!((of_verified, again), (vec![learnt.clone()], vec![]));
    let found: Vec<_> = sources.iter().map(|(issuer, url)| (issuer.clone(), url.to_string())).collect();
    assert_eq!(
        found,
        [(root.clone(), "http://crl.acme.local/root.crl".to_owned()), (issuing.clone(), learnt.to_string()),]
    );
    assert!(sources.allows(&learnt) && !sources.allows(&url("http://crl.acme.local/stranger.crl")));
}

#[test]
fn r1_learns_in_mode_hard_from_a_path_that_only_lacks_a_crl() {
    let pki = Pki::new();
    let mut index = RevocationIndex::default();
    index.set_rule_of_others(RevocationMode::Hard, Some(at(NOW)));
    let mut sources = CrlSources::new([pki.root.certificate().clone(), pki.issuing.certificate().clone()]);

    let verdict = judge(&pki, &pki.issue(Role::Device), &index, NOW);
    let learnt = sources.learn(&verdict);

    assert_eq!(refusals(&verdict), [Rule::R6]);
    assert_eq!(learnt.len(), 1);
}

#[test]
fn r1_learns_so_many_urls_of_an_issuer_and_no_more() {
    let pki = Pki::new();
    let mut sources = CrlSources::new([pki.issuing.certificate().clone()]);

    for n in 0..=URLS_PER_ISSUER_MAX {
        let request = Request { crl_url: Some(format!("http://crl{n}/")), ..request(Role::Device) };
        let verdict = pki.check(Role::Device, &pki.issuing.issue(&request).unwrap());
        assert_eq!(sources.learn(&verdict).len(), usize::from(n < URLS_PER_ISSUER_MAX), "{n}");
    }
    let beyond: Vec<CrlUrl> = sources.beyond().map(|(_issuer, url)| url.clone()).collect();
    let [url] = beyond.as_slice() else { panic!("one is beyond: {beyond:?}") };
    assert_eq!(url.as_str(), format!("http://crl{URLS_PER_ISSUER_MAX}/"));
    let again = CrlSources::new([pki.issuing.certificate().clone()]).with_told_of(&sources);
    assert_eq!(again.beyond().count(), 1, "it stays told");

    sources.configure(pki.issuing.certificate(), url.clone());

    assert_eq!(sources.iter().count(), URLS_PER_ISSUER_MAX + 1, "configuration is not bounded by it");
    assert_eq!(sources.beyond().count(), 0);
}

#[test]
fn r1_a_ca_that_was_renewed_or_cross_signed_is_unknown_under_its_other_certificate() {
    let (pki, other) = (Pki::new(), Pki::named("Other Root"));
    let again = other.root.certify_again(&pki.issuing, Duration::from_secs(DAY), now()).unwrap();
    let issued = again.issue(&request(Role::Device)).unwrap();
    let verdict = check(Role::Device, &chain(&issued), &other.roots, &Facts::at(now()));
    let root = other.root.certificate().clone();
    let unknown = |known: &[&Authority]| {
        let known = known.iter().map(|authority| authority.certificate().clone());
        CrlSources::new(known.chain([root.clone()])).unknown(&verdict).cloned().collect::<Vec<_>>()
    };

    assert!(verdict.is_accepted());
    assert_eq!(unknown(&[&pki.issuing]), [again.certificate().clone()]);
    assert!(unknown(&[&pki.issuing, &again]).is_empty());
}

#[test]
fn r1_what_was_told_of_an_issuer_is_taken_over_once_and_within_the_bound() {
    let pki = Pki::new();
    let (root, issuing) = (pki.root.certificate(), pki.issuing.certificate());
    let url = |text: &str| text.parse::<CrlUrl>().unwrap();
    let told = |names: &[String]| {
        let mut sources = CrlSources::new([issuing.clone()]);
        for name in names {
            let request = Request { crl_url: Some(format!("http://{name}/")), ..request(Role::Device) };
            let verdict = pki.check(Role::Device, &pki.issuing.issue(&request).unwrap());
            assert_eq!(sources.learn(&verdict).len(), 1, "{name}");
        }
        sources
    };
    let names = |from: &str, count| (0..count).map(|n| format!("{from}{n}")).collect::<Vec<_>>();
    let mut next = CrlSources::new([root.clone(), issuing.clone()]);
    next.configure(root, url("http://root/"));
    next.configure(issuing, url("http://old0/"));

    let next = next.with_told_of(&told(&names("old", URLS_PER_ISSUER_MAX)));
    let next = next.with_told_of(&told(&names("new", URLS_PER_ISSUER_MAX)));

    let of_issuing = next.iter().filter(|(issuer, _)| *issuer == issuing).count();
    assert_eq!(of_issuing, 1 + URLS_PER_ISSUER_MAX, "what is configured stands there once");
    let whose = |url: &'static str| next.issuers_of(url).collect::<Vec<_>>();
    assert_eq!(whose("http://root/"), [root]);
    assert_eq!(whose("http://new0/"), [issuing]);
    assert!(whose("http://nobody/").is_empty());
    let elsewhere = CrlSources::new([root.clone()]).with_told_of(&next);
    assert_eq!(elsewhere.iter().count(), 0, "an issuer that is gone, and what was configured");
}

#[test]
fn r1_takes_the_distribution_point_of_a_configured_intermediate_for_its_issuer() {
    let cross = CrossSigned::new();
    let sources = CrlSources::new([cross.first.certificate().clone(), cross.by_first.clone()]);

    let found: Vec<_> = sources.iter().map(|(issuer, url)| (issuer.clone(), url.to_string())).collect();

    assert_eq!(found, [(cross.first.certificate().clone(), "http://crl.acme.local/first.crl".to_owned())]);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crl {
    Fresh,
    Stale,
    Revoked,
}

/// One issuing CA with two certificates, by two roots, and a device below.
struct CrossSigned {
    first: Authority,
    second: Authority,
    issuing: Authority,
    by_first: Certificate,
    by_second: Certificate,
    device: Issued,
    roots: Roots,
}

impl CrossSigned {
    fn new() -> Self {
        let root = |name| Authority::root(name, Duration::from_secs(3650 * DAY), now()).unwrap();
        let (first, second) = (root("First"), root("Second"));
        let key = KeyPair::generate().unwrap();
        let by_first = cross_sign(&first, &key, "http://crl.acme.local/first.crl");
        let by_second = cross_sign(&second, &key, "http://crl.acme.local/second.crl");
        let issuing = Authority::from_pem(&by_first.pem(), &key.serialize_pem()).unwrap();
        let device = issuing.issue(&request(Role::Device)).unwrap();
        let roots =
            Roots::from_certificates([first.certificate().clone(), second.certificate().clone()]).unwrap();
        Self { first, second, issuing, by_first, by_second, device, roots }
    }

    /// CRLs of all three CAs, in mode `hard`.
    fn index(&self, of_first: Crl, of_second: Crl) -> RevocationIndex {
        let crl = |authority: &Authority, below: &Certificate, kind| match kind {
            Crl::Fresh => CrlMaker::new(authority, NOW, 1),
            Crl::Stale => CrlMaker::new(authority, NOW - 10 * DAY, 1),
            Crl::Revoked => CrlMaker::new(authority, NOW, 1).entry(&entry(below.serial(), &[])),
        };
        let mut index = fresh(&[&self.issuing]);
        for (authority, below, kind) in
            [(&self.first, &self.by_first, of_first), (&self.second, &self.by_second, of_second)]
        {
            let crl = crl(authority, below, kind).sign();
            index.add(&crl, &[authority.certificate().clone()], now()).unwrap();
        }
        index.set_rule_of_others(RevocationMode::Hard, Some(at(NOW)));
        index
    }

    fn check(&self, index: &RevocationIndex) -> Verdict {
        let leaf = chain(&self.device).swap_remove(0);
        let both = [&self.by_first, &self.by_second].map(|ca| ca.certificate_der().clone());
        let chain: Vec<CertificateDer<'static>> = std::iter::once(leaf).chain(both).collect();
        check(Role::Device, &chain, &self.roots, &Facts { revocation: Some(index), ..Facts::at(now()) })
    }
}

fn cross_sign(root: &Authority, key: &KeyPair, url: &str) -> Certificate {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Cross-signed");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.crl_distribution_points = vec![rcgen::CrlDistributionPoint { uris: vec![url.to_owned()] }];
    let root_key = KeyPair::try_from(&pem::private_key(root.key_pem().as_bytes(), "key").unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_der(root.certificate().certificate_der(), root_key).unwrap();
    Certificate::from_der(params.signed_by(key, &issuer).unwrap().der()).unwrap()
}

/// An index with a CRL of each, without entries and fresh for a week.
fn fresh(authorities: &[&Authority]) -> RevocationIndex {
    authorities.iter().fold(RevocationIndex::default(), |index, authority| {
        let crl = CrlMaker::new(authority, NOW, 1).sign();
        index.with_crl(&crl, &[authority.certificate().clone()], now()).unwrap()
    })
}

fn judge(pki: &Pki, issued: &Issued, index: &RevocationIndex, seconds: u64) -> Verdict {
    let now: UnixTime = at(seconds);
    pki.check_at(Role::Device, issued, &Facts { revocation: Some(index), ..Facts::at(now) })
}

fn severity(verdict: &Verdict) -> Option<Severity> {
    let of_rule = verdict.findings().iter().filter(|finding| finding.rule == Rule::R6);
    of_rule.map(|finding| finding.severity).max()
}
