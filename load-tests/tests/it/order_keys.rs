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

/// Moves the operator's order key into a token `orders`; its library, and the configuration that leads there.
fn token(place: &Place, key: &Path, certificate: &Path) -> (PathBuf, PathBuf) {
    let library = LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists());
    let library = library.expect("needs SoftHSM and pkcs11-tool: apt-get install softhsm2 opensc");
    let (configuration, tokens, der) =
        (place.path("softhsm2.conf"), place.path("tokens"), place.path("order.der"));
    std::fs::create_dir(&tokens).unwrap();
    write(&configuration, &format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display()));
    let said = |path: &Path| path.to_str().unwrap().to_owned();
    let (module, certificate, key, der) = (said(&library), said(certificate), said(key), said(&der));
    system("openssl", &["x509", "-in", &certificate, "-outform", "DER", "-out", &der]);
    let id = ["--label", "ann", "--id", "a1"];
    for (program, words) in [
        (
            "softhsm2-util",
            &["--init-token", "--free", "--label", "orders", "--pin", SECRET, "--so-pin", "5678"][..],
        ),
        ("softhsm2-util", &[&["--import", &key, "--token", "orders", "--pin", SECRET][..], &id].concat()),
        (
            "pkcs11-tool",
            &[
                &["--module", &module, "--token-label", "orders", "--login", "--pin", SECRET][..],
                &["--write-object", &der, "--type", "cert"],
                &id,
            ]
            .concat(),
        ),
    ] {
        run(Command::new(program).args(words).env("SOFTHSM2_CONF", &configuration)).with_code(0);
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
    let [key, certificate, pfx] =
        ["operator/order.key", "operator/order.pem", "order.pfx"].map(|file| place.home().join(file));
    let (library, configuration) = token(&place, &key, &certificate);
    let words = ["pkcs12", "-export", "-inkey", key.to_str().unwrap(), "-in", certificate.to_str().unwrap()];
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
