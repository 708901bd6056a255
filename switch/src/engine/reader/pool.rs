//! Reading connections, as many as reads may run at once.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use crate::engine::EngineError;

/// The connections that nobody uses at the moment.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Vec<Connection>>,
    returned: Condvar,
}

/// How long a read waits for a connection; below the deadline of the call that asked for it.
const WAIT: Duration = Duration::from_secs(20);

impl Pool {
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        Self { free: Mutex::new(connections), returned: Condvar::new() }
    }

    /// Runs `read` with a connection.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.returned.wait_timeout_while(free, WAIT, |free| free.is_empty());
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let Some(connection) = free.pop() else {
            return Err(EngineError::ResourceExhausted(format!(
                "every reading connection was busy for {WAIT:?}; try again later"
            )));
        };
        drop(free);
        let read = read(&connection);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        self.returned.notify_one();
        read
    }
}

/// Turns SQLite's error into ours.
pub(super) fn failed(error: impl std::fmt::Display) -> EngineError {
    EngineError::Internal(format!("store: {error}"))
}
