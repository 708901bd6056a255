//! What this device cannot give: another platform, a later client, a whole sandbox. Nothing of it runs, and its code says so.

use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::order::v1::Order;

use super::{Lab, instruction, text};
use crate::liar::Session;
use crate::support::{lacks, write};

#[test]
fn attack_with_a_definition_for_another_platform_or_a_later_client_is_refused_by_its_code() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let with =
        |name: &str, line: &str| text(name, "1.0.0", "").replace("says = ", &format!("{line}\nsays = "));

    for (name, line) in [
        ("Acme-Test-Platform", "platforms = [\"macos\"]"),
        ("Acme-Test-Later", "minimum_client_version = \"99.0.0\""),
    ] {
        let definition = lab.publish(&liar, &with(name, line));
        lab.refused(&mut session, &lab.order(&definition), Refusal::Unsupported, line);
    }

    assert_eq!(lab.place.starts(), 0);
    let line = "platforms = [\"macos\", \"linux\"]\nminimum_client_version = \"0.0.1\"";
    let definition = lab.publish(&liar, &with("Acme-Test-This", line));
    let order = lab.order(&definition);
    lab.runs(&mut session, &order, &lab.signed(&order));
    lab.goes_on(&mut session);
}

#[test]
fn a_strict_definition_is_refused_before_it_counts_as_started_where_a_layer_is_missing_and_else_has_all() {
    let lab = Lab::new();
    let secret = lab.place.path("secret");
    std::fs::create_dir(&secret).unwrap();
    let closed = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
    std::fs::set_permissions(&secret, closed).unwrap();
    write(&secret.join("file"), "of root alone");
    let query = format!("SELECT count(*) AS one FROM files WHERE path = '{}'", secret.join("file").display());
    let standard = text("Acme-Test-Standard", "1.0.0", "").replace("SELECT 1 AS one", &query);
    let strict = standard.replace("Acme-Test-Standard", "Acme-Test-Strict");
    let strict = strict.replace("says = ", "sandbox = \"strict\"\nsays = ");
    let liar = lab.liar();
    let [standard, strict] = [standard, strict].map(|text| lab.publish(&liar, &text));
    // Without capabilities, root's helper stays root.
    let script = lab.place.path("helper");
    let whole = std::fs::read_to_string(&script).unwrap();
    std::fs::write(&script, whole.replace("| ", "| /usr/bin/setpriv --bounding-set=-all --inh-caps=-all "))
        .unwrap();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());

    let order = lab.order(&strict);
    let (state, refusal, detail) = tried(&lab, &mut session, &order);

    assert_eq!((state, refusal), (TargetState::Refused, Refusal::Unsupported), "{detail}");
    assert!(detail.contains("sandbox = strict"), "{detail}");
    let of = instruction(&order);
    assert!(!session.told.progress.contains(&(of, TargetState::Running)), "{:?}", session.told.progress);
    std::fs::write(&script, whole).unwrap();
    assert_eq!(counted(&lab, &mut session, &lab.order(&standard)), Ok(1), "root sees it");
    match counted(&lab, &mut session, &lab.order(&strict)) {
        Ok(count) => assert_eq!(count, 0, "nobody does not"),
        Err((state, refusal, detail)) => {
            assert_eq!((state, refusal), (TargetState::Refused, Refusal::Unsupported), "{detail}");
            let fix = format!("{detail}, though the kernel has it; let the tests use it");
            lacks("sandbox", can_make_every_layer(), &fix);
        }
    }
    lab.goes_on(&mut session);
}

fn tried(lab: &Lab, session: &mut Session<'_>, order: &Order) -> (TargetState, Refusal, String) {
    session.deliver(&lab.signed(order));
    session.result_with_detail(instruction(order))
}

/// The number that an order is answered with, or what became of it.
fn counted(
    lab: &Lab,
    session: &mut Session<'_>,
    order: &Order,
) -> Result<i64, (TargetState, Refusal, String)> {
    session.deliver(&lab.signed(order));
    let of = instruction(order).to_vec();
    let result = session
        .until("the count", |told| told.results.iter().find(|result| result.instruction == of).cloned());
    match result.rows.first().and_then(|row| row.values[0].kind.clone()) {
        Some(muster_proto::common::v1::value::Kind::Integer(count)) => Ok(count),
        _ => Err((result.state(), result.refusal(), result.detail)),
    }
}

/// Whether root runs on a kernel with Landlock, in a control group of version 2 that passes both controllers on.
fn can_make_every_layer() -> bool {
    let has = |file: &str, words: &[&str]| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        words.iter().all(|word| text.split([' ', ',', '\n']).any(|has| has == *word))
    };
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    nix::unistd::geteuid().is_root()
        && has("/sys/kernel/security/lsm", &["landlock"])
        && has(&format!("/sys/fs/cgroup/{}/cgroup.subtree_control", own.trim()), &["memory", "pids"])
}
