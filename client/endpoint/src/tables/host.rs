//! `os`, `host` and `time`: what the machine is called and runs.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Machine, Rows, Scan, Table, TableError, ready};
use crate::schema::{ColumnSchema, TableSchema};
use crate::value::SqlValue;

pub(crate) const OS: TableSchema = TableSchema {
    name: "os",
    description: "The operating system, one row, from os-release and the kernel.",
    columns: &[
        ColumnSchema::text("name", "NAME of os-release, `Debian GNU/Linux`"),
        ColumnSchema::text("version", "VERSION_ID of os-release, `12`"),
        ColumnSchema::text("codename", "VERSION_CODENAME of os-release, `bookworm`"),
        ColumnSchema::text("id", "ID of os-release, `debian`"),
        ColumnSchema::text("pretty_name", "PRETTY_NAME of os-release"),
        ColumnSchema::text("kernel", "Release of the kernel, as `uname -r`"),
        ColumnSchema::text("arch", "Architecture of the machine, as `uname -m`"),
        ColumnSchema::integer("boot_time", "Start of the kernel, Unix seconds"),
    ],
    needs: None,
};

pub(crate) const HOST: TableSchema = TableSchema {
    name: "host",
    description: "The machine's names and place, one row.",
    columns: &[
        ColumnSchema::text("hostname", "Name of the host, as `hostname`"),
        ColumnSchema::text("fqdn", "Full name by /etc/hosts; the hostname where that has none"),
        ColumnSchema::text("machine_id", "/etc/machine-id"),
        ColumnSchema::integer("uptime_seconds", "Seconds since the kernel's start"),
        ColumnSchema::text(
            "virtualization",
            "`none`, a container (`docker`, `lxc` …) or a hypervisor (`kvm` …)",
        ),
        ColumnSchema::text("timezone", "Name of the local time zone, `Europe/Berlin`"),
    ],
    needs: None,
};

pub(crate) const TIME: TableSchema = TableSchema {
    name: "time",
    description: "The wall clock when the query reads it, one row.",
    columns: &[
        ColumnSchema::integer("unix", "Unix seconds"),
        ColumnSchema::text("utc", "ISO 8601 in UTC, `2026-01-31T23:59:59Z`"),
        ColumnSchema::text("timezone", "Name of the local time zone"),
    ],
    needs: None,
};

/// Table `os`.
#[derive(Debug)]
pub(crate) struct Os;

impl Table for Os {
    fn schema(&self) -> &'static TableSchema {
        &OS
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let facts = facts(&scan.machine);
        let release = |key: &str| SqlValue::from(facts.release.get(key).cloned());
        Ok(ready([vec![
            release("NAME"),
            release("VERSION_ID"),
            release("VERSION_CODENAME"),
            release("ID"),
            release("PRETTY_NAME"),
            facts.kernel.into(),
            facts.arch.into(),
            boot_time(&scan.machine).into(),
        ]]))
    }
}

/// Table `host`.
#[derive(Debug)]
pub(crate) struct Host;

impl Table for Host {
    fn schema(&self) -> &'static TableSchema {
        &HOST
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let machine = &scan.machine;
        let facts = facts(machine);
        let machine_id = machine.detail("/etc/machine-id").map(|text| text.trim().to_owned());
        Ok(ready([vec![
            facts.hostname.into(),
            facts.fqdn.into(),
            machine_id.filter(|id| !id.is_empty()).into(),
            uptime_seconds(machine).into(),
            facts.virtualization.into(),
            timezone(machine).into(),
        ]]))
    }
}

/// Table `time`.
#[derive(Debug)]
pub(crate) struct Time;

impl Table for Time {
    fn schema(&self) -> &'static TableSchema {
        &TIME
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(ready([vec![unix.into(), iso_8601(unix).into(), timezone(&scan.machine).into()]]))
    }
}

/// What `os`, `host` and the client's attributes share.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The keys of os-release.
    pub(crate) release: BTreeMap<String, String>,
    /// `uname -r`.
    pub(crate) kernel: Option<String>,
    /// `uname -m`.
    pub(crate) arch: String,
    /// `hostname`.
    pub(crate) hostname: Option<String>,
    /// The full name by /etc/hosts.
    pub(crate) fqdn: Option<String>,
    /// `none`, a container or a hypervisor.
    pub(crate) virtualization: String,
}

/// Reads the facts of `machine`.
pub(crate) fn facts(machine: &Machine) -> Facts {
    let release = machine.detail("/etc/os-release").or_else(|| machine.detail("/usr/lib/os-release"));
    let line = |path: &str| machine.detail(path).map(|text| text.trim().to_owned());
    let hostname = line("/proc/sys/kernel/hostname");
    let hosts = machine.detail("/etc/hosts").unwrap_or_default();
    Facts {
        release: assignments(&release.unwrap_or_default()),
        kernel: line("/proc/sys/kernel/osrelease"),
        arch: line("/proc/sys/kernel/arch").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        fqdn: hostname.as_ref().map(|name| full_name(&hosts, name)),
        hostname,
        virtualization: virtualization(machine),
    }
}

