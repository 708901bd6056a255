//! `services`: systemd's service units.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::machine::{SMALL_BYTES_MAX, read_bounded};
use super::unit::{Unit, instance_of, template_of};
use super::{Machine, Rows, Scan, Table, TableError, ready};
use crate::schema::{ColumnSchema, Search, TableSchema};
use crate::value::SqlValue;

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "services",
    description: "systemd services as `systemctl list-unit-files --type=service` lists them, and the running instances \
                  of templates. From the unit files; the state is from the control groups, since no program is asked: \
                  NULL where systemd doesn't run and for templates.",
    columns: &[
        ColumnSchema::text("name", "Name of the unit, `ssh.service`").searched(Search::Equal),
        ColumnSchema::text("description", "Description= of the unit"),
        ColumnSchema::text("load_state", "`loaded`, `masked` or `error`; NULL for templates"),
        ColumnSchema::text("active_state", "`active` or `inactive`; a failed service is `inactive` here"),
        ColumnSchema::text("sub_state", "`running`, `exited` or `dead`"),
        ColumnSchema::text(
            "enabled",
            "`enabled`, `disabled`, `static`, `masked`, `alias`, `indirect`, `generated` …",
        ),
        ColumnSchema::text("path", "The unit file that counts"),
    ],
    needs: None,
};

/// systemd.unit(5)'s search path of the system manager; an earlier file hides a later one.
const FOLDERS: &[&str] = &[
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    CONFIGURED,
    "/etc/systemd/system.attached",
    CONFIGURED_AT_RUNTIME,
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];
const CONFIGURED: &str = "/etc/systemd/system";
const CONFIGURED_AT_RUNTIME: &str = "/run/systemd/system";
/// Services are found this deep in the slices: `system.slice/system-getty.slice/getty@tty1.service`.
const SLICE_DEPTH_MAX: usize = 4;

/// Table `services`.
#[derive(Debug)]
pub(crate) struct Services;

impl Table for Services {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let machine = &scan.machine;
        let links = Links::read(machine);
        let state = State::read(machine);
        let mut files = files(machine);
        let instances: Vec<_> =
            state.running.iter().filter(|name| !files.contains_key(*name)).cloned().collect();
        for name in instances {
            if let Some(folder) = files.get(&template_of(&name)).copied() {
                files.insert(name, folder);
            }
        }
        let rows: Vec<_> =
            files.iter().map(|(name, folder)| service(machine, name, folder, &links, &state)).collect();
        Ok(ready(rows))
    }
}

/// The folder of each service's first unit file, by name.
fn files(machine: &Machine) -> BTreeMap<String, &'static str> {
    let mut files = BTreeMap::new();
    for folder in FOLDERS {
        for name in machine.names(folder) {
            if name.ends_with(".service") && !machine.path(format!("{folder}/{name}")).is_dir() {
                files.entry(name).or_insert(*folder);
            }
        }
    }
    files
}

fn service(machine: &Machine, name: &str, folder: &str, links: &Links, state: &State) -> Vec<SqlValue> {
    // An instance's file is its template's.
    let own = format!("{folder}/{name}");
    let is_own = fs::symlink_metadata(machine.path(&own)).is_ok();
    let path = if is_own { own } else { format!("{folder}/{}", template_of(name)) };
    let file = UnitFile::read(machine, name, &path);
    let (active, sub) = state.of(name);
    let description = file.unit.last("Unit", "Description").map(|text| described(text, name));
    let is_template = instance_of(name) == Some("");
    vec![
        name.into(),
        description.into(),
        (!is_template).then_some(file.load_state).into(),
        active.into(),
        sub.into(),
        enablement(machine, name, folder, &file, links).into(),
        path.into(),
    ]
}

/// Fills in the specifiers that say the instance.
fn described(text: &str, name: &str) -> String {
    match instance_of(name) {
        Some(instance) if !instance.is_empty() => text.replace("%i", instance).replace("%I", instance),
        Some(_) | None => text.to_owned(),
    }
}

/// One unit file with its drop-ins.
struct UnitFile {
    unit: Unit,
    load_state: &'static str,
    /// The last part of where it points, if it is a symbolic link.
    target: Option<String>,
}

