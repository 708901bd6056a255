//! [`Met`]: issuing CAs that nobody named, and that verified chains lead over. A root vouches for each, so their CRLs count as those
//! of named ones do: whoever trusts roots only learns of what their issuing CAs revoke all the same.

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

    /// Takes all of them.
    pub(super) fn take(&self) -> Vec<Vec<Certificate>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the CAs that were met `before` and those of `paths`, at most `max`, and what to tell of one beyond that. One that has
/// ended stays, for documents that are judged by their timestamp, until another one that has not needs its place.
pub(super) fn all<'a>(
    before: impl Iterator<Item = &'a Certificate>,
    paths: &[Vec<Certificate>],
    max: usize,
    now: UnixTime,
) -> (Vec<Certificate>, Option<String>) {
    let mut met: Vec<Certificate> = before.cloned().collect();
    let mut beyond = None;
    for authority in paths.iter().flat_map(|path| path.iter().skip(1)) {
        if authority.is_self_signed() || met.contains(authority) {
            continue;
        }
        if met.len() >= max && authority.not_after() >= now {
            make_room(&mut met, now);
        }
        if met.len() < max {
            tracing::info!(
                issuer = authority.subject(),
                "an issuing CA is taken up: its CRL counts from now on"
            );
            met.push(authority.clone());
        } else {
            beyond = Some(format!(
                "verified chains led over more than {max} issuing CAs, {} is one too many: its CRL is not known; name it in `revocation.issuers`, or raise `revocation.met_max`",
                authority.subject()
            ));
        }
    }
    (met, beyond)
}

/// Takes out the CA that ended first, if any has ended.
fn make_room(met: &mut Vec<Certificate>, now: UnixTime) {
    let ended = met.iter().enumerate().filter(|(_, known)| known.not_after() < now);
    if let Some((index, _)) = ended.min_by_key(|(_, known)| known.not_after()) {
        let gone = met.remove(index);
        tracing::warn!(
            issuer = gone.subject(),
            "an issuing CA that has ended makes room for another: what it revoked is not known any more; raise `revocation.met_max`"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_pki::authority::Authority;

    use super::*;

    #[test]
    fn r1_as_many_issuing_cas_are_taken_up_as_allowed_and_one_more_is_told() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let year = Duration::from_secs(365 * 86_400);
        let root = Authority::root("root", year, now).unwrap();
        let authority = |name: &str| root.issue_authority(name, year, now).unwrap().certificate().clone();
        let (one, two, three) = (authority("one"), authority("two"), authority("three"));
        let path =
            |issuing: &Certificate| vec![authority("leaf"), issuing.clone(), root.certificate().clone()];
        let waiting = Met::default();

        let pushed = [path(&two), path(&two), path(&three), path(&one)].map(|path| waiting.push(&path, 2));
        let (met, beyond) = all([&one].into_iter(), &waiting.take(), 2, now);

        assert_eq!(pushed, [true, false, true, false]);
        assert_eq!(met, [one, two]);
        assert!(beyond.is_some_and(|told| told.contains("CN=three") && told.contains("revocation.met_max")));
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

        let (room, _) = all(before.into_iter(), &path(&good), 3, later);
        let (place, _) = all(before.into_iter(), &path(&good), 2, later);
        let (none, beyond) = all(before.into_iter(), &path(&authority("third", 1)), 2, later);

        assert_eq!(room, [second.clone(), first.clone(), good.clone()]);
        assert_eq!(place, [second.clone(), good]);
        assert_eq!(none, [second, first]);
        assert!(beyond.is_some());
    }
}
