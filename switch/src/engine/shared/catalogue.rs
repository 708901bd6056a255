//! The definitions, the licence and the policies that are held.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use muster_proto::ids::Digest;
use muster_proto::operator::v1::Definition as ShownDefinition;
use muster_proto::session::v1::DocumentKind;
use muster_signing::definition::Kind;
use muster_signing::licence::LicenceRefusal;
use semver::Version;

use crate::engine::EngineError;
use crate::engine::core::{HeldDefinition, HeldLicence, HeldPolicy};
use crate::engine::damage::Damage;
use crate::engine::store::DocumentRecord;

/// The documents held. Cloning is cheap enough for an import.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    /// Every envelope of a version, in the order of import; one at least.
    by_version: BTreeMap<(String, Version), Vec<Arc<HeldDefinition>>>,
    /// Of all envelopes: orders may name each.
    by_digest: HashMap<Digest, Arc<HeldDefinition>>,
    /// The one in force; older ones are kept on disk only.
    pub(crate) licence: Option<Arc<HeldLicence>>,
    policies: BTreeMap<u64, Arc<HeldPolicy>>,
}

impl Catalogue {
    /// Makes it of what was stored, in the order of import.
    pub(crate) fn stored(
        definitions: Vec<DocumentRecord>,
        licences: Vec<DocumentRecord>,
        policies: Vec<DocumentRecord>,
        damage: &Damage,
    ) -> Self {
        let mut catalogue = Self::default();
        for record in definitions {
            match HeldDefinition::stored(record) {
                Ok(held) => catalogue.insert(Arc::new(held)),
                Err(what) => damage.note("definitions", "text", &what),
            }
        }
        for record in licences {
            match HeldLicence::stored(record) {
                Ok(held) => catalogue.licence = Some(Arc::new(held)),
                Err(what) => damage.note("licences", "text", &what),
            }
        }
        for record in policies {
            match HeldPolicy::stored(record) {
                Ok(held) => catalogue.insert_policy(Arc::new(held)),
                Err(what) => damage.note("policies", "text", &what),
            }
        }
        catalogue
    }

    pub(crate) fn insert(&mut self, held: Arc<HeldDefinition>) {
        let key = (held.document.name().to_string(), held.document.version().clone());
        self.by_digest.insert(held.digest, Arc::clone(&held));
        self.by_version.entry(key).or_default().push(held);
    }

    pub(crate) fn insert_policy(&mut self, held: Arc<HeldPolicy>) {
        self.policies.insert(held.document.serial(), held);
    }

    pub(crate) fn remove_policy(&mut self, serial: u64) {
        self.policies.remove(&serial);
    }

    pub(crate) fn policy(&self, serial: u64) -> Option<&Arc<HeldPolicy>> {
        self.policies.get(&serial)
    }

    /// Returns the policies by serial, ascending.
    pub(crate) fn policies(&self) -> impl DoubleEndedIterator<Item = &Arc<HeldPolicy>> {
        self.policies.values()
    }

    pub(crate) fn definition_by_digest(&self, digest: Digest) -> Option<&Arc<HeldDefinition>> {
        self.by_digest.get(&digest)
    }

    pub(crate) fn definition(&self, name: &str, version: &Version) -> Option<&Arc<HeldDefinition>> {
        self.current(self.by_version.get(&(name.to_owned(), version.clone()))?)
    }

