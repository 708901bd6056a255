//! Rows about the leaf: purpose, Key Usage, distribution point, name, validity, self-signed, algorithm.

use muster_pki::Rule;

use super::Row;
use super::lab::{CA, CDP, CLIENT, Cert, Lab, SERVER, days};

const ANY: &str = "anyExtendedKeyUsage";

pub(super) fn rows(lab: &Lab) -> Vec<Row> {
    lab.make("root", &Cert::root("p256 root"));
    lab.make("ca", &Cert::ca("p256 ca", "root"));
    lab.make("client", &Cert::client("ca"));
    lab.make("server", &Cert::server("ca"));
    [purposes(lab), key_usages(lab), distribution_points(lab), names(lab), validity(lab), own(lab), keys(lab)]
        .concat()
}

fn purposes(lab: &Lab) -> Vec<Row> {
    for (name, usages) in [
        ("both", "serverAuth,clientAuth"),
        ("any", ANY),
        ("any-and-client", "anyExtendedKeyUsage,clientAuth"),
        ("code", "codeSigning"),
        ("unknown", "1.2.3.4"),
        ("critical", "critical,clientAuth"),
        ("empty", "DER:30:00"),
    ] {
        let extensions = CLIENT.replace("=clientAuth", &format!("={usages}"));
        lab.make(name, &Cert::client("ca").says(&extensions));
    }
    lab.make("no-eku", &Cert::client("ca").says(&CLIENT.replace("extendedKeyUsage=clientAuth\n", "")));
    lab.make("no-eku-s", &Cert::server("ca").says(&SERVER.replace("extendedKeyUsage=serverAuth\n", "")));
    vec![
        Row::device("clientAuth, client", &["client", "ca"]),
        Row::switch("clientAuth, server", &["client", "ca"]).refused(&[Rule::C3]),
        Row::switch("serverAuth, server", &["server", "ca"]),
        Row::device("serverAuth, client", &["server", "ca"]).refused(&[Rule::C3]),
        Row::device("both, client", &["both", "ca"]),
        Row::switch("both, server", &["both", "ca"]),
        Row::device("critical clientAuth", &["critical", "ca"]),
        Row::device("anyExtendedKeyUsage alone", &["any", "ca"]).refused(&[Rule::C3]),
        Row::device("anyExtendedKeyUsage, clientAuth", &["any-and-client", "ca"]),
        Row::device("EKU without any purpose", &["empty", "ca"]).refused(&[Rule::C2, Rule::C3]),
        Row::device("codeSigning", &["code", "ca"]).refused(&[Rule::C3]),
        Row::device("an unknown purpose alone", &["unknown", "ca"]).refused(&[Rule::C3]),
        Row::device("no EKU, client", &["no-eku", "ca"])
            .refused(&[Rule::C3])
            .differs("C3: a missing EKU is refused"),
        Row::switch("no EKU, server", &["no-eku-s", "ca"])
            .refused(&[Rule::C3])
            .differs("C3: a missing EKU is refused"),
    ]
}

