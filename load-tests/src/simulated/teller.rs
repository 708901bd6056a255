//! Whom a device tells what happens to it: a queue that somebody reads, or the tally of a worker process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_proto::ids::InstructionId;
use muster_proto::session::v1::Lane;
use tokio::sync::mpsc;

use super::Told;
use crate::journal::Seen;
use crate::moment::Moment;
use crate::worker::tally::Tally;

/// Whom a device tells.
#[derive(Debug, Clone)]
pub(crate) enum Teller {
    /// Somebody who wants to know each thing.
    Queue(mpsc::Sender<Told>),
    /// A worker, which counts.
    Tally(Arc<Tally>),
}

impl Teller {
    pub(super) async fn connected(
        &self,
        device: &str,
        took: Duration,
        resumed: bool,
        welcomed: Moment,
    ) -> anyhow::Result<()> {
        match self {
            Self::Queue(queue) => queue.send(Told::Connected { device: device.to_owned(), took }).await?,
            Self::Tally(tally) => tally.connected(took, resumed, welcomed),
        }
        Ok(())
    }

    /// Tells that a session has ended, for whatever reason.
    pub(super) fn ended(&self) {
        match self {
            Self::Queue(_) => {}
            Self::Tally(tally) => tally.ended(),
        }
    }

    /// Tells that a ping was answered, with the bytes of both frames.
    pub(super) fn heartbeat(&self, bytes: usize) {
        match self {
            Self::Queue(_) => {}
            Self::Tally(tally) => tally.heartbeat(bytes),
        }
    }

    pub(super) async fn ordered(
        &self,
        device: &str,
        instruction: InstructionId,
        seen: Seen,
        welcomed: Moment,
        bytes: usize,
    ) -> anyhow::Result<()> {
        match self {
            Self::Queue(queue) => {
                let (device, at) = (device.to_owned(), Instant::now());
                queue.send(Told::Ordered { device, instruction, seen, at }).await?;
            }
            Self::Tally(tally) if seen == Seen::First => {
                tally.arrived(instruction.into(), welcomed, bytes);
            }
            Self::Tally(tally) => tally.repeated(),
        }
        Ok(())
    }

    pub(super) async fn acked(
        &self,
        device: &str,
        outbox_id: [u8; 16],
        lane: Lane,
        sequences: &[u64],
    ) -> anyhow::Result<()> {
        match self {
            Self::Queue(queue) => {
                let outbox_id = hex::encode(outbox_id);
                for sequence in sequences.iter().copied() {
                    let (device, outbox_id) = (device.to_owned(), outbox_id.clone());
                    queue.send(Told::Acked { device, outbox_id, lane, sequence, at: Instant::now() }).await?;
                }
            }
            Self::Tally(tally) => tally.acked(device, outbox_id, lane, sequences),
        }
        Ok(())
    }

    /// Tells that there is no session, or no longer; whether anybody listens.
    pub(super) async fn failed(&self, device: &str, error: &anyhow::Error, had_session: bool) -> bool {
        let problem = format!("{error:#}");
        match self {
            Self::Queue(queue) => {
                queue.send(Told::Failed { device: device.to_owned(), problem }).await.is_ok()
            }
            Self::Tally(tally) => {
                tally.failed(device, problem, had_session);
                true
            }
        }
    }
}
