//! The time of day, as far as it is believed: see [`muster_service::wall`].
//!
//! Who asks which clock:
//!
//! | question | clock |
//! |---|---|
//! | an order's `not_before` and end, a prepared order's, when an instruction expires, the licence | [`Wall`], by the engine |
//! | the Switch's own certificate, and a peer's in the handshake, after it and while it is connected | [`Wall`] |
//! | when results have been kept long enough | [`Wall`], once it is settled: what is deleted does not come back |
//! | what is stored and shown: when something was accepted, committed, last seen; the time in a Welcome | [`Wall`] |
//! | CRLs for signed documents as they are read, warnings for operators | the system's, [`now_ms`]: nothing ends by it |
//! | the client, for what it runs | its own clock, and the latest time it has stored |

#[cfg(test)]
pub(crate) use muster_service::wall::Reading;
pub(crate) use muster_service::wall::{Wall, millis, now_ms};
