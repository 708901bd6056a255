//! What is on the device's disk, changed between its verification and its use.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::order::v1::Order;
use muster_proto::session::v1::DocumentKind;
use muster_signing::envelope;

use super::{ANSWERED, DEVICE, Lab, instruction, text};
use crate::liar::{Liar, Session};
use crate::support::orders::{id, order_without};
use crate::support::{system, wait_until};

const SIGNED: &[u8] = b"what its author signed";
const CHANGED: &[u8] = b"what somebody else put";

/// One row, which takes seconds.
const COUNTING: &str = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000000), n AS MATERIALIZED (SELECT max(i) FROM c)";

/// Runs until it is ended.
const ENDLESS: &str = r#"name = "Acme-Test-Endless"
version = "1.0.0"
kind = "question"
says = "When does it end?"

[[step]]
query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS answer FROM n"

[[result]]
name = "answer"
type = "integer"

[limits]
run_time = "10m"
"#;

#[test]
fn attack_changed_between_check_and_use_a_resource_is_refused_when_its_instruction_gets_its_slot() {
    let lab = Lab::new();
    lab.configure("", "", "[instructions]\nparallel = 1");
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let (definition, path) = with_resource(&lab, &liar);
    let in_place: &dyn Fn(&Path) = &|path| std::fs::write(path, CHANGED).unwrap();
    let renamed: &dyn Fn(&Path) = &|path| {
        std::fs::write(path.with_extension("new"), CHANGED).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    let gone: &dyn Fn(&Path) = &|path| std::fs::remove_file(path).unwrap();
    assert_eq!(SIGNED.len(), CHANGED.len());

    for (change, what) in [(in_place, "in place"), (renamed, "by another file"), (gone, "removed")] {
        let blocking = hold_the_slot(&lab, &liar, &mut session);
        let order = wait_for_the_slot(&lab, &mut session, &definition, &path);
        let before = lab.place.starts();

        change(&path);
        stop(&lab, &mut session, &blocking);

        let (state, refusal, detail) = session.result_with_detail(instruction(&order));
        assert_eq!((state, refusal), (TargetState::Refused, Refusal::Resource), "{what}: {detail}");
        assert!(detail.contains("changed or removed on this device"), "{what}: {detail}");
        assert_eq!(lab.place.starts(), before, "{what}");
    }

    // What was left alone is read.
    let blocking = hold_the_slot(&lab, &liar, &mut session);
    let order = wait_for_the_slot(&lab, &mut session, &definition, &path);
    let before = lab.place.starts();
    stop(&lab, &mut session, &blocking);
    assert_eq!(session.result(instruction(&order)), ANSWERED);
    assert_eq!(lab.place.starts(), before + 1);
}

#[test]
fn attack_changed_between_check_and_use_a_resource_that_is_read_meanwhile_gives_no_answer() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let (_, path) = with_resource(&lab, &liar);
    std::fs::write(&path, SIGNED).unwrap();
    // It counts for seconds, and reads only then.
    let slow = resource_text(
        "Acme-Test-Slow",
        &format!("{COUNTING} SELECT sha256 FROM n JOIN files ON path = :resource_marker"),
    );
    let definition = lab.publish(&liar, &slow);
    let issue = |session: &mut Session<'_>| {
        let (order, before) = (lab.order(&definition), lab.place.starts());
        session.deliver(&lab.signed(&order));
        let of = instruction(&order);
        session.until("it to run", |told| told.progress.contains(&(of, TargetState::Running)).then_some(()));
        wait_until("the helper to be there", || lab.place.starts() > before);
        order
    };

    let order = issue(&mut session);
    std::fs::write(&path, CHANGED).unwrap();
    let (state, _, detail) = session.result_with_detail(instruction(&order));
    assert_eq!(state, TargetState::Failed, "{detail}");
    assert!(detail.contains("does not count") && detail.contains("changed or removed"), "{detail}");

    std::fs::write(&path, SIGNED).unwrap();
    let order = issue(&mut session);
    assert_eq!(session.result(instruction(&order)), ANSWERED);
}

#[test]
fn attack_changed_between_check_and_use_a_stored_definition_is_asked_for_again_and_never_run() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let definition = lab.publish(&liar, &text("Acme-Test-Stored", "1.0.0", ""));
    let digest = envelope::digest(&definition);
    let order = lab.order(&definition);
    lab.runs(&mut session, &order, &lab.signed(&order));
    let asked = |session: &Session<'_>| {
        session.told.asked.iter().filter(|asked| **asked == (DocumentKind::Definition, digest)).count()
    };
    assert_eq!(asked(&session), 1);
    client.kill();
    drop(session);

    // Another one that is as good, under its digest: what it is verified by is in the envelope itself.
    let other = lab.publish(&liar, &text("Acme-Test-Otherwise", "1.0.0", ""));
    change_row(
        &lab,
        &format!(
            "UPDATE definitions SET envelope = x'{}' WHERE digest = x'{}'",
            hex::encode(&other),
            hex::encode(digest)
        ),
    );
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let again = lab.order(&definition);
    lab.runs(&mut session, &again, &lab.signed(&again));

    assert_eq!(asked(&session), 1, "it was asked for again");
    assert_eq!(lab.place.status(DEVICE).unwrap()["damaged_records"], 1);
}

