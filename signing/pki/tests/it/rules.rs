//! Each rule both ways: what it refuses, and what it lets pass.

use std::time::Duration;

use muster_pki::authority::{Authority, Request};
use muster_pki::{
    CHAIN_CERTIFICATES_MAX, Certificate, CertificateDer, DeviceId, ExtendedKeyUsage, Facts, KeyEncipherment,
    Policy, Role, Roots, Rule, Severity, check, check_with,
};
use serde::Deserialize;
use serde::de::value::{Error as ValueError, MapDeserializer};

use crate::support::{DAY, NOW, Pki, at, chain, now, refusals, request, warnings};

#[test]
fn accepts_a_good_certificate_of_every_role_without_warning() {
    let pki = Pki::new();

    for role in Role::ALL {
        let verdict = pki.check(role, &pki.issue(role));

        assert!(verdict.is_accepted(), "{role}: {verdict}");
        assert_eq!(warnings(&verdict), [], "{role}: {verdict}");
        assert_eq!(verdict.path().len(), 3, "{role}");
        assert!(verdict.into_result().is_ok());
    }
}

#[test]
fn c1_refuses_an_empty_chain() {
    let verdict = check(Role::Device, &[], &Pki::new().roots, &Facts::at(now()));

    assert_eq!(refusals(&verdict), [Rule::C1]);
    assert!(verdict.leaf().is_none());
    assert!(verdict.into_result().is_err());
}

#[test]
fn c2_refuses_a_chain_to_another_root_and_names_ours() {
    let (ours, theirs) = (Pki::new(), Pki::named("Their Root"));

    let verdict = ours.check(Role::Device, &theirs.issue(Role::Device));

    assert_eq!(refusals(&verdict), [Rule::C2]);
    assert!(verdict.to_string().contains("CN=Test Root"), "{verdict}");
}

#[test]
fn c2_refuses_an_empty_store_and_says_so() {
    let pki = Pki::new();

    let verdict = check(Role::Device, &chain(&pki.issue(Role::Device)), &Roots::default(), &Facts::at(now()));

    assert_eq!(refusals(&verdict), [Rule::C2]);
    assert!(verdict.to_string().contains("empty"), "{verdict}");
}

#[test]
fn c2_refuses_a_missing_intermediate_and_takes_a_local_one() {
    let pki = Pki::new();
    let leaf = chain(&pki.issue(Role::Device)).swap_remove(0);
    let local = [pki.issuing.certificate().certificate_der().clone()];

    let without = check(Role::Device, std::slice::from_ref(&leaf), &pki.roots, &Facts::at(now()));
    let facts = Facts { intermediates: &local, ..Facts::at(now()) };
    let with = check(Role::Device, &[leaf], &pki.roots, &facts);

    assert_eq!(refusals(&without), [Rule::C2]);
    assert!(with.is_accepted(), "{with}");
}

#[test]
fn c2_refuses_two_cas_of_one_name_and_another_key() {
    let (ours, theirs) = (Pki::new(), Pki::new());

    let verdict = ours.check(Role::Device, &theirs.issue(Role::Device));

    assert_eq!(refusals(&verdict), [Rule::C2]);
}

#[test]
fn c2_refuses_a_leaf_that_another_leaf_issued() {
    let pki = Pki::new();
    let middle = pki.issue(Role::Device);
    let mut chain_of_three = chain(&pki.issue(Role::Device));
    chain_of_three.insert(0, forged_below(&middle.certificate_pem, &middle.key_pem));

    let verdict = check(Role::Device, &chain_of_three, &pki.roots, &Facts::at(now()));

    assert!(!verdict.is_accepted(), "{verdict}");
}

#[test]
fn c2_tolerates_order_duplicates_and_unreadable_extras() {
    let pki = Pki::new();
    let mut certificates = chain(&pki.issue(Role::Device));
    certificates.insert(1, CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]));
    certificates.insert(1, pki.root.certificate().certificate_der().clone());
    certificates.push(certificates[3].clone());

    let verdict = check(Role::Device, &certificates, &pki.roots, &Facts::at(now()));

    assert!(verdict.is_accepted(), "{verdict}");
}