impl UnitFile {
    fn read(machine: &Machine, name: &str, path: &str) -> Self {
        let link = machine.link(path);
        let target =
            link.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let mut file = Self { unit: Unit::default(), load_state: "loaded", target };
        if link.as_deref() == Some(Path::new("/dev/null")) {
            file.load_state = "masked";
            return file;
        }
        match contents(machine, path) {
            // systemd takes an empty file for a mask.
            Some(text) if text.is_empty() => file.load_state = "masked",
            Some(text) => file.unit.read(&text),
            None => file.load_state = "error",
        }
        for (_, drop_in) in drop_ins(machine, name) {
            if let Some(text) = contents(machine, &drop_in) {
                file.unit.read(&text);
            }
        }
        file
    }

    /// Whether `[Install]` says where the unit is to be hung up.
    fn is_installable(&self) -> bool {
        ["WantedBy", "RequiredBy", "UpheldBy", "Alias"].iter().any(|key| self.unit.has("Install", key))
    }
}

/// A unit file's text, if it is readable, of sensible size and, through an absolute link, below the root.
fn contents(machine: &Machine, path: &str) -> Option<String> {
    let place = match machine.link(path) {
        Some(target) if target.is_absolute() => machine.path(target),
        Some(_) | None => machine.path(path),
    };
    let bytes = read_bounded(&place, SMALL_BYTES_MAX).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The drop-ins of a unit and of its template by file name; the first folder wins.
fn drop_ins(machine: &Machine, name: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for unit in BTreeSet::from([name.to_owned(), template_of(name)]) {
        for folder in FOLDERS {
            let folder = format!("{folder}/{unit}.d");
            for file in machine.names(&folder).into_iter().filter(|file| file.ends_with(".conf")) {
                let path = format!("{folder}/{file}");
                found.entry(file).or_insert(path);
            }
        }
    }
    found
}

/// What `systemctl is-enabled` says.
fn enablement(machine: &Machine, name: &str, folder: &str, file: &UnitFile, links: &Links) -> &'static str {
    let at_runtime = folder.starts_with("/run/");
    if file.load_state == "masked" {
        return if at_runtime { "masked-runtime" } else { "masked" };
    }
    if folder.starts_with("/run/systemd/generator") {
        return "generated";
    }
    if folder == "/run/systemd/transient" {
        return "transient";
    }
    if let Some(target) = &file.target
        && target != name
    {
        return "alias";
    }
    if links.configured.contains(name) {
        return "enabled";
    }
    if links.at_runtime.contains(name) {
        return "enabled-runtime";
    }
    if file.target.is_some() && !links_into_search_path(machine, folder, name) {
        return if at_runtime { "linked-runtime" } else { "linked" };
    }
    if file.is_installable() {
        "disabled"
    } else if file.unit.has("Install", "Also") {
        "indirect"
    } else {
        "static"
    }
}

fn links_into_search_path(machine: &Machine, folder: &str, name: &str) -> bool {
    let Some(target) = machine.link(format!("{folder}/{name}")) else { return false };
    FOLDERS.iter().any(|folder| target.parent() == Some(Path::new(folder)))
}

/// The units that symbolic links hang up somewhere.
struct Links {
    configured: BTreeSet<String>,
    at_runtime: BTreeSet<String>,
}

impl Links {
    fn read(machine: &Machine) -> Self {
        Self { configured: linked(machine, CONFIGURED), at_runtime: linked(machine, CONFIGURED_AT_RUNTIME) }
    }
}

/// The units behind a folder's aliases and its `*.wants`, `*.requires` and `*.upholds`; for an instance its template
/// too.
fn linked(machine: &Machine, folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in machine.names(folder) {
        let path = format!("{folder}/{name}");
        let hangs = [".wants", ".requires", ".upholds"].iter().any(|ending| name.ends_with(ending));
        if hangs {
            for entry in machine.names(&path).iter().filter(|entry| entry.ends_with(".service")) {
                found.insert(entry.clone());
                found.insert(template_of(entry));
                found.extend(target_name(machine, &format!("{path}/{entry}")));
            }
        } else if let Some(target) = target_name(machine, &path)
            && target != name
        {
            found.insert(target);
        }
    }
    found
}