fn key_usages(lab: &Lab) -> Vec<Row> {
    let usage = "keyUsage=critical,digitalSignature,keyEncipherment\n";
    for (name, usages) in [
        ("ku-none", ""),
        ("ku-sign", "keyUsage=critical,digitalSignature\n"),
        ("ku-both-soft", "keyUsage=digitalSignature,keyEncipherment\n"),
        ("ku-encipher", "keyUsage=critical,keyEncipherment\n"),
        ("ku-agree", "keyUsage=critical,keyAgreement\n"),
        (
            "ku-all",
            "keyUsage=digitalSignature,nonRepudiation,keyEncipherment,dataEncipherment,keyAgreement\n",
        ),
    ] {
        lab.make(name, &Cert::client("ca").says(&CLIENT.replace(usage, usages)));
        let rsa = format!("rsa-{name}");
        lab.make(&rsa, &Cert::client("ca").key("rsa2048 leaf").says(&CLIENT.replace(usage, usages)));
    }
    lab.make("s-encipher", &Cert::server("ca").says(&SERVER.replace("digitalSignature,", "")));
    let needed = "C4: digitalSignature is needed";
    let rsa = "C4: RSA needs keyEncipherment";
    vec![
        Row::device("KU absent, ECDSA", &["ku-none", "ca"])
            .refused(&[Rule::C4])
            .differs("C4: a missing KU is refused"),
        Row::device("KU absent, RSA", &["rsa-ku-none", "ca"])
            .refused(&[Rule::C4])
            .differs("C4: a missing KU is refused"),
        Row::device("KU signature, ECDSA", &["ku-sign", "ca"]),
        Row::device("KU signature, RSA", &["rsa-ku-sign", "ca"]).refused(&[Rule::C4]).differs(rsa),
        Row::device("KU both, not critical, RSA", &["rsa-ku-both-soft", "ca"]),
        Row::device("KU all, RSA", &["rsa-ku-all", "ca"]),
        Row::device("KU encipherment, client", &["ku-encipher", "ca"]).refused(&[Rule::C4]),
        Row::switch("KU encipherment, server", &["s-encipher", "ca"]).refused(&[Rule::C4]).differs(needed),
        Row::device("KU agreement, client", &["ku-agree", "ca"]).refused(&[Rule::C4]).differs(needed),
    ]
}

fn distribution_points(lab: &Lab) -> Vec<Row> {
    let point = |uris: &str| CLIENT.replace(CDP, uris);
    lab.make("no-cdp", &Cert::client("ca").says(&point("")));
    lab.make("no-cdp-s", &Cert::server("ca").says(&SERVER.replace(CDP, "")));
    let ldap = "crlDistributionPoints=URI:ldap://dc/cn=ca";
    lab.make("ldap", &Cert::client("ca").says(&point(ldap)));
    lab.make(
        "ldap-http",
        &Cert::client("ca").says(&point(&format!("{ldap},URI:HTTP://crl.acme.local/a.crl"))),
    );
    lab.make(
        "https",
        &Cert::client("ca").says(&point("crlDistributionPoints=URI:https://crl.acme.local/a.crl")),
    );
    let missing = "C6: openssl asks for no CDP";
    vec![
        Row::device("no CDP, client", &["no-cdp", "ca"]).refused(&[Rule::C6]).differs(missing),
        Row::switch("no CDP, server", &["no-cdp-s", "ca"]).refused(&[Rule::C6]).differs(missing),
        Row::device("CDP over ldap alone", &["ldap", "ca"]).refused(&[Rule::C6]).differs(missing),
        Row::device("CDP over ldap, and over http", &["ldap-http", "ca"]),
        Row::device("CDP over https", &["https", "ca"]),
    ]
}

