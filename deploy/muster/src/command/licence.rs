//! `muster licence`: who may publish under which prefix.

use std::path::Path;

use muster_pki::UnixTime;
use muster_proto::operator::v1::{GetLicenceRequest, ImportLicenceRequest};
use muster_sign::FileKind;
use muster_signing::licence::Licence as Document;
use serde_json::json;

use crate::cli::Licence;
use crate::exit::{Exit, Failure};
use crate::home::{Home, Secrecy, read_file};
use crate::operator::{Operator, answered};
use crate::output::{self, Cell};
use crate::{provision, seen};

/// Runs a verb.
pub(crate) async fn run(operator: &Operator, home: &Home, verb: Licence) -> Result<Exit, Failure> {
    match verb {
        Licence::Import { file } => import(operator, home, &file).await,
        Licence::Show { output } => show(operator, home, output).await,
    }
}

async fn import(operator: &Operator, home: &Home, file: &Path) -> Result<Exit, Failure> {
    let bytes = read_file(file, FileKind::ENVELOPE, "muster-sign licence issue --help")?;
    let envelope =
        muster_sign::read_envelope(&bytes).map_err(|error| Failure::no_document(error).in_file(file))?;
    let request = ImportLicenceRequest { envelope: envelope.clone() };
    let imported = answered(operator.licence().import_licence(request)).await;
    let imported = imported.map_err(|status| Failure::of_document(status).in_file(file))?;
    let (serial, refused) = (imported.serial, imported.refused_targets);
    output::note(&format!(
        "the Switch holds licence {serial}; clients take it at once, or when they connect"
    ));
    if refused > 0 {
        output::note(&format!(
            "# {refused} queued targets were refused: the licence does not admit what they were to run; muster definition list and muster \
             instruction targets ID tell the code of each"
        ));
    }
    let told = format!("the Switch holds licence {serial} all the same");
    if keep(home, &envelope).map_err(|failure| failure.adding(&told))? == Kept::Put {
        output::note(&format!("{} is licence {serial}, too", home.path(provision::LICENCE).display()));
    }
    Ok(Exit::Ok)
}

/// What became of the licence in the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// The new one is there.
    Put,
    /// It stays, or there is none.
    Left,
}

/// Puts an imported licence in the place of the home's, where that is an older one of the same organisation: `muster-sign definition verify` and
/// `licence issue --renew` go by it, and `muster dev` offers it to its Switch.
fn keep(home: &Home, envelope: &[u8]) -> Result<Kept, Failure> {
    let Some(own) = provision::claimed_licence(home) else { return Ok(Kept::Left) };
    // The Switch has verified it by its roots, which need not be the home's.
    let Ok((new, _)) = seen::verified(home, envelope) else { return Ok(Kept::Left) };
    if new.tenant() != own.tenant() || new.serial() <= own.serial() {
        return Ok(Kept::Left);
    }
    home.write(provision::LICENCE, envelope, Secrecy::Public)?;
    Ok(Kept::Put)
}

/// Whether the Switch holds a licence at all.
pub(crate) async fn is_held(operator: &Operator) -> Result<bool, Failure> {
    Ok(!answered(operator.licence().get_licence(GetLicenceRequest {})).await?.envelope.is_empty())
}

