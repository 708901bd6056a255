//! The server's certificate beyond the table (S7).

use muster_pki::select::{
    MachineNames, Selection, SelectionSettings, ServerCertificate, ServerCertificates, select_server,
};

use super::lab::{Spec, selection, store};
use crate::support::now;

const MACHINE: MachineNames<'_> = MachineNames { host: "W701", full: "W701.ACME.LOCAL" };

#[test]
fn s7_self_signed_only_if_it_was_asked_for() {
    let nothing = store([]);

    let asked =
        select_server(ServerCertificates::SelfSigned, &nothing, &Selection::default(), MACHINE, now(), None);
    let missing =
        select_server(ServerCertificates::Pki, &nothing, &Selection::default(), MACHINE, now(), None);

    assert_eq!(asked, Ok(ServerCertificate::SelfSigned));
    assert_eq!(
        missing.unwrap_err().to_string(),
        "HTTPS stays closed: no server certificate; wanted serverAuth and the name \"W701\" or \"W701.ACME.LOCAL\", \
         from a CA: the store is empty"
    );
}

#[test]
fn s7_the_refusal_tells_each_certificates_reason() {
    let other = Spec::server("w702", &["w702"], 10).candidate("w702.pem");
    let mine = Spec::server("w701", &["w701"], 10).candidate("w701.pem");
    let only_globex =
        selection(SelectionSettings { cert_issuer: "globex".to_owned(), ..SelectionSettings::default() });

    let refused =
        select_server(ServerCertificates::Pki, &store([&other, &mine]), &only_globex, MACHINE, now(), None);

    let text = refused.unwrap_err().to_string();
    for part in [
        "w702.pem (CN=w702, issuer CN=Acme One Issuing",
        "S7 neither host name nor FQDN, but w702",
        "w701.pem (CN=w701",
        "S3 issuer not in cert_issuer: add its issuer to cert_issuer",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn s7_a_machine_without_a_domain_has_one_name() {
    let machine = MachineNames { host: "mac01.local", full: "mac01.local" };
    let mine = Spec::server("MAC01.local", &["MAC01.local"], 10).candidate("mac.pem");

    let chosen =
        select_server(ServerCertificates::Pki, &store([&mine]), &Selection::default(), machine, now(), None);

    assert!(matches!(chosen, Ok(ServerCertificate::Pki(choice)) if *choice.candidate() == mine));
}

#[test]
fn s7_no_certificate_has_an_empty_name() {
    let machine = MachineNames { host: "", full: "" };
    let mine = Spec::server("", &[""], 10).candidate("empty.pem");

    let refused =
        select_server(ServerCertificates::Pki, &store([&mine]), &Selection::default(), machine, now(), None);

    assert!(refused.is_err());
}

#[test]
fn n1_a_renewed_server_certificate_is_taken_at_the_next_look() {
    let old = Spec::server("w701", &["w701"], 10).candidate("old.pem");
    let new = Spec::server("w701", &["w701"], 100).candidate("new.pem");

    let chosen = select_server(
        ServerCertificates::Pki,
        &store([&old, &new]),
        &Selection::default(),
        MACHINE,
        now(),
        None,
    );

    let Ok(ServerCertificate::Pki(choice)) = chosen else { panic!("{chosen:?}") };
    assert_eq!(*choice.candidate(), new);
    assert_eq!(
        choice.to_string(),
        format!(
            "certificate CN=w701 of new.pem, thumbprint {}: S7 longest validity",
            new.certificate().thumbprint()
        )
    );
}
