//! [`Slots`]: which fetches go on at once, so that a server that is slow holds back nobody but itself (R1). Pure.

/// The places for fetches. Of them, a server has a share; and those that failed at their last try have half, so that however
/// many servers hang, those that answered keep places of their own.
#[derive(Debug)]
pub(super) struct Slots<K> {
    places: usize,
    per_server: usize,
    taken: Vec<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    key: K,
    server: String,
    has_failed: bool,
}

impl<K: PartialEq> Slots<K> {
    /// Makes places, at least one.
    pub(super) fn new(places: usize, per_server: usize) -> Self {
        Self { places: places.max(1), per_server: per_server.max(1), taken: Vec::new() }
    }

    /// Returns whether a fetch from this server may begin; `has_failed`: its last one did.
    pub(super) fn has_room(&self, server: &str, has_failed: bool) -> bool {
        let count = |wanted: &dyn Fn(&Taken<K>) -> bool| self.taken.iter().filter(|one| wanted(one)).count();
        let of_failed = (self.places / 2).max(1);
        self.taken.len() < self.places
            && count(&|one| one.server == server) < self.per_server
            && (!has_failed || count(&|one| one.has_failed) < of_failed)
    }

    /// A fetch has begun.
    pub(super) fn take(&mut self, key: K, server: &str, has_failed: bool) {
        self.taken.push(Taken { key, server: server.to_owned(), has_failed });
    }

    /// It has ended.
    pub(super) fn give_back(&mut self, key: &K) {
        self.taken.retain(|one| one.key != *key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_a_server_has_no_more_than_its_share_of_the_places() {
        let mut slots = Slots::new(4, 2);
        slots.take(1, "http://slow", false);
        slots.take(2, "http://slow", false);

        let (slow, other) = (slots.has_room("http://slow", false), slots.has_room("http://other", false));
        slots.give_back(&1);

        assert_eq!((slow, other), (false, true));
        assert!(slots.has_room("http://slow", false));
    }

    #[test]
    fn r1_servers_that_failed_leave_half_of_the_places_to_those_that_answer() {
        let mut slots = Slots::new(4, 2);
        slots.take(1, "http://a", true);
        slots.take(2, "http://b", true);

        let (failed, sound) = (slots.has_room("http://c", true), slots.has_room("http://d", false));
        slots.take(3, "http://d", false);
        slots.take(4, "http://e", false);

        assert_eq!((failed, sound), (false, true));
        assert!(!slots.has_room("http://f", false), "there are four places in all");
        [1, 2, 3, 4].iter().for_each(|key| slots.give_back(key));
        assert!(slots.has_room("http://f", true));
    }

    #[test]
    fn r1_one_place_is_for_everybody() {
        let slots: Slots<u32> = Slots::new(1, 1);

        assert!(slots.has_room("http://a", true) && slots.has_room("http://a", false));
    }
}
