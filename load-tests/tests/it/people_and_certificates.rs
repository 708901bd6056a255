//! Certificates that are missing, expired or of another role: at the operator, the client and the servers.

use std::path::Path;

use crate::support::{Place, http, wait_until, with};

const DEVICE: &str = "web1.example.org";

#[test]
fn an_operator_without_a_valid_certificate_is_told_what_to_do() {
    let place = Place::with_pki(&[]);
    place.switch_config("");
    place.add_context();
    let _switch = place.start_switch();
    place.import_all();
    let ask = || with(place.command(), ["client", "list"]);
    ask().with_code(0);
    let own = place.path("home/operator/tls.pem");
    let kept = std::fs::read(&own).unwrap();

    std::fs::remove_file(&own).unwrap();
    ask().with_code(2).naming(&["operator/tls.pem", "muster pki issue NAME --role operator"]);
    let doctor = with(place.command(), ["doctor"]);
    assert_ne!(doctor.code, 0, "{doctor:?}");
    assert!(doctor.out.contains("operator/tls.pem") || doctor.out.contains("tls.pem"), "{}", doctor.out);

    place.issue(&["late", "--role", "operator", "--days=-2"]);
    put_operator(&place, "late");
    ask().with_code(4).naming(&["expired"]);
    let doctor = with(place.command(), ["doctor"]);
    assert!(doctor.code != 0 && doctor.out.contains("expired"), "{}", doctor.out);

    // A device's certificate never opens the operator API.
    place.issue(&[DEVICE]);
    put_operator(&place, DEVICE);
    ask().with_code(4);

    std::fs::write(&own, b"-----BEGIN NONSENSE-----\n").unwrap();
    ask().with_code(4).naming(&["tls.pem"]);
    std::fs::write(&own, kept).unwrap();
    ask().with_code(4);
    place.issue(&["again", "--role", "operator"]);
    put_operator(&place, "again");
    ask().with_code(0);
}

#[test]
fn an_order_is_not_signed_with_a_missing_or_expired_certificate() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.client_config(DEVICE);
    place.add_context();
    let _switch = place.start_switch();
    place.import_all();
    let _client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    let ask = || place.muster(["ask", "SELECT name FROM os", "-o", "json"]);
    let (certificate, key) = (place.path("home/operator/order.pem"), place.path("home/operator/order.key"));

    std::fs::remove_file(&certificate).unwrap();
    let missing = ask();
    assert!(missing.code == 2 || missing.code == 4, "{missing:?}");
    missing.naming(&["operator/order.pem", "muster pki issue NAME --role order"]);

    place.issue(&["late", "--role", "order", "--days=-2"]);
    copy(&place, "late", &certificate, &key);
    ask().with_code(4).naming(&["expired"]);

    place.issue(&["wrong", "--role", "author"]);
    copy(&place, "wrong", &certificate, &key);
    ask().with_code(4);
    let listed = place.muster(["instruction", "list", "-o", "json"]).with_code(0).json();
    assert_eq!(listed, serde_json::json!([]), "nothing was accepted");

    place.issue(&["good", "--role", "order"]);
    copy(&place, "good", &certificate, &key);
    ask().with_code(0);
}

