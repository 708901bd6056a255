//! The trust in use, kept current from its files (trust.md R4, R5, R7).
//!
//! What is refused keeps the old: roots as a whole, since roles are compared with each other; revocation lists one by one.
//! A list is verified once for each state of its file and of the roots; unchanged bytes are hashed, not read.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use muster_pki::{CrlError, RevocationIndex, UnixTime};

use super::trust::{Contents, Fingerprint, SigningFiles, SigningRoots, SigningTrust, TrustError};
use crate::metrics as names;

/// What signatures are judged by, as of the last files that were good.
#[derive(Debug)]
pub(crate) struct LiveTrust {
    files: SigningFiles,
    /// A judgement takes the whole of it once.
    current: RwLock<Arc<SigningTrust>>,
    /// Held while the files are read; two readers would undo each other.
    seen: Mutex<Seen>,
}

/// The files as last looked at, whether they were good or not.
#[derive(Debug)]
struct Seen {
    roots: Vec<Fingerprint>,
    roots_problem: Option<TrustError>,
    lists: Vec<SeenList>,
    /// A root was removed, and what it revoked is still held, since a list is refused.
    owes_rebuild: bool,
}

#[derive(Debug)]
struct SeenList {
    fingerprint: Fingerprint,
    problem: Option<TrustError>,
}

/// What became of the files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refreshed {
    /// Newer content is in use, of some file at least.
    pub(crate) is_swapped: bool,
    /// What is refused since this look, and was not at the one before.
    pub(crate) refused: Vec<String>,
}

impl LiveTrust {
    /// Reads the files for the first time; all must be good. Blocks on the disk.
    pub(crate) fn load(files: SigningFiles, now: UnixTime) -> Result<Self, TrustError> {
        let contents = files.read();
        let roots = contents.roots()?;
        let mut revocation = RevocationIndex::default();
        for file in &contents.crls {
            if let Some(error) = file.add_to(&mut revocation, &roots, now).problem {
                return Err(error);
            }
        }
        let lists = contents.crls.iter();
        let seen = Seen {
            roots: contents.roots_fingerprint(),
            roots_problem: None,
            lists: lists.map(|file| SeenList { fingerprint: file.fingerprint(), problem: None }).collect(),
            owes_rebuild: false,
        };
        let current = RwLock::new(Arc::new(SigningTrust { roots, revocation }));
        Ok(Self { files, current, seen: Mutex::new(seen) })
    }

    /// Returns what is in use.
    pub(crate) fn current(&self) -> Arc<SigningTrust> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files and puts to use what is new and good. Blocks on the disk, and verifies signatures.
    pub(crate) fn refresh(&self, now: UnixTime) -> Refreshed {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.problems();
        let contents = self.files.read();
        let newer = seen.take(&contents, &self.current(), now);
        let is_swapped = newer.is_some();
        if let Some(trust) = newer {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
            tracing::info!("changed roots or revocation lists of signers are in use");
        }
        let mut refused = seen.problems();
        metrics::gauge!(names::TRUST_STALE).set(if refused.is_empty() { 0.0 } else { 1.0 });
        refused.retain(|problem| !known.contains(problem));
        for problem in &refused {
            metrics::counter!(names::TRUST_REFUSED).increment(1);
            tracing::warn!(problem, "changed roots or revocation lists of signers are refused; the old stay");
        }
        Refreshed { is_swapped, refused }
    }
}

impl Seen {
    fn problems(&self) -> Vec<String> {
        let lists = self.lists.iter().filter_map(|list| list.problem.as_ref());
        self.roots_problem.iter().chain(lists).map(ToString::to_string).collect()
    }

    /// Returns what takes the place of `before`, if anything good is new.
    fn take(&mut self, contents: &Contents, before: &SigningTrust, now: UnixTime) -> Option<SigningTrust> {
        let mut newer_roots = None;
        let fingerprint = contents.roots_fingerprint();
        if fingerprint != self.roots {
            self.roots = fingerprint;
            match contents.roots() {
                Ok(roots) => (newer_roots, self.roots_problem) = (Some(roots), None),
                Err(error) => self.roots_problem = Some(error),
            }
        }
        let mut is_new = newer_roots.is_some();
        let roots = newer_roots.as_ref().unwrap_or(&before.roots);
        let mut revocation = None;
        for (file, seen) in contents.crls.iter().zip(&mut self.lists) {
            let fingerprint = file.fingerprint();
            if fingerprint == seen.fingerprint && newer_roots.is_none() && !seen.mends_itself() {
                continue;
            }
            seen.fingerprint = fingerprint;
            // From the old index, which knows the number that none may go back behind (R5).
            let index = revocation.get_or_insert_with(|| before.revocation.clone());
            let added = file.add_to(index, roots, now);
            is_new |= added.lists > 0;
            seen.problem = added.problem;
        }
        let is_gone = |root| !roots.iter().any(|kept| kept == root);
        self.owes_rebuild |= newer_roots.is_some() && before.roots.iter().any(is_gone);
        if self.owes_rebuild
            && let Some(rebuilt) = self.rebuild(contents, roots, now)
        {
            (revocation, is_new) = (Some(rebuilt), true);
            self.owes_rebuild = false;
        }
        let roots = newer_roots.unwrap_or_else(|| before.roots.clone());
        let revocation = revocation.unwrap_or_else(|| before.revocation.clone());
        is_new.then_some(SigningTrust { roots, revocation })
    }

