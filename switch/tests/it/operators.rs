//! Operators' way in, and what the Switch says when it does not start.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use muster_pki::Role;
use muster_proto::operator::v1::{GetStatusRequest, ListClientsRequest, ListEventsRequest};
use muster_proto::relay::v1::RelayEventsRequest;
use muster_proto_grpc::operator::v1::client_service_client::ClientServiceClient;
use muster_proto_grpc::operator::v1::event_service_client::EventServiceClient;
use muster_proto_grpc::operator::v1::status_service_client::StatusServiceClient;
use muster_proto_grpc::relay::v1::event_relay_service_client::EventRelayServiceClient;
use muster_switch::{Grant, GrantRole, StartError};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::pki::Ends;
use crate::world::{PATIENCE, SWITCH_NAME, Switch, World};

/// Connects as who has this certificate.
pub(crate) async fn channel(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let connect = move |_| {
        let tls = Arc::clone(&tls);
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = SWITCH_NAME.try_into().map_err(io::Error::other)?;
            TlsConnector::from(tls).connect(name, stream).await.map(TokioIo::new)
        }
    };
    Endpoint::from_static("http://switch.test").connect_with_connector(tower::service_fn(connect)).await
}

/// Connects as someone of a role.
pub(crate) async fn connect_as(world: &World, switch: &Switch, role: Role, name: &str) -> Channel {
    let own = world.pki.issue(role, name, Ends::InAYear);
    channel(switch.running.operator_addr(), world.pki.tls(Some(&own), &[b"h2"])).await.unwrap()
}

#[tokio::test]
async fn an_operator_sees_the_status() {
    let world = World::new();
    let switch = world.start().await;
    let channel = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;

    let status =
        StatusServiceClient::new(channel).get_status(GetStatusRequest {}).await.unwrap().into_inner();

    assert_eq!(status.tenant, "acme");
    assert_eq!((status.sessions, status.devices), (0, 0));
    assert!(status.certificate_not_after_ms > status.started_at_ms);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_device_certificate_does_not_open_the_operator_api() {
    let world = World::new();
    let device = world.pki.issue(Role::Device, "w701.acme.local", Ends::InAYear);
    let switch = world.start().await;
    let tls = world.pki.tls(Some(&device), &[b"h2"]);

    let refused = match channel(switch.running.operator_addr(), tls).await {
        Err(_) => true,
        // With TLS 1.3 the client learns of the refusal at its first read.
        Ok(channel) => StatusServiceClient::new(channel).get_status(GetStatusRequest {}).await.is_err(),
    };

    assert!(refused);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_service_relays_and_does_nothing_else() {
    let world = World::new();
    let switch = world.start().await;
    let channel = connect_as(&world, &switch, Role::Service, "background.acme.local").await;

    let relayed = EventRelayServiceClient::new(channel.clone())
        .relay_events(RelayEventsRequest { events: Vec::new() })
        .await;
    let denied = StatusServiceClient::new(channel).get_status(GetStatusRequest {}).await.unwrap_err();

    assert_eq!(relayed.unwrap().into_inner().accepted, 0);
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(denied.message().contains("operator"), "{denied}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_revoked_operator_loses_the_live_connection_with_its_streams_and_a_colleague_does_not() {
    let mut world = World::new();
    world.config.crls = vec![world.pki.write_crl(Role::Operator, &[], 1)];
    let switch = world.start().await;
    let address = switch.running.operator_addr();
    let stolen = world.pki.issue(Role::Operator, "alice.acme.local", Ends::InAYear);
    let alice = channel(address, world.pki.tls(Some(&stolen), &[b"h2"])).await.unwrap();
    let bob = connect_as(&world, &switch, Role::Operator, "bob.acme.local").await;
    let follow = ListEventsRequest { follow: true, ..ListEventsRequest::default() };
    let mut followed = EventServiceClient::new(alice).list_events(follow).await.unwrap().into_inner();

    world.pki.write_crl(Role::Operator, &[&stolen], 2);
    let ended = tokio::time::timeout(PATIENCE, followed.message()).await.unwrap();
    let again = match channel(address, world.pki.tls(Some(&stolen), &[b"h2"])).await {
        Err(_) => true,
        Ok(channel) => StatusServiceClient::new(channel).get_status(GetStatusRequest {}).await.is_err(),
    };
    let neighbours = StatusServiceClient::new(bob).get_status(GetStatusRequest {}).await;

    assert!(ended.is_err(), "{ended:?}");
    assert!(again);
    assert!(neighbours.is_ok(), "{neighbours:?}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_live_operator_connection_ends_with_its_certificate() {
    let world = World::new();
    let switch = world.start().await;
    let brief = world.pki.issue(Role::Operator, "alice.acme.local", Ends::In(3));
    let tls = world.pki.tls(Some(&brief), &[b"h2"]);
    let alice = channel(switch.running.operator_addr(), tls).await.unwrap();
    let follow = ListEventsRequest { follow: true, ..ListEventsRequest::default() };
    let mut followed = EventServiceClient::new(alice).list_events(follow).await.unwrap().into_inner();

    let ended = tokio::time::timeout(PATIENCE, followed.message()).await.unwrap();

    assert!(ended.is_err(), "{ended:?}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn an_operator_does_not_relay() {
    let world = World::new();
    let switch = world.start().await;
    let channel = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;

    let denied = EventRelayServiceClient::new(channel)
        .relay_events(RelayEventsRequest { events: Vec::new() })
        .await
        .unwrap_err();

    assert_eq!(denied.code(), Code::PermissionDenied);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn grants_name_what_is_missing() {
    let mut world = World::new();
    world.config.grants = vec![Grant {
        operators: vec!["bob.acme.local".to_owned()],
        role: GrantRole::Viewer,
        prefixes: Vec::new(),
        kinds: Vec::new(),
    }];
    let switch = world.start().await;
    let channel = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;

    let denied =
        ClientServiceClient::new(channel).list_clients(ListClientsRequest::default()).await.unwrap_err();

    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(denied.message().contains("alice.acme.local") && denied.message().contains("viewer"), "{denied}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_switch_whose_certificate_has_expired_does_not_start() {
    let world = World::new();
    world.pki.write_server(&world.pki.issue(Role::Switch, SWITCH_NAME, Ends::Yesterday));
    std::fs::remove_file(&world.config.trust.licences).unwrap();

    let refused = world.try_start().await.map(|_| ()).unwrap_err();

    assert!(matches!(refused, StartError::Credentials(_)));
    let told = refused.to_string();
    assert!(told.contains("switch.pem") && told.contains("licences"), "{told}");
}

#[tokio::test]
async fn a_busy_port_names_itself_and_its_key() {
    let mut world = World::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.config.operator_listen = holder.local_addr().unwrap();

    let refused = world.try_start().await.map(|_| ()).unwrap_err().to_string();

    assert!(refused.contains("operator_listen") && refused.contains("ss -ltnp"), "{refused}");
    assert!(!world.folder().join("data").exists(), "nothing is opened before the addresses");
}
