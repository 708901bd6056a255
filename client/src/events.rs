//! Events that the client or a local program adds.

use std::collections::BTreeSet;

use muster_proto::common::v1::NamedValue;
use muster_proto::frame::{self, FrameError};
use muster_proto::session::v1::{Event, Frame, frame::Body};

use crate::clock;
use crate::store::{Store, StoreError, event_record};

/// There is no certificate to show: of the whole client, or of a download that waits for one (S6).
pub(crate) const CERTIFICATE_MISSING: &str = "certificate.missing";

/// There is one again.
pub(crate) const CERTIFICATE_RECOVERED: &str = "certificate.recovered";

/// A stop came that does not verify here, or whose window is not open.
pub(crate) const STOP_REFUSED: &str = "stop.refused";

/// The licence should have had a successor by now, and none came (G6).
pub(crate) const LICENCE_OVERDUE: &str = "licence.overdue";

/// Something came as an order that does not even claim to be of an instruction.
pub(crate) const ORDER_UNREADABLE: &str = "order.unreadable";

/// The longest reason in an event, in characters; a field has room for more.
pub(crate) const REASON_CHARS_MAX: usize = 1_000;

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// It breaks a bound of the protocol.
    #[error("not an event: {0}")]
    Invalid(#[from] FrameError),
    /// Two fields have one name, and readers would differ on which of them counts.
    #[error("field {0:?} stands twice; name each field once")]
    Twice(String),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Appends an event; it is on disk when this returns its sequence.
pub(crate) async fn post(store: &Store, name: &str, fields: Vec<NamedValue>) -> Result<u64, PostError> {
    let now_ms = clock::wall_ms();
    let event = event_record(now_ms, name, fields);
    distinct(&event)?;
    check(event.clone())?;
    Ok(store.write(move |tables| tables.append_event(event, now_ms)).await?)
}

fn distinct(event: &Event) -> Result<(), PostError> {
    let mut names = BTreeSet::new();
    match event.fields.iter().find(|field| !names.insert(&field.name)) {
        Some(twice) => Err(PostError::Twice(twice.name.clone())),
        None => Ok(()),
    }
}

/// Refuses what a Switch would refuse, before it gets a number.
fn check(event: Event) -> Result<(), FrameError> {
    let body = Body::Event(Event { sequence: 1, ..event });
    frame::check(&Frame { body: Some(body), proof: None })
}
