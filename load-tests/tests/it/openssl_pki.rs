//! A PKI made by plain openssl commands: for each role a root and an issuing CA, and below it what the role needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Place, binary, repository, rows, run, sign_definition, system, write};

const DEVICE: &str = "web1.example.org";

/// A role's folder, its leaf's file and name, extended usage and kind of key.
struct Leaf {
    role: &'static str,
    name: &'static str,
    usage: &'static str,
    names: &'static str,
    key: &'static str,
    /// Certificate and key, below the place.
    files: [&'static str; 2],
}

const LEAVES: [Leaf; 8] = [
    leaf(
        "servers",
        "localhost",
        "serverAuth",
        "DNS:localhost,IP:127.0.0.1",
        "rsa",
        ["certs/localhost.pem", "certs/localhost.key"],
    ),
    leaf(
        "devices",
        DEVICE,
        "clientAuth",
        "DNS:web1.example.org",
        "p256",
        ["certs/web1.example.org.pem", "certs/web1.example.org.key"],
    ),
    leaf(
        "services",
        "relay.example.org",
        "clientAuth",
        "DNS:relay.example.org",
        "p256",
        ["certs/relay.pem", "certs/relay.key"],
    ),
    leaf(
        "operators",
        "alice.example.org",
        "clientAuth",
        "DNS:alice.example.org",
        "p384",
        ["home/operator/tls.pem", "home/operator/tls.key"],
    ),
    leaf(
        "orders",
        "Alice, orders",
        "codeSigning",
        "",
        "p256",
        ["home/operator/order.pem", "home/operator/order.key"],
    ),
    leaf(
        "authors",
        "Acme, authors",
        "codeSigning",
        "",
        "rsa",
        ["home/publisher/cert.pem", "home/publisher/key.pem"],
    ),
    leaf(
        "licences",
        "Acme, licences",
        "codeSigning",
        "",
        "p384",
        ["home/licensor/cert.pem", "home/licensor/key.pem"],
    ),
    leaf(
        "policies",
        "Acme, policies",
        "codeSigning",
        "",
        "p256",
        ["home/policy/cert.pem", "home/policy/key.pem"],
    ),
];

const fn leaf(
    role: &'static str,
    name: &'static str,
    usage: &'static str,
    names: &'static str,
    key: &'static str,
    files: [&'static str; 2],
) -> Leaf {
    Leaf { role, name, usage, names, key, files }
}

#[test]
fn a_pki_of_plain_openssl_commands_works_end_to_end() {
    let place = Place::empty();
    for leaf in &LEAVES {
        make(&place, leaf);
    }
    the_checker_accepts_every_certificate(&place);
    sign_documents(&place);
    place.switch_config("");
    place.background_config();
    place.client_config(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    let background = place.start_background();
    place.import_all();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);

    let answer = place.ask("SELECT name FROM os", 0);
    let listed = place.muster(["definition", "list", "-o", "json"]).with_code(0).json();

    assert_eq!(answer["states"], json!({"answered": 1}));
    assert_eq!(rows(&answer)[0]["device"], DEVICE);
    assert!(listed.as_array().unwrap().iter().all(|one| one["licensed"] == true), "{listed}");
    a_resource_and_an_event_go_by_the_background_channel(&place);
    place.muster(["doctor"]).with_code(0);
    openssl_verifies_what_muster_sign_signed(&place);
    a_policy_is_signed_verified_and_imported(&place);
    client.stop();
    background.stop();
    switch.stop();
}

/// `openssl req` and `openssl x509`: root, issuing CA, leaf with its chain.
fn make(place: &Place, leaf: &Leaf) {
    let folder = place.path("ca").join(leaf.role);
    std::fs::create_dir_all(&folder).unwrap();
    let at = |name: &str| folder.join(name);
    let organisation = format!("/C=DE/O=Acme/CN=Acme {}", leaf.role);
    let authority = "keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
    write(&at("root.ext"), &format!("basicConstraints=critical,CA:TRUE\n{authority}"));
    write(
        &at("issuing.ext"),
        &format!("basicConstraints=critical,CA:TRUE,pathlen:0\n{authority}authorityKeyIdentifier=keyid\n"),
    );
    let names =
        if leaf.names.is_empty() { String::new() } else { format!("subjectAltName={}\n", leaf.names) };
    write(
        &at("leaf.ext"),
        &format!(
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n\
             extendedKeyUsage={}\n{names}crlDistributionPoints=URI:http://pki.localhost/acme.crl\n\
             subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
            leaf.usage
        ),
    );
    request(&folder, "root", &format!("{organisation} root"), "p384");
    request(&folder, "issuing", &format!("{organisation} issuing"), "p256");
    request(&folder, "leaf", &format!("/C=DE/O=Acme/CN={}", leaf.name), leaf.key);
    let sign = |name: &str, days: &str, more: &[PathBuf], options: &[&str]| {
        let mut x509 = Command::new("openssl");
        x509.args(["x509", "-req", "-sha256", "-days", days, "-in"]).arg(at(&format!("{name}.csr")));
        x509.arg("-extfile").arg(at(&format!("{name}.ext"))).arg("-out").arg(at(&format!("{name}.pem")));
        for (option, value) in options.iter().zip(more) {
            x509.arg(option).arg(value);
        }
        run(&mut x509).with_code(0);
    };
    sign("root", "3650", &[at("root.key")], &["-signkey"]);
    sign("issuing", "1800", &[at("root.pem"), at("root.key")], &["-CA", "-CAkey"]);
    sign("leaf", "90", &[at("issuing.pem"), at("issuing.key")], &["-CA", "-CAkey"]);

    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    write(&place.path(leaf.files[0]), &format!("{}{}", read("leaf.pem"), read("issuing.pem")));
    write(&place.path(leaf.files[1]), &read("leaf.key"));
    write(&place.path(&format!("home/trust/{}.pem", leaf.role)), &read("root.pem"));
}

fn request(folder: &Path, name: &str, subject: &str, key: &str) {
    let mut request = Command::new("openssl");
    request.args(["req", "-new", "-nodes", "-subj", subject]);
    match key {
        "rsa" => request.args(["-newkey", "rsa:2048"]),
        curve => request.args([
            "-newkey",
            "ec",
            "-pkeyopt",
            &format!("ec_paramgen_curve:{}", curve.replace('p', "P-")),
        ]),
    };
    request
        .arg("-keyout")
        .arg(folder.join(format!("{name}.key")))
        .arg("-out")
        .arg(folder.join(format!("{name}.csr")));
    run(&mut request).with_code(0);
}

fn the_checker_accepts_every_certificate(place: &Place) {
    let roles = ["switch", "client", "service", "operator", "order", "author", "licensor", "policy"];
    for (leaf, role) in LEAVES.iter().zip(roles) {
        let mut check = place.command();
        check
            .args(["pki", "check", "--role", role, "--ca"])
            .arg(place.path(&format!("home/trust/{}.pem", leaf.role)));
        check.arg("--key").arg(place.path(leaf.files[1])).arg(place.path(leaf.files[0]));
        run(&mut check).with_code(0);
        // The same certificate in another role is refused: roles have separate roots.
        let mut check = place.command();
        let other = if role == "switch" { "client" } else { "switch" };
        check
            .args(["pki", "check", "--role", other, "--ca"])
            .arg(place.path(&format!("home/trust/{}.pem", leaf.role)));
        run(check.arg(place.path(leaf.files[0]))).with_code(1);
    }
}

fn sign_documents(place: &Place) {
    let certificate = place.path("home/publisher/cert.pem");
    std::fs::create_dir_all(place.path("home/definitions")).unwrap();
    for entry in std::fs::read_dir(repository().join("signing/definitions")).unwrap().flatten() {
        let authored = entry.path();
        if authored.extension().is_some_and(|extension| extension == "toml") {
            let (name, text) = (authored.file_stem().unwrap(), std::fs::read_to_string(&authored).unwrap());
            let folder = place.path("home/definitions");
            sign_definition(&folder, name.to_str().unwrap(), &text, &place.home());
        }
    }
    let mut licence = binary("muster-sign");
    licence.args([
        "licence",
        "issue",
        "--licensee",
        "Acme Ltd",
        "--tenant",
        "dev",
        "--serial",
        "7",
        "--valid",
        "365d",
    ]);
    for prefix in ["Muster", "Acme"] {
        licence.arg("--prefix").arg(format!("{prefix}={}", certificate.display()));
    }
    licence
        .arg("--key")
        .arg(place.path("home/licensor/key.pem"))
        .arg("--cert")
        .arg(place.path("home/licensor/cert.pem"));
    run(licence.arg("--out").arg(place.path("home/licence.cms"))).with_code(0);
}

fn a_resource_and_an_event_go_by_the_background_channel(place: &Place) {
    write(&place.path("words"), &"some words\n".repeat(5_000));
    let file = place.path("words");
    let lines = place.muster(["resource", "put", file.to_str().unwrap(), "--name", "words"]).with_code(0).out;
    let text = format!(
        "name = \"Acme-Words-Size\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"How large are the words?\"\n{lines}\n\
         [[step]]\nquery = \"SELECT size FROM files WHERE path = :resource_words\"\n\
         [[result]]\nname = \"size\"\ntype = \"integer\"\n"
    );
    let signed = sign_definition(&place.path(""), "Acme-Words-Size", &text, &place.home());
    place.muster(["definition", "import", signed.to_str().unwrap()]).with_code(0);

    let answer = place.muster(["run", "Acme-Words-Size", "-o", "json", "--wait", "30s"]).with_code(0).json();

    assert_eq!(answer["rows"], json!([{"device": DEVICE, "size": 55_000}]));
    place.client_command(DEVICE, &["event", "post"], &["openssl.works"]).with_code(0);
    crate::support::wait_until("the event", || place.events("openssl.works").len() == 1);
}

fn a_policy_is_signed_verified_and_imported(place: &Place) {
    let (text, signed) = (place.path("policy-1.toml"), place.path("policy-1.cms"));
    write(&text, "serial = 1\ntenant = \"dev\"\nsays = \"As installed.\"\n");
    let mut sign = binary("muster-sign");
    sign.args(["policy", "sign"]).arg(&text).arg("--home").arg(place.home());
    sign.arg("--key").arg(place.path("home/policy/key.pem"));
    sign.arg("--cert").arg(place.path("home/policy/cert.pem"));
    run(sign.arg("--out").arg(&signed)).with_code(0);
    let mut verify = binary("muster-sign");
    run(verify.args(["policy", "verify"]).arg(&signed).arg("--home").arg(place.home())).with_code(0);

    let signed = signed.to_str().unwrap();
    let imported = place.muster(["policy", "import", signed, "-o", "json"]).with_code(0).json();
    let again = place.muster(["policy", "import", signed]).with_code(0);
    let shown = place.muster(["policy", "show", "1", "-o", "json"]).with_code(0).json();
    let licence = place.path("home/licence.cms");
    let denied = place.muster(["policy", "import", licence.to_str().unwrap()]).with_code(4);
    let unknown = place.muster(["policy", "show", "2"]).with_code(2);

    assert_eq!(imported[0]["serial"], 1);
    assert!(again.out.contains("(all)"), "{}", again.out);
    assert!(shown["text"].as_str().unwrap().contains("As installed."), "{shown}");
    assert!(shown["signer"].as_str().unwrap().contains("policies"), "{shown}");
    assert!(denied.err.contains("licence") && unknown.err.contains("muster policy list"), "{}", unknown.err);
}

fn openssl_verifies_what_muster_sign_signed(place: &Place) {
    let (signed, root) = (place.path("Acme-Words-Size.cms"), place.path("home/trust/authors.pem"));
    let text = system(
        "openssl",
        &[
            "cms",
            "-verify",
            "-binary",
            "-purpose",
            "any",
            "-inform",
            "DER",
            "-in",
            signed.to_str().unwrap(),
            "-CAfile",
            root.to_str().unwrap(),
        ],
    );
    assert_eq!(text.out, std::fs::read_to_string(place.path("Acme-Words-Size.toml")).unwrap());
}
