//! The shipped definitions, each run for real, held against what the system itself says; bad arguments are refused
//! with the parameter and its bound.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;

use muster_load_tests::dev_fleet::DevFleet;
use muster_load_tests::operator::Operator;
use muster_proto::common::v1::{NamedValue, Value as Wire, value::Kind};
use muster_proto::operator::v1::PrepareInstructionRequest;
use serde_json::{Value, json};

use crate::support::{folder, rows, run, system, with, write};
use crate::tables::line;

#[test]
fn each_shipped_definition_answers_what_the_system_says() {
    let fleet = DevFleet::start(1).unwrap();

    os_version_is_that_of_uname_and_os_release(&fleet);
    disk_full_is_that_of_df(&fleet);
    port_listeners_are_those_of_ss(&fleet);
    process_top_is_that_of_ps(&fleet);
    file_hash_is_that_of_sha256sum(&fleet);
    package_versions_are_those_of_dpkg(&fleet);
    service_states_are_those_of_systemctl(&fleet);
    certificates_expiring_are_those_of_openssl(&fleet);
}

#[test]
fn each_bad_argument_is_refused_with_its_parameter_and_bound() {
    let fleet = DevFleet::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (definition, parameter, bad, bound) in [
        ("Muster-Certificates-Expiring", "days", "3651", "an integer from 0 to 3650"),
        ("Muster-Certificates-Expiring", "path", "/etc; id", "text of at most 200 bytes that matches (/["),
        ("Muster-Certificates-Expiring", "path", "/etc/..", "text of at most 200 bytes that matches (/["),
        ("Muster-Disk-Full", "percent", "-1", "an integer from 0 to 100"),
        ("Muster-File-Hash", "path", "etc/passwd", "matches (/[^/]+)+ as a whole"),
        ("Muster-File-Hash", "path", "", "text of at most 1024 bytes"),
        ("Muster-Package-Version", "name", "$(id)", "matches [A-Za-z0-9*?][A-Za-z0-9.+_*?:-]* as a whole"),
        ("Muster-Port-Listeners", "port", "65536", "an integer from 0 to 65535"),
        ("Muster-Process-Top", "by", "disk", "one of memory, cpu"),
        ("Muster-Process-Top", "count", "101", "an integer from 1 to 100"),
        ("Muster-Service-State", "name", "a b", "text of at most 256 bytes"),
        ("Muster-Os-Version", "name", "a", "it has none"),
    ] {
        let typed = format!("{parameter}={bad}");
        let refused = with(fleet.muster(), ["run", definition, "-p", &typed, "--wait", "10s"]).with_code(2);
        refused.naming(&[parameter, bound]);

        // The Switch does not take the command line's word for it.
        let error = runtime.block_on(prepare(&fleet, definition, parameter, bad)).unwrap_err();
        let said = format!("{error:#}");
        assert!(said.contains(parameter) && said.contains(bound), "{definition} {typed}: {said}");
    }
    with(fleet.muster(), ["run", "Muster-File-Hash", "--wait", "10s"])
        .with_code(2)
        .naming(&["path", "has no default"]);
}

