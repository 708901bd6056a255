//! What a worker counts of its devices: sessions, messages with the moments at which they came, acks.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_proto::session::v1::Lane;

use anyhow::ensure;

use super::protocol::{Arrived, Counts, Pairs, Reach, Sent, Tag};
use crate::history::Promise;
use crate::moment::Moment;
use crate::report::Latencies;

/// Moments that are kept of messages, acks and sessions, each; a run that has more of them is refused, since some have no latency.
///
/// 16 bytes each. A run of ten messages to 18,000 devices needs 180,000.
const MOMENTS_MAX: usize = 4_000_000;
/// Problems that are told; the rest are alike.
const PROBLEMS_MAX: usize = 5;

/// What is counted.
#[derive(Debug)]
pub(crate) struct Tally(Mutex<State>);

#[derive(Debug)]
struct State {
    counts: Counts,
    connecting: Latencies,
    full: u64,
    resumed: u64,
    problems: Vec<String>,
    /// When each message came, and when the session that it came by began.
    arrivals: HashMap<Tag, Vec<(Moment, Moment)>>,
    kept: usize,
    bytes: usize,
    acks: Vec<Moment>,
    /// Sessions when it was last cleared, and the beginnings and ends since.
    stood: u64,
    begun: Vec<Moment>,
    over: Vec<Moment>,
    promises: Option<Vec<Promise>>,
}

impl Tally {
    /// An empty one.
    pub(crate) fn new(keeps_promises: bool) -> anyhow::Result<Self> {
        Ok(Self(Mutex::new(State {
            counts: Counts::default(),
            connecting: Latencies::new()?,
            full: 0,
            resumed: 0,
            problems: Vec::new(),
            arrivals: HashMap::new(),
            kept: 0,
            bytes: 0,
            acks: Vec::new(),
            stood: 0,
            begun: Vec::new(),
            over: Vec::new(),
            promises: keeps_promises.then(Vec::new),
        })))
    }

    pub(crate) fn connected(&self, took: Duration, resumed: bool, welcomed: Moment) {
        let mut state = self.state();
        state.counts.standing += 1;
        state.counts.connected += 1;
        state.counts.last_connected = state.counts.last_connected.max(welcomed);
        keep(&mut state.begun, welcomed);
        state.connecting.add(took);
        if resumed {
            state.resumed += 1;
        } else {
            state.full += 1;
        }
    }

    pub(crate) fn ended(&self) {
        let mut state = self.state();
        state.counts.standing = state.counts.standing.saturating_sub(1);
        keep(&mut state.over, Moment::now());
    }

    pub(crate) fn failed(&self, device: &str, problem: String, had_session: bool) {
        let mut state = self.state();
        if had_session {
            state.counts.lost += 1;
        } else {
            state.counts.failed += 1;
        }
        if state.problems.len() < PROBLEMS_MAX {
            state.problems.push(format!("{device}: {problem}"));
        }
    }

    pub(crate) fn arrived(&self, tag: Tag, welcomed: Moment, bytes: usize) {
        let at = Moment::now();
        let mut state = self.state();
        state.counts.arrivals += 1;
        state.bytes = bytes;
        if state.kept < MOMENTS_MAX {
            state.kept += 1;
            state.arrivals.entry(tag).or_default().push((at, welcomed));
        }
    }

    /// Notes a ping that was answered, with the bytes of both frames.
    pub(crate) fn heartbeat(&self, bytes: usize) {
        let mut state = self.state();
        state.counts.heartbeats += 1;
        state.counts.heartbeat_bytes += bytes as u64;
    }

    pub(crate) fn repeated(&self) {
        self.state().counts.repeats += 1;
    }

