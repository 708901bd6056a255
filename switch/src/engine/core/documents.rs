//! Definitions and packs of them.

use std::sync::Arc;

use muster_proto::operator::v1::{Definition as ShownDefinition, ImportPackResponse, ImportedDefinition};

use super::held::{HeldDefinition, HeldPack};
use super::{Core, ImportCommand, Moment};
use crate::engine::EngineError;
use crate::engine::store::Write;

/// Most envelopes that are held of one version of a definition, of those that the licence admits and of the others each: each stays, since
/// orders may name it.
const SIGNATURES_MAX: usize = 16;

/// A definition that is held from now on, and whether it was before.
struct Imported {
    held: Arc<HeldDefinition>,
    was_held: bool,
}

impl Core {
    /// Takes a verified document.
    pub(super) fn handle_import(&mut self, command: ImportCommand, moment: Moment) {
        match command {
            ImportCommand::Definition(definition, reply) => {
                let imported = self.import_definition(definition, moment);
                self.answer(reply, imported);
            }
            ImportCommand::Pack(pack, reply) => {
                let imported = self.import_pack(pack, moment);
                self.answer(reply, imported);
            }
            ImportCommand::Licence(licence, reply) => {
                let imported = self.import_licence(licence, moment);
                self.answer(reply, imported);
            }
            ImportCommand::Policy(policy, reply) => {
                let imported = self.import_policy(policy, moment);
                self.answer(reply, imported);
            }
        }
    }

    /// Takes a verified definition. The same bytes again, or the same text under a newer signature, are no conflict.
    fn import_definition(
        &mut self,
        held: HeldDefinition,
        moment: Moment,
    ) -> Result<ShownDefinition, EngineError> {
        self.check_import(std::slice::from_ref(&held), moment)?;
        let imported = self.take_definition(held, moment);
        self.out.catalogue = Some(Arc::clone(&self.catalogue));
        Ok(self.catalogue.shown(&imported.held, moment.now_ms))
    }

    /// Takes the definitions of a verified pack, each as [`Self::import_definition`] does, or none of them (G9). They are one
    /// command, and so one transaction.
    fn import_pack(&mut self, pack: HeldPack, moment: Moment) -> Result<ImportPackResponse, EngineError> {
        let HeldPack { name, version, definitions } = pack;
        self.check_import(&definitions, moment)?;
        let imported: Vec<Imported> =
            definitions.into_iter().map(|held| self.take_definition(held, moment)).collect();
        self.out.catalogue = Some(Arc::clone(&self.catalogue));
        let definitions = imported.iter().map(|Imported { held, was_held }| ImportedDefinition {
            definition: Some(self.catalogue.shown(held, moment.now_ms)),
            was_held: *was_held,
            unlicensed: self
                .catalogue
                .refusal(held, moment.now_ms)
                .map(|reason| reason.detail)
                .unwrap_or_default(),
        });
        Ok(ImportPackResponse { name, version, definitions: definitions.collect() })
    }

    /// Refuses definitions one of which cannot be taken; nothing has changed by then.
    fn check_import(&self, definitions: &[HeldDefinition], moment: Moment) -> Result<(), EngineError> {
        let is_new = |held: &&HeldDefinition| self.catalogue.definition_by_digest(held.digest).is_none();
        let mut needed = 0_usize;
        for held in definitions.iter().filter(is_new) {
            let (name, version) = (held.document.name().to_string(), held.document.version());
            if let Some(known) = self.catalogue.conflict(held) {
                return Err(EngineError::FailedPrecondition(format!(
                    "{name} {version} is held with other content (digest {}); raise the version of this one",
                    known.digest
                )));
            }
            if self.catalogue.signatures_like(held) >= SIGNATURES_MAX {
                return Err(EngineError::FailedPrecondition(format!(
                    "{name} {version} is held with {SIGNATURES_MAX} signatures, which is the most; raise the version of this one"
                )));
            }
            needed = needed.saturating_add(held.envelope.len());
        }
        if needed == 0 { Ok(()) } else { self.require_disk(needed, moment) }
    }

    /// Takes a definition that was checked, unless it is held already.
    fn take_definition(&mut self, mut held: HeldDefinition, moment: Moment) -> Imported {
        if let Some(known) = self.catalogue.definition_by_digest(held.digest) {
            return Imported { held: Arc::clone(known), was_held: true };
        }
        held.imported_at_ms = moment.now_ms;
        self.marks.definition += 1;
        let write = Write::Definition { position: self.marks.definition, record: Box::new(held.record()) };
        self.out.writes.push(write);
        let held = Arc::new(held);
        Arc::make_mut(&mut self.catalogue).insert(Arc::clone(&held));
        Imported { held, was_held: false }
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
