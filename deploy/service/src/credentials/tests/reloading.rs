//! Files that change under a running service.

use std::sync::Arc;
use std::time::Duration;

use muster_pki::Role;

use super::meet;
use super::pki::{DAY, Pki};
use crate::credentials::{
    self, CredentialError, CredentialFiles, Reload, Revocation, RevocationSettings, Rules, ServerCredentials,
};
use crate::health::{Health, State};
use crate::shutdown::{DrainOutcome, Shutdown};

#[tokio::test]
async fn n1_a_renewed_certificate_is_used_without_a_restart() {
    let pki = Pki::new();
    let server = pki.server();
    let client = pki.client(&pki.issue("w701", Role::Device, 60), Role::Device);
    let renewed = pki.issue_server("localhost", 400);

    assert_eq!(server.reload(), Reload::Swapped);

    assert_eq!(server.own().unwrap().thumbprint(), renewed.certificate.thumbprint());
    meet(&server, &client, "localhost").await.server.unwrap();
}

#[test]
fn n4_another_devices_files_are_refused_and_its_own_renewed_ones_are_taken() {
    let pki = Pki::new();
    let first = pki.issue("w701", Role::Device, 60);
    let client = pki.client(&first, Role::Device);
    let name = first.certificate.serial_hex();

    pki.write_pair(&name, &pki.issue("w702", Role::Device, 300));
    let reload = client.reload();
    let kept = client.own().unwrap().thumbprint();
    let renewed = pki.issue("W701", Role::Device, 300);
    pki.write_pair(&name, &renewed);

    let Reload::Kept { problems } = reload else { panic!("{reload:?}") };
    let told = problems.join("; ");
    assert!(told.contains("the device w702") && told.contains("w701"), "{told}");
    assert_eq!(kept, first.certificate.thumbprint());
    assert_eq!(client.reload(), Reload::Swapped);
    assert_eq!(client.own().unwrap().thumbprint(), renewed.certificate.thumbprint());
}

#[tokio::test]
async fn the_watcher_notices_renewed_files_by_itself() {
    let pki = Pki::new();
    let server = pki.server();
    let (shutdown, health) = (Shutdown::new(), Health::new());
    let mut changes = server.changes();
    server.watch(&shutdown, &health, "credentials.sessions");

    let renewed = pki.issue_server("localhost", 400);
    wait_for(&mut changes, || {
        server.own().is_some_and(|own| own.thumbprint() == renewed.certificate.thumbprint())
    })
    .await;

    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[test]
fn an_unchanged_file_changes_nothing() {
    let pki = Pki::new();
    let server = pki.server();
    let before = *server.changes().borrow();

    assert_eq!(server.reload(), Reload::Unchanged);

    assert_eq!(*server.changes().borrow(), before);
}

#[tokio::test]
async fn a_bad_new_certificate_keeps_the_old_and_degrades_health() {
    let pki = Pki::new();
    let server = pki.server();
    let before = server.own().unwrap().thumbprint();
    let client = pki.client(&pki.issue("w701", Role::Device, 60), Role::Device);

    pki.write(
        "server.pem",
        "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n",
    );
    let (reload, state) = refresh(&server);

    assert!(matches!(&reload, Reload::Kept { problems } if problems[0].contains("server.pem")), "{reload:?}");
    assert!(matches!(&state, State::Degraded(why) if why.contains("server.pem")), "{state:?}");
    assert_eq!(server.own().unwrap().thumbprint(), before);
    meet(&server, &client, "localhost").await.server.unwrap();
}

#[test]
fn a_half_written_renewal_is_taken_once_it_is_whole() {
    let pki = Pki::new();
    let server = pki.server();
    let renewed = pki.issue("localhost", Role::Switch, 400);
    pki.write("server.pem", &renewed.chain_pem);
    assert!(matches!(server.reload(), Reload::Kept { .. }));

    pki.write("server.key", &renewed.key_pem);

    assert_eq!(refresh(&server), (Reload::Swapped, State::Ready));
    assert_eq!(server.own().unwrap().thumbprint(), renewed.certificate.thumbprint());
}

#[tokio::test]
async fn r4_a_bad_crl_keeps_the_old_one() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 30);
    pki.write_crl(&[&device], 5);
    let server = pki.server();
    let client = pki.client(&device, Role::Device);

    pki.write("devices.crl", "junk");
    let torn = pki.revocation().reload();
    pki.write_crl(&[], 4);
    let older = pki.revocation().reload();
    let refused = meet(&server, &client, "localhost").await.server.unwrap_err();

    assert!(matches!(&torn, Reload::Kept { problems } if problems[0].contains("devices.crl")), "{torn:?}");
    assert!(matches!(&older, Reload::Kept { .. }), "{older:?}");
    assert!(refused.contains("R2"), "{refused}");
}

