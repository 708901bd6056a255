//! [`Serial`] and the set of those that a CRL lists: 33 bytes an entry, exact, one look-up whatever its size (R7).
//!
//! Serial numbers lie sorted in one array, so that two CRLs are compared by a merge (R3). A table of 32-bit slots with open
//! addressing leads into it: each slot is the position in the array and a few bits of the hash, so that a look-up which
//! finds nothing hardly ever touches the array.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

/// Longest serial number in bytes: RFC 5280 §4.1.2.2 allows 20, and CAs that count without the sign need one more.
pub const SERIAL_BYTES_MAX: usize = 21;

/// Most entries of one CRL. A list of [`super::CRL_BYTES_MAX`] bytes has room for 3.4 million of the shortest, so this bounds
/// the width of a position in the table.
pub const CRL_ENTRIES_MAX: usize = (1 << POSITION_BITS) - 1;

/// Bits of a slot that are the position; the others are bits of the hash.
const POSITION_BITS: u32 = 22;

/// A slot that leads nowhere. No entry has it: its position would be [`CRL_ENTRIES_MAX`].
const EMPTY: u32 = u32::MAX;

/// One key for all tables of the process. It is random so that a CA cannot choose serial numbers that fall into one slot.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A certificate's serial number, without an allocation of its own.
///
/// It is kept as a number, with the sign in front; so two are equal if the numbers are, and their order is that of the bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; SERIAL_BYTES_MAX]);

impl Serial {
    /// Takes the content of a DER INTEGER, as [`crate::Certificate::serial`] returns it; `None` if it is empty or longer than
    /// any certificate's.
    #[must_use]
    pub fn new(content: &[u8]) -> Option<Self> {
        let sign = if content.first()? & 0x80 == 0 { 0x00 } else { 0xff };
        let mut bytes = [sign; SERIAL_BYTES_MAX];
        let front = SERIAL_BYTES_MAX.checked_sub(content.len())?;
        bytes.get_mut(front..)?.copy_from_slice(content);
        Some(Self(bytes))
    }

    /// Returns the number as [`crate::Certificate::serial`] does: big-endian, two's complement, without superfluous bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let mut bytes = self.0.as_slice();
        while let [first @ (0x00 | 0xff), rest @ ..] = bytes
            && let Some(second) = rest.first()
            && (first ^ second) & 0x80 == 0
        {
            bytes = rest;
        }
        bytes
    }
}

impl fmt::Display for Serial {
    /// Writes lower-case hex, as [`crate::Certificate::serial_hex`] does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

/// A serial number and its hash: computed once, looked up in many sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    serial: Serial,
    hash: u64,
}

impl Key {
    pub(super) fn of(serial: Serial) -> Self {
        Self { serial, hash: HASHER.hash_one(serial.0) }
    }

    /// Returns where the search begins among so many slots.
    fn home(&self, slots: u32) -> usize {
        let scaled = ((self.hash >> 32) * u64::from(slots)) >> 32;
        usize::try_from(scaled).unwrap_or(0)
    }

    /// Returns the bits of a slot that are not its position; the low ones of the hash, since the high ones choose the slot.
    fn tag(&self) -> u32 {
        let low = u32::try_from(self.hash & u64::from(u32::MAX >> POSITION_BITS)).unwrap_or(0);
        low << POSITION_BITS
    }
}

/// What a CRL says of one serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) serial: Serial,
    /// Unix seconds, big-endian: bytes, so that an entry has no padding, and the earlier time is the lesser.
    since: [u8; 4],
}

impl Entry {
    /// An entry that is revoked since then, in Unix seconds; 0: since ever.
    pub(super) const fn new(serial: Serial, since: u32) -> Self {
        Self { serial, since: since.to_be_bytes() }
    }

    /// Returns since when it is revoked, in Unix seconds; 0: since ever.
    pub(super) const fn since(&self) -> u32 {
        u32::from_be_bytes(self.since)
    }

    /// Takes another time, if it is earlier.
    pub(super) fn also_since(&mut self, since: u32) {
        self.since = self.since.min(since.to_be_bytes());
    }
}

/// The serial numbers that a CRL lists, and since when each is revoked.
pub(super) struct SerialSet {
    sorted: Box<[Entry]>,
    /// Twice as many as serial numbers: a search ends after 1.5 slots if there is one and after 2.5 if there is none.
    slots: Box<[u32]>,
}

