//! `muster-sign licence`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use muster_pki::Thumbprint;
use muster_signing::definition::DefinitionName;

use super::{Inspect, KEYS_HELP, Output, SignerFiles};

/// What to do with a licence.
#[derive(Debug, Subcommand)]
pub enum LicenceCommand {
    /// Ask a licensor for prefixes: a file with them and the certificate, signed to prove its key, which stays here.
    #[command(
        after_help = format!("Example:\n  muster-sign licence request --prefix Acme --licensee 'Acme Ltd' --tenant acme --key author.pfx --out acme-request.cms\n\nSend the file to the licensor, and tell them the thumbprint that is shown on another way.\n\n{KEYS_HELP}")
    )]
    Request(Box<RequestLicence>),
    /// Issue and sign a licence.
    #[command(
        after_help = format!("Example:\n  muster-sign licence issue --licensee 'Acme Ltd' --tenant acme --prefix Acme=author.pem --prefix Muster=author.pem --serial 2 --valid 365d --key licensor.key --cert licensor.pem --out licence.cms\n  muster-sign licence issue --request acme-request.cms --serial 3 --valid 365d --refresh 14d --key licensor.pfx --out licence.cms\n  muster-sign licence issue --renew licence.cms --home ~/.muster --valid 365d --key licensor.pfx --out licence-4.cms\n\n\
            When an author's key is stolen, licence their new certificate and distrust the old one: what it signed counts only with a timestamp up to that moment:\n  \
            muster-sign licence issue --renew licence.cms --home ~/.muster --prefix Acme=new.pem --distrust old.pem=2026-11-01T08:00:00Z --valid 365d --key licensor.pfx --out licence-5.cms\n\n\
            When someone publishes no more, take their prefix or their certificate away:\n  \
            muster-sign licence issue --renew licence.cms --home ~/.muster --withdraw-prefix Exchange --withdraw-signer old.pem --valid 365d --key licensor.pfx --out licence-6.cms\n\n\
            A Switch may keep newer licences from its clients: they alarm once --refresh has passed, so issue anew before, and more often than it lasts.\n\n\
            A request shows that its maker has the key, not who that is: compare the thumbprint of `licence inspect` with the one that the publisher tells you.\n\n{KEYS_HELP}")
    )]
    Issue(Box<IssueLicence>),
    /// Show what a licence says, without verifying it; or what a request asks for, which must have been made with its certificate's key.
    #[command(
        after_help = "Examples:\n  muster-sign licence inspect licence.cms\n  muster-sign licence inspect acme-request.cms"
    )]
    Inspect(Inspect),
}

