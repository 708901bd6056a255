//! An exchange (G9): a list of packs, which whoever gives them away puts beside them on a web server.
//!
//! Nothing in a list is believed, and nobody signs it: it says where packs are and what is in them, so that people can choose. A pack
//! that was fetched is judged by its own signatures ([`crate::pack`]) and by the licence, and whatever its list said of it is held
//! against it: its bytes by [`Arrival`], before it is opened, and its words by [`Listed::check`], before any of it is imported.
//! A pack lies below the folder of its list ([`PackPath`]), so that a list leads nobody to another server.

mod arrival;
mod document;
mod error;
mod path;

use std::collections::BTreeSet;

use muster_pki::Thumbprint;
use muster_pki::text::is_misleading;
use muster_proto::ids::Digest;
use semver::Version;

use crate::definition::DefinitionName;
use crate::envelope;
use crate::pack::{MEMBERS_MAX, PACK_BYTES_MAX, Pack};

pub use self::arrival::Arrival;
pub use self::error::ExchangeError;
pub use self::path::PackPath;

/// Bytes of a list: a thousand packs of eight definitions, each with a line of words.
pub const LIST_BYTES_MAX: usize = 4 << 20;

/// Packs of a list.
pub const PACKS_MAX: usize = 1_000;

/// Bytes of each line for people: as many as `says` of a definition may have.
const LINE_BYTES_MAX: usize = 1_024;

/// Bytes of a version: as many as the path of a definition in its pack can hold.
const VERSION_BYTES_MAX: usize = 100;

/// A checked list. It names each version of a pack once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    packs: Vec<Listed>,
}

/// What a list says of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    name: DefinitionName,
    version: Version,
    says: String,
    publisher: Publisher,
    size: u64,
    sha256: Digest,
    url: PackPath,
    definitions: Vec<ListedDefinition>,
}

/// Who signed the index of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// The subject of the certificate.
    pub subject: String,
    /// The certificate's.
    pub thumbprint: Thumbprint,
}

/// What a list says of a definition of a pack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedDefinition {
    /// Its name.
    pub name: DefinitionName,
    /// Its version.
    pub version: Version,
    /// What it does, in words, on one line.
    pub says: String,
    /// SHA-256 of its envelope, by which it is known everywhere.
    pub digest: Digest,
    /// Its signer's certificate, which a licence binds to prefixes.
    pub signer: Thumbprint,
}

impl Exchange {
    /// Makes a list; the order follows from names and versions.
    ///
    /// # Errors
    /// Something has no place in a list, is there twice, or is too much.
    pub fn new(mut packs: Vec<Listed>) -> Result<Self, ExchangeError> {
        if packs.len() > PACKS_MAX {
            return Err(ExchangeError::Form(format!("{} packs; wanted at most {PACKS_MAX}", packs.len())));
        }
        for pack in &mut packs {
            pack.definitions.sort();
            pack.check_form().map_err(|problem| ExchangeError::pack(&pack.to_string(), problem))?;
        }
        packs.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        let mut urls = BTreeSet::new();
        let mut last: Option<&Listed> = None;
        for pack in &packs {
            let refused = |problem: &str| ExchangeError::pack(&pack.to_string(), problem.to_owned());
            if last.is_some_and(|last| (&last.name, &last.version) == (&pack.name, &pack.version)) {
                return Err(refused("there twice; each version of a pack is there once"));
            }
            if !urls.insert(&pack.url) {
                return Err(refused(&format!("another pack has its url {}", pack.url)));
            }
            last = Some(pack);
        }
        Ok(Self { packs })
    }

    /// Reads a list. Unknown fields are refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ExchangeError> {
        if bytes.len() > LIST_BYTES_MAX {
            return Err(ExchangeError::TooLarge { got: bytes.len() });
        }
        Self::new(document::read(bytes)?)
    }

    /// Writes the list, as JSON; [`Self::parse`] gives the same one. The same packs make the same text.
    ///
    /// # Errors
    /// It is too large.
    pub fn to_text(&self) -> Result<String, ExchangeError> {
        let text = document::write(self)?;
        match text.len() > LIST_BYTES_MAX {
            true => Err(ExchangeError::TooLarge { got: text.len() }),
            false => Ok(text),
        }
    }

    /// Returns the packs, by name and version.
    #[must_use]
    pub fn packs(&self) -> &[Listed] {
        &self.packs
    }
}