#[test]
fn c2_refuses_more_certificates_than_any_chain_has() {
    let pki = Pki::new();
    let mut certificates = chain(&pki.issue(Role::Device));
    certificates.resize(CHAIN_CERTIFICATES_MAX + 1, pki.issuing.certificate().certificate_der().clone());

    let verdict = check(Role::Device, &certificates, &pki.roots, &Facts::at(now()));

    assert_eq!(refusals(&verdict), [Rule::C2]);
}

#[test]
fn c3_refuses_a_leaf_without_extended_key_usage() {
    let pki = Pki::new();

    for role in [Role::Device, Role::Operator, Role::Switch, Role::Service] {
        let verdict = pki.check(role, &pki.issue_for(role, &[]));

        assert_eq!(refusals(&verdict), [Rule::C3], "{role}");
    }
}

#[test]
fn c3_refuses_the_purposes_of_other_roles_and_any() {
    let pki = Pki::new();

    for (role, usage) in [
        (Role::Device, ExtendedKeyUsage::ServerAuth),
        (Role::Device, ExtendedKeyUsage::Any),
        (Role::Switch, ExtendedKeyUsage::ClientAuth),
        (Role::Operator, ExtendedKeyUsage::CodeSigning),
    ] {
        let verdict = pki.check(role, &pki.issue_for(role, std::slice::from_ref(&usage)));

        assert_eq!(refusals(&verdict), [Rule::C3], "{role} {usage}");
    }
}

#[test]
fn c3_accepts_the_purpose_among_others() {
    let pki = Pki::new();
    let usages = [ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth];
    let issued = pki.issue_for(Role::Device, &usages);

    assert!(pki.check(Role::Device, &issued).is_accepted());
    assert!(pki.check(Role::Switch, &issued).is_accepted());
}

#[test]
fn c4_tells_a_missing_key_encipherment_on_ecdsa_and_refuses_it_where_required() {
    let pki = Pki::new();
    let issued = pki.issue(Role::Device);
    let required = Policy { key_encipherment: KeyEncipherment::Required, ..Policy::default() };
    let loosened = Policy { key_usage: Severity::Warning, ..required };
    let check = |policy| check_with(&policy, Role::Device, &chain(&issued), &pki.roots, &Facts::at(now()));

    let default = pki.check(Role::Device, &issued);

    assert!(default.is_accepted(), "{default}");
    assert!(default.findings().iter().any(|f| f.rule == Rule::C4 && f.severity == Severity::Info));
    assert_eq!(refusals(&check(required)), [Rule::C4]);
    assert_eq!(refusals(&check(loosened)), []);
    assert_eq!(warnings(&check(loosened)), [Rule::C4]);
}

#[test]
fn c4_and_c6_are_read_from_configuration_and_have_strict_defaults() {
    let read = |keys: &[(&'static str, &'static str)]| {
        Policy::deserialize(MapDeserializer::<_, ValueError>::new(keys.iter().copied()))
    };
    let loosened = [("key_encipherment", "required"), ("crl_distribution_point", "warning")];

    assert_eq!(read(&[]), Ok(Policy::default()));
    assert_eq!(Policy::default().key_usage, Severity::Refusal);
    assert_eq!(Policy::default().crl_distribution_point, Severity::Refusal);
    assert_eq!(
        read(&loosened),
        Ok(Policy {
            key_usage: Severity::Refusal,
            key_encipherment: KeyEncipherment::Required,
            crl_distribution_point: Severity::Warning,
        })
    );
    assert!(read(&[("key_encypherment", "required")]).is_err());
    assert!(read(&[("key_encipherment", "optional")]).is_err());
}

