use std::path::PathBuf;
use std::process::{Command, Output};

use muster_client::Config;
use muster_pki::trust_store::fingerprint;
use tokio::net::TcpListener;

use crate::lab::{DEVICE, Lab};
use crate::switch::acceptor;

#[tokio::test(flavor = "multi_thread")]
async fn t7_a_servers_certificate_is_saved_with_its_fingerprint_and_never_without() {
    let lab = Lab::new(1, 1);
    let config = lab.with_folders();
    std::fs::remove_file(config.trust.folder.join("cainfo.pem")).unwrap();
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let server = format!("localhost:{}", listener.local_addr().unwrap().port());
    let acceptor = acceptor(&lab);
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move {
        for _ in 0..3 {
            let (stream, _) = listener.accept().await.unwrap();
            // A caller that shows no certificate is refused; ours has seen what it wants by then.
            drop(acceptor.accept(stream).await);
        }
    });
    let right = fingerprint::text(&lab.server.certificate.thumbprint());
    let wrong = fingerprint::text(&muster_pki::Thumbprint::of(b"another"));
    let saved = config.trust.folder.join("cainfo.pem");

    let silent = command(&lab, &config, &["trust", "fetch", &server]);
    assert!(!silent.status.success() && told(&silent).contains(&right), "{}", told(&silent));
    let other = command(&lab, &config, &["trust", "fetch", &server, "--fingerprint", &wrong]);
    assert!(!other.status.success() && !saved.exists(), "{}", told(&other));
    let fetched = command(&lab, &config, &["trust", "fetch", &server, "--fingerprint", &right]);
    assert!(fetched.status.success(), "{}", told(&fetched));

    serving.join_next().await.unwrap().unwrap();
    let shown = command(&lab, &config, &["trust", "show"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&right) && shown.contains("\"server\""), "{shown}");
    std::fs::write(config.trust.folder.join("cainfo-merged.pem"), "").unwrap();
    assert!(command(&lab, &config, &["trust", "rebuild"]).status.success());
    assert!(
        std::fs::read_to_string(config.trust.folder.join("cainfo-merged.pem")).unwrap().contains("BEGIN")
    );
}

#[test]
fn c5_an_imported_certificate_stands_in_the_store_and_the_list_says_why_it_is_chosen() {
    let lab = Lab::new(1, 1);
    let config = lab.with_folders();
    for name in ["any name.pem", "any name.key"] {
        std::fs::remove_file(config.tls.store.join(name)).unwrap();
    }
    let file = |name: &str| lab.folder.path().join(name).display().to_string();

    let imported =
        command(&lab, &config, &["cert", "import", &file("device.pem"), "--key", &file("device.key")]);
    assert!(imported.status.success(), "{}", told(&imported));
    let keyless = command(&lab, &config, &["cert", "import", &file("server.pem")]);
    assert!(!keyless.status.success());

    let listed = command(&lab, &config, &["cert", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("\"chosen\": true") && listed.contains("S2 the only candidate"), "{listed}");
    let files: Vec<_> = std::fs::read_dir(&config.tls.store).unwrap().collect();
    assert_eq!(files.len(), 1);
}

#[test]
fn s1_the_list_goes_by_the_selection_of_the_policy_that_is_followed() {
    let lab = Lab::new(1, 1);
    let config = lab.with_folders();
    std::fs::create_dir(&config.data_dir).unwrap();
    let copy = "serial = 1\ntenant = \"acme\"\n[selection]\ncert_issuer = \"Special\"\n";
    std::fs::write(config.data_dir.join("policy.toml"), copy).unwrap();

    let listed = command(&lab, &config, &["cert", "list"]);

    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("\"chosen\": false"), "{listed}");
}

#[test]
fn r2_the_list_tells_of_a_certificate_that_a_crl_revokes() {
    let lab = Lab::new(1, 1);
    let mut config = lab.with_folders();
    let devices = lab.folder.path().join("devices.crl");
    std::fs::write(&devices, lab.list_of_the_device()).unwrap();
    config.crls.push(devices);
    // Whoever may sign a CRL is known by the trust files.
    config.trust.timestamps = lab.folder.path().join("devices.pem");

    let listed = command(&lab, &config, &["cert", "list"]);

    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("\"chosen\": false") && listed.contains("revoked"), "{listed}");
}

#[test]
fn n4_the_check_and_the_list_tell_of_another_devices_certificate_than_computer_name_says() {
    let lab = Lab::new(1, 1);
    let mut config = lab.with_folders();
    config.computer_name = "w702.acme.local".to_owned();
    let files = Config { computer_name: config.computer_name.clone(), ..lab.config() };

    let listed = command(&lab, &config, &["cert", "list"]);
    let of_store = check(&lab, &config);
    let of_files = check(&lab, &files);

    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("\"chosen\": false") && listed.contains("w702.acme.local"), "{listed}");
    for checked in [of_store, of_files] {
        let told = told(&checked);
        assert!(
            !checked.status.success() && told.contains(DEVICE) && told.contains("w702.acme.local"),
            "{told}"
        );
    }
}

