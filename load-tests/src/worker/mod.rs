//! Worker processes: a fleet is spread over them, since one process may hold only so many descriptors, and since the load
//! is to have other cores than the server.
//!
//! A worker takes one JSON command a line on standard input and answers one JSON object a line on standard output
//! ([`protocol`]). It ends when its standard input ends. [`process`] is the worker, [`fleet`] the coordinator's side.

pub(crate) mod fleet;
pub(crate) mod process;
pub(crate) mod protocol;
pub(crate) mod tally;
mod unit;
