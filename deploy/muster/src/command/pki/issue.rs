//! `muster pki issue`: a certificate of the development CA, right or wrong in a way of one's choice.

use muster_pki::{Role, UnixTime};

use super::parse_role;
use crate::cli::PkiIssue;
use crate::exit::{Exit, Failure};
use crate::home::{Home, Secrecy, write_file};
use crate::output;
use crate::pki_home::{PkiHome, Wanted};

/// Runs the command.
pub(super) fn run(home: &Home, arguments: &PkiIssue, now: UnixTime) -> Result<Exit, Failure> {
    let wanted = Wanted {
        role: parse_role(&arguments.role)?,
        name: arguments.name.clone(),
        dns_names: arguments.dns.clone(),
        ip_addresses: arguments.ip.clone(),
        days: arguments.days,
        crl_url: arguments.crl_url.clone(),
        flaws: arguments.flaws.clone(),
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
    if wanted.flaws.is_any() {
        output::note("wrong on purpose, for tests; see: muster pki check --help");
    }
    write_file(&key, issued.key_pem.as_bytes(), Secrecy::Private)?;
    write_file(&certificate, issued.chain_pem.as_bytes(), Secrecy::Public)?;
    output::print_line(&certificate.display().to_string())?;
    output::print_line(&key.display().to_string())?;
    Ok(Exit::Ok)
}