    /// Returns the envelope of a version that is issued: the last one imported that the licence admits, so that whoever signs the same text
    /// without a licence takes nothing out of use; else the last one.
    fn current<'a>(&self, envelopes: &'a [Arc<HeldDefinition>]) -> Option<&'a Arc<HeldDefinition>> {
        envelopes.iter().rev().find(|held| self.admits(held)).or_else(|| envelopes.last())
    }

    /// Returns how many envelopes of a version are held.
    pub(crate) fn signatures(&self, name: &str, version: &Version) -> usize {
        self.by_version.get(&(name.to_owned(), version.clone())).map_or(0, Vec::len)
    }

    /// Returns an envelope of the same version with another text, which keeps this one out. What the licence does not admit keeps nothing out
    /// that it admits: anybody may sign under any name.
    pub(crate) fn conflict(&self, new: &HeldDefinition) -> Option<&Arc<HeldDefinition>> {
        let key = (new.document.name().to_string(), new.document.version().clone());
        let is_admitted = self.admits(new);
        let mut others = self.by_version.get(&key)?.iter().filter(|held| held.text != new.text);
        others.find(|held| !is_admitted || self.admits(held))
    }

    /// Returns whether the licence that is held admits a definition, whether or not it is in its validity.
    pub(crate) fn admits(&self, held: &HeldDefinition) -> bool {
        self.licence.as_ref().is_some_and(|licence| licensed(licence, held).is_ok())
    }

    /// Returns every version of a name, ascending.
    pub(crate) fn versions<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<HeldDefinition>> {
        self.all().filter(move |((held, _), _)| held == name).map(|(_, held)| held)
    }

    /// Says that there is no such definition, and which was probably meant. An empty version is any.
    pub(crate) fn missing(&self, name: &str, version: &str) -> EngineError {
        let versions: Vec<String> =
            self.versions(name).map(|held| held.document.version().to_string()).collect();
        let names: BTreeSet<&str> = self.all().map(|((name, _), _)| name.as_str()).collect();
        EngineError::NotFound(match nearest(name, names) {
            _ if name.is_empty() => {
                "the name of the definition is empty; give one, such as Acme-Os-Version".to_owned()
            }
            _ if !versions.is_empty() => {
                format!("{name} is not imported in version {version}; it is in {}", versions.join(", "))
            }
            Some(near) => format!("no definition {name} is imported; did you mean `{near}`?"),
            None => format!("no definition {name} is imported; import it first"),
        })
    }

    /// Returns all, by name, then version.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&(String, Version), &Arc<HeldDefinition>)> {
        self.by_version.iter().filter_map(|(place, envelopes)| Some((place, self.current(envelopes)?)))
    }

    /// Returns a document by its digest.
    pub(crate) fn document(&self, kind: DocumentKind, digest: Digest) -> Option<Bytes> {
        match kind {
            DocumentKind::Definition => self.by_digest.get(&digest).map(|held| held.envelope.clone()),
            DocumentKind::Licence => {
                self.licence.as_ref().filter(|held| held.digest == digest).map(|held| held.envelope.clone())
            }
            DocumentKind::Policy => {
                self.policies().find(|held| held.digest == digest).map(|held| held.envelope.clone())
            }
            DocumentKind::Unspecified => None,
        }
    }

    /// Returns why a definition may not be issued; `None` if it may.
    pub(crate) fn unlicensed(&self, held: &HeldDefinition, now_ms: i64) -> Option<String> {
        let Some(licence) = &self.licence else {
            return Some("there is no licence; import one".to_owned());
        };
        if !licence.is_valid_at(now_ms) {
            return Some("the licence is outside its validity; import a newer one".to_owned());
        }
        licensed(licence, held).err().map(|refusal| refusal.to_string())
    }

    /// Returns a definition as shown to people.
    pub(crate) fn shown(&self, held: &HeldDefinition, now_ms: i64) -> ShownDefinition {
        let kind = match held.document.kind() {
            Kind::Question => "question",
            Kind::Action => "action",
        };
        ShownDefinition {
            name: held.document.name().to_string(),
            version: held.document.version().to_string(),
            kind: kind.to_owned(),
            says: held.document.says().to_owned(),
            digest: held.digest.to_string(),
            signer_thumbprint: held.signer.to_string(),
            signer: held.signer_subject.clone(),
            licensed: self.unlicensed(held, now_ms).is_none(),
            imported_at_ms: held.imported_at_ms,
        }
    }
}

fn licensed(licence: &HeldLicence, held: &HeldDefinition) -> Result<(), LicenceRefusal> {
    let definition = &held.document;
    licence.document.admits(definition.name(), definition.version(), &held.signer, held.stamped_at)
}

/// Returns the name that was probably meant, if any is near.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR: f64 = 0.7;
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(name, known), known));
    scored.filter(|(score, _)| *score >= NEAR).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
