//! `muster pki`: a development CA, and the certificate rules for anyone.

mod check;
mod inspect;
mod issue;
mod live;
mod revoke;

use muster_pki::{Role, UnixTime};

use crate::cli::{Pki, PkiInit};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::output;
use crate::pki_home::{self, PkiHome, ROLES};
use crate::provision;

/// Runs a verb.
pub(crate) fn run(home: &Home, verb: Pki) -> Result<Exit, Failure> {
    let now = UnixTime::now();
    match verb {
        Pki::Init(arguments) => init(home, &arguments, now),
        Pki::Issue(arguments) => issue::run(home, &arguments, now),
        Pki::Revoke { subject, role } => revoke::run(home, &subject, parse_role(&role)?, now),
        Pki::Crl { role, publish } => {
            let roles = match role {
                Some(role) => vec![parse_role(&role)?],
                None => ROLES.iter().map(|(role, _folder)| *role).collect(),
            };
            for role in roles {
                crl(home, role, now)?;
                if let Some(folder) = &publish {
                    PkiHome::of(home).publish(role, folder)?;
                }
            }
            Ok(Exit::Ok)
        }
        Pki::Inspect { file, output } => inspect::run(&file, output),
        Pki::Check(arguments) => check::run(&arguments, now),
    }
}

fn init(home: &Home, arguments: &PkiInit, now: UnixTime) -> Result<Exit, Failure> {
    if PkiHome::of(home).exists() {
        return Err(Failure::usage(format!("{} has a development CA already", home.folder().display()))
            .with_next("muster --home ANOTHER pki init, or delete its pki/ folder if nothing uses it"));
    }
    let tenant = &arguments.tenant;
    provision::provision(home, tenant, &arguments.crl_url, now)?;
    output::note(&format!(
        "a development CA in {}: roots by role in trust/, the operator's certificates in operator/,\n\
         the publisher's in publisher/, the policies' administrator's in policy/, a licence for tenant `{tenant}`, and the platform's definitions, signed, in definitions/\n\
         next: muster pki issue NAME --out DIR   (a device)",
        home.folder().display()
    ));
    Ok(Exit::Ok)
}

fn crl(home: &Home, role: Role, now: UnixTime) -> Result<Exit, Failure> {
    let pki = PkiHome::of(home);
    pki.write_crl(role, now)?;
    let base = pki.crl_base_url()?;
    for list in pki_home::lists(role)? {
        output::print_line(&format!("{}  {base}/{}", home.path(&list.path).display(), list.name))?;
    }
    Ok(Exit::Ok)
}

fn parse_role(text: &str) -> Result<Role, Failure> {
    text.parse().map_err(|error: muster_pki::RoleError| Failure::usage(error.to_string()))
}
