//! What was driven, added up over all seeds.

use std::collections::BTreeSet;
use std::fmt;

/// Counts of one seed, or of many.
#[derive(Debug, Default, Clone)]
pub(super) struct Totals {
    pub(super) sessions: u64,
    pub(super) instructions: u64,
    pub(super) results: u64,
    pub(super) events: u64,
    pub(super) starts: u64,
    pub(super) stops: u64,
    pub(super) switch_restarts: u64,
    pub(super) device_restarts: u64,
    pub(super) cuts: u64,
    pub(super) lost_frames: u64,
    pub(super) repeats: u64,
    pub(super) asked_again: u64,
    pub(super) clock_jumps: u64,
    /// Where somebody died: what was being written, and on which side of its commit.
    pub(super) crash_points: BTreeSet<String>,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.instructions += other.instructions;
        self.results += other.results;
        self.events += other.events;
        self.starts += other.starts;
        self.stops += other.stops;
        self.switch_restarts += other.switch_restarts;
        self.device_restarts += other.device_restarts;
        self.cuts += other.cuts;
        self.lost_frames += other.lost_frames;
        self.repeats += other.repeats;
        self.asked_again += other.asked_again;
        self.clock_jumps += other.clock_jumps;
        self.crash_points.extend(other.crash_points.iter().cloned());
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sessions, {} instructions ({} stopped), {} starts, {} results, {} events; {} restarts of the Switch, {} of devices, \
             {} connections lost, {} frames lost, {} repeats, {} calls repeated, {} clock jumps, {} distinct crash points",
            self.sessions,
            self.instructions,
            self.stops,
            self.starts,
            self.results,
            self.events,
            self.switch_restarts,
            self.device_restarts,
            self.cuts,
            self.lost_frames,
            self.repeats,
            self.asked_again,
            self.clock_jumps,
            self.crash_points.len(),
        )
    }
}
