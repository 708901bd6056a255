//! The approvals of an instruction that came after it.

use rusqlite::{Connection, OptionalExtension as _};

use super::{ApprovalsRecord, checked, key};

/// Returns what is stored of an instruction's approvals; none: nobody has approved it since it was submitted.
///
/// # Errors
/// The text says what is damaged; the outer error is SQLite's.
pub(crate) fn of(
    connection: &Connection,
    instruction: i64,
) -> rusqlite::Result<Result<Option<ApprovalsRecord>, String>> {
    let mut statement =
        connection.prepare_cached("SELECT record, crc FROM approvals WHERE instruction = ?1")?;
    let found = statement.query_row([instruction], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)));
    let Some((record, crc)) = found.optional()? else { return Ok(Ok(None)) };
    Ok(checked::<ApprovalsRecord>("approvals", &[&key(instruction)], &record, crc).map(Some))
}
