//! Packs (G9): one archive of signed definitions, the resources that they need, and a signed index of both.
//!
//! The archive is an uncompressed ustar (POSIX.1-1988) that has one form only: `index.cms`, then the definitions, then the
//! resources, each in the order of their paths, and the two blocks of zeros that end it; every header is the one that [`header`]
//! makes of a path and a size. So the signed index alone says what every other byte must be, but for the contents, whose
//! digests it holds: a reader compares and hashes, and interprets nothing. Links, other names, duplicates and sparse members
//! cannot be said.
//!
//! [`Index`] is what is signed, [`Reader`] takes an archive piece by piece and holds no resource. Which definitions may be
//! issued is the licence's matter (G1), and no pack's.

mod archive;
mod digests;
mod document;
mod error;
mod reader;

use std::collections::{BTreeMap, BTreeSet};

use muster_pki::text::is_misleading;
use muster_proto::ids::Digest;
use semver::Version;

use crate::definition::{Definition, DefinitionName};
use crate::envelope::ENVELOPE_BYTES_MAX;
use crate::hidden;

pub use self::archive::{BLOCK_BYTES, END, header, padding};
pub use self::digests::{Digests, MemberHasher};
pub use self::error::PackError;
pub use self::reader::{Pack, PackedDefinition, PackedResource, Reader};

/// Where the signed index stands in the archive.
pub const INDEX_PATH: &str = "index.cms";

/// Most definitions, and most resources, of a pack: an index of both fits its envelope.
pub const MEMBERS_MAX: usize = 256;

/// Bytes of all definitions together; a reader holds them. With the index they fit one request of 4 MiB to a Switch.
pub const DEFINITIONS_BYTES_MAX: u64 = 3 << 20;

/// Bytes of one resource: as many as a Background Channel takes by default, and fewer than a header can say.
pub const RESOURCE_BYTES_MAX: u64 = 4 << 30;

/// Bytes of all resources together.
pub const RESOURCES_BYTES_MAX: u64 = 16 << 30;

/// Bytes of a whole pack: its contents, a header and at most a block of padding for each of them, and the end.
pub const PACK_BYTES_MAX: u64 = ENVELOPE_BYTES_MAX as u64
    + DEFINITIONS_BYTES_MAX
    + RESOURCES_BYTES_MAX
    + (2 * (2 * MEMBERS_MAX as u64 + 1) + 2) * BLOCK_BYTES as u64;

/// Bytes of `says`: a line for people.
const SAYS_BYTES_MAX: usize = 1_024;

/// Bytes of a path: what the name of an ustar header holds.
const PATH_BYTES_MAX: usize = 100;

const DEFINITIONS: &str = "definitions/";
const RESOURCES: &str = "resources/";

/// What a pack says of itself, and each member it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    name: DefinitionName,
    version: Version,
    says: String,
    definitions: Vec<(DefinitionName, Version, Member)>,
    resources: Vec<Member>,
}

/// One member of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    path: String,
    digests: Digests,
}

impl Member {
    /// Returns its path in the archive: a folder and a name.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns its name in its folder.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Returns its size and digests.
    #[must_use]
    pub const fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Holds what was read against what the index says.
    ///
    /// # Errors
    /// They differ.
    pub fn check(&self, got: &Digests) -> Result<(), PackError> {
        if *got == self.digests {
            return Ok(());
        }
        Err(PackError::member(&self.path, "its content is not the one that the index was signed for"))
    }
}

impl Index {
    /// Makes the index of a pack; order and paths follow from what is given.
    ///
    /// # Errors
    /// Something has no place in a pack, is there twice, or is too much.
    pub fn new(
        name: DefinitionName,
        version: Version,
        says: &str,
        definitions: impl IntoIterator<Item = (DefinitionName, Version, Digests)>,
        resources: impl IntoIterator<Item = (String, Digests)>,
    ) -> Result<Self, PackError> {
        let mut definitions: Vec<_> = definitions
            .into_iter()
            .map(|(name, version, digests)| {
                let path = definition_path(&name, &version);
                (name, version, Member { path, digests })
            })
            .collect();
        let mut resources: Vec<_> = resources
            .into_iter()
            .map(|(name, digests)| Member { path: format!("{RESOURCES}{name}"), digests })
            .collect();
        definitions.sort_by(|a, b| a.2.path.cmp(&b.2.path));
        resources.sort_by(|a, b| a.path.cmp(&b.path));
        let index = Self { name, version, says: says.to_owned(), definitions, resources };
        index.check()?;
        Ok(index)
    }

