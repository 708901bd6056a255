//! Tables of the live machine against the system's own tools: whole sets of rows.

use std::collections::BTreeSet;
use std::fmt::Debug;

use muster_load_tests::dev_fleet::DevFleet;
use serde_json::Value;

use crate::support::{rows, system, with};

/// Looks at a machine that others use at the same time.
const LOOKS: usize = 4;

#[test]
fn tables_list_what_the_systems_own_tools_list() {
    let fleet = DevFleet::start(1).unwrap();

    processes_are_those_of_ps(&fleet);
    listening_ports_are_those_of_ss(&fleet);
    mounts_are_those_of_findmnt(&fleet);
    users_are_those_of_getent(&fleet);
    packages_are_those_of_dpkg(&fleet);
    services_are_those_of_systemctl(&fleet);
    interfaces_and_routes_are_those_of_ip(&fleet);
    disks_are_those_of_lsblk(&fleet);
    one_row_tables_say_what_small_tools_say(&fleet);
}

/// Asks the fleet's one device; every row without its device.
#[track_caller]
pub(crate) fn ask(fleet: &DevFleet, sql: &str) -> Vec<Value> {
    let said = with(fleet.muster(), ["ask", sql, "-o", "json", "--wait", "30s"]).with_code(0);
    let mut answered = rows(&said.json());
    for row in &mut answered {
        row.as_object_mut().unwrap().remove("device");
    }
    answered
}

/// A row's values as text, joined: what a tool prints.
pub(crate) fn line(row: &Value, columns: &[&str]) -> String {
    let text = |name: &&str| match &row[*name] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    };
    columns.iter().map(text).collect::<Vec<_>>().join("|")
}

fn asked(fleet: &DevFleet, sql: &str, columns: &[&str]) -> BTreeSet<String> {
    ask(fleet, sql).iter().map(|row| line(row, columns)).collect()
}

/// Compares two sets on a machine that changes meanwhile: what the tool shows before and after must be in the table, and
/// what only the table shows, time after time, should not be there.
#[track_caller]
fn same<T: Ord + Clone + Debug>(what: &str, tool: impl Fn() -> BTreeSet<T>, table: impl Fn() -> BTreeSet<T>) {
    let mut invented: Option<BTreeSet<T>> = None;
    for _ in 0..LOOKS {
        let before = tool();
        let shown = table();
        let after = tool();
        let missing: Vec<&T> = before.intersection(&after).filter(|row| !shown.contains(row)).collect();
        assert!(missing.is_empty(), "{what}: the table lacks {missing:#?}\nit has {shown:#?}");
        assert!(!shown.is_empty(), "{what}: no rows");
        let more = shown.iter().filter(|row| !before.contains(row) && !after.contains(row));
        let more: BTreeSet<T> = more.cloned().collect();
        let still = match invented.take() {
            Some(known) => known.intersection(&more).cloned().collect(),
            None => more,
        };
        if still.is_empty() {
            return;
        }
        invented = Some(still);
    }
    panic!("{what}: only the table shows {invented:#?}");
}

fn processes_are_those_of_ps(fleet: &DevFleet) {
    let ps = || {
        let said = system("ps", &["-e", "-ww", "-o", "pid=,ppid=,euid=,comm="]);
        let process = |line: &str| {
            let mut words = line.split_whitespace();
            let numbers = [words.next()?, words.next()?, words.next()?].join("|");
            let name = words.collect::<Vec<_>>().join(" ");
            // A worker of the kernel changes its name with its work.
            (!name.starts_with("kworker"))
                .then(|| format!("{numbers}|{}", name.trim_end_matches(" <defunct>")))
        };
        said.lines().into_iter().filter_map(process).collect()
    };
    let sql = "SELECT pid, ppid, uid, name FROM processes WHERE name NOT LIKE 'kworker%'";
    same("processes", ps, || asked(fleet, sql, &["pid", "ppid", "uid", "name"]));
}

fn listening_ports_are_those_of_ss(fleet: &DevFleet) {
    let ss = || {
        let said = system("ss", &["-H", "-l", "-t", "-u", "-n"]);
        let socket = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (address, port) = words[4].rsplit_once(':').unwrap();
            let address = address.split('%').next().unwrap().trim_start_matches('[').trim_end_matches(']');
            format!("{}|{}|{port}", words[0], if address == "*" { "::" } else { address })
        };
        said.lines().into_iter().map(socket).collect()
    };
    let sql = "SELECT protocol, address, port FROM listening_ports";
    same("listening_ports", ss, || asked(fleet, sql, &["protocol", "address", "port"]));
}

fn mounts_are_those_of_findmnt(fleet: &DevFleet) {
    let columns = ["source", "target", "fstype"];
    let findmnt = || {
        let said = system("findmnt", &["-J", "-l", "-v", "-o", "SOURCE,TARGET,FSTYPE"]).json();
        said["filesystems"].as_array().unwrap().iter().map(|row| line(row, &columns)).collect()
    };
    let sql = "SELECT device AS source, path, type FROM mounts";
    same("mounts", findmnt, || asked(fleet, sql, &["source", "path", "type"]));
    let said = system("df", &["-B1", "--output=size", "/"]);
    let size = ask(fleet, "SELECT size_bytes FROM mounts WHERE path = '/' ORDER BY size_bytes DESC LIMIT 1");
    assert_eq!(size[0]["size_bytes"].to_string(), said.lines()[1].trim());
}

