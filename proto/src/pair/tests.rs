use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::common::v1::TargetState;
use crate::frame;
use crate::ids::{Epoch, Sequence};
use crate::limits::SessionLimits;
use crate::seen::{Fresh, SeenSet};
use crate::session::PushError;
use crate::session::switch::WelcomeArgs;
use crate::session::v1::frame::Body;
use crate::session::v1::{CloseReason, Event, Frame, Lane, Result as InstructionResult, SequenceRange};

const LATENCY: Duration = Duration::from_millis(20);

#[test]
fn a_session_lives_for_an_hour_on_its_heartbeat() {
    let mut fleet = Fleet::new(SessionLimits::default());

    fleet.turn(Duration::from_secs(3_600));

    assert!(fleet.pair.switch.is_established() && fleet.pair.client.is_established());
}

#[test]
fn both_sides_notice_a_half_open_connection() {
    let mut fleet = Fleet::new(SessionLimits::default());
    fleet.turn(Duration::from_secs(1));

    fleet.pair.link = Link::Silent;
    fleet.pair.advance(Duration::from_secs(151));

    assert_eq!(fleet.pair.switch.close_reason(), Some(CloseReason::Idle));
    assert_eq!(fleet.pair.client.close_reason(), Some(CloseReason::Idle));
}

#[test]
fn a_superseded_client_is_told_after_one_latency() {
    let mut fleet = Fleet::new(SessionLimits::default());
    fleet.turn(Duration::from_secs(1));

    fleet.pair.switch.push_close(CloseReason::Superseded, Duration::from_secs(2), "a newer session");
    fleet.pair.advance(LATENCY);

    let told = ClientEvent::GoAway {
        reason: CloseReason::Superseded,
        reconnect_after: Duration::from_secs(2),
        detail: "a newer session".to_owned(),
    };
    assert_eq!(fleet.pair.client_events(), [told, ClientEvent::Closed { reason: CloseReason::Superseded }]);
}

/// One thing that happens to a session.
#[derive(Debug, Clone)]
enum Happening {
    /// The client's outbox takes another item of this many payload bytes.
    Append(Lane, usize),
    /// The outbox is pushed as far as credits let it.
    Drain,
    /// The Switch commits and acks so many of the items it holds.
    Commit(usize),
    /// Time passes, milliseconds.
    Pass(u64),
    /// The connection is lost with all that is on its way.
    Lose,
    /// The link swallows frames.
    Mute,
    /// The Switch ends the session.
    Close,
    /// The client receives bytes that no Switch sent.
    Noise(Vec<u8>),
}

fn happening() -> impl Strategy<Value = Happening> {
    let lane = prop_oneof![Just(Lane::Results), Just(Lane::Events)];
    prop_oneof![
        6 => (lane, 0_usize..200).prop_map(|(lane, bytes)| Happening::Append(lane, bytes)),
        6 => Just(Happening::Drain),
        6 => (0_usize..8).prop_map(Happening::Commit),
        6 => (0_u64..100).prop_map(Happening::Pass),
        1 => (60_000_u64..400_000).prop_map(Happening::Pass),
        1 => Just(Happening::Lose),
        1 => Just(Happening::Mute),
        1 => Just(Happening::Close),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Happening::Noise),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_nothing_exceeds_its_credit_and_nothing_is_lost_or_doubled(
        happenings in prop::collection::vec(happening(), 0..150),
    ) {
        let limits = SessionLimits { results_credit_bytes: 700, events_credit_bytes: 500, ..SessionLimits::default() };
        let mut fleet = Fleet::new(limits);

        for happening in happenings {
            fleet.happen(happening);
            fleet.check_credits();
        }
        fleet.finish();

        prop_assert!(fleet.outbox.is_empty(), "not acked: {:?}", fleet.outbox.keys());
        prop_assert_eq!(fleet.committed.len() as u64, fleet.appended);
        prop_assert_eq!(fleet.seen.mark(), fleet.appended);
    }

    #[test]
    fn no_messages_make_a_half_panic(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
        let mut fleet = Fleet::new(SessionLimits::default());
        fleet.turn(Duration::from_secs(1));

        for message in messages {
            fleet.pair.inject_to_switch(message.clone().into());
            fleet.pair.inject_to_client(message.into());
        }

        fleet.pair.settle();
    }
}

