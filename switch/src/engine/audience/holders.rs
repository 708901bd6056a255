//! [`Holders`]: the devices that have a value, which of many values is one alone.

use roaring::RoaringBitmap;

/// Who has a value. What differs from device to device, such as a host's name, has as many values as there are devices: a bitmap for each would
/// be the most of what the Switch keeps of a device.
#[derive(Debug, Default)]
pub(super) enum Holders {
    /// Nobody.
    #[default]
    None,
    /// This one.
    One(u32),
    /// Two or more.
    Many(Box<RoaringBitmap>),
}

impl Holders {
    pub(super) fn insert(&mut self, device: u32) {
        match self {
            Self::None => *self = Self::One(device),
            Self::One(held) if *held == device => {}
            Self::One(held) => *self = Self::Many(Box::new([*held, device].into_iter().collect())),
            Self::Many(held) => {
                held.insert(device);
            }
        }
    }

    pub(super) fn remove(&mut self, device: u32) {
        match self {
            Self::One(held) if *held == device => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(held) => {
                held.remove(device);
                if let (1, Some(last)) = (held.len(), held.min()) {
                    *self = Self::One(last);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Returns those of `devices` that are among them.
    pub(super) fn among(&self, devices: &RoaringBitmap) -> RoaringBitmap {
        match self {
            Self::One(held) if devices.contains(*held) => std::iter::once(*held).collect(),
            Self::None | Self::One(_) => RoaringBitmap::new(),
            Self::Many(held) => devices & &**held,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_those_that_came_and_did_not_go(
            steps in prop::collection::vec((any::<bool>(), 0_u32..4), 0..30),
            asked in prop::collection::btree_set(0_u32..4, 0..4),
        ) {
            let (mut holders, mut wanted) = (Holders::default(), BTreeSet::new());
            for (comes, device) in steps {
                if comes {
                    holders.insert(device);
                    wanted.insert(device);
                } else {
                    holders.remove(device);
                    wanted.remove(&device);
                }
                prop_assert_eq!(holders.is_empty(), wanted.is_empty());
                prop_assert_eq!(matches!(holders, Holders::One(_)), wanted.len() == 1);
            }

            let among: BTreeSet<u32> = holders.among(&asked.iter().copied().collect()).into_iter().collect();

            prop_assert_eq!(among, &wanted & &asked);
        }
    }
}
