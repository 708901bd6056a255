//! Chains and CRLs that openssl makes below a root of the home.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Place, run, system, write};

/// What is said of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Refused,
}

/// A chain: how its leaf is made, and what is to be said of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// For `openssl genpkey`.
    key: &'static [&'static str],
    digest: &'static str,
    /// The CA that signs; empty: itself.
    issuer: &'static str,
    /// What goes behind the leaf.
    above: &'static [&'static str],
    /// First and last day of validity, from today.
    days: [i64; 2],
    usage: &'static str,
    point: &'static str,
}

const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const RSA_1024: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const ED25519: &[&str] = &["-algorithm", "ED25519"];

const GOOD: Chain = Chain {
    name: "p256",
    verdict: Verdict::Accepted,
    key: P256,
    digest: "sha256",
    issuer: "issuing",
    above: &["issuing"],
    days: [-10, 90],
    usage: "extendedKeyUsage=clientAuth\n",
    point: "crlDistributionPoints=URI:http://pki.localhost/acme.crl\n",
};
const BAD: Chain = Chain { verdict: Verdict::Refused, ..GOOD };

/// Every chain; those that are refused break one rule each, but for the self-signed one.
pub(super) const CHAINS: [Chain; 18] = [
    GOOD,
    Chain { name: "rsa2048", key: RSA, ..GOOD },
    Chain { name: "rsa2048-sha512", key: RSA, digest: "sha512", ..GOOD },
    Chain { name: "p384", key: P384, ..GOOD },
    Chain { name: "ed25519", key: ED25519, ..GOOD },
    Chain { name: "below-the-root", issuer: "root", above: &[], ..GOOD },
    Chain { name: "expired", days: [-90, -1], ..BAD },
    Chain { name: "not-yet-valid", days: [1, 90], ..BAD },
    Chain { name: "self-signed", issuer: "", above: &[], ..BAD },
    Chain { name: "no-eku", usage: "", ..BAD },
    Chain { name: "wrong-eku", usage: "extendedKeyUsage=serverAuth\n", ..BAD },
    Chain { name: "no-cdp", point: "", ..BAD },
    Chain { name: REVOKED, ..BAD },
    Chain { name: "revoked-intermediate", issuer: "revoked", above: &["revoked"], ..BAD },
    Chain { name: "missing-intermediate", above: &[], ..BAD },
    Chain { name: "rsa1024", key: RSA_1024, ..BAD },
    Chain { name: "sha1", digest: "sha1", ..BAD },
    Chain { name: "foreign-root", issuer: "foreign", above: &["foreign"], ..BAD },
];

const REVOKED: &str = "revoked-leaf";
const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";
/// Which files a CA keeps, and that it takes every name.
const CONFIG: &str = "[ca]\ndefault_ca=it\n[it]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\n\
    unique_subject=no\ndefault_md=sha256\npolicy=any\ncopy_extensions=none\ncrlnumber=crlnumber\n\
    crl_extensions=crl\n[any]\ncommonName=optional\n[crl]\nauthorityKeyIdentifier=keyid\n";

/// A folder of chains below the root of one of the home's roles.
pub(super) struct Lab {
    folder: PathBuf,
}

impl Lab {
    /// Makes all chains and lists for the role of that folder of the home's PKI.
    pub(super) fn make(place: &Place, role: &str) -> Self {
        let lab = Self { folder: place.path(&format!("chains-{role}")) };
        lab.write("index.txt", "");
        lab.write("ca.cnf", CONFIG);
        for kind in ["pem", "key"] {
            let root = place.home().join(format!("pki/{role}/root.{kind}"));
            std::fs::copy(root, lab.path(&format!("root.{kind}"))).unwrap();
        }
        let authority = |name: &str, issuer: &str| lab.certify(name, P256, issuer, CA, "sha256", [-20, 900]);
        authority("issuing", "root");
        authority("revoked", "root");
        authority("foreign", "");
        for chain in &CHAINS {
            let names = format!("subjectAltName=DNS:{}.example.org\n", chain.name);
            let usage =
                "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n";
            let extensions = format!("{usage}{}{names}{}", chain.usage, chain.point);
            lab.certify(chain.name, chain.key, chain.issuer, &extensions, chain.digest, chain.days);
            let above: String = chain.above.iter().map(|name| lab.read(&format!("{name}.pem"))).collect();
            lab.write(&format!("{}.leaf.pem", chain.name), &lab.read(&format!("{}.pem", chain.name)));
            lab.write(&format!("{}.above.pem", chain.name), &above);
            let whole = lab.read(&format!("{}.pem", chain.name)) + &above;
            lab.write(&format!("{}.chain.pem", chain.name), &whole);
        }
        lab.revoke("root", &["revoked"]);
        lab.revoke("issuing", &[REVOKED]);
        lab
    }

