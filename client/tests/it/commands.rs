use std::process::{Command, Output};

use muster_client::Config;
use muster_pki::trust_store::fingerprint;
use tokio::net::TcpListener;

use crate::lab::Lab;
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
fn a_client_without_store_or_trust_folder_says_what_to_do_instead() {
    let lab = Lab::new(1, 1);

    let cert = command(&lab, &lab.config(), &["cert", "list"]);
    let trust = command(&lab, &lab.config(), &["trust", "show"]);

    assert!(told(&cert).contains("tls.store") && told(&cert).contains("device.pem"), "{}", told(&cert));
    assert!(told(&trust).contains("trust.folder"), "{}", told(&trust));
}

fn command(lab: &Lab, config: &Config, arguments: &[&str]) -> Output {
    let path = lab.folder.path().join("client.toml");
    let paths = [
        ("trust", "switch", &config.trust.switch),
        ("trust", "folder", &config.trust.folder),
        ("tls", "certificate", &config.tls.certificate),
        ("tls", "key", &config.tls.key),
        ("tls", "store", &config.tls.store),
    ];
    let mut text = String::new();
    for table in ["trust", "tls"] {
        text.push_str(&format!("[{table}]\n"));
        for (_, key, value) in paths.iter().filter(|(of, _, _)| *of == table) {
            text.push_str(&format!("{key} = {:?}\n", value.display().to_string()));
        }
    }
    std::fs::write(&path, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_muster-client"))
        .args(arguments)
        .arg("--config")
        .arg(&path)
        .output()
        .unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
