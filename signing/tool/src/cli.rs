//! The command line of `muster-sign`.

mod exchange;
mod file;
mod licence;
mod pack;

use std::path::PathBuf;

pub use self::exchange::{BuildExchange, ExchangeCommand};
pub use self::file::{FileCommand, Judged, SignFile, StampAtOnce, VerifyFile};
pub use self::licence::{IssueLicence, LicenceCommand, NamedSigner, RequestLicence};
pub use self::pack::{BuildPack, PackCommand, VerifyPack};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::key::{KeySource, SignerSource};

/// Signs, verifies and shows the documents that Muster's clients trust, and files for anyone.
#[derive(Debug, Parser)]
#[command(
    name = "muster-sign",
    version,
    after_help = "Examples:\n  \
        muster-sign definition sign Acme-Os-Version.toml --key author.key --cert author.pem --out Acme-Os-Version.cms\n  \
        muster-sign definition verify Acme-Os-Version.cms --home ~/.muster\n  \
        muster-sign licence issue --licensee 'Acme Ltd' --tenant acme --prefix Acme=author.pem --serial 2 --valid 365d \
        --key licensor.key --cert licensor.pem --out licence.cms\n  \
        muster-sign licence request --prefix Acme --key author.pfx --out acme-request.cms\n  \
        muster-sign policy sign policy-7.toml --key policy.key --cert policy.pem --out policy-7.cms\n  \
        muster-sign timestamp Acme-Os-Version.cms --url http://timestamp.example/ --home ~/.muster\n  \
        muster-sign pack build definitions/ --name Acme-Security-Basics --version 1.0.0 --says 'Certificates and ports' \
        --key author.key --cert author.pem --out basics.pack\n  \
        muster-sign exchange build basics.pack --home ~/.muster --out exchange.json\n  \
        muster-sign file sign muster-switch --key release.key --cert release.pem\n\n\
        --out (and --request) names none of the files that a command reads; a file that is there is replaced if it is empty, or one of \
        the same kind; a timestamp that it has over the same content stays, unless --replace is given.\n\n\
        Exit codes: 0 done, 1 refused (the reason and what would fix it are on standard error), 2 usage (the arguments, whatever the files hold)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub document: Document,
}

/// Which kind of document.
#[derive(Debug, Subcommand)]
pub enum Document {
    /// Definitions: what may be run.
    #[command(subcommand)]
    Definition(DefinitionCommand),
    /// Licences: who may sign under which prefix.
    #[command(subcommand)]
    Licence(LicenceCommand),
    /// Client policies: where a fleet's clients connect, and whom they trust there.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Packs: definitions and their resources in one archive.
    #[command(subcommand)]
    Pack(PackCommand),
    /// Exchanges: lists of packs for web servers.
    #[command(subcommand)]
    Exchange(ExchangeCommand),
    /// Files of any kind and size, such as release binaries: signatures beside them.
    #[command(subcommand)]
    File(FileCommand),
    /// Put a timestamp (RFC 3161) beside each signature of a document; a definition, or a file's signature, then outlives its signer's
    /// certificate.
    #[command(
        after_help = "Examples:\n  muster-sign timestamp Acme-Os-Version.cms --url http://timestamp.example/ --home ~/.muster\n\n\
                      Where the authority cannot be reached from here, or over https alone:\n  \
                      muster-sign timestamp a.cms --home ~/.muster --request a.tsq\n  \
                      curl -H 'Content-Type: application/timestamp-query' --data-binary @a.tsq http://timestamp.example/ -o a.tsr\n  \
                      muster-sign timestamp a.cms --home ~/.muster --request a.tsq --answer a.tsr\n\n\
                      A timestamp changes the document's digest: stamp it before it is imported. Orders, licences and policies end with \
                      their signers' certificates all the same. A timestamp from outside of the validity of the signer's certificate proves \
                      nothing, and is never written."
    )]
    Timestamp(StampDocument),
}

