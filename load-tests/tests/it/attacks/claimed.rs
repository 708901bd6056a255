//! A Background Channel that says of a device what it never said: it names numbers of the device's outbox.

use muster_load_tests::operator::channel;
use muster_load_tests::tls::Identity;
use muster_proto::relay::v1::{RelayEventsRequest, RelayedEvent};
use muster_proto::session::v1::Event;
use muster_proto_grpc::relay::v1::event_relay_service_client::EventRelayServiceClient;
use serde_json::{Value, json};

use super::DEVICE;
use crate::support::{Place, wait_until};

#[test]
fn attack_by_a_relayed_number_ends_nothing_that_a_device_has_taken_on_and_refuses_it_no_order() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.background_config();
    place.client_config(DEVICE);
    place.record_starts(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    let background = place.start_background();
    place.import_all();
    place.author_with_resource("Acme-Test-Marker");
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    // It waits for its resource.
    background.stop();
    let words = ["run", "Acme-Test-Marker", "--wait", "1s", "-o", "json"];
    let issued = place.muster(words).with_code(3).json();
    let id = issued["instruction"].as_str().expect("an instruction").to_owned();
    let show = || place.muster(["instruction", "show", &id, "-o", "json"]).with_code(0).json();
    wait_until("it to be taken on", || show()["states"] == json!({ "acked": 1 }));
    let outbox = outbox_id(&place);

    relay(&place, &outbox, 1 << 62);
    switch.kill();
    let switch = place.start_switch();
    wait_until("it to take another outbox_id", || client.log().contains("goes on under another outbox_id"));
    place.wait_online(DEVICE);
    assert_eq!(show()["states"], json!({ "acked": 1 }), "{}", client.log());

    // The client is told again, and has the next name by then.
    relay(&place, &outbox, u64::MAX);
    let background = place.start_background();
    wait_until("it to be answered", || show()["complete"] == true);
    assert_eq!(show()["states"], json!({ "answered": 1 }), "{}", client.log());
    place.ask("SELECT 1 AS one", 0);
    assert_eq!(place.starts(), 2, "each of them once: {}", client.log());
    assert!(!client.log().contains("brought back from a copy: "), "{}", client.log());
    for service in [client, background, switch] {
        service.stop();
    }
}

/// The name of the device's outbox, which its events tell to the Background Channel.
fn outbox_id(place: &Place) -> String {
    let events: Vec<Value> = place.events("client.started");
    events[0]["outbox_id"].as_str().unwrap_or_else(|| panic!("{events:?}")).to_owned()
}

/// Hands an event on that the device never posted, as the Background Channel.
#[track_caller]
fn relay(place: &Place, outbox: &str, sequence: u64) {
    let read = |name: &str| std::fs::read_to_string(place.path("certs").join(name)).expect("a certificate");
    let identity =
        Identity { name: "relay".to_owned(), chain_pem: read("relay.pem"), key_pem: read("relay.key") };
    let event = Event { sequence, name: "test.made.up".to_owned(), ..Event::default() };
    let relayed = RelayedEvent {
        device: DEVICE.to_owned(),
        outbox_id: hex::decode(outbox).expect("hex"),
        event: Some(event),
    };
    let relayed = async {
        let address = format!("localhost:{}", place.ports.operator);
        let channel = channel(&place.home(), &address, &identity).await.expect("the Switch");
        let request = RelayEventsRequest { events: vec![relayed] };
        EventRelayServiceClient::new(channel).relay_events(request).await.expect("an answer").into_inner()
    };
    let answer = tokio::runtime::Runtime::new().expect("a runtime").block_on(relayed);
    assert_eq!((answer.accepted, answer.refused), (1, vec![]));
}