    /// `leaf.pem`, `above.pem`, `chain.pem` or `key` of a chain.
    pub(super) fn file(&self, chain: &Chain, kind: &str) -> PathBuf {
        self.path(&format!("{}.{kind}", chain.name))
    }

    /// Whether anything goes behind the leaf.
    pub(super) fn has_above(&self, chain: &Chain) -> bool {
        !chain.above.is_empty()
    }

    /// The lists of the root and of its issuing CA, each with the CA that signed it.
    pub(super) fn lists(&self) -> [PathBuf; 2] {
        ["root", "issuing"].map(|name| self.path(&format!("{name}.list.pem")))
    }

    fn certify(
        &self,
        name: &str,
        key: &[&str],
        issuer: &str,
        extensions: &str,
        digest: &str,
        days: [i64; 2],
    ) {
        run(self.openssl("genpkey").args(key).args(["-out", &format!("{name}.key")])).with_code(0);
        let request = ["-new", "-subj", "/CN=x", "-key", &format!("{name}.key"), "-out", "it.csr"];
        run(self.openssl("req").args(request)).with_code(0);
        self.write(
            "it.ext",
            &format!("subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n{extensions}"),
        );
        let mut ca = self.openssl("ca");
        ca.args(["-batch", "-notext", "-config", "ca.cnf", "-in", "it.csr", "-extfile", "it.ext"]);
        let [from, until] = days.map(calendar);
        ca.args(["-startdate", &from, "-enddate", &until, "-subj", &format!("/CN={name}.example.org")]);
        if issuer.is_empty() {
            ca.args(["-selfsign", "-keyfile", &format!("{name}.key")]);
        } else {
            ca.args(["-cert", &format!("{issuer}.pem"), "-keyfile", &format!("{issuer}.key")]);
        }
        run(ca.args(["-md", digest, "-out", &format!("{name}.pem")])).with_code(0);
    }

    /// Writes the list of a CA with these certificates on it, and the CA beside it.
    fn revoke(&self, authority: &str, revoked: &[&str]) {
        let line = |name: &&str| {
            let said = run(self.openssl("x509").args(["-noout", "-serial", "-in", &format!("{name}.pem")]));
            let serial = said.with_code(0).out.trim().replace("serial=", "");
            format!("R\t400101000000Z\t{},keyCompromise\t{serial}\tunknown\t/CN=x\n", &calendar(-1)[2..])
        };
        self.write("index.txt", &revoked.iter().map(line).collect::<String>());
        // Beyond the number of any list that the home has of its root.
        self.write("crlnumber", "1000\n");
        let mut ca = self.openssl("ca");
        ca.args(["-config", "ca.cnf", "-gencrl", "-crl_lastupdate", &calendar(-1)]);
        ca.args(["-crl_nextupdate", &calendar(30), "-cert", &format!("{authority}.pem")]);
        run(ca.args(["-keyfile", &format!("{authority}.key"), "-out", "it.crl"])).with_code(0);
        let list = self.read("it.crl") + &self.read(&format!("{authority}.pem"));
        self.write(&format!("{authority}.list.pem"), &list);
    }

    fn openssl(&self, subcommand: &str) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(&self.folder).arg(subcommand);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        write(Path::new(&self.path(name)), text);
    }
}

/// A moment so many days from now, as `openssl ca` reads it.
fn calendar(days: i64) -> String {
    let said = system("date", &["-u", "-d", &format!("{days} days"), "+%Y%m%d%H%M%SZ"]);
    said.out.trim().to_owned()
}
