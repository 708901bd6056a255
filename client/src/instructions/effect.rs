//! What the machine wants done.

use std::path::PathBuf;

use muster_endpoint::SandboxProfile;
use muster_proto::common::v1::TargetState;
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::session::v1::Result as InstructionResult;

use super::{Plan, Refused, WaitNotice};
use crate::store::{Entry, Parts, StopEntry};

/// What the shell does next. It may not do the following one before this one is done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Look an instruction, its order and a definition up, and answer with [`super::Instructions::handle_recalled`].
    Recall { instruction: InstructionId, order_digest: Digest, definition: Digest },
    /// Ask the Switch for a definition.
    AskDefinition { digest: Digest },
    /// Ask the Switch for a licence.
    AskLicence { digest: Digest },
    /// Put a definition on disk.
    KeepDefinition { digest: Digest, envelope: Vec<u8> },
    /// Put a version on disk that was seen.
    KeepVersion { name: String, version: semver::Version },
    /// Put a licence on disk.
    KeepLicence { envelope: Vec<u8>, serial: u64 },
    /// Put the intent on disk, and with it the version and the time that were seen.
    RecordIntent { entry: Entry, name: String, version: semver::Version, floor_ms: i64 },
    /// Tell the Switch, if there is a session.
    SendProgress { instruction: InstructionId, state: TargetState },
    /// Get what the instruction needs before its window ends, and answer with [`super::Instructions::handle_fetched`].
    Fetch { instruction: InstructionId, plan: Box<Plan>, expires_at_ms: i64 },
    /// Give up the downloads of instructions that are no longer fetched for.
    StopFetching,
    /// Look whether there is a certificate, and answer with [`super::Instructions::handle_certificate`].
    LookForCertificate,
    /// Put the wait for a certificate on disk, and what is to be known of it into the outbox; `stored: None`: nothing waits.
    RecordWait { stored: Option<Vec<u8>>, notice: Option<WaitNotice> },
    /// Put the start on disk, and answer with [`super::Instructions::handle_start_recorded`] once what came meanwhile was told; if it may not
    /// start, with [`super::Instructions::handle_forbidden`], and if its sandbox cannot be had here, with
    /// [`super::Instructions::handle_unconfined`].
    RecordStart { instruction: InstructionId, at_ms: i64, sandbox: SandboxProfile },
    /// Run it, and answer with [`super::Instructions::handle_finished`].
    Run { instruction: InstructionId, plan: Box<Plan>, resources: Vec<(String, PathBuf)> },
    /// Put a stop on disk, and with it the answer, unless the instruction has started.
    RecordStop { stop: Box<StopEntry>, result: Box<InstructionResult> },
    /// End what runs of an instruction, and answer with [`super::Instructions::handle_ended`] once nothing of it runs.
    EndRun { instruction: InstructionId },
    /// Report a stop that is not believed.
    ReportStop { digest: Digest, instruction: InstructionId, refused: Refused },
    /// Put the result into the outbox, with its rows where they are parts, and the end into the journal.
    RecordResult { result: Box<InstructionResult>, parts: Option<Parts> },
    /// Put the answer to an order that is not taken on into the outbox, unless the same order was answered before.
    RecordRefusal { order_digest: Digest, entry: Option<Box<Entry>>, result: Box<InstructionResult> },
    /// Report an order whose instruction is unknown, since it cannot be read.
    ReportUnreadable { order_digest: Digest, refused: Refused },
}

impl Effect {
    /// Says what is lost if a client stops before it could write this; `None` where nothing is.
    pub(crate) fn loss(&self) -> Option<String> {
        match self {
            Self::RecordResult { result, .. } => Some(format!(
                "the result of instruction {}, which is answered as interrupted at the next start",
                named(&result.instruction)
            )),
            Self::RecordRefusal { result, .. } => {
                Some(format!("the refusal of instruction {}", named(&result.instruction)))
            }
            Self::ReportUnreadable { order_digest, .. } => {
                Some(format!("the report of order {order_digest}, which cannot be read"))
            }
            Self::RecordStop { stop, .. } => {
                Some(format!("the stop of instruction {}, which the Switch delivers again", stop.instruction))
            }
            Self::ReportStop { instruction, .. } => {
                Some(format!("the report of a stop of instruction {instruction} that is not believed"))
            }
            Self::RecordIntent { entry, .. } => Some(format!(
                "the order of instruction {}, which the Switch delivers again",
                entry.instruction
            )),
            Self::RecordStart { instruction, .. } => {
                Some(format!("the start of instruction {instruction}, which has not started"))
            }
            // What was never taken on comes again, and documents are asked for again.
            Self::Recall { .. }
            | Self::AskDefinition { .. }
            | Self::AskLicence { .. }
            | Self::KeepDefinition { .. }
            | Self::KeepVersion { .. }
            | Self::KeepLicence { .. }
            | Self::SendProgress { .. }
            | Self::Fetch { .. }
            | Self::StopFetching
            | Self::LookForCertificate
            // A wait begins anew.
            | Self::RecordWait { .. }
            // What runs ends with the client.
            | Self::EndRun { .. }
            | Self::Run { .. } => None,
        }
    }
}

/// Returns an instruction's id as people know it.
fn named(instruction: &[u8]) -> String {
    InstructionId::try_from(instruction).map_or_else(|_| hex::encode(instruction), |id| id.to_string())
}
