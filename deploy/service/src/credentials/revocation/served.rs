//! [`Served`]: which distribution points serve what there is to know of an issuer.

use std::collections::BTreeMap;

use muster_pki::{Certificate, Loaded, UnixTime};

/// Distribution points, each with the lists that it served last.
#[derive(Debug, Default)]
pub(super) struct Served(BTreeMap<String, Point>);

#[derive(Debug)]
struct Point {
    lists: Vec<Loaded>,
    /// It did not answer when it was last asked.
    fails: bool,
}

impl Served {
    /// Notes what a distribution point served.
    pub(super) fn note(&mut self, url: &str, loaded: &[Loaded]) {
        self.0.insert(url.to_owned(), Point { lists: loaded.to_vec(), fails: false });
    }

    /// A distribution point has nothing newer than it served.
    pub(super) fn answers(&mut self, url: &str) {
        if let Some(point) = self.0.get_mut(url) {
            point.fails = false;
        }
    }

    /// A distribution point fails.
    pub(super) fn fails(&mut self, url: &str) {
        if let Some(point) = self.0.get_mut(url) {
            point.fails = true;
        }
    }

    /// A distribution point is asked no more.
    pub(super) fn end(&mut self, url: &str) {
        self.0.remove(url);
    }

    /// Returns whether a distribution point serves a fresh list for all certificates of an issuer.
    pub(super) fn has_whole_of(&self, issuer: &Certificate, now: UnixTime) -> bool {
        let lists = self.0.values().filter(|point| !point.fails).flat_map(|point| &point.lists);
        lists.into_iter().any(|crl| crl.is_whole_of(issuer) && crl.next_update > now)
    }
}
