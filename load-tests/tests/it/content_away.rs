//! A Background Channel that is away while an order needs a resource: the order waits for it.

use serde_json::json;

use crate::support::{Place, rows, wait_until};

const DEVICE: &str = "web1.example.org";
const NAME: &str = "Acme-Away-Marker";

#[test]
fn an_order_waits_for_a_background_channel_that_is_away() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.background_config();
    place.client_config(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    let background = place.start_background();
    place.import_all();
    place.author_with_resource(NAME);
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    background.stop();

    let waiting = place.muster(["run", NAME, "--wait", "1s", "-o", "json"]).with_code(3).json();
    assert_eq!(waiting["states"]["answered"], json!(null), "{waiting}");
    let instruction = waiting["instruction"].as_str().unwrap();
    wait_until("the client to have looked for the resource in vain", || client.log().contains("resource"));
    let background = place.start_background();

    let show = || place.muster(["instruction", "show", instruction, "-o", "json"]).with_code(0).json();
    wait_until("the order's end", || show()["complete"] == true);
    assert_eq!(show()["states"], json!({"answered": 1}), "{}", client.log());
    let results = place.muster(["instruction", "results", instruction, "-o", "json"]).with_code(0).json();
    assert_eq!(rows(&results)[0]["size"], json!(70_000));
    client.stop();
    background.stop();
    switch.stop();
}
