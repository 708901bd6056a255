//! The JSON of a list; unknown fields are refused.

use std::str::FromStr;

use muster_pki::Thumbprint;
use muster_proto::ids::Digest;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{Exchange, ExchangeError, Listed, ListedDefinition};

/// The form of lists that this is.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    packs: Vec<Pack>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pack {
    name: String,
    version: Version,
    says: String,
    publisher: Publisher,
    prefixes: Vec<String>,
    size: u64,
    sha256: String,
    url: String,
    definitions: Vec<Definition>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publisher {
    subject: String,
    thumbprint: Thumbprint,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    name: String,
    version: Version,
    says: String,
    digest: String,
    signer: Thumbprint,
}

pub(super) fn read(bytes: &[u8]) -> Result<Vec<Listed>, ExchangeError> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| ExchangeError::form(&error.to_string()))?;
    if document.format != FORMAT {
        let problem = format!("format {}; this version reads format {FORMAT}", document.format);
        return Err(ExchangeError::form(&problem));
    }
    document.packs.into_iter().map(listed).collect()
}

fn listed(given: Pack) -> Result<Listed, ExchangeError> {
    let refused = |problem: String| ExchangeError::pack(&given.name, problem);
    let definition = |one: &Definition| {
        Ok::<_, String>(ListedDefinition {
            name: parsed(&one.name)?,
            version: one.version.clone(),
            says: one.says.clone(),
            digest: parsed::<Digest>(&one.digest)?,
            signer: one.signer,
        })
    };
    let listed = Listed {
        name: parsed(&given.name).map_err(refused)?,
        version: given.version.clone(),
        says: given.says.clone(),
        publisher: super::Publisher {
            subject: given.publisher.subject.clone(),
            thumbprint: given.publisher.thumbprint,
        },
        size: given.size,
        sha256: parsed::<Digest>(&given.sha256).map_err(refused)?,
        url: parsed(&given.url).map_err(refused)?,
        definitions: given.definitions.iter().map(definition).collect::<Result<_, _>>().map_err(refused)?,
    };
    let found: Vec<&str> = listed.prefixes().into_iter().collect();
    if given.prefixes != found {
        let found = found.join(", ");
        return Err(refused(format!("prefixes: wanted those of its definitions, by name: {found}")));
    }
    Ok(listed)
}

pub(super) fn write(exchange: &Exchange) -> Result<String, ExchangeError> {
    let document = Document { format: FORMAT, packs: exchange.packs().iter().map(pack).collect() };
    let text = serde_json::to_string_pretty(&document);
    text.map(|text| text + "\n").map_err(|error| ExchangeError::form(&error.to_string()))
}

fn pack(listed: &Listed) -> Pack {
    let definition = |one: &ListedDefinition| Definition {
        name: one.name.to_string(),
        version: one.version.clone(),
        says: one.says.clone(),
        digest: one.digest.to_string(),
        signer: one.signer,
    };
    Pack {
        name: listed.name().to_string(),
        version: listed.version().clone(),
        says: listed.says().to_owned(),
        publisher: Publisher {
            subject: listed.publisher().subject.clone(),
            thumbprint: listed.publisher().thumbprint,
        },
        prefixes: listed.prefixes().into_iter().map(str::to_owned).collect(),
        size: listed.size(),
        sha256: listed.sha256().to_string(),
        url: listed.url().to_string(),
        definitions: listed.definitions().iter().map(definition).collect(),
    }
}

/// What a text says; each of these errors repeats the beginning of a foreign text alone.
fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}
