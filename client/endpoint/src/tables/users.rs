//! `users`: accounts.
use std::collections::HashMap;

use super::machine::LIST_BYTES_MAX;
use super::{Machine, Rows, Scan, Table, TableError, ready};
use crate::schema::{ColumnSchema, Search, TableSchema};
use crate::value::SqlValue;

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "users",
    description: "Local accounts, from /etc/passwd; no directory service is asked.",
    columns: &[
        ColumnSchema::text("name", "Login name").searched(Search::Equal),
        ColumnSchema::integer("uid", "Number of the user").searched(Search::Equal),
        ColumnSchema::integer("gid", "Number of the primary group"),
        ColumnSchema::text("gecos", "Full name and comments"),
        ColumnSchema::text("home", "Home folder"),
        ColumnSchema::text("shell", "Login shell"),
    ],
    needs: None,
};

/// Table `users`.
#[derive(Debug)]
pub(crate) struct Users;

impl Table for Users {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let text = scan.machine.text("/etc/passwd", LIST_BYTES_MAX)?.unwrap_or_default();
        let rows: Vec<_> = text.lines().filter_map(account).collect();
        Ok(ready(rows))
    }
}

/// One line of passwd(5); none for a line that isn't one.
fn account(line: &str) -> Option<Vec<SqlValue>> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, gecos, home, shell] = fields.as_slice() else { return None };
    let number = |text: &str| text.parse::<u32>().ok().map(SqlValue::from);
    Some(vec![(*name).into(), number(uid)?, number(gid)?, (*gecos).into(), (*home).into(), (*shell).into()])
}

/// The names of users by number.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<u32, String>);

impl Names {
    /// The name of `number`; the first where several have it.
    pub(super) fn find(&self, number: u32) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }

    /// Reads `/etc/passwd`; none has a name where it can't be read.
    pub(super) fn of_users(machine: &Machine) -> Self {
        let text = machine.text("/etc/passwd", LIST_BYTES_MAX).ok().flatten().unwrap_or_default();
        let mut names = HashMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            if let (Some(name), Some(number)) =
                (fields.next(), fields.nth(1).and_then(|text| text.parse().ok()))
            {
                names.entry(number).or_insert_with(|| name.to_owned());
            }
        }
        Self(names)
    }
}
