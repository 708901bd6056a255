//! What a coordinator tells a worker, and what the worker answers: one JSON object a line each.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::history::Promise;
use crate::moment::Moment;
use crate::simulated::{OnOrder, Sabotage};
use crate::tls::{Resume, Suite};

/// The server that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Muster,
    Nats,
    Mosquitto,
}

/// What names a message: the instruction of an order, or the first bytes of a peer's message.
pub(crate) type Tag = [u8; 16];

/// What all devices of a worker have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    /// `host:port`
    pub(crate) address: String,
    /// The home with the development CA that issues the devices' certificates.
    pub(crate) home: PathBuf,
    /// What the names of its devices begin with.
    pub(crate) prefix: String,
    /// Where its connections come from, in turn.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) suite: Suite,
    pub(crate) resume: Resume,
    pub(crate) on_order: OnOrder,
    /// Whether a device that loses its session comes back.
    pub(crate) returns: bool,
    /// One in so many reads nothing while that is wished; none if it is 0.
    pub(crate) slow_one_in: u32,
    /// Whether acks are kept one by one, for the history checker.
    pub(crate) keeps_promises: bool,
    /// What the first device does wrong.
    pub(crate) sabotage: Option<Sabotage>,
}

/// What a coordinator tells a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Command {
    /// The first one.
    Setup(Setup),
    /// Makes devices, each with a key and certificate.
    Prepare { from: u32, count: u32 },
    /// Has devices connect that have no session; answers at once.
    Connect {
        count: u32,
        /// So many handshakes at once.
        at_once: u32,
    },
    /// Has sessions come and go from a moment on, each at its own; answers at once.
    Churn(Churn),
    /// Ends sessions, those that stand longest first; answers when they are gone.
    Disconnect { count: u32 },
    /// Waits until a number is reached, or the time has passed.
    Await { what: Awaited, count: u64, within_ms: u64 },
    /// Forgets what arrived, what was acked and how long connecting took; never what was lost.
    Clear,
    /// Tells latencies of what arrived of these.
    Arrived { sent: Vec<Sent> },
    /// Tells when acks came, since a moment.
    Acked { since: Moment },
    /// Tells how long connecting took.
    Connected,
    /// Tells what devices were promised since the last time.
    Promises,
    /// Has slow readers stop, or go on.
    Pause { paused: bool },
    /// Has devices keep their answers to what comes, or say all that they kept.
    Hush { hushed: bool },
    /// Has each device report so many events more.
    Report { events: u32 },
    /// Has devices without a session forget their tickets, so that their next handshake is a full one.
    ForgetTickets,
}

/// Sessions that come and go: at each moment the session ends that stands longest, and another device's begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Churn {
    /// The moment of the first.
    pub(crate) start: Moment,
    /// From each to the next.
    pub(crate) every: Duration,
    pub(crate) count: u32,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Awaited {
    /// Devices that have a session.
    Standing,
    /// Messages that came.
    Arrivals,
    /// Results and events that were acked.
    Acks,
    /// Sessions that began since the last clearing.
    Connected,
}

/// A message that was sent to all.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sent {
    #[serde(with = "hex_tag")]
    pub(crate) tag: Tag,
    /// When it was to be sent.
    pub(crate) at: Moment,
}

/// What a worker answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    Counts(Counts),
    Latencies {
        took: Pairs,
    },
    Connected {
        took: Pairs,
        full: u64,
        resumed: u64,
        problems: Vec<String>,
    },
    Arrived(Arrived),
    Promises {
        promises: Vec<Promise>,
    },
    /// It could not do it.
    Problem {
        problem: String,
    },
}

/// A distribution: microseconds, and how many.
pub(crate) type Pairs = Vec<(u64, u64)>;

/// What a worker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Devices that were made.
    pub(crate) prepared: u32,
    /// Devices that have a session.
    pub(crate) standing: u32,
    /// Sessions that ended without being told to.
    pub(crate) lost: u32,
    /// Attempts that gave no session.
    pub(crate) failed: u32,
    /// Messages that came.
    pub(crate) arrivals: u64,
    /// Messages that came once more.
    pub(crate) repeats: u64,
    /// Results and events that were acked.
    pub(crate) acks: u64,
    /// Sessions that began.
    pub(crate) connected: u64,
    /// When the last of them did.
    pub(crate) last_connected: Moment,
    /// Pings that were answered, and the bytes of the frames of both.
    pub(crate) heartbeats: u64,
    pub(crate) heartbeat_bytes: u64,
}

