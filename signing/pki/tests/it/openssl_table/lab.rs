//! A folder of keys, certificates and CRLs that `openssl ca` makes, with times of our choice.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Output};

use muster_pki::{Certificate, CertificateDer, pem};
use tempfile::TempDir;

use crate::support::{DAY, NOW};

/// What a CA says of itself.
pub(super) const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";
/// A distribution point over http.
pub(super) const CDP: &str = "crlDistributionPoints=URI:http://crl.acme.local/issuing.crl";
/// Nothing is wrong with a client's certificate that says this.
pub(super) const CLIENT: &str = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n\
     extendedKeyUsage=clientAuth\nsubjectAltName=DNS:w701.acme.local\n\
     crlDistributionPoints=URI:http://crl.acme.local/issuing.crl";
/// Nothing is wrong with a server's certificate that says this.
pub(super) const SERVER: &str = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n\
     extendedKeyUsage=serverAuth\nsubjectAltName=DNS:switch.acme.local\n\
     crlDistributionPoints=URI:http://crl.acme.local/issuing.crl";

/// One for all: which files a CA keeps, and that it takes every name.
const CONFIG: &str = "[ca]\ndefault_ca=it\n[it]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\n\
     unique_subject=no\ndefault_md=default\npolicy=any\ncopy_extensions=none\ncrlnumber=crlnumber\n\
     crl_extensions=crl\n[any]\ncommonName=optional\norganizationName=optional\n";

/// A certificate to make.
#[derive(Clone, Copy)]
pub(super) struct Cert<'a> {
    /// Its key's kind and name, as `p256 leaf`; the kind is one of [`generate`]'s.
    pub(super) key: &'a str,
    /// Its CN.
    pub(super) subject: &'a str,
    /// The name of the certificate that signs; empty: it signs itself.
    pub(super) issuer: &'a str,
    /// Lines of openssl's extension section; empty makes a certificate of version 1.
    pub(super) extensions: &'a str,
    /// First and last moment, in seconds from now.
    pub(super) valid: (i64, i64),
    /// Further arguments, such as `-md sha1`.
    pub(super) options: &'a [&'a str],
}

impl<'a> Cert<'a> {
    /// A root of a kind of key.
    pub(super) const fn root(key: &'a str) -> Self {
        let valid = (days(-300), days(3_000));
        Self { key, subject: "Root", issuer: "", extensions: CA, valid, options: &["-md", "default"] }
    }

    /// A CA below `issuer`.
    pub(super) const fn ca(key: &'a str, issuer: &'a str) -> Self {
        Self { subject: "Issuing", issuer, valid: (days(-200), days(2_000)), ..Self::root(key) }
    }

    /// A client's certificate below `issuer`.
    pub(super) const fn client(issuer: &'a str) -> Self {
        let subject = "w701.acme.local";
        Self { subject, extensions: CLIENT, valid: (days(-100), days(100)), ..Self::ca("p256 leaf", issuer) }
    }

    /// A server's certificate below `issuer`.
    pub(super) const fn server(issuer: &'a str) -> Self {
        Self { subject: "switch.acme.local", extensions: SERVER, ..Self::client(issuer) }
    }

    pub(super) const fn key(self, key: &'a str) -> Self {
        Self { key, ..self }
    }

    pub(super) const fn subject(self, subject: &'a str) -> Self {
        Self { subject, ..self }
    }

    pub(super) const fn says(self, extensions: &'a str) -> Self {
        Self { extensions, ..self }
    }

    pub(super) const fn valid(self, from: i64, until: i64) -> Self {
        Self { valid: (from, until), ..self }
    }

    pub(super) const fn options(self, options: &'a [&'a str]) -> Self {
        Self { options, ..self }
    }
}

