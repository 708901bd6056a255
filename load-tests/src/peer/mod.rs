//! Peers: servers that carry messages to many sessions as the Switch does, for the same work in the same run.
//!
//! Both are spoken to over WebSocket and TLS 1.3 with a client certificate, in just as much of their protocols as the work
//! needs: [`nats`] and [`mqtt`] are the codecs, [`session`] is a connection, [`server`] starts and ends the
//! programs, [`collector`] takes what devices answer.

pub(crate) mod collector;
mod device;
pub(crate) mod mqtt;
pub(crate) mod nats;
pub(crate) mod server;
pub(crate) mod session;

pub(crate) use device::PeerDevice;
