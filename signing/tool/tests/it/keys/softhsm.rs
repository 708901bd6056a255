//! Tokens of SoftHSM, in a folder of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The PIN of every token.
pub(super) const PIN: &str = "1234";

/// Where distributions put the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// A store of tokens.
pub(super) struct SoftHsm {
    dir: tempfile::TempDir,
    pub(super) library: PathBuf,
}

impl SoftHsm {
    /// A store with one token, `signing`.
    pub(super) fn new() -> Self {
        let library = LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists());
        let library = library.expect("needs SoftHSM and pkcs11-tool: apt-get install softhsm2 opensc");
        let store = Self { dir: tempfile::tempdir().unwrap(), library };
        std::fs::create_dir(store.dir.path().join("tokens")).unwrap();
        store.configure("");
        store.token("signing");
        store
    }

    /// Adds lines to the configuration.
    pub(super) fn configure(&self, more: &str) {
        let tokens = self.dir.path().join("tokens");
        let text = format!("directories.tokendir = {}\nlog.level = ERROR\n{more}\n", tokens.display());
        std::fs::write(self.dir.path().join("softhsm2.conf"), text).unwrap();
    }

    /// Makes another token.
    pub(super) fn token(&self, label: &str) {
        self.run(
            "softhsm2-util",
            &["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "5678"],
        );
    }

    /// Puts a key of a file into a token, for signing.
    pub(super) fn key(&self, token: &str, key: &Path, label: &str, id: &str) {
        let key = key.display().to_string();
        self.run(
            "softhsm2-util",
            &["--import", &key, "--token", token, "--label", label, "--id", id, "--pin", PIN],
        );
    }

    /// Puts a certificate of a PEM file into a token.
    pub(super) fn certificate(&self, token: &str, pem: &Path, label: &str, id: &str) {
        let der = self.dir.path().join("certificate.der").display().to_string();
        let pem = pem.display().to_string();
        self.run("openssl", &["x509", "-in", &pem, "-outform", "DER", "-out", &der]);
        self.tool(token, &["--write-object", &der, "--type", "cert", "--label", label, "--id", id]);
    }

    /// Runs `pkcs11-tool`, logged in to a token.
    pub(super) fn tool(&self, token: &str, arguments: &[&str]) {
        let library = self.library.display().to_string();
        let begin = ["--module", &library, "--token-label", token, "--login", "--pin", PIN];
        self.run("pkcs11-tool", &[&begin, arguments].concat());
    }

    /// What tells a program where the tokens are.
    pub(super) fn variables(&self) -> [(String, String); 2] {
        let conf = self.dir.path().join("softhsm2.conf").display().to_string();
        let library = self.library.display().to_string();
        [("SOFTHSM2_CONF".to_owned(), conf), ("MUSTER_PKCS11_MODULE".to_owned(), library)]
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).envs(self.variables()).output();
        let output = output.unwrap_or_else(|error| {
            panic!("needs {program} ({error}): apt-get install softhsm2 opensc openssl")
        });
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
