//! A folder in which the `openssl` command line makes certificates, keys and PFX files.

use std::path::PathBuf;
use std::process::{Command, Output};

use muster_pki::{Certificate, pem};
use tempfile::TempDir;

pub(crate) const RSA_2048: &[&str] = &["-newkey", "rsa:2048"];
pub(crate) const RSA_4096: &[&str] = &["-newkey", "rsa:4096"];
pub(crate) const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub(crate) const P384: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
pub(crate) const ED25519: &[&str] = &["-newkey", "ed25519"];

const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";
const LEAF: &str = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=DNS:w701.acme.local";

pub(crate) struct Forge(TempDir);

impl Forge {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with `root`, `ca` below it, and `leaf` below that (P-256): NAME.pem and NAME.key.
    pub(crate) fn with_leaf() -> Self {
        Self::with_leaf_of(P256)
    }

    pub(crate) fn with_leaf_of(key: &[&str]) -> Self {
        let forge = Self::new();
        forge.issue("root", "/CN=Root", P256, CA, None);
        forge.issue("ca", "/CN=Issuing", P256, CA, Some("root"));
        forge.issue("leaf", "/CN=w701", key, LEAF, Some("ca"));
        forge
    }

    /// Makes one more leaf below `ca`.
    pub(crate) fn leaf(&self, name: &str, subject: &str, key: &[&str]) {
        self.issue(name, subject, key, LEAF, Some("ca"));
    }

    /// Makes NAME.pem and NAME.key, self-signed unless there is an issuer.
    pub(crate) fn issue(
        &self,
        name: &str,
        subject: &str,
        key: &[&str],
        extensions: &str,
        issuer: Option<&str>,
    ) {
        let config = format!(
            "[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\nsubjectKeyIdentifier=hash\n{extensions}\n"
        );
        self.write(&format!("{name}.cnf"), config.as_bytes());
        let (config, key_file, out) = (format!("{name}.cnf"), format!("{name}.key"), format!("{name}.pem"));
        let mut arguments =
            vec!["req", "-x509", "-nodes", "-days", "90", "-subj", subject, "-config", &config];
        arguments.extend_from_slice(key);
        arguments.extend_from_slice(&["-keyout", &key_file, "-out", &out]);
        let (issuer_file, issuer_key) =
            issuer.map(|name| (format!("{name}.pem"), format!("{name}.key"))).unzip();
        if let (Some(file), Some(key)) = (&issuer_file, &issuer_key) {
            arguments.extend_from_slice(&["-CA", file, "-CAkey", key]);
        }
        self.openssl(&arguments);
    }

    /// Runs openssl in the folder and returns what it printed.
    pub(crate) fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new("openssl").args(arguments).current_dir(self.0.path()).output().unwrap()
    }

    /// Exports `leaf` with its key and its CA, and returns the PFX.
    pub(crate) fn pfx(&self, password: &str, more: &[&str]) -> Vec<u8> {
        let pass = format!("pass:{password}");
        let mut arguments =
            vec!["pkcs12", "-export", "-in", "leaf.pem", "-inkey", "leaf.key", "-certfile", "ca.pem"];
        arguments.extend_from_slice(&["-passout", &pass, "-out", "leaf.pfx"]);
        arguments.extend_from_slice(more);
        self.openssl(&arguments);
        self.read("leaf.pfx")
    }

    pub(crate) fn certificate(&self, name: &str) -> Certificate {
        let bytes = self.read(&format!("{name}.pem"));
        Certificate::from_der(&pem::certificates(&bytes, name).unwrap()[0]).unwrap()
    }

    /// Joins PEM files into NAME.
    pub(crate) fn join(&self, name: &str, files: &[&str]) -> Vec<u8> {
        let joined: Vec<u8> = files.iter().flat_map(|file| self.read(file)).collect();
        self.write(name, &joined);
        joined
    }

    #[expect(clippy::disallowed_methods, reason = "the openssl command line writes files")]
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "the openssl command line reads files")]
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
