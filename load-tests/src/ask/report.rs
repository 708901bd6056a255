//! What `muster-load ask` measured, and how it is told.

use std::fmt;

use serde::Serialize;

use crate::report::Quantiles;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct AskReport {
    /// Devices with a session.
    pub(crate) sessions: u32,
    /// Processes that hold them.
    pub(crate) workers: usize,
    /// Devices that were lost.
    pub(crate) dead_sessions: u32,
    /// The share of sessions that resumed an earlier one's TLS.
    pub(crate) resumed_share: f64,
    /// From the first connection's start to the last welcome.
    pub(crate) connect_seconds: f64,
    /// Sessions a second meanwhile.
    pub(crate) connects_per_second: f64,
    /// From TCP to welcome.
    pub(crate) connect: Quantiles,
    /// Growth of the Switch process' PSS, idle, divided by the sessions; absent where its process is not known.
    pub(crate) bytes_per_session: Option<u64>,
    /// How often the question was put.
    pub(crate) rounds: u32,
    /// The shortest of them, from submission until the operator saw every target accounted for.
    pub(crate) complete_seconds_min: f64,
    /// The longest of them.
    pub(crate) complete_seconds_max: f64,
    /// The median of them.
    #[serde(flatten)]
    pub(crate) round: Round,
}

/// One question put to all devices. Latencies count from the call that submits the order.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    /// Until a device holds the order.
    pub(crate) order_at_device: Quantiles,
    /// Until a device knows that its answer is on the Switch's disk.
    pub(crate) answer_acked: Quantiles,
    /// Until the operator saw every target accounted for.
    pub(crate) complete_seconds: f64,
    /// Answers a second until then.
    pub(crate) answers_per_second: f64,
    /// CPU time of the Switch for one of them; absent where its process is not known.
    pub(crate) cpu_us_per_answer: Option<f64>,
    /// Targets that answered.
    pub(crate) answered: u64,
}

impl AskReport {
    /// Whether every session lived and every device answered.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.dead_sessions == 0 && self.round.answered == u64::from(self.sessions)
    }
}

impl Round {
    /// Of several rounds the median by the time until complete, or the first in which somebody did not answer: a
    /// median hides no failure. `None` without a round.
    #[must_use]
    pub(crate) fn median(rounds: &[Self], sessions: u32) -> Option<&Self> {
        if let Some(failed) = rounds.iter().find(|round| round.answered != u64::from(sessions)) {
            return Some(failed);
        }
        let mut sorted: Vec<&Self> = rounds.iter().collect();
        sorted.sort_by(|a, b| a.complete_seconds.total_cmp(&b.complete_seconds));
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }
}

impl fmt::Display for AskReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantiles = |q: &Quantiles| {
            format!("p50 {:.1} ms, p99 {:.1} ms, last {:.1} ms", q.p50_ms, q.p99_ms, q.max_ms)
        };
        let Self { sessions, dead_sessions, connect_seconds, connects_per_second, round, .. } = self;
        writeln!(
            f,
            "sessions            {sessions} ({dead_sessions} dead), {:.0} % resumed",
            self.resumed_share * 100.0
        )?;
        writeln!(f, "connected           in {connect_seconds:.2} s, {connects_per_second:.0} a second")?;
        writeln!(f, "  each              {}", quantiles(&self.connect))?;
        match self.bytes_per_session {
            Some(bytes) => writeln!(f, "memory a session    {bytes} bytes (PSS of the Switch, idle)")?,
            None => writeln!(f, "memory a session    not known; give --pid")?,
        }
        writeln!(f, "order at devices    {}", quantiles(&round.order_at_device))?;
        writeln!(f, "answer acked        {}", quantiles(&round.answer_acked))?;
        write!(
            f,
            "answered            {} of {sessions}, complete after {:.3} s",
            round.answered, round.complete_seconds
        )?;
        if self.rounds > 1 {
            let (min, max) = (self.complete_seconds_min, self.complete_seconds_max);
            write!(f, " (median of {} rounds, {min:.3} to {max:.3} s)", self.rounds)?;
        }
        write!(f, "\nanswers a second    {:.0}", round.answers_per_second)?;
        if let Some(cpu) = round.cpu_us_per_answer {
            write!(f, ", {cpu:.1} µs of the Switch's CPU each")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(complete_seconds: f64, answered: u64) -> Round {
        let none = Quantiles { count: 0, p50_ms: 0.0, p99_ms: 0.0, max_ms: 0.0 };
        Round {
            order_at_device: none,
            answer_acked: none,
            complete_seconds,
            answers_per_second: 0.0,
            cpu_us_per_answer: None,
            answered,
        }
    }

    #[test]
    fn the_median_round_is_told_unless_one_failed() {
        let good = [round(3.0, 5), round(1.0, 5), round(2.0, 5)];
        let failed = [round(3.0, 5), round(1.0, 4), round(2.0, 5)];

        assert!((Round::median(&good, 5).unwrap().complete_seconds - 2.0).abs() < 1e-9);
        assert_eq!(Round::median(&failed, 5).unwrap().answered, 4);
        assert!(Round::median(&[], 5).is_none());
    }
}
