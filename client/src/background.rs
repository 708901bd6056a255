//! The other road of events: without a session for a while, they are posted to the Background Channel.
//!
//! Both roads may carry the same event; who keeps them knows each by (device, outbox_id, sequence). Nobody tells on this
//! road whether the store was brought back from a copy: [`muster_proto::numbers`] says what follows from that.

use std::time::Duration;

use http::StatusCode;
use muster_proto::ids::OutboxId;
use muster_proto::limits::EVENT_BATCH_EVENTS_MAX;
use muster_proto::session::v1::{Event, EventBatch, EventBatchAck, SequenceRange};
use muster_service::credentials::Outgoing;
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::connection::Link;
use crate::https::{Background, Https, HttpsError};
use crate::store::{QueueLane, Store, StoreError};

/// Bytes of events in one request: below the body's megabyte by what the list itself takes.
const BATCH_BYTES: usize = 960 * 1024;

/// Bytes of an answer: 1,000 ranges.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

const PATH: &str = "/events";

/// Posts events while there is no session.
#[derive(Debug)]
pub(crate) struct Poster {
    /// The Background Channel.
    pub(crate) background: Background,
    /// For one request.
    pub(crate) silence: Duration,
    /// The events.
    pub(crate) store: Store,
    /// Whether there is a session.
    pub(crate) link: watch::Receiver<Link>,
    /// How long there is none before this begins.
    pub(crate) after: Duration,
    /// The pauses between failures.
    pub(crate) backoff: Backoff,
    /// What this road does not take, and the next session will.
    pub(crate) road: Road,
    /// Ends the task.
    pub(crate) stop: CancellationToken,
}

/// How far this road has come: one event that the Background Channel refuses for good must not keep the others back.
///
/// The event is passed over here, not dropped: the session carries it, or the Switch says what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Road {
    /// Events up to here were passed over.
    passed: u64,
    /// Events in the next batch.
    events: usize,
}

impl Default for Road {
    fn default() -> Self {
        Self { passed: 0, events: EVENT_BATCH_EVENTS_MAX }
    }
}

/// What follows from a batch that was refused for good.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It is tried again in halves.
    Halved,
    /// It was one event, which is passed over.
    Passed,
}

impl Road {
    fn handle_taken(&mut self) {
        self.events = EVENT_BATCH_EVENTS_MAX;
    }

    fn handle_refused(&mut self, count: usize, last: u64) -> Refusal {
        if count > 1 {
            self.events = count / 2;
            return Refusal::Halved;
        }
        *self = Self { passed: last, ..Self::default() };
        Refusal::Passed
    }

    /// There was a session: it took what was passed over.
    fn handle_session(&mut self) {
        *self = Self::default();
    }
}

