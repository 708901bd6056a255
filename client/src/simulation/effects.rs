//! What a device does with its instructions: as `instructions::shell` does.

use muster_proto::ids::{Digest, InstructionId};
use muster_proto::session::v1::{DocumentKind, Result as InstructionResult};

use super::{Device, Moment, Note, Stopped};
use crate::events::{ORDER_UNREADABLE, STOP_REFUSED};
use crate::instructions::shell::Inbound;
use crate::instructions::{Effect, FetchFailure};
use crate::store::event_record;

impl Device {
    pub(super) fn handle_inbound(&mut self, inbound: Inbound, at: Moment) {
        let now = at.now();
        match inbound {
            Inbound::Order { envelope, proof } => self.machine.handle_order(&envelope, proof, now),
            Inbound::Document { kind: DocumentKind::Licence, digest, envelope } => {
                self.machine.handle_licence(digest, &envelope, now);
            }
            Inbound::Document { kind: DocumentKind::Definition, digest, envelope } => {
                self.machine.handle_definition(digest, &envelope, now);
            }
            Inbound::Document { kind: DocumentKind::Policy | DocumentKind::Unspecified, .. } => {}
            Inbound::LicenceNotice(digest) => self.machine.handle_licence_notice(digest, now),
            Inbound::Judged { standing, restored_at_ms, switch_ms, stops_due } => {
                self.machine.handle_switch_time(switch_ms, now);
                self.machine.handle_judged(standing, restored_at_ms, stops_due, now);
            }
            // Only a full disk has them.
            Inbound::Urgent(_) | Inbound::Unjudged => {}
            Inbound::Disconnected => self.machine.handle_disconnected(),
        }
    }

    /// As `instructions::shell` does: every effect in order, then the starts that are on disk.
    pub(super) fn settle(&mut self, at: Moment) -> Result<(), Stopped> {
        loop {
            while let Some(effect) = self.machine.poll_effect() {
                self.perform(effect, at)?;
            }
            if self.machine.is_held() {
                return Ok(());
            }
            let Some(instruction) = self.recorded.pop_front() else { return Ok(()) };
            self.machine.handle_start_recorded(instruction, at.now());
        }
    }

    fn perform(&mut self, effect: Effect, at: Moment) -> Result<(), Stopped> {
        let now_ms = at.wall_ms;
        match effect {
            Effect::Recall { instruction, order_digest, definition } => {
                let (recalled, definition) = self.write("recall", move |tables| {
                    let recalled = tables.recall_order(instruction, order_digest)?;
                    Ok((recalled, tables.definition(definition, now_ms)?))
                })?;
                self.machine.handle_recalled(instruction, recalled, definition, at.now());
            }
            Effect::AskDefinition { digest } => self.ask(DocumentKind::Definition, digest),
            Effect::AskLicence { digest } => self.ask(DocumentKind::Licence, digest),
            Effect::SendProgress { instruction, state } => {
                if let Some(session) = &mut self.session {
                    // A result tells more than a progress.
                    session.protocol.push_progress(instruction, state).unwrap_or_default();
                }
            }
            Effect::RecordStart { instruction, at_ms, .. } => {
                if self.write("start", move |tables| tables.record_start(instruction, at_ms))? {
                    self.recorded.push_back(instruction);
                } else {
                    self.machine.handle_forbidden(instruction, at.now());
                }
            }
            Effect::Fetch { instruction, .. } => {
                let none = FetchFailure::Failed("no resources are simulated".to_owned());
                self.machine.handle_fetched(instruction, Err(none), at.now());
            }
            Effect::Run { instruction, .. } => self.notes.push(Note::Started(instruction)),
            Effect::EndRun { instruction } => self.notes.push(Note::Ending(instruction)),
            Effect::StopFetching | Effect::LookForCertificate | Effect::RecordWait { .. } => {}
            kept @ (Effect::KeepDefinition { .. }
            | Effect::KeepVersion { .. }
            | Effect::KeepLicence { .. }
            | Effect::RecordIntent { .. }
            | Effect::RecordStop { .. }
            | Effect::ReportStop { .. }
            | Effect::RecordResult { .. }
            | Effect::RecordRefusal { .. }
            | Effect::ReportUnreadable { .. }) => self.keep(kept, now_ms)?,
        }
        Ok(())
    }

