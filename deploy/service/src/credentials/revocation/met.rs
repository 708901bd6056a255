//! [`Met`]: issuing CAs that nobody named, and that verified chains lead over. A root vouches for each, so their CRLs count as those
//! of named ones do: whoever trusts roots only learns of what their issuing CAs revoke all the same.

use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError};

use muster_pki::{Certificate, UnixTime};

/// Verified paths over such CAs, until the next look at the files takes them up.
#[derive(Debug, Default)]
pub(super) struct Met(Mutex<Vec<Vec<Certificate>>>);

impl Met {
    /// Keeps a path, leaf first and root last; returns whether it is new. At most `max` wait.
    pub(super) fn push(&self, path: &[Certificate], max: usize) -> bool {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = paths.len() < max && paths.iter().all(|known| known.get(1..) != path.get(1..));
        if is_new {
            paths.push(path.to_vec());
        }
        is_new
    }

    /// Puts paths back that could not be looked at, before those that came since; at most `max` wait.
    pub(super) fn put_back(&self, mut taken: Vec<Vec<Certificate>>, max: usize) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.append(&mut paths);
        taken.truncate(max);
        *paths = taken;
    }

    /// Takes all of them.
    pub(super) fn take(&self) -> Vec<Vec<Certificate>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the CAs that were met `before` and those of `paths`, at most `max`. One that has ended stays, for documents that are judged
/// by their timestamp, until another one that has not needs its place.
pub(super) fn all<'a>(
    before: impl Iterator<Item = &'a Certificate>,
    paths: &[Vec<Certificate>],
    max: usize,
    now: UnixTime,
) -> Vec<Certificate> {
    let mut met: Vec<Certificate> = before.take(max).cloned().collect();
    for authority in paths.iter().flat_map(|path| path.iter().skip(1)) {
        if authority.is_self_signed() || met.contains(authority) {
            continue;
        }
        if met.len() >= max && !has_ended(authority, now) {
            let ended = met.iter().enumerate().filter(|(_, known)| has_ended(known, now));
            let first = ended.min_by_key(|(_, known)| known.not_after()).map(|(index, _)| index);
            first.into_iter().for_each(|index| drop(met.remove(index)));
        }
        if met.len() < max {
            met.push(authority.clone());
        }
    }
    met
}

/// Parts the CAs that roots vouch for into `max` that are taken up and those for which there is no room: those come first that have
/// not ended, then those that ended last.
pub(super) fn parted(
    mut vouched: Vec<Certificate>,
    max: usize,
    now: UnixTime,
) -> (Vec<Certificate>, Vec<Certificate>) {
    // Stable: who was met first stays.
    vouched.sort_by_key(|authority| has_ended(authority, now).then(|| Reverse(authority.not_after())));
    let beyond = vouched.split_off(vouched.len().min(max));
    (vouched, beyond)
}

/// Of CAs that a chain led over and that cannot be taken up, keeps those whose issuers are all known by name: the roots of others are
/// gone, or they themselves have ended.
pub(super) fn with_issuers(
    mut untaken: Vec<Certificate>,
    configured: &[&Certificate],
    now: UnixTime,
) -> Vec<Certificate> {
    untaken.retain(|authority| !has_ended(authority, now));
    loop {
        let names: Vec<Vec<u8>> = configured
            .iter()
            .copied()
            .chain(&untaken)
            .map(|authority| authority.subject_der().to_vec())
            .collect();
        let before = untaken.len();
        untaken.retain(|authority| names.iter().any(|name| name == authority.issuer_der()));
        if untaken.len() == before {
            return untaken;
        }
    }
}

pub(super) fn has_ended(authority: &Certificate, now: UnixTime) -> bool {
    authority.not_after() < now
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_pki::authority::Authority;

    use super::*;

    #[test]
    fn r1_as_many_issuing_cas_are_taken_up_as_allowed_and_the_others_are_known() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let year = Duration::from_secs(365 * 86_400);
        let root = Authority::root("root", year, now).unwrap();
        let authority = |name: &str| root.issue_authority(name, year, now).unwrap().certificate().clone();
        let (one, two, three) = (authority("one"), authority("two"), authority("three"));
        let path =
            |issuing: &Certificate| vec![authority("leaf"), issuing.clone(), root.certificate().clone()];
        let waiting = Met::default();

        let pushed = [path(&two), path(&two), path(&three), path(&one)].map(|path| waiting.push(&path, 2));
        let taken = waiting.take();
        let (met, beyond) = parted(all([&one].into_iter(), &taken, 4, now), 2, now);
        let full = all([&one].into_iter(), &taken, 2, now);
        waiting.put_back(taken, 1);

        assert_eq!(pushed, [true, false, true, false]);
        assert_eq!((met, full), (vec![one.clone(), two.clone()], vec![one, two]));
        assert_eq!(beyond, [three]);
        assert_eq!(waiting.take().len(), 1);
        assert!(waiting.take().is_empty());
    }

    #[test]
    fn r1_an_issuing_ca_that_has_ended_stays_until_one_that_has_not_needs_its_place() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let day = Duration::from_secs(86_400);
        let root = Authority::root("root", day * 365, now).unwrap();
        let authority =
            |name: &str, days| root.issue_authority(name, day * days, now).unwrap().certificate().clone();
        let (first, second, good) = (authority("first", 2), authority("second", 3), authority("good", 99));
        let path = |issuing: &Certificate| vec![vec![authority("leaf", 1), issuing.clone()]];
        let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 10 * 86_400));
        let before = [&second, &first];

        let room = all(before.into_iter(), &path(&good), 3, later);
        let place = all(before.into_iter(), &path(&good), 2, later);
        let none = all(before.into_iter(), &path(&authority("third", 1)), 2, later);
        let (taken, beyond) = parted(room.clone(), 2, later);

        assert_eq!(room, [second.clone(), first.clone(), good.clone()]);
        assert_eq!(place, [second.clone(), good.clone()]);
        assert_eq!(none, [second.clone(), first.clone()]);
        assert_eq!((taken, beyond), (vec![good, second], vec![first]));
    }

    #[test]
    fn r1_what_cannot_be_taken_up_is_forgotten_with_its_root_and_its_end() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let day = Duration::from_secs(86_400);
        let root = Authority::root("root", day * 365, now).unwrap();
        let upper = root.issue_authority("upper", day * 99, now).unwrap();
        let lower = upper.issue_authority("lower", day * 9, now).unwrap();
        let both = || vec![lower.certificate().clone(), upper.certificate().clone()];
        let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 10 * 86_400));

        assert_eq!(with_issuers(both(), &[root.certificate()], now), both());
        assert_eq!(with_issuers(both(), &[root.certificate()], later), [upper.certificate().clone()]);
        assert!(with_issuers(both(), &[], now).is_empty());
    }
}
