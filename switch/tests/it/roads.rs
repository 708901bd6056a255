//! What holds of a session by whichever road it comes.

use std::net::SocketAddr;
use std::sync::Arc;

use muster_pki::Role;
use muster_proto::session::quic::Close;
use muster_proto::session::v1::{CloseReason, Welcome};
use rustls::ClientConfig;
use tokio_tungstenite::tungstenite::Error;

use crate::client::{Client, dial, hello};
use crate::pki::{Ends, Pki};
use crate::quic_client::dial_quic;
use crate::world::World;

/// The roads there are.
const ROADS: [Road; 2] = [Road::WebSocket, Road::Quic];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    WebSocket,
    Quic,
}

/// How a Switch denies a session.
#[derive(Debug, PartialEq, Eq)]
enum Denial {
    /// It refuses the device: 403, or the code for it.
    Refused(String),
    /// It has no room: 503, or the code for it.
    Busy(String),
    /// TLS does, which only WebSocket has.
    Tls,
}

impl Road {
    async fn connect(
        self,
        address: SocketAddr,
        tls: Arc<ClientConfig>,
        outbox: u8,
    ) -> Result<(Client, Welcome), Denial> {
        match self {
            Self::WebSocket => match dial(address, tls, "/v1/session").await {
                Ok(socket) => {
                    let mut client = Client::over(socket, outbox);
                    let welcome = client.until_welcome().await;
                    Ok((client, welcome))
                }
                Err(Error::Http(answer)) => {
                    let text = String::from_utf8(answer.body().clone().unwrap_or_default()).unwrap();
                    Err(match answer.status().as_u16() {
                        403 => Denial::Refused(text),
                        503 => Denial::Busy(text),
                        other => panic!("{other} {text}"),
                    })
                }
                Err(_) => Err(Denial::Tls),
            },
            Self::Quic => {
                let denied = match dial_quic(address, &tls).await {
                    Ok(socket) => {
                        match Client::over_quic(socket, hello(outbox)).until_welcome_or_denied().await {
                            Ok(welcomed) => return Ok(welcomed),
                            Err(denied) => denied,
                        }
                    }
                    Err(denied) => denied,
                };
                Err(match denied.close {
                    Some(Close::Refused) => Denial::Refused(denied.text),
                    Some(Close::Busy) => Denial::Busy(denied.text),
                    other => panic!("{other:?} {denied:?}"),
                })
            }
        }
    }

    async fn welcomed(self, address: SocketAddr, tls: Arc<ClientConfig>) -> (Client, Welcome) {
        self.connect(address, tls, 1).await.unwrap_or_else(|denial| panic!("{self:?}: {denial:?}"))
    }

    /// A certificate that is not taken is told by an alert of TLS, or by QUIC's own word for it.
    fn check_refused(self, refused: Result<(Client, Welcome), Denial>, rule: &str) {
        match (self, refused.map(drop).unwrap_err()) {
            (Self::WebSocket, Denial::Tls) => {}
            (Self::Quic, Denial::Refused(text)) if text.contains(rule) => {}
            (_, other) => panic!("{self:?}: {other:?}, wanted {rule}"),
        }
    }
}

fn device(world: &World, name: &str) -> Arc<ClientConfig> {
    world.pki.tls(Some(&world.pki.issue(Role::Device, name, Ends::InAYear)), &[])
}

#[tokio::test]
async fn a_device_gets_its_welcome() {
    for road in ROADS {
        let world = World::new();
        let switch = world.start().await;

        let (_client, welcome) =
            road.welcomed(switch.running.session_addr(), device(&world, "w701.acme.local")).await;

        assert!(welcome.epoch > 0);
        assert_eq!(welcome.idle_timeout_ms, 150_000);
        assert_eq!(welcome.results_credit_bytes, world.config.sessions.results_credit);
        switch.stop().await.unwrap();
    }
}