impl Poster {
    /// Runs until it is stopped or the store fails.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        let mut appended = self.store.appended();
        loop {
            let due = match *self.link.borrow_and_update() {
                Link::Up { .. } => {
                    self.road.handle_session();
                    None
                }
                Link::Down { since, .. } => Some(Instant::from_std(since) + self.after),
            };
            let https = self.background.current().map(|https| Https { silence: self.silence, ..https });
            let due = due.filter(|_| https.is_some());
            let is_due = due.is_some_and(|due| due <= Instant::now());
            let Some(https) = https.filter(|_| is_due) else {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Ok(()),
                    changed = self.link.changed() => if changed.is_err() { return Ok(()) },
                    () = self.background.changed() => {}
                    () = wait_until(due) => {}
                }
                continue;
            };
            appended.mark_unchanged();
            let now_ms = crate::clock::wall_ms();
            let stop = self.stop.clone();
            let posted = tokio::select! {
                biased;
                // What was posted and not acked is posted again.
                () = stop.cancelled() => return Ok(()),
                posted = self.post_queued(&https, now_ms) => posted,
            };
            let pause = match posted {
                Err(StoreError::DiskFull) => {
                    tracing::warn!("the disk of the store is full; events are posted again later");
                    Some(self.backoff.next_pause())
                }
                posted => posted?,
            };
            tracing::trace!(?pause, ?due, "posting");
            self.rest(pause, &mut appended).await;
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Waits for the end of a pause, or, without one, for something to do.
    async fn rest(&mut self, pause: Option<Duration>, appended: &mut watch::Receiver<u64>) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            // A session carries them faster.
            _ = self.link.changed() => {}
            () = self.background.changed() => {}
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            _ = appended.changed(), if pause.is_none() => {}
        }
    }

    /// Posts what waits first; returns how long to wait, none if nothing waits.
    async fn post_queued(&mut self, https: &Https, now_ms: i64) -> Result<Option<Duration>, StoreError> {
        let Road { passed, events } = self.road;
        let (outbox, queued) = self
            .store
            .alone(move |tables| {
                let queued = tables.queued_events(passed, BATCH_BYTES, events, now_ms)?;
                Ok((tables.outbox_id(), queued))
            })
            .await?;
        if queued.is_empty() { Ok(None) } else { self.post(https, outbox, queued).await }
    }

    /// Posts a batch; returns how long to wait, none after a success.
    async fn post(
        &mut self,
        https: &Https,
        outbox: OutboxId,
        queued: Vec<Event>,
    ) -> Result<Option<Duration>, StoreError> {
        let count = queued.len();
        let (first, last) = (
            queued.first().map_or(0, |event| event.sequence),
            queued.last().map_or(0, |event| event.sequence),
        );
        match self.exchange(https, outbox, last, queued).await? {
            Ok(ranges) if ranges.iter().any(|range| range.first <= last && range.last >= first) => {
                metrics::counter!(crate::metrics::EVENTS_POSTED).increment(count as u64);
                self.store.write(move |tables| tables.acked_of(outbox, QueueLane::Events, &ranges)).await?;
                self.backoff.reset();
                self.road.handle_taken();
                Ok(Some(Duration::ZERO))
            }
            Ok(_) => {
                tracing::warn!("the Background Channel acknowledged nothing of what was posted");
                Ok(Some(self.backoff.next_pause()))
            }
            Err(HttpsError::Status { status: StatusCode::BAD_REQUEST, .. }) => {
                Ok(Some(match self.road.handle_refused(count, last) {
                    Refusal::Halved => Duration::ZERO,
                    Refusal::Passed => {
                        metrics::counter!(crate::metrics::EVENTS_REFUSED).increment(1);
                        tracing::error!(
                            sequence = last,
                            "the Background Channel refuses an event; it waits for a session"
                        );
                        // One that refuses everything is not asked about each event at once.
                        self.backoff.next_pause()
                    }
                }))
            }
            Err(error) => {
                tracing::warn!(%error, "events were not posted");
                let pause = if error.is_transient() {
                    self.backoff.next_pause_after_some(error.retry_after())
                } else {
                    self.backoff.long_pause()
                };
                Ok(Some(pause))
            }
        }
    }

    async fn exchange(
        &self,
        https: &Https,
        outbox: OutboxId,
        last: u64,
        queued: Vec<Event>,
    ) -> Result<Result<Vec<SequenceRange>, HttpsError>, StoreError> {
        let stream = match https.dial().await {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        // On disk before it is sent, or the next Welcome would take it for the trace of another store; and not before
        // there is somebody to send it to, or attempts in vain would hide such a trace.
        self.store.write(move |tables| tables.offer(last)).await?;
        Ok(send(https, stream, outbox, queued).await)
    }
}

async fn send(
    https: &Https,
    stream: Outgoing,
    outbox: OutboxId,
    events: Vec<Event>,
) -> Result<Vec<SequenceRange>, HttpsError> {
    let batch = EventBatch { outbox_id: outbox.to_vec(), events };
    let response = https.post(stream, PATH, batch.encode_to_vec()).await?;
    let body = https.body(PATH, response, ANSWER_BYTES_MAX).await?;
    let ack = EventBatchAck::decode(body).map_err(|error| https.broken(PATH, error.to_string()))?;
    Ok(ack.ranges)
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_event_that_is_refused_for_good_is_found_by_halves_and_passed_over() {
        let mut road = Road::default();
        // Of 1 to 100, the server refuses every batch with 42.
        let mut acked: BTreeSet<u64> = BTreeSet::new();
        let mut posts = 0;
        loop {
            let batch: Vec<u64> =
                (road.passed + 1..=100).filter(|event| !acked.contains(event)).take(road.events).collect();
            let Some(last) = batch.last() else { break };
            posts += 1;
            if batch.contains(&42) {
                road.handle_refused(batch.len(), *last);
            } else {
                acked.extend(&batch);
                road.handle_taken();
            }
            assert!(posts < 100, "{road:?}");
        }

        assert_eq!((acked.len(), road.passed), (99, 42));
        road.handle_session();
        assert_eq!(road, Road::default());
    }
}
