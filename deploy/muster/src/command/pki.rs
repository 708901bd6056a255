//! `muster pki`: a development CA, and the certificate rules for anyone.

mod inspect;

use std::path::Path;

use muster_pki::{Certificate, Facts, RevocationIndex, Role, Roots, Severity, UnixTime};
use serde_json::json;

use crate::cli::{Pki, PkiCheck, PkiIssue};
use crate::exit::{Exit, Failure};
use crate::home::{Home, Secrecy, read_file, write_file};
use crate::output::{self, Cell, Format, Table};
use crate::pki_home::{PkiHome, Wanted};
use crate::provision;

/// Runs a verb.
pub(crate) fn run(home: &Home, verb: Pki) -> Result<Exit, Failure> {
    let now = UnixTime::now();
    match verb {
        Pki::Init { tenant } => init(home, &tenant, now),
        Pki::Issue(arguments) => issue(home, &arguments, now),
        Pki::Revoke { subject, role } => {
            let role = parse_role(&role)?;
            for entry in PkiHome::of(home).revoke(role, &subject, now)? {
                output::note(&format!("revoked {} (serial {})", entry.name, entry.serial));
            }
            crl(home, role, now)
        }
        Pki::Crl { role } => crl(home, parse_role(&role)?, now),
        Pki::Inspect { file, output } => inspect::run(&file, output),
        Pki::Check(arguments) => check(&arguments, now),
    }
}

fn init(home: &Home, tenant: &str, now: UnixTime) -> Result<Exit, Failure> {
    if PkiHome::of(home).exists() {
        return Err(Failure::usage(format!("{} has a development CA already", home.folder().display()))
            .with_next("muster --home ANOTHER pki init, or delete its pki/ folder if nothing uses it"));
    }
    provision::provision(home, tenant, now)?;
    output::note(&format!(
        "a development CA in {}: roots by role in trust/, the operator's certificates in operator/,\n\
         the publisher's in publisher/, a licence for tenant `{tenant}`, and the platform's definitions, signed, in definitions/\n\
         next: muster pki issue NAME --out DIR   (a device)",
        home.folder().display()
    ));
    Ok(Exit::Ok)
}

fn crl(home: &Home, role: Role, now: UnixTime) -> Result<Exit, Failure> {
    let path = PkiHome::of(home).write_crl(role, now)?;
    output::print_line(&path.display().to_string())?;
    Ok(Exit::Ok)
}

fn issue(home: &Home, arguments: &PkiIssue, now: UnixTime) -> Result<Exit, Failure> {
    let wanted = Wanted {
        role: parse_role(&arguments.role)?,
        name: arguments.name.clone(),
        dns_names: arguments.dns.clone(),
        ip_addresses: arguments.ip.clone(),
        days: arguments.days,
    };
    let is_file_name =
        !wanted.name.is_empty() && !wanted.name.starts_with('.') && !wanted.name.contains(['/', '\0']);
    if !is_file_name {
        return Err(Failure::usage(format!("`{}` cannot name a file", wanted.name)));
    }
    if !wanted.ip_addresses.is_empty() && wanted.role != Role::Switch {
        return Err(
            Failure::usage("addresses are for servers").with_next("leave out --ip, or use --role switch")
        );
    }
    let certificate = arguments.out.join(format!("{}.pem", wanted.name));
    let key = arguments.out.join(format!("{}.key", wanted.name));
    if !arguments.force && (certificate.exists() || key.exists()) {
        return Err(Failure::usage(format!(
            "{} or {} is there already",
            certificate.display(),
            key.display()
        ))
        .with_next("the same command with --force, or another --out"));
    }
    if matches!(wanted.role, Role::Device | Role::Switch) {
        wanted.name.parse::<muster_pki::DeviceId>().map_err(|error| Failure::usage(error.to_string()))?;
    }
    let issued = PkiHome::of(home).issue(&wanted, now)?;
    write_file(&key, issued.key_pem.as_bytes(), Secrecy::Private)?;
    write_file(&certificate, issued.chain_pem.as_bytes(), Secrecy::Public)?;
    output::print_line(&certificate.display().to_string())?;
    output::print_line(&key.display().to_string())?;
    Ok(Exit::Ok)
}

fn check(arguments: &PkiCheck, now: UnixTime) -> Result<Exit, Failure> {
    let role = parse_role(&arguments.role)?;
    let usage = |error: String| Failure::usage(error);
    let roots = read_file(&arguments.ca, "muster pki check --ca ROOTS.pem …")?;
    let roots = Roots::from_pem(&roots, &arguments.ca.display().to_string())
        .map_err(|error| usage(error.to_string()))?;
    let mut chain = Vec::new();
    for file in &arguments.files {
        let bytes = read_file(file, "muster pki check … FILE")?;
        let found = muster_pki::pem::certificates(&bytes, &file.display().to_string());
        chain.extend(found.map_err(|error| usage(error.to_string()))?);
    }
    let revocation = revocation(arguments, &chain, &roots, now)?;
    let facts =
        Facts { now, name: arguments.name.as_deref(), intermediates: &[], revocation: revocation.as_ref() };
    let verdict = muster_pki::check_with(&muster_service::credentials::POLICY, role, &chain, &roots, &facts);
    let key_problem = match (&arguments.key, verdict.leaf()) {
        (Some(key), Some(leaf)) => key_problem(key, leaf)?,
        _ => None,
    };
    let accepted = verdict.is_accepted() && key_problem.is_none();
    print_verdict(&verdict, key_problem, accepted, arguments.output)?;
    Ok(if accepted { Exit::Ok } else { Exit::Refused })
}

/// Loads the CRLs; their issuers are looked for in the chain and among the roots.
fn revocation(
    arguments: &PkiCheck,
    chain: &[rustls_pki_types::CertificateDer<'static>],
    roots: &Roots,
    now: UnixTime,
) -> Result<Option<RevocationIndex>, Failure> {
    if arguments.crl.is_empty() {
        return Ok(None);
    }
    let issuers: Vec<Certificate> =
        chain.iter().filter_map(|der| Certificate::from_der(der).ok()).chain(roots.iter().cloned()).collect();
    arguments
        .crl
        .iter()
        .try_fold(RevocationIndex::default(), |index, file| {
            let bytes = read_file(file, "muster pki check --crl F …")?;
            index
                .with_crl(&bytes, &issuers, now)
                .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
        })
        .map(Some)
}

fn key_problem(key: &Path, leaf: &Certificate) -> Result<Option<String>, Failure> {
    let bytes = read_file(key, "muster pki check --key F …")?;
    let private = muster_pki::pem::private_key(&bytes, &key.display().to_string())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let loaded =
        provider.key_provider.load_private_key(private).map_err(|error| Failure::usage(error.to_string()))?;
    let belongs = loaded.public_key().is_none_or(|public| public.as_ref() == leaf.spki_der());
    Ok((!belongs).then(|| format!("{} is not the key of {}", key.display(), leaf.subject())))
}

fn print_verdict(
    verdict: &muster_pki::Verdict,
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

fn parse_role(text: &str) -> Result<Role, Failure> {
    text.parse().map_err(|error: muster_pki::RoleError| Failure::usage(error.to_string()))
}
