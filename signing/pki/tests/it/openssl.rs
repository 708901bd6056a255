//! The judge: chains made by the `openssl` command line, judged by `openssl verify -purpose` and by us.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use muster_pki::authority::Revoked;
use muster_pki::{CertificateDer, Facts, Role, Roots, Rule, UnixTime, Verdict, check, pem};
use tempfile::TempDir;

use crate::support::{DAY, NOW, Pki, at, now, refusals};

const ROOT: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";
const CA: &str = ROOT;
const CLIENT: &str = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=clientAuth\nsubjectAltName=DNS:w701.acme.local\ncrlDistributionPoints=URI:http://crl.acme.local/a.crl";
const SERVER: &str = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:switch.acme.local\ncrlDistributionPoints=URI:http://crl.acme.local/a.crl";
const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha256"];
const P384: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"];
const P521: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-sha512"];
const RSA: &[&str] = &["-newkey", "rsa:2048", "-sha256"];
const RSA_SHA512: &[&str] = &["-newkey", "rsa:3072", "-sha512"];
const RSA_PSS: &[&str] = &[
    "-newkey",
    "rsa:2048",
    "-sha256",
    "-sigopt",
    "rsa_padding_mode:pss",
    "-sigopt",
    "rsa_pss_saltlen:digest",
];
const RSA_SHORT: &[&str] = &["-newkey", "rsa:1024", "-sha256"];
const RSA_SHA1: &[&str] = &["-newkey", "rsa:2048", "-sha1"];
const ED25519: &[&str] = &["-newkey", "ed25519"];

#[test]
fn c10_agrees_with_openssl_on_chains_of_every_algorithm() {
    for (name, algorithm) in [
        ("P-256", P256),
        ("P-384", P384),
        ("P-521", P521),
        ("RSA", RSA),
        ("RSA with SHA-512 (C10)", RSA_SHA512),
        ("RSA-PSS", RSA_PSS),
        ("Ed25519", ED25519),
    ] {
        let lab = Lab::new();
        lab.make("root", "Root", algorithm, ROOT, None, 3650);
        lab.make("ca", "Issuing", algorithm, CA, Some("root"), 1825);
        lab.make("leaf", "w701.acme.local", algorithm, CLIENT, Some("ca"), 90);

        lab.agree(name, Role::Device, &["leaf", "ca"], &lab.days(1), &[]);
        lab.agree(name, Role::Device, &["leaf"], &lab.days(1), &[Rule::C2]);
        lab.agree(name, Role::Device, &["leaf", "ca"], &lab.days(91), &[Rule::C9]);
    }
}

#[test]
fn agrees_with_openssl_on_purposes() {
    let lab = Lab::new();
    lab.make("root", "Root", P256, ROOT, None, 3650);
    lab.make("client", "w701.acme.local", P256, CLIENT, Some("root"), 90);
    lab.make("server", "switch.acme.local", P256, SERVER, Some("root"), 90);
    lab.make("both", "b", P256, &CLIENT.replace("=clientAuth", "=serverAuth,clientAuth"), Some("root"), 90);
    lab.make("any", "w701", P256, &CLIENT.replace("=clientAuth", "=anyExtendedKeyUsage"), Some("root"), 90);
    let unusable = CLIENT.replace("digitalSignature,keyEncipherment", "keyEncipherment");
    lab.make("unusable", "w701", P256, &unusable, Some("root"), 90);
    let stamps = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping";
    lab.make("stamp", "TSA", P256, stamps, Some("root"), 90);
    let mixed = stamps.replace("timeStamping", "timeStamping,codeSigning");
    lab.make("mixed", "TSA", P256, &mixed, Some("root"), 90);
    let lax = stamps.replace("critical,timeStamping", "timeStamping");
    lab.make("lax", "TSA", P256, &lax, Some("root"), 90);
    let time = lab.days(1);

    lab.agree("client as client", Role::Device, &["client"], &time, &[]);
    lab.agree("client as server", Role::Switch, &["client"], &time, &[Rule::C3]);
    lab.agree("server as server", Role::Switch, &["server"], &time, &[]);
    lab.agree("server as client", Role::Device, &["server"], &time, &[Rule::C3]);
    lab.agree("both as client", Role::Operator, &["both"], &time, &[]);
    lab.agree("both as server", Role::Switch, &["both"], &time, &[]);
    lab.agree("any as client", Role::Device, &["any"], &time, &[Rule::C3]);
    lab.agree("no digitalSignature", Role::Device, &["unusable"], &time, &[Rule::C4]);
    lab.agree("timestamps", Role::Timestamp, &["stamp"], &time, &[]);
    lab.agree("timestamps and more", Role::Timestamp, &["mixed"], &time, &[Rule::G5]);
    // RFC 3161 §2.3: who does not know the extension must not take such a certificate for another's.
    lab.agree("timestamps, not critical", Role::Timestamp, &["lax"], &time, &[Rule::G5]);
    lab.agree("not yet valid", Role::Device, &["client"], &lab.days(-2), &[Rule::C9]);
}

