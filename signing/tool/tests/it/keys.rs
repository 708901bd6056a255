//! Where a signing key may be (G7): PEM, PFX, and tokens of SoftHSM; judged by `openssl cms`.

mod documents;
mod files;
mod prompt;
mod softhsm;
mod token;

use std::path::Path;
use std::process::{Command, Output};

use crate::authority::run;
use crate::openssl::{check, pki};

/// What is signed.
const DEFINITION: &str = "name = \"Acme-Os-Version\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"Which?\"\n\n\
                          [[step]]\nquery = \"SELECT version FROM os\"\n\n[[result]]\nname = \"version\"\ntype = \"text\"\n";

/// Below nothing that a test sees: no terminal, so that nobody is asked.
const WITHOUT_TERMINAL: &str = "setsid";

/// A folder with root.pem, issuing.pem, leaf.pem, leaf.key of that kind, and a definition to sign.
fn lab(key: &[&str]) -> tempfile::TempDir {
    let dir = pki(key);
    std::fs::write(dir.path().join("a.toml"), DEFINITION).unwrap();
    dir
}

/// Signs the definition, which must succeed; openssl and our own verifier accept what comes out.
fn sign(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) {
    let output = muster_sign(dir, arguments, variables);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    accepted(dir);
}

/// Holds a.cms against the root.
fn accepted(dir: &Path) {
    let verify =
        "cms -verify -cades -inform DER -in a.cms -CAfile root.pem -purpose any -binary -out content";
    run(dir, &verify.split_whitespace().collect::<Vec<_>>());
    assert_eq!(std::fs::read(dir.join("content")).unwrap(), DEFINITION.as_bytes());
    let envelope = std::fs::read(dir.join("a.cms")).unwrap();
    assert_eq!(check(dir, &envelope), DEFINITION.as_bytes());
    std::fs::remove_file(dir.join("a.cms")).unwrap();
}

/// Signs the definition, which must be refused; what was said.
fn refuse(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = muster_sign(dir, arguments, variables);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(!dir.join("a.cms").exists(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn muster_sign(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let definition = ["definition", "sign", "a.toml", "--out", "a.cms"];
    command(dir, &[&definition, arguments].concat(), variables)
}

/// Runs any command of `muster-sign`.
fn command(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(WITHOUT_TERMINAL)
        .args(["--wait", env!("CARGO_BIN_EXE_muster-sign")])
        .args(arguments)
        .current_dir(dir)
        .env_remove("MUSTER_HOME")
        .env_remove("MUSTER_PKCS11_MODULE")
        .env_remove("MUSTER_KEY_PASSWORD")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}
