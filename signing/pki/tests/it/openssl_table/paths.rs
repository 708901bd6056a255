//! Rows about the way from leaf to root: missing, superfluous, out of order, two of them.

use muster_pki::Rule;

use super::Row;
use super::lab::{Cert, Crl, Lab, days};

pub(super) fn rows(lab: &Lab) -> Vec<Row> {
    [orders(lab), roots(lab), crossings(lab)].concat()
}

fn orders(lab: &Lab) -> Vec<Row> {
    lab.make("o-sub", &Cert::ca("p256 o-sub", "ca").subject("Sub"));
    lab.make("o-subsub", &Cert::ca("p256 o-subsub", "o-sub").subject("Subsub"));
    lab.make("direct", &Cert::client("root"));
    lab.make("o-two", &Cert::client("o-sub"));
    lab.make("o-three", &Cert::client("o-subsub"));
    lab.make("o-other-root", &Cert::root("p256 o-other-root").subject("Other"));
    lab.make("o-other-ca", &Cert::ca("p256 o-other-ca", "o-other-root").subject("Other Issuing"));
    lab.make("o-other", &Cert::client("o-other-ca"));
    vec![
        Row::device("no CA between", &["direct"]).roots(&["root"]),
        Row::device("two CAs between", &["o-two", "o-sub", "ca"]),
        Row::device("three CAs between", &["o-three", "o-subsub", "o-sub", "ca"]),
        Row::device("wrong order", &["o-three", "ca", "o-subsub", "o-sub"]),
        Row::device("the CA is missing", &["client"]).refused(&[Rule::C2]),
        Row::device("the upper CA is missing", &["o-two", "o-sub"]).refused(&[Rule::C2]),
        Row::device("the lower CA is missing", &["o-two", "ca"]).refused(&[Rule::C2]),
        Row::device("the root is sent along", &["client", "ca", "root"]),
        Row::device("the CA twice", &["client", "ca", "ca"]),
        Row::device(
            "eleven certificates",
            &["client", "ca", "ca", "ca", "ca", "ca", "ca", "ca", "ca", "ca", "ca"],
        )
        .refused(&[Rule::C2])
        .differs("C2: at most ten are looked at"),
        Row::device("unrelated certificates", &["client", "o-other", "o-other-ca", "ca", "o-other-root"]),
        Row::device("only unrelated certificates", &["client", "o-other-ca"]).refused(&[Rule::C2]),
        Row::device("the CA itself is the root", &["client"])
            .roots(&["ca"])
            .crls(&["ca-own"])
            .differs("C2: any CA may be the root"),
    ]
}

fn roots(lab: &Lab) -> Vec<Row> {
    lab.make("r-namesake", &Cert::root("p256 r-namesake"));
    lab.make("r-new", &Cert::root("p256 root").valid(days(-10), days(4_000)));
    lab.make("r-old", &Cert::root("p256 root").valid(days(-900), days(-1)));
    lab.make("r-hash", &Cert::root("p256 root").options(&["-md", "sha512"]));
    let chain = &["client", "ca"];
    vec![
        Row::device("another root", chain).roots(&["o-other-root"]).refused(&[Rule::C2]),
        Row::device("another root of that name", chain).roots(&["r-namesake"]).refused(&[Rule::C2]),
        Row::device("the root and its namesake", chain).roots(&["r-namesake", "root"]),
        Row::device("the root renewed with its key", chain).roots(&["r-new"]).crls(&["root-own", "ca-own"]),
        Row::device("the old and the renewed root", chain)
            .roots(&["r-old", "r-new"])
            .crls(&["root-own", "ca-own"]),
        Row::device("the old root alone", chain)
            .roots(&["r-old"])
            .crls(&["root-own", "ca-own"])
            .refused(&[Rule::C9]),
    ]
}

/// One CA, two certificates of it below two roots: of two paths one that holds is enough (R5).
fn crossings(lab: &Lab) -> Vec<Row> {
    for name in ["x-a", "x-b"] {
        lab.make(&format!("{name}-root"), &Cert::root(&format!("p256 {name}")).subject(name));
        lab.make(name, &Cert::ca("p256 x", &format!("{name}-root")));
    }
    lab.make("x-expired", &Cert::ca("p256 x", "x-a-root").valid(days(-100), days(-1)));
    lab.make(
        "x-servers",
        &Cert::ca("p256 x", "x-a-root").says(
            "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\nextendedKeyUsage=serverAuth",
        ),
    );
    lab.make("x-leaf", &Cert::client("x-a"));
    lab.crl("x-revoked", &Crl::of("x-a-root").revokes(&[("x-a", "CACompromise")]));
    let both = &["x-a-root", "x-b-root"];
    let own = &["x-a-own", "x-a-root-own", "x-b-root-own"];
    for issuer in ["x-a", "x-a-root", "x-b-root"] {
        lab.own_crl(issuer);
    }
    let row = |case, chain: &[&'static str]| Row::device(case, chain).roots(both).crls(own);
    let enough = "R5: one path that holds is enough";
    vec![
        row("cross-signed, both hold", &["x-leaf", "x-a", "x-b"]),
        row("cross-signed, one root known", &["x-leaf", "x-a", "x-b"]).roots(&["x-b-root"]).differs(enough),
        row("cross-signed, one expired", &["x-leaf", "x-expired", "x-b"]),
        row("cross-signed, one for servers only", &["x-leaf", "x-servers", "x-b"]).differs(enough),
        row("cross-signed, one revoked", &["x-leaf", "x-a", "x-b"])
            .crls(&["x-a-own", "x-revoked", "x-b-root-own"])
            .differs(enough),
        row("cross-signed, the revoked one alone", &["x-leaf", "x-a"])
            .crls(&["x-a-own", "x-revoked", "x-b-root-own"])
            .refused(&[Rule::R8]),
    ]
}