/// A pair with an outbox on one side and a store on the other, both of which outlive sessions.
struct Fleet {
    pair: Pair,
    limits: SessionLimits,
    epoch: u64,
    outbox: BTreeMap<u64, Body>,
    /// What of the outbox was pushed in this session.
    pushed: BTreeSet<u64>,
    appended: u64,
    /// What the Switch holds and has not committed: lane, sequence, bytes.
    held: VecDeque<(Lane, u64, u32)>,
    seen: SeenSet,
    committed: BTreeSet<u64>,
    /// Bytes the Switch got and gave back in this session, by lane.
    accounts: BTreeMap<Lane, (u64, u64)>,
}

impl Fleet {
    fn new(limits: SessionLimits) -> Self {
        let shared = Arc::new(limits.clone());
        let config = PairConfig {
            switch: SwitchSessionConfig::new(Arc::clone(&shared)),
            client: ClientSessionConfig { limits: shared },
            latency: LATENCY,
        };
        Self {
            pair: Pair::new(config, hello(), start()),
            limits,
            epoch: 0,
            outbox: BTreeMap::new(),
            pushed: BTreeSet::new(),
            appended: 0,
            held: VecDeque::new(),
            seen: SeenSet::new(),
            committed: BTreeSet::new(),
            accounts: BTreeMap::new(),
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Append(lane, bytes) => self.append(lane, bytes),
            Happening::Drain => self.drain(),
            Happening::Commit(items) => self.commit(items),
            Happening::Pass(millis) => self.turn(Duration::from_millis(millis)),
            Happening::Lose => self.lose(),
            Happening::Mute => self.pair.link = Link::Silent,
            Happening::Close => self.pair.switch.push_close(CloseReason::Shutdown, Duration::ZERO, ""),
            Happening::Noise(bytes) => self.pair.inject_to_client(bytes.into()),
        }
        self.listen();
        if self.pair.client.is_closed() {
            self.lose();
        }
    }

    fn append(&mut self, lane: Lane, bytes: usize) {
        self.appended += 1;
        let sequence = self.appended;
        let body = if lane == Lane::Results {
            let (state, detail) = (TargetState::Failed.into(), "d".repeat(bytes));
            let instruction = vec![1; 16];
            Body::Result(InstructionResult {
                sequence,
                instruction,
                state,
                detail,
                ..InstructionResult::default()
            })
        } else {
            let fields = vec![];
            Body::Event(Event { sequence, occurred_at_ms: 1, name: "e".repeat(bytes.clamp(1, 64)), fields })
        };
        self.outbox.insert(sequence, body);
    }

