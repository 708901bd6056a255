//! [`Waiting`]: events that the Switch did not take, and when they are offered again.

use std::time::Duration;

use tokio::time::Instant;

/// Where the relay reads the spool. Events of a device that the Switch does not know stay where they are, and the relay
/// goes on behind them; when it has come to the end it pauses, and begins again at the oldest. A round is never cut short:
/// however many are refused at the front, those behind them are reached. It knows no clock and no chance.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The last position that was refused: at it and before, nothing is left but what was refused. Positions only rise, so
    /// that every new event comes after it.
    passed: i64,
    /// Whether something was refused since the last round began.
    is_any_refused: bool,
    /// Times in a row that the spool was gone through and something was refused.
    rounds: u32,
    /// When the oldest are offered again; `None`: nothing waits, or the end is yet to come.
    again_at: Option<Instant>,
}

impl Waiting {
    /// Returns the position behind which the relay reads on.
    pub(super) fn position(&self) -> i64 {
        self.passed
    }

    /// Returns how often in a row something was refused.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The Switch did not take the events at these positions.
    pub(super) fn handle_refused(&mut self, positions: &[i64]) {
        let Some(last) = positions.iter().max() else { return };
        self.passed = self.passed.max(*last);
        self.is_any_refused = true;
    }

    /// The spool has nothing behind [`Self::position`]: what was refused is offered again after the pause, or with what
    /// was refused before it.
    pub(super) fn handle_end(&mut self, now: Instant, pause: Duration) {
        if self.is_any_refused {
            self.again_at.get_or_insert(now + pause);
        } else {
            self.rounds = 0;
        }
    }

    /// Begins again at the oldest, if it is time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.again_at.is_some_and(|at| now >= at) {
            *self = Self { rounds: self.rounds.saturating_add(1), ..Self::default() };
        }
    }

    /// Returns when [`Self::handle_timeout`] should next be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.again_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_passed_over_and_offered_again_after_the_pause() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut waiting = Waiting::default();

        waiting.handle_refused(&[3, 7]);
        waiting.handle_end(at(0), Duration::from_secs(10));
        waiting.handle_refused(&[12]);
        waiting.handle_end(at(5), Duration::from_secs(10));
        waiting.handle_timeout(at(9));
        let before = (waiting.position(), waiting.poll_timeout(), waiting.rounds());
        waiting.handle_timeout(at(10));

        assert_eq!(before, (12, Some(at(10)), 0));
        assert_eq!((waiting.position(), waiting.poll_timeout(), waiting.rounds()), (0, None, 1));
    }

    #[test]
    fn however_long_a_round_takes_it_ends_before_the_next_begins() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let pause = Duration::from_secs(1);
        let mut waiting = Waiting::default();

        let mut positions = Vec::new();
        for batch in 1..=1_000 {
            waiting.handle_timeout(at(60 * batch));
            waiting.handle_refused(&[i64::try_from(batch).unwrap()]);
            positions.push(waiting.position());
        }
        let during = waiting.poll_timeout();
        waiting.handle_end(at(70_000), pause);

        assert_eq!(positions, (1..=1_000).collect::<Vec<i64>>());
        assert_eq!((during, waiting.poll_timeout()), (None, Some(at(70_001))));
    }

    #[test]
    fn a_round_that_ends_with_nothing_refused_makes_the_next_pause_short_again() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.handle_refused(&[1]);

        waiting.handle_end(now, Duration::ZERO);
        waiting.handle_timeout(now);
        let during = waiting.rounds();
        waiting.handle_end(now, Duration::ZERO);

        assert_eq!((during, waiting.rounds(), waiting.poll_timeout()), (1, 0, None));
    }

    #[test]
    fn an_answer_that_refuses_nothing_changes_nothing() {
        let mut waiting = Waiting::default();

        waiting.handle_refused(&[]);
        waiting.handle_end(Instant::now(), Duration::ZERO);

        assert_eq!((waiting.position(), waiting.poll_timeout()), (0, None));
    }
}
