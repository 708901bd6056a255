//! Definitions and the licence.

use std::sync::Arc;

use muster_proto::operator::v1::Definition as ShownDefinition;
use muster_signing::licence::Licence;

use super::held::{Held, HeldDefinition, HeldLicence};
use super::{Core, Moment};
use crate::engine::clock::unix_time;
use crate::engine::outgoing::To;
use crate::engine::store::Write;
use crate::engine::{EngineError, ShardMessage};

impl Core {
    /// Takes a verified definition. The same bytes again, or the same text under a newer signature, are no conflict.
    pub(super) fn import_definition(
        &mut self,
        mut held: HeldDefinition,
        moment: Moment,
    ) -> Result<ShownDefinition, EngineError> {
        if let Some(known) = self.catalogue.definition_by_digest(held.digest) {
            return Ok(self.catalogue.shown(known, moment.now_ms));
        }
        let (name, version) = (held.document.name().to_string(), held.document.version().clone());
        if let Some(known) = self.catalogue.definition(&name, &version)
            && known.text != held.text
        {
            return Err(EngineError::FailedPrecondition(format!(
                "{name} {version} is held with other content (digest {}); raise the version of this one",
                known.digest
            )));
        }
        self.require_disk(held.envelope.len(), moment)?;
        held.imported_at_ms = moment.now_ms;
        self.marks.definition += 1;
        let write = Write::Definition { position: self.marks.definition, record: Box::new(held.record()) };
        self.out.writes.push(write);
        let held = Arc::new(held);
        Arc::make_mut(&mut self.catalogue).insert(Arc::clone(&held));
        self.out.catalogue = Some(Arc::clone(&self.catalogue));
        Ok(self.catalogue.shown(&held, moment.now_ms))
    }

    /// Takes a verified licence and tells every session. The same bytes again change nothing.
    pub(super) fn import_licence(
        &mut self,
        mut held: HeldLicence,
        moment: Moment,
    ) -> Result<u64, EngineError> {
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
                return Ok(serial);
            }
            if serial == known.document.serial() && known.text != held.text {
                return Err(EngineError::FailedPrecondition(format!(
                    "the licence has serial {serial}, as the one held, and another text; raise the serial of this one (G6)"
                )));
            }
        }
        // Also when the licence that had it is damaged: an older one must not come back.
        let highest = self.marks.licence_serial;
        if serial < highest {
            return Err(EngineError::FailedPrecondition(format!(
                "the licence has serial {serial}, the highest held was {highest}; a serial never goes back (G6)"
            )));
        }
        self.require_disk(held.envelope.len(), moment)?;
        held.imported_at_ms = moment.now_ms;
        self.marks.licence += 1;
        self.marks.licence_serial = serial;
        self.out
            .writes
            .push(Write::Licence { position: self.marks.licence, record: Box::new(held.record()) });
        self.out.messages.push((To::All, ShardMessage::LicenceNotice { digest: held.digest }));
        Arc::make_mut(&mut self.catalogue).licence = Some(Arc::new(held));
        self.out.catalogue = Some(Arc::clone(&self.catalogue));
        Ok(serial)
    }

    /// Refuses what would be stored below the reserve, which is for results already promised.
    pub(super) fn require_disk(&self, needed: usize, moment: Moment) -> Result<(), EngineError> {
        let needed = u64::try_from(needed).unwrap_or(u64::MAX);
        let (free, reserve) = (moment.disk_free_bytes, self.disk_reserve_bytes);
        if free >= reserve.saturating_add(needed) {
            return Ok(());
        }
        Err(EngineError::ResourceExhausted(format!(
            "the store's disk has {free} bytes free, {} are needed ({needed} for this and disk_reserve = {reserve}); free \
             some space or move data_dir to a larger disk",
            reserve.saturating_add(needed)
        )))
    }
}

impl Held<Licence> {
    /// Returns whether the licence is in its validity.
    pub(crate) fn is_valid_at(&self, now_ms: i64) -> bool {
        self.document.is_valid_at(unix_time(now_ms))
    }
}
