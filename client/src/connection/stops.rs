//! Stops that a Welcome has announced: until they have been read, nothing that waits is sent before them.

use std::time::Instant;

use crate::instructions::STOPS_WAIT;

/// Stops that are yet to come in a session.
#[derive(Debug, Default)]
pub(crate) struct ExpectedStops {
    left: u32,
    /// From then on they are not waited for.
    until: Option<Instant>,
}

impl ExpectedStops {
    /// Expects as many as a Welcome has told.
    pub(crate) fn new(due: u32, now: Instant) -> Self {
        Self { left: due, until: (due > 0).then(|| now + STOPS_WAIT) }
    }

    /// An order came; stops come first.
    pub(crate) fn handle_order(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.until = None;
        }
    }

    /// Returns whether stops are still waited for.
    pub(crate) fn are_due(&mut self, now: Instant) -> bool {
        // A Switch that announces what never comes delays only so much.
        self.until = self.until.filter(|until| now < *until);
        self.until.is_some()
    }

    /// Returns when they are waited for no longer.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_stops_are_waited_for_until_they_came_or_for_a_bounded_time() {
        let now = crate::clock::now().instant;
        assert!(!ExpectedStops::default().are_due(now));
        assert!(!ExpectedStops::new(0, now).are_due(now));

        let mut stops = ExpectedStops::new(2, now);
        stops.handle_order();
        assert!(stops.are_due(now));
        stops.handle_order();
        assert_eq!((stops.are_due(now), stops.poll_timeout()), (false, None));
        stops.handle_order();

        let mut stops = ExpectedStops::new(u32::MAX, now);
        assert_eq!((stops.are_due(now), stops.poll_timeout()), (true, Some(now + STOPS_WAIT)));
        assert_eq!((stops.are_due(now + STOPS_WAIT), stops.poll_timeout()), (false, None));
    }
}