#[test]
fn a_client_without_a_valid_certificate_says_so_and_stops() {
    let place = Place::with_pki(&[]);
    place.client_config(DEVICE);
    let refused = |words: &[&str]| {
        let mut client = place.start("muster-client", DEVICE);
        let code = client.ends();
        let log = client.log();
        let last = log.lines().last().unwrap_or_default().to_lowercase();
        assert_eq!(code, Some(78), "{log}");
        for word in words {
            assert!(last.contains(&word.to_lowercase()), "no `{word}`:\n{log}");
        }
    };

    refused(&["certs/web1.example.org.pem"]);
    place.issue(&[DEVICE, "--days=-2"]);
    refused(&["expired"]);
    place.issue(&[DEVICE]);
    place.issue(&["other.example.org"]);
    std::fs::copy(place.path("certs/other.example.org.key"), place.path("certs/web1.example.org.key"))
        .unwrap();
    refused(&["key"]);
    place.issue(&["wrong", "--role", "operator"]);
    std::fs::copy(place.path("certs/wrong.pem"), place.path("certs/web1.example.org.pem")).unwrap();
    std::fs::copy(place.path("certs/wrong.key"), place.path("certs/web1.example.org.key")).unwrap();
    let mut client = place.start("muster-client", DEVICE);
    // Its own check knows no device roots: a certificate of another role is refused by the Switch at the latest.
    place.switch_config("");
    place.add_context();
    let _switch = place.start_switch();
    wait_until("the client to be refused", || {
        !client.runs() || place.status(DEVICE).is_some_and(|status| status["disconnected_because"] != "")
    });
    let clients = place.muster(["client", "list", "-o", "json"]).with_code(0).json();
    assert_eq!(clients, serde_json::json!([]));
}

#[test]
fn a_revoked_client_is_refused_once_the_switch_has_the_list() {
    let place = Place::with_pki(&[DEVICE, "web2.example.org"]);
    let list = place.path("home/pki/devices/crl.pem");
    let config = place.switch_config("");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("crls = [{list:?}]\n{text}")).unwrap();
    place.client_config(DEVICE);
    place.client_config("web2.example.org");
    place.add_context();
    place.muster(["pki", "revoke", DEVICE]).with_code(0);
    let _switch = place.start_switch();

    let _revoked = place.start_client(DEVICE);
    let _other = place.start_client("web2.example.org");

    place.wait_online("web2.example.org");
    wait_until("the revoked client to have been refused", || {
        place.status(DEVICE).is_some_and(|status| {
            status["connected"] == false
                && !status["disconnected_because"].as_str().unwrap_or_default().is_empty()
        })
    });
    // The refused one learns no more than that; the Switch's metrics have the rule.
    let metrics = http(place.ports.admin, "/metrics");
    let counted = metrics.lines().any(|line| {
        line.starts_with("muster_switch_refused_certificates_total{")
            && line.contains("rule=\"R2\"")
            && !line.ends_with(" 0")
    });
    assert!(counted, "{metrics}");
}

#[test]
fn servers_with_unfit_certificates_do_not_start() {
    let place = Place::with_pki(&[]);
    place.switch_config("");
    place.background_config();
    let refused = |words: &[&str]| {
        for (program, name) in [("muster-switch", "switch"), ("muster-background-channel", "background")] {
            let mut service = place.start(program, name);
            let code = service.ends();
            let log = service.log();
            let last = log.lines().last().unwrap_or_default().to_lowercase();
            assert_eq!(code, Some(78), "{log}");
            for word in words {
                assert!(last.contains(&word.to_lowercase()), "{program}: no `{word}`:\n{log}");
            }
        }
    };

    place.issue(&["localhost", "--role", "switch", "--days=-2"]);
    refused(&["expired"]);
    place.issue(&["localhost", "--role", "device"]);
    refused(&["serverAuth"]);
    std::fs::remove_file(place.path("certs/localhost.pem")).unwrap();
    refused(&["localhost.pem"]);
    place.issue(&["localhost", "--role", "switch"]);
    let devices = place.path("home/trust/devices.pem");
    std::fs::copy(place.path("home/trust/operators.pem"), devices).unwrap();
    refused(&["devices", "operators"]);
}

fn put_operator(place: &Place, name: &str) {
    copy(place, name, &place.path("home/operator/tls.pem"), &place.path("home/operator/tls.key"));
}

fn copy(place: &Place, name: &str, certificate: &Path, key: &Path) {
    std::fs::copy(place.path(&format!("certs/{name}.pem")), certificate).unwrap();
    std::fs::copy(place.path(&format!("certs/{name}.key")), key).unwrap();
}