#[test]
fn c6_the_check_and_the_list_tell_that_every_certificate_of_a_store_would_be_refused() {
    let lab = Lab::new(1, 1);
    let config = lab.with_folders();
    for name in ["any name.pem", "any name.key"] {
        std::fs::remove_file(config.tls.store.join(name)).unwrap();
    }
    std::fs::write(config.tls.store.join("unfit.pem"), lab.device_without_distribution_point()).unwrap();

    let listed = command(&lab, &config, &["cert", "list"]);
    let checked = check(&lab, &config);

    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("\"chosen\": false") && listed.contains("C6"), "{listed}");
    assert!(!checked.status.success() && told(&checked).contains("C6"), "{}", told(&checked));
}

#[test]
fn t2_a_trust_file_without_a_certificate_is_told_by_the_check_and_not_merged_by_the_command() {
    let lab = Lab::new(1, 1);
    let config = lab.with_folders();
    let good = check(&lab, &config);
    std::fs::write(config.trust.folder.join("cainfo.pem"), "hello\n").unwrap();

    let checked = check(&lab, &config);
    let rebuilt = command(&lab, &config, &["trust", "rebuild"]);

    assert!(good.status.success(), "{}", told(&good));
    for refused in [checked, rebuilt] {
        let told = told(&refused);
        assert!(!refused.status.success() && told.contains("cainfo.pem: no certificate in it"), "{told}");
    }
    let shown = command(&lab, &config, &["trust", "show"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("fingerprint"), "whom it trusted, it trusts");
}

#[test]
fn c9_a_certificate_that_would_never_be_shown_is_not_imported_and_a_later_one_is_with_a_word() {
    let lab = Lab::new(1, 1);
    let config = lab.with_folders();
    let import = |text: String| {
        let file = lab.folder.path().join("import.pem");
        std::fs::write(&file, text).unwrap();
        command(&lab, &config, &["cert", "import", file.to_str().unwrap()])
    };
    let count = || std::fs::read_dir(&config.tls.store).unwrap().count();
    let before = count();

    let expired = import(lab.device_from(-7_200));
    let unfit = import(lab.device_without_distribution_point());
    let between = count();
    let later = import(lab.device_from(3_600));

    for (refused, rule) in [(expired, "C9 expired"), (unfit, "C6")] {
        assert!(!refused.status.success() && told(&refused).contains(rule), "{}", told(&refused));
    }
    assert_eq!(between, before);
    let note = String::from_utf8_lossy(&later.stdout).into_owned();
    assert!(later.status.success() && note.contains("not shown yet: C9 not valid before"), "{note}");
    assert_eq!(count(), before + 1);
}

#[test]
fn the_help_of_an_import_tells_what_its_file_is() {
    let help = Command::new(env!("CARGO_BIN_EXE_muster-client"))
        .args(["cert", "import", "--help"])
        .output()
        .unwrap();

    let help = String::from_utf8(help.stdout).unwrap();
    let line = help.lines().find(|line| line.contains("<FILE>") && !line.contains("Usage")).unwrap();
    assert!(line.contains("PFX") || help.contains("A PFX, or PEM with the certificate"), "{help}");
    assert_eq!(help.matches("The configuration file").count(), 1, "{help}");
}

#[test]
fn a_client_without_store_or_trust_folder_says_what_to_do_instead() {
    let lab = Lab::new(1, 1);

    let cert = command(&lab, &lab.config(), &["cert", "list"]);
    let trust = command(&lab, &lab.config(), &["trust", "show"]);

    assert!(told(&cert).contains("tls.store") && told(&cert).contains("device.pem"), "{}", told(&cert));
    assert!(told(&trust).contains("trust.folder"), "{}", told(&trust));
}

fn command(lab: &Lab, config: &Config, arguments: &[&str]) -> Output {
    let path = write(lab, config);
    Command::new(env!("CARGO_BIN_EXE_muster-client"))
        .args(arguments)
        .arg("--config")
        .arg(&path)
        .output()
        .unwrap()
}

fn check(lab: &Lab, config: &Config) -> Output {
    let path = write(lab, config);
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster-client"));
    command.args(["config", "check", "--files"]).arg(&path).output().unwrap()
}

/// Writes the configuration that commands are given.
fn write(lab: &Lab, config: &Config) -> PathBuf {
    let path = lab.folder.path().join("client.toml");
    let paths = [
        ("trust", "switch", &config.trust.switch),
        ("trust", "folder", &config.trust.folder),
        ("trust", "authors", &config.trust.authors),
        ("trust", "orders", &config.trust.orders),
        ("trust", "licences", &config.trust.licences),
        ("trust", "policies", &config.trust.policies),
        ("trust", "timestamps", &config.trust.timestamps),
        ("tls", "certificate", &config.tls.certificate),
        ("tls", "key", &config.tls.key),
        ("tls", "store", &config.tls.store),
    ];
    let crls: Vec<String> = config.crls.iter().map(|file| file.display().to_string()).collect();
    let mut text = format!(
        "data_dir = {:?}\ncomputer_name = {:?}\ncrls = {crls:?}\n",
        config.data_dir.display().to_string(),
        config.computer_name
    );
    for table in ["trust", "tls"] {
        text.push_str(&format!("[{table}]\n"));
        for (_, key, value) in paths.iter().filter(|(of, _, _)| *of == table) {
            text.push_str(&format!("{key} = {:?}\n", value.display().to_string()));
        }
    }
    std::fs::write(&path, text).unwrap();
    path
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
