//! What was found damaged on disk: each record counted once, kept for the status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::metrics;

/// The damaged records found since the engine started.
#[derive(Debug, Default)]
pub(crate) struct Damage(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    /// By table: the keys, at most [`KEYS_MAX`], and how many there were beyond.
    tables: BTreeMap<&'static str, (BTreeSet<String>, u64)>,
}

/// Keys remembered for one table, so that a record read again is not counted again. Beyond, it may be.
const KEYS_MAX: usize = 1_000;

impl Damage {
    /// Notes a damaged record, and counts and logs it if it is a new one.
    pub(crate) fn note(&self, table: &'static str, key: &str, what: &str) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys, beyond) = found.tables.entry(table).or_default();
        if keys.contains(key) {
            return;
        }
        if keys.len() < KEYS_MAX {
            keys.insert(key.to_owned());
        } else {
            *beyond += 1;
        }
        metrics::damaged(table);
        tracing::error!(table, key, what, "damaged record set aside");
    }

    /// Returns a warning for each table with damaged records, with what to do.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let warning = |(table, (keys, beyond)): (&&str, &(BTreeSet<String>, u64))| {
            let count = u64::try_from(keys.len()).unwrap_or(u64::MAX) + beyond;
            let first = keys.first().map(String::as_str).unwrap_or_default();
            format!(
                "{count} damaged records in table {table} (first: {first}) were set aside; check the disk, and restore \
                 the store from a backup if they matter"
            )
        };
        found.tables.iter().map(warning).collect()
    }
}
