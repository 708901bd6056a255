//! What comes over the session while a write waits for room on the disk: kept in its order and within bounds, so that the inbox is always
//! read. What has no room, and what counts no more since its session has ended, the Switch sends again.

use std::collections::{HashSet, VecDeque};

use muster_proto::ids::Digest;
use muster_proto::numbers::Standing;

use super::shell::Inbound;

/// Most stops, other orders and documents that are kept, of each: as many as the inbox has room for.
const KEPT_MAX: usize = 64;

/// What something is, as far as its room goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// An order that says it is a stop.
    Stop,
    /// Any other order.
    Order,
    /// A document.
    Document,
    /// What is told of the session. Of each only the last counts, so that it needs no bound.
    Notice,
}

#[derive(Debug)]
struct Kept {
    inbound: Inbound,
    sort: Sort,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Delayed {
    kept: VecDeque<Kept>,
    /// Something had no room that the Switch sends again in another session only.
    is_short: bool,
}

impl Delayed {
    /// Keeps something for its turn, if it is news and there is room.
    pub(super) fn push(&mut self, inbound: Inbound, sort: Sort) {
        match inbound {
            Inbound::Order { .. } | Inbound::Document { .. } => self.push_bounded(inbound, sort),
            Inbound::LicenceNotice(digest) => self.push_licence_notice(digest),
            Inbound::Judged { .. } => self.push_judged(inbound),
            Inbound::Unjudged => {
                self.kept.retain(|kept| !matches!(kept.inbound, Inbound::Unjudged));
                self.keep(inbound, Sort::Notice);
            }
            Inbound::Disconnected => self.part(),
            // It was heard as it came, and has no turn.
            Inbound::Urgent(_) => {}
        }
    }

    /// Returns what is next.
    pub(super) fn pop(&mut self) -> Option<Inbound> {
        self.kept.pop_front().map(|kept| kept.inbound)
    }

    /// Returns whether another session is needed, in which the Switch sends again what had no room here.
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Another session was asked for.
    pub(super) fn forget_short(&mut self) {
        self.is_short = false;
    }

    fn keep(&mut self, inbound: Inbound, sort: Sort) {
        self.kept.push_back(Kept { inbound, sort });
    }

    fn push_bounded(&mut self, inbound: Inbound, sort: Sort) {
        // A stop that was announced counts in the session that announced it, so that one of an earlier session is not the same.
        let mut of_session =
            self.kept.iter().rev().take_while(|kept| !matches!(kept.inbound, Inbound::Judged { .. }));
        if of_session.any(|kept| is_same(&kept.inbound, &inbound)) {
            return;
        }
        if self.kept.iter().filter(|kept| kept.sort == sort).count() < KEPT_MAX {
            return self.keep(inbound, sort);
        }
        metrics::counter!(crate::metrics::ORDERS_WITHOUT_ROOM).increment(1);
        if !self.is_short {
            self.is_short = true;
            tracing::warn!(
                "more has come than there is room for while the disk is full; another session brings it again"
            );
        }
        if sort == Sort::Stop {
            // What it stops may be among the orders that wait here: nothing starts before that session has brought it.
            self.push(Inbound::Unjudged, Sort::Notice);
        }
    }

    /// The last one says which licence the Switch holds; what came behind the first waits for it.
    fn push_licence_notice(&mut self, digest: Digest) {
        let notice = |kept: &&mut Kept| matches!(kept.inbound, Inbound::LicenceNotice(_));
        match self.kept.iter_mut().find(notice) {
            Some(kept) => kept.inbound = Inbound::LicenceNotice(digest),
            None => self.keep(Inbound::LicenceNotice(digest), Sort::Notice),
        }
    }

    /// The last Welcome counts. That the store is a copy stays true whatever a later one says; so it may be where an earlier one told of a
    /// later restore.
    fn push_judged(&mut self, judged: Inbound) {
        let mut judged = judged;
        let mut has_parted = false;
        if let Inbound::Judged { standing: stands, restored_at_ms: restored, .. } = &mut judged {
            for kept in &self.kept {
                match kept.inbound {
                    Inbound::Judged { standing, restored_at_ms, .. }
                        if standing == Standing::Copy || restored_at_ms > *restored =>
                    {
                        *stands = Standing::Copy;
                    }
                    Inbound::Disconnected => has_parted = true,
                    Inbound::Judged { .. }
                    | Inbound::Order { .. }
                    | Inbound::Urgent(_)
                    | Inbound::Document { .. }
                    | Inbound::LicenceNotice(_)
                    | Inbound::Unjudged => {}
                }
            }
        }
        self.kept.retain(|kept| match kept.inbound {
            Inbound::Judged { .. } | Inbound::Unjudged | Inbound::Disconnected => false,
            Inbound::Order { .. }
            | Inbound::Urgent(_)
            | Inbound::Document { .. }
            | Inbound::LicenceNotice(_) => true,
        });
        if has_parted {
            self.keep(Inbound::Disconnected, Sort::Notice);
        }
        self.keep(judged, Sort::Notice);
    }

