//! A device without a certificate (C1): its key, and what it does not do for anybody who has the Switch.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use futures_util::FutureExt as _;
use muster_client::{StartError, start};
use muster_proto::common::v1::{Refusal, TargetState, value::Kind};
use muster_proto::order::v1::{Audience, Order};
use muster_proto::session::v1::Lane;
use muster_service::shutdown::Shutdown;
use muster_signing::envelope;
use tokio::net::TcpListener;

use crate::lab::Lab;
use crate::switch::FakeSwitch;

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_device_without_a_certificate_makes_a_key_once_and_proves_it_on_every_connection() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let config = lab.without_certificate();

    let client = lab.start_with(config.clone()).await;
    let (mut session, device) = switch.accept_by_key(&lab).await;
    assert_eq!(client.running.device().as_ref(), Some(&device));
    let said = |name: &str| {
        let said = session.hello.attributes.iter().find(|attribute| attribute.name == name);
        said.and_then(|attribute| attribute.value.clone()?.kind)
    };
    assert_eq!(said("authenticated"), Some(Kind::Integer(0)));
    assert_eq!(said("device"), Some(Kind::Text(device.to_string())));
    assert_ne!(said("domain"), Some(Kind::Text("key.invalid".to_owned())));
    // Its events go by the session.
    let event = session.event().await;
    session.ack(Lane::Events, event.sequence).await;
    client.stop().await;
    let again = lab.start_with(config.clone()).await;
    let (_session, same) = switch.accept_by_key(&lab).await;

    assert_eq!(same, device);
    again.stop().await;
    let key = config.data_dir.join("device.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(named_by_openssl(&key), device.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_without_room_is_left_alone_as_long_as_it_asks_and_its_reason_is_told() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let mut config = lab.config();
    config.session.reconnect_cap = std::time::Duration::from_secs(1);
    let client = lab.start_with(config).await;

    let text = "500 devices without a certificate have sessions already";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    switch.turn_away(&lab, &answer).await;
    let turned = std::time::Instant::now();
    client.wait_for(|status| status.disconnected_because.contains(text)).await;
    // The lab's own first pause is at most 10 ms; the longest is a second here, which is more than anybody may ask for.
    drop(switch.accept(&lab).await);

    assert!(turned.elapsed() >= std::time::Duration::from_secs(1), "{:?}", turned.elapsed());
    client.stop().await;
}

/// What PROTOCOL.md says of the name, worked out by somebody else.
fn named_by_openssl(key: &std::path::Path) -> String {
    let spki = Command::new("openssl").args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(key).output();
    let spki = spki.expect("openssl");
    assert!(spki.status.success(), "{spki:?}");
    let file = key.with_extension("spki");
    std::fs::write(&file, spki.stdout).unwrap();
    let digest = Command::new("openssl").args(["dgst", "-sha256", "-r"]).arg(file).output().unwrap();
    let digest = String::from_utf8(digest.stdout).unwrap();
    format!("{}.key.invalid", &digest[..32])
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_device_without_a_certificate_refuses_what_a_lying_switch_sends_it() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start_with(lab.without_certificate()).await;
    let (mut session, _) = switch.accept_by_key(&lab).await;
    let (question, action) = (lab.definition.clone(), lab.action());
    let audience = |expression: &str| {
        let expression = expression.to_owned();
        move |order: &mut Order| order.audience = Some(Audience { expression, ..Audience::default() })
    };

    for (number, definition, expression, wanted) in [
        (1, &question, "", Refusal::Unauthenticated),
        (2, &question, "true", Refusal::Unauthenticated),
        (3, &action, "", Refusal::Unauthenticated),
        (4, &action, "authenticated == false", Refusal::Unauthenticated),
        (5, &question, "authenticated == true", Refusal::WrongAudience),
        (6, &question, "authenticated == false", Refusal::Unspecified),
    ] {
        session.definition.clone_from(definition);
        let order = lab.order_with(number, |order| {
            order.definition_digest = envelope::digest(definition).to_vec();
            audience(expression)(order);
        });
        session.order(&order).await;
        let (result, _) = session.result().await;

        assert_eq!(result.refusal(), wanted, "{number} {expression}: {}", result.detail);
        if wanted == Refusal::Unspecified {
            assert_eq!(result.state(), TargetState::Answered);
        }
        session.ack(Lane::Results, result.sequence).await;
    }
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_device_without_a_certificate_calls_no_background_channel() {
    let (switch, background) = (FakeSwitch::listen().await, TcpListener::bind("localhost:0").await.unwrap());
    let lab = Lab::new(switch.port(), background.local_addr().unwrap().port());

    // There is no session yet, and events are posted at once where there is somebody to post to.
    let client = lab.start_with(lab.without_certificate()).await;
    client.running.post_event("acme.test", Vec::new()).await.unwrap();
    let (mut session, _) = switch.accept_by_key(&lab).await;
    for _ in 0..2 {
        let event = session.event().await;
        session.ack(Lane::Events, event.sequence).await;
    }

    let definition = lab.definition_with_resource();
    let digest = envelope::digest(&definition).to_vec();
    session.definition = definition;
    let expression = "authenticated == false".to_owned();
    let ordered = lab.order_with(1, |order| {
        order.definition_digest = digest;
        order.audience = Some(Audience { expression, ..Audience::default() });
    });
    session.order(&ordered).await;
    let (result, _) = session.result().await;

    assert!(result.detail.contains("this device has no certificate"), "{}", result.detail);
    assert!(background.accept().now_or_never().is_none());
    client.stop().await;
    // One with a certificate does.
    let mut config = lab.config();
    config.switch = "wss://localhost:1/v1/session".to_owned();
    config.data_dir = lab.folder.path().join("other");
    let other = lab.start_with(config).await;
    tokio::time::timeout(crate::lab::PATIENCE, background.accept()).await.unwrap().unwrap();
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_key_that_is_damaged_or_shared_stops_the_start_and_makes_no_other_device() {
    let lab = Lab::new(1, 1);
    let config = lab.without_certificate();
    lab.start_with(config.clone()).await.stop().await;
    let key = config.data_dir.join("device.key");
    let text = std::fs::read_to_string(&key).unwrap();

    std::fs::write(&key, "").unwrap();
    let damaged = start(config.clone(), Shutdown::new()).await.unwrap_err();
    std::fs::write(&key, text).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let shared = start(config, Shutdown::new()).await.unwrap_err();

    assert!(matches!(damaged, StartError::Key(_)) && damaged.to_string().contains("device.key"), "{damaged}");
    assert!(shared.to_string().contains("chmod 600"), "{shared}");
}
