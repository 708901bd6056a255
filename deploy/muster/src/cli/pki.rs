//! What can be typed behind `muster pki`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::output::Format;

/// `muster pki`
#[derive(Debug, Subcommand)]
pub(crate) enum Pki {
    /// Make a development CA: roots and issuing CAs by role, operator, publisher, policies' administrator, licence,
    /// signed platform definitions
    Init(PkiInit),
    /// Issue a certificate
    Issue(PkiIssue),
    /// Revoke a certificate by device name or serial, and write a new CRL
    #[command(after_help = "Examples:\n  muster pki revoke web1.example.org\n  \
        muster pki revoke alice --role operator\n  \
        muster pki revoke 135046361c23d7bcc31540ef1a3cdbc4")]
    Revoke {
        /// DeviceId or serial (hex)
        subject: String,
        /// Whose CA
        #[arg(long, default_value = "device")]
        role: String,
    },
    /// Write fresh CRLs, of roots and issuing CAs, and print their paths and where certificates say that they are published
    #[command(
        after_help = "Examples:\n  muster pki crl --publish /var/www/crl\n  muster pki crl --role device\n\n\
        Each CA has two lists, and both must be published: BASE/ROLES.crl of the issuing CA, and BASE/ROLES-root.crl of the root. \
        A CA without a fresh list is refused sooner or later."
    )]
    Crl {
        /// Whose CA [default: every one]
        #[arg(long)]
        role: Option<String>,
        /// The folder that the web server of the distribution points serves: the lists go there, in DER, under the names that certificates tell
        #[arg(long, value_name = "DIR")]
        publish: Option<PathBuf>,
    },
    /// Show what the certificates of a file say
    #[command(after_help = "Examples:\n  muster pki inspect web1.example.org.pem -o json")]
    Inspect {
        /// The file
        file: PathBuf,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Hold a certificate against the rules and print every finding: exit 0 accepted, 1 refused
    Check(PkiCheck),
}

/// `muster pki init`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster pki init --tenant acme --crl-url http://crl.acme.example/muster\n  \
    muster pki crl --publish DIR    (again before a CRL is 30 days old, and after each revocation; BASE must serve DIR)"
)]
pub(crate) struct PkiInit {
    /// The organisation that the licence names
    #[arg(long, default_value = "dev")]
    pub(crate) tenant: String,
    /// Where the CRLs will be published; certificates name BASE/ROLES.crl as their distribution point, issuing CAs
    /// BASE/ROLES-root.crl
    #[arg(long, value_name = "BASE", default_value = crate::pki_home::CRL_BASE_URL, value_parser = base_url)]
    pub(crate) crl_url: String,
}

/// `muster pki issue`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  muster pki issue web1.example.org --out certs/\n  \
    muster pki issue localhost --role switch --ip 127.0.0.1 --days 90 --out certs/\n  \
    muster pki issue web1.example.org --omit-cdp --out wrong/    (to see what refuses it)")]
pub(crate) struct PkiIssue {
    /// The name: a device's DeviceId, a server's host name, an operator's or author's name
    pub(crate) name: String,
    /// device, operator, switch, service, author, order, licensor, policy, timestamp
    #[arg(long, default_value = "device")]
    pub(crate) role: String,
    /// Further DNS names
    #[arg(long)]
    pub(crate) dns: Vec<String>,
    /// Addresses (servers only)
    #[arg(long)]
    pub(crate) ip: Vec<std::net::IpAddr>,
    /// Valid for this many days; negative: it expired that long ago
    #[arg(long, default_value_t = 365, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-3650..=3650))]
    pub(crate) days: i32,
    /// Where its CA's CRL is published [default: as `pki init --crl-url` said]
    #[arg(long, value_name = "URL")]
    pub(crate) crl_url: Option<String>,
    /// Folder for NAME.pem (leaf and issuing CA) and NAME.key
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    pub(crate) force: bool,
    /// What is to be wrong with it
    #[command(flatten)]
    pub(crate) flaws: Flaws,
}

/// What is wrong with a certificate on purpose: each breaks one rule of spec/trust.md.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Wrong on purpose, to see what refuses it")]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line; each stands alone")]
pub(crate) struct Flaws {
    /// C6: no CRL distribution point
    #[arg(long, conflicts_with = "crl_url")]
    pub(crate) omit_cdp: bool,
    /// C3: the Extended Key Usage of another role
    #[arg(long)]
    pub(crate) wrong_eku: bool,
    /// C3: no Extended Key Usage at all
    #[arg(long, conflicts_with = "wrong_eku")]
    pub(crate) omit_eku: bool,
    /// C4: keyAgreement in place of digitalSignature
    #[arg(long)]
    pub(crate) wrong_key_usage: bool,
    /// C4: no Key Usage at all
    #[arg(long, conflicts_with = "wrong_key_usage")]
    pub(crate) omit_key_usage: bool,
    /// C7: another name than the one asked for
    #[arg(long)]
    pub(crate) wrong_name: bool,
    /// C8: signed by its own key
    #[arg(long)]
    pub(crate) self_signed: bool,
    /// C8: calls itself a CA
    #[arg(long)]
    pub(crate) ca: bool,
    /// C9: it ended yesterday
    #[arg(long, conflicts_with = "days")]
    pub(crate) expired: bool,
    /// C9: it begins tomorrow
    #[arg(long, conflicts_with_all = ["days", "expired"])]
    pub(crate) not_yet_valid: bool,
}

/// `muster pki check`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster pki check --role client --ca roots.pem --name web1.example.org web1.pem\n  \
        muster pki check --role client --ca roots.pem --password-file pw.txt web1.pfx\n  \
        muster pki check --role server --ca servers.pem --crl servers.crl switch.example.org:4000"
)]
pub(crate) struct PkiCheck {
    /// client, operator, server, service, author, order, licensor, policy, timestamp
    #[arg(long)]
    pub(crate) role: String,
    /// The roots (PEM)
    #[arg(long, value_name = "F")]
    pub(crate) ca: PathBuf,
    /// A CRL (PEM or DER); repeat it for more
    #[arg(long, value_name = "F")]
    pub(crate) crl: Vec<PathBuf>,
    /// The private key that should belong to it
    #[arg(long, value_name = "F")]
    pub(crate) key: Option<PathBuf>,
    /// A file with the password of the PFX or of the key
    #[arg(long, value_name = "F")]
    pub(crate) password_file: Option<PathBuf>,
    /// The name it must carry [default for HOST:PORT: HOST]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The certificate (PEM or PFX) and, in the same file or after it, its intermediates; or HOST:PORT of a live server
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// The folder of a URL, without the slash at its end.
fn base_url(text: &str) -> Result<String, String> {
    let base = text.trim_end_matches('/');
    let example: Result<muster_pki::CrlUrl, _> = format!("{base}/devices.crl").parse();
    example.map(|_| base.to_owned()).map_err(|error| error.to_string())
}