impl SerialSet {
    /// Takes at most [`CRL_ENTRIES_MAX`] entries; of those with one serial number, the earliest time stays.
    pub(super) fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable();
        entries.dedup_by_key(|entry| entry.serial);
        let sorted = entries.into_boxed_slice();
        let mut set = Self { slots: vec![EMPTY; sorted.len() * 2].into_boxed_slice(), sorted };
        for (position, entry) in (0_u32..).zip(&set.sorted) {
            let key = Key::of(entry.serial);
            let from = key.home(width(&set.slots));
            let (before, behind) = set.slots.split_at_mut(from);
            let free = behind.iter_mut().chain(before).find(|slot| **slot == EMPTY);
            if let Some(slot) = free {
                *slot = key.tag() | position;
            }
        }
        set
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.position(key).is_some()
    }

    /// Returns since when the serial number is revoked, in Unix seconds; `None` if it is not listed.
    pub(super) fn since(&self, key: &Key) -> Option<u32> {
        self.sorted.get(self.position(key)?).map(Entry::since)
    }

    fn position(&self, key: &Key) -> Option<usize> {
        let (before, behind) = self.slots.split_at(key.home(width(&self.slots)));
        behind.iter().chain(before).take_while(|slot| **slot != EMPTY).find_map(|slot| {
            let is_candidate = slot >> POSITION_BITS == key.tag() >> POSITION_BITS;
            let position = usize::try_from(slot & (EMPTY >> (u32::BITS - POSITION_BITS))).ok()?;
            (is_candidate && self.sorted.get(position)?.serial == key.serial).then_some(position)
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Returns the entries, the lowest bytes of serial numbers first.
    pub(super) const fn sorted(&self) -> &[Entry] {
        &self.sorted
    }
}

/// Returns the number of slots, which [`CRL_ENTRIES_MAX`] bounds.
fn width(slots: &[u32]) -> u32 {
    u32::try_from(slots.len()).unwrap_or(0)
}

impl fmt::Debug for SerialSet {
    /// A million serial numbers help nobody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SerialSet({} entries)", self.len())
    }
}

/// Returns the serial numbers that `new` has and `old` has not, both sorted, in one pass over both.
pub(super) fn added<'a>(old: &'a [Entry], new: &'a [Entry]) -> impl Iterator<Item = Serial> + 'a {
    let mut old = old;
    new.iter().map(|entry| entry.serial).filter(move |serial| {
        while let Some((first, rest)) = old.split_first()
            && first.serial < *serial
        {
            old = rest;
        }
        old.first().is_none_or(|first| first.serial != *serial)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn serial(content: &[u8]) -> Serial {
        Serial::new(content).unwrap()
    }

    /// Contents of INTEGERs, short ones often, so that sets overlap.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![prop::collection::vec(any::<u8>(), 1..=2), prop::collection::vec(any::<u8>(), 1..=21)]
    }

    #[test]
    fn a_serial_number_is_its_number_and_not_its_bytes() {
        assert_eq!(serial(&[0x00, 0x05]), serial(&[0x05]));
        assert_ne!(serial(&[0x00, 0x80]), serial(&[0x80]));
        assert_eq!(serial(&[0x00, 0x80]).as_bytes(), [0x00, 0x80]);
        assert_eq!(serial(&[0xff, 0x80]).as_bytes(), [0x80]);
        assert_eq!(serial(&[0x00]).as_bytes(), [0x00]);
        assert_eq!(serial(&[0x7f; 21]).as_bytes(), [0x7f; 21]);
        assert_eq!((Serial::new(&[]), Serial::new(&[1; 22])), (None, None));
    }

    #[test]
    fn slots_have_room_for_the_most_entries_and_bytes_bound_entries_first() {
        const SHORTEST_ENTRY_BYTES: usize = 20;
        let last = u32::try_from(CRL_ENTRIES_MAX).unwrap() - 1;

        assert_ne!((u32::MAX << POSITION_BITS) | last, EMPTY);
        const { assert!(CRL_ENTRIES_MAX * SHORTEST_ENTRY_BYTES > super::super::CRL_BYTES_MAX) };
    }

    proptest! {
        #[test]
        fn r7_a_set_answers_as_a_naive_one_does(
            listed in prop::collection::vec((content(), 0..9_u32), 0..300),
            asked in prop::collection::vec(content(), 0..300),
        ) {
            let listed: Vec<Entry> =
                listed.iter().map(|(content, since)| Entry::new(serial(content), *since)).collect();
            let mut naive: BTreeMap<Serial, u32> = BTreeMap::new();
            for entry in &listed {
                let since = naive.entry(entry.serial).or_insert(entry.since());
                *since = entry.since().min(*since);
            }

            let set = SerialSet::new(listed);

            prop_assert_eq!(set.len(), naive.len());
            for serial in naive.keys().copied().chain(asked.iter().map(|content| serial(content))) {
                prop_assert_eq!(set.since(&Key::of(serial)), naive.get(&serial).copied(), "{}", serial);
                prop_assert_eq!(set.contains(&Key::of(serial)), naive.contains_key(&serial), "{}", serial);
            }
        }

        #[test]
        fn r3_added_is_the_difference_of_sets(
            old in prop::collection::btree_set(content(), 0..100),
            new in prop::collection::btree_set(content(), 0..100),
        ) {
            let sorted = |contents: &BTreeSet<Vec<u8>>| -> BTreeSet<Serial> {
                contents.iter().map(|content| serial(content)).collect()
            };
            let (old, new) = (sorted(&old), sorted(&new));
            // The times differ: they make no entry another one.
            let entries = |serials: &BTreeSet<Serial>, since| -> Vec<Entry> {
                serials.iter().map(|serial| Entry::new(*serial, since)).collect()
            };
            let slices = (entries(&old, 1), entries(&new, 2));

            let found: Vec<Serial> = added(&slices.0, &slices.1).collect();

            prop_assert_eq!(found, new.difference(&old).copied().collect::<Vec<_>>());
        }
    }
}
