//! Which results and events of one outbox have been seen.
//!
//! Two roads can overtake each other (session and Background Channel), so a bare high-water mark would drop 40–49
//! posted while 50 came by session: a [`SeenSet`] is a contiguous mark *and* the ranges above it (promises.md).
//! A client that drops events closes the gap by a [`GAP_EVENT`], whose [`gap_ranges`] the Switch hands to [`SeenSet::insert_range`].

use std::collections::BTreeMap;

use prost::Message as _;

use crate::common::v1::value::Kind;
use crate::common::v1::{NamedValue, Value};
use crate::ids::Sequence;
use crate::limits::{ACK_RANGES_MAX, SEEN_RANGES_MAX};
use crate::session::v1::{Event, EventBatchAck, SequenceRange};

/// The event that says which sequences a full outbox has dropped, by its field of [`gap_field`].
///
/// It may have further fields for people, such as how many and how many bytes.
pub const GAP_EVENT: &str = "outbox.gap";

/// The name of the field that [`gap_field`] makes.
const GAP_RANGES: &str = "ranges";

/// Returns the field of a `GAP_EVENT` that names exactly what was dropped: a blob, an encoded `EventBatchAck`.
///
/// First and last alone would not do: results share the numbers, and one that still waits between two dropped
/// events would count as seen and be lost. At most [`ACK_RANGES_MAX`] ranges; more need a further event.
#[must_use]
pub fn gap_field(dropped: &[SequenceRange]) -> NamedValue {
    let ranges = dropped.iter().take(ACK_RANGES_MAX).copied().collect();
    let blob = EventBatchAck { ranges }.encode_to_vec();
    NamedValue { name: GAP_RANGES.to_owned(), value: Some(Value { kind: Some(Kind::Blob(blob)) }) }
}

/// Sequences that one [`GAP_EVENT`] can name at most, taken together.
///
/// An outbox of 64 MiB holds far fewer records; what a gap names beyond leaves one hole, which costs one range.
pub const GAP_SPAN_MAX: u64 = 1 << 24;

/// Returns what a `GAP_EVENT` says was dropped; nothing for any other event, or for one without a readable field.
///
/// What is dropped was numbered before the event that tells of it, so whatever it names from its own sequence on is
/// left out: that is still to come. So is what exceeds [`GAP_SPAN_MAX`].
#[must_use]
pub fn gap_ranges(event: &Event) -> Vec<SequenceRange> {
    let field = event.fields.iter().find(|field| event.name == GAP_EVENT && field.name == GAP_RANGES);
    let Some(Kind::Blob(blob)) = field.and_then(|field| field.value.as_ref()?.kind.as_ref()) else {
        return Vec::new();
    };
    let named = EventBatchAck::decode(&blob[..]).unwrap_or_default().ranges;
    let before = event.sequence.saturating_sub(1);
    let mut left = GAP_SPAN_MAX;
    let clamped = named.into_iter().take(ACK_RANGES_MAX).filter_map(|SequenceRange { first, last }| {
        let last = last.min(before).min(first.saturating_add(left).saturating_sub(1));
        let fits = first > 0 && first <= last;
        left -= if fits { last - first + 1 } else { 0 };
        fits.then_some(SequenceRange { first, last })
    });
    clamped.collect()
}

/// What [`SeenSet::insert`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Fresh {
    /// It was not there: commit it, then ack it.
    New,
    /// It was there: ack it again, don't commit it again.
    Repeated,
    /// It would be a range more than [`SEEN_RANGES_MAX`]: don't commit, don't ack; the client sends it again.
    Full,
}

/// The sequences seen of one (device, outbox_id).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenSet {
    /// Everything from 1 to here was seen.
    mark: u64,
    /// First to last of what was seen beyond; never empty, never touching each other or the mark.
    above: BTreeMap<u64, u64>,
}

impl SeenSet {
    /// Returns a set that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one sequence.
    pub fn insert(&mut self, sequence: Sequence) -> Fresh {
        let number = sequence.value();
        if self.contains(number) {
            return Fresh::Repeated;
        }
        self.merge(number, number)
    }

    /// Adds every sequence of a range, such as one that the client says it has dropped. A range of which all was
    /// there is [`Fresh::Repeated`]; one that is empty or begins at 0 is, too, and changes nothing.
    pub fn insert_range(&mut self, range: SequenceRange) -> Fresh {
        let (first, last) = (range.first, range.last);
        if first == 0 || last < first || self.contains_all(first, last) {
            return Fresh::Repeated;
        }
        self.merge(first, last)
    }