/// Arguments of `licence request`.
#[derive(Debug, Args)]
pub struct RequestLicence {
    /// A prefix to publish under; may be repeated.
    #[arg(long = "prefix", value_name = "PREFIX", value_parser = bare_prefix, required = true)]
    pub prefixes: Vec<String>,
    /// Whom the licence is to be for, in words; left out, the licensor says.
    #[arg(long)]
    pub licensee: Option<String>,
    /// The organisation whose devices are to follow it; left out, the licensor says.
    #[arg(long)]
    pub tenant: Option<String>,
    /// The publisher's key and certificate.
    #[command(flatten)]
    pub signer: SignerFiles,
    /// Where the request (DER) goes.
    #[arg(long)]
    pub out: PathBuf,
    /// How to say what was done.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `licence issue`.
#[derive(Debug, Args)]
pub struct IssueLicence {
    /// Whom it is for, in words [default: what the former licence or the request says].
    #[arg(long, required_unless_present_any = ["requests", "renew"])]
    pub licensee: Option<String>,
    /// The organisation whose devices follow it [default: what the former licence or the request says].
    #[arg(long, required_unless_present_any = ["requests", "renew"])]
    pub tenant: Option<String>,
    /// A publisher's request, whose prefixes are bound to the certificate in it; may be repeated.
    #[arg(long = "request", value_name = "FILE")]
    pub requests: Vec<PathBuf>,
    /// A prefix and the certificates that may sign under it (PEM, the first of each file); may be repeated.
    #[arg(long = "prefix", value_name = "PREFIX=CERT.pem[,CERT.pem]", value_parser = prefix, required_unless_present_any = ["requests", "renew"])]
    pub prefixes: Vec<(String, Vec<PathBuf>)>,
    /// The former licence (DER or PEM), whose prefixes, features, minimum versions and distrusted signers go on; what else is given is added, or
    /// takes their place, except that none is distrusted later than before, and no minimum version is lowered. It must verify by the home's trust/licences.pem.
    #[arg(long, value_name = "FILE", requires = "home")]
    pub renew: Option<PathBuf>,
    /// A prefix of the former licence that is taken away, with all its signers; may be repeated. With --prefix of the same name, the signers given there
    /// are all that it has.
    #[arg(long = "withdraw-prefix", value_name = "PREFIX", requires = "renew")]
    pub withdrawn_prefixes: Vec<String>,
    /// A signer of the former licence who is taken away from every prefix, as certificate (PEM, the first of the file) or SHA-256 thumbprint; may be
    /// repeated. Nothing that they signed is licensed then, whenever it was; --distrust keeps what has an early timestamp.
    #[arg(long = "withdraw-signer", value_name = "CERT.pem|THUMBPRINT", value_parser = named_signer, requires = "renew")]
    pub withdrawn_signers: Vec<NamedSigner>,
    /// A signer who is not trusted any more, as certificate (PEM, the first of the file) or SHA-256 thumbprint, and since when: what they signed counts
    /// only with a timestamp up to that moment; may be repeated.
    #[arg(long = "distrust", value_name = "CERT.pem|THUMBPRINT=MOMENT", value_parser = distrusted)]
    pub distrusted: Vec<(NamedSigner, u64)>,
    /// The lowest version of a definition that may be issued; may be repeated. With --renew, at least the former licence's.
    #[arg(long = "minimum-version", value_name = "NAME=VERSION", value_parser = minimum_version)]
    pub minimum_versions: Vec<(DefinitionName, semver::Version)>,
    /// What else is licensed, by name; may be repeated.
    #[arg(long = "feature", value_name = "NAME")]
    pub features: Vec<String>,
    /// Greater than that of every licence before it [default: one more than the former licence's].
    #[arg(long, required_unless_present = "renew")]
    pub serial: Option<u64>,
    /// How long from now on, in days or years: 365d, 2y.
    #[arg(long, value_parser = days)]
    pub valid: u64,
    /// How long from now on until a newer licence should have come, in days or years: once that has passed, Switch and clients alarm, and go on working
    /// [default: 30d, or five sixths of --valid where that is less].
    #[arg(long, value_parser = days)]
    pub refresh: Option<u64>,
    /// The home whose trust/licences.pem must accept the signer, and trust/authors.pem the requests' certificates; without it only
    /// their purpose is looked at.
    #[arg(long, env = "MUSTER_HOME")]
    pub home: Option<PathBuf>,
    /// Key and certificate.
    #[command(flatten)]
    pub signer: SignerFiles,
    /// Where the envelope (DER) goes.
    #[arg(long)]
    pub out: PathBuf,
    /// How to say what was done.
    #[command(flatten)]
    pub output: Output,
}

/// A signer whom an argument names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedSigner {
    /// By the certificate in a file.
    File(PathBuf),
    /// By its thumbprint.
    Thumbprint(Thumbprint),
}

fn bare_prefix(text: &str) -> Result<String, String> {
    if DefinitionName::is_prefix(text) {
        Ok(text.to_owned())
    } else {
        Err("wanted ASCII letters and digits, without hyphen, such as Acme".to_owned())
    }
}

