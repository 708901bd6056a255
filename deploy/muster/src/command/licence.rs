//! `muster licence`: who may publish under which prefix.

use std::path::Path;

use muster_pki::UnixTime;
use muster_proto::operator::v1::{GetLicenceRequest, ImportLicenceRequest};
use muster_signing::licence::Licence as Document;
use serde_json::json;

use crate::cli::Licence;
use crate::exit::{Exit, Failure};
use crate::home::{Home, read_file};
use crate::operator::{Operator, answered};
use crate::output::{self, Cell};
use crate::seen;

/// Runs a verb.
pub(crate) async fn run(operator: &Operator, home: &Home, verb: Licence) -> Result<Exit, Failure> {
    match verb {
        Licence::Import { file } => import(operator, &file).await,
        Licence::Show { output } => show(operator, home, output).await,
    }
}

async fn import(operator: &Operator, file: &Path) -> Result<Exit, Failure> {
    let bytes = read_file(file, "muster-sign licence issue --help")?;
    let envelope = muster_sign::read_envelope(&bytes)
        .map_err(|error| Failure::no_document(error).in_file(file))?;
    let imported = answered(operator.licence().import_licence(ImportLicenceRequest { envelope })).await;
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
    Ok(Exit::Ok)
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