    /// Returns whether the sequence was seen.
    #[must_use]
    pub fn contains(&self, sequence: u64) -> bool {
        self.contains_all(sequence, sequence)
    }

    /// Returns the highest sequence below which nothing is missing; 0 if 1 is.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Returns the highest sequence that was seen; 0 if none was.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.above.last_key_value().map_or(self.mark, |(_, last)| *last)
    }

    /// Returns what was seen beyond the mark, in ascending order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = SequenceRange> + '_ {
        self.above.iter().map(|(first, last)| SequenceRange { first: *first, last: *last })
    }

    /// Encodes the set for a store: varints of the mark, then for each range the distance from the end before and
    /// its length less one.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.above.len() * 4);
        write_varint(&mut bytes, self.mark);
        let mut end = self.mark;
        for (first, last) in &self.above {
            write_varint(&mut bytes, first - end);
            write_varint(&mut bytes, last - first);
            end = *last;
        }
        bytes
    }

    /// Decodes what [`Self::encode`] gave. No bytes at all are the empty set.
    ///
    /// # Errors
    /// [`SeenError`] if the bytes are not a set in its one encoding, or have more than [`SEEN_RANGES_MAX`] ranges.
    pub fn decode(bytes: &[u8]) -> Result<Self, SeenError> {
        let mut rest = bytes;
        if rest.is_empty() {
            return Ok(Self::default());
        }
        let damaged = |rest: &[u8]| SeenError { at: bytes.len() - rest.len() };
        let mark = read_varint(&mut rest).ok_or_else(|| damaged(rest))?;
        let mut above = BTreeMap::new();
        let mut end = mark;
        while !rest.is_empty() {
            let at = rest;
            // A distance of one would touch the range before, which has a shorter encoding.
            let first = read_varint(&mut rest).filter(|gap| *gap >= 2).and_then(|gap| end.checked_add(gap));
            let first = first.ok_or_else(|| damaged(at))?;
            let last =
                read_varint(&mut rest).and_then(|more| first.checked_add(more)).ok_or_else(|| damaged(at))?;
            above.insert(first, last);
            end = last;
            if above.len() > SEEN_RANGES_MAX {
                return Err(damaged(at));
            }
        }
        Ok(Self { mark, above })
    }

    fn contains_all(&self, first: u64, last: u64) -> bool {
        let below_mark = last <= self.mark;
        below_mark || self.above.range(..=first).next_back().is_some_and(|(_, end)| last <= *end)
    }

    /// Adds `first..=last`, of which something is missing, and joins what then touches.
    fn merge(&mut self, first: u64, last: u64) -> Fresh {
        let (mut first, mut last) = (first, last);
        let before = self.above.range(..first).next_back().map(|(start, end)| (*start, *end));
        let joined_before = before.filter(|(_, end)| end.saturating_add(1) >= first);
        let touches_mark = first <= self.mark.saturating_add(1);
        let next = self.above.range(first..).next().map(|(start, _)| *start);
        let joins_next = next.is_some_and(|start| start <= last.saturating_add(1));
        if !touches_mark && joined_before.is_none() && !joins_next && self.above.len() >= SEEN_RANGES_MAX {
            return Fresh::Full;
        }
        if let Some((start, end)) = joined_before {
            self.above.remove(&start);
            (first, last) = (start, last.max(end));
        }
        while let Some((start, end)) = self.above.range(first..).next().map(|(start, end)| (*start, *end)) {
            if start > last.saturating_add(1) {
                break;
            }
            self.above.remove(&start);
            last = last.max(end);
        }
        if touches_mark {
            self.mark = last;
        } else {
            self.above.insert(first, last);
        }
        Fresh::New
    }
}

/// A stored set is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored set of sequences is damaged at byte {at}")]
pub struct SeenError {
    at: usize,
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while let more @ 1.. = value >> 7 {
        bytes.push(0x80 | low_bits(value));
        value = more;
    }
    bytes.push(low_bits(value));
}

fn low_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// Takes a varint off the front; `None` if it is cut short, exceeds 64 bits or is longer than it need be.
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = bytes.get(index + 1..)?;
            return (index == 0 || bits > 0).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