/// A CRL to make; by default a fresh one that revokes nobody.
#[derive(Clone, Copy)]
pub(super) struct Crl<'a> {
    /// The CA whose name and key it has.
    pub(super) issuer: &'a str,
    /// Its CRLNumber; `None` without extensions makes a CRL of version 1.
    pub(super) number: Option<u32>,
    /// Names of certificates, each with openssl's word for the reason.
    pub(super) revoked: &'a [(&'a str, &'a str)],
    /// thisUpdate and nextUpdate, in seconds from now.
    pub(super) valid: (i64, i64),
    /// Further CRL extensions.
    pub(super) extensions: &'a str,
    /// Further arguments.
    pub(super) options: &'a [&'a str],
}

impl<'a> Crl<'a> {
    pub(super) const fn of(issuer: &'a str) -> Self {
        let options = &["-md", "default"];
        Self { issuer, number: Some(1), revoked: &[], valid: (days(-1), days(30)), extensions: "", options }
    }

    pub(super) const fn number(self, number: u32) -> Self {
        Self { number: Some(number), ..self }
    }

    pub(super) const fn revokes(self, revoked: &'a [(&'a str, &'a str)]) -> Self {
        Self { revoked, ..self }
    }

    pub(super) const fn valid(self, from: i64, until: i64) -> Self {
        Self { valid: (from, until), ..self }
    }
}

pub(super) const fn days(days: i64) -> i64 {
    days * 86_400
}

/// The folder. Keys are generated once each; a CA gets a fresh CRL of its own as soon as one is asked for.
pub(super) struct Lab {
    folder: TempDir,
    keys: RefCell<BTreeSet<String>>,
    issuers: RefCell<BTreeMap<String, String>>,
    /// Certificates without extensions.
    plain: RefCell<BTreeSet<String>>,
}

