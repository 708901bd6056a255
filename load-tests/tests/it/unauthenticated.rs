//! Devices without a certificate (C1), as those see them who run real programs.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Place, Service, rows, run, sign_definition, wait_until, write};

const CERTIFIED: &str = "web1.example.org";
const KEYED: &str = "laptop";
const COPY: &str = "copy-of-laptop";
const ACTION: &str = "Acme-Unauthenticated-Action";

#[test]
fn c1_a_device_without_a_certificate_answers_who_asks_for_such_is_shown_as_it_is_and_gets_no_action() {
    let (place, switch) = place();
    let (certified, keyed) = (place.start_client(CERTIFIED), place.start_client(KEYED));
    let name = name_of(&place, KEYED);
    place.wait_online(CERTIFIED);
    place.wait_online(&name);

    assert!(name.ends_with(".key.invalid"), "{name}");
    let mut both = vec![CERTIFIED.to_owned(), name.clone()];
    both.sort();
    let everybody = "has(authenticated)";
    for (audience, wanted) in [
        ("", vec![CERTIFIED.to_owned()]),
        ("os == \"linux\"", vec![CERTIFIED.to_owned()]),
        ("authenticated == false", vec![name.clone()]),
        (everybody, both),
    ] {
        assert_eq!(answers(&place, audience), wanted, "{audience}");
    }

    let listed = place.muster(["client", "list", "-o", "json"]).with_code(0).json();
    let standing = |device: &str| {
        let of = |client: &&Value| client["device"] == device;
        listed.as_array().unwrap().iter().find(of).unwrap()["unauthenticated"].clone()
    };
    assert_eq!((standing(CERTIFIED), standing(&name)), (json!(false), json!(true)));
    let table = place.muster(["client", "list"]).with_code(0);
    assert!(table.out.to_lowercase().contains("unauthenticated"), "{}", table.out);
    let shown = place.muster(["client", "show", &name, "-o", "json"]).with_code(0).json();
    assert_eq!(shown["unauthenticated"], json!(true), "{shown}");

    import_action(&place);
    for audience in [everybody, "authenticated == false"] {
        let refused = act(&place, audience).with_code(4);
        refused.naming(&["unauthenticated", "authenticated == true"]);
    }
    let done = act(&place, "").with_code(0).json();
    assert_eq!(devices(&done), [CERTIFIED]);
    for service in [keyed, certified, switch] {
        service.stop();
    }
}

#[test]
fn c1_a_copied_key_is_told_as_one_identity_of_two_machines_and_a_block_keeps_out_both() {
    let (place, switch) = place();
    let original = place.start_client(KEYED);
    let name = name_of(&place, KEYED);
    place.wait_online(&name);

    copy_files(&place.path(KEYED), &place.path(COPY));
    client_without_certificate(&place, COPY);
    let copy = place.start_client(COPY);
    wait_until("the copy to take over", || is_connected(&place, COPY));
    wait_until("the original to say so", || !is_connected(&place, KEYED));

    assert_eq!(name_of(&place, COPY), name, "it is one device");
    let why = why_not(&place, KEYED);
    assert!(why.contains("two machines") && why.contains("stop one of them"), "{why}");
    assert_eq!(answers(&place, "authenticated == false"), [name.as_str()], "one device has one answer");
    assert!(!is_connected(&place, KEYED), "it stays away for the longest pause");

    let blocked = place.muster(["client", "block", &name, "--reason", "copied"]).with_code(0);
    assert!(blocked.out.contains("its session ended"), "{}", blocked.out);
    wait_until("the copy to be out", || !is_connected(&place, COPY));
    original.stop();
    let original = place.start_client(KEYED);
    wait_until("the original to be told", || why_not(&place, KEYED).contains("blocked"));
    let listed = place.muster(["client", "list", "--blocked", "-o", "json"]).with_code(0).json();
    assert_eq!((&listed[0]["device"], &listed[0]["reason"]), (&json!(name), &json!("copied")), "{listed}");

    place.muster(["client", "unblock", &name]).with_code(0);
    original.stop();
    let original = place.start_client(KEYED);
    wait_until("the original to be back", || is_connected(&place, KEYED));
    for service in [copy, original, switch] {
        service.stop();
    }
}

/// A place with a Switch that lets devices in without a certificate, and configurations of one that has one and one that has none.
fn place() -> (Place, Service) {
    let place = Place::with_pki(&[CERTIFIED]);
    place.switch_config("[sessions]\nclient_certificate = \"optional\"\n");
    place.client_config(CERTIFIED);
    client_without_certificate(&place, KEYED);
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    (place, switch)
}

/// Configures a client that has no certificate, in a folder of that name. Its longest pause is longer than the test waits for anything.
fn client_without_certificate(place: &Place, name: &str) {
    let path = place.client_config(name);
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let (before, rest) = text.split_once("[tls]\n").expect("a table");
    let (_, after) = rest.split_once("[trust]\n").expect("a table");
    let after = after.replace("reconnect_cap = \"500ms\"", "reconnect_cap = \"10m\"");
    let tls = "[tls]\nidentity = \"key\"\ncertificate = \"\"\nkey = \"\"\n";
    write(&path, &format!("{before}{tls}[trust]\n{after}"));
}

/// Copies what a client keeps, as a copied disk has it.
fn copy_files(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn name_of(place: &Place, client: &str) -> String {
    place.status(client).unwrap()["device"].as_str().unwrap().to_owned()
}

fn is_connected(place: &Place, client: &str) -> bool {
    place.status(client).is_some_and(|status| status["connected"] == true)
}

fn why_not(place: &Place, client: &str) -> String {
    place.status(client).unwrap()["disconnected_because"].as_str().unwrap().to_owned()
}

/// Asks something that every device answers, and returns who did.
fn answers(place: &Place, audience: &str) -> Vec<String> {
    let mut command = place.command();
    command.args(["ask", "SELECT name FROM os", "-o", "json", "--wait", "30s", "--on", audience]);
    devices(&run(&mut command).with_code(0).json())
}

fn devices(answer: &Value) -> Vec<String> {
    let mut devices: Vec<String> =
        rows(answer).iter().map(|row| row["device"].as_str().unwrap().to_owned()).collect();
    devices.sort();
    devices
}

fn import_action(place: &Place) {
    let text = format!(
        "name = \"{ACTION}\"\nversion = \"1.0.0\"\nkind = \"action\"\nsays = \"Looks, and is an action all the same\"\n\
         [[step]]\nquery = \"SELECT name FROM os\"\n[[result]]\nname = \"name\"\ntype = \"text\"\n"
    );
    let signed = sign_definition(&place.path(""), ACTION, &text, &place.home());
    let mut import = place.command();
    run(import.args(["definition", "import"]).arg(signed)).with_code(0);
}

/// Runs the action.
fn act(place: &Place, audience: &str) -> crate::support::Said {
    let mut command = place.command();
    run(command.args(["run", ACTION, "--yes", "-o", "json", "--wait", "30s", "--on", audience]))
}