#[test]
fn hostile_arguments_leave_no_trace_on_a_device() {
    let fleet = DevFleet::start(1).unwrap();
    let folder = folder();
    let canary = folder.path().join("canary");
    let harm = canary.display();
    let plain = folder.path().join("plain");
    write(&plain, "x");
    for (definition, parameter, hostile) in [
        ("Muster-File-Hash", "path", format!("/$(touch {harm})")),
        ("Muster-File-Hash", "path", format!("/x; touch {harm}")),
        (
            "Muster-File-Hash",
            "path",
            format!("/x' UNION SELECT writefile('{harm}', 'x'), 1, 1, 1, 1, 1, 1 --"),
        ),
        ("Muster-File-Hash", "path", format!("/x\n`touch {harm}`")),
        ("Muster-File-Hash", "path", "/etc/../etc/*".to_owned()),
        ("Muster-Package-Version", "name", "*".repeat(128)),
        ("Muster-Service-State", "name", "--root-*?".to_owned()),
        ("Muster-Service-State", "name", "\\*\\".to_owned()),
    ] {
        let typed = format!("{parameter}={hostile}");
        let said = with(fleet.muster(), ["run", definition, "-p", &typed, "-o", "json", "--wait", "30s"]);

        let answer = said.with_code(0).json();
        assert_eq!(answer["states"], json!({ "answered": 1 }), "{typed}");
        if definition == "Muster-File-Hash" {
            assert_eq!(rows(&answer), Vec::<Value>::new(), "{typed}");
        }
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(left, [plain]);
}

async fn prepare(fleet: &DevFleet, definition: &str, name: &str, value: &str) -> anyhow::Result<()> {
    let operator = Operator::connect(&fleet.ready.home, &fleet.ready.operator).await?;
    let kind = value.parse().map_or_else(|_| Kind::Text(value.to_owned()), Kind::Integer);
    let argument = NamedValue { name: name.to_owned(), value: Some(Wire { kind: Some(kind) }) };
    let request = PrepareInstructionRequest {
        definition: definition.to_owned(),
        arguments: vec![argument],
        ..PrepareInstructionRequest::default()
    };
    operator.instructions().prepare_instruction(request).await?;
    Ok(())
}

/// The rows that the one device answers, over which the definition's own aggregate runs, too.
#[track_caller]
fn answer(fleet: &DevFleet, definition: &str, arguments: &[&str]) -> Vec<Value> {
    let given = arguments.iter().flat_map(|argument| ["-p", argument]);
    let words = ["run", definition, "-o", "json", "--wait", "30s"].into_iter().chain(given);
    let answer = with(fleet.muster(), words).with_code(0).json();
    let found = rows(&answer);
    let id = answer["instruction"].as_str().unwrap();
    let summed = with(fleet.muster(), ["instruction", "aggregate", id, "-o", "json"]).with_code(0).json();
    assert_eq!((&summed["partial"], &summed["rows_read"]), (&json!(false), &json!(found.len())), "{summed}");
    assert_eq!(rows(&summed).is_empty(), found.is_empty(), "{summed}");
    found
}

/// Unix seconds of a moment as the command line writes it.
#[track_caller]
fn moment(value: &Value) -> i64 {
    let text = value.as_str().unwrap_or_else(|| panic!("no moment: {value}"));
    system("date", &["-d", text, "+%s"]).out.trim().parse().unwrap()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn os_version_is_that_of_uname_and_os_release(fleet: &DevFleet) {
    let found = answer(fleet, "Muster-Os-Version", &[]);

    let release =
        system("sh", &["-c", ". /etc/os-release; echo \"$NAME|$VERSION_ID|${VERSION_CODENAME:--}\""]);
    let uname = system("uname", &["-r", "-m"]);
    assert_eq!(found.len(), 1);
    assert_eq!(line(&found[0], &["name", "version", "codename"]), release.out.trim());
    assert_eq!(line(&found[0], &["kernel", "arch"]), words(&uname.out).join("|"));
    let booted = system("awk", &["/^btime/ { print $2 }", "/proc/stat"]).out.trim().parse::<i64>().unwrap();
    assert!((moment(&found[0]["boot_time"]) - booted).abs() <= 1, "{found:?}, /proc/stat: {booted}");
}

fn disk_full_is_that_of_df(fleet: &DevFleet) {
    let found = answer(fleet, "Muster-Disk-Full", &["percent=0"]);
    let full = answer(fleet, "Muster-Disk-Full", &["percent=100"]);

    let df = system("df", &["-B1", "--output=target,size,avail"]);
    for row in df.lines().iter().skip(1) {
        let [path, size, free] = words(row)[..] else { panic!("{row}") };
        let (size, free) = (size.parse::<i64>().unwrap(), free.parse::<i64>().unwrap());
        let is_it = |row: &&Value| row["path"] == path && row["size_bytes"] == size;
        let Some(shown) = found.iter().find(is_it) else {
            assert!(size == 0, "df shows {row}, the definition {found:#?}");
            continue;
        };
        let percent = 100 * (size - free) / size;
        assert!((shown["percent"].as_i64().unwrap() - percent).abs() <= 2, "{row}: {shown}");
    }
    assert!(found.iter().any(|row| row["path"] == "/"), "{found:?}");
    assert!(full.iter().all(|row| row["percent"].as_i64() >= Some(100)), "{full:?}");
}

fn port_listeners_are_those_of_ss(fleet: &DevFleet) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let argument = format!("port={port}");

    let found = answer(fleet, "Muster-Port-Listeners", &[&argument]);
    let all = answer(fleet, "Muster-Port-Listeners", &[]);

    let ss = system("ss", &["-H", "-l", "-t", "-n", "-p", &format!("sport = :{port}")]).out;
    let me = std::process::id();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        line(&found[0], &["protocol", "address", "port", "pid"]),
        format!("tcp|127.0.0.1|{port}|{me}")
    );
    assert!(ss.contains(&format!("127.0.0.1:{port}")) && ss.contains(&format!("pid={me},")), "{ss}");
    assert!(all.len() > 1 && all.iter().any(|row| row["port"] == port), "{all:?}");
    drop(listener);
    assert_eq!(answer(fleet, "Muster-Port-Listeners", &[&argument]), Vec::<Value>::new());
}

fn process_top_is_that_of_ps(fleet: &DevFleet) {
    // The largest change places while one looks: who is among the first three throughout is among the first twenty.
    let ps = |key: &str| -> BTreeSet<String> {
        let said = system("ps", &["-e", "-o", "pid=", "--sort", key]);
        said.lines().iter().take(3).map(|pid| pid.trim().to_owned()).collect()
    };
    for (by, key, column) in [("memory", "-rss", "rss_bytes"), ("cpu", "-time", "cpu_time_ms")] {
        let before = ps(key);
        let found = answer(fleet, "Muster-Process-Top", &[&format!("by={by}"), "count=20"]);
        let after = ps(key);

        let pids: BTreeSet<String> = found.iter().map(|row| row["pid"].to_string()).collect();
        let throughout: Vec<&String> = before.intersection(&after).collect();
        assert!(
            throughout.iter().all(|pid| pids.contains(*pid)),
            "{by}: ps {throughout:?}, found {found:#?}"
        );
        assert!(
            found.len() <= 20 && found.is_sorted_by_key(|row| -row[column].as_i64().unwrap()),
            "{found:?}"
        );
    }
    assert_eq!(answer(fleet, "Muster-Process-Top", &["count=1"]).len(), 1);
}