impl Lab {
    pub(super) fn new() -> Self {
        let lab = Self {
            folder: tempfile::tempdir().unwrap(),
            keys: RefCell::default(),
            issuers: RefCell::default(),
            plain: RefCell::default(),
        };
        lab.write("index.txt", "");
        lab.write("ca.cnf", &format!("{CONFIG}[crl]\nauthorityKeyIdentifier=keyid\n"));
        lab
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "the openssl command line reads files")]
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "the openssl command line writes files")]
    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Returns a certificate that was made, as DER.
    pub(super) fn der(&self, name: &str) -> CertificateDer<'static> {
        pem::certificates(&self.read(&format!("{name}.pem")), name).unwrap().swap_remove(0)
    }

    pub(super) fn certificate(&self, name: &str) -> Certificate {
        Certificate::from_der(&self.der(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Returns the name of the certificate that signed this one; its own if it signed itself.
    pub(super) fn issuer(&self, name: &str) -> String {
        self.issuers.borrow()[name].clone()
    }

    /// Makes `NAME.pem`.
    pub(super) fn make(&self, name: &str, cert: &Cert<'_>) {
        let key = self.key(cert.key);
        let request = format!("{key}.csr");
        let (from, until) = (calendar(cert.valid.0), calendar(cert.valid.1));
        let subject = format!("/CN={}", cert.subject);
        let out = format!("{name}.pem");
        let mut command = self.openssl(&["ca", "-batch", "-notext", "-config", "ca.cnf", "-in", &request]);
        command.args(["-subj", &subject, "-startdate", &from, "-enddate", &until, "-out", &out]);
        let issuer = if cert.issuer.is_empty() {
            command.args(["-selfsign", "-keyfile", &format!("{key}.key")]);
            name
        } else {
            command.args(["-cert", &format!("{}.pem", cert.issuer)]);
            command.args(["-keyfile", &format!("{}.signs.key", cert.issuer)]);
            cert.issuer
        };
        if !cert.extensions.is_empty() {
            let identifiers = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";
            // An issuer of version 1 has no identifier to name.
            let is_plain = self.plain.borrow().contains(issuer);
            let identifiers = if is_plain { "" } else { identifiers };
            self.write("extensions.cnf", &format!("[x]\n{identifiers}\n{}\n", cert.extensions));
            command.args(["-extfile", "extensions.cnf", "-extensions", "x"]);
        } else {
            self.plain.borrow_mut().insert(name.to_owned());
        }
        done(name, &command.args(cert.options).output().unwrap());
        // The key goes by the certificate's name too, so that an issuer is one name.
        std::fs::copy(self.file(&format!("{key}.key")), self.file(&format!("{name}.signs.key"))).unwrap();
        self.issuers.borrow_mut().insert(name.to_owned(), issuer.to_owned());
    }

    /// Makes `NAME.crl`.
    pub(super) fn crl(&self, name: &str, crl: &Crl<'_>) {
        let mut index = String::new();
        for (revoked, reason) in crl.revoked {
            let serial = self.certificate(revoked).serial_hex().to_uppercase();
            let at = &calendar(days(-2))[2..];
            index += &format!("R\t400101000000Z\t{at},{reason}\t{serial}\tunknown\t/CN=x\n");
        }
        self.write("revoked.txt", &index);
        self.write("crlnumber", &format!("{:04X}\n", crl.number.unwrap_or(0)));
        let mut config = CONFIG.replace("index.txt", "revoked.txt");
        if crl.number.is_none() {
            config = config.replace("crlnumber=crlnumber\n", "");
        }
        if crl.number.is_none() && crl.extensions.is_empty() {
            config = config.replace("crl_extensions=crl\n", "");
        }
        config += &format!("[crl]\nauthorityKeyIdentifier=keyid\n{}\n", crl.extensions);
        self.write("crl.cnf", &config);
        let (from, until) = (calendar(crl.valid.0), calendar(crl.valid.1));
        let mut command = self.openssl(&["ca", "-config", "crl.cnf", "-gencrl", "-crl_lastupdate", &from]);
        command.args(["-crl_nextupdate", &until, "-cert", &format!("{}.pem", crl.issuer)]);
        command.args(["-keyfile", &format!("{}.signs.key", crl.issuer), "-out", &format!("{name}.crl")]);
        done(name, &command.args(crl.options).output().unwrap());
    }

    /// Returns a fresh CRL of a CA that revokes nobody, and makes it the first time.
    pub(super) fn own_crl(&self, issuer: &str) -> String {
        let name = format!("{issuer}-own");
        if !self.file(&format!("{name}.crl")).exists() {
            self.crl(&name, &Crl::of(issuer));
        }
        name
    }

    /// Returns a command that runs in the folder.
    pub(super) fn openssl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// Returns the name of a key's files, and generates it the first time.
    fn key(&self, key: &str) -> String {
        let name = key.replace(' ', "-");
        if self.keys.borrow_mut().insert(name.clone()) {
            let file = format!("{name}.key");
            let mut command = self.openssl(&["genpkey", "-out", &file]);
            command.args(generate(key.split(' ').next().unwrap()));
            done(key, &command.output().unwrap());
            let request = format!("{name}.csr");
            let mut command =
                self.openssl(&["req", "-new", "-key", &file, "-subj", "/CN=x", "-out", &request]);
            done(key, &command.output().unwrap());
        }
        name
    }
}

/// Returns how `openssl genpkey` makes a kind of key.
fn generate(kind: &str) -> Vec<String> {
    let option = |algorithm: &str, option: String| {
        ["-algorithm", algorithm, "-pkeyopt", &option].map(str::to_owned).to_vec()
    };
    match kind {
        "ed25519" | "ed448" => vec!["-algorithm".to_owned(), kind.to_owned()],
        "p224" | "p256" | "p384" | "p521" => {
            option("EC", format!("ec_paramgen_curve:{}", kind.replace('p', "P-")))
        }
        "pss2048" => option("RSA-PSS", "rsa_keygen_bits:2048".to_owned()),
        "secp256k1" => option("EC", format!("ec_paramgen_curve:{kind}")),
        rsa => option("RSA", format!("rsa_keygen_bits:{}", rsa.trim_start_matches("rsa"))),
    }
}

fn done(what: &str, output: &Output) {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns a moment as `YYYYMMDDHHMMSSZ`, which `openssl ca` reads.
fn calendar(from_now: i64) -> String {
    let seconds = i64::try_from(NOW).unwrap() + from_now;
    let format = time::macros::format_description!("[year][month][day][hour][minute][second]Z");
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap().format(&format).unwrap()
}

const _: () = assert!(days(1) == DAY.cast_signed());
