//! The definitions, the licence and the policies that are held.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use muster_proto::common::v1::Refusal;
use muster_proto::ids::Digest;
use muster_proto::operator::v1::Definition as ShownDefinition;
use muster_proto::session::v1::DocumentKind;
use muster_signing::admit::RefusalReason;
use muster_signing::definition::Kind;
use muster_signing::licence::{Licence, LicenceRefusal};
use muster_signing::policy::Policy;
use semver::Version;

use super::outdated::{self, Outdated};
use crate::engine::EngineError;
use crate::engine::core::{Document, Held, HeldDefinition, HeldLicence, HeldPolicy, Unfit};
use crate::engine::damage::Damage;
use crate::engine::store::LoadedDocuments;

/// Definitions that a warning names at most.
const NAMED_MAX: usize = 3;

/// The documents held. Cloning is cheap enough for an import.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    /// Every envelope of a version, in the order of import; one at least.
    by_version: BTreeMap<(String, Version), Vec<Arc<HeldDefinition>>>,
    /// Of all envelopes: orders may name each.
    by_digest: HashMap<Digest, Arc<HeldDefinition>>,
    /// Those of an earlier version that this one refuses.
    outdated: Arc<[Outdated]>,
    /// The one in force; older ones are kept on disk only.
    pub(crate) licence: Option<Arc<HeldLicence>>,
    /// The last licence, where it is damaged. None before it comes back into force: it took something away from them.
    lost_licence: Option<LostLicence>,
    policies: BTreeMap<u64, Arc<HeldPolicy>>,
    /// The highest serial of a policy that is damaged; 0: none is.
    lost_policy: u64,
}

/// What is known of a licence that is damaged.
#[derive(Debug, Clone, Copy)]
enum LostLicence {
    /// It had this serial.
    Serial(u64),
    /// It came after the one with this serial; 0: after none.
    After(u64),
}

impl Catalogue {
    /// Makes it of what was stored, in the order of import. `licence_serial` and `policy_serial` are the highest that ever were.
    pub(crate) fn stored(
        definitions: LoadedDocuments,
        licences: LoadedDocuments,
        policies: LoadedDocuments,
        [licence_serial, policy_serial]: [u64; 2],
        damage: &Damage,
    ) -> Self {
        let mut catalogue = Self::default();
        catalogue.insert_stored(definitions, damage);
        let (licences, lost_at) = read::<Licence>(licences, "licences", damage);
        let (at, serial) = licences.last().map_or((0, 0), |(at, held)| (*at, held.document.serial()));
        if serial < licence_serial {
            catalogue.lost_licence = Some(LostLicence::Serial(licence_serial));
        } else if at < lost_at {
            catalogue.lost_licence = Some(LostLicence::After(serial));
        } else {
            catalogue.licence = licences.into_iter().next_back().map(|(_, held)| Arc::new(held));
        }
        let (policies, lost_at) = read::<Policy>(policies, "policies", damage);
        let last = policies.last().map_or(0, |(_, held)| held.document.serial());
        let gone = if last < policy_serial { policy_serial } else { 0 };
        catalogue.lost_policy = u64::try_from(lost_at).unwrap_or_default().max(gone);
        policies.into_iter().for_each(|(_, held)| catalogue.insert_policy(Arc::new(held)));
        catalogue
    }

    fn insert_stored(&mut self, definitions: LoadedDocuments, damage: &Damage) {
        let mut all = Vec::new();
        for (position, record) in definitions.whole {
            match Held::stored(record).map_err(|unfit| outdated::refused(position, unfit)) {
                Ok(held) => self.insert(Arc::new(held)),
                Err(Ok(outdated)) => all.push(outdated),
                Err(Err(what)) => damage.note("definitions", &position.to_string(), &what),
            }
        }
        self.outdated = all.into();
    }