    /// Puts on disk what nobody waits for an answer of.
    fn keep(&mut self, effect: Effect, now_ms: i64) -> Result<(), Stopped> {
        let (what, told) = named(&effect);
        let has_answered = self.write(what, move |tables| match effect {
            Effect::KeepDefinition { digest, envelope } => {
                tables.keep_definition(digest, &envelope, now_ms).map(|()| false)
            }
            Effect::KeepVersion { name, version } => tables.keep_version(&name, &version).map(|()| false),
            Effect::KeepLicence { envelope, serial } => {
                tables.keep_licence(&envelope, serial).map(|()| false)
            }
            Effect::RecordIntent { entry, name, version, floor_ms } => {
                tables.record_intent(&entry)?;
                tables.keep_version(&name, &version)?;
                tables.raise_time_floor(floor_ms).map(|()| false)
            }
            Effect::RecordStop { stop, result } => tables.record_stop(&stop, *result, now_ms).map(|_| false),
            Effect::ReportStop { digest, .. } => {
                let event = event_record(now_ms, STOP_REFUSED, Vec::new());
                tables.report_refused(digest, event, now_ms).map(|()| false)
            }
            Effect::RecordResult { result, parts } => {
                Ok(tables.record_answer(*result, parts.as_ref(), now_ms)?.is_some())
            }
            Effect::RecordRefusal { order_digest, entry, result } => {
                Ok(tables.record_refusal(order_digest, entry.as_deref(), *result, now_ms)?.is_some())
            }
            Effect::ReportUnreadable { order_digest, .. } => {
                let event = event_record(now_ms, ORDER_UNREADABLE, Vec::new());
                tables.report_refused(order_digest, event, now_ms).map(|()| false)
            }
            Effect::Recall { .. }
            | Effect::AskDefinition { .. }
            | Effect::AskLicence { .. }
            | Effect::SendProgress { .. }
            | Effect::RecordStart { .. }
            | Effect::Fetch { .. }
            | Effect::StopFetching
            | Effect::LookForCertificate
            | Effect::RecordWait { .. }
            | Effect::Run { .. }
            | Effect::EndRun { .. } => Ok(false),
        })?;
        self.notes.extend(told.filter(|_| has_answered));
        Ok(())
    }

    fn ask(&mut self, kind: DocumentKind, digest: Digest) {
        if let Some(session) = &mut self.session {
            session.asks.push(kind, digest);
        }
    }
}

/// Returns what a write is called, and what is to be told of it once a result is on disk by it.
fn named(effect: &Effect) -> (&'static str, Option<Note>) {
    let told = |result: &InstructionResult| {
        let instruction = InstructionId::try_from(&result.instruction[..]).ok()?;
        Some(Note::Recorded(instruction, result.state()))
    };
    match effect {
        Effect::RecordResult { result, .. } => ("result", told(result)),
        Effect::RecordRefusal { result, .. } => ("refusal", told(result)),
        Effect::KeepDefinition { .. } => ("definition", None),
        Effect::KeepVersion { .. } => ("version", None),
        Effect::KeepLicence { .. } => ("licence", None),
        Effect::RecordIntent { .. } => ("intent", None),
        Effect::RecordStop { .. } => ("stop", None),
        Effect::ReportStop { .. } => ("stop's refusal", None),
        Effect::ReportUnreadable { .. } => ("unreadable order", None),
        Effect::Recall { .. }
        | Effect::AskDefinition { .. }
        | Effect::AskLicence { .. }
        | Effect::SendProgress { .. }
        | Effect::Fetch { .. }
        | Effect::StopFetching
        | Effect::LookForCertificate
        | Effect::RecordWait { .. }
        | Effect::RecordStart { .. }
        | Effect::Run { .. }
        | Effect::EndRun { .. } => ("nothing", None),
    }
}