fn prefix(text: &str) -> Result<(String, Vec<PathBuf>), String> {
    match text.split_once('=') {
        Some((prefix, files)) if !prefix.is_empty() && files.split(',').all(|file| !file.is_empty()) => {
            Ok((prefix.to_owned(), files.split(',').map(PathBuf::from).collect()))
        }
        Some(_) | None => Err(format!("{text:?}; wanted PREFIX=CERT.pem, such as Acme=author.pem")),
    }
}

fn days(text: &str) -> Result<u64, String> {
    let (number, factor) = match (text.strip_suffix('d'), text.strip_suffix('y')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 365),
        (None, None) => (text, 0),
    };
    let days = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    days.filter(|days| (1..=36_500).contains(days))
        .ok_or_else(|| format!("{text:?}; wanted 1d to 100y, such as 365d"))
}

fn distrusted(text: &str) -> Result<(NamedSigner, u64), String> {
    let wanted = || {
        format!("{text:?}; wanted CERT.pem=MOMENT or THUMBPRINT=MOMENT, such as old.pem=2026-01-31T12:00:00Z")
    };
    let (who, moment) = text.rsplit_once('=').filter(|(who, _)| !who.is_empty()).ok_or_else(wanted)?;
    let moment = muster_signing::moment::parse(moment).ok_or_else(wanted)?;
    Ok((named_signer(who)?, moment))
}

fn named_signer(text: &str) -> Result<NamedSigner, String> {
    match text.is_empty() {
        true => Err("empty; wanted CERT.pem or THUMBPRINT".to_owned()),
        false => Ok(text.parse().map_or_else(|_| NamedSigner::File(text.into()), NamedSigner::Thumbprint)),
    }
}

fn minimum_version(text: &str) -> Result<(DefinitionName, semver::Version), String> {
    let (name, version) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?}; wanted NAME=VERSION, such as Acme-Os-Version=1.2.0"))?;
    let name = name.parse().map_err(|error| format!("{name:?}: {error}"))?;
    let version: semver::Version = version.parse().map_err(|error| format!("{version:?}: {error}"))?;
    if !version.build.is_empty() {
        return Err(format!(
            "{version}: build metadata (`+…`) has no order, so no version may have it; remove it"
        ));
    }
    Ok((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distrusted_signer_is_a_file_or_a_thumbprint_and_a_moment() {
        let digits = "ab".repeat(32);
        let by_thumbprint = distrusted(&format!("{digits}=2027-01-15T08:00:00Z")).unwrap();
        let by_file = distrusted("keys/a=b.pem=1800000000").unwrap();

        assert_eq!(by_thumbprint, (NamedSigner::Thumbprint(digits.parse().unwrap()), 1_800_000_000));
        assert_eq!(by_file, (NamedSigner::File("keys/a=b.pem".into()), 1_800_000_000));
        for wrong in ["old.pem", "old.pem=", "=2027-01-15", "old.pem=yesterday", "old.pem=-1"] {
            assert!(distrusted(wrong).unwrap_err().contains("wanted CERT.pem=MOMENT"), "{wrong}");
        }
    }

    #[test]
    fn a_minimum_version_names_a_definition() {
        assert_eq!(minimum_version("Acme-A-B=1.2.3").unwrap().1, semver::Version::new(1, 2, 3));
        for wrong in ["Acme-A-B", "Acme=1.2.3", "Acme-A-B=1.2", "Acme-A-B=1.2.3+x"] {
            assert!(minimum_version(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_validities_and_prefixes() {
        assert_eq!(days("365d"), Ok(365));
        assert_eq!(days("2y"), Ok(730));
        assert!(days("0d").is_err() && days("5").is_err() && days("9999y").is_err());
        assert_eq!(prefix("A=b.pem,c.pem"), Ok(("A".to_owned(), vec!["b.pem".into(), "c.pem".into()])));
        assert!(prefix("A").is_err() && prefix("=b").is_err() && prefix("A=").is_err());
    }
}
