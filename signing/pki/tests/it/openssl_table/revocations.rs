//! Rows about CRLs.

use muster_pki::Rule;

use super::Row;
use super::lab::{CA, CDP, CLIENT, Cert, Crl, Lab, days};

pub(super) fn rows(lab: &Lab) -> Vec<Row> {
    for issuer in ["root", "ca", "o-sub"] {
        lab.own_crl(issuer);
    }
    [revoked(lab), missing(lab), unfit(lab), partial(lab)].concat()
}

/// The chain of two that most rows judge.
fn row(case: &'static str, crls: &[&'static str]) -> Row {
    Row::device(case, &["client", "ca"]).crls(crls)
}

fn revoked(lab: &Lab) -> Vec<Row> {
    for (name, reason) in [
        ("g-compromised", "keyCompromise"),
        ("g-unspecified", "unspecified"),
        ("g-hold", "certificateHold"),
        ("g-superseded", "superseded"),
    ] {
        lab.crl(name, &Crl::of("ca").revokes(&[("client", reason)]));
    }
    lab.crl("g-server", &Crl::of("ca").revokes(&[("server", "keyCompromise")]));
    lab.crl("g-ca", &Crl::of("root").revokes(&[("ca", "CACompromise")]));
    lab.crl("g-both", &Crl::of("ca").revokes(&[("server", "superseded"), ("client", "keyCompromise")]));
    lab.crl("g-expired", &Crl::of("ca").revokes(&[("client", "keyCompromise")]).valid(days(-30), days(-1)));
    lab.crl("g-later", &Crl::of("ca").number(4).valid(days(0) - 60, days(30)));
    lab.crl("g-higher", &Crl::of("ca").number(5).revokes(&[("client", "keyCompromise")]));
    lab.crl("g-unrevoked", &Crl::of("ca").number(6).valid(-60, days(30)));
    vec![
        row("nobody is revoked", &["root-own", "ca-own"]),
        row("leaf revoked, keyCompromise", &["root-own", "g-compromised"]).refused(&[Rule::R2]),
        row("leaf revoked, no reason", &["root-own", "g-unspecified"]).refused(&[Rule::R2]),
        row("leaf revoked, on hold", &["root-own", "g-hold"]).refused(&[Rule::R2]),
        row("leaf revoked, superseded", &["root-own", "g-superseded"]).refused(&[Rule::R2]),
        row("leaf revoked among others", &["root-own", "g-both"]).refused(&[Rule::R2]),
        row("another leaf revoked", &["root-own", "g-server"]),
        row("CA revoked", &["g-ca", "ca-own"]).refused(&[Rule::R8]),
        row("CA and leaf revoked", &["g-ca", "g-compromised"]).refused(&[Rule::R2, Rule::R8]),
        row("leaf revoked by an expired CRL", &["root-own", "g-expired"]).refused(&[Rule::R2, Rule::R6]),
        row("a newer CRL without the leaf", &["root-own", "g-higher", "g-unrevoked"]),
        row("CRL number going back", &["root-own", "g-higher", "g-later"])
            .refused(&[Rule::R2])
            .differs("R5: the number never goes back"),
    ]
}

fn missing(lab: &Lab) -> Vec<Row> {
    lab.crl("m-expired", &Crl::of("ca").valid(days(-30), -1));
    lab.crl("m-future", &Crl::of("ca").valid(days(1), days(30)));
    lab.crl("m-root-expired", &Crl::of("root").valid(days(-30), days(-3)));
    vec![
        row("no CRL at all", &[]).refused(&[Rule::R6]),
        row("no CRL of the leaf's CA", &["root-own"]).refused(&[Rule::R6]),
        row("no CRL of the root", &["ca-own"]).refused(&[Rule::R6]),
        row("CRL expired", &["root-own", "m-expired"]).refused(&[Rule::R6]),
        row("CRL of the root expired", &["m-root-expired", "ca-own"]).refused(&[Rule::R6]),
        row("CRL expired, and a fresh one", &["root-own", "m-expired", "ca-own"]),
        row("CRL from the future", &["root-own", "m-future"]).refused(&[Rule::R6]),
        row("CRL of another issuer", &["root-own", "o-sub-own"]).refused(&[Rule::R6]),
    ]
}

