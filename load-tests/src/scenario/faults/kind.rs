//! The faults: what a Switch is set to for each, and by what its metrics show that it took place.

use std::time::Duration;

use clap::ValueEnum;

use super::Options;
use crate::report::DESCRIPTORS_SPARE;
use crate::server::own::{Settings, as_written};

/// What a Switch does by default: the longest of a stage, and from the last byte of a session until it is dead.
const STAGE: Duration = Duration::from_secs(15);
/// See [`STAGE`].
const DEAD_AFTER: Duration = Duration::from_secs(150);
/// A session is pinged so often until it is dead; the Switch wants one and a half at least.
const PINGS_UNTIL_DEAD: f64 = 1.6;

/// A fault that others than the healthy sessions bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// Connections that send a byte a second: of a TLS hello, of the upgrade request, and of the first frame
    Slowloris,
    /// Sessions whose clients vanish without a word
    HalfOpen,
    /// Two devices each with one certificate, which push one another out
    DuplicateIdentity,
    /// Connections until the Switch has no descriptor left
    Descriptors,
    /// More devices than the Switch may hold sessions, which is what bounds its memory
    MemoryCap,
}

/// A counter of the Switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counter {
    /// Connections of devices, by what became of them.
    Handshakes,
    /// Sessions that ended, by why.
    Ended,
}

/// What shows a fault: a counter that moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sign {
    /// Its figure.
    pub(super) key: &'static str,
    pub(super) words: &'static str,
    pub(super) counter: Counter,
    /// The outcome or reason.
    pub(super) label: &'static str,
}

impl Counter {
    pub(super) const ALL: [Self; 2] = [Self::Handshakes, Self::Ended];

    /// The metric.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Handshakes => "muster_switch_handshakes_total",
            Self::Ended => "muster_switch_sessions_ended_total",
        }
    }

    /// The label that tells one of its values from another.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Handshakes => "outcome",
            Self::Ended => "reason",
        }
    }

    /// What else is counted under its name, and is not of devices over WebSocket.
    pub(super) fn among(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Handshakes => &[("listener", "sessions")],
            Self::Ended => &[],
        }
    }
}

impl Fault {
    /// As it is typed, and told.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Slowloris => "slowloris",
            Self::HalfOpen => "half-open",
            Self::DuplicateIdentity => "duplicate-identity",
            Self::Descriptors => "descriptors",
            Self::MemoryCap => "memory-cap",
        }
    }

    /// How many bring it about, where nothing is said.
    pub(super) fn faulty_default(self) -> u32 {
        match self {
            Self::Slowloris => 3_000,
            Self::HalfOpen | Self::Descriptors => 1_000,
            Self::DuplicateIdentity | Self::MemoryCap => 400,
        }
    }

    /// How few are too few: one of each stage, one pair; more than a server's spare descriptors.
    pub(super) fn faulty_min(self) -> u32 {
        match self {
            Self::Slowloris => 3,
            Self::DuplicateIdentity => 2,
            Self::Descriptors => DESCRIPTORS_SPARE,
            Self::HalfOpen | Self::MemoryCap => 1,
        }
    }

    /// What those who bring it about are.
    pub(super) fn faulty_words(self) -> &'static str {
        match self {
            Self::Slowloris => "  connections that send a byte a second, a third of them in each stage",
            Self::HalfOpen => "  sessions whose clients vanished",
            Self::DuplicateIdentity => "  devices of which each two have one certificate",
            Self::Descriptors => "  connections that are wanted, more than there are descriptors",
            Self::MemoryCap => "  devices more than the Switch may hold sessions",
        }
    }

    /// How long the Switch waits for those who are slow or gone, where that matters.
    pub(super) fn deadline(self, said: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Slowloris | Self::Descriptors => Some(said.unwrap_or(STAGE)),
            Self::HalfOpen => Some(said.unwrap_or(DEAD_AFTER)),
            Self::DuplicateIdentity | Self::MemoryCap => None,
        }
    }

    /// How the Switch is set.
    pub(super) fn settings(self, options: &Options) -> Settings {
        let mut settings = Settings::default();
        let said = options.deadline;
        match self {
            Self::Slowloris | Self::Descriptors => {
                for key in ["tls_deadline", "upgrade_deadline", "hello_deadline"] {
                    settings.sessions.extend(said.map(|deadline| (key, as_written(deadline))));
                }
            }
            Self::HalfOpen => {
                let pings = said.map(|deadline| deadline.div_f64(PINGS_UNTIL_DEAD));
                settings.sessions.extend(pings.map(|every| ("ping_interval", as_written(every))));
                settings.sessions.extend(said.map(|deadline| ("dead_after", as_written(deadline))));
            }
            Self::MemoryCap => {
                settings.sessions.insert("sessions_max", options.common.sessions.to_string());
            }
            Self::DuplicateIdentity => {}
        }
        if self == Self::Descriptors {
            // One table, of which its sessions leave little.
            settings.shards = Some(1);
            settings.files_max = Some(options.common.sessions + DESCRIPTORS_SPARE);
        }
        settings
    }

    /// What has to move, or there was no fault.
    pub(super) fn signs(self) -> &'static [Sign] {
        const fn sign(key: &'static str, words: &'static str, counter: Counter, label: &'static str) -> Sign {
            Sign { key, words, counter, label }
        }
        const SLOWLORIS: [Sign; 3] = [
            sign("tls_deadlines", "  ended in their TLS hello", Counter::Handshakes, "tls_deadline"),
            sign("upgrade_deadlines", "  in their upgrade request", Counter::Handshakes, "upgrade_deadline"),
            sign("hello_deadlines", "  in their first frame", Counter::Ended, "HELLO_TIMEOUT"),
        ];
        const HALF_OPEN: [Sign; 1] = [sign("found", "  found, and ended", Counter::Ended, "IDLE")];
        const TWINS: [Sign; 1] = [sign("superseded", "  sessions pushed out", Counter::Ended, "SUPERSEDED")];
        const DESCRIPTORS: [Sign; 1] =
            [sign("shed", "  turned away for want of a descriptor", Counter::Handshakes, "descriptors")];
        const MEMORY_CAP: [Sign; 1] =
            [sign("shed", "  times told to come back later", Counter::Handshakes, "full")];
        match self {
            Self::Slowloris => &SLOWLORIS,
            Self::HalfOpen => &HALF_OPEN,
            Self::DuplicateIdentity => &TWINS,
            Self::Descriptors => &DESCRIPTORS,
            Self::MemoryCap => &MEMORY_CAP,
        }
    }

    /// How far each of them has to move: of those who vanish everyone is to be found.
    pub(super) fn least(self, faulty: u32) -> u64 {
        match self {
            Self::HalfOpen => faulty.into(),
            Self::Slowloris | Self::DuplicateIdentity | Self::Descriptors | Self::MemoryCap => 1,
        }
    }
}
