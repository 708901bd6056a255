//! The way in of every TLS listener, and what a stranger may hold of it: little, for a short time, and not more than others.
//!
//! Whoever connects has a place in the [`Lobby`] until its first byte is there and one of the [`Handshakes`] is free for it,
//! which it then has. Both are bounded in all and for each source, so that a host that opens connections and is silent, or
//! begins handshakes and does not end them, takes room from its own neighbours at most. A source is an IPv4 address or
//! an IPv6 network of 64 bits, which is what one host is given.
//!
//! Who has ended a handshake is known by name; what it may hold from there on is bounded by [`Places`]. Start reading at
//! [`Entrance`].

mod entrance;
mod farewell;
mod handshakes;
mod lines;
mod lobby;
mod plain;
mod quic;
mod secured;
mod shares;
mod spare;

pub use self::entrance::{Admitted, Answer, Entrance, Newcomer, Tell, TurnedAway};
pub use self::farewell::{end, end_line};
pub use self::handshakes::{Handshakes, Permit};
pub use self::lines::{LINES_PER_MINUTE_MAX, Lines};
pub use self::lobby::{Lobby, LobbyBounds, Place, Source};
pub use self::quic::{
    EndpointFailed, QuicAdmitted, QuicConfigs, QuicEntrance, QuicHandshakes, QuicNewcomer, chain,
};
pub use self::shares::{Full, Places, Share, Shares, Taken};
pub use self::spare::Spare;

/// Why a connection was ended before its handshake began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many connections as may wait for their first byte, or after it for a handshake, do so.
    #[error("as many connections as `waiting_max` allows wait for their first byte or a handshake")]
    LobbyFull,
    /// As many of one source as may wait so do.
    #[error(
        "as many connections of one address as `waiting_per_source_max` allows wait for their first byte or a handshake"
    )]
    SourceFull,
    /// Nothing came.
    #[error("no byte came within `first_byte_deadline`")]
    Silent,
    /// The peer ended the connection without a byte, as port scanners and load balancers do.
    #[error("the peer ended the connection without a byte")]
    Gone,
    /// What came is text, such as a request of plain HTTP; the peer was told.
    #[error("the peer speaks no TLS")]
    PlainText,
    /// The process has no descriptor for another connection.
    #[error("the process has no file descriptor left for it; see LimitNOFILE")]
    OutOfDescriptors,
    /// The first byte came, and no handshake ended in time to make room.
    #[error("no handshake could begin within `tls_deadline`: too many are in progress")]
    Busy,
    /// As many handshakes as there may be are in progress, at a listener where nobody waits (QUIC).
    #[error("as many handshakes as `quic_handshakes_max` allows are in progress")]
    HandshakesFull,
    /// As many handshakes of one source as there may be are in progress there.
    #[error("as many handshakes of one address as `quic_handshakes_per_source_max` allows are in progress")]
    SourceHandshakesFull,
}

impl Refused {
    /// Returns its name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::LobbyFull => "lobby_full",
            Self::SourceFull => "source_full",
            Self::Silent => "silent",
            Self::Gone => "gone",
            Self::PlainText => "plain_text",
            Self::OutOfDescriptors => "descriptors",
            Self::Busy => "busy",
            Self::HandshakesFull => "handshakes_full",
            Self::SourceHandshakesFull => "source_handshakes_full",
        }
    }
}