#[test]
fn c6_refuses_a_leaf_without_http_cdp_for_clients_and_servers_and_warns_where_loosened() {
    let pki = Pki::new();
    let loosened = Policy { crl_distribution_point: Severity::Warning, ..Policy::default() };

    for role in [Role::Device, Role::Operator, Role::Switch, Role::Service] {
        for crl_url in [None, Some("ldap://dc/cn=crl".to_owned())] {
            let issued = pki.issuing.issue(&Request { crl_url, ..request(role) }).unwrap();
            let default = pki.check(role, &issued);
            let loose = check_with(&loosened, role, &chain(&issued), &pki.roots, &Facts::at(now()));

            assert_eq!(refusals(&default), [Rule::C6], "{role}");
            assert!(default.to_string().contains("add the CDP to the CA, then reissue"), "{default}");
            assert!(loose.is_accepted(), "{loose}");
            assert_eq!(warnings(&loose), [Rule::C6], "{role}");
        }
    }
}

#[test]
fn c6_does_not_ask_signers_for_a_distribution_point() {
    let pki = Pki::new();

    for role in [Role::Author, Role::OrderSigner, Role::Licensor, Role::Policy, Role::Timestamp] {
        let issued = pki.issuing.issue(&Request { crl_url: None, ..request(role) }).unwrap();

        assert!(pki.check(role, &issued).is_accepted(), "{role}");
    }
}

#[test]
fn c7_accepts_the_name_without_regard_to_case_and_refuses_another() {
    let pki = Pki::new();
    let issued = pki.issue(Role::Device);
    let named = |name| Facts { name: Some(name), ..Facts::at(now()) };

    assert!(pki.check_at(Role::Device, &issued, &named("W701.ACME.Local")).is_accepted());
    for other in ["w702.acme.local", "w701", "", "w701.acme.local.", "*.acme.local"] {
        let verdict = pki.check_at(Role::Device, &issued, &named(other));

        assert_eq!(refusals(&verdict), [Rule::C7], "{other}");
    }
}

#[test]
fn c7_the_common_name_counts_only_without_san() {
    let pki = Pki::new();
    let issue = |cn: &str, names: &[&str]| {
        let dns_names = names.iter().map(|name| (*name).to_owned()).collect();
        pki.issuing
            .issue(&Request { common_name: cn.to_owned(), dns_names, ..request(Role::Device) })
            .unwrap()
    };
    let facts = Facts { name: Some("w701"), ..Facts::at(now()) };

    assert!(pki.check_at(Role::Device, &issue("W701", &[]), &facts).is_accepted());
    assert_eq!(refusals(&pki.check_at(Role::Device, &issue("w701", &["w702"]), &facts)), [Rule::C7]);
    assert_eq!(refusals(&pki.check_at(Role::Device, &issue("w702", &["w702", "w701"]), &facts)), [Rule::C7]);
    assert_eq!(
        DeviceId::from_certificate(&issue("x", &["W702", "w701"]).certificate).unwrap().as_str(),
        "w702"
    );
}

#[test]
fn c7_refuses_a_device_with_a_wildcard_and_accepts_a_server_with_one() {
    let pki = Pki::new();
    let wild = |role| Request { dns_names: vec!["*.acme.local".to_owned()], ..request(role) };
    let facts = Facts { name: Some("switch.acme.local"), ..Facts::at(now()) };

    let device = pki.check_at(Role::Device, &pki.issuing.issue(&wild(Role::Device)).unwrap(), &facts);
    let operator = pki.check_at(Role::Operator, &pki.issuing.issue(&wild(Role::Operator)).unwrap(), &facts);
    let server = pki.check_at(Role::Switch, &pki.issuing.issue(&wild(Role::Switch)).unwrap(), &facts);

    assert_eq!(refusals(&device), [Rule::C7]);
    assert_eq!(refusals(&operator), [Rule::C7]);
    assert!(server.is_accepted(), "{server}");
}

#[test]
fn c7_compares_a_servers_address_with_its_san_addresses() {
    let pki = Pki::new();
    let ip_addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let issued = pki.issuing.issue(&Request { ip_addresses, ..request(Role::Switch) }).unwrap();
    let check = |name| pki.check_at(Role::Switch, &issued, &Facts { name: Some(name), ..Facts::at(now()) });

    assert!(check("127.0.0.1").is_accepted());
    assert!(check("::1").is_accepted());
    assert_eq!(refusals(&check("127.0.0.2")), [Rule::C7]);
}

