//! Devices that an operator keeps out, and who is turned away at which door.

use std::sync::Arc;

use muster_pki::Role;
use muster_pki::authority::Issued;
use muster_proto::operator::v1::{
    BlockClientRequest, GetClientRequest, GetStatusRequest, ListBlockedClientsRequest,
    ListRefusedClientsRequest, RefusedClient, UnblockClientRequest,
};
use muster_proto::relay::v1::{RefusedPeer, SyncDoorRequest};
use muster_proto::session::PATH;
use muster_proto::session::v1::CloseReason;
use muster_proto_grpc::operator::v1::client_service_client::ClientServiceClient;
use muster_proto_grpc::operator::v1::status_service_client::StatusServiceClient;
use muster_proto_grpc::relay::v1::event_relay_service_client::EventRelayServiceClient;
use rustls::ClientConfig;
use tokio_tungstenite::tungstenite::Error;
use tonic::transport::Channel;

use crate::client::{Client, dial};
use crate::operators::{channel, connect_as};
use crate::pki::{Ends, Pki};
use crate::world::{Switch, World};

const BLOCKED: &str = "w701.acme.local";

async fn operator(world: &World, switch: &Switch) -> ClientServiceClient<Channel> {
    ClientServiceClient::new(connect_as(world, switch, Role::Operator, "alice.acme.local").await)
}

async fn refused(operator: &mut ClientServiceClient<Channel>) -> Vec<RefusedClient> {
    let all = operator.list_refused_clients(ListRefusedClientsRequest { limit: 0 }).await.unwrap();
    all.into_inner().refused
}

/// Tries to open a session; returns the status and text of the refusal.
async fn refusal(switch: &Switch, tls: Arc<ClientConfig>) -> (u16, String) {
    match dial(switch.running.session_addr(), tls, PATH).await {
        Err(Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            (answer.status().as_u16(), String::from_utf8(body).unwrap())
        }
        other => panic!("wanted a refusal by HTTP: {other:?}"),
    }
}

