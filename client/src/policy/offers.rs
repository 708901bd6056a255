//! [`Offers`]: which of the Switch's offers are looked at. A Switch may offer anything, any number of times.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use muster_pki::DeviceId;
use muster_proto::ids::Digest;

/// Offers that were refused and are remembered; the oldest is forgotten first, and would be looked at once more.
const REFUSED_MAX: usize = 64;

/// Refusals that events tell between two starts of a client.
const REPORTED_MAX: usize = 16;

/// What was asked for, what is asked for in a while, and what is not looked at again.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    asked: Option<Digest>,
    /// Asked for at that moment: many devices were told of it at once.
    later: Option<(Instant, Digest)>,
    refused: VecDeque<Digest>,
    /// Refusals that an event told.
    reported: usize,
}

impl Offers {
    /// Begins with a policy that was tried in vain before a restart.
    pub(crate) fn new(rolled_back: Option<Digest>) -> Self {
        Self { refused: rolled_back.into_iter().collect(), ..Self::default() }
    }

    /// The Switch names a policy, to be asked for after this time; returns whether it is to be asked for now. `held`: it is
    /// followed or tried.
    pub(super) fn handle_notice(&mut self, digest: Digest, held: bool, wait: Duration, now: Instant) -> bool {
        if held || self.asked == Some(digest) || self.has_refused(digest) {
            return false;
        }
        if wait.is_zero() {
            self.later = None;
            self.asked = Some(digest);
            return true;
        }
        // Whoever tells of another one again and again does not put the moment off by it.
        let at = now + wait;
        self.later = Some((self.later.map_or(at, |(before, _)| before.min(at)), digest));
        false
    }

    /// Returns when [`Self::handle_timeout`] should next be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.later.map(|(at, _)| at)
    }

    /// Time has passed; returns what is to be asked for now.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Digest> {
        let (_, digest) = self.later.take_if(|(at, _)| *at <= now)?;
        self.asked = Some(digest);
        Some(digest)
    }

    /// A document came; returns whether it was asked for.
    pub(super) fn handle_document(&mut self, digest: Digest) -> bool {
        self.asked.take_if(|asked| *asked == digest).is_some()
    }

    /// There is another session: what was asked for in the last one does not come any more.
    pub(super) fn handle_session(&mut self) {
        self.asked = None;
        self.later = None;
    }

    /// Somebody on this machine wants everything to be looked at again that is offered.
    pub(super) fn handle_retry(&mut self) {
        self.refused.clear();
    }

    /// Returns whether it is not looked at again.
    pub(super) fn has_refused(&self, digest: Digest) -> bool {
        self.refused.contains(&digest)
    }

    /// It will not do, and is not asked for again. Returns whether the operators are to be told: a Switch that offers without
    /// end fills no outbox.
    pub(super) fn refuse(&mut self, digest: Digest) -> Report {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back(digest);
        if self.reported >= REPORTED_MAX {
            return Report::Not;
        }
        self.reported += 1;
        Report::Event
    }
}

/// Whether a refusal is told by an event; the log and a metric have all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Report {
    /// It is.
    Event,
    /// So many were told already.
    Not,
}

/// Returns how long a device waits before it asks for a policy that many were told of: its own part of the time, which nobody
/// need remember.
pub(super) fn wait(device: &DeviceId, digest: Digest, spread: Duration) -> Duration {
    let mut hasher = blake3::Hasher::new();
    hasher.update(device.as_str().as_bytes()).update(digest.as_ref());
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    let part = f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX);
    spread.mul_f64(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_what_was_refused_or_rolled_back_is_not_asked_for_again() {
        let (one, other) = (Digest::from([1; 32]), Digest::from([2; 32]));
        let mut offers = Offers::new(Some(one));
        let notice = |offers: &mut Offers, digest, held| {
            offers.handle_notice(digest, held, Duration::ZERO, Instant::now())
        };

        assert!(!notice(&mut offers, one, false));
        assert!(notice(&mut offers, other, false));
        assert!(!notice(&mut offers, other, false), "it is on its way");
        offers.handle_session();
        assert!(notice(&mut offers, other, false), "the last session did not bring it");
        assert!(offers.handle_document(other) && !offers.handle_document(other));
        assert_eq!(offers.refuse(other), Report::Event);
        assert!(!notice(&mut offers, other, false));
        assert!(!notice(&mut offers, Digest::from([3; 32]), true), "it is held");
    }

    #[test]
    fn k4_what_was_refused_is_looked_at_again_if_somebody_here_says_so() {
        let digest = Digest::from([1; 32]);
        let mut offers = Offers::new(Some(digest));

        offers.handle_retry();

        assert!(offers.handle_notice(digest, false, Duration::ZERO, Instant::now()));
    }

    #[test]
    fn k3_what_many_are_told_of_is_asked_for_at_a_moment_of_its_own() {
        let (one, other) = (Digest::from([1; 32]), Digest::from([2; 32]));
        let (mut offers, now, second) = (Offers::default(), Instant::now(), Duration::from_secs(1));

        assert!(!offers.handle_notice(one, false, 10 * second, now));
        assert_eq!(offers.poll_timeout(), Some(now + 10 * second));
        // A later one is asked for in its place, and at no later moment.
        assert!(!offers.handle_notice(other, false, 10 * second, now + second));
        assert_eq!(offers.poll_timeout(), Some(now + 10 * second));
        assert_eq!(offers.handle_timeout(now + 9 * second), None);
        assert_eq!(offers.handle_timeout(now + 10 * second), Some(other));
        assert_eq!(offers.poll_timeout(), None);
        assert!(offers.handle_document(other));

        // Another session's answer is not waited for, and the moment of the last session is none of this one.
        assert!(!offers.handle_notice(one, false, second, now));
        assert!(offers.handle_notice(one, false, Duration::ZERO, now));
        assert_eq!(offers.poll_timeout(), None, "what is asked for at once is asked for once");
        offers.handle_session();
        assert!(!offers.handle_notice(one, false, second, now));
        offers.handle_session();
        assert_eq!(offers.poll_timeout(), None);
    }

    #[test]
    fn k3_devices_ask_evenly_over_the_time_and_never_after_it() {
        let (spread, digest) = (Duration::from_secs(100), Digest::from([7; 32]));
        let device = |number: usize| format!("w{number}.acme.local").parse::<DeviceId>().unwrap();
        let mut asked = [0_usize; 10];

        for number in 0..10_000 {
            let waits = wait(&device(number), digest, spread);
            assert!(waits <= spread);
            asked[usize::try_from(waits.as_secs() / 10).unwrap().min(9)] += 1;
        }

        assert!(asked.iter().all(|count| (850..1_150).contains(count)), "{asked:?}");
        assert_eq!(wait(&device(1), digest, spread), wait(&device(1), digest, spread));
        assert_eq!(wait(&device(1), digest, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_switch_that_offers_without_end_fills_no_memory() {
        let (mut offers, mut told) = (Offers::default(), 0);
        for number in 0..1_000_u16 {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            told += usize::from(offers.refuse(Digest::from(bytes)) == Report::Event);
        }

        assert_eq!((offers.refused.len(), told), (REFUSED_MAX, REPORTED_MAX));
    }
}
