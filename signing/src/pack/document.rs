//! The TOML of an index; unknown keys are refused.

use std::str::FromStr;

use muster_proto::ids::Digest;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{Digests, Index, Member, PackError};
use crate::definition::DefinitionName;

/// The form of packs that this is.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    name: String,
    version: Version,
    says: String,
    definition: Vec<Definition>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resource: Vec<Resource>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    path: String,
    name: String,
    version: Version,
    size: u64,
    root: String,
    sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    path: String,
    size: u64,
    root: String,
    sha256: String,
}

pub(super) fn read(text: &str) -> Result<Index, PackError> {
    let document: Document =
        toml::from_str(text).map_err(|error| PackError::Index(error.to_string().trim_end().to_owned()))?;
    if document.format != FORMAT {
        let problem = format!("format {}; this version reads format {FORMAT}", document.format);
        return Err(PackError::Index(problem));
    }
    let definition = |given: Definition| {
        let name = parsed::<DefinitionName>(&given.name)?;
        let member = member(given.path, given.size, &given.root, &given.sha256)?;
        Ok((name, given.version, member))
    };
    let resource = |given: Resource| member(given.path, given.size, &given.root, &given.sha256);
    Ok(Index {
        name: parsed(&document.name)?,
        version: document.version,
        says: document.says,
        definitions: document.definition.into_iter().map(definition).collect::<Result<_, PackError>>()?,
        resources: document.resource.into_iter().map(resource).collect::<Result<_, PackError>>()?,
    })
}

pub(super) fn write(index: &Index) -> Result<String, PackError> {
    let definition = |(name, version, member): &(DefinitionName, Version, Member)| Definition {
        path: member.path.clone(),
        name: name.to_string(),
        version: version.clone(),
        size: member.digests.size,
        root: member.digests.root.to_string(),
        sha256: member.digests.sha256.to_string(),
    };
    let resource = |member: &Member| Resource {
        path: member.path.clone(),
        size: member.digests.size,
        root: member.digests.root.to_string(),
        sha256: member.digests.sha256.to_string(),
    };
    let document = Document {
        format: FORMAT,
        name: index.name.to_string(),
        version: index.version.clone(),
        says: index.says.clone(),
        definition: index.definitions.iter().map(definition).collect(),
        resource: index.resources.iter().map(resource).collect(),
    };
    toml::to_string(&document).map_err(|error| PackError::Index(error.to_string()))
}

fn member(path: String, size: u64, root: &str, sha256: &str) -> Result<Member, PackError> {
    let digests = Digests { size, root: parsed::<Digest>(root)?, sha256: parsed::<Digest>(sha256)? };
    Ok(Member { path, digests })
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, PackError> {
    text.parse().map_err(|error: T::Err| PackError::Index(error.to_string()))
}
