//! The wait of a download for a certificate (S6), as its owner wrote it.

use super::tables::Tables;

/// Its name in `meta`.
const NAME: &str = "certificate_wait";

impl Tables {
    /// Returns the wait that goes on, if there is one.
    pub(crate) fn certificate_wait(&self, now_ms: i64) -> rusqlite::Result<Option<Vec<u8>>> {
        Ok(self.meta(NAME, now_ms)?.filter(|value| !value.is_empty()))
    }

    /// Keeps the wait; `None`: nothing waits.
    pub(crate) fn keep_certificate_wait(&mut self, stored: Option<&[u8]>) -> rusqlite::Result<()> {
        self.set_meta(NAME, stored.unwrap_or_default())
    }
}
