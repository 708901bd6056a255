//! The judge of revocation: CRLs made by `openssl ca -gencrl`, judged by `openssl verify -crl_check_all` and by us.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use muster_pki::authority::Issued;
use muster_pki::{
    Certificate, CrlError, CrlWarning, Facts, RevocationIndex, RevocationMode, Role, Rule, Verdict, pem,
};
use tempfile::TempDir;

use crate::support::{DAY, NOW, Pki, at, now, refusals};

/// NOW and a week later, as openssl takes times.
const THIS_UPDATE: &str = "260601000000Z";
const NEXT_UPDATE: &str = "260608000000Z";

const SCOPE: &str = "issuingDistributionPoint=critical,@scope\n[scope]\n";

#[test]
fn r5_agrees_with_openssl_on_scopes_and_reasons() {
    let lab = Lab::new();
    lab.gencrl("root", &Gen::default());
    let number = "crlnumber=crlnumber\n";
    for (case, entry, ca, extensions, expected) in [
        ("good", "", number, "", vec![]),
        ("without a CRLNumber, version 1", "", "", "", vec![]),
        ("revoked", "revoked", number, "", vec![Rule::R2]),
        ("revoked, version 1", "revoked", "", "", vec![Rule::R2]),
        ("on hold", "certificateHold", number, "", vec![Rule::R2]),
        ("key compromised", "keyCompromise", number, "", vec![Rule::R2]),
        ("removed", "removeFromCRL", number, "", vec![]),
        ("for users", "", number, "onlyuser=TRUE", vec![]),
        ("for users, revoked", "revoked", number, "onlyuser=TRUE", vec![Rule::R2]),
        ("for CAs", "", number, "onlyCA=TRUE", vec![Rule::R6]),
        ("for attribute certificates", "", number, "onlyAA=TRUE", vec![Rule::R6]),
        ("for some reasons", "", number, "onlysomereasons=keyCompromise,CACompromise", vec![Rule::R6]),
        ("indirect", "", number, "indirectCRL=TRUE", vec![Rule::R6]),
        ("for its distribution point", "", number, "fullname=URI:http://crl.acme.local/issuing.crl", vec![]),
        (
            "for another distribution point",
            "",
            number,
            "fullname=URI:http://crl.acme.local/2.crl",
            vec![Rule::R6],
        ),
    ] {
        let extensions = if extensions.is_empty() { String::new() } else { format!("{SCOPE}{extensions}\n") };
        lab.gencrl("issuing", &Gen { entry, ca, extensions: &extensions, ..Gen::default() });

        let verdict = lab.ours(NOW + DAY);

        assert_eq!(refusals(&verdict), expected, "{case}: {verdict}");
        assert_eq!(lab.openssl(NOW + DAY), expected.is_empty(), "openssl on {case}");
    }
}

#[test]
fn r6_agrees_with_openssl_on_times() {
    let lab = Lab::new();
    lab.gencrl("root", &Gen { next_update: "260701000000Z", ..Gen::default() });
    lab.gencrl("issuing", &Gen::default());

    for (seconds, expected) in [
        (NOW + 7 * DAY - 1, vec![]),
        (NOW + 7 * DAY + 1, vec![Rule::R6]),
        (NOW - 1_800, vec![Rule::R6]), // Further ahead than clocks differ.
    ] {
        let verdict = lab.ours(seconds);

        assert_eq!(refusals(&verdict), expected, "{seconds}: {verdict}");
        assert_eq!(lab.openssl(seconds), expected.is_empty(), "openssl at {seconds}");
    }
}

#[test]
fn r5_warns_of_a_crl_of_openssl_without_a_number() {
    let lab = Lab::new();
    let load = |ca| {
        lab.gencrl("issuing", &Gen { ca, ..Gen::default() });
        let mut index = RevocationIndex::default();
        index.load(&lab.read("issuing.crl"), &lab.issuers(), now()).map(|loaded| loaded[0].warnings.clone())
    };

    assert_eq!(load("crlnumber=crlnumber\n"), Ok(vec![]));
    assert_eq!(load(""), Ok(vec![CrlWarning::NoNumber]));
}