    /// Pushes in the order of each lane; a lane without credit waits.
    fn drain(&mut self) {
        for wanted in [Lane::Results, Lane::Events] {
            for (sequence, body) in &self.outbox {
                if lane_of(body) != wanted || self.pushed.contains(sequence) {
                    continue;
                }
                let encoded = frame::encode(&Frame { proof: None, body: Some(body.clone()) }).len() as u64;
                let credit = self.pair.client.credit(wanted);
                let pushed = if let Body::Result(result) = body.clone() {
                    self.pair.client.push_result(result)
                } else if let Body::Event(event) = body.clone() {
                    self.pair.client.push_event(event)
                } else {
                    panic!("{body:?} in the outbox")
                };
                match pushed {
                    Ok(()) => assert!(self.pushed.insert(*sequence) && encoded <= credit),
                    Err(PushError::NoCredit { .. }) => {
                        assert!(encoded > credit);
                        break;
                    }
                    Err(PushError::NotEstablished | PushError::Closed) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn commit(&mut self, items: usize) {
        for (lane, sequence, bytes) in self.held.drain(..items.min(self.held.len())) {
            let number = Sequence::try_from(sequence).unwrap();
            match self.seen.insert(number) {
                Fresh::New => assert!(self.committed.insert(sequence), "{sequence} committed twice"),
                Fresh::Repeated => assert!(self.committed.contains(&sequence)),
                Fresh::Full => panic!("full"),
            }
            self.accounts.entry(lane).or_default().1 += u64::from(bytes);
            self.pair.switch.push_ack(
                lane,
                vec![SequenceRange { first: sequence, last: sequence }],
                bytes.into(),
            );
        }
    }

    fn turn(&mut self, duration: Duration) {
        // The shells act at least every 10 ms of virtual time at first, so that Hello is answered before its deadline.
        for _ in 0..6 {
            self.pair.advance(Duration::from_millis(10).min(duration));
            self.listen();
        }
        self.pair.advance(duration);
        self.listen();
    }

    fn listen(&mut self) {
        for event in self.pair.switch_events() {
            match event {
                SwitchEvent::Hello(_) => {
                    self.epoch += 1;
                    let epoch = Epoch(self.epoch);
                    let args = WelcomeArgs {
                        epoch,
                        time_ms: 0,
                        licence_digest: None,
                        highest_sequence: 0,
                        highest_by_session: Some(0),
                        stops_due: 0,
                    };
                    self.pair.switch.push_welcome(args, self.pair.now());
                }
                SwitchEvent::Result(result, bytes) => self.hold(Lane::Results, result.sequence, bytes),
                SwitchEvent::Event(event, bytes) => self.hold(Lane::Events, event.sequence, bytes),
                SwitchEvent::Closed { .. } => {}
                SwitchEvent::Progress { .. }
                | SwitchEvent::DocumentRequest { .. }
                | SwitchEvent::PolicyCheck { .. } => {
                    panic!("{event:?} was never sent")
                }
            }
        }
        for event in self.pair.client_events() {
            if let ClientEvent::Acked { ranges, .. } = event {
                for sequence in ranges.iter().flat_map(|range| range.first..=range.last) {
                    assert!(self.committed.contains(&sequence), "{sequence} acked and not committed");
                    self.outbox.remove(&sequence);
                }
            }
        }
    }

    fn hold(&mut self, lane: Lane, sequence: u64, bytes: u32) {
        self.accounts.entry(lane).or_default().0 += u64::from(bytes);
        self.held.push_back((lane, sequence, bytes));
    }

    /// What the Switch holds uncommitted is lost with the session, as a kill would lose it.
    fn lose(&mut self) {
        self.held.clear();
        self.pushed.clear();
        self.accounts.clear();
        self.pair.reconnect(hello());
    }

    /// The Switch never got more than the first credit and what it gave back.
    fn check_credits(&self) {
        for (lane, (got, given)) in &self.accounts {
            let first = if *lane == Lane::Results {
                self.limits.results_credit_bytes
            } else {
                self.limits.events_credit_bytes
            };
            assert!(*got <= first + given, "{lane:?}: {got} bytes under {first} and {given}");
        }
    }

    /// Lets everything arrive over a session that nothing disturbs.
    fn finish(&mut self) {
        self.lose();
        for _ in 0..400 {
            self.turn(Duration::from_millis(50));
            self.drain();
            self.turn(Duration::from_millis(50));
            self.commit(usize::MAX);
            if self.outbox.is_empty() {
                break;
            }
        }
    }
}

fn lane_of(body: &Body) -> Lane {
    if matches!(body, Body::Result(_)) { Lane::Results } else { Lane::Events }
}

fn hello() -> Hello {
    Hello { outbox_id: vec![0; 16], versions: vec![1], ..Hello::default() }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant has no other beginning; time moves by arithmetic from here"
)]
fn start() -> Instant {
    Instant::now()
}