#[tokio::test]
async fn who_shows_no_certificate_of_a_device_that_is_valid_is_refused() {
    let world = World::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Pki::new(elsewhere.path()).issue(Role::Device, "w701.acme.local", Ends::InAYear);
    let expired = world.pki.issue(Role::Device, "w701.acme.local", Ends::Yesterday);
    let operator = world.pki.issue(Role::Operator, "alice.acme.local", Ends::InAYear);
    let switch = world.start().await;
    let address = switch.running.session_addr();

    for road in ROADS {
        for own in [None, Some(&foreign), Some(&expired), Some(&operator)] {
            let refused = road.connect(address, world.pki.tls(own, &[]), 1).await;

            road.check_refused(refused, "certificate is not taken (");
        }
    }
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_live_session_ends_with_its_certificate() {
    for road in ROADS {
        let world = World::new();
        let brief = world.pki.issue(Role::Device, "w701.acme.local", Ends::In(3));
        let switch = world.start().await;
        let (mut client, _) =
            road.welcomed(switch.running.session_addr(), world.pki.tls(Some(&brief), &[])).await;

        let (reason, _) = client.until_sent_away().await;

        assert_eq!(reason, CloseReason::CertificateExpired, "{road:?}");
        switch.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_revoked_device_is_sent_away_and_its_neighbour_is_not() {
    for road in ROADS {
        let mut world = World::new();
        world.config.crls = vec![world.pki.write_device_crl(&[], 1)];
        let switch = world.start().await;
        let address = switch.running.session_addr();
        let stolen = world.pki.issue(Role::Device, "w701.acme.local", Ends::InAYear);
        // One configuration, so that it comes back with a resumed handshake.
        let tls = world.pki.tls(Some(&stolen), &[]);
        let (mut client, _) = road.welcomed(address, Arc::clone(&tls)).await;
        let (mut neighbour, _) =
            road.connect(address, device(&world, "w702.acme.local"), 2).await.ok().unwrap();

        world.pki.write_device_crl(&[&stolen], 2);
        let (reason, _) = client.until_sent_away().await;
        let resumed = road.connect(address, tls, 1).await.map(drop);
        let again = road.connect(address, world.pki.tls(Some(&stolen), &[]), 1).await;
        switch.trigger();
        let (neighbours_reason, _) = neighbour.until_sent_away().await;

        assert_eq!(reason, CloseReason::Revoked, "{road:?}");
        let Err(Denial::Refused(text)) = resumed else { panic!("{road:?}: {resumed:?}") };
        assert!(text.contains("(R2)"), "{road:?}: {text}");
        road.check_refused(again, "(R2)");
        assert_eq!(neighbours_reason, CloseReason::Shutdown, "{road:?}");
        neighbour.vanish();
        switch.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_second_session_of_a_device_supersedes_the_first_by_whichever_road_they_come() {
    for (one, other) in [
        (Road::WebSocket, Road::WebSocket),
        (Road::Quic, Road::Quic),
        (Road::WebSocket, Road::Quic),
        (Road::Quic, Road::WebSocket),
    ] {
        let world = World::new();
        let switch = world.start().await;
        let address = switch.running.session_addr();
        let (mut first, older) = one.welcomed(address, device(&world, "w701.acme.local")).await;

        let (_second, newer) = other.welcomed(address, device(&world, "w701.acme.local")).await;
        let (reason, _) = first.until_sent_away().await;

        assert_eq!(reason, CloseReason::Superseded, "{one:?} {other:?}");
        assert!(newer.epoch > older.epoch);
        switch.stop().await.unwrap();
    }
}

#[tokio::test]
async fn garbage_ends_the_session_with_a_protocol_error() {
    for road in ROADS {
        let world = World::new();
        let switch = world.start().await;
        let (mut client, _) =
            road.welcomed(switch.running.session_addr(), device(&world, "w701.acme.local")).await;

        client.send_raw(&[0xff; 64]).await;
        let (reason, _) = client.until_sent_away().await;

        assert_eq!(reason, CloseReason::ProtocolError, "{road:?}");
        switch.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_switch_says_so_before_anything_is_said_in_the_protocol() {
    for road in ROADS {
        let mut world = World::new();
        world.config.sessions.sessions_max = 1;
        let switch = world.start().await;
        let address = switch.running.session_addr();
        let (_first, _) = road.welcomed(address, device(&world, "w701.acme.local")).await;

        let refused = road.connect(address, device(&world, "w702.acme.local"), 2).await.map(drop);

        let Err(Denial::Busy(text)) = refused else { panic!("{road:?}: {refused:?}") };
        assert!(text.contains("sessions.sessions_max"), "{road:?}: {text}");
        if road == Road::Quic {
            assert_eq!(Close::read_busy(&text).0, Some(world.config.sessions.retry_after));
        }
        switch.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_switch_that_stops_tells_its_clients_when_to_come_back() {
    for road in ROADS {
        let world = World::new();
        let switch = world.start().await;
        let (mut client, _) =
            road.welcomed(switch.running.session_addr(), device(&world, "w701.acme.local")).await;

        switch.trigger();
        let (reason, reconnect_after) = client.until_sent_away().await;
        client.vanish();

        assert_eq!(reason, CloseReason::Shutdown, "{road:?}");
        assert!(reconnect_after <= world.config.shutdown.reconnect_spread);
        switch.stop().await.unwrap();
    }
}
