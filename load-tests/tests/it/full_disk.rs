//! A full disk under the Switch: new work is refused with the fix, nothing that was promised is lost.

use muster_load_tests::history::{History, Promise};
use serde_json::Value;

use crate::support::{Place, SmallDisk, lacks_root, rows};

const DEVICE: &str = "web1.example.org";

#[test]
fn a_full_disk_refuses_new_work_and_loses_nothing() {
    if lacks_root() {
        return;
    }
    let place = Place::with_pki(&[DEVICE]);
    let small = SmallDisk::mount(place.path("switch"));
    place.switch_config("[engine]\ndisk_reserve = \"1 MiB\"\n");
    place.client_config(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    let first = place.ask("SELECT name FROM os", 0);

    small.fill(512 * 1024);

    let asked = place.muster(["ask", "SELECT name FROM os", "-o", "json"]).with_code(1);
    asked.naming(&["disk", "free", "disk_reserve"]);
    let mut import = place.command();
    import.args(["definition", "import"]).arg(place.path("home/definitions/Muster-Os-Version.cms"));
    let imported = crate::support::run(&mut import);
    assert!(imported.code == 0 || imported.code == 1, "known already, or refused: {imported:?}");
    let health = place.muster(["instruction", "list", "-o", "json"]).with_code(0).json();
    assert_eq!(health.as_array().map(Vec::len), Some(1), "reading still works");

    small.free();
    let second = place.ask("SELECT name FROM os", 0);
    assert_eq!(rows(&second), rows(&first));
    switch.kill();
    let switch = place.start_switch();
    place.wait_online(DEVICE);
    let third = place.ask("SELECT name FROM os", 0);
    let promises = [&first, &second, &third].map(|answer| Promise::Accepted { instruction: id(answer) });
    let export = place.muster(["export"]).with_code(0);
    let history = History::read(&export.out);
    assert_eq!(history.check(&promises), []);
    assert_eq!(history.counts().0, 3, "what was refused is not there");
    client.stop();
    switch.stop();
}

#[test]
fn results_promised_before_the_disk_filled_still_go_in() {
    if lacks_root() {
        return;
    }
    let place = Place::with_pki(&[DEVICE]);
    let small = SmallDisk::mount(place.path("switch"));
    place.switch_config("[engine]\ndisk_reserve = \"1 MiB\"\n");
    place.client_config(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    client.stop();
    // Nobody is there to answer: the target stays queued.
    let words = ["ask", "SELECT name FROM os", "-o", "json", "--wait", "100ms"];
    let queued = place.muster(words).with_code(3).json();

    small.fill(600 * 1024);
    let client = place.start_client(DEVICE);
    let watched =
        place.muster(["instruction", "watch", &id(&queued), "-o", "json", "--wait", "30s"]).with_code(0);

    assert_eq!(rows(&watched.json()).len(), 1);
    small.free();
    let export = place.muster(["export"]).with_code(0);
    assert_eq!(History::read(&export.out).check(&[Promise::Accepted { instruction: id(&queued) }]), []);
    client.stop();
    switch.stop();
}

fn id(answer: &Value) -> String {
    answer["instruction"].as_str().unwrap().to_owned()
}