#[test]
fn c8_refuses_a_self_signed_leaf_even_if_it_is_trusted() {
    let pki = Pki::new();
    let root = pki.root.certificate();

    let verdict = check(Role::Switch, &[root.certificate_der().clone()], &pki.roots, &Facts::at(now()));

    assert!(refusals(&verdict).contains(&Rule::C8), "{verdict}");
}

#[test]
fn c8_refuses_a_ca_as_leaf() {
    let pki = Pki::new();
    let issuing = pki.issuing.certificate().certificate_der().clone();

    let verdict = check(Role::Switch, &[issuing], &pki.roots, &Facts::at(now()));

    assert_eq!(refusals(&verdict), [Rule::C3, Rule::C6, Rule::C8], "{verdict}");
}

#[test]
fn c8_refuses_a_leaf_that_is_itself_a_root() {
    let pki = Pki::new();
    let issued = pki.issue(Role::Switch);
    let roots = [pki.root.certificate().clone(), issued.certificate.clone()];
    let roots = Roots::from_certificates(roots).unwrap();

    let verdict = check(Role::Switch, &chain(&issued), &roots, &Facts::at(now()));

    assert_eq!(refusals(&verdict), [Rule::C8]);
}

#[test]
fn c9_accepts_both_ends_of_the_validity_and_refuses_a_second_beyond() {
    let pki = Pki::new();
    let issued = pki.issue(Role::Device);
    let at_second = |second| pki.check_at(Role::Device, &issued, &Facts::at(at(second)));

    assert!(at_second(NOW + 90 * DAY).is_accepted());
    assert_eq!(refusals(&at_second(NOW + 90 * DAY + 1)), [Rule::C9]);
    assert_eq!(refusals(&at_second(NOW - DAY - 1)), [Rule::C9]);
}

#[test]
fn c9_refuses_an_expired_ca_and_names_it() {
    let pki = Pki::new();
    let short = pki.root.issue_authority("Short", Duration::from_secs(10 * DAY), now()).unwrap();
    let issued = short.issue(&request(Role::Device)).unwrap();

    let verdict = pki.check_at(Role::Device, &issued, &Facts::at(at(NOW + 11 * DAY)));

    assert_eq!(refusals(&verdict), [Rule::C9]);
    assert_eq!(verdict.findings()[0].subject, "CN=Short");
}

#[test]
fn c9_refuses_an_expired_root() {
    let root = Authority::root("Old Root", Duration::from_secs(10 * DAY), now()).unwrap();
    let roots = Roots::from_certificates([root.certificate().clone()]).unwrap();
    let issued = root.issue(&request(Role::Device)).unwrap();

    let verdict = check(Role::Device, &chain(&issued), &roots, &Facts::at(at(NOW + 11 * DAY)));

    assert_eq!(refusals(&verdict), [Rule::C9]);
    assert_eq!(verdict.findings()[0].subject, "CN=Old Root");
}

#[test]
fn c9_accepts_the_valid_one_of_two_cas_with_one_key() {
    let pki = Pki::new();
    let mut certificates = chain(&pki.issue(Role::Device));
    certificates.insert(1, expired_twin(&pki.issuing, Some(&pki.root)));
    let old_root = Certificate::from_der(&expired_twin(&pki.root, None)).unwrap();
    let roots = Roots::from_certificates([old_root, pki.root.certificate().clone()]).unwrap();

    let verdict = check(Role::Device, &certificates, &roots, &Facts::at(now()));

    assert!(verdict.is_accepted(), "{verdict}");
    assert_eq!(verdict.path()[1], *pki.issuing.certificate());
    assert_eq!(verdict.path()[2], *pki.root.certificate());
}