#[tokio::test]
async fn a_crl_file_with_one_damaged_block_is_refused_whole_and_keeps_the_old_one() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 30);
    pki.write_crl(&[&device], 5);
    let good = pki.read("devices.crl");
    let server = pki.server();
    let client = pki.client(&device, Role::Device);
    pki.write_crl(&[], 6);
    let newer = pki.read("devices.crl");
    let list = &good[good.find("-----BEGIN X509 CRL-----").unwrap()..];
    let damages = [
        list.replacen("\nMI", "\nM!", 1),
        list.replace("-----END X509 CRL-----", ""),
        list.replace("-----BEGIN X509 CRL-----", "-----BEGN X509 CRL-----"),
    ];

    for damaged in damages {
        pki.write("devices.crl", &(newer.clone() + &damaged));
        let (reload, state) = (pki.revocation().reload(), pki.revocation().state());
        let settings = RevocationSettings::default();
        let at_start = Revocation::load(pki.revocation_files(), settings, pki.clock());
        let at_start = at_start.err().map(|error| error.to_string());

        let told = |text: &str| text.contains("devices.crl") && text.contains("damaged");
        assert!(matches!(&reload, Reload::Kept { problems } if told(&problems[0])), "{reload:?}\n{damaged}");
        assert!(matches!(&state, State::Degraded(why) if told(why)), "{state:?}");
        assert!(at_start.as_deref().is_some_and(told), "{at_start:?}");
        let refused = meet(&server, &client, "localhost").await.server.unwrap_err();
        assert!(refused.contains("R2"), "{refused}");
    }
}

#[tokio::test]
async fn a_crl_is_loaded_though_our_own_certificate_expired() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 900);
    let server = pki.server();
    pki.advance(366 * DAY);
    pki.write_crl(&[&device], 2);

    let reload = pki.revocation().reload();

    assert_eq!(reload, Reload::Swapped);
    let state = server.state();
    assert!(matches!(&state, State::Degraded(why) if why.contains("expired")), "{state:?}");
    let chain = muster_pki::pem::certificates(device.chain_pem.as_bytes(), "device").unwrap();
    let refused = server.check_peer(Some(&chain), pki.clock().now()).unwrap_err();
    assert!(refused.to_string().contains("R2"), "{refused}");
}

#[tokio::test]
async fn changed_roots_that_another_listeners_role_holds_are_refused_and_the_old_ones_stay() {
    let pki = Pki::new();
    let rules = two_listeners(&pki);
    let operators = listener(&pki, Role::Operator, "operators.pem", &rules);
    let devices = listener(&pki, Role::Device, "devices.pem", &rules);
    let device = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let alice = pki.client(&pki.issue("alice", Role::Operator, 30), Role::Operator);
    let good = pki.read("operators.pem");

    pki.write("operators.pem", &(good.clone() + &pki.read("devices.pem")));
    let (reload, state) = refresh(&operators);

    let told = |text: &str| text.contains("operators.pem") && text.contains("both trust the root");
    assert!(matches!(&reload, Reload::Kept { problems } if told(&problems[0])), "{reload:?}");
    assert!(matches!(&state, State::Degraded(why) if told(why)), "{state:?}");
    assert!(matches!(devices.reload(), Reload::Kept { .. }), "whose roots did not change tells it, too");
    meet(&operators, &device, "localhost").await.server.unwrap_err();
    meet(&operators, &alice, "localhost").await.server.unwrap();
    meet(&devices, &device, "localhost").await.server.unwrap();

    let before = *devices.changes().borrow();
    pki.write("operators.pem", &good);

    assert_eq!(refresh(&operators), (Reload::Swapped, State::Ready));
    assert_eq!(refresh(&devices), (Reload::Swapped, State::Ready));
    assert_eq!(*devices.changes().borrow(), before, "sessions under the same roots are not looked at again");
}

