//! `muster pack search`: what the list of an exchange says, and what the Switch knows of it.

use std::collections::BTreeMap;

use muster_pki::UnixTime;
use muster_signing::exchange::{Listed, ListedDefinition};
use muster_signing::licence::Licence;
use serde_json::{Value, json};

use crate::cli::PackSearch;
use crate::command::definition::{self, More};
use crate::exchange::Source;
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home};
use crate::operator::Operator;
use crate::output::{self, Cell, Table};
use crate::seen;

/// Definitions of a Switch that are looked through.
const DEFINITIONS_MAX: u32 = 100_000;

/// Shows the packs of an exchange.
pub(crate) async fn search(
    home: &Home,
    context: Option<&str>,
    arguments: &PackSearch,
) -> Result<Exit, Failure> {
    let context = match (context, home.context(context)) {
        (Some(_), Err(mistyped)) => return Err(mistyped),
        (_, found) => found,
    };
    let source = Source::new(home, &arguments.url, arguments.server.https_roots.as_deref())?;
    let list = source.list().await?;
    let fitting: Vec<&Listed> = list.packs().iter().filter(|pack| fits(pack, &arguments.words)).collect();
    let limit = usize::try_from(arguments.listing.limit).unwrap_or(usize::MAX);
    let known = match fitting.is_empty() {
        true => Ok(Known::default()),
        false => Known::ask(home, context).await,
    };
    let (known, unknown) = match known {
        Ok(known) => (known, None),
        Err(failure) => (Known::default(), Some(failure)),
    };
    table(fitting.iter().take(limit).copied(), &known).print(arguments.listing.output)?;
    if fitting.len() > limit {
        output::note_more(arguments.listing.limit);
    }
    if let Some(failure) = unknown {
        let why = format!("whether they are imported and licensed is not known: {failure}");
        output::note(&output::printable(&why));
    }
    let url = &arguments.url;
    output::note(&match (fitting.as_slice(), list.packs().len()) {
        ([], 0) => "the list names no pack".to_owned(),
        ([], all) => format!("none of the {all} packs has these words\n  try: muster pack search {url}"),
        ([one, ..], _) => format!(
            "so the list says; a pack is verified when it is imported\n  try: muster pack import {} --exchange {url}",
            one.name()
        ),
    });
    Ok(Exit::Ok)
}

/// Whether a pack has all the words, in any case.
fn fits(pack: &Listed, words: &[String]) -> bool {
    let mut text = format!("{pack}\n{}\n{}", pack.says(), pack.publisher().subject);
    for definition in pack.definitions() {
        text.push_str(&format!("\n{}\n{}", definition.name, definition.says));
    }
    let text = text.to_lowercase();
    words.iter().all(|word| text.contains(&word.to_lowercase()))
}

/// What the Switch knows.
#[derive(Debug, Default)]
struct Known {
    /// By its digest, whether a definition that it holds is licensed; none: that was not to be had.
    held: Option<BTreeMap<String, bool>>,
    licence: Option<Licence>,
}

impl Known {
    async fn ask(home: &Home, context: Result<Context, Failure>) -> Result<Self, Failure> {
        let operator = Operator::connect(home, &context?).await?;
        let (definitions, more) = definition::held(&operator, DEFINITIONS_MAX).await?;
        if more == More::Yes {
            let problem = format!("the Switch holds more than {DEFINITIONS_MAX} definitions");
            return Err(Failure::new(Exit::Partial, problem));
        }
        let held = definitions.into_iter().map(|shown| (shown.digest, shown.licensed)).collect();
        // A home without the roots of licences can still tell what is imported.
        let licence = seen::licence(&operator, home).await.ok().flatten();
        Ok(Self { held: Some(held), licence: licence.map(|(licence, _)| licence) })
    }

    fn is_imported(&self, definition: &ListedDefinition) -> Option<bool> {
        Some(self.held.as_ref()?.contains_key(&definition.digest.to_string()))
    }

    /// What the Switch says of a definition that it holds; else what its licence says of the signer that the list names.
    fn is_licensed(&self, definition: &ListedDefinition) -> Option<bool> {
        let ListedDefinition { name, version, signer, .. } = definition;
        let of_licence = || {
            let licence = self.licence.as_ref()?;
            let is_valid = licence.is_valid_at(UnixTime::now());
            Some(is_valid && licence.admits(name, version, signer, None).is_ok())
        };
        self.held.as_ref()?.get(&definition.digest.to_string()).copied().or_else(of_licence)
    }
}