    /// Makes the index anew without what removed roots revoked. Not while a list is refused: what it held before would be
    /// lost, and whom it revoked would be trusted again.
    fn rebuild(&self, contents: &Contents, roots: &SigningRoots, now: UnixTime) -> Option<RevocationIndex> {
        let mut index = RevocationIndex::default();
        let is_good = |list: &SeenList| list.problem.is_none();
        let is_whole = self.lists.iter().all(is_good)
            && contents.crls.iter().all(|file| file.add_to(&mut index, roots, now).problem.is_none());
        is_whole.then_some(index)
    }
}

impl SeenList {
    /// Returns whether the same bytes may be good later: a list of the future becomes one of today.
    fn mends_itself(&self) -> bool {
        matches!(self.problem, Some(TrustError::Crl { cause: CrlError::Future { .. }, .. }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use muster_pki::authority::{Authority, Revoked};
    use tempfile::TempDir;

    use super::*;
    use crate::config::TrustConfig;

    const NOW: u64 = 1_800_000_000;

    const SERIAL: &[u8] = &[0x4d];

    #[test]
    fn unchanged_bytes_are_not_verified_again() {
        let lab = Lab::new();
        lab.write("authors.crl", &lab.authors_list(1, SERIAL));
        let trust = lab.load();
        let before = trust.current();

        // A look in the past: a list that was verified again would be one of the future.
        let refreshed = trust.refresh(at(NOW - 365 * 86_400));

        assert_eq!(refreshed, Refreshed { is_swapped: false, refused: Vec::new() });
        assert!(Arc::ptr_eq(&before, &trust.current()));
    }

    #[test]
    fn a_newer_list_is_put_to_use() {
        let lab = Lab::new();
        let trust = lab.load();
        assert!(!lab.is_revoked(&trust));

        lab.write("authors.crl", &lab.authors_list(2, SERIAL));

        assert!(trust.refresh(at(NOW)).is_swapped);
        assert!(lab.is_revoked(&trust));
    }

    #[test]
    fn r5_a_list_whose_number_went_back_is_refused_and_the_old_one_kept() {
        let lab = Lab::new();
        lab.write("authors.crl", &lab.authors_list(2, SERIAL));
        let trust = lab.load();

        lab.write("authors.crl", &lab.authors_list(1, &[0x01]));
        let refreshed = trust.refresh(at(NOW));

        assert!(!refreshed.is_swapped);
        assert!(refreshed.refused.len() == 1 && refreshed.refused[0].contains("is known"), "{refreshed:?}");
        assert!(lab.is_revoked(&trust));
    }

    #[test]
    fn r4_a_bad_file_is_told_once_keeps_its_old_content_and_no_other_file_back() {
        let lab = Lab::new();
        lab.write("authors.crl", &lab.authors_list(1, SERIAL));
        let trust = lab.load();

        lab.write("authors.crl", "no list at all");
        lab.write("orders.crl", &list(&lab.orders, 2, &[0x02]));
        let first = trust.refresh(at(NOW));
        let second = trust.refresh(at(NOW));

        assert!(first.is_swapped && first.refused.len() == 1, "{first:?}");
        assert!(first.refused[0].contains("authors.crl"), "{first:?}");
        assert_eq!(second, Refreshed { is_swapped: false, refused: Vec::new() });
        assert!(lab.is_revoked(&trust));
        assert!(trust.current().revocation.contains(lab.orders.certificate().subject_der(), &[0x02]));
        lab.write("authors.crl", &lab.authors_list(2, SERIAL));
        assert_eq!(trust.refresh(at(NOW)), Refreshed { is_swapped: true, refused: Vec::new() });
    }

    #[test]
    fn a_file_of_bad_roots_keeps_all_roots_and_no_list_back() {
        let lab = Lab::new();
        let trust = lab.load();

        std::fs::remove_file(lab.path("orders.pem")).unwrap();
        lab.write("authors.crl", &lab.authors_list(2, SERIAL));
        let refreshed = trust.refresh(at(NOW));

        assert!(refreshed.is_swapped && refreshed.refused.len() == 1, "{refreshed:?}");
        assert!(refreshed.refused[0].contains("trust.orders"), "{refreshed:?}");
        assert!(lab.is_revoked(&trust) && trust.current().roots.orders.contains(lab.orders.certificate()));
    }

    #[test]
    fn what_a_removed_root_revoked_disappears_with_it() {
        let lab = Lab::new();
        lab.write("authors.crl", &lab.authors_list(1, SERIAL));
        let trust = lab.load();

        lab.write("authors.pem", &root("Other authors").certificate_pem());
        let refreshed = trust.refresh(at(NOW));

        assert_eq!(refreshed, Refreshed { is_swapped: true, refused: Vec::new() });
        assert!(!lab.is_revoked(&trust));
        assert_eq!(trust.current().revocation.len(), 1, "that of the orders' root");
    }

    #[test]
    fn a_removed_root_does_not_free_whom_a_refused_list_revoked() {
        let lab = Lab::new();
        lab.write("authors.crl", &lab.authors_list(1, SERIAL));
        let trust = lab.load();

        let licences = root("Other licences");
        lab.write("licences.pem", &licences.certificate_pem());
        lab.write("authors.crl", "no list at all");
        assert!(trust.refresh(at(NOW)).is_swapped);

        assert!(lab.is_revoked(&trust) && trust.current().roots.licences.contains(licences.certificate()));
    }

    #[test]
    fn lists_of_one_file_stand_alone() {
        let lab = Lab::new();
        let of_nobody_here = list(&root("Servers' issuer"), 1, &[0x03]);

        lab.write("authors.crl", &(of_nobody_here + &lab.authors_list(1, SERIAL)));

        assert!(lab.is_revoked(&lab.load()));
    }

    #[test]
    fn a_list_of_the_future_is_taken_when_its_time_has_come() {
        let lab = Lab::new();
        let trust = lab.load();
        lab.write("authors.crl", &lab.authors_list(2, SERIAL));
        let early = trust.refresh(at(NOW - 86_400));
        assert!(!early.is_swapped && early.refused[0].contains("in the future"), "{early:?}");

        assert!(trust.refresh(at(NOW)).is_swapped);

        assert!(lab.is_revoked(&trust));
    }

    struct Lab {
        folder: TempDir,
        authors: Authority,
        orders: Authority,
    }

    impl Lab {
        /// Four roots, and two lists that revoke something else than [`SERIAL`].
        fn new() -> Self {
            let lab =
                Self { folder: TempDir::new().unwrap(), authors: root("Authors"), orders: root("Orders") };
            lab.write("switch.pem", &root("Switch").certificate_pem());
            lab.write("authors.pem", &lab.authors.certificate_pem());
            lab.write("orders.pem", &lab.orders.certificate_pem());
            lab.write("licences.pem", &root("Licences").certificate_pem());
            lab.write("authors.crl", &lab.authors_list(1, &[0x01]));
            lab.write("orders.crl", &list(&lab.orders, 1, &[0x01]));
            lab
        }

        fn load(&self) -> LiveTrust {
            let trust = TrustConfig {
                switch: self.path("switch.pem"),
                authors: self.path("authors.pem"),
                orders: self.path("orders.pem"),
                licences: self.path("licences.pem"),
            };
            let crls = vec![self.path("authors.crl"), self.path("orders.crl")];
            LiveTrust::load(SigningFiles { trust, crls }, at(NOW)).unwrap()
        }

        fn authors_list(&self, number: u64, serial: &[u8]) -> String {
            list(&self.authors, number, serial)
        }

        fn is_revoked(&self, trust: &LiveTrust) -> bool {
            trust.current().revocation.contains(self.authors.certificate().subject_der(), SERIAL)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }
    }

    fn root(name: &str) -> Authority {
        Authority::root(name, Duration::from_secs(86_400), at(NOW)).unwrap()
    }

    fn list(authority: &Authority, number: u64, serial: &[u8]) -> String {
        let revoked = Revoked { serial_hex: hex::encode(serial), at: at(NOW - 10) };
        authority.crl(&[revoked], number, at(NOW - 10), at(NOW + 86_400)).unwrap()
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }
}
