//! Who gets a connection, in which protocol, and for how long.

use std::time::Duration;

use http::{Method, StatusCode};
use muster_pki::Role;

use crate::pki::{A_MONTH, Pki};
use crate::world::World;

const NO_SUCH: &str = "/resources/0000000000000000000000000000000000000000000000000000000000000000";

#[tokio::test]
async fn alpn_chooses_the_protocol() {
    let world = World::new().await;
    let channel = world.start().await;
    let device = world.pki.issue(Role::Device, "w701.acme.local", A_MONTH);

    let mut two = world.caller_with(&channel, Some(&device), b"h2").connect().await.unwrap();
    let mut one = world.caller_with(&channel, Some(&device), b"http/1.1").connect().await.unwrap();
    let by_two = two.call(Method::GET, NO_SUCH, &[], "").await.unwrap();
    let by_one = one.call(Method::GET, NO_SUCH, &[], "").await.unwrap();

    assert!(two.is_http2() && !one.is_http2());
    assert_eq!((by_two.status, by_one.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
    drop((one, two));
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn nobody_without_a_certificate_of_a_known_root_is_let_in() {
    let world = World::new().await;
    let channel = world.start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Pki::new(elsewhere.path()).issue(Role::Device, "w701.acme.local", A_MONTH);
    let service = world.pki.issue(Role::Service, "other.acme.local", A_MONTH);

    for own in [None, Some(&foreign), Some(&service)] {
        let caller = world.caller_with(&channel, own, b"http/1.1");
        // With TLS 1.3 the client learns of the refusal at its first read.
        let answered = caller.try_call(Method::GET, NO_SUCH, &[], "").await;
        assert!(answered.is_err(), "{answered:?}");
    }
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn a_revoked_device_loses_its_live_connection_and_its_neighbour_does_not() {
    let mut world = World::new().await;
    world.config.crls = vec![world.pki.write_crl(Role::Device, &[], 1)];
    let channel = world.start().await;
    let stolen = world.pki.issue(Role::Device, "w701.acme.local", A_MONTH);
    let caller = world.caller_with(&channel, Some(&stolen), b"h2");
    let mut line = caller.connect().await.unwrap();
    let mut neighbour = world.caller(&channel, Role::Device, "w702.acme.local").connect().await.unwrap();
    assert!(line.call(Method::GET, NO_SUCH, &[], "").await.is_ok());
    assert!(neighbour.call(Method::GET, NO_SUCH, &[], "").await.is_ok());

    world.pki.write_crl(Role::Device, &[&stolen], 2);
    line.ended().await;

    assert!(caller.try_call(Method::GET, NO_SUCH, &[], "").await.is_err());
    assert!(neighbour.call(Method::GET, NO_SUCH, &[], "").await.is_ok());
    drop(neighbour);
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn a_live_connection_ends_with_its_certificate() {
    let world = World::new().await;
    let channel = world.start().await;
    let brief = world.pki.issue(Role::Device, "w701.acme.local", Duration::from_secs(4));
    let mut line = world.caller_with(&channel, Some(&brief), b"h2").connect().await.unwrap();
    assert!(line.call(Method::GET, NO_SUCH, &[], "").await.is_ok());

    line.ended().await;

    channel.stop().await.unwrap();
}
