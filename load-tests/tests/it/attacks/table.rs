//! Which tests hold which row of the attack table, and that they are there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::repository;

/// A row: what is tried, how the names of the tests here begin that try it, and tests elsewhere that try it on what is below: the file, and
/// how their names begin.
type Row = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// Every row of the specification, in its order; then what is tried beyond it.
const TABLE: [Row; 19] = [
    ("replay to the same device", &["attack_replay_to_the_same_device", "attack_replay_of_an_order"], &[]),
    (
        "replay to another device or tenant",
        &["attack_replay_to_another_device", "attack_replay_to_another_tenant"],
        &[],
    ),
    (
        "old definition after a newer one (rollback)",
        &["attack_old_definition", "attack_rollback_a_switch_cannot_take_approvals_away"],
        &[],
    ),
    ("old licence or CRL", &["attack_old_licence", "attack_old_crl"], &[]),
    ("freeze (never told of the newer)", &["attack_freeze_of_an_order", "attack_freeze_of_the_licence"], &[]),
    ("mix and match", &["attack_mix_and_match"], &[]),
    (
        "endless data",
        &[
            "attack_endless_data_of_documents_and_messages",
            "attack_endless_data_of_unasked_documents",
            "attack_endless_data_of_a_licence_or_a_policy",
            "attack_endless_data_of_one_message_or_upgrade",
            "attack_endless_data_of_orders_pings_and_notices",
            "attack_endless_data_of_a_resource_beyond_this_devices_bound",
            "attack_endless_data_of_a_background_channel",
            "attack_endless_data_behind_the_signed_bytes",
            "attack_endless_data_that_trickles_ends",
            "attack_endless_data_that_trickles_is_left",
            "attack_endless_data_of_an_answer",
            "attack_endless_data_of_garbage",
        ],
        &[
            ("client/src/content/tests.rs", "a_lying_outboard"),
            ("client/src/content/tests.rs", "a_flipped_bit"),
        ],
    ),
    ("prefix squatting, look-alikes", &["attack_prefix_squatting"], &[]),
    (
        "stolen author key",
        &[
            "attack_with_a_stolen_author_key",
            "attack_with_a_key_of_another_role",
            "attack_with_an_envelope_of_another_type",
        ],
        &[],
    ),
    ("clock set back", &["attack_clock_set"], &[]),
    (
        "changed between check and use",
        &["attack_changed_between_check_and_use"],
        &[("client/src/content/known.rs", "a_file_that_was_changed_while_its_instruction_waited")],
    ),
    (
        "the Switch rewrites a client's policy",
        &["k1_a_lying_switch_with_the_real_key", "attack_endless_data_of_a_licence_or_a_policy"],
        &[],
    ),
    (
        "parameter injection",
        &["attack_parameter_injection", "attack_with_numbers_booleans_and_times"],
        &[("client/endpoint/tests/it/injection.rs", "hostile_strings_in_every_text_parameter")],
    ),
    (
        "every single-bit flip, every truncation",
        &["attack_flipped_bits_and_truncations"],
        &[("signing/tool/tests/it/exhaustive.rs", "every_change_of_a")],
    ),
    ("an order without its approvals", &["attack_an_order_without_its_approvals"], &[]),
    ("a stop that nobody signed, an order after its stop", &["a_lying_switch_stops_nothing"], &[]),
    ("what this device cannot give", &["attack_with_a_definition_for_another_platform"], &[]),
    ("a Welcome that lies", &["attack_by_a_welcome"], &[]),
    (
        "a Background Channel that names numbers of a device's outbox",
        &["attack_by_a_relayed_number"],
        &[("switch/src/engine/tests/intake.rs", "what_is_relayed_never_raises")],
    ),
];

#[test]
fn every_row_of_the_attack_table_has_its_tests_and_every_attack_its_row() {
    let here = tests_below(&repository().join("load-tests/tests/it"));

    for (row, names, elsewhere) in TABLE {
        assert!(!names.is_empty(), "{row}: no test with real processes");
        for name in names {
            assert!(here.iter().any(|test| test.starts_with(name)), "{row}: no test here begins with {name}");
        }
        for (file, name) in elsewhere {
            let there = tests_of(&repository().join(file));
            assert!(
                there.iter().any(|test| test.starts_with(name)),
                "{row}: no test of {file} begins with {name}"
            );
        }
    }
    let is_named =
        |test: &&String| TABLE.iter().any(|(_, names, _)| names.iter().any(|name| test.starts_with(name)));
    let without: Vec<&String> =
        here.iter().filter(|test| test.starts_with("attack_")).filter(|test| !is_named(test)).collect();
    assert!(without.is_empty(), "in no row: {without:?}");
}

fn tests_below(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let is_code = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    entries
        .flat_map(|path| match path.is_dir() {
            true => tests_below(&path),
            false if is_code(&path) => tests_of(&path),
            false => BTreeSet::new(),
        })
        .collect()
}

/// The functions of a file that are tests.
fn tests_of(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        is_test = is_test || matches!(line, "#[test]" | "#[tokio::test]");
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some((name, _)) = function.filter(|_| is_test).and_then(|rest| rest.split_once('(')) {
            tests.insert(name.to_owned());
            is_test = false;
        }
    }
    tests
}
