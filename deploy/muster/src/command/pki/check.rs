//! `muster pki check`: every finding on a certificate, from a file or from a live server.

use std::path::Path;

use muster_pki::{
    Certificate, CertificateDer, CrlError, Facts, Format as FileFormat, Identity, IdentityFiles, NamedBytes,
    Policy, RevocationIndex, Role, Roots, Severity, UnixTime, Verdict, check_with, verify_path,
};
use muster_service::credentials::Address;
use muster_sign::FileKind;
use muster_sign::key::PASSWORD_BYTES_MAX;
use serde_json::json;
use zeroize::Zeroizing;

use super::{live, parse_role};
use crate::cli::PkiCheck;
use crate::exit::{Exit, Failure};
use crate::home::read_file;
use crate::output::{self, Cell, Format, Table};

/// A password, with what ends its line.
const PASSWORD: FileKind = FileKind::new("the password as one line", PASSWORD_BYTES_MAX + 2);

/// What is to be judged.
struct Subject {
    chain: Vec<CertificateDer<'static>>,
    /// The name that it must carry if none was typed.
    name: Option<String>,
    /// What is wrong with the private key (C5).
    key_problem: Option<String>,
}

/// Runs the command.
pub(super) fn run(arguments: &PkiCheck, now: UnixTime) -> Result<Exit, Failure> {
    let role = parse_role(&arguments.role)?;
    let roots = read_file(&arguments.ca, FileKind::CERTIFICATES, "muster pki check --ca ROOTS.pem …")?;
    let roots = Roots::from_pem(&roots, &arguments.ca.display().to_string())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let subject = subject(arguments, role)?;
    let revocation = revocation(arguments, &subject.chain, &roots, now)?;
    let name = arguments.name.as_deref().or(subject.name.as_deref());
    let facts = Facts { name, revocation: revocation.as_ref(), ..Facts::at(now) };
    let verdict = check_with(&Policy::default(), role, &subject.chain, &roots, &facts);
    let accepted = verdict.is_accepted() && subject.key_problem.is_none();
    print_verdict(&verdict, subject.key_problem, accepted, arguments.output)?;
    Ok(if accepted { Exit::Ok } else { Exit::Refused })
}

/// Says what is wrong with what is no file, and looks like the address of a server.
fn no_address(file: &Path) -> Option<String> {
    let text = file.to_str().filter(|_| !file.exists())?;
    let (host, port) = text.rsplit_once(':')?;
    let is_meant = !host.is_empty() && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let error = text.parse::<Address>().err().filter(|_| is_meant)?;
    Some(format!("{text}: there is no such file, and it is no address: {error} (ports are 1 to 65535)"))
}

/// Reads files, or asks a live server for its chain.
fn subject(arguments: &PkiCheck, role: Role) -> Result<Subject, Failure> {
    if let [only] = arguments.files.as_slice()
        && !only.exists()
        && let Some(address) = only.to_str().and_then(|text| text.parse::<Address>().ok())
    {
        if role != Role::Switch {
            return Err(Failure::usage(format!("{address} is a server; wanted a file for another role"))
                .with_next("the same command with --role server"));
        }
        let chain = live::chain_of(&address)?;
        return Ok(Subject { chain, name: Some(address.host().to_owned()), key_problem: None });
    }
    if let [only] = arguments.files.as_slice()
        && let Some(problem) = no_address(only)
    {
        return Err(Failure::usage(problem));
    }
    let password = arguments.password_file.as_deref().map(password).transpose()?;
    let mut chain = Vec::new();
    let mut key_problem = None;
    for (index, file) in arguments.files.iter().enumerate() {
        let bytes = read_file(file, FileKind::CERTIFICATES, "muster pki check … FILE")?;
        let what = file.display().to_string();
        let is_pfx = FileFormat::of(&bytes) == FileFormat::Pfx;
        // The key is part of a PFX; beside PEM it is looked at if it was named.
        if is_pfx || (index == 0 && arguments.key.is_some()) {
            let certificate = NamedBytes { what: &what, bytes: &bytes };
            match identity(arguments, certificate, password.as_ref().map(|text| text.as_str())) {
                Ok(identity) => chain.extend(identity.chain_der()),
                Err(problem) if is_pfx => return Err(Failure::new(Exit::Refused, problem)),
                Err(problem) => {
                    key_problem = Some(problem);
                    chain.extend(certificates(&bytes, &what)?);
                }
            }
        } else {
            chain.extend(certificates(&bytes, &what)?);
        }
    }
    Ok(Subject { chain, name: None, key_problem })
}

