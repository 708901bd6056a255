//! The trust in use: roots that follow their files, and the process's one index of who is revoked (trust.md R4, R5, R7).
//!
//! Roots that are refused keep the old, all of them, since roles are compared with each other. The index follows its own files
//! and distribution points ([`Revocation::watch`]); every judgement takes it as it is at that moment.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use muster_pki::{Facts, RevocationIndex, Role, UnixTime};
use muster_service::credentials::Revocation;
use muster_signing::envelope::Anchors;
use muster_signing::policy::{OpenError, Policy};
use tokio::sync::watch;

use super::learning::Learning;
use super::trust::{Contents, Fingerprint, SigningRoots, TrustError};
use crate::config::TrustConfig;
use crate::metrics as names;

/// What signatures are judged by, as of the last files that were good.
#[derive(Debug)]
pub(crate) struct LiveTrust {
    files: TrustConfig,
    /// A judgement takes the whole of it once.
    roots: RwLock<Arc<SigningRoots>>,
    revocation: Arc<Revocation>,
    pub(super) learning: Learning,
    /// Held while the files are read; two readers would undo each other.
    seen: Mutex<Seen>,
}

/// What one judgement goes by.
#[derive(Debug)]
pub(crate) struct SigningTrust {
    pub(super) roots: Arc<SigningRoots>,
    pub(super) revocation: RevocationIndex,
}

/// The files as last looked at, whether they were good or not.
#[derive(Debug)]
struct Seen {
    roots: Vec<Fingerprint>,
    problem: Option<TrustError>,
}

/// What became of the files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refreshed {
    /// Newer roots are in use.
    pub(crate) is_swapped: bool,
    /// What is refused since this look, and was not at the one before.
    pub(crate) refused: Option<String>,
}

impl LiveTrust {
    /// Reads the roots for the first time; all must be good. Blocks on the disk.
    pub(crate) fn load(files: TrustConfig, revocation: Arc<Revocation>) -> Result<Self, TrustError> {
        let contents = Contents::read(&files);
        let roots = RwLock::new(Arc::new(contents.roots()?));
        let seen = Mutex::new(Seen { roots: contents.roots_fingerprint(), problem: None });
        Ok(Self { files, roots, revocation, learning: Learning::default(), seen })
    }

    /// Returns what is in use. The index shares its lists, so this costs little.
    pub(crate) fn current(&self) -> SigningTrust {
        SigningTrust { roots: self.roots(), revocation: self.revocation.index() }
    }

    /// Returns what is in use to judge a document by, and has the CRLs of its signers' issuers asked for.
    pub(super) fn current_for(&self, envelope: &[u8], role: Role) -> SigningTrust {
        self.learning.note(envelope, role);
        self.current()
    }

    pub(super) fn roots(&self) -> Arc<SigningRoots> {
        Arc::clone(&self.roots.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) const fn revocation(&self) -> &Arc<Revocation> {
        &self.revocation
    }

    /// Returns a receiver of a number that rises when the CRLs change.
    pub(crate) fn lists(&self) -> watch::Receiver<u64> {
        self.revocation.changes()
    }

    /// Verifies a policy by the roots of the policies' administrators; without any, none verifies.
    pub(crate) fn open_policy(&self, envelope: &[u8], now: UnixTime) -> Result<Policy, OpenError> {
        let trust = self.current_for(envelope, Role::Policy);
        let facts = Facts { revocation: Some(&trust.revocation), ..Facts::at(now) };
        let anchors = Anchors { signers: &trust.roots.policies, timestamps: trust.roots.timestamps.as_ref() };
        Policy::open(envelope, &anchors, &facts)
    }

    /// Looks at the roots and puts to use what is new and good. Blocks on the disk.
    pub(crate) fn refresh(&self) -> Refreshed {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.problem.as_ref().map(ToString::to_string);
        let newer = seen.take(&Contents::read(&self.files));
        let is_swapped = newer.is_some();
        if let Some(roots) = newer {
            *self.roots.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roots);
            tracing::info!("changed roots of signers are in use");
        }
        let problem = seen.problem.as_ref().map(ToString::to_string);
        metrics::gauge!(names::TRUST_STALE).set(if problem.is_none() { 0.0 } else { 1.0 });
        let refused = problem.filter(|_| seen.problem.as_ref().map(ToString::to_string) != known);
        if let Some(problem) = &refused {
            metrics::counter!(names::TRUST_REFUSED).increment(1);
            tracing::warn!(problem, "changed roots of signers are refused; the old stay");
        }
        Refreshed { is_swapped, refused }
    }
}