fn names(lab: &Lab) -> Vec<Row> {
    let named = |names: &str| SERVER.replace("subjectAltName=DNS:switch.acme.local", names);
    for (name, subject, names) in [
        ("cn", "switch.acme.local", ""),
        ("other-san", "switch.acme.local", "subjectAltName=DNS:other.acme.local"),
        ("second-san", "x", "subjectAltName=DNS:other.acme.local,DNS:switch.acme.local"),
        ("wild", "x", "subjectAltName=DNS:*.acme.local"),
        ("partly-wild", "x", "subjectAltName=DNS:sw*.acme.local"),
        ("address", "x", "subjectAltName=DNS:switch.acme.local,IP:10.0.0.1"),
        ("address-as-name", "x", "subjectAltName=DNS:10.0.0.1"),
        ("mail", "switch.acme.local", "subjectAltName=email:a@acme.local"),
    ] {
        lab.make(name, &Cert::server("ca").subject(subject).says(&named(names)));
    }
    let wild = CLIENT.replace("DNS:w701", "DNS:*");
    lab.make("nul", &Cert::server("ca").says(&named(&with_nul("switch.acme.local", ".evil.org"))));
    lab.make("wild-client", &Cert::client("ca").says(&wild));
    let server = |case, leaf| Row::switch(case, &[leaf, "ca"]).name("switch.acme.local");
    vec![
        server("SAN", "server"),
        server("SAN in another case", "server").name("SWITCH.Acme.Local"),
        server("wrong name", "server").name("other.acme.local").refused(&[Rule::C7]),
        server("name of the parent", "server").name("acme.local").refused(&[Rule::C7]),
        server("second SAN", "second-san"),
        server("CN without SAN", "cn"),
        server("CN beside another SAN", "other-san").refused(&[Rule::C7]),
        server("CN beside a SAN that is no name", "mail"),
        server("name with a NUL behind it", "nul").refused(&[Rule::C7]),
        server("wildcard", "wild"),
        server("wildcard, two labels", "wild").name("a.b.acme.local").refused(&[Rule::C7]),
        server("wildcard, no label", "wild").name("acme.local").refused(&[Rule::C7]),
        server("wildcard within a label", "partly-wild")
            .refused(&[Rule::C7])
            .differs("C7: a wildcard is a whole label"),
        server("address", "address").name("10.0.0.1"),
        server("another address", "address").name("10.0.0.2").refused(&[Rule::C7]),
        server("address as dNSName", "address-as-name").name("10.0.0.1").refused(&[Rule::C7]),
        Row::device("client's name", &["client", "ca"]).name("W701.acme.local"),
        Row::device("another client's name", &["client", "ca"]).name("w702.acme.local").refused(&[Rule::C7]),
        Row::device("wildcard of a client", &["wild-client", "ca"])
            .name("w701.acme.local")
            .refused(&[Rule::C7])
            .differs("C7: no wildcard for a client"),
    ]
}

/// Returns a SAN dNSName of two parts with a NUL between them, which a C string would end at.
fn with_nul(name: &str, rest: &str) -> String {
    let text = [name.as_bytes(), b"\0", rest.as_bytes()].concat();
    let length = u8::try_from(text.len()).unwrap();
    let der = [&[0x30, length + 2, 0x82, length], text.as_slice()].concat();
    let hex: Vec<String> = der.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("subjectAltName=DER:{}", hex.join(":"))
}

fn validity(lab: &Lab) -> Vec<Row> {
    lab.make("expired", &Cert::client("ca").valid(days(-50), -1));
    lab.make("last-moment", &Cert::client("ca").valid(days(-50), 0));
    lab.make("first-moment", &Cert::client("ca").valid(0, days(50)));
    lab.make("future", &Cert::client("ca").valid(1, days(50)));
    lab.make("after-2050", &Cert::client("ca").valid(days(-50), days(12_000)));
    vec![
        Row::device("expired a second ago", &["expired", "ca"]).refused(&[Rule::C9]),
        Row::device("the last second of its time", &["last-moment", "ca"])
            .differs("C9: notAfter itself is within"),
        Row::device("the first second of its time", &["first-moment", "ca"]),
        Row::device("valid from the next second on", &["future", "ca"]).refused(&[Rule::C9]),
        Row::device("valid beyond 2050", &["after-2050", "ca"]),
    ]
}

