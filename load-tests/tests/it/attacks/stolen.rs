//! Keys in the wrong hands, and in the wrong place: what a licence distrusts, and roots that are apart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_pki::{Role, UnixTime};
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::order::v1::Order;
use muster_signing::envelope::{ContentType, Signer};

use super::{DEVICE, Lab, definition, text};
use crate::liar::Liar;
use crate::support::orders::{authority, id, issued, order_of, sign_at, sign_order, signer_of, stranger};
use crate::support::{binary, run, system, wait_until, write};

#[test]
fn attack_with_a_stolen_author_key_the_licence_ends_what_no_timestamp_proves_to_be_from_before() {
    let lab = Lab::new();
    let roots = lab.place.home().join("trust/timestamps.pem");
    lab.configure("", &format!("timestamps = {roots:?}"), "");
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let stamps = Stamps::new(&lab);
    let plain = lab.publish(&liar, &text("Acme-Test-Plain", "1.0.0", ""));
    let early = stamps.stamp(&liar, "early", &lab.publish(&liar, &text("Acme-Test-Early", "1.0.0", "")));
    let stolen_at = UnixTime::now();
    wait_until("another second", || UnixTime::now() > stolen_at);
    let late = stamps.stamp(&liar, "late", &lab.publish(&liar, &text("Acme-Test-Late", "1.0.0", "")));
    for definition in [&plain, &early, &late] {
        let order = lab.order(definition);
        lab.runs(&mut session, &order, &lab.signed(&order));
    }
    // The thief's own word of when it was.
    let at_once = UnixTime::since_unix_epoch(Duration::from_secs(stolen_at.as_secs() - 600));
    let backdated = sign_at(
        text("Acme-Test-Backdated", "1.0.0", "").as_bytes(),
        ContentType::Definition,
        &lab.publisher,
        at_once,
    );
    liar.shelve(&backdated);

    let thumbprint = lab.publisher.certificate().unwrap().thumbprint();
    // Somebody else signs from now on.
    let successor = issued(&authority(&lab.place, "authors"), "successor", Role::Author);
    let next = successor.certificate().unwrap().thumbprint();
    let licence = lab.licence(2, |terms| {
        terms.distrusted.insert(thumbprint, stolen_at);
        terms.prefixes.get_mut("Acme").unwrap().insert(next);
    });
    session.tell_licence(liar.shelve(&licence));

    // They name it, and so are not judged before it came.
    let under_it = |definition: &[u8]| Order { licence_serial: 2, ..lab.order(definition) };
    for (what, definition) in
        [("plain", &plain), ("late", &late), ("backdated", &backdated), ("honest", &lab.honest)]
    {
        lab.refused(&mut session, &under_it(definition), Refusal::UntrustedSigner, what);
    }
    let order = under_it(&early);
    lab.runs(&mut session, &order, &lab.signed(&order));
    let signed_anew = definition(&successor, &text("Acme-Test-Plain", "1.0.1", ""));
    liar.shelve(&signed_anew);
    let order = under_it(&signed_anew);
    lab.runs(&mut session, &order, &lab.signed(&order));
}

#[test]
fn attack_with_a_key_of_another_role_signs_nothing_since_roots_are_apart() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let home = lab.place.home();
    let certs = lab.place.path("certs");
    let policies = signer_of(&home, "policy/cert.pem", "policy/key.pem");
    let server = signer_of(&certs, "localhost.pem", "localhost.key");
    let device = signer_of(&certs, &format!("{DEVICE}.pem"), &format!("{DEVICE}.key"));
    let tls = signer_of(&home, "operator/tls.pem", "operator/tls.key");
    let strangers = [Role::OrderSigner, Role::Author, Role::Licensor].map(stranger);
    // With the purpose of another role, below the CA of one's own.
    let purposed = issued(&authority(&lab.place, "authors"), "operator", Role::OrderSigner);

    let orders: [&Signer; 8] =
        [&lab.publisher, &lab.licensor, &policies, &server, &device, &tls, &strangers[0], &purposed];
    for signer in orders {
        let order = lab.order(&lab.honest);
        let told = lab.tried(&mut session, &order, &sign_order(&order, signer));
        assert_eq!(told, (TargetState::Refused, Refusal::UntrustedSigner), "an order by {}", named(signer));
    }
    let authors: [&Signer; 7] =
        [&lab.operator, &lab.licensor, &policies, &server, &device, &tls, &strangers[1]];
    for signer in authors {
        let by_another = definition(signer, &text("Acme-Test-Another", "1.0.0", ""));
        liar.shelve(&by_another);
        let what = format!("a definition by {}", named(signer));
        lab.refused(&mut session, &lab.order(&by_another), Refusal::UntrustedSigner, &what);
    }
    for signer in [&lab.publisher, &lab.operator, &policies, &server, &device, &tls, &strangers[2]] {
        let licence = lab.licence(9, |_| {});
        let content = muster_signing::envelope::inspect(&licence).unwrap().content;
        let by_another = sign_at(&content, ContentType::Licence, signer, UnixTime::now());
        session.tell_licence(liar.shelve(&by_another));
    }
    // The last of them was sent before the answer to the first of these came, and judged before the second.
    lab.goes_on(&mut session);
    lab.goes_on(&mut session);
    assert_eq!(lab.place.status(DEVICE).unwrap()["licence_serial"], 1);
    assert_eq!(lab.place.starts(), 2);
}