impl Seen {
    /// Returns what takes the place of the roots in use, if it is new and good.
    fn take(&mut self, contents: &Contents) -> Option<SigningRoots> {
        let fingerprint = contents.roots_fingerprint();
        if fingerprint == self.roots {
            return None;
        }
        self.roots = fingerprint;
        match contents.roots() {
            Ok(roots) => {
                self.problem = None;
                Some(roots)
            }
            Err(error) => {
                self.problem = Some(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use muster_pki::authority::{Authority, Revoked};
    use muster_service::credentials::{Clock, Reload, RevocationFiles, RevocationSettings};
    use tempfile::TempDir;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    const SERIAL: &[u8] = &[0x4d];

    #[test]
    fn roots_that_did_not_change_are_not_read_again() {
        let lab = Lab::new();
        let trust = lab.load();
        let before = trust.current();

        let refreshed = trust.refresh();

        assert_eq!(refreshed, Refreshed { is_swapped: false, refused: None });
        assert!(Arc::ptr_eq(&before.roots, &trust.current().roots));
    }

    #[test]
    fn what_the_shared_index_learns_counts_at_once() {
        let lab = Lab::new();
        let trust = lab.load();
        assert!(!lab.is_revoked(&trust));

        lab.write("authors.crl", &lab.authors_list(2, SERIAL));

        assert_eq!(trust.revocation.reload(), Reload::Swapped);
        assert!(lab.is_revoked(&trust));
    }

    #[test]
    fn r5_a_list_whose_number_went_back_is_refused_and_the_old_one_kept() {
        let lab = Lab::new();
        lab.write("authors.crl", &lab.authors_list(2, SERIAL));
        let trust = lab.load();

        lab.write("authors.crl", &lab.authors_list(1, &[0x01]));

        assert!(matches!(trust.revocation.reload(), Reload::Kept { .. }));
        assert!(lab.is_revoked(&trust));
    }

    #[test]
    fn a_file_of_bad_roots_keeps_all_roots_and_frees_nobody_whom_they_revoked() {
        let lab = Lab::new();
        lab.write("orders.crl", &list(&lab.orders, 2, SERIAL));
        let trust = lab.load();

        std::fs::remove_file(lab.path("orders.pem")).unwrap();
        lab.write("authors.crl", &lab.authors_list(2, SERIAL));
        drop(trust.revocation.reload());
        let (first, second) = (trust.refresh(), trust.refresh());

        assert!(first.refused.as_ref().is_some_and(|told| told.contains("trust.orders")), "{first:?}");
        assert_eq!(second, Refreshed { is_swapped: false, refused: None });
        let current = trust.current();
        assert!(lab.is_revoked(&trust) && current.roots.orders.contains(lab.orders.certificate()));
        assert!(current.revocation.contains(lab.orders.certificate().subject_der(), SERIAL));
    }

    #[test]
    fn what_a_removed_root_revoked_disappears_with_it_and_comes_back_with_it() {
        let lab = Lab::new();
        lab.write("authors.crl", &lab.authors_list(1, SERIAL));
        let trust = lab.load();

        lab.write("authors.pem", &root("Other authors").certificate_pem());
        drop(trust.revocation.reload());
        assert!(trust.refresh().is_swapped && !lab.is_revoked(&trust));
        lab.write("authors.pem", &lab.authors.certificate_pem());
        drop(trust.revocation.reload());

        assert!(trust.refresh().is_swapped && lab.is_revoked(&trust));
    }

    #[test]
    fn a_removed_root_does_not_free_whom_a_refused_list_revoked() {
        let lab = Lab::new();
        lab.write("authors.crl", &lab.authors_list(1, SERIAL));
        let trust = lab.load();

        let licences = root("Other licences");
        lab.write("licences.pem", &licences.certificate_pem());
        lab.write("authors.crl", "no list at all");
        drop(trust.revocation.reload());
        assert!(trust.refresh().is_swapped);

        assert!(lab.is_revoked(&trust) && trust.current().roots.licences.contains(licences.certificate()));
    }

    #[test]
    fn lists_of_one_file_stand_alone() {
        let lab = Lab::new();
        let trust = lab.load();
        let of_nobody_here = list(&root("A stranger"), 1, &[0x03]);

        lab.write("authors.crl", &(of_nobody_here + &lab.authors_list(2, SERIAL)));

        assert!(matches!(trust.revocation.reload(), Reload::Kept { .. }), "the stranger's is told");
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
                ..TrustConfig::default()
            };
            let files = RevocationFiles {
                crls: vec![self.path("authors.crl"), self.path("orders.crl")],
                roots: ["switch.pem", "authors.pem", "orders.pem", "licences.pem"]
                    .map(|name| self.path(name))
                    .into(),
                ..RevocationFiles::default()
            };
            let settings = RevocationSettings::default();
            let revocation = Revocation::load(files, settings, Clock::new(|| at(NOW))).unwrap();
            LiveTrust::load(trust, revocation).unwrap()
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