fn own(lab: &Lab) -> Vec<Row> {
    // With cRLSign, since a self-signed certificate is the issuer of its own CRL.
    let signs = |extensions: &str| extensions.replace("keyEncipherment", "keyEncipherment,cRLSign");
    lab.make("self", &Cert::client("").says(&signs(CLIENT)));
    lab.make("self-s", &Cert::server("").says(&signs(SERVER)));
    lab.make("ca-leaf", &Cert::client("ca").says(&CLIENT.replace("CA:FALSE", "CA:TRUE")));
    lab.make("root-as-server", &Cert::server("").says(&signs(SERVER).replace("CA:FALSE", "CA:TRUE")));
    lab.make("namesake", &Cert::client("ca").subject("Issuing"));
    lab.make("no-constraints", &Cert::client("ca").says(&CLIENT.replace("basicConstraints=CA:FALSE\n", "")));
    lab.make("unknown-critical", &Cert::client("ca").says(&format!("{CLIENT}\n1.2.3.4=critical,ASN1:NULL")));
    lab.make("unknown-soft", &Cert::client("ca").says(&format!("{CLIENT}\n1.2.3.4=ASN1:NULL")));
    lab.make("version-1", &Cert::client("ca").says(""));
    let own = "C8: openssl trusts what is a root";
    vec![
        Row::device("self-signed leaf", &["self"]).refused(&[Rule::C8]),
        Row::device("self-signed leaf, trusted", &["self"])
            .roots(&["self"])
            .refused(&[Rule::C8])
            .differs(own),
        Row::switch("self-signed server, trusted", &["self-s"])
            .roots(&["self-s"])
            .refused(&[Rule::C8])
            .differs(own),
        Row::switch("root as server", &["root-as-server"])
            .roots(&["root-as-server"])
            .refused(&[Rule::C8])
            .differs(own),
        Row::switch("server among the roots", &["server", "ca"])
            .roots(&["root", "server"])
            .refused(&[Rule::C8])
            .differs(own),
        Row::device("CA as leaf", &["ca-leaf", "ca"]).refused(&[Rule::C8]).differs("C8: a CA is no leaf"),
        Row::device("leaf with the name of its CA", &["namesake", "ca"]),
        Row::device("no basic constraints", &["no-constraints", "ca"]),
        Row::device("unknown critical extension", &["unknown-critical", "ca"]).refused(&[Rule::C2]),
        Row::device("unknown extension", &["unknown-soft", "ca"]),
        Row::device("version 1", &["version-1", "ca"])
            .refused(&[Rule::C2, Rule::C3, Rule::C4, Rule::C6])
            .differs("C3: without extensions"),
    ]
}