#[test]
fn r5_numbers_of_openssl_go_up_and_an_older_crl_is_refused() {
    let lab = Lab::new();
    let mut index = RevocationIndex::default();
    let numbered = Gen { ca: "crlnumber=crlnumber\n", ..Gen::default() };
    lab.gencrl("issuing", &numbered);
    let first = lab.read("issuing.crl");
    lab.gencrl("issuing", &numbered);
    let second = lab.read("issuing.crl");

    assert_eq!(index.add(&first, &lab.issuers(), now()), Ok(()));
    assert_eq!(index.add(&second, &lab.issuers(), now()), Ok(()));
    let replayed = index.add(&first, &lab.issuers(), now());

    assert!(matches!(replayed, Err(CrlError::Older { .. })), "{replayed:?}");
}

#[test]
fn c16_refuses_crls_with_sha1_and_of_short_rsa_keys() {
    let lab = Lab::new();
    lab.self_signed("rsa", &["-newkey", "rsa:2048"], "keyCertSign,cRLSign");
    lab.self_signed("short", &["-newkey", "rsa:1024"], "keyCertSign,cRLSign");
    for (name, md, expected) in [
        ("rsa", "sha256", None),
        ("rsa", "sha512", None),
        ("rsa", "sha1", Some("sha1WithRSAEncryption")),
        ("rsa", "md5", Some("md5WithRSAEncryption")),
        ("short", "sha256", Some("RSA 1024")),
        ("issuing", "sha256", None),
        ("issuing", "sha1", Some("1.2.840.10045.4.1")),
    ] {
        lab.gencrl(name, &Gen { md, ..Gen::default() });

        let loaded = lab.load(name);

        match (expected, loaded) {
            (None, loaded) => assert_eq!(loaded, Ok(()), "{name} with {md}"),
            (Some(told), Err(CrlError::Signature { problem, .. })) => {
                assert!(problem.contains(told), "{name} with {md}: {problem}");
            }
            (Some(_), loaded) => panic!("{name} with {md}: {loaded:?}"),
        }
    }
}

#[test]
fn r5_refuses_an_issuer_that_may_not_sign_crls() {
    let lab = Lab::new();
    let p256 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    lab.self_signed("may", &p256, "keyCertSign,cRLSign");
    lab.self_signed("may-not", &p256, "keyCertSign");
    for name in ["may", "may-not"] {
        lab.gencrl(name, &Gen::default());
    }

    assert_eq!(lab.load("may"), Ok(()));
    assert!(matches!(lab.load("may-not"), Err(CrlError::UnknownIssuer { .. })));
}

/// What `openssl ca -gencrl` is to make.
struct Gen<'a> {
    /// `revoked`, or a reason; empty: no entry.
    entry: &'a str,
    /// Lines of the CA's section.
    ca: &'a str,
    /// Lines of the extensions' section; empty: no such section.
    extensions: &'a str,
    md: &'a str,
    next_update: &'a str,
}

impl Default for Gen<'_> {
    fn default() -> Self {
        Self {
            entry: "",
            ca: "crlnumber=crlnumber\n",
            extensions: "",
            md: "sha256",
            next_update: NEXT_UPDATE,
        }
    }
}

/// A folder with a root, an issuing CA and a device, and what openssl makes of them.
struct Lab {
    folder: TempDir,
    pki: Pki,
    device: Issued,
}

impl Lab {
    fn new() -> Self {
        let pki = Pki::new();
        let device = pki.issue(Role::Device);
        let lab = Self { folder: tempfile::tempdir().unwrap(), pki, device };
        for (name, authority) in [("root", &lab.pki.root), ("issuing", &lab.pki.issuing)] {
            lab.write(&format!("{name}.pem"), &authority.certificate_pem());
            lab.write(&format!("{name}.key"), &authority.key_pem());
        }
        lab.write("device.pem", &lab.device.certificate_pem);
        lab.write("crlnumber", "01\n");
        lab
    }