#[test]
fn attack_changed_between_check_and_use_what_waits_in_the_journal_is_never_run_as_something_else() {
    let lab = Lab::new();
    lab.configure("", "", "[instructions]\nparallel = 1");
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let waits = |lab: &Lab, liar: &Liar, session: &mut Session<'_>, name: &str| {
        let definition = lab.publish(liar, &text(name, "1.0.0", ""));
        let order = lab.order(&definition);
        session.deliver(&lab.signed(&order));
        wait_acked(session, &order);
        (order, definition)
    };
    hold_the_slot(&lab, &liar, &mut session);
    let (redirected, _) = waits(&lab, &liar, &mut session, "Acme-Test-Redirected");
    let (replaced, definition) = waits(&lab, &liar, &mut session, "Acme-Test-Replaced");
    let (unchanged, _) = waits(&lab, &liar, &mut session, "Acme-Test-Unchanged");
    client.kill();
    drop(session);

    // The order of one is that of another; the definition of one is another's.
    let hex = |order: &Order| hex::encode(&order.instruction);
    change_row(
        &lab,
        &format!(
            "UPDATE journal SET delivery = (SELECT delivery FROM journal WHERE instruction = x'{}') WHERE instruction = x'{}'",
            hex(&unchanged),
            hex(&redirected)
        ),
    );
    change_row(
        &lab,
        &format!(
            "UPDATE definitions SET envelope = x'{}' WHERE digest = x'{}'",
            hex::encode(&lab.honest),
            hex::encode(envelope::digest(&definition))
        ),
    );
    let before = lab.place.starts();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());

    assert_eq!(session.result(instruction(&redirected)).0, TargetState::Interrupted);
    assert_eq!(session.result(instruction(&replaced)), (TargetState::Refused, Refusal::WrongDefinition));
    assert_eq!(session.result(instruction(&unchanged)), ANSWERED);
    assert_eq!(lab.place.starts(), before + 1);
    lab.goes_on(&mut session);
}

/// A definition that tells the size of its resource, which is in the device's cache.
fn with_resource(lab: &Lab, liar: &Liar) -> (Vec<u8>, PathBuf) {
    let text = resource_text("Acme-Test-Resource", "SELECT sha256 FROM files WHERE path = :resource_marker");
    let root = blake3::hash(SIGNED).to_hex().to_string();
    (lab.publish(liar, &text), lab.place.path(DEVICE).join("resources").join(root))
}

/// A question that reads the resource.
fn resource_text(name: &str, query: &str) -> String {
    let (root, size) = (blake3::hash(SIGNED).to_hex(), SIGNED.len());
    format!(
        "name = \"{name}\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"What is in it?\"\n\n\
         [[step]]\nquery = \"{query}\"\n\n[[result]]\nname = \"sha256\"\ntype = \"text\"\n\n\
         [[resource]]\nname = \"marker\"\nsize = {size}\nroot = \"{root}\"\n\n[limits]\nrun_time = \"2m\"\n"
    )
}

/// Has the only slot taken by what does not end.
fn hold_the_slot(lab: &Lab, liar: &Liar, session: &mut Session<'_>) -> Order {
    let endless = lab.publish(liar, ENDLESS);
    let (order, before) = (lab.order(&endless), lab.place.starts());
    session.deliver(&lab.signed(&order));
    let of = instruction(&order);
    session.until("the slot to be taken", |told| {
        told.progress.contains(&(of, TargetState::Running)).then_some(())
    });
    wait_until("the helper to be there", || lab.place.starts() > before);
    order
}

/// Delivers an order, and waits until its resource was verified: the mark of its use is of then.
fn wait_for_the_slot(lab: &Lab, session: &mut Session<'_>, definition: &[u8], path: &Path) -> Order {
    std::fs::write(path, SIGNED).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    let order = lab.order(definition);
    session.deliver(&lab.signed(&order));
    wait_acked(session, &order);
    wait_until("the resource to be verified", || {
        std::fs::metadata(path).unwrap().modified().unwrap() > long_ago + Duration::from_secs(3_600)
    });
    // It is hashed behind the mark, and said to be here.
    wait_until("it to wait for the slot", || {
        lab.place.status(DEVICE).is_some_and(|status| status["waiting"] == 1 && status["running"] == 1)
    });
    order
}

fn wait_acked(session: &mut Session<'_>, order: &Order) {
    let of = instruction(order);
    session
        .until("it to be taken on", |told| told.progress.contains(&(of, TargetState::Acked)).then_some(()));
}

/// The operator ends an instruction.
fn stop(lab: &Lab, session: &mut Session<'_>, order: &Order) {
    let number = 100 + order.instruction[15];
    let stop = Order { stops: order.instruction.clone(), ..order_without(id(number)) };
    session.deliver(&lab.signed(&stop));
    assert_eq!(session.result(instruction(order)).0, TargetState::Cancelled);
}

/// Changes a stored row, as whoever may write to the disk.
fn change_row(lab: &Lab, sql: &str) {
    let store = lab.place.path(DEVICE).join("client.db");
    let changed = system("sqlite3", &[store.to_str().unwrap(), &format!("{sql}; SELECT changes();")]);
    assert_eq!(changed.out.trim(), "1", "{sql}");
}
