//! What deploy/ ships: systemd accepts the units, each program its example configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use muster_load_tests::dev_fleet;

use crate::support::{Place, Said, Service, binary, folder, repository, run, system, write};

const DEVICE: &str = "web1.example.org";

/// A program and its example configuration.
const PROGRAMS: [(&str, &str); 3] = [
    ("muster-switch", "switch.toml"),
    ("muster-background-channel", "background-channel.toml"),
    ("muster-client", "client.toml"),
];

#[test]
fn systemd_accepts_the_units() {
    let folder = folder();
    for (program, _) in PROGRAMS {
        let unit = unit(folder.path(), program);

        let verified = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));

        let said: Vec<&str> = verified.err.lines().filter(|line| line.contains("muster")).collect();
        assert!(verified.code == 0 && said.is_empty(), "{verified:?}");
    }
}

#[test]
fn the_units_give_away_little() {
    let folder = folder();
    // systemd's scale is 0 (locked up) to 10 (anything goes); the option takes tenths. The client has to see the machine.
    for (program, tenths) in [("muster-switch", 20), ("muster-background-channel", 20), ("muster-client", 60)]
    {
        let unit = unit(folder.path(), program);

        let mut analyze = Command::new("systemd-analyze");
        analyze
            .args(["security", "--offline=yes", "--no-pager", &format!("--threshold={tenths}")])
            .arg(&unit);
        let said = run(&mut analyze).with_code(0);

        assert!(said.out.contains("Overall exposure level"), "{}", said.out);
    }
}

#[test]
fn the_units_start_the_client_at_boot_and_keep_it() {
    let text = std::fs::read_to_string(shipped("systemd/muster-client.service")).unwrap();
    for wanted in ["WantedBy=multi-user.target", "Restart=always", "After=network-online.target"] {
        assert!(text.lines().any(|line| line == wanted), "no {wanted}");
    }
    let sysusers = std::fs::read_to_string(shipped("sysusers.d/muster.conf")).unwrap();
    for program in ["muster-switch", "muster-background-channel"] {
        let text = std::fs::read_to_string(shipped(&format!("systemd/{program}.service"))).unwrap();
        let user = text.lines().find_map(|line| line.strip_prefix("User=")).expect("a user of its own");
        assert!(
            sysusers.lines().any(|line| line.split_whitespace().nth(1) == Some(user)),
            "{user} is made nowhere"
        );
        // What is deleted when its time is up.
        assert!(text.lines().any(|line| line == "After=network-online.target time-sync.target"), "{program}");
    }
}

#[test]
fn example_configurations_are_accepted_and_explained() {
    let place = place();
    for (program, file) in PROGRAMS {
        let config = example(&place, file);

        check(program, &shipped(&format!("config/{file}"))).with_code(0);
        check(program, &config).with_code(0);
        check_files(program, &config).with_code(0);
        let explained =
            run(binary(program).args(["config", "explain", "--config"]).arg(&config)).with_code(0);

        let line = explained.out.lines().find(|line| line.trim_start().starts_with("tls.certificate"));
        let line = line.unwrap_or_else(|| panic!("{program}: {}", explained.out));
        assert!(line.contains(file), "it says which layer: {line}");
        let mut overridden = binary(program);
        let variable = format!("{}_DATA_DIR", program.to_uppercase().replace('-', "_"));
        overridden.env(&variable, "/tmp/elsewhere").args(["config", "explain", "--config"]).arg(&config);
        let explained = run(&mut overridden).with_code(0);
        let line = explained.out.lines().find(|line| line.trim_start().starts_with("data_dir")).unwrap();
        assert!(line.contains("/tmp/elsewhere") && line.contains(&variable), "{line}");
    }
}

#[test]
fn mistakes_in_a_configuration_are_named_with_their_place() {
    let place = place();
    for (program, file) in PROGRAMS {
        let good = std::fs::read_to_string(example(&place, file)).unwrap();
        let bad = place.path(&format!("bad/{file}"));
        let refused = |text: &str, words: &[&str]| {
            write(&bad, text);
            check(program, &bad).with_code(78).naming(&[file]).naming(words);
        };

        refused(&format!("data_dri = \"/x\"\n{good}"), &["data_dri", "data_dir", &format!("{file}:1:")]);
        refused(&good.replace("[tls]\n", "[tls]\ncertifcate = \"/x\"\n"), &["tls.certifcate", "certificate"]);
        refused(&format!("data_dir = 5\n{}", good.replace("data_dir", "# data_dir")), &["data_dir"]);
        refused(&format!("{good}\nthis is no TOML"), &[]);
        check(program, &place.path("bad/absent.toml")).with_code(78).naming(&["absent.toml"]);
    }
    let good = std::fs::read_to_string(example(&place, "switch.toml")).unwrap();
    let refused = |from: &str, to: &str, words: &[&str]| {
        let bad = place.path("bad/switch.toml");
        assert!(good.contains(from), "{from}");
        write(&bad, &good.replace(from, to));
        check_files("muster-switch", &bad).with_code(78).naming(words);
    };
    refused("admin_listen = \"127.0.0.1", "admin_listen = \"0.0.0.0", &["admin_listen", "loopback"]);
    refused("\"150s\"", "\"soon\"", &["dead_after", "soon"]);
    refused("switch/tls.pem", "switch/gone.pem", &["switch/gone.pem"]);
}

