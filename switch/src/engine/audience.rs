//! Which devices an audience holds, by set algebra instead of asking each.
//!
//! Pure. For every attribute it keeps who has which value. An expression reads few attributes, so the devices fall into
//! few groups that look the same to it; the expression is asked once for each group, by its own evaluation and no other.

mod holders;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};

use muster_proto::common::v1::{NamedValue, Value, value::Kind};
use muster_signing::audience::CLIENT_ATTRIBUTES;
use roaring::RoaringBitmap;

use self::holders::Holders;
use super::ledger::unite;

/// Who has which value of which attribute.
#[derive(Debug, Default)]
pub(crate) struct AttributeIndex {
    attributes: BTreeMap<String, Attribute>,
    /// By device: its attributes' names and the slots of their values.
    rows: HashMap<u32, Box<[(u32, u32)]>>,
    /// Names by their number in `rows`; a number without a name is free.
    names: Vec<Option<String>>,
    free: Vec<u32>,
    /// Grows whenever a name comes or goes.
    version: u64,
}

/// Names that the devices of a fleet may have together; those of [`CLIENT_ATTRIBUTES`] are taken beyond it, too. A
/// client's owner chooses further ones, and each costs memory here and a look whenever an audience is written.
const NAMES_MAX: usize = 1_024;

#[derive(Debug, Default)]
struct Attribute {
    number: u32,
    /// (hash of a value, its slot): the value itself, of which a fleet may have as many as devices, is kept once.
    slots: BTreeSet<(u64, u32)>,
    hasher: RandomState,
    values: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    value: Value,
    holders: Holders,
}