#[tokio::test]
async fn changed_roots_are_refused_while_those_of_another_role_cannot_be_read() {
    let pki = Pki::new();
    let operators = listener(&pki, Role::Operator, "operators.pem", &two_listeners(&pki));
    let device = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let roots = pki.read("devices.pem");

    // In use elsewhere as they were before.
    pki.write("devices.pem", "no roots");
    pki.write("operators.pem", &(pki.read("operators.pem") + &roots));
    let reload = operators.reload();

    assert!(
        matches!(&reload, Reload::Kept { problems } if problems[0].contains("devices.pem")),
        "{reload:?}"
    );
    meet(&operators, &device, "localhost").await.server.unwrap_err();
}

#[tokio::test]
async fn changed_roots_that_two_roles_of_one_listener_hold_are_refused_and_the_old_ones_stay() {
    let pki = Pki::new();
    let server = pki.server();
    let device = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);

    pki.write("operators.pem", &(pki.read("operators.pem") + &pki.read("devices.pem")));
    let (reload, state) = refresh(&server);

    assert!(matches!(&reload, Reload::Kept { .. }), "{reload:?}");
    assert!(matches!(&state, State::Degraded(_)), "{state:?}");
    assert_eq!(meet(&server, &device, "localhost").await.server.unwrap().role(), Role::Device);
}

#[test]
fn no_listener_starts_with_roots_that_another_listeners_role_holds() {
    let pki = Pki::new();
    let rules = two_listeners(&pki);
    pki.write("operators.pem", &(pki.read("operators.pem") + &pki.read("devices.pem")));

    let refused = try_listener(&pki, Role::Device, "devices.pem", &rules).unwrap_err().to_string();

    assert!(refused.contains("operators.pem") && refused.contains("both trust the root"), "{refused}");
}

#[test]
fn n3_health_warns_thirty_days_before_the_end() {
    let pki = Pki::new();
    let server = pki.server();
    assert_eq!(refresh(&server).1, State::Ready);

    pki.advance(340 * DAY);

    let state = refresh(&server).1;
    assert!(matches!(&state, State::Degraded(why) if why.contains("expires in 25 days")), "{state:?}");
}

/// The rules of a process that trusts devices at one listener and operators at another.
fn two_listeners(pki: &Pki) -> Rules {
    let roles = [(Role::Device, "devices.pem"), (Role::Operator, "operators.pem")];
    Rules { roles: roles.map(|(role, name)| (role, pki.path(name))).into(), ..pki.rules() }
}

fn listener(pki: &Pki, role: Role, roots: &str, rules: &Rules) -> Arc<ServerCredentials> {
    try_listener(pki, role, roots, rules).unwrap()
}

fn try_listener(
    pki: &Pki,
    role: Role,
    roots: &str,
    rules: &Rules,
) -> Result<Arc<ServerCredentials>, CredentialError> {
    let own = CredentialFiles::pem(pki.path("server.pem"), pki.path("server.key"));
    let roles = vec![(role, pki.path(roots))];
    credentials::server(own, roles, vec![b"muster/1".to_vec()], Role::Switch, rules.clone())
}

fn refresh(server: &ServerCredentials) -> (Reload, State) {
    (server.reload(), server.state())
}

/// Waits until `holds` after some swap; the deadline is for a broken watcher only.
async fn wait_for(changes: &mut tokio::sync::watch::Receiver<u64>, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
}
