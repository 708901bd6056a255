//! A Switch whose certificate is chosen from a folder (S7, N1, N3).

use std::path::PathBuf;

use muster_pki::Role;
use muster_pki::authority::Issued;
use muster_service::credentials::{Address, shown_by};
use muster_switch::StartError;

use crate::client::Client;
use crate::pki::Ends;
use crate::strangers::ask;
use crate::world::{PATIENCE, SWITCH_NAME, Switch, World};

#[tokio::test]
async fn s7_a_folders_certificate_is_shown_on_both_ports_and_its_successor_without_a_restart() {
    let (world, folder) = with_store();
    let first = world.pki.issue(Role::Switch, SWITCH_NAME, Ends::In(40 * 86_400));
    put(&folder, "first", &first);
    put(&folder, "elsewhere", &world.pki.issue(Role::Switch, "elsewhere.test", Ends::InAYear));
    let switch = world.start().await;
    let device = world.pki.issue(Role::Device, "w701.acme.local", Ends::InAYear);
    let tls = world.pki.tls(Some(&device), &[]);
    let (_client, _welcome) = Client::connect(switch.running.session_addr(), tls, 7).await;
    let before = ready(&switch).await;

    let successor = world.pki.issue(Role::Switch, SWITCH_NAME, Ends::In(80 * 86_400));
    put(&folder, "second", &successor);
    until_shown(&switch, &successor).await;

    let thumbprint = |issued: &Issued| issued.certificate.thumbprint().to_string();
    assert!(before.contains(&thumbprint(&first)) && before.contains("not_after"), "{before}");
    let metrics = admin(&switch, "/metrics").await;
    let in_use = format!("thumbprint=\"{}\"}} 1", thumbprint(&successor));
    assert!(metrics.contains(&in_use), "{metrics}");
    assert!(ready(&switch).await.contains(&thumbprint(&successor)));
    let sessions: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("muster_switch_sessions{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(sessions, 1, "the session of before stays: {metrics}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn s7_a_switch_whose_folder_holds_no_certificate_that_will_do_does_not_start_and_says_why() {
    let (world, folder) = with_store();
    put(&folder, "elsewhere", &world.pki.issue(Role::Switch, "elsewhere.test", Ends::InAYear));
    put(&folder, "old", &world.pki.issue(Role::Switch, SWITCH_NAME, Ends::Yesterday));

    let Err(error) = world.try_start().await else { panic!("it started") };

    assert!(matches!(error, StartError::Credentials(_)), "{error:?}");
    assert_eq!(error.exit_code(), 78);
    let text = error.to_string();
    for part in ["the port stays closed", SWITCH_NAME, "elsewhere.pem", "old.pem", "expired at"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(text.matches("the port stays closed").count(), 1, "told once for both ports: {text}");
}

fn with_store() -> (World, PathBuf) {
    let mut world = World::new();
    let folder = world.folder().join("store");
    std::fs::create_dir(&folder).unwrap();
    let tls = &mut world.config.tls;
    tls.certificate = PathBuf::new();
    tls.key = PathBuf::new();
    tls.store.clone_from(&folder);
    tls.server_name = SWITCH_NAME.to_owned();
    (world, folder)
}

fn put(folder: &std::path::Path, name: &str, issued: &Issued) {
    let new = folder.join(format!(".{name}.new"));
    std::fs::write(&new, format!("{}{}", issued.chain_pem, issued.key_pem)).unwrap();
    std::fs::rename(new, folder.join(format!("{name}.pem"))).unwrap();
}

/// Waits until both ports show a certificate, and `/readyz` names it.
async fn until_shown(switch: &Switch, issued: &Issued) {
    let ports = [switch.running.session_addr().port(), switch.running.operator_addr().port()];
    let shown = async {
        for port in ports {
            let address = Address::new("127.0.0.1", port).unwrap();
            loop {
                let chain = shown_by(&address, PATIENCE).await.unwrap();
                if chain[0].as_ref() == issued.certificate.der() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        let thumbprint = issued.certificate.thumbprint().to_string();
        while ready(switch).await.matches(&thumbprint).count() < ports.len() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("the successor was not shown");
}

async fn ready(switch: &Switch) -> String {
    admin(switch, "/readyz").await
}

async fn admin(switch: &Switch, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    ask(switch.running.admin_addr(), request.as_bytes()).await
}