    /// Makes a CA of its own: `NAME.pem` and `NAME.key`.
    fn self_signed(&self, name: &str, algorithm: &[&str], key_usage: &str) {
        let mut command = self.openssl_command();
        command
            .args(["req", "-x509", "-nodes", "-days", "30", "-subj", &format!("/CN={name}")])
            .args(algorithm);
        command.args(["-addext", &format!("keyUsage=critical,{key_usage}")]);
        command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        succeed(&mut command);
    }

    /// Makes `CA.crl`.
    fn gencrl(&self, ca: &str, wanted: &Gen<'_>) {
        let serial = self.device.certificate.serial_hex().to_uppercase();
        let entry = match wanted.entry {
            "" => String::new(),
            "revoked" => format!("R\t270101000000Z\t260501000000Z\t{serial}\tunknown\t/CN=x\n"),
            reason => format!("R\t270101000000Z\t260501000000Z,{reason}\t{serial}\tunknown\t/CN=x\n"),
        };
        self.write("index.txt", &entry);
        let (lines, extensions) = match wanted.extensions {
            "" => (String::new(), String::new()),
            extensions => ("crl_extensions=extensions\n".to_owned(), format!("[extensions]\n{extensions}")),
        };
        let own = wanted.ca;
        self.write(
            "ca.cnf",
            &format!("[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\ndefault_crl_days=7\n{own}{lines}{extensions}"),
        );
        let mut command = self.openssl_command();
        command.args(["ca", "-config", "ca.cnf", "-gencrl", "-md", wanted.md]);
        command.args(["-crl_lastupdate", THIS_UPDATE, "-crl_nextupdate", wanted.next_update]);
        command.args(["-cert", &format!("{ca}.pem"), "-keyfile", &format!("{ca}.key")]);
        succeed(command.args(["-out", &format!("{ca}.crl")]));
    }

    /// Our verdict in mode `hard`, so that it is accepted only where every CRL is there and fresh.
    fn ours(&self, seconds: u64) -> Verdict {
        let mut index = RevocationIndex::default();
        for name in ["root.crl", "issuing.crl"] {
            // One that is not used is one that is not there.
            drop(index.add(&self.read(name), &self.issuers(), at(seconds)));
        }
        index.set_rule_of_others(RevocationMode::Hard, Some(at(seconds)));
        let facts = Facts { revocation: Some(&index), ..Facts::at(at(seconds)) };
        self.pki.check_at(Role::Device, &self.device, &facts)
    }

    fn openssl(&self, seconds: u64) -> bool {
        let mut command = self.openssl_command();
        command.args(["verify", "-crl_check_all", "-attime", &seconds.to_string(), "-trusted", "root.pem"]);
        command.args([
            "-untrusted",
            "issuing.pem",
            "-CRLfile",
            "root.crl",
            "-CRLfile",
            "issuing.crl",
            "device.pem",
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Loads `CA.crl` with `CA.pem` as the only candidate.
    fn load(&self, ca: &str) -> Result<(), CrlError> {
        let der = pem::certificates(&self.read(&format!("{ca}.pem")), ca).unwrap().swap_remove(0);
        let issuer = Certificate::from_der(&der).unwrap();
        RevocationIndex::default().add(&self.read(&format!("{ca}.crl")), &[issuer], now())
    }

    fn issuers(&self) -> [Certificate; 2] {
        [&self.pki.root, &self.pki.issuing].map(|authority| authority.certificate().clone())
    }

    fn openssl_command(&self) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(self.folder.path());
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "the openssl command line reads files")]
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "the openssl command line writes files")]
    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(name)).unwrap()
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
