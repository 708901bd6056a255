//! Messages to all devices, one at each tick, whatever becomes of those before.

use std::time::Duration;

use crate::moment::Moment;
use crate::report::{Latencies, Progress};
use crate::scenario::subject::{QUESTION, Subject, To};
use crate::worker::protocol::Sent;

/// Between two messages.
const EVERY: Duration = Duration::from_millis(250);
/// What the last one is waited for.
const LAST: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of a message to a peer, of which there is none here.
const NO_PEER: usize = 0;

/// What became of them.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) latencies: Latencies,
    pub(super) messages: u32,
    /// Times that a device that had a session did not get one.
    pub(super) missed: u64,
}

/// Sends one at each tick until it is enough, and waits until every device has every one.
pub(super) async fn push(
    subject: &mut Subject,
    what: &'static str,
    (least, most): (u32, u32),
    is_enough: impl Fn() -> bool,
) -> anyhow::Result<Pushed> {
    subject.fleet.clear().await?;
    let mut progress = Progress::new(what, least);
    let mut sent = Vec::new();
    let mut messages = 0;
    // Soon, so that the first is prepared when it is due.
    let (first, first_tick) = (Moment::now(), tokio::time::Instant::now());
    while messages < least || (messages < most && !is_enough()) {
        messages += 1;
        let due = EVERY * messages;
        let prepared = subject.prepare(1, To::All, 0, QUESTION).await?;
        tokio::time::sleep_until(first_tick + due).await;
        let at = first.plus(due);
        sent.extend(subject.send(prepared, NO_PEER).await?.into_iter().map(|tag| Sent { tag, at }));
        progress.show(messages);
    }
    drop(progress);
    let deadline = tokio::time::Instant::now() + LAST;
    loop {
        let arrived = subject.fleet.arrived(&sent).await?;
        let missed = arrived.reaches.iter().map(|reach| reach.expected.saturating_sub(reach.reached)).sum();
        if missed == 0 || tokio::time::Instant::now() > deadline {
            return Ok(Pushed { latencies: arrived.standing, messages, missed });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// So many messages are sent in this time at most.
pub(super) fn in_time(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / EVERY.as_millis()).unwrap_or(u32::MAX)
}