/// What to do with a definition.
#[derive(Debug, Subcommand)]
pub enum DefinitionCommand {
    /// Check an authored text and sign it.
    #[command(
        after_help = format!("Example:\n  muster-sign definition sign Acme-Os-Version.toml --key author.pfx --out Acme-Os-Version.cms\n\n{KEYS_HELP}")
    )]
    Sign(SignDefinition),
    /// Verify a signed definition as a Switch does when it is imported, and look its prefix up in the licence.
    #[command(
        after_help = "Example:\n  muster-sign definition verify Acme-Os-Version.cms --home ~/.muster\n\nA definition that the licence does not cover is a finding, UNLICENSED (exit code 1): it can be imported, but not issued. The licence is the home's licence.cms, which `muster licence import` keeps the newest that it has imported; a Switch may have a newer one from its licence_url (`muster licence show`). Without a licence in the home there is a warning."
    )]
    Verify(VerifyDefinition),
    /// Show what a definition, signed or not, says; nothing is verified.
    #[command(after_help = "Example:\n  muster-sign definition inspect Acme-Os-Version.cms -o json")]
    Inspect(Inspect),
    /// Tell everything that is wrong with authored texts, each with its place and what to do, and advice beyond that.
    #[command(
        after_help = "Example:\n  muster-sign definition lint Acme-*.toml --strict\n\nExit codes: 0 no error, 1 an error or a file that cannot be read (with --strict: any finding), 2 usage. A file that cannot be read is told in its place (JSON: `problem`), and the others are looked at. signing/definitions/README.md lists what is found."
    )]
    Lint(LintDefinition),
    /// Print the JSON Schema (draft 2020-12) of a definition, for editors.
    #[command(after_help = "Example:\n  muster-sign definition schema > definition.schema.json")]
    Schema,
}

/// What to do with a client policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check an authored text and sign it.
    #[command(
        after_help = format!("Example:\n  muster-sign policy sign policy-7.toml --key policy.key --cert policy.pem --out policy-7.cms\n\nA serial only grows: give each policy a higher one than every policy before it.\n\n{KEYS_HELP}")
    )]
    Sign(SignPolicy),
    /// Verify a signed policy as a Switch does when it is imported, and a client before it follows it.
    #[command(after_help = "Example:\n  muster-sign policy verify policy-7.cms --home ~/.muster")]
    Verify(VerifyPolicy),
    /// Show what a policy, signed or not, says; nothing is verified.
    #[command(after_help = "Example:\n  muster-sign policy inspect policy-7.cms -o json")]
    Inspect(Inspect),
}

