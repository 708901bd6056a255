//! `muster definition`: signed documents of what may be run.

use std::path::Path;

use muster_proto::operator::v1::{
    Definition as Shown, GetDefinitionRequest, ImportDefinitionRequest, ListDefinitionsRequest,
};

use super::licence;
use crate::cli::{Definition, Listing};
use crate::exit::{Exit, Failure};
use crate::home::{Home, read_file};
use crate::issue::verified_definition_text;
use crate::operator::{Operator, answered};
use crate::output::{self, Cell, Flag, Format, Table};

/// Runs a verb.
pub(crate) async fn run(operator: &Operator, home: &Home, verb: Definition) -> Result<Exit, Failure> {
    match verb {
        Definition::Import { files, output } => import(operator, &files, output).await,
        Definition::List(listing) => list(operator, &listing).await,
        Definition::Show { name, definition_version, output } => {
            show(operator, home, name, definition_version, output).await
        }
    }
}

async fn import(operator: &Operator, files: &[std::path::PathBuf], format: Format) -> Result<Exit, Failure> {
    let mut table = table();
    for file in files {
        let imported = import_one(operator, file).await?;
        if !imported.licensed {
            explain_unlicensed(operator, &imported).await?;
        }
        table.push(row(&imported));
    }
    table.print(format)?;
    Ok(Exit::Ok)
}

/// Says why a definition cannot be issued yet, and what to do.
async fn explain_unlicensed(operator: &Operator, imported: &Shown) -> Result<(), Failure> {
    let (why, next) = if licence::is_held(operator).await? {
        (
            format!("the licence does not bind its prefix to {}", imported.signer),
            "muster-sign licence issue … --prefix PREFIX=CERT, then muster licence import FILE",
        )
    } else {
        ("the Switch holds no licence".to_owned(), "muster licence import FILE")
    };
    output::note(&format!(
        "{}: imported, but unlicensed: {why}, so it cannot be issued\n  try: {next}",
        imported.name
    ));
    Ok(())
}

async fn import_one(operator: &Operator, file: &Path) -> Result<Shown, Failure> {
    let bytes = read_file(file, "muster-sign definition sign FILE.toml --key F --cert F --out FILE.cms")?;
    let envelope = muster_sign::read_envelope(&bytes)
        .map_err(|error| Failure::usage(error.to_string()).in_file(file))?;
    let imported =
        answered(operator.definitions().import_definition(ImportDefinitionRequest { envelope })).await;
    let response = imported.map_err(|status| Failure::from(status).in_file(file))?;
    Ok(response.definition.unwrap_or_default())
}

async fn list(operator: &Operator, listing: &Listing) -> Result<Exit, Failure> {
    let mut table = table();
    let mut page_token = String::new();
    let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
    loop {
        let left = u32::try_from(limit.saturating_sub(table.len())).unwrap_or(u32::MAX);
        let request = ListDefinitionsRequest { page_size: left.min(1_000), page_token };
        let page = answered(operator.definitions().list_definitions(request)).await?;
        for definition in &page.definitions {
            table.push(row(definition));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() || table.len() >= limit {
            break;
        }
    }
    table.print(listing.output)?;
    if !page_token.is_empty() {
        output::note_more(listing.limit);
    }
    if table.len() == 0 {
        output::note("no definition yet; import one: muster definition import FILE");
    }
    Ok(Exit::Ok)
}

fn table() -> Table {
    Table::new([
        "name",
        "version",
        "kind",
        "licensed",
        "says",
        "signer",
        "imported",
        "digest",
        "signer_thumbprint",
    ])
    .wide_only(&["signer", "imported", "digest", "signer_thumbprint"])
}

fn row(definition: &Shown) -> Vec<Cell> {
    vec![
        Cell::text(&definition.name),
        Cell::text(&definition.version),
        Cell::text(&definition.kind),
        Cell::flag(Flag::from(definition.licensed)),
        Cell::text(&definition.says),
        Cell::text(&definition.signer),
        Cell::moment(definition.imported_at_ms),
        Cell::text(&definition.digest),
        Cell::text(&definition.signer_thumbprint),
    ]
}

async fn show(
    operator: &Operator,
    home: &Home,
    name: String,
    version: String,
    format: Format,
) -> Result<Exit, Failure> {
    let found =
        answered(operator.definitions().get_definition(GetDefinitionRequest { name, version })).await?;
    let text = verified_definition_text(home, &found.envelope)?;
    let shown = found.definition.unwrap_or_default();
    match format {
        Format::Json | Format::Jsonl | Format::Csv => {
            let pairs = [
                ("name", Cell::text(shown.name)),
                ("version", Cell::text(shown.version)),
                ("kind", Cell::text(shown.kind)),
                ("licensed", Cell::flag(Flag::from(shown.licensed))),
                ("signer", Cell::text(shown.signer)),
                ("signer_thumbprint", Cell::text(shown.signer_thumbprint)),
                ("digest", Cell::text(shown.digest)),
                ("text", Cell::text(text)),
            ];
            output::print_pairs(pairs.map(|(name, cell)| (name.to_owned(), cell)).to_vec(), format)?;
        }
        Format::Table | Format::Wide => {
            output::note(&format!(
                "# {} {} · signed by {} · {}",
                shown.name,
                shown.version,
                shown.signer,
                if shown.licensed { "licensed" } else { "unlicensed" }
            ));
            output::print_line(text.trim_end())?;
        }
    }
    Ok(Exit::Ok)
}
