//! Definitions by digest, the licence and its serial, the time floor, when the store was brought back, the epoch.

use muster_proto::ids::Digest;
use rusqlite::{OptionalExtension, params};

use super::tables::Tables;

/// Definitions kept; the longest unused goes first. 512 × 256 KiB = 128 MiB at worst, a few MiB in practice.
const DEFINITIONS_MAX: i64 = 512;

/// How far the clocks of Switch and device may be apart and still agree, in milliseconds: what an order's time allows as well.
const CLOCKS_AGREE_MS: u64 = 5 * 60 * 1_000;

/// How far the wall clock may be ahead of the time floor and still be believed, in milliseconds: an upkeep and some.
const AHEAD_MS: i64 = 2 * 3_600_000;

impl Tables {
    /// Returns a definition's envelope.
    pub(crate) fn definition(&mut self, digest: Digest, now_ms: i64) -> rusqlite::Result<Option<Vec<u8>>> {
        let key = digest.as_bytes().as_slice();
        let envelope: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT envelope FROM definitions WHERE digest = ?1")?
            .query_row([key], |row| row.get(0))
            .optional()?;
        let Some(envelope) = envelope else { return Ok(None) };
        if muster_signing::envelope::digest(&envelope) != digest {
            self.set_aside("definitions", key, &envelope, now_ms)?;
            self.connection.execute("DELETE FROM definitions WHERE digest = ?1", [key])?;
            return Ok(None);
        }
        self.connection
            .prepare_cached("UPDATE definitions SET used_at_ms = ?2 WHERE digest = ?1")?
            .execute(params![key, now_ms])?;
        Ok(Some(envelope))
    }

    /// Keeps a definition whose digest was compared.
    pub(crate) fn keep_definition(
        &mut self,
        digest: Digest,
        envelope: &[u8],
        now_ms: i64,
    ) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO definitions (digest, envelope, used_at_ms) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![digest.as_bytes().as_slice(), envelope, now_ms])?;
        self.connection.execute(
            "DELETE FROM definitions WHERE rowid IN
             (SELECT rowid FROM definitions ORDER BY used_at_ms DESC LIMIT -1 OFFSET ?1)",
            [DEFINITIONS_MAX],
        )?;
        Ok(())
    }

    /// Returns the licence's envelope.
    pub(crate) fn licence(&self, now_ms: i64) -> rusqlite::Result<Option<Vec<u8>>> {
        self.meta("licence", now_ms)
    }

    /// Returns the highest licence serial ever kept; it outlives the licence's own record.
    pub(crate) fn licence_serial(&self, now_ms: i64) -> rusqlite::Result<u64> {
        self.lasting_number("licence_serial", now_ms)
    }

    /// Keeps a licence that was verified.
    pub(crate) fn keep_licence(&mut self, envelope: &[u8], serial: u64) -> rusqlite::Result<()> {
        self.set_meta("licence", envelope)?;
        self.set_lasting_number("licence_serial", serial)
    }

    /// Returns the time floor, milliseconds since 1970: no order is judged by a clock that is far behind it (signing.md, "clock set back"). It rises with the
    /// monotonic clock and to the times of orders that were admitted, so a later wall clock may have been seen.
    pub(crate) fn time_floor_ms(&self, now_ms: i64) -> rusqlite::Result<i64> {
        Ok(i64::try_from(self.lasting_number("time_floor", now_ms)?).unwrap_or(i64::MAX))
    }

    /// Returns the time by which things are thrown away: the wall clock, unless it is far ahead of the floor. A clock that
    /// stepped forward by mistake throws nothing away.
    pub(crate) fn certain_ms(&self, now_ms: i64) -> rusqlite::Result<i64> {
        Ok(now_ms.min(self.time_floor_ms(now_ms)?.saturating_add(AHEAD_MS)))
    }

    /// Raises the floor; it never sinks.
    pub(crate) fn raise_time_floor(&mut self, now_ms: i64) -> rusqlite::Result<()> {
        if now_ms <= self.time_floor_ms(now_ms)? {
            return Ok(());
        }
        self.set_lasting_number("time_floor", u64::try_from(now_ms).unwrap_or(0))
    }

    /// Returns when the store was last found to be brought back from a copy, by the Switch's clock in milliseconds since
    /// 1970; 0: never. Orders from before may have started on this device already.
    pub(crate) fn restored_at_ms(&self, now_ms: i64) -> rusqlite::Result<i64> {
        Ok(i64::try_from(self.lasting_number("restored_at", now_ms)?).unwrap_or(i64::MAX))
    }

    /// Notes that the store was brought back. The time rises with each, so that none is taken for the one before.
    pub(super) fn mark_restored(&mut self, switch_ms: i64, now_ms: i64) -> rusqlite::Result<()> {
        let at_ms = switch_ms.max(self.restored_at_ms(now_ms)?.saturating_add(1));
        self.set_lasting_number("restored_at", u64::try_from(at_ms).unwrap_or(0))?;
        self.set_meta("restored_here", &u64::try_from(now_ms).unwrap_or(0).to_be_bytes())
    }

    /// Takes a restore back to when it was told, by this device's clock, where it was told for a time that is still to come: a Switch
    /// that lied would otherwise keep every order out until then.
    ///
    /// The Switch's word alone moves nothing back, or one that lies could have the copy run again what it had: this device's
    /// clock has to agree with it. While they do not, whose fault it may be, the later time stays.
    pub(super) fn doubt_restored(&mut self, switch_ms: i64, now_ms: i64) -> rusqlite::Result<()> {
        let agree = switch_ms.abs_diff(now_ms) <= CLOCKS_AGREE_MS;
        if !agree || self.restored_at_ms(now_ms)? <= switch_ms.max(now_ms) {
            return Ok(());
        }
        // Stores of earlier versions do not have it.
        let here_ms = i64::try_from(self.meta_number("restored_here", now_ms)?).ok().filter(|here| *here > 0);
        let at_ms = here_ms.unwrap_or(switch_ms).min(switch_ms);
        tracing::warn!(
            at_ms,
            "the store was said to be brought back from a copy at a time that is still to come; that is taken back"
        );
        self.set_lasting_number("restored_at", u64::try_from(at_ms).unwrap_or(0))
    }

    /// Returns the epoch of the last session, 0 if there was none.
    pub(crate) fn epoch(&self, now_ms: i64) -> rusqlite::Result<u64> {
        self.meta_number("epoch", now_ms)
    }

    /// Keeps the epoch of a session.
    pub(crate) fn keep_epoch(&mut self, epoch: u64) -> rusqlite::Result<()> {
        self.set_meta("epoch", &epoch.to_be_bytes())
    }

    pub(super) fn meta_number(&self, name: &str, now_ms: i64) -> rusqlite::Result<u64> {
        Ok(self
            .meta(name, now_ms)?
            .and_then(|value| Some(u64::from_be_bytes(value.as_slice().try_into().ok()?)))
            .unwrap_or(0))
    }
}
