//! The table `[session]`: by which road the client goes to its Switch, within which deadlines, and how it comes back.

use std::fmt;
use std::time::Duration;

use muster_service::config::human;
use serde::{Deserialize, Serialize};

/// By which road the client goes to its Switch, its deadlines, and how it comes back after a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// `race`: QUIC first and, where it has not come about after `quic_head_start`, WebSocket beside it, and whichever has shaken hands
    /// first; `quic` or `websocket`: that one alone. Both go to the host and port of `switch`, by UDP or by TCP. Default `race`.
    pub transport: TransportChoice,
    /// How long QUIC is alone in a race, and ten times as long where the last session held over it. Default 100 ms.
    #[serde(with = "human::duration")]
    pub quic_head_start: Duration,
    /// How long a Switch is called by WebSocket alone after QUIC has lost a race, not for want of room there: where UDP is dropped, the head start is
    /// lost only once in a while. 0: not at all. Default 10 min.
    #[serde(with = "human::duration")]
    pub quic_rest: Duration,
    /// How often a connection over QUIC says something, so that what translates addresses on the way remembers it; many forget after 30 s. 0:
    /// never. Default 25 s.
    #[serde(with = "human::duration")]
    pub quic_keep_alive: Duration,
    /// For the TCP connection. Default 10 s.
    #[serde(with = "human::duration")]
    pub connect_timeout: Duration,
    /// For the TLS handshake, or that of QUIC. Default 10 s (promises.md, "Limits").
    #[serde(with = "human::duration")]
    pub tls_timeout: Duration,
    /// For the WebSocket upgrade. Default 10 s.
    #[serde(with = "human::duration")]
    pub upgrade_timeout: Duration,
    /// For one write to a Switch that does not read. Default 30 s.
    #[serde(with = "human::duration")]
    pub write_timeout: Duration,
    /// The first pause before a new attempt is between nothing and this; it doubles with every attempt. Default 1 s.
    #[serde(with = "human::duration")]
    pub reconnect_base: Duration,
    /// No pause of the client's own choice is longer. Default 60 s.
    #[serde(with = "human::duration")]
    pub reconnect_cap: Duration,
}

/// Which transports the client tries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportChoice {
    /// Both, QUIC first.
    #[default]
    Race,
    /// QUIC alone.
    Quic,
    /// WebSocket alone.
    Websocket,
}

/// What a session goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Quic,
    WebSocket,
}

impl Transport {
    /// Returns its name in metrics and status, as configuration has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            transport: TransportChoice::Race,
            quic_head_start: Duration::from_millis(100),
            quic_rest: Duration::from_secs(600),
            quic_keep_alive: Duration::from_secs(25),
            connect_timeout: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(10),
            upgrade_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            reconnect_base: Duration::from_secs(1),
            reconnect_cap: Duration::from_secs(60),
        }
    }
}
