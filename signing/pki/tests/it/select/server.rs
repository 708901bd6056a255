//! The server's certificate beyond the table (S7).

use muster_pki::select::{
    Cause, Chosen, MachineNames, Outcome, PinFate, Selection, SelectionSettings, ServerCertificate,
    ServerCertificates, ServerNames, Wanted, select_server,
};

use super::lab::{LAB, Spec, selection, store};
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

#[test]
fn s4_s7_a_better_server_certificate_does_not_displace_the_chosen_one_and_its_successor_does() {
    let mine = Spec::server("w701", &["w701"], 10).candidate("a.pem");
    let better = Spec::server("both", &["w701", "w701.acme.local"], 300).candidate("b.pem");
    let successor = Spec::server("w701", &["w701"], 100).candidate("c.pem");
    let mut chosen = chosen(Selection::default());

    let first = chosen.handle_store(now(), &store([&mine]), None);
    let kept = chosen.handle_store(now(), &store([&mine, &better]), None);
    let renewed = chosen.handle_store(now(), &store([&mine, &better, &successor]), None);

    assert!(matches!(first, Outcome::Changed { cause: Cause::First, .. }), "{first}");
    let preferred = better.certificate().thumbprint();
    assert!(
        matches!(&kept, Outcome::Kept { choice, preferred: Some(other) } if *choice.candidate() == mine && *other == preferred),
        "{kept}"
    );
    assert!(
        matches!(&renewed, Outcome::Changed { choice, cause: Cause::Successor, .. } if *choice.candidate() == successor),
        "{renewed}"
    );
}

#[test]
fn s4_s7_a_revoked_server_certificate_goes_and_without_another_the_port_stays_closed_with_the_reason() {
    let mine = Spec::server("w701", &["w701"], 10).candidate("a.pem");
    let client = Spec::new("acme", "w701", 300).candidate("client.pem");
    let mut chosen = chosen(Selection::default());
    let first = chosen.handle_store(now(), &store([&mine, &client]), None);
    assert_eq!(first.choice().map(|choice| choice.candidate().clone()), Some(mine.clone()));

    let revoked = LAB.revoke(&[mine.certificate()], &[]);
    let outcome = chosen.handle_store(now(), &store([&mine, &client]), Some(&revoked));

    let Outcome::Missing { missing, cause: Cause::Unfit(_), .. } = &outcome else { panic!("{outcome}") };
    let text = missing.to_string();
    for part in
        ["no server certificate", "W701.ACME.LOCAL", "a.pem", "R2 revoked", "client.pem", "no serverAuth"]
    {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(!text.contains("0x209A"), "that is the code of a client's download: {text}");
}

#[test]
fn n2_s7_a_pinned_server_certificate_wins_and_one_of_another_name_never_does() {
    let pinned = Spec::server("w701", &["w701"], 10).candidate("pinned.pem");
    let better = Spec::server("both", &["w701", "w701.acme.local"], 300).candidate("b.pem");
    let other = Spec::server("w702", &["w702"], 300).candidate("other.pem");
    // S5 has an issuer stand above a pin only where a client calls a Switch.
    let pin = |thumbprint: String| {
        let cert_issuer = "acme".to_owned();
        selection(SelectionSettings { thumbprint, cert_issuer, ..SelectionSettings::default() })
    };
    let look = |pin: Selection| {
        let outcome = chosen(pin).handle_store(now(), &store([&better, &pinned, &other]), None);
        outcome.choice().cloned().unwrap()
    };

    let taken = look(pin(pinned.certificate().thumbprint().to_string()));
    let refused = look(pin(other.certificate().thumbprint().to_string()));

    assert_eq!(*taken.candidate(), pinned);
    assert_eq!(*refused.candidate(), better);
    let fate = refused.report().pin().map(|pin| pin.fate().clone());
    assert!(matches!(fate, Some(PinFate::Invalid { .. })), "{fate:?}");
}

fn chosen(selection: Selection) -> Chosen {
    Chosen::of(selection, Wanted::Server(ServerNames::new(MACHINE.host, MACHINE.full)))
}
