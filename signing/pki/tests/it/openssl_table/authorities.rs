//! Rows about the CAs above: what makes one, what it may issue, how far down.

use muster_pki::Rule;

use super::Row;
use super::lab::{CA, CLIENT, Cert, Crl, Lab, days};

/// A client's certificate with a mail address beside its name.
const MAIL: &str = "subjectAltName=DNS:w701.acme.local,email:a@acme.local";

pub(super) fn rows(lab: &Lab) -> Vec<Row> {
    [kinds(lab), purposes(lab), validity(lab), path_lengths(lab), name_constraints(lab)].concat()
}

/// Makes a CA that says something below `root`, and a client below it.
fn below(lab: &Lab, authority: &str, leaf: &str, extensions: &str) {
    lab.make(authority, &Cert::ca(&format!("p256 {authority}"), "root").says(extensions));
    lab.make(leaf, &Cert::client(authority));
}

fn kinds(lab: &Lab) -> Vec<Row> {
    below(lab, "k-soft", "k-soft-leaf", "basicConstraints=CA:TRUE\nkeyUsage=keyCertSign,cRLSign");
    below(lab, "k-no-ku", "k-no-ku-leaf", "basicConstraints=critical,CA:TRUE");
    below(lab, "k-false", "k-false-leaf", "basicConstraints=CA:FALSE\nkeyUsage=keyCertSign,cRLSign");
    below(lab, "k-none", "k-none-leaf", "keyUsage=keyCertSign,cRLSign");
    below(lab, "k-no-sign", "k-no-sign-leaf", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,cRLSign");
    below(lab, "k-no-crl", "k-no-crl-leaf", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign");
    below(lab, "k-unknown", "k-unknown-leaf", &format!("{CA}\n1.2.3.4=critical,ASN1:NULL"));
    let demand = |criticality| {
        format!("{CA}\ncertificatePolicies=1.2.3.4\npolicyConstraints={criticality}requireExplicitPolicy:0")
    };
    below(lab, "k-policy", "k-policy-leaf", &demand("critical,"));
    below(lab, "k-soft-policy", "k-no-policy", &demand(""));
    lab.make(
        "k-with-policy",
        &Cert::client("k-soft-policy").says(&format!("{CLIENT}\ncertificatePolicies=1.2.3.4")),
    );
    lab.make("by-leaf", &Cert::client("client").subject("w702.acme.local"));
    lab.make("k-root-false", &Cert::root("p256 k-root").says("basicConstraints=CA:FALSE"));
    lab.make("k-root-false-leaf", &Cert::client("k-root-false"));
    lab.make("k-root-v1", &Cert::root("p256 k-root-v1").says(""));
    lab.make("k-root-v1-leaf", &Cert::client("k-root-v1"));
    lab.crl("k-root-v1", &Crl { number: None, ..Crl::of("k-root-v1") });
    vec![
        Row::device("CA, nothing critical", &["k-soft-leaf", "k-soft"]),
        Row::device("CA without KU", &["k-no-ku-leaf", "k-no-ku"]),
        Row::device("CA with CA:FALSE", &["k-false-leaf", "k-false"]).refused(&[Rule::C2]),
        Row::device("CA without basic constraints", &["k-none-leaf", "k-none"]).refused(&[Rule::C2]),
        Row::device("CA without keyCertSign", &["k-no-sign-leaf", "k-no-sign"]).refused(&[Rule::C2]),
        Row::device("CA with an unknown critical ext.", &["k-unknown-leaf", "k-unknown"])
            .refused(&[Rule::C2]),
        Row::device("CA that demands a policy, critical", &["k-policy-leaf", "k-policy"])
            .refused(&[Rule::C2])
            .differs("C2: webpki knows no policies"),
        Row::device("CA that demands a policy, not there", &["k-no-policy", "k-soft-policy"])
            .refused(&[Rule::C2])
            .differs("C2: openssl wants -policy_check"),
        Row::device("CA that demands a policy, there", &["k-with-policy", "k-soft-policy"]),
        Row::device("issued by a client", &["by-leaf", "client", "ca"]).crls(&[]).refused(&[Rule::C2]),
        Row::device("root with CA:FALSE", &["k-root-false-leaf"])
            .roots(&["k-root-false"])
            .refused(&[Rule::C2]),
        Row::device("root of version 1", &["k-root-v1-leaf"])
            .roots(&["k-root-v1"])
            .crls(&["k-root-v1"])
            .refused(&[Rule::C2])
            .differs("C2: a root says CA:TRUE"),
    ]
}

fn purposes(lab: &Lab) -> Vec<Row> {
    for (name, usages) in [
        ("e-client", "clientAuth"),
        ("e-server", "serverAuth"),
        ("e-any", "anyExtendedKeyUsage"),
        ("e-both", "critical,serverAuth,clientAuth"),
    ] {
        below(lab, name, &format!("{name}-leaf"), &format!("{CA}\nextendedKeyUsage={usages}"));
    }
    lab.make("e-root", &Cert::root("p256 e-root").says(&format!("{CA}\nextendedKeyUsage=serverAuth")));
    lab.make("e-root-leaf", &Cert::client("e-root"));
    vec![
        Row::device("CA for clients", &["e-client-leaf", "e-client"]),
        Row::device("CA for both", &["e-both-leaf", "e-both"]),
        Row::device("CA for servers only", &["e-server-leaf", "e-server"]).refused(&[Rule::C3]),
        Row::device("CA for any purpose", &["e-any-leaf", "e-any"]).refused(&[Rule::C3]),
        Row::device("root for servers only", &["e-root-leaf"]).roots(&["e-root"]).refused(&[Rule::C3]),
    ]
}

fn validity(lab: &Lab) -> Vec<Row> {
    lab.make("v-expired", &Cert::ca("p256 v", "root").valid(days(-20), -1));
    lab.make("v-expired-leaf", &Cert::client("v-expired"));
    lab.make("v-future", &Cert::ca("p256 v", "root").valid(1, days(20)));
    lab.make("v-future-leaf", &Cert::client("v-future"));
    lab.make("v-root", &Cert::root("p256 v-root").valid(days(-20), -1));
    lab.make("v-root-leaf", &Cert::client("v-root"));
    vec![
        Row::device("CA expired", &["v-expired-leaf", "v-expired"]).refused(&[Rule::C9]),
        Row::device("CA not yet valid", &["v-future-leaf", "v-future"]).refused(&[Rule::C9]),
        Row::device("root expired", &["v-root-leaf"]).roots(&["v-root"]).refused(&[Rule::C9]),
    ]
}

fn path_lengths(lab: &Lab) -> Vec<Row> {
    let length = |most: u32| CA.replace("CA:TRUE", &format!("CA:TRUE,pathlen:{most}"));
    for (name, most) in [("l-root-0", 0), ("l-root-1", 1)] {
        lab.make(name, &Cert::root(&format!("p256 {name}")).subject(name).says(&length(most)));
        lab.make(&format!("{name}-ca"), &Cert::ca("p256 l-ca", name));
        lab.make(&format!("{name}-ca-leaf"), &Cert::client(&format!("{name}-ca")));
        lab.make(&format!("{name}-leaf"), &Cert::client(name));
    }
    below(lab, "l-ca-0", "l-ca-0-leaf", &length(0));
    lab.make("l-sub", &Cert::ca("p256 l-sub", "l-ca-0").subject("Sub"));
    lab.make("l-sub-leaf", &Cert::client("l-sub"));
    lab.make("l-rollover", &Cert::ca("p256 l-rollover", "l-ca-0"));
    lab.make("l-rollover-leaf", &Cert::client("l-rollover"));
    vec![
        Row::device("root pathlen:0, no CA below", &["l-root-0-leaf"]).roots(&["l-root-0"]),
        Row::device("root pathlen:0, one CA below", &["l-root-0-ca-leaf", "l-root-0-ca"])
            .roots(&["l-root-0"])
            .refused(&[Rule::C2]),
        Row::device("root pathlen:1, one CA below", &["l-root-1-ca-leaf", "l-root-1-ca"])
            .roots(&["l-root-1"]),
        Row::device("CA pathlen:0, no CA below", &["l-ca-0-leaf", "l-ca-0"]),
        Row::device("CA pathlen:0, one CA below", &["l-sub-leaf", "l-sub", "l-ca-0"]).refused(&[Rule::C2]),
        Row::device("CA pathlen:0, its own rollover", &["l-rollover-leaf", "l-rollover", "l-ca-0"])
            .refused(&[Rule::C2])
            .differs("C2: self-issued CAs count"),
    ]
}

fn name_constraints(lab: &Lab) -> Vec<Row> {
    for (name, constraints) in [
        ("n-in", "critical,permitted;DNS:acme.local"),
        ("n-soft", "permitted;DNS:acme.local"),
        ("n-out", "critical,permitted;DNS:other.local"),
        ("n-excluded", "critical,excluded;DNS:acme.local"),
        ("n-mail", "critical,permitted;email:acme.local"),
        ("n-dir", "critical,permitted;dirName:names"),
        ("n-address", "critical,permitted;IP:10.0.0.0/255.0.0.0"),
    ] {
        let names = if constraints.ends_with("names") { "\n[names]\nCN=w701.acme.local" } else { "" };
        below(lab, name, &format!("{name}-leaf"), &format!("{CA}\nnameConstraints={constraints}{names}"));
    }
    let by_common_name = CLIENT.replace("subjectAltName=DNS:w701.acme.local\n", "");
    lab.make("n-in-cn", &Cert::client("n-in").says(&by_common_name));
    lab.make("n-out-cn", &Cert::client("n-out").says(&by_common_name));
    lab.make(
        "n-mail-mail",
        &Cert::client("n-mail").says(&CLIENT.replace("subjectAltName=DNS:w701.acme.local", MAIL)),
    );
    let address = CLIENT.replace("DNS:w701.acme.local", "DNS:w701.acme.local,IP:10.1.1.1");
    lab.make("n-address-in", &Cert::client("n-address").says(&address));
    lab.make("n-address-out", &Cert::client("n-address").says(&address.replace("10.1.1.1", "11.1.1.1")));
    lab.make(
        "n-root",
        &Cert::root("p256 n-root").says(&format!("{CA}\nnameConstraints=permitted;DNS:other.local")),
    );
    lab.make("n-root-leaf", &Cert::client("n-root"));
    vec![
        Row::device("name within constraints", &["n-in-leaf", "n-in"]),
        Row::device("name within, not critical", &["n-soft-leaf", "n-soft"]),
        Row::device("name outside constraints", &["n-out-leaf", "n-out"]).refused(&[Rule::C2]),
        Row::device("name excluded", &["n-excluded-leaf", "n-excluded"]).refused(&[Rule::C2]),
        Row::device("name outside those of the root", &["n-root-leaf"])
            .roots(&["n-root"])
            .refused(&[Rule::C2]),
        Row::device("CN within constraints", &["n-in-cn", "n-in"])
            .refused(&[Rule::C7])
            .differs("C7: no CN below constraints"),
        Row::device("CN outside constraints", &["n-out-cn", "n-out"]).refused(&[Rule::C7]),
        Row::device("address within constraints", &["n-address-in", "n-address"]),
        Row::device("address outside constraints", &["n-address-out", "n-address"]).refused(&[Rule::C2]),
        Row::device("constraints on mail, none there", &["n-mail-leaf", "n-mail"]),
        Row::device("constraints on mail", &["n-mail-mail", "n-mail"])
            .refused(&[Rule::C2])
            .differs("C2: constraints on DNS, IP only"),
        Row::device("constraints on directory names", &["n-dir-leaf", "n-dir"])
            .refused(&[Rule::C2])
            .differs("C2: constraints on DNS, IP only"),
    ]
}
