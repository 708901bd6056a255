//! Scripts where the machine gives less than it could: fewer rights, no control group, a watcher that is killed.

use muster_endpoint::{HelperCommand, QueryError, SandboxProfile, Script};

use crate::sandbox::can_make_every_layer;
use crate::scripts::{run, run_by, script};
use crate::support::{helper, lacks};

/// The helper, started by another program.
fn helper_by(program: &str, words: &[&str]) -> HelperCommand {
    let words = words.iter().map(|word| (*word).into());
    HelperCommand { program: program.into(), arguments: words.chain([helper().program.into()]).collect() }
}

fn is_no_root() -> bool {
    lacks("root", !nix::unistd::geteuid().is_root(), "run the tests as root")
}

/// As root below the unit that is shipped.
fn helper_with_the_rights_of_the_unit() -> HelperCommand {
    let unit = include_str!("../../../../deploy/systemd/muster-client.service");
    let rights = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let rights: String =
        rights.split(' ').map(|right| format!(",+{}", &right["CAP_".len()..].to_lowercase())).collect();
    helper_by("/usr/bin/setpriv", &["--bounding-set", &format!("-all{rights}")])
}

/// Folders of strict scripts.
fn folders_of_nobody() -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir("/tmp").unwrap().flatten();
    let is_one = |entry: &std::fs::DirEntry| {
        let is_nobodys = |found: std::fs::Metadata| std::os::unix::fs::MetadataExt::uid(&found) == 65_534;
        entry.file_name().to_string_lossy().starts_with("muster-step-")
            && entry.metadata().is_ok_and(is_nobodys)
    };
    entries.filter(is_one).map(|entry| entry.path()).collect()
}

#[test]
fn a_strict_script_gets_as_far_with_the_rights_of_the_shipped_unit_as_with_all() {
    if is_no_root() {
        return;
    }
    let strict = || Script {
        sandbox: SandboxProfile::Strict,
        ..script("echo x > file && mkdir -p a/b && echo y > a/b/c && printf '{\"said\":\"%s\"}\\n' \"$(id -u)\"")
    };

    let with_all = run(strict());
    let with_the_units = run_by(&helper_with_the_rights_of_the_unit(), strict());

    assert_eq!(with_all, with_the_units);
    match with_the_units {
        Ok(answer) => assert_eq!(answer.rows, [["65534".into()]]),
        Err(QueryError::Sandbox { missing }) => {
            // It got to where it would have been the script.
            assert!(missing.iter().all(|layer| layer.starts_with("cgroup: ")), "{missing:?}");
            lacks("sandbox", can_make_every_layer(), "let the tests have control groups with their controllers");
        }
        Err(other) => panic!("{other}"),
    }
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !folders_of_nobody().is_empty() {
        assert!(std::time::Instant::now() < until, "{:?} are left", folders_of_nobody());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
