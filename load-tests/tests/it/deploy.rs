//! What deploy/ ships: systemd accepts the units, each program its example configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use muster_load_tests::dev_fleet;

use crate::support::{Place, Said, binary, folder, repository, run, system, write};

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
