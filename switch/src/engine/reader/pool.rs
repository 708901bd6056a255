//! Reading connections, as many as reads may run at once.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use crate::engine::EngineError;

/// The connections that nobody uses at the moment.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Free>,
    returned: Condvar,
    /// Long reads that may run at once.
    long_max: usize,
}

#[derive(Debug)]
struct Free {
    connections: Vec<Connection>,
    /// Long reads under way.
    long: usize,
}

/// How long a read holds its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// As long as a page takes.
    Page,
    /// As long as someone far away takes.
    Long,
}

/// How long a read waits for a connection; below the deadline of the call that asked for it.
const WAIT: Duration = Duration::from_secs(20);

impl Pool {
    /// Makes one of connections, of which long reads get no more than half.
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        let long_max = (connections.len() / 2).max(1);
        Self { free: Mutex::new(Free { connections, long: 0 }), returned: Condvar::new(), long_max }
    }

    /// Runs `read` with a connection.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.run(Length::Page, WAIT, read)
    }

    /// Runs `read` with one of the connections that such reads may have, however many wait: the others stay for pages.
    pub(super) fn read_long<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.run(Length::Long, WAIT, read)
    }

    fn run<T>(
        &self,
        length: Length,
        wait: Duration,
        read: impl FnOnce(&Connection) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let is_long = length == Length::Long;
        let none = |free: &Free| free.connections.is_empty() || (is_long && free.long >= self.long_max);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.returned.wait_timeout_while(free, wait, |free| none(free));
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if none(&free) {
            return Err(EngineError::ResourceExhausted(format!(
                "every reading connection was busy for {wait:?}; try again later"
            )));
        }
        let Some(connection) = free.connections.pop() else {
            return Err(EngineError::Internal("a free reading connection was gone".to_owned()));
        };
        free.long += usize::from(is_long);
        drop(free);
        let read = read(&connection);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.connections.push(connection);
        free.long -= usize::from(is_long);
        drop(free);
        // Not only one: it might be for a long read, which has to go on waiting.
        self.returned.notify_all();
        read
    }
}

/// What may go wrong with a row.
pub(super) trait ReadFailure: std::fmt::Display {
    /// Returns whether the database is damaged, which no second try helps.
    fn is_damage(&self) -> bool;
}

impl ReadFailure for rusqlite::Error {
    fn is_damage(&self) -> bool {
        matches!(
            self.sqlite_error_code(),
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
        )
    }
}

/// A value of another type than was written.
impl ReadFailure for rusqlite::types::FromSqlError {
    fn is_damage(&self) -> bool {
        true
    }
}

/// A record whose checksum holds, and is none.
impl ReadFailure for prost::DecodeError {
    fn is_damage(&self) -> bool {
        true
    }
}

/// Turns a failure to read into the engine's error.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn failed(failure: impl ReadFailure) -> EngineError {
    if failure.is_damage() {
        return EngineError::Damaged(format!(
            "the store is damaged ({failure}); stop the Switch, check the disk and restore a backup"
        ));
    }
    EngineError::Internal(format!("store: {failure}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_millis(1);

    fn pool(connections: usize) -> Pool {
        Pool::new((0..connections).map(|_| Connection::open_in_memory().unwrap()).collect())
    }

    #[test]
    fn long_reads_leave_half_of_the_connections_to_pages() {
        let pool = pool(4);

        pool.read_long(|_| {
            pool.read_long(|_| {
                let third = pool.run(Length::Long, NOW, |_| Ok(()));
                assert!(matches!(third, Err(EngineError::ResourceExhausted(_))));
                pool.read(|_| pool.read(|_| Ok(())))
            })
        })
        .unwrap();

        pool.run(Length::Long, NOW, |_| Ok(())).unwrap();
    }

    #[test]
    fn a_pool_of_one_serves_long_reads_too() {
        pool(1).run(Length::Long, NOW, |_| Ok(())).unwrap();
    }
}