/// Start of the kernel, Unix seconds.
pub(crate) fn boot_time(machine: &Machine) -> Option<i64> {
    let stat = machine.detail("/proc/stat")?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn uptime_seconds(machine: &Machine) -> Option<i64> {
    machine.detail("/proc/uptime")?.split('.').next()?.trim().parse().ok()
}

/// Reads `KEY=value` lines with shell quoting, as os-release(5) has them.
fn assignments(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (key, value) = line.trim().split_once('=')?;
        (!key.starts_with('#')).then(|| (key.to_owned(), unquote(value)))
    };
    text.lines().filter_map(pair).collect()
}

fn unquote(value: &str) -> String {
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    if let Some(inner) = quoted('\'') {
        return inner.to_owned();
    }
    let mut text = String::new();
    let mut characters = quoted('"').unwrap_or(value).chars();
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    text
}

/// The first name of the line of hosts(5) that has `name`, as `hostname -f` answers from that file.
fn full_name(hosts: &str, name: &str) -> String {
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace().skip(1);
        let Some(canonical) = words.next() else { continue };
        if canonical.eq_ignore_ascii_case(name) || words.any(|word| word.eq_ignore_ascii_case(name)) {
            return canonical.to_owned();
        }
    }
    name.to_owned()
}

/// The zone's name: what /etc/localtime points to, else /etc/timezone, else `UTC`.
fn timezone(machine: &Machine) -> String {
    let linked = machine.link("/etc/localtime").and_then(|target| {
        let target = target.to_string_lossy().into_owned();
        target.split_once("zoneinfo/").map(|(_, zone)| zone.to_owned())
    });
    let written = || machine.detail("/etc/timezone").map(|text| text.trim().to_owned());
    linked.or_else(written).filter(|zone| !zone.is_empty()).unwrap_or_else(|| "UTC".to_owned())
}

/// A container first, as it is what the client is in; then the hypervisor by DMI, by Xen, by the processor's flag.
fn virtualization(machine: &Machine) -> String {
    let container = || {
        let told = machine.detail("/run/systemd/container").map(|text| text.trim().to_owned());
        told.filter(|name| !name.is_empty()).or_else(|| {
            let marks = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
            let mark = marks.iter().find(|(path, _)| machine.path(Path::new(path)).exists());
            mark.map(|(_, name)| (*name).to_owned())
        })
    };
    let hypervisor = || {
        let dmi = ["product_name", "sys_vendor", "board_vendor", "bios_vendor"]
            .map(|key| machine.detail(format!("/sys/class/dmi/id/{key}")).unwrap_or_default())
            .join("\n");
        let known =
            HYPERVISORS.iter().find(|(mark, _)| dmi.contains(mark)).map(|(_, name)| (*name).to_owned());
        known.or_else(|| machine.detail("/sys/hypervisor/type").map(|text| text.trim().to_owned()))
    };
    let flagged = || {
        let information = machine.text("/proc/cpuinfo", super::machine::LIST_BYTES_MAX).ok()??;
        let mut flags = information.lines().filter(|line| line.starts_with("flags"));
        flags
            .any(|line| line.split_whitespace().any(|flag| flag == "hypervisor"))
            .then(|| "vm-other".to_owned())
    };
    container().or_else(hypervisor).or_else(flagged).unwrap_or_else(|| "none".to_owned())
}

/// What DMI says of a hypervisor, and systemd-detect-virt's name for it.
const HYPERVISORS: &[(&str, &str)] = &[
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("Amazon EC2", "amazon"),
    ("Google Compute Engine", "google"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek GmbH", "oracle"),
    ("VirtualBox", "oracle"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "microsoft"),
    ("Microsoft Corporation\nVirtual", "microsoft"),
    ("Apple Virtualization", "apple"),
];

/// Unix seconds as a date and time in UTC (the civil calendar, by the days of its 400-year cycle).
fn iso_8601(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // The cycle is counted from 1 March of year 0, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (cycle, day_of_cycle) = (shifted / 146_097, shifted % 146_097);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_values_lose_their_quotes_and_backslashes() {
        let keys = assignments("ID=debian\nNAME=\"A \\\"B\\\" \\$C\"\nX='y z'\n# NOTE=1\n");

        assert_eq!(keys["ID"], "debian");
        assert_eq!(keys["NAME"], "A \"B\" $C");
        assert_eq!(keys["X"], "y z");
        assert_eq!(keys.len(), 3);
    }

    #[test]
    fn the_full_name_is_the_first_of_its_line() {
        let hosts = "127.0.0.1 localhost\n10.0.0.5 web1.example.org web1 # web1\n";

        assert_eq!(full_name(hosts, "web1"), "web1.example.org");
        assert_eq!(full_name(hosts, "db1"), "db1");
    }

    #[test]
    fn dates_follow_the_civil_calendar() {
        assert_eq!(iso_8601(0), "1970-01-01T00:00:00Z");
        assert_eq!(iso_8601(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(iso_8601(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(iso_8601(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