#[test]
fn the_examples_show_every_key() {
    for (program, file) in PROGRAMS {
        let mut explain = binary(program);
        explain.args(["config", "explain", "--config"]).arg(shipped(&format!("config/{file}")));

        let explained = run(&mut explain).with_code(0);

        // A list of tables cannot be written empty after a table; the Switch's file shows grants in a comment.
        let is_left_out = |line: &&&str| line.ends_with("  default") && !line.starts_with("grant ");
        let left_out: Vec<&str> = explained.lines().iter().filter(is_left_out).copied().collect();
        assert!(left_out.is_empty(), "{file} lacks {left_out:#?}");
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let place = place();
    for (program, file) in PROGRAMS {
        let good = std::fs::read_to_string(example(&place, file)).unwrap();
        let bad = place.path(&format!("bad/{file}"));
        let text = good
            .replace("crls = []", "crls = [1]")
            .replace("[tls]\n", "[tls]\ncertifcate = \"/x\"\n")
            .replace("filter = \"info\"", "filter = \"=,=\"");
        write(&bad, &format!("data_dri = \"/x\"\n{text}"));

        let said = check(program, &bad).with_code(78);

        let line_of = |part: &str| {
            let text = std::fs::read_to_string(&bad).unwrap();
            let line = text.lines().position(|line| line.contains(part)).unwrap() + 1;
            format!("{file}:{line}: ")
        };
        let said = said.naming(&[
            &format!("{}unknown key `data_dri`; did you mean `data_dir`?", line_of("data_dri")),
            &format!("{}key `crls`: invalid type: integer `1`, expected", line_of("crls = [1]")),
            &format!(
                "{}unknown key `tls.certifcate`; did you mean `tls.certificate`?",
                line_of("certifcate")
            ),
            &format!("{}key `log.filter`: got", line_of("filter = \"=,=\"")),
        ]);
        assert_eq!(said.err.lines().count(), 4, "{}", said.err);
    }
}

#[test]
fn every_file_that_does_not_do_is_told_with_its_key() {
    let place = place();
    for (program, file, role) in [
        ("muster-switch", "switch.toml", "devices"),
        ("muster-background-channel", "background-channel.toml", "devices"),
        ("muster-client", "client.toml", "authors"),
    ] {
        let good = std::fs::read_to_string(example(&place, file)).unwrap();
        let bad = place.path(&format!("bad/{file}"));
        let text = good
            .replace("/tls.key", "/gone.key")
            .replace(&format!("trust/{role}.pem"), "trust/gone.pem")
            .replace("crls = []", "crls = [\"/nowhere/x.crl\"]");
        write(&bad, &format!("data_dri = \"/x\"\n{text}"));

        let trust = format!("key `trust.{role}`");
        let said = check_files(program, &bad).with_code(78);
        let mut told: Vec<&str> = said.err.lines().collect();
        told.sort_unstable();
        told.dedup_by_key(|line| line.split(": No such file").next().map(str::to_owned));
        assert_eq!(told.len(), said.err.lines().count(), "nothing is told twice:\n{}", said.err);
        said.naming(&[
            &format!("{file}:1: unknown key `data_dri`"),
            "key `tls.key`",
            "/gone.key",
            &trust,
            "trust/gone.pem",
            "key `crls`",
            "/nowhere/x.crl",
        ]);
        check(program, &bad).with_code(78).naming(&["data_dri"]);
    }
}

#[test]
fn a_missing_configuration_says_where_it_was_looked_for_and_what_to_do() {
    for (program, file) in PROGRAMS {
        let default = format!("/etc/muster/{file}");
        let example = format!("deploy/config/{file}");
        let absent = Path::new("/nowhere/x.toml");

        for words in [&["run"][..], &["config", "explain"]] {
            let named = run(binary(program).args(words).arg("--config").arg(absent)).with_code(78);
            let named =
                named.naming(&["/nowhere/x.toml", "there is no such file", "--config FILE", &example]);
            assert!(!named.err.contains("os error"), "{}", named.err);
            // A machine that has one would start it.
            if !Path::new(&default).exists() {
                run(binary(program).args(words)).with_code(78).naming(&[
                    &default,
                    "there is no such file",
                    "--config FILE",
                    &example,
                ]);
            }
        }
    }
}

#[test]
fn every_program_has_the_same_commands() {
    for (program, file) in PROGRAMS {
        let help = run(binary(program).args(["config", "check", "--help"])).with_code(0).out;
        assert!(help.contains(&format!("/etc/muster/{file}")) && help.contains("--files"), "{help}");
        let help = run(binary(program).arg("--help")).with_code(0).out;
        assert!(help.contains("Exit codes") && help.contains("78"), "{help}");
        let version = run(binary(program).arg("--version")).with_code(0).out;
        assert!(version.starts_with(&format!("{program} ")), "{version}");
        run(binary(program).arg("rnu")).with_code(2).naming(&["rnu", "--help"]);
    }
}

#[test]
fn an_event_with_wrong_arguments_is_a_mistake_and_a_stopped_client_is_none() {
    let folder = folder();
    let post = |words: &[&str]| {
        run(binary("muster-client").args(["event", "post", "--data-dir"]).arg(folder.path()).args(words))
    };

    post(&["App Started"]).with_code(2).naming(&["NAME `App Started`", "wanted 1 to 64"]);
    post(&["app.started", "user"]).with_code(2).naming(&["KEY=VALUE"]);
    post(&["app.started", "user=a", "user=b"]).with_code(2).naming(&["`user` stands twice"]);
    post(&["app.started", "user=a"]).with_code(69).naming(&[
        "client.sock",
        "is the client running?",
        "systemctl status muster-client",
    ]);
}

#[test]
fn a_damaged_store_stops_the_start_for_good_and_says_what_to_do() {
    let place = place();
    for (program, file, store) in [
        ("muster-switch", "switch.toml", "lib/muster/switch/switch.db"),
        (
            "muster-background-channel",
            "background-channel.toml",
            "lib/muster/background-channel/spool.sqlite",
        ),
        ("muster-client", "client.toml", "lib/muster/client/client.db"),
    ] {
        let config = example(&place, file);
        let text = std::fs::read_to_string(&config).unwrap();
        // Free ports, so that nothing else is in the way.
        let addresses = ["0.0.0.0:4000", "0.0.0.0:4001", "127.0.0.1:4002", "0.0.0.0:4443", "127.0.0.1:4442"];
        let text = addresses.iter().fold(text, |text, address| text.replace(address, "127.0.0.1:0"));
        write(&config, &text);
        write(&place.path(store), &"this is no database\n".repeat(100));

        let mut command = binary(program);
        command.args(["run", "--config"]).arg(&config);
        let mut service = Service::start(command, &place.path(&format!("{program}.log")));
        let code = service.ends();

        let log = service.log();
        assert_eq!(code, Some(78), "{program}: {log}");
        let file = Path::new(store).file_name().unwrap().to_str().unwrap();
        assert!(log.contains(file) && log.contains("move") && log.contains("away"), "{program}: {log}");
    }
}

/// The certificates that the example configurations name, in a temporary folder.
fn place() -> Place {
    let place = Place::with_pki(&[DEVICE]);
    let copies = [
        ("certs/localhost", "etc/muster/switch/tls"),
        ("certs/localhost", "etc/muster/background-channel/tls"),
        ("certs/relay", "etc/muster/background-channel/service"),
        ("certs/web1.example.org", "etc/muster/client/tls"),
    ];
    for (from, to) in copies {
        std::fs::create_dir_all(place.path(to).parent().unwrap()).unwrap();
        for extension in ["pem", "key"] {
            std::fs::copy(
                place.path(&format!("{from}.{extension}")),
                place.path(&format!("{to}.{extension}")),
            )
            .unwrap();
        }
    }
    let (from, to) = (place.path("home/trust"), place.path("etc/muster/trust"));
    system("cp", &["-r", from.to_str().unwrap(), to.to_str().unwrap()]);
    place
}

/// A shipped configuration, its paths in the place.
fn example(place: &Place, file: &str) -> PathBuf {
    let text = std::fs::read_to_string(shipped(&format!("config/{file}"))).unwrap();
    let path = place.path(&format!("example/{file}"));
    let below = |folder: &str| format!("\"{}/", place.path(folder).display());
    write(&path, &text.replace("\"/etc/", &below("etc")).replace("\"/var/lib/", &below("lib")));
    path
}

fn check(program: &str, config: &Path) -> Said {
    run(binary(program).args(["config", "check"]).arg(config))
}

/// With the certificates, keys and roots that it names.
fn check_files(program: &str, config: &Path) -> Said {
    run(binary(program).args(["config", "check", "--files"]).arg(config))
}

fn shipped(relative: &str) -> PathBuf {
    repository().join("deploy").join(relative)
}

/// A unit whose program is the built one.
fn unit(folder: &Path, program: &str) -> PathBuf {
    let text = std::fs::read_to_string(shipped(&format!("systemd/{program}.service"))).unwrap();
    let installed = format!("/usr/bin/{program}");
    assert!(text.contains(&installed), "{program}: {text}");
    let path = folder.join(format!("{program}.service"));
    write(&path, &text.replace(&installed, &dev_fleet::binary(program).display().to_string()));
    path
}