#[tokio::test]
async fn r2_a_blocked_device_loses_its_session_and_is_refused_full_and_resumed_until_it_is_unblocked() {
    let world = World::new();
    let switch = world.start().await;
    let mut alice = operator(&world, &switch).await;
    let certificate = world.pki.issue(Role::Device, BLOCKED, Ends::InAYear);
    let renewed = world.pki.issue(Role::Device, BLOCKED, Ends::InAYear);
    let neighbour = world.pki.issue(Role::Device, "w702.acme.local", Ends::InAYear);
    // One configuration, so that the second handshake resumes the first.
    let tls = world.pki.tls(Some(&certificate), &[b"http/1.1"]);
    let (mut client, _) = Client::connect(switch.running.session_addr(), tls.clone(), 1).await;
    let other = world.pki.tls(Some(&neighbour), &[b"http/1.1"]);
    let (_stays, _) = Client::connect(switch.running.session_addr(), other, 2).await;

    let request = BlockClientRequest { device: BLOCKED.to_uppercase(), reason: "stolen".to_owned() };
    let blocked = alice.block_client(request).await.unwrap().into_inner();
    let (reason, _) = client.until_sent_away().await;

    assert!(blocked.was_online && blocked.known);
    assert_eq!(reason, CloseReason::Revoked);
    let full = world.pki.tls(Some(&renewed), &[b"http/1.1"]);
    for tls in [tls.clone(), full] {
        let (status, text) = refusal(&switch, tls).await;
        assert_eq!(status, 403);
        assert!(text.contains("R2") && text.contains("unblock"), "{text}");
    }
    let list = refused(&mut alice).await;
    let known = [certificate.certificate.serial_hex(), renewed.certificate.serial_hex()];
    assert_eq!(list.len(), 2, "{list:?}");
    for one in &list {
        assert_eq!((&one.rules[..], &one.listener[..]), (&["R2".to_owned()][..], "sessions"));
        assert!(known.contains(&one.serial), "{one:?}");
        assert!(one.findings[0].contains("alice.acme.local blocked (stolen)"), "{one:?}");
        assert!(one.findings[0].contains("fix: muster client unblock w701.acme.local"), "{one:?}");
    }
    let shown = alice.get_client(GetClientRequest { device: BLOCKED.to_owned() }).await.unwrap();
    let shown = shown.into_inner().client.unwrap();
    assert!(!shown.online);
    assert_eq!(shown.blocked.unwrap().reason, "stolen");

    alice.unblock_client(UnblockClientRequest { device: BLOCKED.to_owned() }).await.unwrap();
    let (_back, _) = Client::connect(switch.running.session_addr(), tls, 1).await;
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn r2_a_block_outlives_the_switch_and_holds_for_a_device_that_never_came() {
    let world = World::new();
    let switch = world.start().await;
    let mut alice = operator(&world, &switch).await;
    let request = BlockClientRequest { device: BLOCKED.to_owned(), reason: String::new() };
    let blocked = alice.block_client(request).await.unwrap().into_inner();
    assert!(!blocked.known);
    switch.stop().await.unwrap();

    let switch = world.start().await;
    let mut alice = operator(&world, &switch).await;
    let certificate = world.pki.issue(Role::Device, BLOCKED, Ends::InAYear);
    let (status, _) = refusal(&switch, world.pki.tls(Some(&certificate), &[b"http/1.1"])).await;
    let all = alice.list_blocked_clients(ListBlockedClientsRequest {}).await.unwrap().into_inner();

    assert_eq!(status, 403);
    assert_eq!(all.blocked, [blocked.block.unwrap()]);
    assert_eq!(all.blocked[0].operator, "alice.acme.local");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c14_who_is_refused_at_the_operators_port_is_listed_with_the_door_and_the_certificate() {
    let world = World::new();
    let switch = world.start().await;
    let mut alice = operator(&world, &switch).await;
    let device = world.pki.issue(Role::Device, BLOCKED, Ends::InAYear);
    let tls = world.pki.tls(Some(&device), &[b"h2"]);

    // With TLS 1.3 the client learns of the refusal at its first read.
    if let Ok(channel) = channel(switch.running.operator_addr(), tls).await {
        let mut stranger = ClientServiceClient::new(channel);
        assert!(stranger.list_refused_clients(ListRefusedClientsRequest::default()).await.is_err());
    }
    let list = refused(&mut alice).await;

    let one = list.iter().find(|one| one.listener == "operators").unwrap();
    assert_eq!(one.subject, device.certificate.subject());
    assert_eq!(one.issuer, device.certificate.issuer());
    assert_eq!(one.serial, device.certificate.serial_hex());
    assert_eq!(one.thumbprint, device.certificate.thumbprint().to_string());
    assert!(one.rules.contains(&"C2".to_owned()), "{one:?}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c14_each_device_is_listed_by_its_own_certificate_though_the_ca_above_them_is_to_blame() {
    let world = World::new();
    let switch = world.start().await;
    let mut alice = operator(&world, &switch).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Pki::new(elsewhere.path());
    let devices = ["w701.acme.local", "w702.acme.local"]
        .map(|name| (name, foreign.issue(Role::Device, name, Ends::InAYear)));

    for (_, device) in &devices {
        let tls = world.pki.tls(Some(device), &[b"http/1.1"]);
        assert!(dial(switch.running.session_addr(), tls, PATH).await.is_err());
    }
    let list = refused(&mut alice).await;

    assert_eq!(list.len(), 2, "{list:?}");
    for (name, Issued { certificate, .. }) in &devices {
        let one = list.iter().find(|one| one.peer == *name).unwrap();
        assert_eq!((&one.rules[..], &one.subject[..]), (&["C2".to_owned()][..], certificate.issuer()));
        assert_eq!(
            (&one.peer_subject[..], &one.peer_serial),
            (certificate.subject(), &certificate.serial_hex())
        );
        assert_eq!(one.peer_thumbprint, certificate.thumbprint().to_string());
        assert!(one.thumbprint != one.peer_thumbprint && one.serial != one.peer_serial, "{one:?}");
    }
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c14_a_background_channel_tells_whom_it_turned_away_and_learns_whom_to() {
    let world = World::new();
    let switch = world.start().await;
    let mut alice = operator(&world, &switch).await;
    let channel = connect_as(&world, &switch, Role::Service, "background.acme.local").await;
    let mut door = EventRelayServiceClient::new(channel);
    let request = BlockClientRequest { device: BLOCKED.to_owned(), reason: String::new() };
    alice.block_client(request).await.unwrap();

    let peer = RefusedPeer {
        rules: vec!["C6".to_owned()],
        findings: vec!["C6: got none; wanted one; fix: reissue".to_owned()],
        thumbprint: "AA".to_owned(),
        peer: "w703.acme.local".to_owned(),
        peer_thumbprint: "BB".to_owned(),
        address: "10.0.0.1:5".to_owned(),
        last_at_ms: i64::MAX,
        count: 3,
        ..RefusedPeer::default()
    };
    let request = SyncDoorRequest {
        refused: vec![peer, RefusedPeer::default()],
        state: Vec::new(),
        warnings: vec!["certificate CN=b expires in 3 days; renew it".to_owned()],
    };
    let first = door.sync_door(request).await.unwrap().into_inner();
    let again =
        SyncDoorRequest { refused: Vec::new(), state: first.state.clone(), ..SyncDoorRequest::default() };
    let status =
        StatusServiceClient::new(connect_as(&world, &switch, Role::Operator, "bob.acme.local").await)
            .get_status(GetStatusRequest {})
            .await;
    let second = door.sync_door(again).await.unwrap().into_inner();
    let denied =
        EventRelayServiceClient::new(connect_as(&world, &switch, Role::Operator, "bob.acme.local").await)
            .sync_door(SyncDoorRequest::default())
            .await;

    assert_eq!((&first.blocked[..], first.unchanged), (&[BLOCKED.to_owned()][..], false));
    assert_eq!((&second.blocked[..], second.unchanged), (&[][..], true));
    let list = refused(&mut alice).await;
    let told: Vec<_> = list.iter().map(|one| (&one.listener[..], one.count, &one.address[..])).collect();
    assert_eq!(told, [("background", 3, "10.0.0.1:5")]);
    assert_eq!((&list[0].peer[..], &list[0].peer_thumbprint[..]), ("w703.acme.local", "BB"));
    assert!(list[0].last_at_ms < i64::MAX, "a clock ahead would keep its entries at the top");
    assert!(denied.is_err());
    let warnings = status.unwrap().into_inner().warnings;
    let told = "background channel background.acme.local: certificate CN=b expires in 3 days; renew it";
    assert!(warnings.iter().any(|one| one == told), "{warnings:?}");
    switch.stop().await.unwrap();
}