fn unfit(lab: &Lab) -> Vec<Row> {
    lab.make("u-namesake", &Cert::ca("p256 u-namesake", "root"));
    lab.crl("u-namesake", &Crl::of("u-namesake"));
    lab.own_crl("k-no-crl");
    lab.crl("u-sha1", &Crl { options: &["-md", "sha1"], ..Crl::of("ca") });
    lab.crl("u-sha512", &Crl { options: &["-md", "sha512"], ..Crl::of("ca") });
    lab.crl("u-version-1", &Crl { number: None, ..Crl::of("ca") });
    lab.crl("u-numberless", &Crl { number: None, extensions: "1.2.3.4=ASN1:NULL", ..Crl::of("ca") });
    lab.crl("u-critical", &Crl { extensions: "1.2.3.4=critical,ASN1:NULL", ..Crl::of("ca") });
    lab.crl("u-delta", &Crl { extensions: "deltaCRL=critical,ASN1:INTEGER:1", ..Crl::of("ca") });
    lab.make("u-weak-ca", &Cert::ca("rsa1024", "root").subject("Weak").says(CA));
    vec![
        row("CRL of a namesake", &["root-own", "u-namesake"]).refused(&[Rule::R6]),
        Row::device("CRL of a CA without cRLSign", &["k-no-crl-leaf", "k-no-crl"])
            .crls(&["root-own", "k-no-crl-own"])
            .refused(&[Rule::R6]),
        row("CRL with SHA-1", &["root-own", "u-sha1"]).refused(&[Rule::R6]).differs("C16: no CRL with SHA-1"),
        row("CRL with SHA-512", &["root-own", "u-sha512"]),
        row("CRL of version 1", &["root-own", "u-version-1"]),
        row("CRL without number", &["root-own", "u-numberless"]),
        row("CRL, unknown critical extension", &["root-own", "u-critical"]).refused(&[Rule::R6]),
        row("delta CRL alone", &["root-own", "u-delta"])
            .refused(&[Rule::R6])
            .differs("R5: a delta CRL is none"),
    ]
}

/// CRLs that speak for a part of the certificates (RFC 5280 §5.2.5).
fn partial(lab: &Lab) -> Vec<Row> {
    let point = |lines: &str| format!("issuingDistributionPoint=critical,@point\n[point]\n{lines}");
    for (name, lines) in [
        ("d-users", "onlyuser=TRUE"),
        ("d-cas", "onlyCA=TRUE"),
        ("d-here", "fullname=URI:http://crl.acme.local/issuing.crl"),
        ("d-elsewhere", "fullname=URI:http://crl.acme.local/other.crl"),
        ("d-reasons", "onlysomereasons=keyCompromise"),
        ("d-indirect", "indirectCRL=TRUE"),
        ("d-attributes", "onlyAA=TRUE"),
    ] {
        lab.crl(name, &Crl { extensions: &point(lines), ..Crl::of("ca") });
    }
    lab.make(
        "d-other-point",
        &Cert::client("ca").says(&CLIENT.replace(CDP, &CDP.replace("issuing", "other"))),
    );
    vec![
        row("CRL of users", &["root-own", "d-users"]),
        row("CRL of CAs", &["root-own", "d-cas"]).refused(&[Rule::R6]),
        row("CRL of the leaf's point", &["root-own", "d-here"]),
        row("CRL of another point", &["root-own", "d-elsewhere"]).refused(&[Rule::R6]),
        Row::device("another leaf, of that point", &["d-other-point", "ca"])
            .crls(&["root-own", "d-elsewhere"]),
        row("CRL for some reasons", &["root-own", "d-reasons"]).refused(&[Rule::R6]),
        row("CRL of attribute certificates", &["root-own", "d-attributes"]).refused(&[Rule::R6]),
    ]
}