impl Listed {
    /// Says of a verified pack what a list does.
    #[must_use]
    pub fn of(pack: &Pack, sha256: Digest, url: PackPath) -> Self {
        let definition = |packed: &crate::pack::PackedDefinition| ListedDefinition {
            name: packed.definition.name().clone(),
            version: packed.definition.version().clone(),
            says: line(packed.definition.says()),
            digest: envelope::digest(&packed.envelope),
            signer: packed.signer.thumbprint(),
        };
        let mut definitions: Vec<_> = pack.definitions.iter().map(definition).collect();
        definitions.sort();
        Self {
            name: pack.index.name().clone(),
            version: pack.index.version().clone(),
            says: line(pack.index.says()),
            publisher: Publisher {
                subject: line(pack.signer.subject()),
                thumbprint: pack.signer.thumbprint(),
            },
            size: pack.size,
            sha256,
            url,
            definitions,
        }
    }

    /// Holds everything that the list says against the verified pack: who chose by the list gets what they chose.
    ///
    /// # Errors
    /// They differ; the error names in what.
    pub fn check(&self, pack: &Pack) -> Result<(), ExchangeError> {
        let found = Self::of(pack, self.sha256, self.url.clone());
        let differing = [
            ("name", found.name != self.name),
            ("version", found.version != self.version),
            ("says", found.says != self.says),
            ("publisher", found.publisher != self.publisher),
            ("size", found.size != self.size),
            ("definitions", found.definitions != self.definitions),
        ];
        let differing: Vec<&str> =
            differing.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect();
        if differing.is_empty() {
            return Ok(());
        }
        Err(ExchangeError::Other {
            listed: self.to_string(),
            found: found.to_string(),
            differing: differing.join(", "),
        })
    }

    /// Returns the pack's name.
    #[must_use]
    pub const fn name(&self) -> &DefinitionName {
        &self.name
    }

    /// Returns the pack's version.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// Returns what it is for, in words, on one line.
    #[must_use]
    pub fn says(&self) -> &str {
        &self.says
    }

    /// Returns who is said to have signed its index.
    #[must_use]
    pub const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Returns the prefixes of its definitions, which a licence has to name.
    #[must_use]
    pub fn prefixes(&self) -> BTreeSet<&str> {
        self.definitions.iter().map(|definition| definition.name.prefix()).collect()
    }

    /// Returns how many bytes it has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the SHA-256 of its bytes.
    #[must_use]
    pub const fn sha256(&self) -> Digest {
        self.sha256
    }

    /// Returns where it lies, below the folder of the list.
    #[must_use]
    pub const fn url(&self) -> &PackPath {
        &self.url
    }

    /// Returns its definitions, by name and version.
    #[must_use]
    pub fn definitions(&self) -> &[ListedDefinition] {
        &self.definitions
    }

    fn check_form(&self) -> Result<(), String> {
        let count = self.definitions.len();
        if !(1..=MEMBERS_MAX).contains(&count) {
            return Err(format!("{count} definitions; a pack has 1 to {MEMBERS_MAX}"));
        }
        if !(1..=PACK_BYTES_MAX).contains(&self.size) {
            return Err(format!("size {}; a pack has 1 to {PACK_BYTES_MAX} bytes", self.size));
        }
        let lines = [("says", &self.says), ("publisher", &self.publisher.subject)];
        let definitions = self.definitions.iter().map(|it| ("says of a definition", &it.says));
        if let Some((what, _)) = lines.into_iter().chain(definitions).find(|(_, text)| !is_line(text)) {
            return Err(format!("{what}: wanted at most {LINE_BYTES_MAX} bytes on one line"));
        }
        let versions = self.definitions.iter().map(|it| &it.version).chain([&self.version]);
        for version in versions {
            if version.to_string().len() > VERSION_BYTES_MAX {
                return Err(format!("a version of more than {VERSION_BYTES_MAX} bytes"));
            }
        }
        let again = self.definitions.windows(2).find(|pair| match pair {
            [one, next] => (&one.name, &one.version) == (&next.name, &next.version),
            _ => false,
        });
        match again {
            Some([one, ..]) => Err(format!("definition {} {} is there twice", one.name, one.version)),
            Some(_) | None => Ok(()),
        }
    }
}

impl std::fmt::Display for Listed {
    /// Writes name and version.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version: String = self.version.to_string().chars().take(VERSION_BYTES_MAX).collect();
        write!(f, "{} {version}", self.name)
    }
}

/// Words that people read in a table: on one line, and not without end.
fn line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if is_misleading(c) { ' ' } else { c }).collect();
    let mut line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = (0..=LINE_BYTES_MAX.min(line.len())).rev().find(|at| line.is_char_boundary(*at));
    line.truncate(end.unwrap_or_default());
    line
}

fn is_line(text: &str) -> bool {
    text.len() <= LINE_BYTES_MAX && !text.chars().any(is_misleading)
}

#[cfg(test)]
mod tests;