    /// Returns the highest serial of a licence that is known of; of a damaged one of which none is, the lowest that it can have had, 0 for none.
    pub(crate) fn licence_serial(&self) -> u64 {
        match (&self.licence, self.lost_licence) {
            (Some(held), _) => held.document.serial(),
            (None, Some(LostLicence::Serial(serial))) => serial,
            (None, Some(LostLicence::After(0)) | None) => 0,
            // A serial never goes back, so the lost one had another.
            (None, Some(LostLicence::After(serial))) => serial.saturating_add(1),
        }
    }

    /// Returns whether that serial is a guess: the damaged licence may have had any higher one.
    pub(crate) fn is_licence_serial_guessed(&self) -> bool {
        matches!(self.lost_licence, Some(LostLicence::After(_)))
    }

    /// Takes a licence into force.
    pub(crate) fn set_licence(&mut self, held: Arc<HeldLicence>) {
        self.licence = Some(held);
        self.lost_licence = None;
    }

    /// Says that the licence is damaged, and what to do; `None`: it is not, or there never was one.
    pub(crate) fn licence_lost(&self) -> Option<String> {
        Some(match self.lost_licence? {
            LostLicence::Serial(serial) => format!(
                "licence {serial} is damaged on the Switch's disk; import it again (none before it comes back into force)"
            ),
            LostLicence::After(0) => {
                "the licence is damaged on the Switch's disk; import it again".to_owned()
            }
            LostLicence::After(serial) => format!(
                "the licence after {serial} is damaged on the Switch's disk; import it again ({serial} does not come back into force)"
            ),
        })
    }

    /// Returns the serial of a damaged policy before which none is given to devices any more: it may have taken their place. 0: none is damaged.
    pub(crate) fn policy_lost(&self) -> u64 {
        self.lost_policy
    }

