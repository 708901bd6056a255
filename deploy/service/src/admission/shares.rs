//! [`Shares`] and [`Places`]: how many of something there are, of each one and in all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many of something each key has, and no more than it may. A key that has none takes no memory.
#[derive(Debug)]
pub struct Shares<K: Eq + Hash> {
    held: Mutex<HashMap<K, u32>>,
    each_max: u32,
}

/// One of them; dropped, its key may have another.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    of: Arc<Shares<K>>,
    key: K,
}

/// Shares of a whole that is bounded, too, such as the connections of a listener.
#[derive(Debug)]
pub struct Places<K: Eq + Hash> {
    all: Arc<Semaphore>,
    max: usize,
    shares: Arc<Shares<K>>,
}

/// One of the places; dropped, it is free.
#[derive(Debug)]
pub struct Taken<K: Eq + Hash> {
    _share: Option<Share<K>>,
    _of_all: OwnedSemaphorePermit,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The key has all that it may.
    Share,
    /// All are taken.
    All,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// Lets each key have `each_max`.
    #[must_use]
    pub fn new(each_max: u32) -> Arc<Self> {
        Arc::new(Self { held: Mutex::new(HashMap::new()), each_max })
    }

    /// Returns how many a key has.
    pub fn count(&self, key: &K) -> u32 {
        self.held().get(key).copied().unwrap_or_default()
    }

    /// Takes one more for a key; `None` if it has all that it may.
    pub fn take(self: &Arc<Self>, key: K) -> Option<Share<K>> {
        let mut held = self.held();
        let count = held.get(&key).copied().unwrap_or_default();
        if count >= self.each_max {
            return None;
        }
        held.insert(key.clone(), count + 1);
        drop(held);
        Some(Share { of: Arc::clone(self), key })
    }
}

impl<K: Eq + Hash> Shares<K> {
    fn held(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// Has `max` places, of which each key may have `each_max`.
    #[must_use]
    pub fn new(max: u32, each_max: u32) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(max)), max, shares: Shares::new(each_max) }
    }

    /// Returns how many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.max.saturating_sub(self.all.available_permits())
    }

    /// Returns how many a key has taken.
    pub fn taken_by(&self, key: &K) -> u32 {
        self.shares.count(key)
    }

    /// Takes a place; who has no key has no share either, and is bounded by the whole.
    ///
    /// # Errors
    /// Which bound bites.
    pub fn take(&self, key: Option<K>) -> Result<Taken<K>, Full> {
        let share = key.map(|key| self.shares.take(key).ok_or(Full::Share)).transpose()?;
        let of_all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| Full::All)?;
        Ok(Taken { _share: share, _of_all: of_all })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.of.held();
        match held.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(held.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_its_share_leaves_room_for_others_and_gets_it_back() {
        let shares = Shares::new(2);
        let held = [shares.take("one"), shares.take("one")];

        let beyond = shares.take("one");
        let others = shares.take("other");
        drop(held);
        let again = shares.take("one");

        assert!(beyond.is_none());
        assert!(others.is_some() && again.is_some());
        drop((others, again));
        assert!(shares.held().is_empty(), "nothing is kept of one that is gone");
    }

    #[test]
    fn the_whole_bounds_those_without_a_share_too_and_a_refused_one_holds_nothing() {
        let places = Places::new(2, 1);
        let first = places.take(Some("one")).unwrap();

        assert_eq!((places.taken_by(&"one"), places.taken_by(&"other")), (1, 0));
        assert_eq!(places.take(Some("one")).unwrap_err(), Full::Share);
        let second = places.take(None).unwrap();
        assert_eq!(places.take(Some("other")).unwrap_err(), Full::All);
        drop(first);

        assert!(places.take(Some("other")).is_ok());
        drop(second);
    }
}