fn file_hash_is_that_of_sha256sum(fleet: &DevFleet) {
    let folder = folder();
    let file = folder.path().join("with 'quotes' and *");
    write(&file, "What the hash is known of.\n");
    let path = file.to_str().unwrap();

    let found = answer(fleet, "Muster-File-Hash", &[&format!("path={path}")]);

    let stat = system("stat", &["-c", "%s|%a|%U|%Y", path]).out;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["path"], path);
    assert_eq!(found[0]["sha256"], system("sha256sum", &[path]).out.trim_start_matches('\\')[..64]);
    let [size, mode, owner] = ["size", "mode", "owner"].map(|name| line(&found[0], &[name]));
    let mode = mode.trim_start_matches('0');
    assert_eq!(format!("{size}|{mode}|{owner}|{}", moment(&found[0]["mtime"])), stat.trim());
    assert_eq!(answer(fleet, "Muster-File-Hash", &["path=/absent/file"]), Vec::<Value>::new());
}

fn package_versions_are_those_of_dpkg(fleet: &DevFleet) {
    let found = answer(fleet, "Muster-Package-Version", &["name=lib*c*"]);

    let said =
        system("dpkg-query", &["-W", "-f", "${Package}|${Version}|${Architecture}|${Status}\n", "lib*c*"]);
    // With a pattern, dpkg-query also lists what others only name.
    let is_there = |row: &&str| !row.ends_with(" not-installed");
    let dpkg: BTreeSet<String> = said.lines().into_iter().filter(is_there).map(str::to_owned).collect();
    let shown: BTreeSet<String> =
        found.iter().map(|row| line(row, &["name", "version", "architecture", "status"])).collect();
    assert!(!dpkg.is_empty());
    assert_eq!(shown, dpkg);
}

fn service_states_are_those_of_systemctl(fleet: &DevFleet) {
    let said =
        system("systemctl", &["list-unit-files", "--type=service", "--root=/", "--no-legend", "--full"]);
    let units: Vec<(&str, &str)> =
        said.lines().into_iter().map(words).map(|words| (words[0], words[1])).collect();
    let (name, state) = units.iter().copied().find(|(name, _)| !name.contains('@')).unwrap();

    let found = answer(fleet, "Muster-Service-State", &[&format!("name={name}")]);
    let short =
        answer(fleet, "Muster-Service-State", &[&format!("name={}", name.trim_end_matches(".service"))]);

    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(line(&found[0], &["name", "enabled"]), format!("{name}|{state}"));
    assert_eq!(short, found);
    let prefix = &name[..3];
    let pattern = answer(fleet, "Muster-Service-State", &[&format!("name={prefix}*")]);
    let wanted = units.iter().filter(|(name, _)| name.starts_with(prefix) && !name.contains('@'));
    for (name, _) in wanted {
        assert!(pattern.iter().any(|row| row["name"] == *name), "{name}: {pattern:?}");
    }
    assert!(pattern.iter().all(|row| row["name"].as_str().is_some_and(|name| name.starts_with(prefix))));
}

fn certificates_expiring_are_those_of_openssl(fleet: &DevFleet) {
    let folder = folder();
    let below = folder.path().to_str().unwrap();
    for (name, days) in [("soon", "30"), ("late", "400")] {
        let mut request = Command::new("openssl");
        request
            .args([
                "req",
                "-x509",
                "-nodes",
                "-days",
                days,
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-subj", &format!("/CN={name}.example.org")])
            .arg("-keyout")
            .arg(folder.path().join(format!("{name}.key")))
            .arg("-out")
            .arg(folder.path().join(format!("{name}.crt")));
        run(&mut request).with_code(0);
    }
    let path = format!("path={below}");

    let found = answer(fleet, "Muster-Certificates-Expiring", &[&path, "days=60"]);
    let all = answer(fleet, "Muster-Certificates-Expiring", &[&path, "days=3650"]);

    let file = folder.path().join("soon.crt");
    let x509 = |option: &str| {
        let said = system("openssl", &["x509", "-in", file.to_str().unwrap(), "-noout", option]).out;
        said.trim().split_once('=').unwrap().1.to_owned()
    };
    let end = system("date", &["-d", &x509("-enddate"), "+%s"]).out;
    assert_eq!(found.len(), 1, "{found:?}");
    let wanted = format!("{}|CN=soon.example.org|CN=soon.example.org|{}", file.display(), x509("-serial"));
    assert_eq!(line(&found[0], &["path", "subject", "issuer", "serial"]), wanted);
    assert_eq!(moment(&found[0]["not_after"]).to_string(), end.trim());
    assert_eq!(all.len(), 2, "{all:?}");
}