    /// Returns whether devices may lack a policy by that: no later one is for all of them, or none for those without a certificate, where an
    /// earlier one was.
    pub(crate) fn lacks_policy(&self) -> bool {
        let audience = |held: &Arc<HeldPolicy>| held.document.terms().audience.clone();
        let later = || self.policies.range(self.lost_policy.saturating_add(1)..).map(|(_, held)| held);
        let earlier = || self.policies.range(..self.lost_policy).map(|(_, held)| held);
        let asks = |held| audience(held).is_some_and(|audience| audience.asks_for_unauthenticated());
        let is_for_all = later().any(|held| audience(held).is_none());
        let lacks_unauthenticated = earlier().any(asks) && !later().any(asks);
        self.lost_policy > 0 && (!is_for_all || lacks_unauthenticated)
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
    /// without a licence takes nothing out of use, and of these one whose signers count; else the last one.
    fn current<'a>(&self, envelopes: &'a [Arc<HeldDefinition>]) -> Option<&'a Arc<HeldDefinition>> {
        let mut admitted = envelopes.iter().rev().filter(|held| self.admits(held));
        let last = admitted.clone().next().or_else(|| envelopes.last());
        admitted.find(|held| held.standing.is_sound()).or(last)
    }

    /// Returns the definitions under each of their signatures, in no order.
    pub(crate) fn envelopes(&self) -> impl Iterator<Item = &Arc<HeldDefinition>> {
        self.by_digest.values()
    }

    /// Tells which definitions the licence admits and clients would refuse for who signed them; `None`: no definition.
    pub(crate) fn fallen(&self) -> Option<String> {
        let refused = |held: &Arc<HeldDefinition>| {
            let code = held.standing.refusal()?.refusal.name();
            Some(format!("{} {} ({code})", held.document.name(), held.document.version()))
        };
        let admitted = self.all().filter(|(_, held)| self.admits(held));
        let (count, some) = some_of(admitted.filter_map(|(_, held)| refused(held)).collect());
        (count > 0).then(|| {
            format!(
                "{count} of the licensed definitions cannot be issued, for who signed them: {some}; `muster definition show NAME` tells \
                 why, and what helps"
            )
        })
    }

    /// Tells which definitions of an earlier version this one refuses, as long as none is held in the place of each; `None`: no definition.
    pub(crate) fn outdated(&self) -> Option<String> {
        let is_mended = |outdated: &&Outdated| {
            self.by_version.keys().any(|(name, version)| outdated.is_mended_by(name, version))
        };
        outdated::warning(self.outdated.iter().filter(|outdated| !is_mended(outdated)))
    }

    /// Returns how many envelopes of its version are held that the licence admits, if it admits this one, or does not, if not: what it does
    /// not admit takes no place from what it admits.
    pub(crate) fn signatures_like(&self, new: &HeldDefinition) -> usize {
        let key = (new.document.name().to_string(), new.document.version().clone());
        let envelopes = self.by_version.get(&key).map_or(&[][..], Vec::as_slice);
        let is_admitted = self.admits(new);
        envelopes.iter().filter(|held| self.admits(held) == is_admitted).count()
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
        if let Some(outdated) = self.outdated.iter().rev().find(|outdated| outdated.is(name, version)) {
            return EngineError::FailedPrecondition(format!(
                "{}: an earlier version of the Switch took it, and this one refuses what it says; mend the text, raise its version, have it signed, \
                 and import that",
                outdated.says()
            ));
        }
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

    /// Returns why a definition may not be issued, with the code that clients would tell; `None` if it may. Its signers and the licence's are
    /// judged beforehand, by `Shared::judge_documents`.
    pub(crate) fn refusal(&self, held: &HeldDefinition, now_ms: i64) -> Option<RefusalReason> {
        let reason = |refusal, detail| RefusalReason { refusal, detail, lacks_only_a_crl: false, seen: None };
        let Some(licence) = &self.licence else {
            let none = || "there is no licence; import one".to_owned();
            return Some(reason(Refusal::Unlicensed, self.licence_lost().unwrap_or_else(none)));
        };
        // In the order in which a client finds it out.
        licence.refusal(now_ms).or_else(|| held.standing.refusal()).or_else(|| {
            let refused = licensed(licence, held).err();
            refused.map(|refused| reason(refused.refusal(), refused.to_string()))
        })
    }

    /// Returns a definition as shown to people.
    pub(crate) fn shown(&self, held: &HeldDefinition, now_ms: i64) -> ShownDefinition {
        let kind = match held.document.kind() {
            Kind::Question => "question",
            Kind::Action => "action",
        };
        let is_licensed = self.licence.as_ref().is_some_and(|licence| licence.is_valid_at(now_ms));
        let refused = self.refusal(held, now_ms);
        let refusal = refused.as_ref().map_or(Refusal::Unspecified, |reason| reason.refusal);
        ShownDefinition {
            name: held.document.name().to_string(),
            version: held.document.version().to_string(),
            kind: kind.to_owned(),
            says: held.document.says().to_owned(),
            digest: held.digest.to_string(),
            signer_thumbprint: held.signer.to_string(),
            signer: held.signer_subject.clone(),
            licensed: is_licensed && self.admits(held),
            imported_at_ms: held.imported_at_ms,
            refusal: refusal.into(),
            problem: refused.map(|reason| reason.detail).unwrap_or_default(),
        }
    }
}

/// Reads the documents of a table; also returns the last position of one that is damaged, or cannot be read, 0 for none.
fn read<T: Document>(
    loaded: LoadedDocuments,
    table: &'static str,
    damage: &Damage,
) -> (Vec<(i64, Held<T>)>, i64) {
    let (mut documents, mut lost_at) = (Vec::new(), loaded.damaged_to);
    for (position, record) in loaded.whole {
        match Held::stored(record) {
            Ok(held) => documents.push((position, held)),
            Err(Unfit::Damaged(what) | Unfit::Refused { problem: what, .. }) => {
                lost_at = lost_at.max(position);
                damage.note(table, &position.to_string(), &what);
            }
        }
    }
    (documents, lost_at)
}

/// Returns how many there are, and the first of them for a warning.
pub(super) fn some_of(mut said: Vec<String>) -> (usize, String) {
    let count = said.len();
    said.truncate(NAMED_MAX);
    let more = if count > NAMED_MAX { ", …" } else { "" };
    (count, said.join(", ") + more)
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
