//! What must never go back: the time floor, serials, versions, the moment of a restore. Each is kept in two records, in two places where
//! that costs nothing, so that damage to one of them lets nothing old in: the other counts, and takes its place.
//!
//! Where both are damaged between two looks, nothing is known any more (SECURITY.md, "Not defended").

use std::collections::BTreeMap;

use rusqlite::params;
use semver::Version;

use super::tables::{Tables, checksum};

/// What the second record of a number is called, behind its name.
const AGAIN: &str = ".again";

/// What the second record of a version is called, before the name of its definition.
const VERSION: &str = "version.";

impl Tables {
    /// Returns a number that never goes back, 0 if there is none: the higher of its records.
    pub(super) fn lasting_number(&self, name: &str, now_ms: i64) -> rusqlite::Result<u64> {
        let one = self.meta_number(name, now_ms)?;
        let other = self.meta_number(&format!("{name}{AGAIN}"), now_ms)?;
        let highest = one.max(other);
        if one != other {
            self.set_lasting_number(name, highest)?;
        }
        Ok(highest)
    }

    /// Keeps a number that never goes back; the caller compared.
    pub(super) fn set_lasting_number(&self, name: &str, number: u64) -> rusqlite::Result<()> {
        self.set_meta(name, &number.to_be_bytes())?;
        self.set_meta(&format!("{name}{AGAIN}"), &number.to_be_bytes())
    }

    /// Returns the highest version seen of every definition.
    pub(crate) fn versions(&mut self, now_ms: i64) -> rusqlite::Result<BTreeMap<String, Version>> {
        let (one, other) = (self.version_rows(now_ms)?, self.version_records(now_ms)?);
        let mut versions = one.clone();
        for (name, version) in &other {
            let highest = versions.entry(name.clone()).or_insert_with(|| version.clone());
            *highest = highest.clone().max(version.clone());
        }
        for (name, version) in &versions {
            if one.get(name) != Some(version) || other.get(name) != Some(version) {
                self.keep_version(name, version)?;
            }
        }
        Ok(versions)
    }

    /// Keeps the highest version of a definition; the caller compared.
    pub(crate) fn keep_version(&mut self, name: &str, version: &Version) -> rusqlite::Result<()> {
        let text = version.to_string();
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO versions (name, version, crc) VALUES (?1, ?2, ?3)")?
            .execute(params![name, text, version_checksum(name, &text)])?;
        self.set_meta(&format!("{VERSION}{name}"), text.as_bytes())
    }

    fn version_rows(&self, now_ms: i64) -> rusqlite::Result<BTreeMap<String, Version>> {
        let rows: Vec<(String, String, i64)> = {
            let mut statement = self.connection.prepare("SELECT name, version, crc FROM versions")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect::<rusqlite::Result<_>>()?
        };
        let mut versions = BTreeMap::new();
        for (name, text, crc) in rows {
            let sound = crc == version_checksum(&name, &text);
            match Version::parse(&text) {
                Ok(version) if sound => {
                    versions.insert(name, version);
                }
                Ok(_) | Err(_) => {
                    self.set_aside("versions", name.as_bytes(), text.as_bytes(), now_ms)?;
                    self.connection.execute("DELETE FROM versions WHERE name = ?1", [&name])?;
                }
            }
        }
        Ok(versions)
    }

    /// Returns the second records.
    fn version_records(&self, now_ms: i64) -> rusqlite::Result<BTreeMap<String, Version>> {
        let names: Vec<String> = {
            let mut statement =
                self.connection.prepare("SELECT name FROM meta WHERE substr(name, 1, length(?1)) = ?1")?;
            let names = statement.query_map([VERSION], |row| row.get(0))?;
            names.collect::<rusqlite::Result<_>>()?
        };
        let mut versions = BTreeMap::new();
        for record in names {
            let text = self.meta(&record, now_ms)?.and_then(|value| String::from_utf8(value).ok());
            let name = record.strip_prefix(VERSION).unwrap_or_default();
            if let Some(version) = text.and_then(|text| Version::parse(&text).ok()) {
                versions.insert(name.to_owned(), version);
            }
        }
        Ok(versions)
    }
}

fn version_checksum(name: &str, version: &str) -> i64 {
    checksum("versions", &[name.as_bytes(), version.as_bytes()])
}
