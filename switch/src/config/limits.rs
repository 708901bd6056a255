//! The limits of `spec/promises.md` that the Switch holds, each a key.

use std::time::Duration;

use muster_proto::limits;
use muster_service::admission::LobbyBounds;
use muster_service::config::human;
use muster_service::credentials::ClientCertificate;
use serde::{Deserialize, Serialize};

/// Limits of sessions with clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionLimits {
    /// Whether there are sessions over QUIC, too: by UDP, at the address and port of `listen`. Default true.
    pub quic: bool,
    /// Silence after which a connection over QUIC is over; at least one and a quarter of `ping_interval` counts. Default `75s`.
    #[serde(with = "human::duration")]
    pub quic_idle: Duration,
    /// Whether clients are asked for a certificate (C1 of trust.md): `required`, `optional` or `none`. A device without one is
    /// known by a key that it made itself, shown as unauthenticated, in no audience that does not name `authenticated`, and never
    /// sent an action. With `none` nobody is asked: devices that have a certificate do not get in by it. Default `required`.
    pub client_certificate: ClientCertificate,
    /// Sessions held at most; a further client is told to come back after `retry_after`. Each costs about 20 KiB and a
    /// file descriptor. Default 100000.
    pub sessions_max: u32,
    /// Of these, of devices without a certificate at most, for anyone can make keys; with `optional` less than
    /// `sessions_max`. Nobody is one of them with `required`. Default 10000.
    pub unauthenticated_max: u32,
    /// Handshakes (TLS and upgrade) in progress at most, over all shards but that of QUIC; further connections wait in the kernel's
    /// backlog. At least two for each shard. Default 1024.
    pub handshakes_max: u32,
    /// Of these, for one source (an IPv4 address, or an IPv6 /64) at most; its further ones wait. Must be less than
    /// `handshakes_max`, so that one host that begins handshakes and does not end them leaves room for others.
    /// Default 512: a fleet behind one NAT makes full use of a core with far fewer.
    pub handshakes_per_source_max: u32,
    /// Handshakes over QUIC (until the client's stream is there) in progress at most. Nobody waits: from half of them on, clients show first that they are where
    /// they say (a stateless Retry), and beyond they are refused, and come by TCP. Default 1024.
    pub quic_handshakes_max: u32,
    /// Of these, for one source at most; from half of that on its clients show first that they are there. Must be less than
    /// `quic_handshakes_max`. Default 512.
    pub quic_handshakes_per_source_max: u32,
    /// From the TCP connection to its first byte. Default `3s`: a lost packet is sent again three times in it.
    #[serde(with = "human::duration")]
    pub first_byte_deadline: Duration,
    /// Connections that wait for their first byte, or after it for a handshake, at most; further ones are closed.
    /// Default 8192.
    pub waiting_max: u32,
    /// Of these, from one source at most; must be less. A client's first byte comes one round trip after its connection, so a fleet
    /// behind one NAT that comes back at 2,000 connections a second over 200 ms has 400. Default 1024.
    pub waiting_per_source_max: u32,
    /// Connections that the kernel keeps waiting for a shard. Default 4096.
    pub backlog: u32,
    /// From the first byte to the end of the TLS handshake; the wait for room among the handshakes has as long for
    /// itself. Default `10s`.
    #[serde(with = "human::duration")]
    pub tls_deadline: Duration,
    /// From there to the end of the WebSocket upgrade. Default `10s`.
    #[serde(with = "human::duration")]
    pub upgrade_deadline: Duration,
    /// From there to the client's first frame. Default `15s`.
    #[serde(with = "human::duration")]
    pub hello_deadline: Duration,
    /// How often a silent client is asked for a sign of life; each session has its own jitter of 10 %. Default `60s`.
    #[serde(with = "human::duration")]
    pub ping_interval: Duration,
    /// Silence after which a session is dead; at least one and a half times `ping_interval`. Default `150s`.
    #[serde(with = "human::duration")]
    pub dead_after: Duration,
    /// How long one write may stall before the session ends as too slow. Default `30s`.
    #[serde(with = "human::duration")]
    pub write_deadline: Duration,
    /// The longest WebSocket message and frame from a client; the protocol's bound is 1 MiB. Default `1 MiB`.
    #[serde(with = "human::bytes")]
    pub message_bytes_max: u64,
    /// What waits for one client at most; an order that finds no room leaves its target queued and ends the session
    /// as too slow. Default `1 MiB`.
    #[serde(with = "human::bytes")]
    pub queue_bytes_max: u64,
    /// Sealed bytes that the sockets of one shard have not taken, of clients that read slowly, as far as whole records of 16 KiB go. Beyond it each
    /// record has 1 KiB, and who has not taken one waits for its next order until it has; nothing is lost. Default `64 MiB`.
    #[serde(with = "human::bytes")]
    pub unsent_bytes_max: u64,
    /// Encoded results that a client may have under way before an ack. Default `1 MiB`.
    #[serde(with = "human::bytes")]
    pub results_credit: u64,
    /// Encoded events that a client may have under way before an ack. Default `256 KiB`.
    #[serde(with = "human::bytes")]
    pub events_credit: u64,
    /// Sessions of one device at most of which no `Hello` was answered yet; a further one is told to come back after
    /// `retry_after`. A client has one, and now and then one more that it has given up. Default 4.
    pub ungreeted_per_device_max: u32,
    /// What a client is told to wait when the Switch holds all the sessions it may. Default `30s`.
    #[serde(with = "human::duration")]
    pub retry_after: Duration,
}