    /// Reads an index.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PackError> {
        if let Some(c) = hidden::in_document(text) {
            return Err(PackError::Index(format!("{}; have it built anew", hidden::told(c))));
        }
        let index = document::read(text)?;
        index.check()?;
        Ok(index)
    }

    /// Returns the text that is signed.
    ///
    /// # Errors
    /// It has none.
    pub fn to_text(&self) -> Result<String, PackError> {
        document::write(self)
    }

    /// Returns the pack's name; of the form of a definition's (G3).
    #[must_use]
    pub const fn name(&self) -> &DefinitionName {
        &self.name
    }

    /// Returns the pack's version.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// Returns what it is for, in words.
    #[must_use]
    pub fn says(&self) -> &str {
        &self.says
    }

    /// Returns name, version and member of each definition, by path.
    #[must_use]
    pub fn definitions(&self) -> &[(DefinitionName, Version, Member)] {
        &self.definitions
    }

    /// Returns the resources, by path.
    #[must_use]
    pub fn resources(&self) -> &[Member] {
        &self.resources
    }

    /// Holds a definition against the name and version of the one with this number, by path.
    ///
    /// # Errors
    /// They differ, or there is none with this number.
    pub fn check_definition(&self, number: usize, definition: &Definition) -> Result<(), PackError> {
        let (name, version) = (definition.name(), definition.version());
        match self.definitions.get(number) {
            Some((named, numbered, _)) if named == name && numbered == version => Ok(()),
            Some((_, _, member)) => {
                let problem = format!("it is {name} {version}, and the index says otherwise");
                Err(PackError::member(&member.path, &problem))
            }
            None => Err(PackError::Index(format!("{name} {version} is one definition more than it names"))),
        }
    }

    /// Holds the resources against those that the definitions name: all of them are here, and no others.
    ///
    /// # Errors
    /// One is missing, differs, or is named by no definition.
    pub fn check_resources(&self, definitions: &[Definition]) -> Result<(), PackError> {
        let held: BTreeMap<Digest, &Member> =
            self.resources.iter().map(|member| (member.digests.root, member)).collect();
        let mut named = BTreeSet::new();
        for definition in definitions {
            for resource in definition.resources() {
                let wrong = |problem: &str| {
                    let what = format!("resource {} of {}", resource.name, definition.name());
                    PackError::Index(format!("{what} (root {}): {problem}", resource.root))
                };
                let member =
                    held.get(&resource.root).ok_or_else(|| wrong("not in the pack; give its file, too"))?;
                let digests = &member.digests;
                if digests.size != resource.size || resource.sha256.is_some_and(|sha| sha != digests.sha256) {
                    return Err(wrong("the definition gives it another size or SHA-256 than it has"));
                }
                named.insert(resource.root);
            }
        }
        let unnamed = self.resources.iter().find(|member| !named.contains(&member.digests.root));
        match unnamed {
            Some(member) => {
                Err(PackError::member(&member.path, "no definition of the pack names it by its root"))
            }
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), PackError> {
        let counts = [("definitions", self.definitions.len()), ("resources", self.resources.len())];
        if let Some((what, got)) = counts.into_iter().find(|(_, count)| *count > MEMBERS_MAX) {
            return Err(PackError::Index(format!("{got} {what}; wanted at most {MEMBERS_MAX}")));
        }
        if self.definitions.is_empty() {
            return Err(PackError::Index("no definition; a pack has one or more".to_owned()));
        }
        if self.says.len() > SAYS_BYTES_MAX || self.says.chars().any(is_misleading) {
            return Err(PackError::Index(format!(
                "says: wanted at most {SAYS_BYTES_MAX} bytes on one line, none of them hidden"
            )));
        }
        let envelope_max = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let definitions = || self.definitions.iter().map(|(_, _, member)| member);
        check_sizes(definitions(), envelope_max, DEFINITIONS_BYTES_MAX)?;
        check_sizes(self.resources.iter(), RESOURCE_BYTES_MAX, RESOURCES_BYTES_MAX)?;
        for (name, version, member) in &self.definitions {
            let path = definition_path(name, version);
            if path != member.path {
                return Err(PackError::member(&member.path, &format!("wanted {path}, by name and version")));
            }
        }
        // A version may have a `+`; a name that the Background Channel lists a resource by may not.
        check_paths(definitions(), DEFINITIONS, b"._-+")?;
        check_paths(self.resources.iter(), RESOURCES, b"._-")?;
        let mut roots = BTreeSet::new();
        match self.resources.iter().find(|member| !roots.insert(member.digests.root)) {
            Some(again) => Err(PackError::member(&again.path, "another member has the same content")),
            None => Ok(()),
        }
    }
}

fn definition_path(name: &DefinitionName, version: &Version) -> String {
    format!("{DEFINITIONS}{name}-{version}.cms")
}

fn check_sizes<'a>(
    members: impl Iterator<Item = &'a Member>,
    one_max: u64,
    all_max: u64,
) -> Result<(), PackError> {
    let mut all = 0_u64;
    for member in members {
        let size = member.digests.size;
        if size > one_max {
            let problem = format!("{size} bytes; wanted at most {one_max}");
            return Err(PackError::member(&member.path, &problem));
        }
        all = all.saturating_add(size);
        if all > all_max {
            let problem = format!("with those before it more than {all_max} bytes; make two packs");
            return Err(PackError::member(&member.path, &problem));
        }
    }
    Ok(())
}

/// Paths are in `folder`, of letters, digits and `marks`, ascend, and so are there once each.
fn check_paths<'a>(
    members: impl Iterator<Item = &'a Member>,
    folder: &str,
    marks: &[u8],
) -> Result<(), PackError> {
    let mut last = "";
    for member in members {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || marks.contains(&byte);
        let is_name = |name: &str| !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_plain);
        if !member.path.strip_prefix(folder).is_some_and(is_name) || member.path.len() > PATH_BYTES_MAX {
            let marks = String::from_utf8_lossy(marks);
            let problem = format!(
                "wanted {folder}NAME of at most {PATH_BYTES_MAX} bytes: letters, digits and `{marks}`, and no `.` in front"
            );
            return Err(PackError::member(&member.path, &problem));
        }
        if member.path.as_str() <= last {
            return Err(PackError::member(&member.path, "there twice, or not in the order of paths"));
        }
        last = &member.path;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