fn target_name(machine: &Machine, path: &str) -> Option<String> {
    let target = machine.link(path)?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// What runs, as far as files tell it.
struct State {
    /// Whether systemd is the service manager.
    is_known: bool,
    /// Services with processes.
    running: BTreeSet<String>,
    /// Services with an invocation: started and not stopped, with processes or without.
    invoked: BTreeSet<String>,
}

impl State {
    fn read(machine: &Machine) -> Self {
        // sd_booted(3): this folder is there exactly if systemd is the service manager.
        let is_known = machine.path("/run/systemd/system").is_dir();
        let mut running = BTreeSet::new();
        if is_known {
            for slices in ["/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/systemd/system.slice"] {
                collect_running(machine, slices, SLICE_DEPTH_MAX, &mut running);
            }
        }
        let names = machine.names("/run/systemd/units");
        let invoked =
            names.iter().filter_map(|name| name.strip_prefix("invocation:")).map(str::to_owned).collect();
        Self { is_known, running, invoked }
    }

    fn of(&self, name: &str) -> (Option<&'static str>, Option<&'static str>) {
        if !self.is_known || instance_of(name) == Some("") {
            (None, None)
        } else if self.running.contains(name) {
            (Some("active"), Some("running"))
        } else if self.invoked.contains(name) {
            (Some("active"), Some("exited"))
        } else {
            (Some("inactive"), Some("dead"))
        }
    }
}

fn collect_running(machine: &Machine, folder: &str, depth: usize, found: &mut BTreeSet<String>) {
    for name in machine.names(folder) {
        let path = format!("{folder}/{name}");
        if name.ends_with(".service") {
            let events = machine.detail(format!("{path}/cgroup.events")).unwrap_or_default();
            if !events.lines().any(|line| line == "populated 0") {
                // systemd writes `\x2d` and its like as they are; a leading `_` escapes a kernel file's name.
                found.insert(name.strip_prefix('_').unwrap_or(&name).to_owned());
            }
        } else if name.ends_with(".slice") && depth > 1 {
            collect_running(machine, &path, depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;

    /// A root with the given files, and links given as `path -> target`.
    fn root(files: &[(&str, &str)], links: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let place = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            place
        };
        for (path, text) in files {
            fs::write(place(path), text).unwrap();
        }
        for (path, target) in links {
            symlink(target, place(path)).unwrap();
        }
        root
    }

    /// Name, load, active, sub state and enablement of each service below `root`.
    fn told(root: &tempfile::TempDir) -> Vec<String> {
        let machine = Arc::new(Machine::at(root.path()));
        let scan = Scan { machine, schema: &SCHEMA, constraints: Vec::new(), used: u64::MAX };
        let text = |row: &dyn super::super::Row, column| {
            row.value(column).unwrap().as_text().unwrap_or("-").to_owned()
        };
        let rows = Services.rows(&scan).unwrap().map(Result::unwrap);
        rows.map(|row| [0, 2, 3, 4, 5].map(|column| text(&*row, column)).join(" ")).collect()
    }

    const LIB: &str = "/usr/lib/systemd/system";
    const INSTALL: &str = "[Unit]\nDescription=x %i\n[Install]\nWantedBy=multi-user.target\n";

    #[test]
    fn enablement_is_by_the_links() {
        let unit = |name: &str| format!("{LIB}/{name}");
        let root = root(
            &[
                (&unit("on.service"), INSTALL),
                (&unit("off.service"), INSTALL),
                (&unit("fixed.service"), "[Service]\nType=oneshot\n"),
                (&unit("masked.service"), INSTALL),
                (&unit("also.service"), "[Install]\nAlso=on.service\n"),
            ],
            &[
                ("/etc/systemd/system/multi-user.target.wants/on.service", &unit("on.service")),
                ("/etc/systemd/system/masked.service", "/dev/null"),
                (&unit("other-name.service"), "off.service"),
            ],
        );

        assert_eq!(
            told(&root),
            [
                "also.service loaded - - indirect",
                "fixed.service loaded - - static",
                "masked.service masked - - masked",
                "off.service loaded - - disabled",
                "on.service loaded - - enabled",
                "other-name.service loaded - - alias",
            ]
        );
    }

    #[test]
    fn the_state_is_by_the_control_groups_where_systemd_runs() {
        let slice = "/sys/fs/cgroup/system.slice";
        let root = root(
            &[
                (&format!("{LIB}/web.service"), INSTALL),
                (&format!("{LIB}/once.service"), INSTALL),
                (&format!("{LIB}/idle.service"), INSTALL),
                (&format!("{LIB}/getty@.service"), INSTALL),
                (&format!("{slice}/web.service/cgroup.events"), "populated 1\nfrozen 0\n"),
                (&format!("{slice}/system-getty.slice/getty@tty1.service/cgroup.events"), "populated 1\n"),
                ("/run/systemd/system/keep", ""),
            ],
            &[("/run/systemd/units/invocation:once.service", "0123")],
        );

        assert_eq!(
            told(&root),
            [
                "getty@.service - - - disabled",
                "getty@tty1.service loaded active running disabled",
                "idle.service loaded inactive dead disabled",
                "once.service loaded active exited disabled",
                "web.service loaded active running disabled",
            ]
        );
    }
}