/// Limits of the operator API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorLimits {
    /// Connections of operators and services at most, handshakes not among them; further ones are closed.
    /// Default 256.
    pub connections_max: u32,
    /// Of these, with one certificate at most; further ones are closed. A peer has one for all of its calls. Default 64.
    pub connections_per_certificate_max: u32,
    /// Handshakes in progress at most; further connections wait in the kernel's backlog. Default 64.
    pub handshakes_max: u32,
    /// Of these, for one source at most, and less; its further ones wait. Default 32.
    pub handshakes_per_source_max: u32,
    /// From the TCP connection to its first byte. Default `3s`.
    #[serde(with = "human::duration")]
    pub first_byte_deadline: Duration,
    /// Connections that wait for their first byte, or after it for a handshake, at most; further ones are closed.
    /// Default 512.
    pub waiting_max: u32,
    /// Of these, from one source at most; must be less. Default 128.
    pub waiting_per_source_max: u32,
    /// Streams of one connection at most. Default 128.
    pub streams_max: u32,
    /// The longest message, either way. Default `4 MiB`.
    #[serde(with = "human::bytes")]
    pub message_bytes_max: u64,
    /// The longest headers of one call. Default `16 KiB`.
    #[serde(with = "human::bytes")]
    pub header_bytes_max: u64,
    /// Until a call must have its answer, or a stream its first. Default `60s`.
    #[serde(with = "human::duration")]
    pub call_deadline: Duration,
    /// From the first byte to the end of the TLS handshake. Default `10s`.
    #[serde(with = "human::duration")]
    pub tls_deadline: Duration,
}

/// Limits of the store and of instructions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineLimits {
    /// Items that one commit takes at most: a batch is what queued during the last fsync. Default 1000.
    pub batch_items_max: u32,
    /// Items that wait for the store at most; what asks then waits, up to its own deadline. Default 8192.
    pub queue_items_max: u32,
    /// Messages that wait for one shard at most; an order that finds no room leaves its targets queued. Default 4096.
    pub shard_messages_max: u32,
    /// Free disk below which new instructions and imports are refused and events wait at their clients; results
    /// already promised still go in.
    /// Default `256 MiB`.
    #[serde(with = "human::bytes")]
    pub disk_reserve: u64,
    /// Devices that may be blocked at once (`muster client block`). Default 10,000.
    pub blocked_max: u32,
    /// Stops (`muster instruction stop`) that devices may still have to get, at once; each is kept until the window of what it stopped
    /// is over, and a further one is refused. Default 10,000.
    pub stops_max: u32,
    /// Devices a second that are to ask for a client policy that was imported: where more are online, they ask spread over a
    /// longer time. Default 1,000.
    pub policy_asks_per_second: u32,
    /// Devices without a certificate that may be known at once; a further one gets no session until some are removed.
    /// Default 20,000.
    pub unauthenticated_max: u32,
    /// Of these, how many may come for the first time in a minute; a further one comes back later. Default 600.
    pub unauthenticated_new_per_minute: u32,
    /// Events of all of them together that are taken in a minute; a further one stays with its client, whose session ends for a
    /// minute. Default 6,000.
    pub unauthenticated_events_per_minute: u32,
    /// Aggregates (`muster instruction aggregate`) that run at once; a further one is refused. Each may have a core to itself. Default 2.
    pub aggregates_max: u32,
    /// Rows of results that one may be over; with more it is refused. Default 1,000,000.
    pub aggregate_rows_max: u32,
    /// What those rows may take in memory; the query may take as much again. Default `256 MiB`.
    #[serde(with = "human::bytes")]
    pub aggregate_memory: u64,
    /// Rows of its answer, and what is beyond is left out and told. Default 10,000.
    pub aggregate_answer_rows_max: u32,
    /// How long one may take, from the first row that is read; less than `operators.call_deadline`. Default `20s`.
    #[serde(with = "human::duration")]
    pub aggregate_deadline: Duration,
    /// How long a prepared order may wait for its signature. Default `10m`.
    #[serde(with = "human::duration")]
    pub prepared_ttl: Duration,
}