fn identity(
    arguments: &PkiCheck,
    certificate: NamedBytes<'_>,
    password: Option<&str>,
) -> Result<Identity, String> {
    let read = |path: &Path| muster_sign::read_file(path, FileKind::KEY).map_err(|error| error.to_string());
    let key = arguments.key.as_deref().map(|path| Ok::<_, String>((path.display().to_string(), read(path)?)));
    let key = key.transpose()?;
    let key = key.as_ref().map(|(what, bytes)| NamedBytes { what, bytes });
    Identity::read(&IdentityFiles { certificate, key, password }).map_err(|error| error.to_string())
}

fn certificates(bytes: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    muster_pki::pem::certificates(bytes, what).map_err(|error| Failure::usage(error.to_string()))
}

/// Returns the one line of the file.
fn password(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = read_file(path, PASSWORD, "muster pki check --password-file F …")?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::usage(format!("{}: not UTF-8; wanted the password as one line", path.display()))
    })?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Loads the CRLs. Whoever signed them is looked for among the roots, in the chain, and beside the CRLs; a root must vouch for it.
fn revocation(
    arguments: &PkiCheck,
    chain: &[CertificateDer<'static>],
    roots: &Roots,
    now: UnixTime,
) -> Result<Option<RevocationIndex>, Failure> {
    if arguments.crl.is_empty() {
        return Ok(None);
    }
    let mut index = RevocationIndex::default();
    for file in &arguments.crl {
        let bytes = read_file(file, FileKind::CRL, "muster pki check --crl F …")?;
        let beside = muster_pki::pem::read(&bytes, "CRL").map(|contents| contents.certificates);
        let near: Vec<CertificateDer<'static>> =
            chain.iter().skip(1).cloned().chain(beside.unwrap_or_default()).collect();
        let facts = Facts { intermediates: &near, ..Facts::at(now) };
        let vouched = near
            .iter()
            .filter(|der| verify_path(std::slice::from_ref(*der), roots, &facts).is_ok())
            .filter_map(|der| Certificate::from_der(der).ok());
        let issuers: Vec<Certificate> = roots.iter().cloned().chain(vouched).collect();
        let loaded =
            index.load(&bytes, &issuers, now).map_err(|error| Failure::usage(unloaded(file, &error)))?;
        for warning in loaded.iter().flat_map(|crl| &crl.warnings) {
            output::note(&format!("{}: {warning}", file.display()));
        }
    }
    Ok(Some(index))
}

/// Says why a CRL cannot be used; who signed it is looked for in what was typed, and in no configuration.
fn unloaded(file: &Path, error: &CrlError) -> String {
    if let CrlError::UnknownIssuer { issuer } = error {
        return format!(
            "{}: CRL of {issuer}: no CA of that name that may sign CRLs is known; name the CRL of the certificate's own issuer, or put the certificate of this one beside it into the file, below a root of `--ca`",
            file.display()
        );
    }
    format!("{}: {error}", file.display())
}

fn print_verdict(
    verdict: &Verdict,
    key_problem: Option<String>,
    accepted: bool,
    format: Format,
) -> Result<(), Failure> {
    let mut table =
        Table::new(["rule", "severity", "got", "wanted", "fix", "subject", "serial", "thumbprint", "issuer"])
            .wide_only(&["subject", "serial", "thumbprint", "issuer"]);
    for finding in verdict.findings() {
        let severity = match finding.severity {
            Severity::Refusal => "refusal",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        table.push(vec![
            Cell::text(finding.rule.name()),
            Cell::text(severity),
            Cell::text(&finding.got),
            Cell::text(&finding.wanted),
            Cell::text(&finding.fix),
            Cell::text(&finding.subject),
            Cell::text(&finding.serial),
            Cell::text(finding.thumbprint.map(|thumbprint| thumbprint.to_string()).unwrap_or_default()),
            Cell::text(&finding.issuer),
        ]);
    }
    if let Some(problem) = key_problem {
        let fix = "give the key that the certificate was issued for";
        let cells = ["C5", "refusal", &problem, "the private key of the certificate", fix, "", "", "", ""];
        table.push(cells.map(Cell::text).to_vec());
    }
    if format == Format::Json {
        return output::print_json(&json!({ "accepted": accepted, "findings": table.objects() }));
    }
    if table.len() > 0 {
        table.print(format)?;
    }
    output::note(if accepted { "accepted" } else { "refused" });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_an_address_is_not_told_to_be_a_missing_file_alone() {
        let told = no_address(Path::new("localhost:99999")).unwrap();

        assert!(told.contains("no address") && told.contains("65535"), "{told}");
        for other in ["localhost:4000", "missing.pem", "C:\\missing.pem", "a:b", ":1"] {
            assert_eq!(no_address(Path::new(other)), None, "{other}");
        }
    }
}
