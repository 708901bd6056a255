use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::ids::Sequence;
use crate::seen::{Fresh, SeenSet};

#[test]
fn a_welcome_is_judged_by_what_was_offered_and_not_by_what_waits() {
    // (next, unoffered, highest seen) and what follows.
    let table = [
        ((1, 1, 0), Standing::Own),
        // Everything offered is there, acked or not.
        ((11, 11, 10), Standing::Own),
        // Some of it waits and was never sent.
        ((11, 6, 5), Standing::Own),
        // What was offered did not arrive.
        ((11, 11, 3), Standing::Own),
        // The Switch forgot this outbox, or is itself an older copy.
        ((11, 11, 0), Standing::Own),
        // Numbers that were never given.
        ((11, 11, 11), Standing::Copy),
        ((11, 11, u64::MAX), Standing::Copy),
        // Numbers that were given after the copy came back, and never sent.
        ((12, 11, 11), Standing::Copy),
        ((20, 11, 15), Standing::Copy),
        ((1, 1, 1), Standing::Copy),
    ];

    for ((next, unoffered, highest), wanted) in table {
        let numbers = OutboxNumbers::stored(next, unoffered);
        // Whether the Switch tells the roads apart or not.
        for by_session in [None, Some(highest)] {
            let judged = numbers.judge(highest, by_session);
            assert_eq!(judged, wanted, "{numbers:?}, highest {highest}, by session {by_session:?}");
        }
    }
}

#[test]
fn only_a_number_that_came_over_a_session_shows_a_copy() {
    let numbers = OutboxNumbers::stored(12, 11);

    // (highest by whichever road, highest by session) and what follows.
    let table = [
        ((10, 0), Standing::Own),
        ((11, 0), Standing::Claimed),
        ((11, 10), Standing::Claimed),
        ((1 << 62, 10), Standing::Claimed),
        ((u64::MAX, 11), Standing::Copy),
        // No Switch says so; it would be one that came over a session all the same.
        ((0, 11), Standing::Copy),
    ];
    for ((highest, by_session), wanted) in table {
        assert_eq!(numbers.judge(highest, Some(by_session)), wanted, "{highest}, {by_session}");
    }
}

#[test]
fn an_offer_is_written_once_and_never_exceeds_what_was_given() {
    let mut numbers = OutboxNumbers::stored(11, 4);

    assert!(numbers.offer(6));
    assert!(!numbers.offer(6));
    assert!(!numbers.offer(2));
    assert!(numbers.offer(u64::MAX));

    assert_eq!((numbers.next(), numbers.unoffered()), (11, 11));
    assert_eq!(OutboxNumbers::stored(3, 9), OutboxNumbers::stored(3, 3));
}

/// What happens to a client, its disk and its Switch.
#[derive(Debug, Clone, Copy)]
enum Step {
    Append,
    Connect,
    /// The Switch gets what waits first; the acks may be lost.
    Send {
        count: usize,
        acks_come: bool,
    },
    /// A crash, or the end of a session.
    Disconnect,
    Copy,
    Restore,
    /// Somebody names the last number of all, by the Background Channel.
    Claim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Append),
        3 => Just(Step::Connect),
        4 => (1_usize..5, any::<bool>()).prop_map(|(count, acks_come)| Step::Send { count, acks_come }),
        2 => Just(Step::Disconnect),
        1 => Just(Step::Copy),
        1 => Just(Step::Restore),
        1 => Just(Step::Claim),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A client's disk. What waits is known by a token that no two records ever share.
#[derive(Debug, Clone)]
struct Disk {
    outbox: u32,
    numbers: OutboxNumbers,
    waiting: BTreeMap<u64, u32>,
}

#[derive(Debug)]
struct World {
    disk: Disk,
    copy: Option<Disk>,
    link: Link,
    seen: BTreeMap<u32, SeenSet>,
    /// The highest that came over sessions, of each outbox.
    by_session: BTreeMap<u32, u64>,
    /// Outboxes of which somebody else has named the last number of all.
    claimed: BTreeSet<u32>,
    stored: BTreeMap<(u32, u64), u32>,
    tokens: u32,
    outboxes: u32,
    copies_back: u32,
}

