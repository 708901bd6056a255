//! What is trusted, and by whom: envelopes, definitions, orders, licence, audiences.
//!
//! The central rule: root on the Switch cannot make a client run anything that its authors and operators did not sign.
//! Bytes and `now` go in, a verdict comes out; this crate opens no file, socket or clock. The CMS structures come from
//! the `cms` crate, which has no verifier: ours is [`envelope`], and `openssl cms` judges it in the tests. Where
//! a timestamp token (RFC 3161) proves when a signature was made, it outlives its certificate: [`timestamp`].
//!
//! Start with [`admit`], which is everything a client checks (`spec/signing.md`, G8). What it calls, each on its own:
//! [`envelope`] (who signed these bytes), [`definition`] (what may be run), [`licence`] (under which names),
//! [`order`] (which of it, when), [`audience`] and [`merkle`] (for whom). [`policy`] stands beside it: where clients connect; [`pack`], too: how
//! definitions and their resources travel together, and [`exchange`]: a list of such packs.

pub mod admit;
mod algorithm;
pub mod approval;
mod attributes;
pub mod audience;
pub mod definition;
pub mod envelope;
pub mod exchange;
#[cfg(test)]
mod fixture;
mod hidden;
pub mod licence;
pub mod merkle;
pub mod moment;
pub mod order;
pub mod pack;
mod path;
pub mod policy;
pub mod timestamp;