#[test]
fn attack_with_an_envelope_of_another_type_is_refused_though_its_signer_is_right() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let order = order_of(&lab.honest, id(200));
    let content = muster_signing::order::encode(&order);

    for kind in [ContentType::Definition, ContentType::Licence, ContentType::Policy, ContentType::Pack] {
        let envelope = sign_at(&content, kind, &lab.operator, UnixTime::now());
        let told = lab.tried(&mut session, &order, &envelope);
        assert_eq!(told, (TargetState::Refused, Refusal::BadSignature), "{kind:?}");
    }

    // None of them has kept the real one out.
    lab.runs(&mut session, &order, &lab.signed(&order));
}

fn named(signer: &Signer) -> String {
    signer.certificate().unwrap().subject().to_owned()
}

/// A timestamp authority of the home's CA, as `openssl ts` is one.
pub(super) struct Stamps<'a> {
    lab: &'a Lab,
    folder: PathBuf,
}

impl<'a> Stamps<'a> {
    pub(super) fn new(lab: &'a Lab) -> Self {
        lab.place.issue(&["stamps", "--role", "timestamp"]);
        let folder = lab.place.path("stamps");
        let certs = lab.place.path("certs");
        let signer = |file: &str| certs.join(file).display().to_string();
        let (certificate, key) = (signer("stamps.pem"), signer("stamps.key"));
        let issuing = lab.place.home().join("pki/timestamps/issuing.pem").display().to_string();
        write(&folder.join("serial"), "01\n");
        write(
            &folder.join("ts.cnf"),
            &format!(
                "[tsa]\ndefault_tsa = it\n[it]\nserial = {}/serial\nsigner_cert = {certificate}\nsigner_key = {key}\n\
                 certs = {issuing}\nsigner_digest = sha256\ndefault_policy = 1.3.6.1.3.20263.9\ndigests = sha256\n\
                 ess_cert_id_alg = sha256\ntsa_name = yes\n",
                folder.display()
            ),
        );
        Self { lab, folder }
    }

    /// The definition with a timestamp of now, which the liar has.
    pub(super) fn stamp(&self, liar: &Liar, name: &str, definition: &[u8]) -> Vec<u8> {
        let at = |end: &str| self.folder.join(format!("{name}.{end}"));
        std::fs::write(at("cms"), definition).unwrap();
        let sign = |more: &[(&str, &Path)]| {
            let mut command = binary("muster-sign");
            command.arg("timestamp").arg(at("cms")).arg("--home").arg(self.lab.place.home());
            for (flag, path) in more {
                command.arg(flag).arg(path);
            }
            run(&mut command).with_code(0);
        };
        let (query, answer, stamped) = (at("tsq"), at("tsr"), at("stamped"));
        sign(&[("--request", &query)]);
        let path = |path: &Path| path.display().to_string();
        let (config, asked, said) = (path(&self.folder.join("ts.cnf")), path(&query), path(&answer));
        system("openssl", &["ts", "-reply", "-config", &config, "-queryfile", &asked, "-out", &said]);
        sign(&[("--request", &query), ("--answer", &answer), ("--out", &stamped)]);
        let stamped = std::fs::read(stamped).unwrap();
        liar.shelve(&stamped);
        stamped
    }
}
