//! The licence: which one is in force, and what ends with the one before it (G1, G6).

use std::sync::Arc;
use std::time::Duration;

use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::ids::Digest;
use muster_signing::admit::RefusalReason;
use muster_signing::licence::Licence;
use muster_signing::moment::shown;
use roaring::RoaringBitmap;

use super::held::{Held, HeldLicence};
use super::ledgers::Active;
use super::{Core, Moment};
use crate::engine::clock::{millis, unix_time};
use crate::engine::outgoing::To;
use crate::engine::store::Write;
use crate::engine::{EngineError, ShardMessage};

/// By how much the serial of a licence or a policy may grow at once: enough for serials that are dates or moments, and too little for a typing error to use
/// them up.
pub(super) const SERIAL_STEP_MAX: u64 = 1_000_000_000;

/// What became of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImportedLicence {
    /// The licence's serial.
    pub(crate) serial: u64,
    /// Queued targets that were refused, since it does not admit what they were to run.
    pub(crate) refused_targets: u64,
}

impl Core {
    /// Takes a verified licence and tells every session. The same bytes again change nothing.
    pub(super) fn import_licence(
        &mut self,
        mut held: HeldLicence,
        moment: Moment,
    ) -> Result<ImportedLicence, EngineError> {
        let serial = held.document.serial();
        if held.document.tenant() != self.tenant {
            return Err(EngineError::FailedPrecondition(format!(
                "the licence is for tenant `{}`, this Switch serves `{}`; import the licence of this organisation",
                held.document.tenant(),
                self.tenant
            )));
        }
        if let Some(known) = &self.catalogue.licence {
            if known.digest == held.digest {
                return Ok(ImportedLicence { serial, refused_targets: 0 });
            }
            // Also of the same text: a client that holds the one does not exchange it for the other.
            if serial == known.document.serial() {
                let differs = if known.text == held.text { "signature" } else { "text" };
                return Err(EngineError::FailedPrecondition(format!(
                    "the licence has serial {serial}, as the one held, and another {differs}, and a serial names one licence for ever: issue \
                     it with serial {} (G6)",
                    serial.saturating_add(1)
                )));
            }
        }
        // Also when the licence that had it is damaged: an older one must not come back.
        let highest = self.marks.licence_serial.max(self.catalogue.licence_serial());
        if serial < highest {
            return Err(EngineError::FailedPrecondition(format!(
                "the licence has serial {serial}, the highest held was {highest}; a serial never goes back (G6)"
            )));
        }
        // From a guess nobody can tell how far it is to a serial that was used.
        let is_known = highest > 0 && !self.catalogue.is_licence_serial_guessed();
        if is_known && serial > highest.saturating_add(SERIAL_STEP_MAX) {
            return Err(EngineError::FailedPrecondition(format!(
                "the licence has serial {serial}, the highest held was {highest}; a serial that grows by more than {SERIAL_STEP_MAX} at once is \
                 taken for a slip of the pen, since none can go back: issue it with serial {}",
                highest.saturating_add(1)
            )));
        }
        if !held.is_valid_at(moment.now_ms) {
            let terms = held.document.terms();
            return Err(EngineError::FailedPrecondition(format!(
                "licence {serial} is valid from {} to {}, and it is {} here; import it then, or issue one that is valid now",
                shown(terms.not_before.as_secs()),
                shown(terms.not_after.as_secs()),
                shown(unix_time(moment.now_ms).as_secs())
            )));
        }
        self.require_disk(held.envelope.len(), moment)?;
        held.imported_at_ms = moment.now_ms;
        self.marks.licence += 1;
        self.marks.licence_serial = serial;
        self.out
            .writes
            .push(Write::Licence { position: self.marks.licence, record: Box::new(held.record()) });
        self.out.messages.push((To::All, ShardMessage::LicenceNotice { digest: held.digest, serial }));
        Arc::make_mut(&mut self.catalogue).set_licence(Arc::new(held));
        self.out.catalogue = Some(Arc::clone(&self.catalogue));
        let refused_targets = self.refuse_unlicensed(moment.now_ms);
        Ok(ImportedLicence { serial, refused_targets })
    }

    /// Refuses what is queued under a prefix, a signer or a version that the licence in force does not admit (G1), by the code that clients
    /// would give; returns how many targets that were. Devices that have the order already judge it by the licence that they are told of
    /// now, and so do those with a session: their order may be on the way, and would run under a target that has ended.
    fn refuse_unlicensed(&mut self, now_ms: i64) -> u64 {
        let unsent = |active: &Active| active.unsent(&self.online);
        let lost = self.active.iter().map(|(position, active)| (*position, unsent(active), active));
        let lost: Vec<(i64, RoaringBitmap, &'static str)> = lost
            .filter(|(_, unsent, _)| !unsent.is_empty())
            .filter_map(|(position, unsent, active)| {
                Some((position, unsent, self.lost(active, now_ms)?.name()))
            })
            .collect();
        for (position, queued, code) in &lost {
            tracing::warn!(
                position,
                targets = queued.len(),
                code,
                "queued targets are refused: the licence does not admit their definition"
            );
            self.advance(*position, queued, TargetState::Refused, code);
        }
        lost.iter().map(|(_, queued, _)| queued.len()).sum()
    }

    /// Returns the code by which clients refuse what an instruction runs, if the licence does not admit it: the same that lists of definitions
    /// show. A definition that is not held, because it is damaged, is not judged here: clients do.
    fn lost(&self, active: &Active, now_ms: i64) -> Option<Refusal> {
        let digest = Digest::try_from(&active.definition_digest[..]).ok()?;
        let held = self.catalogue.definition_by_digest(digest).filter(|held| !self.catalogue.admits(held))?;
        self.catalogue.refusal(held, now_ms).map(|reason| reason.refusal)
    }
}

impl Held<Licence> {
    /// Returns why nothing may be issued under it, with the code that clients would tell; `None`: all that it admits may be.
    pub(crate) fn refusal(&self, now_ms: i64) -> Option<RefusalReason> {
        let lapsed = || RefusalReason {
            refusal: Refusal::LicenceStale,
            detail: "the licence is outside its validity; import a newer one".to_owned(),
            lacks_only_a_crl: false,
            seen: None,
        };
        self.standing.refusal().or_else(|| (!self.is_valid_at(now_ms)).then(lapsed))
    }

    /// Returns when it ends, milliseconds since 1970: with its validity, or before that with its signer's certificate, which no timestamp makes it
    /// outlive.
    pub(crate) fn ends_ms(&self) -> i64 {
        let not_after = millis(Duration::from_secs(self.document.terms().not_after.as_secs()));
        self.standing.ends_ms().map_or(not_after, |ends_ms| ends_ms.min(not_after))
    }

    /// Returns whether the licence is in its validity.
    pub(crate) fn is_valid_at(&self, now_ms: i64) -> bool {
        self.document.is_valid_at(unix_time(now_ms))
    }
}