fn table<'a>(packs: impl Iterator<Item = &'a Listed>, known: &Known) -> Table {
    let columns = [
        "name",
        "version",
        "says",
        "definitions",
        "size",
        "imported",
        "licensed",
        "publisher",
        "prefixes",
        "sha256",
        "url",
    ];
    let mut table = Table::new(columns).wide_only(&["publisher", "prefixes", "sha256", "url"]);
    for pack in packs {
        let prefixes: Vec<&str> = pack.prefixes().into_iter().collect();
        let definitions: Vec<Value> = pack.definitions().iter().map(|it| definition(it, known)).collect();
        table.push(vec![
            Cell::text(pack.name().as_str()),
            Cell::text(pack.version().to_string()),
            Cell::text(pack.says()),
            Cell { text: definitions.len().to_string(), json: Value::Array(definitions) },
            Cell::number(pack.size()),
            all_of(pack.definitions().iter().map(|it| known.is_imported(it))),
            all_of(pack.definitions().iter().map(|it| known.is_licensed(it))),
            Cell { text: pack.publisher().subject.clone(), json: publisher(pack) },
            Cell { text: prefixes.join(", "), json: json!(prefixes) },
            Cell::text(pack.sha256().to_string()),
            Cell::text(pack.url().as_str()),
        ]);
    }
    table
}

fn publisher(pack: &Listed) -> Value {
    let publisher = pack.publisher();
    json!({ "subject": publisher.subject, "thumbprint": publisher.thumbprint.to_string() })
}

fn definition(definition: &ListedDefinition, known: &Known) -> Value {
    json!({
        "name": definition.name.as_str(),
        "version": definition.version.to_string(),
        "says": definition.says,
        "digest": definition.digest.to_string(),
        "signer_thumbprint": definition.signer.to_string(),
        "imported": known.is_imported(definition),
        "licensed": known.is_licensed(definition),
    })
}

/// Whether something holds for all of several, some, or none; nothing is said where it is not known of one.
fn all_of(each: impl Iterator<Item = Option<bool>>) -> Cell {
    let Some(each) = each.collect::<Option<Vec<bool>>>() else {
        return Cell { text: "-".to_owned(), json: Value::Null };
    };
    Cell::text(match (each.contains(&true), each.contains(&false)) {
        (true, false) => "yes",
        (true, true) => "partly",
        (false, _) => "no",
    })
}

#[cfg(test)]
mod tests {
    use muster_signing::exchange::Exchange;

    use super::*;

    fn packs() -> Exchange {
        Exchange::parse(include_bytes!("../../../../../signing/fuzz/corpus/exchange/small.json")).unwrap()
    }

    #[test]
    fn words_are_found_in_names_in_what_is_said_and_in_the_publisher_in_any_case() {
        let list = packs();
        for (words, found) in [
            (vec![], 2),
            (vec!["ACME"], 2),
            (vec!["basics"], 1),
            (vec!["days", "certificates"], 1),
            (vec!["ports"], 2),
            (vec!["muster-os"], 1),
            (vec!["listens", "operating"], 0),
        ] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            assert_eq!(list.packs().iter().filter(|pack| fits(pack, &words)).count(), found, "{words:?}");
        }
    }

    #[test]
    fn what_the_switch_does_not_tell_is_shown_as_unknown_and_some_of_all_as_partly() {
        for (each, text) in [
            (vec![Some(true), Some(true)], "yes"),
            (vec![Some(true), Some(false)], "partly"),
            (vec![Some(false)], "no"),
            (vec![Some(true), None], "-"),
        ] {
            assert_eq!(all_of(each.into_iter()).text, text);
        }
        let list = packs();
        let rows = table(list.packs().iter(), &Known::default()).objects();
        assert_eq!((&rows[0]["imported"], &rows[0]["licensed"]), (&Value::Null, &Value::Null));
        assert_eq!(rows[1]["prefixes"], json!(["Acme", "Muster"]));
    }

    #[test]
    fn a_definition_counts_as_imported_by_its_digest_alone() {
        let list = packs();
        let basics = &list.packs()[1];
        let held = |digest: String| Known { held: Some(BTreeMap::from([(digest, false)])), licence: None };
        let first = &basics.definitions()[0];

        let by_digest = held(first.digest.to_string());
        let by_name = held("0".repeat(64));

        assert_eq!((by_digest.is_imported(first), by_digest.is_licensed(first)), (Some(true), Some(false)));
        assert_eq!((by_name.is_imported(first), by_name.is_licensed(first)), (Some(false), None));
    }
}