    pub(crate) fn acked(&self, device: &str, outbox_id: [u8; 16], lane: Lane, sequences: &[u64]) {
        let at = Moment::now();
        let mut state = self.state();
        for sequence in sequences.iter().copied() {
            state.counts.acks += 1;
            keep(&mut state.acks, at);
            if let Some(promises) = &mut state.promises {
                let (device, outbox_id) = (device.to_owned(), hex::encode(outbox_id));
                promises.push(match lane {
                    Lane::Events => Promise::EventAcked { device, outbox_id, sequence },
                    Lane::Results | Lane::Unspecified => Promise::ResultAcked { device, outbox_id, sequence },
                });
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Forgets what came and how long connecting took; who has a session keeps it, and what was lost stays lost.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let connecting = Latencies::new()?;
        let mut state = self.state();
        let Counts { prepared, standing, lost, failed, .. } = state.counts;
        state.counts = Counts { prepared, standing, lost, failed, ..Counts::default() };
        state.stood = standing.into();
        (state.begun, state.over) = (Vec::new(), Vec::new());
        state.connecting = connecting;
        (state.full, state.resumed, state.kept) = (0, 0, 0);
        state.arrivals = HashMap::new();
        state.acks = Vec::new();
        Ok(())
    }

    /// How long connecting took, how many were full handshakes and how many resumed, and what went wrong.
    pub(crate) fn connecting(&self) -> (Pairs, u64, u64, Vec<String>) {
        let state = self.state();
        (state.connecting.pairs(), state.full, state.resumed, state.problems.clone())
    }

    /// What came of what was sent: latencies at devices whose session stood then, how many came later, and of each message
    /// how many had to come.
    ///
    /// # Errors
    /// More came than can be kept.
    pub(crate) fn latencies(&self, sent: &[Sent]) -> anyhow::Result<Arrived> {
        let mut standing = Latencies::new()?;
        let state = self.state();
        let (mut late, mut known, mut reaches) = (0, 0, Vec::new());
        ensure!(
            state.kept as u64 == state.counts.arrivals
                && state.begun.len().max(state.over.len()) < MOMENTS_MAX,
            "a worker keeps {MOMENTS_MAX} moments, and {} messages came: measure fewer at once, or spread them over more --workers",
            state.counts.arrivals
        );
        for Sent { tag, at } in sent {
            let mut reach = Reach { expected: state.standing_at(*at), reached: 0 };
            for (came, welcomed) in state.arrivals.get(tag).into_iter().flatten() {
                known += 1;
                if welcomed <= at {
                    reach.reached += 1;
                    standing.add(came.since(*at));
                } else {
                    late += 1;
                }
            }
            reaches.push(reach);
        }
        let others = state.counts.arrivals - known;
        Ok(Arrived { standing: standing.pairs(), late, bytes: state.bytes, others, reaches })
    }

    /// How long after a moment each ack came.
    ///
    /// # Errors
    /// More came than can be kept.
    pub(crate) fn acks(&self, since: Moment) -> anyhow::Result<Pairs> {
        let mut latencies = Latencies::new()?;
        let state = self.state();
        ensure!(
            state.acks.len() as u64 == state.counts.acks,
            "a worker keeps {MOMENTS_MAX} moments, and {} acks came: measure fewer at once, or spread them over more --workers",
            state.counts.acks
        );
        state.acks.iter().for_each(|at| latencies.add(at.since(since)));
        Ok(latencies.pairs())
    }

    /// What was promised since the last time.
    pub(crate) fn promises(&self) -> Vec<Promise> {
        self.state().promises.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Notes devices that were made.
    pub(crate) fn prepared(&self, count: u32) {
        self.state().counts.prepared += count;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many sessions stood at a moment since the last clearing.
    fn standing_at(&self, at: Moment) -> u64 {
        let until = |moments: &[Moment]| moments.iter().filter(|moment| **moment <= at).count() as u64;
        (self.stood + until(&self.begun)).saturating_sub(until(&self.over))
    }
}

/// Keeps a moment where there is room.
fn keep(moments: &mut Vec<Moment>, at: Moment) {
    if moments.len() < MOMENTS_MAX {
        moments.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn only_sessions_that_stood_when_a_message_was_sent_have_a_latency() {
        let tally = Tally::new(false).unwrap();
        let sent = Sent { tag: [1; 16], at: Moment::now() };
        let later = sent.at.plus(MINUTE);

        tally.arrived([1; 16], Moment::default(), 900);
        tally.arrived([1; 16], later, 900);
        tally.arrived([2; 16], Moment::default(), 900);

        let Arrived { standing, late, bytes, others, .. } = tally.latencies(&[sent]).unwrap();
        let counted: u64 = standing.iter().map(|(_, count)| count).sum();
        assert_eq!((counted, late, bytes, others), (1, 1, 900, 1));
        assert!(standing.iter().all(|(micros, _)| u128::from(*micros) < MINUTE.as_micros()));
    }

    #[test]
    fn a_message_is_missed_by_whose_session_stood_and_who_does_not_have_it() {
        let tally = Tally::new(false).unwrap();
        let now = Moment::now();
        let (first, second) = (now.plus(MINUTE), now.plus(MINUTE * 3));
        tally.connected(Duration::ZERO, false, now);
        tally.connected(Duration::ZERO, false, now.plus(MINUTE * 2));
        tally.arrived([1; 16], now, 9);
        tally.arrived([1; 16], now.plus(MINUTE * 2), 9);
        tally.arrived([2; 16], now, 9);

        let sent = [Sent { tag: [1; 16], at: first }, Sent { tag: [2; 16], at: second }];
        let reaches = tally.latencies(&sent).unwrap().reaches;

        assert_eq!(reaches, [Reach { expected: 1, reached: 1 }, Reach { expected: 2, reached: 1 }]);
    }

    #[test]
    fn what_is_cleared_is_gone_and_sessions_and_losses_stay() {
        let tally = Tally::new(true).unwrap();
        let now = Moment::now();
        tally.connected(Duration::from_millis(2), false, now);
        tally.connected(Duration::from_millis(2), true, now);
        tally.connected(Duration::from_millis(2), true, now);
        tally.failed("a", "gone".to_owned(), true);
        tally.ended();
        tally.arrived([1; 16], Moment::default(), 10);
        tally.acked("a", [2; 16], Lane::Results, &[1, 2]);
        assert_eq!(tally.promises().len(), 2);
        assert_eq!(tally.counts().acks, 2);

        tally.clear().unwrap();

        assert_eq!(tally.counts(), Counts { standing: 2, lost: 1, ..Counts::default() });
        let (_, full, _, problems) = tally.connecting();
        assert_eq!((full, tally.promises().len(), problems), (0, 0, vec!["a: gone".to_owned()]));
        tally.failed("b", "gone too".to_owned(), false);
        assert_eq!(tally.counts(), Counts { standing: 2, lost: 1, failed: 1, ..Counts::default() });
    }
}