async fn show(operator: &Operator, home: &Home, format: output::Format) -> Result<Exit, Failure> {
    let held = answered(operator.licence().get_licence(GetLicenceRequest {})).await?;
    if held.envelope.is_empty() {
        let why = if held.problem.is_empty() { String::new() } else { format!(": {}", held.problem) };
        return Err(Failure::new(Exit::Refused, format!("the Switch holds no licence{why}"))
            .with_next("muster licence import FILE"));
    }
    if !held.problem.is_empty() {
        let said = format!("# the Switch says that nothing can be issued under it: {}", held.problem);
        output::note(&output::printable(&said));
    }
    let (licence, text) = seen::verified(home, &held.envelope)?;
    let features: Vec<&str> = licence.terms().features.iter().map(String::as_str).collect();
    let pairs = [
        ("serial", Cell::number(licence.serial())),
        ("licensee", Cell::text(licence.licensee())),
        ("tenant", Cell::text(licence.tenant())),
        ("valid", Cell { text: yes(&licence).to_owned(), json: json!(licence.is_valid_at(UnixTime::now())) }),
        // No program asks for any.
        ("features", Cell { text: features.join(", "), json: json!(features) }),
        ("problem", Cell::text(&held.problem)),
        ("text", Cell::text(text.trim_end())),
    ];
    if matches!(format, output::Format::Table | output::Format::Wide) {
        output::note(&format!("# licence {} of {}, {}", licence.serial(), licence.licensee(), yes(&licence)));
        output::print_text(text.trim_end())?;
        return Ok(Exit::Ok);
    }
    output::print_pairs(pairs.map(|(name, cell)| (name.to_owned(), cell)).to_vec(), format)?;
    Ok(Exit::Ok)
}

fn yes(licence: &Document) -> &'static str {
    if licence.is_valid_at(UnixTime::now()) { "valid" } else { "not valid now" }
}

#[cfg(test)]
mod tests {
    use muster_sign::NewLicence;
    use muster_signing::envelope::Signer;

    use super::*;

    /// A home of the organisation `acme`.
    fn made(folder: &Path) -> Home {
        let home = Home::locate(Some(folder.to_owned())).unwrap();
        provision::provision(&home, "acme", crate::pki_home::CRL_BASE_URL, UnixTime::now()).unwrap();
        home
    }

    /// A licence of a home's licensor.
    fn licence(home: &Home, tenant: &str, serial: u64) -> Vec<u8> {
        let read = |file: &str| std::fs::read(home.path(file)).unwrap();
        let signer = Signer::from_pem(read("licensor/cert.pem"), read("licensor/key.pem")).unwrap();
        let new = NewLicence {
            licensee: "Acme".to_owned(),
            tenant: tenant.to_owned(),
            serial,
            valid_days: 30,
            prefixes: vec![("Acme".to_owned(), read("publisher/cert.pem"))],
            ..NewLicence::default()
        };
        muster_sign::issue_licence(&new, &signer, UnixTime::now()).unwrap()
    }

    #[test]
    fn g6_a_home_that_has_a_licence_has_the_newest_that_was_imported_and_never_an_older_or_a_foreign_one() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [home, stranger] = [0, 1].map(|at: usize| made(folders[at].path()));
        let held = || std::fs::read(home.path("licence.cms")).unwrap();
        let (first, now) = (held(), UnixTime::now());
        let serial = provision::held_licence(&home, now).unwrap().serial();

        for left in [
            licence(&home, "acme", serial),
            licence(&home, "other", serial + 1),
            licence(&stranger, "acme", serial + 1),
            b"nothing".to_vec(),
        ] {
            assert_eq!(keep(&home, &left).unwrap(), Kept::Left);
            assert_eq!(held(), first);
        }
        let newer = licence(&home, "acme", serial + 7);
        assert_eq!(keep(&home, &newer).unwrap(), Kept::Put);
        assert_eq!(held(), newer);
        assert_eq!(keep(&home, &licence(&home, "acme", serial + 6)).unwrap(), Kept::Left);
        // One that does not hold any more is the one to replace, and no reason to go back.
        std::fs::write(home.path("licence.cms"), licence(&stranger, "acme", serial + 8)).unwrap();
        assert_eq!(keep(&home, &newer).unwrap(), Kept::Left);
        assert_eq!(keep(&home, &licence(&home, "acme", serial + 9)).unwrap(), Kept::Put);
        std::fs::remove_file(home.path("licence.cms")).unwrap();
        assert_eq!(keep(&home, &newer).unwrap(), Kept::Left);
        assert!(!home.path("licence.cms").exists());
    }
}