#[test]
fn agrees_with_openssl_on_wrong_cas() {
    let lab = Lab::new();
    lab.make("root", "Root", P256, ROOT, None, 3650);
    for (name, extensions, days, rule) in [
        ("no CA", "basicConstraints=CA:FALSE", 1825, Rule::C2),
        ("no basic constraints", "keyUsage=keyCertSign", 1825, Rule::C2),
        ("no keyCertSign", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,cRLSign", 1825, Rule::C2),
        ("expired", CA, 10, Rule::C9),
        ("for servers only", &format!("{CA}\nextendedKeyUsage=serverAuth"), 1825, Rule::C3),
        ("for other names", &format!("{CA}\nnameConstraints=permitted;DNS:other.local"), 1825, Rule::C2),
        ("for all but this name", &format!("{CA}\nnameConstraints=excluded;DNS:acme.local"), 1825, Rule::C2),
    ] {
        lab.make("ca", "Issuing", P256, extensions, Some("root"), days);
        lab.make("leaf", "w701.acme.local", P256, CLIENT, Some("ca"), 90);

        lab.agree(name, Role::Device, &["leaf", "ca"], &lab.days(20), &[rule]);
    }
}

#[test]
fn agrees_with_openssl_on_wrong_chains() {
    let lab = Lab::new();
    lab.make("root", "Root", P256, &ROOT.replace("CA:TRUE", "CA:TRUE,pathlen:0"), None, 3650);
    lab.make("ca", "Issuing", P256, CA, Some("root"), 1825);
    lab.make("leaf", "w701.acme.local", P256, CLIENT, Some("ca"), 90);
    lab.make("self", "w701.acme.local", P256, CLIENT, None, 90);
    let time = lab.days(1);
    lab.agree("too long for pathlen:0", Role::Device, &["leaf", "ca"], &time, &[Rule::C2]);
    lab.agree("self-signed", Role::Device, &["self"], &time, &[Rule::C8]);

    let namesake = Lab::new();
    namesake.make("root", "Root", P256, ROOT, None, 10);
    namesake.make("direct", "w701.acme.local", P256, CLIENT, Some("root"), 9);
    std::fs::copy(lab.file("leaf", "pem"), namesake.file("leaf", "pem")).unwrap();
    std::fs::copy(lab.file("ca", "pem"), namesake.file("ca", "pem")).unwrap();
    namesake.agree("a root of the same name", Role::Device, &["leaf", "ca"], &time, &[Rule::C2]);
    namesake.agree("the root itself sent along", Role::Device, &["direct", "root"], &time, &[]);
    namesake.agree("an expired root", Role::Device, &["direct"], &lab.days(11), &[Rule::C9]);
}

#[test]
fn c3_and_c8_refuse_what_openssl_accepts() {
    let lab = Lab::new();
    lab.make("root", "Root", P256, ROOT, None, 3650);
    let without_usage = CLIENT.replace("extendedKeyUsage=clientAuth\n", "");
    lab.make("no-eku", "w701.acme.local", P256, &without_usage, Some("root"), 90);
    lab.make("ca-leaf", "w701.acme.local", P256, &CLIENT.replace("CA:FALSE", "CA:TRUE"), Some("root"), 90);

    lab.stricter(&["no-eku"], "root", Rule::C3);
    lab.stricter(&["ca-leaf"], "root", Rule::C8);
}

#[test]
fn c16_refuses_short_rsa_keys_and_sha1_which_openssl_accepts() {
    let lab = Lab::new();
    lab.make("root", "Root", RSA, ROOT, None, 3650);
    lab.make("short", "w701.acme.local", RSA_SHORT, CLIENT, Some("root"), 90);
    lab.make("sha1", "w701.acme.local", RSA_SHA1, CLIENT, Some("root"), 90);
    lab.make("weak-root", "Weak", RSA_SHORT, ROOT, None, 3650);
    lab.make("below-weak", "w701.acme.local", P256, CLIENT, Some("weak-root"), 90);
    lab.make("sha1-ca", "Issuing", RSA_SHA1, CA, Some("root"), 1825);
    lab.make("below-sha1", "w701.acme.local", RSA, CLIENT, Some("sha1-ca"), 90);

    lab.stricter(&["short"], "root", Rule::C16);
    lab.stricter(&["sha1"], "root", Rule::C16);
    lab.stricter(&["below-weak"], "weak-root", Rule::C16);
    lab.stricter(&["below-sha1", "sha1-ca"], "root", Rule::C16);
}

#[test]
fn c16_the_own_signature_of_a_root_does_not_count() {
    let lab = Lab::new();
    lab.make("root", "Root", RSA_SHA1, ROOT, None, 3650);
    lab.make("leaf", "w701.acme.local", RSA, CLIENT, Some("root"), 90);

    lab.agree("a root signed with SHA-1", Role::Device, &["leaf"], &lab.days(1), &[]);
}

#[test]
fn c7_refuses_a_common_name_below_a_ca_with_name_constraints() {
    let lab = Lab::new();
    lab.make("root", "Root", P256, &format!("{ROOT}\nnameConstraints=permitted;DNS:acme.local"), None, 3650);
    let by_common_name = CLIENT.replace("subjectAltName=DNS:w701.acme.local\n", "");
    lab.make("cn", "w701.acme.local", P256, &by_common_name, Some("root"), 90);
    lab.make("san", "w701.acme.local", P256, CLIENT, Some("root"), 90);

    lab.agree("SAN", Role::Device, &["san"], &lab.days(1), &[]);
    lab.stricter(&["cn"], "root", Rule::C7);
}

#[test]
fn c2_refuses_a_root_that_is_no_ca() {
    let lab = Lab::new();
    lab.make("root", "Root", P256, "basicConstraints=CA:FALSE", None, 3650);
    lab.make("leaf", "w701.acme.local", P256, CLIENT, Some("root"), 90);

    lab.agree("a root without CA:TRUE", Role::Device, &["leaf"], &lab.days(1), &[Rule::C2]);
}

#[test]
fn openssl_accepts_what_our_ca_issues_and_its_crl() {
    let (pki, lab) = (Pki::new(), Lab::new());
    let (good, bad) = (pki.issue(Role::Device), pki.issue(Role::Device));
    let revoked = Revoked { serial_hex: bad.certificate.serial_hex(), at: now() };
    let crls = pki.issuing.crl(&[revoked], 7, now(), at(NOW + DAY)).unwrap()
        + &pki.root.crl(&[], 1, now(), at(NOW + DAY)).unwrap();
    lab.write("root", "pem", &pki.root.certificate_pem());
    lab.write("ca", "pem", &pki.issuing.certificate_pem());
    lab.write("crls", "pem", &crls);
    lab.write("good", "pem", &good.certificate_pem);
    lab.write("bad", "pem", &bad.certificate_pem);
    let crl_file = lab.file("crls", "pem");
    let verify = |leaf: &str, more: &[&str]| {
        let mut command = lab.command(Role::Device, &[leaf, "ca"], "root", &now());
        command.args(["-x509_strict"]).args(more);
        run(&mut command, lab.file(leaf, "pem"))
    };
    let with_crl = ["-crl_check_all", "-CRLfile", crl_file.to_str().unwrap()];

    assert!(verify("good", &[]) && verify("good", &with_crl));
    assert!(verify("bad", &[]) && !verify("bad", &with_crl));
}

/// A folder of certificates made by `openssl req`.
struct Lab {
    folder: TempDir,
    made_at: u64,
}

impl Lab {
    #[expect(clippy::disallowed_methods, reason = "the openssl command line takes notBefore from the clock")]
    fn new() -> Self {
        let made_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        Self { folder: tempfile::tempdir().unwrap(), made_at }
    }

    /// Returns the time so many days after the certificates were made; openssl gives them the machine's time.
    fn days(&self, days: i64) -> UnixTime {
        at(self.made_at.checked_add_signed(days * 86_400).unwrap())
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.{ending}"))
    }

    #[expect(clippy::disallowed_methods, reason = "the openssl command line reads files")]
    fn write(&self, name: &str, ending: &str, text: &str) {
        std::fs::write(self.file(name, ending), text).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "the openssl command line writes files")]
    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        let bytes = std::fs::read(self.file(name, "pem")).unwrap();
        pem::certificates(&bytes, name).unwrap().swap_remove(0)
    }

    /// Makes `NAME.pem` and `NAME.key`, signed by `issuer` or by itself.
    fn make(
        &self,
        name: &str,
        cn: &str,
        algorithm: &[&str],
        extensions: &str,
        issuer: Option<&str>,
        days: u32,
    ) {
        let config = format!(
            "[req]\ndistinguished_name=dn\nprompt=no\nx509_extensions=ext\n[dn]\nCN={cn}\n[ext]\nsubjectKeyIdentifier=hash\n{extensions}\n"
        );
        self.write(name, "cnf", &config);
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", &days.to_string()]).args(algorithm);
        command.arg("-config").arg(self.file(name, "cnf"));
        command.arg("-keyout").arg(self.file(name, "key")).arg("-out").arg(self.file(name, "pem"));
        if let Some(issuer) = issuer {
            command.arg("-CA").arg(self.file(issuer, "pem")).arg("-CAkey").arg(self.file(issuer, "key"));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Asserts that openssl accepts exactly if nothing is expected, and that we refuse by exactly the expected rules.
    fn agree(&self, case: &str, role: Role, chain: &[&str], time: &UnixTime, expected: &[Rule]) {
        let verdict = self.ours(role, chain, "root", time);
        assert_eq!(refusals(&verdict), expected, "{case}: {verdict}");
        assert_eq!(self.openssl(role, chain, "root", time), expected.is_empty(), "openssl on {case}");
    }

    /// Asserts that openssl accepts a device's chain that we refuse by one rule.
    fn stricter(&self, chain: &[&str], root: &str, rule: Rule) {
        let time = self.days(1);
        let verdict = self.ours(Role::Device, chain, root, &time);
        assert_eq!(refusals(&verdict), [rule], "{chain:?}: {verdict}");
        assert!(self.openssl(Role::Device, chain, root, &time), "{chain:?}");
    }

    fn ours(&self, role: Role, chain: &[&str], root: &str, time: &UnixTime) -> Verdict {
        let chain: Vec<_> = chain.iter().map(|name| self.certificate(name)).collect();
        let root = muster_pki::Certificate::from_der(&self.certificate(root)).unwrap();
        let roots = Roots::from_certificates([root]).unwrap();
        check(role, &chain, &roots, &Facts::at(*time))
    }

    fn openssl(&self, role: Role, chain: &[&str], root: &str, time: &UnixTime) -> bool {
        run(&mut self.command(role, chain, root, time), self.file(chain[0], "pem"))
    }

    fn command(&self, role: Role, chain: &[&str], root: &str, time: &UnixTime) -> Command {
        let purpose = match role {
            Role::Device | Role::Operator | Role::Service => "sslclient",
            Role::Switch => "sslserver",
            Role::Timestamp => "timestampsign",
            Role::Author | Role::OrderSigner | Role::Licensor | Role::Policy => "any",
        };
        let mut command = Command::new("openssl");
        command.args(["verify", "-purpose", purpose, "-attime", &time.as_secs().to_string()]);
        command.args(["-no-CAfile", "-no-CApath", "-no-CAstore", "-trusted"]).arg(self.file(root, "pem"));
        for name in &chain[1..] {
            command.arg("-untrusted").arg(self.file(name, "pem"));
        }
        command
    }
}

fn run(command: &mut Command, leaf: PathBuf) -> bool {
    command.arg(leaf).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}
