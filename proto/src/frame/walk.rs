//! A look at a frame's outermost fields before any memory is spent on them.

use super::FrameError;
use crate::limits;

/// Checks that each known field is within its bound and that there is at most one body.
pub(super) fn check_sizes(bytes: &[u8]) -> Result<(), FrameError> {
    let mut at = 0;
    let mut body = None;
    while at < bytes.len() {
        let field = Field::read(bytes, at).ok_or(FrameError::Malformed { at })?;
        if let Some((what, max)) = bound(field.number) {
            if field.length > max {
                return Err(FrameError::TooLarge { what, got: field.length, max });
            }
            let is_body = field.number != PROOF;
            if let (true, Some(first)) = (is_body, body) {
                return Err(FrameError::TwoBodies { first, second: field.number });
            }
            body = is_body.then_some(field.number).or(body);
        }
        at = field.end;
    }
    Ok(())
}

/// Checks that an `EventBatch` has no more events than it may, each within its bound.
pub(super) fn check_batch_sizes(bytes: &[u8]) -> Result<(), FrameError> {
    let (mut at, mut events) = (0, 0_usize);
    while at < bytes.len() {
        let field = Field::read(bytes, at).ok_or(FrameError::Malformed { at })?;
        if field.number == EVENTS {
            events += 1;
            let (got, max) = (field.length, limits::EVENT_BYTES_MAX);
            if got > max {
                return Err(FrameError::TooLarge { what: "an Event", got, max });
            }
        }
        at = field.end;
    }
    let max = limits::EVENT_BATCH_EVENTS_MAX;
    if events > max {
        return Err(FrameError::TooMany { what: "EventBatch.events", got: events, max });
    }
    Ok(())
}

/// The field number of `EventBatch.events`.
const EVENTS: u32 = 2;

/// The field number of `Frame.proof`.
const PROOF: u32 = 100;

/// Returns the name and the largest length of a field of `Frame`; `None` for one this version does not know.
fn bound(number: u32) -> Option<(&'static str, usize)> {
    Some(match number {
        1 => ("a Hello", limits::HELLO_BYTES_MAX),
        2 => ("a Welcome", limits::SMALL_BYTES_MAX),
        3 => ("a Ping", limits::SMALL_BYTES_MAX),
        4 => ("a Pong", limits::SMALL_BYTES_MAX),
        5 => ("an OrderDelivery", limits::ENVELOPE_BYTES_MAX + limits::SMALL_BYTES_MAX),
        6 => ("a Progress", limits::SMALL_BYTES_MAX),
        7 => ("a Result", limits::RESULT_BYTES_MAX),
        8 => ("an Event", limits::EVENT_BYTES_MAX),
        9 => ("an Ack", limits::ACK_BYTES_MAX),
        10 => ("a DocumentRequest", limits::SMALL_BYTES_MAX),
        11 => ("a Document", limits::ENVELOPE_BYTES_MAX + limits::SMALL_BYTES_MAX),
        12 => ("a LicenceNotice", limits::SMALL_BYTES_MAX),
        13 => ("a GoAway", limits::SMALL_BYTES_MAX),
        14 => ("a PolicyCheck", limits::SMALL_BYTES_MAX),
        15 => ("a PolicyNotice", limits::SMALL_BYTES_MAX),
        PROOF => ("an InclusionProof", limits::SMALL_BYTES_MAX),
        _ => return None,
    })
}

/// One outermost field: what its tag says, and where it ends.
struct Field {
    number: u32,
    length: usize,
    end: usize,
}

impl Field {
    /// Reads the field at `at`; `None` if it is not whole, is a group, or its tag is not one of protobuf's.
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let (tag, after_tag) = varint(bytes, at)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
        let (start, length) = match tag & 7 {
            0 => (after_tag, varint(bytes, after_tag)?.1 - after_tag),
            1 => (after_tag, 8),
            2 => {
                let (length, start) = varint(bytes, after_tag)?;
                (start, usize::try_from(length).ok()?)
            }
            5 => (after_tag, 4),
            _ => return None,
        };
        let end = start.checked_add(length).filter(|end| *end <= bytes.len())?;
        Some(Self { number, length, end })
    }
}

/// Reads a varint of at most ten bytes; returns it and where it ends.
fn varint(bytes: &[u8], start: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, byte) in bytes.get(start..)?.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, start + index + 1));
        }
    }
    None
}