/// What came of what was sent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Arrived {
    /// At devices whose session stood when it was sent.
    pub(crate) standing: Pairs,
    /// At devices that came later.
    pub(crate) late: u64,
    /// The bytes of one.
    pub(crate) bytes: usize,
    /// What came of the messages that nobody asked about.
    pub(crate) others: u64,
    /// Of each message.
    pub(crate) reaches: Vec<Reach>,
}

/// Whom one message reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Reach {
    /// Devices whose session stood when it was to be sent.
    pub(crate) expected: u64,
    /// Those of them that have it.
    pub(crate) reached: u64,
}

impl Reach {
    /// Adds another worker's.
    pub(crate) fn add(&mut self, other: Self) {
        self.expected += other.expected;
        self.reached += other.reached;
    }
}

impl Counts {
    /// Adds another worker's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.prepared += other.prepared;
        self.standing += other.standing;
        self.lost += other.lost;
        self.failed += other.failed;
        self.arrivals += other.arrivals;
        self.repeats += other.repeats;
        self.acks += other.acks;
        self.connected += other.connected;
        self.last_connected = self.last_connected.max(other.last_connected);
        self.heartbeats += other.heartbeats;
        self.heartbeat_bytes += other.heartbeat_bytes;
    }

    /// The number that is waited for.
    pub(crate) fn of(&self, what: Awaited) -> u64 {
        match what {
            Awaited::Standing => self.standing.into(),
            Awaited::Arrivals => self.arrivals,
            Awaited::Acks => self.acks,
            Awaited::Connected => self.connected,
        }
    }
}

mod hex_tag {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use super::Tag;

    pub(super) fn serialize<S: Serializer>(tag: &Tag, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(tag))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tag, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut tag = Tag::default();
        hex::decode_to_slice(&text, &mut tag).map_err(de::Error::custom)?;
        Ok(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_answers_are_one_line_each_and_come_back_as_they_were() {
        let sent = Sent { tag: [7; 16], at: Moment::now() };
        let commands = [
            Command::Prepare { from: 1, count: 2 },
            Command::Await { what: Awaited::Standing, count: 3, within_ms: 4 },
            Command::Arrived { sent: vec![sent] },
            Command::Clear,
            Command::Churn(Churn { start: Moment::now(), every: Duration::from_micros(250), count: 7 }),
        ];
        for command in commands {
            let line = serde_json::to_string(&command).unwrap();
            assert!(!line.contains('\n'), "{line}");
            let read: Command = serde_json::from_str(&line).unwrap();
            assert_eq!(format!("{read:?}"), format!("{command:?}"));
        }
        let took = vec![(3, 4)];
        let answers = [
            Answer::Counts(Counts { standing: 3, ..Counts::default() }),
            Answer::Latencies { took: took.clone() },
            Answer::Connected { took, full: 1, resumed: 2, problems: vec!["a\nb".to_owned()] },
            Answer::Arrived(Arrived { late: 1, ..Arrived::default() }),
            Answer::Promises { promises: Vec::new() },
            Answer::Problem { problem: "none".to_owned() },
        ];
        for answer in answers {
            let line = serde_json::to_string(&answer).unwrap();
            assert!(!line.contains('\n'), "{line}");
            let read: Answer = serde_json::from_str(&line).unwrap();
            assert_eq!(format!("{read:?}"), format!("{answer:?}"));
        }
    }

    #[test]
    fn counts_of_several_workers_add_up() {
        let one = Counts { standing: 2, arrivals: 5, lost: 1, ..Counts::default() };
        let mut sum = one;
        sum.add(&one);

        assert_eq!((sum.of(Awaited::Standing), sum.of(Awaited::Arrivals), sum.lost), (4, 10, 2));
    }
}