/// How the Switch stops: no new connections, every client told when to come back, then the store is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownLimits {
    /// How long sessions and calls may take to end. Default `10s`.
    #[serde(with = "human::duration")]
    pub drain_timeout: Duration,
    /// Sessions are sent away in waves within this time and within half of `drain_timeout`, those of a small fleet at once; who is not told
    /// yet is served. Default `3s`.
    #[serde(with = "human::duration")]
    pub send_away_within: Duration,
    /// Clients are told to come back at a random moment within this time. Default `30s`.
    #[serde(with = "human::duration")]
    pub reconnect_spread: Duration,
}

impl SessionLimits {
    /// Returns what may wait for its first byte.
    #[must_use]
    pub fn lobby(&self) -> LobbyBounds {
        LobbyBounds {
            first_byte_deadline: self.first_byte_deadline,
            waiting_max: self.waiting_max,
            waiting_per_source_max: self.waiting_per_source_max,
        }
    }

    /// Returns those that the protocol's half of a session holds.
    #[must_use]
    pub fn protocol(&self) -> limits::SessionLimits {
        limits::SessionLimits {
            hello_deadline: self.hello_deadline,
            ping_interval: self.ping_interval,
            dead_after: self.dead_after,
            outbound_bytes_max: usize::try_from(self.queue_bytes_max).unwrap_or(usize::MAX),
            results_credit_bytes: self.results_credit,
            events_credit_bytes: self.events_credit,
        }
    }
}

impl OperatorLimits {
    /// Returns what may wait for its first byte.
    #[must_use]
    pub fn lobby(&self) -> LobbyBounds {
        LobbyBounds {
            first_byte_deadline: self.first_byte_deadline,
            waiting_max: self.waiting_max,
            waiting_per_source_max: self.waiting_per_source_max,
        }
    }
}

impl Default for SessionLimits {
    fn default() -> Self {
        let protocol = limits::SessionLimits::default();
        Self {
            quic: true,
            quic_idle: Duration::from_secs(75),
            client_certificate: ClientCertificate::Required,
            sessions_max: 100_000,
            unauthenticated_max: 10_000,
            handshakes_max: 1024,
            handshakes_per_source_max: 512,
            quic_handshakes_max: 1024,
            quic_handshakes_per_source_max: 512,
            first_byte_deadline: Duration::from_secs(3),
            waiting_max: 8192,
            waiting_per_source_max: 1024,
            backlog: 4096,
            tls_deadline: Duration::from_secs(10),
            upgrade_deadline: Duration::from_secs(10),
            hello_deadline: protocol.hello_deadline,
            ping_interval: protocol.ping_interval,
            dead_after: protocol.dead_after,
            write_deadline: Duration::from_secs(30),
            message_bytes_max: 1 << 20,
            queue_bytes_max: u64::try_from(protocol.outbound_bytes_max).unwrap_or(u64::MAX),
            unsent_bytes_max: 64 << 20,
            results_credit: protocol.results_credit_bytes,
            events_credit: protocol.events_credit_bytes,
            ungreeted_per_device_max: 4,
            retry_after: Duration::from_secs(30),
        }
    }
}

impl Default for OperatorLimits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            connections_per_certificate_max: 64,
            handshakes_max: 64,
            handshakes_per_source_max: 32,
            first_byte_deadline: Duration::from_secs(3),
            waiting_max: 512,
            waiting_per_source_max: 128,
            streams_max: 128,
            message_bytes_max: 4 << 20,
            header_bytes_max: 16 << 10,
            call_deadline: Duration::from_secs(60),
            tls_deadline: Duration::from_secs(10),
        }
    }
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            batch_items_max: 1000,
            queue_items_max: 8192,
            shard_messages_max: 4096,
            disk_reserve: 256 << 20,
            blocked_max: 10_000,
            stops_max: 10_000,
            policy_asks_per_second: 1_000,
            unauthenticated_max: 20_000,
            unauthenticated_new_per_minute: 600,
            unauthenticated_events_per_minute: 6_000,
            aggregates_max: 2,
            aggregate_rows_max: 1_000_000,
            aggregate_memory: 256 << 20,
            aggregate_answer_rows_max: 10_000,
            aggregate_deadline: Duration::from_secs(20),
            prepared_ttl: Duration::from_secs(600),
        }
    }
}

impl Default for ShutdownLimits {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(10),
            send_away_within: Duration::from_secs(3),
            reconnect_spread: Duration::from_secs(30),
        }
    }
}