    /// The session has ended: the next one brings again whatever was not answered. Stops stay, each once, since it may be long until then,
    /// and something may start.
    fn part(&mut self) {
        let mut stops = HashSet::new();
        self.kept.retain(|kept| match &kept.inbound {
            Inbound::Order { envelope, .. } => kept.sort == Sort::Stop && stops.insert(envelope.clone()),
            Inbound::Judged { .. } | Inbound::Unjudged => true,
            Inbound::Urgent(_)
            | Inbound::Document { .. }
            | Inbound::LicenceNotice(_)
            | Inbound::Disconnected => false,
        });
        self.is_short = false;
        self.keep(Inbound::Disconnected, Sort::Notice);
    }
}

/// Whether the second says nothing that the first does not.
fn is_same(one: &Inbound, other: &Inbound) -> bool {
    match (one, other) {
        (
            Inbound::Order { envelope, proof },
            Inbound::Order { envelope: other_envelope, proof: other_proof },
        ) => envelope == other_envelope && proof == other_proof,
        (
            Inbound::Document { kind, digest, envelope },
            Inbound::Document { kind: other_kind, digest: other_digest, envelope: other_envelope },
        ) => kind == other_kind && digest == other_digest && envelope == other_envelope,
        (
            Inbound::Order { .. }
            | Inbound::Urgent(_)
            | Inbound::Document { .. }
            | Inbound::LicenceNotice(_)
            | Inbound::Judged { .. }
            | Inbound::Unjudged
            | Inbound::Disconnected,
            _,
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(text: &str) -> (Inbound, Sort) {
        (Inbound::Order { envelope: text.to_owned().into(), proof: None }, Sort::Stop)
    }

    fn order(text: &str) -> (Inbound, Sort) {
        (Inbound::Order { envelope: text.to_owned().into(), proof: None }, Sort::Order)
    }

    fn judged(standing: Standing, stops_due: u32) -> (Inbound, Sort) {
        (Inbound::Judged { standing, restored_at_ms: 0, switch_ms: 0, stops_due }, Sort::Notice)
    }

    fn licence(byte: u8) -> (Inbound, Sort) {
        (Inbound::LicenceNotice(Digest::from([byte; 32])), Sort::Notice)
    }

    fn parted() -> (Inbound, Sort) {
        (Inbound::Disconnected, Sort::Notice)
    }

    fn queue(came: impl IntoIterator<Item = (Inbound, Sort)>) -> Delayed {
        let mut delayed = Delayed::default();
        for (inbound, sort) in came {
            delayed.push(inbound, sort);
        }
        delayed
    }

    fn shown(mut delayed: Delayed) -> Vec<String> {
        let show = |inbound| match inbound {
            Inbound::Order { envelope, .. } => String::from_utf8(envelope.to_vec()).unwrap(),
            Inbound::Document { digest, .. } => format!("document {digest}"),
            Inbound::LicenceNotice(digest) => format!("licence {}", digest.as_bytes()[0]),
            Inbound::Judged { standing, stops_due, .. } => format!("{standing:?} {stops_due}"),
            other @ (Inbound::Unjudged | Inbound::Disconnected | Inbound::Urgent(_)) => format!("{other:?}"),
        };
        std::iter::from_fn(|| delayed.pop()).map(show).collect()
    }

    #[test]
    fn what_comes_again_in_a_session_is_kept_once_in_its_order() {
        let came = [order("1"), stop("s"), order("1"), stop("s"), licence(1), order("2"), licence(2)];

        assert_eq!(shown(queue(came)), ["1", "s", "licence 2", "2"]);
    }

    #[test]
    fn orders_keep_no_stop_out_and_what_has_no_room_is_asked_for_in_another_session() {
        let many = (0..KEPT_MAX).map(|number| order(&number.to_string()));
        let full = queue(many.clone());
        assert!(!full.is_short());

        let mut short = queue(many.chain([order("one more"), stop("s")]));
        assert!(short.is_short());
        short.push(Inbound::Disconnected, Sort::Notice);

        assert!(!short.is_short(), "there is another session to come");
        assert_eq!(shown(short), ["s", "Disconnected"]);
    }

    #[test]
    fn of_stops_that_have_no_room_nothing_starts_before_another_session_and_the_queue_has_an_end() {
        let mut stops = queue((0..10 * KEPT_MAX).map(|number| stop(&number.to_string())));
        assert!(stops.is_short());
        assert_eq!(stops.kept.len(), KEPT_MAX + 1);
        stops.push(Inbound::Disconnected, Sort::Notice);

        let shown = shown(stops);

        assert_eq!(shown[KEPT_MAX..], ["Unjudged", "Disconnected"]);
    }

    #[test]
    fn however_many_sessions_come_and_go_the_last_one_counts_and_a_stop_waits_once_for_those_before_it() {
        let mut came = Vec::new();
        for _ in 0..100 {
            came.extend([judged(Standing::Own, 1), stop("s"), order("1"), licence(1), parted()]);
        }
        came.extend([judged(Standing::Own, 2), stop("s"), order("1")]);

        assert_eq!(shown(queue(came)), ["s", "Disconnected", "Own 2", "s", "1"]);
    }

    #[test]
    fn that_the_store_is_a_copy_stays_true() {
        let came = [judged(Standing::Copy, 0), parted(), judged(Standing::Own, 3), order("1")];

        assert_eq!(shown(queue(came)), ["Disconnected", "Copy 3", "1"]);
    }

    #[test]
    fn a_welcome_that_could_not_be_judged_holds_behind_the_session_before_it() {
        let unjudged = || (Inbound::Unjudged, Sort::Notice);
        let came = [judged(Standing::Own, 0), parted(), unjudged(), parted(), unjudged()];

        assert_eq!(shown(queue(came)), ["Own 0", "Disconnected", "Unjudged"]);
    }
}