impl World {
    fn new() -> Self {
        let disk = Disk { outbox: 0, numbers: OutboxNumbers::NEW, waiting: BTreeMap::new() };
        Self {
            disk,
            copy: None,
            link: Link::Down,
            seen: BTreeMap::new(),
            by_session: BTreeMap::new(),
            claimed: BTreeSet::new(),
            stored: BTreeMap::new(),
            tokens: 0,
            outboxes: 1,
            copies_back: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Append => {
                let number = self.disk.numbers.take(self.link);
                self.disk.waiting.insert(number, self.tokens);
                self.tokens += 1;
            }
            Step::Connect => self.connect(),
            Step::Send { count, acks_come } if self.link == Link::Up => self.send(count, acks_come),
            Step::Send { .. } => {}
            Step::Disconnect => self.link = Link::Down,
            Step::Claim => {
                self.claimed.insert(self.disk.outbox);
            }
            Step::Copy => self.copy = Some(self.disk.clone()),
            Step::Restore => {
                if let Some(copy) = &self.copy {
                    self.disk = copy.clone();
                    self.link = Link::Down;
                    self.copies_back += 1;
                }
            }
        }
    }

    fn connect(&mut self) {
        let outbox = self.disk.outbox;
        let highest = self.seen.get(&outbox).map_or(0, SeenSet::highest);
        let highest = if self.claimed.contains(&outbox) { u64::MAX } else { highest };
        let by_session = self.by_session.get(&outbox).copied().unwrap_or_default();
        let standing = self.disk.numbers.judge(highest, Some(by_session));
        assert!(standing != Standing::Copy || self.copies_back > 0, "only a copy is taken for one");
        if standing != Standing::Own {
            self.disk.outbox = self.outboxes;
            self.outboxes += 1;
            self.disk.numbers.renew();
            self.link = Link::Down;
            return;
        }
        let _written = self.disk.numbers.offer(u64::MAX);
        self.link = Link::Up;
    }

    fn send(&mut self, count: usize, acks_come: bool) {
        let outbox = self.disk.outbox;
        let sent: Vec<_> = self.disk.waiting.iter().take(count).map(|(at, token)| (*at, *token)).collect();
        for (number, token) in sent {
            let seen = self.seen.entry(outbox).or_default();
            if seen.insert(Sequence::try_from(number).unwrap()) == Fresh::New {
                self.stored.insert((outbox, number), token);
            }
            let by_session = self.by_session.entry(outbox).or_default();
            *by_session = number.max(*by_session);
            let kept = self.stored[&(outbox, number)];
            assert_eq!(
                kept, token,
                "number {number} of outbox {outbox} is acked, and another record is kept"
            );
            if acks_come {
                self.disk.waiting.remove(&number);
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_acked_that_is_not_kept_whatever_copy_comes_back(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        // Once more in order: a Welcome may tell of a copy, the next one does not.
        for step in [Step::Disconnect, Step::Connect, Step::Connect] {
            world.take(step);
        }
        world.take(Step::Send { count: usize::MAX, acks_come: true });
        prop_assert!(world.disk.waiting.is_empty(), "everything goes in the end");
    }

    #[test]
    fn without_a_copy_no_outbox_changes_its_name_and_nothing_is_kept_twice(steps in steps()) {
        let mut world = World::new();
        for step in steps.into_iter().filter(|step| !matches!(step, Step::Restore | Step::Claim)) {
            world.take(step);
        }
        prop_assert_eq!((world.outboxes, world.copies_back), (1, 0));
        let mut kept: Vec<_> = world.stored.values().collect();
        kept.sort_unstable();
        kept.dedup();
        prop_assert_eq!(kept.len(), world.stored.len());
    }
}