/// Arguments of `timestamp`.
#[derive(Debug, Args)]
pub struct StampDocument {
    /// The envelope (DER or PEM).
    pub file: PathBuf,
    /// Where the timestamp authority answers, http://HOST/PATH; one that is there over https alone is asked by --request and --answer. Up to 3
    /// redirects are followed: the answer is signed, and tied to its request.
    #[arg(long, env = "MUSTER_TIMESTAMP_URL", required_unless_present = "request")]
    pub url: Option<String>,
    /// Without --answer: where the request for the authority goes. With it: the request that was answered.
    #[arg(long)]
    pub request: Option<PathBuf>,
    /// The authority's answer to --request (DER).
    #[arg(long, requires = "request")]
    pub answer: Option<PathBuf>,
    /// Roots of timestamp authorities (PEM); without it, trust/timestamps.pem of the home.
    #[arg(long, required_unless_present = "home")]
    pub roots: Option<PathBuf>,
    /// The operator's home: trust/timestamps.pem.
    #[arg(long, env = "MUSTER_HOME")]
    pub home: Option<PathBuf>,
    /// A CRL (PEM or DER) of the authority's issuer; may be repeated.
    #[arg(long)]
    pub crl: Vec<PathBuf>,
    /// Where the envelope (DER) with the timestamp goes; without it, back into FILE. A licence request has no timestamp.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Put the new timestamp in the place of one that FILE has; without it, such a FILE is refused, since an earlier timestamp proves more.
    #[arg(long)]
    pub replace: bool,
    /// How to say what was done.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `policy sign`.
#[derive(Debug, Args)]
pub struct SignPolicy {
    /// The authored text (TOML).
    pub file: PathBuf,
    /// The home whose trust/policies.pem must accept the signer; without it only its purpose is looked at.
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

/// Arguments of `policy verify`.
#[derive(Debug, Args)]
pub struct VerifyPolicy {
    /// The envelope (DER or PEM).
    pub file: PathBuf,
    /// The operator's home: trust/policies.pem.
    #[arg(long, env = "MUSTER_HOME")]
    pub home: PathBuf,
    /// A CRL (PEM or DER) of the signer's issuer; may be repeated.
    #[arg(long)]
    pub crl: Vec<PathBuf>,
    /// How to say what was found.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `definition sign`.
#[derive(Debug, Args)]
pub struct SignDefinition {
    /// The authored text (TOML).
    pub file: PathBuf,
    /// The home whose trust/authors.pem must accept the signer; without it only its purpose is looked at.
    #[arg(long, env = "MUSTER_HOME")]
    pub home: Option<PathBuf>,
    /// Key and certificate.
    #[command(flatten)]
    pub signer: SignerFiles,
    /// Where the envelope (DER) goes.
    #[arg(long)]
    pub out: PathBuf,
    /// Sign anew even where the same content has a signature with a timestamp there already. Without it, that signature stays where the same
    /// certificate made it and its timestamp holds (an earlier one proves more), and is refused to be written over where not.
    #[arg(long)]
    pub replace: bool,
    /// How to say what was done.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `definition lint`.
#[derive(Debug, Args)]
pub struct LintDefinition {
    /// The authored texts (TOML).
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Exit with 1 for warnings, too.
    #[arg(long)]
    pub strict: bool,
    /// How to say what was found.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `definition verify`.
#[derive(Debug, Args)]
pub struct VerifyDefinition {
    /// The envelope (DER or PEM).
    pub file: PathBuf,
    /// The operator's home: trust/authors.pem, trust/licences.pem and, to look the prefix up in, licence.cms.
    #[arg(long, env = "MUSTER_HOME")]
    pub home: PathBuf,
    /// A CRL (PEM or DER) of the signer's issuer; may be repeated.
    #[arg(long)]
    pub crl: Vec<PathBuf>,
    /// How to say what was found.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The document.
    pub file: PathBuf,
    /// How to say what is in it.
    #[command(flatten)]
    pub output: Output,
}

/// Who signs.
#[derive(Debug, Clone, Args)]
pub struct SignerFiles {
    /// The private key: a PEM file, a PFX, or the PKCS#11 URI of a token's key (RFC 7512), such as
    /// 'pkcs11:token=signing;object=author'; it is used where it is and never copied.
    #[arg(long, value_name = "FILE|pkcs11:URI")]
    pub key: KeySource,
    /// The certificate and those above it (PEM, the signer's own first); left out, those beside the key in the PFX or the token.
    #[arg(long, visible_alias = "certificate", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// A file whose first line opens the key: a password or PIN. Without it, MUSTER_KEY_PASSWORD of the environment, else the
    /// terminal is asked. A URI's pin-source goes before all of them.
    #[arg(long, value_name = "FILE")]
    pub key_password_file: Option<PathBuf>,
    /// The library of the token's maker, where the URI has no module-path.
    #[arg(long, env = "MUSTER_PKCS11_MODULE", value_name = "FILE")]
    pub pkcs11_module: Option<PathBuf>,
}

impl SignerFiles {
    /// Returns the same for [`crate::key::open`].
    #[must_use]
    pub fn source(&self) -> SignerSource {
        SignerSource {
            key: self.key.clone(),
            certificate: self.cert.clone(),
            password_file: self.key_password_file.clone(),
            module: self.pkcs11_module.clone(),
        }
    }
}

/// How `--help` tells where a key may be.
const KEYS_HELP: &str = "Keys:\n  \
    --key author.key --cert author.pem                    PEM\n  \
    --key author.pfx                                      PFX (PKCS#12) with the certificate in it\n  \
    --key 'pkcs11:token=signing;object=author' --pkcs11-module /usr/lib/softhsm/libsofthsm2.so\n  \
    --key 'pkcs11:token=signing;id=%a1?module-path=/usr/lib/x.so&pin-source=/run/secrets/pin'\n  \
    A password or PIN comes from --key-password-file, MUSTER_KEY_PASSWORD or the terminal, never from an argument.";

/// In which form something is said.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// The form.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
