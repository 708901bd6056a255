//! A Switch that serves while something is wrong, and says so to who looks.

use std::time::Duration;

use muster_pki::Role;
use muster_proto::operator::v1::{GetStatusRequest, GetStatusResponse};
use muster_proto::session::v1::Hello;
use muster_proto_grpc::operator::v1::status_service_client::StatusServiceClient;

use crate::client::{Client, hello};
use crate::operators::{channel, connect_as};
use crate::pki::Ends;
use crate::strangers::ask;
use crate::world::{PATIENCE, Switch, World};

#[tokio::test]
async fn a_device_that_remembers_more_than_the_store_is_told_and_takes_nothing_out_of_service() {
    let world = World::new();
    let switch = world.start().await;
    let own = world.pki.issue(Role::Device, "w701.acme.local", Ends::InAYear);
    let hello = Hello { last_epoch: u64::MAX, ..hello(7) };

    let tls = world.pki.tls(Some(&own), &[]);
    let mut client = Client::open_saying(switch.running.session_addr(), tls, hello).await.unwrap();
    let welcome = client.until_welcome().await;
    let ready = until_ready_says(&switch, "w701.acme.local").await;
    let status = status(&world, &switch).await;

    assert_eq!(welcome.epoch, 1, "no number of a device is taken over");
    assert!(ready.starts_with("HTTP/1.1200OK"), "{ready}");
    assert!(ready.contains(r#""store_copy":{"state":"degraded","#), "{ready}");
    assert!(status.warnings.iter().any(|warning| warning.contains("older copy")), "{status:?}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn below_the_disk_reserve_readiness_and_status_say_where_and_how_much() {
    let mut world = World::new();
    world.config.engine.disk_reserve = 1 << 60;
    let switch = world.start().await;

    let ready = until_ready_says(&switch, "disk_reserve").await;
    let status = status(&world, &switch).await;

    assert!(ready.starts_with("HTTP/1.1200OK"), "sessions and results go on: {ready}");
    assert!(ready.contains(r#""store":{"state":"degraded","#), "{ready}");
    assert!(status.disk_free_bytes < status.disk_reserve_bytes, "{status:?}");
    assert_eq!(status.data_dir, world.config.data_dir.display().to_string());
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn changed_roots_that_another_role_holds_open_no_door_and_readiness_and_metrics_tell_it() {
    let world = World::new();
    let switch = world.start().await;
    let device = world.pki.issue(Role::Device, "w701.acme.local", Ends::InAYear);
    let operators = &world.config.trust.operators;
    let good = std::fs::read_to_string(operators).unwrap();
    let devices = std::fs::read_to_string(&world.config.trust.devices).unwrap();

    std::fs::write(operators, good.clone() + &devices).unwrap();
    let degraded = until_ready_says(&switch, "hold the same root").await;
    let of_listener = until_ready_says(&switch, "both trust the root").await;

    assert!(degraded.contains(r#""document_roots":{"state":"degraded","#), "{degraded}");
    assert!(of_listener.contains(r#""operator_credentials":{"state":"degraded","#), "{of_listener}");
    let metrics = admin(&switch, "/metrics").await;
    for stale in ["document_roots", "operator_credentials"] {
        let line = format!("muster_credentials_stale{{credentials=\"{stale}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
    let tls = world.pki.tls(Some(&device), &[b"h2"]);
    let refused = match channel(switch.running.operator_addr(), tls).await {
        Err(_) => true,
        Ok(channel) => StatusServiceClient::new(channel).get_status(GetStatusRequest {}).await.is_err(),
    };
    assert!(refused, "a device is an operator");
    let tls = world.pki.tls(Some(&device), &[]);
    let (_client, _welcome) = Client::connect(switch.running.session_addr(), tls, 7).await;

    std::fs::write(operators, good).unwrap();
    until_ready(&switch, |ready| !ready.contains("the same root") && !ready.contains("both trust")).await;
    switch.stop().await.unwrap();
}

pub(crate) async fn status(world: &World, switch: &Switch) -> GetStatusResponse {
    let operator = connect_as(world, switch, Role::Operator, "alice.acme.local").await;
    StatusServiceClient::new(operator).get_status(GetStatusRequest {}).await.unwrap().into_inner()
}

/// Waits until `/readyz` says something, since the components look at themselves now and then; returns it without spaces.
pub(crate) async fn until_ready_says(switch: &Switch, wanted: &str) -> String {
    until_ready(switch, |ready| ready.contains(wanted)).await
}

pub(crate) async fn until_ready(switch: &Switch, holds: impl Fn(&str) -> bool) -> String {
    let looking = async {
        loop {
            let ready = admin(switch, "/readyz").await;
            if holds(&ready) {
                // As it is meant, not as it is laid out.
                return ready.split_whitespace().collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap()
}

pub(crate) async fn admin(switch: &Switch, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    ask(switch.running.admin_addr(), request.as_bytes()).await
}
