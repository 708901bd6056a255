//! A client over QUIC, as a process of its own: it gets an order, and comes back to a Switch that was killed.

use std::path::Path;

use crate::support::{Place, rows, wait_until, write};

const DEVICE: &str = "w701.dev.muster";

/// Has a client use one road.
fn take_road(config: &Path, transport: &str) {
    let text = std::fs::read_to_string(config).expect("the configuration");
    let session = format!("[session]\ntransport = \"{transport}\"\n");
    write(config, &text.replace("[session]\n", &session));
}

#[test]
fn a_client_gets_an_order_over_quic_and_comes_back_to_a_switch_that_was_killed() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    take_road(&place.client_config(DEVICE), "quic");
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    let _client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    let epoch = || {
        let status = place.status(DEVICE)?;
        (status["transport"] == "quic").then(|| status["epoch"].as_u64())?
    };

    let answer = place.muster(["ask", "SELECT 41 + 1 AS n", "-o", "json"]).with_code(0).json();
    assert_eq!(rows(&answer)[0]["n"], 42);
    let before = epoch().expect("a session over QUIC");
    switch.kill();
    let _switch = place.start_switch();

    wait_until("another session over QUIC", || epoch().is_some_and(|epoch| epoch > before));
    let answer = place.muster(["ask", "SELECT 6 * 7 AS n", "-o", "json"]).with_code(0).json();
    assert_eq!(rows(&answer)[0]["n"], 42);
}
