//! Orders that are signed with a key of a PFX or of a token (G7), and that a real device runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Place, rows, run, system, write};

const DEVICE: &str = "web1.example.org";

/// The token's PIN, and the password of the PFX.
const SECRET: &str = "1234";

/// Where distributions put SoftHSM's library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// Copies the operator's order key into a token `orders`, with its certificate and that of the CA above it; its library, and the configuration
/// that leads there.
fn token(place: &Place, key: &Path, chain: &Path) -> (PathBuf, PathBuf) {
    let library = LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists());
    let library = library.expect("needs SoftHSM and pkcs11-tool: apt-get install softhsm2 opensc");
    let (configuration, tokens) = (place.path("softhsm2.conf"), place.path("tokens"));
    std::fs::create_dir(&tokens).unwrap();
    write(&configuration, &format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display()));
    let at_token = |program: &str, words: &[&str]| {
        run(Command::new(program).args(words).env("SOFTHSM2_CONF", &configuration)).with_code(0);
    };
    let words = ["--init-token", "--free", "--label", "orders", "--pin", SECRET, "--so-pin", "5678"];
    at_token("softhsm2-util", &words);
    let words = ["--import", key.to_str().unwrap(), "--token", "orders", "--pin", SECRET];
    at_token("softhsm2-util", &[&words[..], &["--label", "ann", "--id", "a1"]].concat());
    let pem = std::fs::read_to_string(chain).unwrap();
    let certificates = pem.split_inclusive("-----END CERTIFICATE-----\n");
    for (certificate, (label, id)) in certificates.zip([("ann", "a1"), ("issuing", "c1")]) {
        let [pem, der] = ["pem", "der"].map(|form| place.path(&format!("{label}.{form}")));
        write(&pem, certificate);
        let (pem, der) = (pem.to_str().unwrap(), der.to_str().unwrap());
        system("openssl", &["x509", "-in", pem, "-outform", "DER", "-out", der]);
        let module =
            ["--module", library.to_str().unwrap(), "--token-label", "orders", "--login", "--pin", SECRET];
        let object = ["--write-object", der, "--type", "cert", "--label", label, "--id", id];
        at_token("pkcs11-tool", &[&module[..], &object].concat());
    }
    (library, configuration)
}

#[test]
fn g7_an_order_is_signed_with_a_pfx_or_a_token_and_the_device_runs_it() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.background_config();
    place.client_config(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    let [key, chain, pfx] =
        ["operator/order.key", "operator/order.pem", "order.pfx"].map(|file| place.home().join(file));
    let (library, configuration) = token(&place, &key, &chain);
    let words = ["pkcs12", "-export", "-inkey", key.to_str().unwrap(), "-in", chain.to_str().unwrap()];
    system("openssl", &[&words[..], &["-passout", "pass:1234", "-out", pfx.to_str().unwrap()]].concat());
    std::fs::remove_file(&key).unwrap();
    let ask = |number: &str, named: &[&str]| {
        let query = format!("SELECT {number} AS number");
        let mut command = place.command();
        command.args(["ask", &query, "--wait", "30s", "-o", "json"]).args(named);
        command.env("SOFTHSM2_CONF", &configuration).env("MUSTER_PKCS11_MODULE", &library);
        run(command.env("MUSTER_KEY_PASSWORD", SECRET))
    };

    let without = ask("1", &[]);
    let by_pfx = ask("2", &["--order-key", pfx.to_str().unwrap()]).with_code(0).json();
    let by_token = ask("3", &["--order-key", "pkcs11:token=orders;object=ann"]).with_code(0).json();
    let elsewhere = ask("4", &["--order-key", "pkcs11:token=orders;object=ben"]);

    for (answer, number) in [(by_pfx, 2), (by_token, 3)] {
        assert_eq!(rows(&answer), [json!({ "device": DEVICE, "number": number })]);
    }
    assert!(without.code != 0 && elsewhere.code != 0);
    without.naming(&["order.key"]);
    elsewhere.naming(&["object=ben", "object=ann"]);
    client.stop();
    switch.stop();
}