/// C10 and C16: chains of one kind each, and leaves of all kinds below one CA.
fn keys(lab: &Lab) -> Vec<Row> {
    let pss: &[&str] =
        &["-md", "sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
    let sha1 = ["-md", "sha1"].as_slice();
    for (name, key, options) in [
        ("rsa2048", "rsa2048", ["-md", "sha256"].as_slice()),
        ("rsa384", "rsa2048", &["-md", "sha384"]),
        ("rsa512", "rsa3072", &["-md", "sha512"]),
        ("rsa4096", "rsa4096", &["-md", "sha256"]),
        ("pss", "rsa2048", pss),
        ("p384", "p384", &["-md", "sha384"]),
        ("p521", "p521", &["-md", "sha512"]),
        ("p256-512", "p256", &["-md", "sha512"]),
        ("ed25519", "ed25519", &["-md", "default"]),
    ] {
        let (root, authority) = (format!("{name}-root"), format!("{name}-ca"));
        // One RSA key for all three: what is judged is its length and what it signed.
        let key = format!("{key} own");
        lab.make(&root, &Cert::root(&key).options(options));
        lab.make(&authority, &Cert::ca(&key, &root).options(options));
        lab.make(&format!("{name}-leaf"), &Cert::client(&authority).key(&key).options(options));
    }
    for (name, key) in [
        ("k-rsa1024", "rsa1024"),
        ("k-pss", "pss2048"),
        ("k-p224", "p224"),
        ("k-secp256k1", "secp256k1"),
        ("k-ed448", "ed448"),
    ] {
        lab.make(name, &Cert::client("ca").key(key));
        lab.make(&format!("{name}-root"), &Cert::root(key));
        lab.make(&format!("{name}-below"), &Cert::client(&format!("{name}-root")));
    }
    lab.make("sha1-leaf", &Cert::client("rsa2048-ca").options(sha1));
    let pss_sha1 =
        ["-md", "sha1", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"].as_slice();
    lab.make("pss-sha1-leaf", &Cert::client("rsa2048-ca").options(pss_sha1));
    lab.make("md5-leaf", &Cert::client("rsa2048-ca").options(&["-md", "md5"]));
    lab.make("sha224-leaf", &Cert::client("rsa2048-ca").options(&["-md", "sha224"]));
    lab.make("ecdsa-sha1-leaf", &Cert::client("ca").options(sha1));
    lab.make("sha1-ca", &Cert::ca("rsa2048 own", "rsa2048-root").options(sha1));
    lab.make("below-sha1-ca", &Cert::client("sha1-ca").options(&["-md", "sha256"]));
    lab.make("sha1-root", &Cert::root("rsa2048 own").options(sha1));
    lab.make("below-sha1-root", &Cert::client("sha1-root").options(&["-md", "sha256"]));
    lab.make("weak-ca", &Cert::ca("rsa1024", "root").says(CA));
    lab.make("below-weak-ca", &Cert::client("weak-ca"));
    [good_keys(), bad_keys()].concat()
}

fn good_keys() -> Vec<Row> {
    vec![
        Row::device("RSA 2048, SHA-256", &["rsa2048-leaf", "rsa2048-ca"]).roots(&["rsa2048-root"]),
        Row::device("RSA 2048, SHA-384", &["rsa384-leaf", "rsa384-ca"]).roots(&["rsa384-root"]),
        Row::device("RSA 3072, SHA-512", &["rsa512-leaf", "rsa512-ca"]).roots(&["rsa512-root"]),
        Row::device("RSA 4096, SHA-256", &["rsa4096-leaf", "rsa4096-ca"]).roots(&["rsa4096-root"]),
        Row::device("RSA-PSS 2048, SHA-256", &["pss-leaf", "pss-ca"]).roots(&["pss-root"]),
        Row::device("P-384, SHA-384", &["p384-leaf", "p384-ca"]).roots(&["p384-root"]),
        Row::device("P-521, SHA-512", &["p521-leaf", "p521-ca"]).roots(&["p521-root"]),
        Row::device("P-256, SHA-512", &["p256-512-leaf", "p256-512-ca"]).roots(&["p256-512-root"]),
        Row::device("Ed25519", &["ed25519-leaf", "ed25519-ca"]).roots(&["ed25519-root"]),
        Row::device("SHA-1 on the root alone", &["below-sha1-root"]).roots(&["sha1-root"]),
    ]
}

fn bad_keys() -> Vec<Row> {
    let short = "C16: RSA below 2048";
    let hash = "C16: a broken or unsupported hash";
    let curve = "C16: P-256, P-384, P-521, Ed25519";
    let refused =
        |case, chain: &[&'static str], reason| Row::device(case, chain).refused(&[Rule::C16]).differs(reason);
    vec![
        refused("RSA 1024 leaf", &["k-rsa1024", "ca"], short),
        refused("RSA 1024 CA", &["below-weak-ca", "weak-ca"], short),
        refused("RSA 1024 root", &["k-rsa1024-below"], short).roots(&["k-rsa1024-root"]),
        refused("RSA-PSS key of a leaf", &["k-pss", "ca"], "C16: TLS here verifies none"),
        refused("RSA-PSS key of a root", &["k-pss-below"], "C16: TLS here verifies none")
            .roots(&["k-pss-root"]),
        refused("P-224 leaf", &["k-p224", "ca"], curve),
        refused("P-224 root", &["k-p224-below"], curve).roots(&["k-p224-root"]),
        refused("secp256k1 leaf", &["k-secp256k1", "ca"], curve),
        refused("secp256k1 root", &["k-secp256k1-below"], curve).roots(&["k-secp256k1-root"]),
        refused("Ed448 leaf", &["k-ed448", "ca"], curve),
        refused("Ed448 root", &["k-ed448-below"], curve).roots(&["k-ed448-root"]),
        refused("SHA-1 leaf, RSA", &["sha1-leaf", "rsa2048-ca"], hash).roots(&["rsa2048-root"]),
        refused("SHA-1 leaf, ECDSA", &["ecdsa-sha1-leaf", "ca"], hash),
        refused("SHA-1 leaf, RSA-PSS", &["pss-sha1-leaf", "rsa2048-ca"], hash).roots(&["rsa2048-root"]),
        refused("MD5 leaf", &["md5-leaf", "rsa2048-ca"], hash).roots(&["rsa2048-root"]),
        refused("SHA-224 leaf", &["sha224-leaf", "rsa2048-ca"], hash).roots(&["rsa2048-root"]),
        refused("SHA-1 CA", &["below-sha1-ca", "sha1-ca"], hash).roots(&["rsa2048-root"]),
    ]
}
