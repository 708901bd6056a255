//! A session after its welcome: heartbeat, credits and what a client may say.

use std::time::{Duration, Instant};

use super::{SwitchEvent, Violation};
use crate::common::v1::TargetState;
use crate::ids::{Digest, InstructionId};
use crate::limits::DOCUMENT_REQUESTS_MAX;
use crate::session::text::name;
use crate::session::v1::frame::Body;
use crate::session::v1::{DocumentKind, DocumentRequest, Lane, Ping, Progress};

/// Hello and Welcome were exchanged.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) dead_at: Instant,
    pub(super) next_ping: Instant,
    pub(super) nonce: u64,
    pub(super) results_credit_bytes: u64,
    pub(super) events_credit_bytes: u64,
    /// Documents asked for and not answered yet.
    pub(super) documents: usize,
    /// The client told its policy and has no answer yet.
    pub(super) is_policy_asked: bool,
}

impl Established {
    /// Returns the ping that is due and plans the next one.
    ///
    /// The Switch pings at every interval, also a client that talks: the ping is the client's sign of life, too.
    pub(super) fn ping(&mut self, now: Instant, interval: Duration) -> Ping {
        self.next_ping = now + interval;
        self.nonce = self.nonce.wrapping_add(1);
        Ping { nonce: self.nonce }
    }

    /// A policy check was answered.
    pub(super) fn policy_checked(&mut self) {
        self.is_policy_asked = false;
    }

    /// Gives credit back.
    pub(super) fn grant(&mut self, lane: Lane, bytes: u64) {
        if let Some(credit) = self.credit(lane) {
            *credit = credit.saturating_add(bytes);
        }
    }

    /// Takes a checked body; returns what the shell should hear of it.
    pub(super) fn handle(
        &mut self,
        body: Body,
        encoded_len: usize,
        ignored: &mut u64,
    ) -> Result<Option<SwitchEvent>, Violation> {
        match body {
            // Which ping it answers does not matter: any byte proves life.
            Body::Pong(_) => Ok(None),
            Body::Progress(progress) => progress_event(&progress).map(Some),
            Body::Result(result) => {
                let bytes = self.spend(Lane::Results, encoded_len)?;
                Ok(Some(SwitchEvent::Result(result, bytes)))
            }
            Body::Event(event) => {
                let bytes = self.spend(Lane::Events, encoded_len)?;
                Ok(Some(SwitchEvent::Event(event, bytes)))
            }
            Body::DocumentRequest(_) if self.documents >= DOCUMENT_REQUESTS_MAX => {
                *ignored = ignored.saturating_add(1);
                Ok(None)
            }
            Body::DocumentRequest(request) => {
                self.documents += 1;
                document_event(&request).map(Some)
            }
            Body::PolicyCheck(_) if self.is_policy_asked => {
                *ignored = ignored.saturating_add(1);
                Ok(None)
            }
            Body::PolicyCheck(check) => {
                self.is_policy_asked = true;
                Ok(Some(SwitchEvent::PolicyCheck { serial: check.serial }))
            }
            Body::Hello(_)
            | Body::Welcome(_)
            | Body::PolicyNotice(_)
            | Body::Ping(_)
            | Body::Order(_)
            | Body::Ack(_)
            | Body::Document(_)
            | Body::LicenceNotice(_)
            | Body::GoAway(_) => Err(Violation(format!("{} from a client, after its hello", name(&body)))),
        }
    }

    fn spend(&mut self, lane: Lane, encoded_len: usize) -> Result<u32, Violation> {
        let over = |left| {
            Violation(format!("{encoded_len} bytes in {} with a credit of {left}", lane.as_str_name()))
        };
        let bytes = u32::try_from(encoded_len).map_err(|_| over(0))?;
        let credit = self.credit(lane).ok_or_else(|| over(0))?;
        *credit = credit.checked_sub(u64::from(bytes)).ok_or_else(|| over(*credit))?;
        Ok(bytes)
    }

    fn credit(&mut self, lane: Lane) -> Option<&mut u64> {
        match lane {
            Lane::Results => Some(&mut self.results_credit_bytes),
            Lane::Events => Some(&mut self.events_credit_bytes),
            Lane::Unspecified => None,
        }
    }
}

fn progress_event(progress: &Progress) -> Result<SwitchEvent, Violation> {
    let instruction =
        InstructionId::try_from(&progress.instruction[..]).map_err(|error| Violation(error.to_string()))?;
    let state = TargetState::try_from(progress.state).map_err(|error| Violation(error.to_string()))?;
    Ok(SwitchEvent::Progress { instruction, state })
}

fn document_event(request: &DocumentRequest) -> Result<SwitchEvent, Violation> {
    let digest = Digest::try_from(&request.digest[..]).map_err(|error| Violation(error.to_string()))?;
    let kind = DocumentKind::try_from(request.kind).map_err(|error| Violation(error.to_string()))?;
    Ok(SwitchEvent::DocumentRequest { kind, digest })
}
