//! [`Lines`]: how many refusals are lines of the log. Who is refused comes again, and strangers come as often as they like.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crate::credentials::Told;
use crate::metrics;

/// Refusals of one listener in the log in a minute, of those who show a certificate and of those who show none each: what a person
/// reads. Lists and metrics have them all.
pub const LINES_PER_MINUTE_MAX: usize = 30;

const MINUTE_MS: i64 = 60_000;

/// The lines that refusals have had: one a minute for the same peer and the same rules, and [`LINES_PER_MINUTE_MAX`] for all.
#[derive(Debug, Default)]
pub struct Lines(Mutex<Doors>);

/// Strangers leave room for those who show a certificate.
#[derive(Debug, Default)]
struct Doors {
    shown: Minute,
    strangers: Minute,
}

#[derive(Debug, Default)]
struct Minute {
    began_at_ms: i64,
    told: BTreeSet<String>,
    left_out: u64,
}

impl Lines {
    /// Returns whether a refusal is a line of the log: if so, how many were left out since the line before.
    #[must_use]
    pub fn line(&self, told: &Told, address: SocketAddr, now_ms: i64) -> Option<u64> {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stranger = told.peer.thumbprint.is_empty();
        let minute = if is_stranger { &mut doors.strangers } else { &mut doors.shown };
        let who = if is_stranger { address.ip().to_string() } else { told.peer.thumbprint.clone() };
        let line = minute.line(format!("{who} {}", told.rules.join(" ")), now_ms);
        if line.is_none() {
            ::metrics::counter!(metrics::REFUSALS_UNLOGGED_TOTAL).increment(1);
        }
        line
    }
}

impl Minute {
    fn line(&mut self, who: String, now_ms: i64) -> Option<u64> {
        // A clock that was set back begins a new one, too.
        if !(self.began_at_ms..self.began_at_ms.saturating_add(MINUTE_MS)).contains(&now_ms) {
            self.began_at_ms = now_ms;
            self.told.clear();
        }
        if self.told.len() >= LINES_PER_MINUTE_MAX || !self.told.insert(who) {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{PeerRefused, Shown};

    fn stranger() -> Told {
        PeerRefused::NoCertificate { wanted: "device".to_owned() }.told()
    }

    fn from(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 4000))
    }

    #[test]
    fn c14_one_who_comes_again_and_again_is_one_line_a_minute_with_how_many_were_left_out() {
        let lines = Lines::default();

        let told: Vec<_> =
            (0..60).filter_map(|at| lines.line(&stranger(), from(1), 1_000_000 + at)).collect();

        assert_eq!(told, [0]);
        assert_eq!(lines.line(&stranger(), from(2), 1_000_100), Some(59), "another address");
        assert_eq!(lines.line(&stranger(), from(1), 1_060_000), Some(0), "a minute later");
        assert_eq!(lines.line(&stranger(), from(1), 1_000), Some(0), "the clock was set back");
    }

    #[test]
    fn c14_many_strangers_have_so_many_lines_and_leave_room_for_those_with_a_certificate() {
        let lines = Lines::default();

        let told = (0..=u8::MAX).filter_map(|last| lines.line(&stranger(), from(last), 1_000_000)).count();
        let shown = Told::new("R2", "R2: revoked".to_owned(), &Shown::of_der(b"a certificate"));

        assert_eq!(told, LINES_PER_MINUTE_MAX);
        assert_eq!(lines.line(&shown, from(1), 1_000_000), Some(0));
    }
}