#[test]
fn c14_tells_all_findings_with_what_an_operator_needs() {
    let (ours, theirs) = (Pki::new(), Pki::named("Their Root"));
    let issued = theirs.issue_for(Role::Device, &[ExtendedKeyUsage::ServerAuth]);
    let facts = Facts { name: Some("w702"), ..Facts::at(at(NOW + 91 * DAY)) };

    let verdict = ours.check_at(Role::Device, &issued, &facts);

    assert_eq!(refusals(&verdict), [Rule::C2, Rule::C3, Rule::C7, Rule::C9]);
    for finding in verdict.findings() {
        assert_eq!(finding.subject, "CN=w701.acme.local");
        assert_eq!(finding.issuer, "CN=Their Root Issuing");
        assert_eq!(finding.serial, issued.certificate.serial_hex());
        assert_eq!(finding.thumbprint, Some(issued.certificate.thumbprint()));
        assert!(
            ![&finding.got, &finding.wanted, &finding.fix].iter().any(|text| text.is_empty()),
            "{finding}"
        );
        assert!(verdict.to_string().contains(&finding.to_string()));
    }
}

#[test]
fn g5_refuses_a_signer_without_code_signing_self_signed_or_of_another_root() {
    let (ours, theirs) = (Pki::new(), Pki::named("Their Root"));
    let root = [ours.root.certificate().certificate_der().clone()];

    for role in [Role::Author, Role::OrderSigner, Role::Licensor, Role::Policy] {
        let tls = ours.check(role, &ours.issue(Role::Device));
        let foreign = ours.check(role, &theirs.issue(role));
        let self_signed = check(role, &root, &ours.roots, &Facts::at(now()));
        let expired = ours.check_at(role, &ours.issue(role), &Facts::at(at(NOW + 91 * DAY)));

        assert_eq!(refusals(&tls), [Rule::G5], "{role}");
        assert_eq!(refusals(&foreign), [Rule::G5], "{role}");
        assert_eq!(refusals(&self_signed), [Rule::G5], "{role}");
        assert_eq!(refusals(&expired), [Rule::C9], "{role}");
    }
}

#[test]
fn g5_refuses_a_timestamp_signer_that_has_other_purposes() {
    let pki = Pki::new();
    let usages = [ExtendedKeyUsage::TimeStamping, ExtendedKeyUsage::CodeSigning];

    let verdict = pki.check(Role::Timestamp, &pki.issue_for(Role::Timestamp, &usages));

    assert_eq!(refusals(&verdict), [Rule::G5]);
}

#[test]
fn roots_of_two_roles_tell_where_they_overlap() {
    let (ours, theirs) = (Pki::new(), Pki::named("Their Root"));
    let both = [theirs.root.certificate().clone(), ours.root.certificate().clone()];
    let both = Roots::from_certificates(both).unwrap();

    assert_eq!(ours.roots.overlaps(&theirs.roots), None);
    assert_eq!(both.overlaps(&ours.roots), Some(ours.root.certificate().thumbprint()));
}

/// Makes a certificate with the name and key of `authority` that expired yesterday, signed by `issuer` or itself.
fn expired_twin(authority: &Authority, issuer: Option<&Authority>) -> CertificateDer<'static> {
    let signer = issuer.unwrap_or(authority);
    let signer_key = rcgen::KeyPair::from_pem(&signer.key_pem()).unwrap();
    let signer = rcgen::Issuer::from_ca_cert_pem(&signer.certificate_pem(), signer_key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let common_name = authority.certificate().common_name().unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    params.not_after = time::OffsetDateTime::from_unix_timestamp((NOW - DAY).try_into().unwrap()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.signed_by(&rcgen::KeyPair::from_pem(&authority.key_pem()).unwrap(), &signer).unwrap().into()
}

/// Issues a leaf with a leaf's key, as an attacker with a stolen device key would.
fn forged_below(certificate_pem: &str, key_pem: &str) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::from_pem(key_pem).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(certificate_pem, key).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["w999".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap().into()
}

#[test]
fn c1_a_certificate_for_a_name_of_devices_without_one_is_refused() {
    let pki = Pki::new();
    let name = "00112233445566778899aabbccddeeff.KEY.invalid";
    let mut named = request(Role::Device);
    named.dns_names = vec![name.to_owned()];
    let mut by_cn = request(Role::Device);
    (by_cn.common_name, by_cn.dns_names) = (name.to_owned(), Vec::new());
    for request in [named, by_cn] {
        let issued = pki.issuing.issue(&request).unwrap();

        let verdict = pki.check(Role::Device, &issued);

        assert_eq!(refusals(&verdict), [Rule::C7], "{verdict}");
    }
}