fn users_are_those_of_getent(fleet: &DevFleet) {
    let getent = || {
        let said = system("getent", &["-s", "files", "passwd"]);
        let user = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            [fields[0], fields[2], fields[3], fields[4], fields[5], fields[6]].join("|")
        };
        said.lines().into_iter().map(user).collect()
    };
    let columns = ["name", "uid", "gid", "gecos", "home", "shell"];
    same("users", getent, || asked(fleet, "SELECT * FROM users", &columns));
}

fn packages_are_those_of_dpkg(fleet: &DevFleet) {
    let dpkg = || {
        let format = "${Package}|${Version}|${Architecture}|${Status}|${source:Package}\n";
        let said = system("dpkg-query", &["-W", "-f", format]);
        said.lines().into_iter().map(str::to_owned).collect()
    };
    let columns = ["name", "version", "architecture", "status", "source"];
    same("packages", dpkg, || {
        asked(fleet, "SELECT name, version, architecture, status, source FROM packages", &columns)
    });
}

fn services_are_those_of_systemctl(fleet: &DevFleet) {
    let systemctl = || {
        let said =
            system("systemctl", &["list-unit-files", "--type=service", "--root=/", "--no-legend", "--full"]);
        let unit = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join("|");
        said.lines().into_iter().map(unit).collect()
    };
    // Running instances have rows of their own beside their template.
    let sql = "SELECT name, enabled FROM services WHERE name LIKE '%@.service' OR name NOT LIKE '%@%'";
    same("services", systemctl, || asked(fleet, sql, &["name", "enabled"]));
}

fn interfaces_and_routes_are_those_of_ip(fleet: &DevFleet) {
    let addresses = || {
        let said = system("ip", &["-j", "address"]).json();
        let mut found = BTreeSet::new();
        for interface in said.as_array().unwrap() {
            let text = |name: &str| interface[name].as_str().unwrap_or("-").to_owned();
            let (name, state, mtu) = (text("ifname"), text("operstate").to_lowercase(), &interface["mtu"]);
            let own = interface["addr_info"].as_array().unwrap();
            for address in own {
                found.insert(format!(
                    "{name}|{mtu}|{state}|{}",
                    line(address, &["local", "prefixlen", "family"])
                ));
            }
            if own.is_empty() {
                found.insert(format!("{name}|{mtu}|{state}|-|-|-"));
            }
        }
        found
    };
    let columns = ["name", "mtu", "state", "address", "prefix_length", "family"];
    same("interfaces", addresses, || asked(fleet, "SELECT * FROM interfaces", &columns));

    let routes = || -> BTreeSet<String> {
        let of = |option: &'static str, family: &'static str, all: &'static str| {
            let said = system("ip", &["-j", option, "route"]).json();
            let route = move |route: &Value| {
                let (whole, bits) = if family == "inet" { (all, "32") } else { (all, "128") };
                let destination = match route["dst"].as_str().unwrap() {
                    "default" => format!("{whole}|0"),
                    given => given
                        .split_once('/')
                        .map_or(format!("{given}|{bits}"), |(net, bits)| format!("{net}|{bits}")),
                };
                format!("{destination}|{}|{family}", line(route, &["gateway", "dev"]))
            };
            said.as_array().unwrap().iter().map(route).collect::<Vec<_>>()
        };
        of("-4", "inet", "0.0.0.0").into_iter().chain(of("-6", "inet6", "::")).collect()
    };
    let columns = ["destination", "prefix_length", "gateway", "interface", "family"];
    if !routes().is_empty() {
        same("routes", routes, || asked(fleet, "SELECT * FROM routes", &columns));
    }
}

fn disks_are_those_of_lsblk(fleet: &DevFleet) {
    let lsblk = || -> BTreeSet<String> {
        let said = system("lsblk", &["-r", "-b", "-d", "-n", "-o", "NAME,SIZE"]);
        said.lines().into_iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join("|")).collect()
    };
    if !lsblk().is_empty() {
        same("disks", lsblk, || asked(fleet, "SELECT name, size_bytes FROM disks", &["name", "size_bytes"]));
    }
}

fn one_row_tables_say_what_small_tools_say(fleet: &DevFleet) {
    let first = |sql: &str, column: &str| line(&ask(fleet, sql)[0], &[column]);
    let said = |program: &str, argument: &str| system(program, &[argument]).out.trim().to_owned();

    assert_eq!(first("SELECT kernel FROM os", "kernel"), said("uname", "-r"));
    assert_eq!(first("SELECT arch FROM os", "arch"), said("uname", "-m"));
    assert_eq!(first("SELECT hostname FROM host", "hostname"), said("uname", "-n"));
    assert_eq!(first("SELECT logical_cores FROM cpu", "logical_cores"), said("nproc", "--all"));
    let memory = system("free", &["-b"]);
    let total = memory.lines()[1].split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(first("SELECT total_bytes FROM memory", "total_bytes"), total);
    let before: i64 = said("date", "+%s").parse().unwrap();
    let asked: i64 = first("SELECT unix FROM time", "unix").parse().unwrap();
    let after: i64 = said("date", "+%s").parse().unwrap();
    assert!((before..=after).contains(&asked), "{before} {asked} {after}");
}