/// A value as a key: a real number by its bits.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    Null,
    Integer(i64),
    Real(u64),
    Text(&'a str),
    Blob(&'a [u8]),
}

/// Devices that look the same so far, and how.
type Group = (BTreeMap<String, Value>, RoaringBitmap);

impl AttributeIndex {
    /// Replaces what is known of a device, and returns what was taken of it: an attribute whose name would be one too
    /// many is left out. Each name stands in `attributes` once.
    pub(crate) fn set(&mut self, device: u32, attributes: Vec<NamedValue>) -> Vec<NamedValue> {
        let before = self.release(device);
        let (mut taken, new): (Vec<_>, Vec<_>) =
            attributes.into_iter().partition(|attribute| self.attributes.contains_key(&attribute.name));
        let mut row: Vec<_> = taken.iter().filter_map(|attribute| self.hold(device, attribute)).collect();
        // What the device alone had makes room for what it has instead.
        for number in before {
            self.forget_unheld(number);
        }
        for attribute in new {
            if self.admit(&attribute.name) {
                row.extend(self.hold(device, &attribute));
                taken.push(attribute);
            }
        }
        self.rows.insert(device, row.into_boxed_slice());
        taken.sort_by(|one, other| one.name.cmp(&other.name));
        taken
    }

    /// Forgets a device.
    pub(crate) fn remove(&mut self, device: u32) {
        for number in self.release(device) {
            self.forget_unheld(number);
        }
    }

    /// Returns the names that any device has.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.attributes.keys().map(String::as_str)
    }

    /// Returns a number that is another one whenever a name has come or gone.
    pub(crate) fn names_version(&self) -> u64 {
        self.version
    }

    /// Returns those of `devices` that match, where `matches` reads no attribute but `names`.
    pub(crate) fn select<'a>(
        &self,
        devices: &RoaringBitmap,
        names: impl IntoIterator<Item = &'a str>,
        matches: impl Fn(&BTreeMap<String, Value>) -> bool,
    ) -> RoaringBitmap {
        let mut told: Vec<(&str, &Attribute)> =
            names.into_iter().filter_map(|name| Some((name, self.attributes.get(name)?))).collect();
        told.sort_by_key(|(_, attribute)| attribute.values.len());
        let mut groups: Vec<Group> = vec![(BTreeMap::new(), devices.clone())];
        for (name, attribute) in told {
            groups = groups.into_iter().flat_map(|group| self.split(group, name, attribute)).collect();
        }
        let matching = groups.into_iter().filter(|(values, _)| matches(values));
        matching.fold(RoaringBitmap::new(), |mut all, (_, members)| {
            unite(&mut all, members);
            all
        })
    }

    /// Splits a group by one attribute, at a cost of the fewer of its members and the attribute's values.
    fn split(&self, (known, members): Group, name: &str, attribute: &Attribute) -> Vec<Group> {
        let values = u64::try_from(attribute.values.len()).unwrap_or(u64::MAX);
        let mut parts: BTreeMap<u32, RoaringBitmap> = BTreeMap::new();
        let mut with_value = RoaringBitmap::new();
        if members.len() < values {
            for device in &members {
                let slot =
                    self.rows.get(&device).and_then(|row| row.iter().find(|(at, _)| *at == attribute.number));
                if let Some((_, slot)) = slot {
                    parts.entry(*slot).or_default().insert(device);
                    with_value.insert(device);
                }
            }
        } else {
            for (slot, held) in (0_u32..).zip(&attribute.values) {
                let part = held.holders.among(&members);
                if !part.is_empty() {
                    unite(&mut with_value, part.clone());
                    parts.insert(slot, part);
                }
            }
        }
        let with = |(slot, part): (u32, RoaringBitmap)| {
            let value = attribute.values.get(usize::try_from(slot).ok()?)?.value.clone();
            let mut values = known.clone();
            values.insert(name.to_owned(), value);
            Some((values, part))
        };
        let mut groups: Vec<Group> = parts.into_iter().filter_map(with).collect();
        let rest = members - with_value;
        if !rest.is_empty() {
            groups.push((known, rest));
        }
        groups
    }

    /// Makes the name known, if there is room for it.
    fn admit(&mut self, name: &str) -> bool {
        // Everyone's names cannot be crowded out by somebody's.
        if self.attributes.len() >= NAMES_MAX && !CLIENT_ATTRIBUTES.contains(&name) {
            return false;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.names.push(None);
            u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = usize::try_from(number).ok().and_then(|number| self.names.get_mut(number)) {
            *place = Some(name.to_owned());
        }
        self.attributes.insert(name.to_owned(), Attribute { number, ..Attribute::default() });
        self.version += 1;
        true
    }

    /// Notes a device's value of a name that is known.
    fn hold(&mut self, device: u32, attribute: &NamedValue) -> Option<(u32, u32)> {
        let known = self.attributes.get_mut(&attribute.name)?;
        let slot = known.slot(attribute.value.clone().unwrap_or_default());
        known.values.get_mut(usize::try_from(slot).ok()?)?.holders.insert(device);
        Some((known.number, slot))
    }

    /// Takes a device out of its values; returns the names' numbers.
    fn release(&mut self, device: u32) -> Vec<u32> {
        let row = self.rows.remove(&device).unwrap_or_default();
        for (number, slot) in &row {
            if let Some(name) = self.name(*number).map(ToOwned::to_owned)
                && let Some(attribute) = self.attributes.get_mut(&name)
            {
                attribute.remove(*slot, device);
            }
        }
        row.iter().map(|(number, _)| *number).collect()
    }

    /// Forgets a name that nobody has any more.
    fn forget_unheld(&mut self, number: u32) {
        let Some(name) = self.name(number).map(ToOwned::to_owned) else { return };
        if self.attributes.get(&name).is_some_and(|attribute| attribute.slots.is_empty()) {
            self.attributes.remove(&name);
            if let Some(place) = usize::try_from(number).ok().and_then(|number| self.names.get_mut(number)) {
                *place = None;
            }
            self.free.push(number);
            self.version += 1;
        }
    }

    fn name(&self, number: u32) -> Option<&str> {
        self.names.get(usize::try_from(number).ok()?)?.as_deref()
    }
}

