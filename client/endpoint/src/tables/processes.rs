//! `processes`: what runs.
use std::sync::Arc;

use nix::unistd::{SysconfVar, sysconf};

use super::early::{executable, processes};
use super::hardware::kibibytes;
use super::host::boot_time;
use super::users::Names;
use super::{Machine, Row, Rows, Scan, Table, TableError};
use crate::schema::{ColumnSchema, Search, TableSchema};
use crate::value::SqlValue;

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "processes",
    description: "Processes as `ps -e` lists them, from /proc. A process that ends while it is read is left out.",
    columns: &[
        ColumnSchema::integer("pid", "Number of the process").searched(Search::Equal),
        ColumnSchema::integer("ppid", "Number of the parent"),
        ColumnSchema::text("name", "Short name of the program, at most 15 bytes, as `ps -o comm`"),
        ColumnSchema::text(
            "path",
            "The program's file; NULL for kernel threads and without the right to know",
        ),
        ColumnSchema::text("cmdline", "The arguments, joined by spaces; NULL for kernel threads"),
        ColumnSchema::text(
            "state",
            "One letter: R runs, S sleeps, D waits for a device, Z is a zombie, T is stopped, I idles",
        ),
        ColumnSchema::integer("uid", "Number of the effective user"),
        ColumnSchema::text("user", "Name of the effective user; the number where it has no name"),
        ColumnSchema::integer("threads", "Threads"),
        ColumnSchema::integer("rss_bytes", "Resident memory"),
        ColumnSchema::integer("cpu_time_ms", "Processor time of user and kernel, milliseconds"),
        ColumnSchema::integer("started_at", "Start, Unix seconds"),
    ],
    needs: None,
};

/// Table `processes`.
#[derive(Debug)]
pub(crate) struct Processes;

impl Table for Processes {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let numbers = match scan.equal("pid").and_then(SqlValue::as_integer) {
            Some(pid) => i32::try_from(pid).into_iter().collect(),
            None => processes(&scan.machine),
        };
        let machine = Arc::clone(&scan.machine);
        let shared = Arc::new(Shared {
            users: Names::of_users(&machine),
            boot_time: boot_time(&machine),
            ticks_per_second: ticks_per_second(),
        });
        Ok(Box::new(numbers.into_iter().filter_map(move |pid| {
            let folder = format!("/proc/{pid}");
            let stat = Stat::parse(&machine.detail(format!("{folder}/stat"))?)?;
            let status = machine.detail(format!("{folder}/status"))?;
            let row =
                ProcessRow { pid, stat, status, machine: Arc::clone(&machine), shared: Arc::clone(&shared) };
            Some(Ok(Box::new(row) as Box<dyn Row>))
        })))
    }
}

/// The name of process `pid`, as `ps -o comm`.
pub(super) fn name(machine: &Machine, pid: i32) -> Option<String> {
    machine.detail(format!("/proc/{pid}/comm")).map(|name| name.trim_end_matches('\n').to_owned())
}

/// The unit of the times in /proc/PID/stat.
fn ticks_per_second() -> u64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0).unwrap_or(100)
}

struct Shared {
    users: Names,
    boot_time: Option<i64>,
    ticks_per_second: u64,
}

struct ProcessRow {
    pid: i32,
    stat: Stat,
    status: String,
    machine: Arc<Machine>,
    shared: Arc<Shared>,
}

impl Row for ProcessRow {
    fn value(&self, column: usize) -> Result<SqlValue, TableError> {
        let uid = || effective_user(&self.status);
        Ok(match column {
            0 => i64::from(self.pid).into(),
            1 => self.stat.parent.into(),
            2 => self.stat.name.as_str().into(),
            3 => self.path().into(),
            4 => self.cmdline().into(),
            5 => self.stat.state.to_string().into(),
            6 => uid().into(),
            7 => uid()
                .map(|uid| self.shared.users.find(uid).map_or_else(|| uid.to_string(), str::to_owned))
                .into(),
            8 => self.stat.threads.into(),
            9 => kibibytes(&self.status, "VmRSS").unwrap_or(0).into(),
            10 => (self.stat.cpu_ticks.saturating_mul(1000) / self.shared.ticks_per_second).into(),
            11 => self.started_at().into(),
            _ => SqlValue::Null,
        })
    }
}

impl ProcessRow {
    fn path(&self) -> Option<String> {
        match self.machine.early() {
            Some(early) => early.executables.get(&self.pid).cloned(),
            None => executable(&self.machine, self.pid),
        }
    }

    fn cmdline(&self) -> Option<String> {
        let text = self.machine.text(format!("/proc/{}/cmdline", self.pid), CMDLINE_BYTES_MAX).ok()??;
        let text = text.trim_end_matches('\0');
        (!text.is_empty()).then(|| text.replace('\0', " "))
    }

    fn started_at(&self) -> Option<i64> {
        let since_boot = i64::try_from(self.stat.start_ticks / self.shared.ticks_per_second).ok()?;
        self.shared.boot_time?.checked_add(since_boot)
    }
}

/// The longest command line that is read; the kernel lets arguments have 6 MiB.
const CMDLINE_BYTES_MAX: u64 = 6 * 1024 * 1024;

/// The second of the four numbers of `Uid:`.
fn effective_user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The fields of /proc/PID/stat that the table uses (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: char,
    parent: i64,
    cpu_ticks: u64,
    threads: i64,
    start_ticks: u64,
}

impl Stat {
    /// The name is between the first `(` and the last `)`, and may have both in it.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once('(')?;
        let (name, rest) = rest.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            cpu_ticks: number(11)?.saturating_add(number(12)?),
            threads: fields.get(17)?.parse().ok()?,
            start_ticks: number(19)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_is_read_whole() {
        let text = "42 (a) (b c) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 3 0 99 1000 10";

        let stat = Stat::parse(text).unwrap();

        assert_eq!(stat.name, "a) (b c");
        assert_eq!((stat.state, stat.parent, stat.cpu_ticks), ('S', 1, 12));
        assert_eq!((stat.threads, stat.start_ticks), (3, 99));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[0-9a-zA-Z() -]{0,200}") {
            let stat = Stat::parse(&text);
            prop_assert!(stat.is_none_or(|stat| text.contains(&stat.name)));
        }
    }
}