impl Attribute {
    /// Returns the slot of a value, a free or new one on first sight.
    fn slot(&mut self, value: Value) -> u32 {
        let hash = self.hasher.hash_one(Key::of(&value));
        let alike = self.slots.range((hash, 0)..=(hash, u32::MAX)).map(|(_, slot)| *slot);
        if let Some(slot) = alike.into_iter().find(|slot| self.has(*slot, &value)) {
            return slot;
        }
        let made = Slot { value, holders: Holders::default() };
        let reused = self.free.pop().and_then(|slot| Some((slot, usize::try_from(slot).ok()?)));
        let slot = match reused {
            Some((slot, at)) if at < self.values.len() => {
                self.values[at] = made;
                slot
            }
            _ => {
                self.values.push(made);
                u32::try_from(self.values.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.slots.insert((hash, slot));
        slot
    }

    fn has(&self, slot: u32, value: &Value) -> bool {
        let held = usize::try_from(slot).ok().and_then(|at| self.values.get(at));
        held.is_some_and(|held| Key::of(&held.value) == Key::of(value))
    }

    fn remove(&mut self, slot: u32, device: u32) {
        let Some(held) = usize::try_from(slot).ok().and_then(|at| self.values.get_mut(at)) else { return };
        held.holders.remove(device);
        if held.holders.is_empty() {
            self.slots.remove(&(self.hasher.hash_one(Key::of(&held.value)), slot));
            self.free.push(slot);
        }
    }
}

impl<'a> Key<'a> {
    fn of(value: &'a Value) -> Self {
        match &value.kind {
            None => Self::Null,
            Some(Kind::Integer(integer)) => Self::Integer(*integer),
            Some(Kind::Real(real)) => Self::Real(real.to_bits()),
            Some(Kind::Text(text)) => Self::Text(text),
            Some(Kind::Blob(blob)) => Self::Blob(blob),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn selects_whom_asking_each_device_would_select(
            told in proptest::collection::vec((0_u32..40, proptest::collection::btree_map("[abc]", 0_i64..4, 0..3)), 0..120),
            wanted in (0_i64..4, 0_i64..4),
        ) {
            let mut index = AttributeIndex::default();
            let mut devices = BTreeMap::new();
            for (device, attributes) in told {
                index.set(device, attributes.iter().map(|(name, value)| named(name, *value)).collect());
                devices.insert(device, attributes);
            }
            let all: RoaringBitmap = devices.keys().copied().collect();
            let matches = |a: Option<i64>, b: Option<i64>| a == Some(wanted.0) || (b != Some(wanted.1) && a.is_some());

            let selected = index.select(&all, ["a", "b"], |values| matches(integer(values, "a"), integer(values, "b")));

            let asked: RoaringBitmap = devices.iter()
                .filter(|(_, attributes)| matches(attributes.get("a").copied(), attributes.get("b").copied()))
                .map(|(device, _)| *device).collect();
            prop_assert_eq!(selected, asked);
        }
    }

    #[test]
    fn a_value_that_nobody_has_any_more_makes_room() {
        let mut index = AttributeIndex::default();

        for version in 0..100 {
            index.set(1, vec![named("version", version)]);
        }

        assert_eq!(index.attributes["version"].values.len(), 1);
    }

    #[test]
    fn a_name_that_nobody_has_any_more_is_forgotten() {
        let mut index = AttributeIndex::default();
        index.set(1, vec![named("os", 1)]);
        index.set(2, vec![named("os", 1)]);

        for name in 0..3_000 {
            assert_eq!(index.set(1, vec![named(&format!("name{name}"), 1)]).len(), 1);
        }

        assert_eq!(index.names().collect::<Vec<_>>(), ["name2999", "os"]);
        assert_eq!(index.names.len(), 2);
    }

    #[test]
    fn the_same_names_again_are_no_news() {
        let mut index = AttributeIndex::default();
        index.set(1, vec![named("os", 1)]);
        let version = index.names_version();

        index.set(1, vec![named("os", 2)]);
        let same = index.names_version();
        index.set(1, vec![named("arch", 2)]);

        assert_eq!(version, same);
        assert_ne!(version, index.names_version());
    }

    #[test]
    fn names_beyond_the_bound_are_refused_but_never_those_of_every_client() {
        let mut index = AttributeIndex::default();
        for device in 0..40 {
            let names = (0..64).map(|name| named(&format!("{device}.{name}"), 1));
            index.set(device, names.collect());
        }

        let taken = index.set(99, vec![named("more", 1), named("os", 1), named("0.0", 1)]);

        assert_eq!(taken.iter().map(|attribute| &attribute.name[..]).collect::<Vec<_>>(), ["0.0", "os"]);
        assert_eq!(index.names().count(), NAMES_MAX + 1);
    }

    fn named(name: &str, value: i64) -> NamedValue {
        NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(Kind::Integer(value)) }) }
    }

    fn integer(values: &BTreeMap<String, Value>, name: &str) -> Option<i64> {
        match values.get(name)?.kind {
            Some(Kind::Integer(integer)) => Some(integer),
            _ => None,
        }
    }
}
