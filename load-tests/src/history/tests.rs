//! A history with nothing wrong, and every way to break one.

use super::*;

/// Two parts, a refusal, an answer that came too late, one that still runs; the outbox of `a` has an event as well.
const GOOD: &str = r#"
{"kind":"definition","name":"Q","version":"1.0.0"}
{"kind":"instruction","id":"i","definition":"Q","version":"1.0.0","targets":4,"states":{"answered":1,"refused":1,"expired":1,"running":1},"complete":false}
{"kind":"transition","instruction":"i","batch":1,"state":"queued","devices":["a","b","c","d"],"cause":"submitted"}
{"kind":"transition","instruction":"i","batch":2,"state":"sent","devices":["a","b","d"],"cause":"written"}
{"kind":"transition","instruction":"i","batch":3,"state":"running","devices":["a","d"],"cause":"progress"}
{"kind":"transition","instruction":"i","batch":4,"state":"answered","devices":["a"],"cause":"result"}
{"kind":"transition","instruction":"i","batch":4,"state":"refused","devices":["b"],"cause":"result"}
{"kind":"transition","instruction":"i","batch":5,"state":"expired","devices":["c"],"cause":"deadline"}
{"kind":"result","instruction":"i","device":"a","outbox_id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","sequence":1,"part":0,"last":false,"state":"answered","refusal":null,"columns":["n"],"rows":[[1],[2]]}
{"kind":"result","instruction":"i","device":"a","outbox_id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","sequence":3,"part":1,"last":true,"state":"answered","refusal":null,"columns":["n"],"rows":[[3]]}
{"kind":"result","instruction":"i","device":"b","outbox_id":"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b","sequence":1,"part":0,"last":true,"state":"refused","refusal":"REPLAYED","columns":[],"rows":[]}
{"kind":"result","instruction":"i","device":"c","outbox_id":"0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c","sequence":1,"part":0,"last":true,"state":"answered","refusal":null,"columns":["n"],"rows":[]}
{"kind":"event","position":1,"device":"a","outbox_id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","sequence":2,"road":"session"}
"#;

/// Their line in [`GOOD`].
const FIRST_PART: &str = r#""sequence":1,"part":0,"last":false"#;
const OUTBOX: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

fn check(export: &str) -> Vec<Violation> {
    History::read(export).check(&[])
}

fn event_acked(sequence: u64) -> Promise {
    Promise::EventAcked { device: "a".to_owned(), outbox_id: OUTBOX.to_owned(), sequence }
}

fn result_acked(sequence: u64) -> Promise {
    Promise::ResultAcked { device: "a".to_owned(), outbox_id: OUTBOX.to_owned(), sequence }
}

#[test]
fn a_good_history_has_nothing_to_say_and_every_rule_was_looked_at() {
    let accepted = Promise::Accepted { instruction: "i".to_owned() };

    let report = History::read(GOOD).report(&[event_acked(2), result_acked(3), accepted]);

    assert_eq!(report.violations, []);
    for rule in Rule::ALL {
        assert!(report.of(rule).0 > 0, "{rule:?} was looked at");
    }
}

#[test]
fn every_mutation_is_found_by_its_own_rule() {
    for mutation in mutation::ALL {
        let broken = mutation.of(GOOD).unwrap_or_else(|| panic!("{}: nothing to change", mutation.name));

        let found = check(&broken);

        let is_found = found.iter().any(|violation| violation.rule == mutation.breaks);
        assert!(is_found, "{}: {:?} in {found:#?}", mutation.name, mutation.breaks);
    }
}

#[test]
fn a_violation_tells_line_expectation_and_finding() {
    let cases = [
        (
            "\"state\":\"refused\",\"refusal\":\"REPLAYED\"",
            "\"state\":\"failed\",\"refusal\":null",
            "line 12: instruction i, b: expected `refused`, as line 8 of the ledger says; found `failed`",
        ),
        (
            FIRST_PART,
            r#""sequence":1,"part":0,"last":true"#,
            "line 11: instruction i, a: expected nothing after the last part on line 10; found part 1",
        ),
        ("\"part\":1", "\"part\":7", "line 11: instruction i, a: expected part 1; found part 7"),
        (
            "\"running\":1",
            "\"running\":2",
            "line 3: instruction i: expected 1 `running`, as the transitions say; found 2 in the record",
        ),
        (
            "\"sequence\":2",
            "\"sequence\":3",
            "line 14: sequence 3 of a, outbox 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a: expected it once; found it again, the first is on line 11",
        ),
        (
            "[[1],[2]]",
            "[[1],[2,3]]",
            "line 10: instruction i, a: expected rows of 1 values, as there are columns; found one of 2",
        ),
        ("\"batch\":5,", "", "line 9: the line: expected a record of `muster export`; found no `batch`"),
        (
            "\"road\":\"session\"",
            "\"road\":\"mail\"",
            "expected the road `session` or `background`; found `mail`",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from}");

        let found: Vec<String> = check(&GOOD.replacen(from, to, 1)).iter().map(ToString::to_string).collect();

        assert!(found.iter().any(|text| text.contains(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn parts_of_a_target_that_has_not_ended_may_be_there_and_a_last_one_may_not() {
    let part = GOOD.lines().find(|line| line.contains(FIRST_PART)).unwrap().replace("\"a\"", "\"d\"");
    let with = |part: &str| format!("{GOOD}{}", part.replace("\"sequence\":1", "\"sequence\":9"));

    assert_eq!(check(&with(&part)), []);
    let ended = check(&with(&part.replace("\"last\":false", "\"last\":true")));
    assert_eq!(ended.iter().map(|violation| violation.rule).collect::<Vec<_>>(), [Rule::OneResult]);
}

#[test]
fn a_late_result_is_kept_also_without_its_beginning_and_never_twice() {
    let late =
        r#""sequence":1,"part":0,"last":true,"state":"answered","refusal":null,"columns":["n"],"rows":[]"#;
    assert_eq!(check(&GOOD.replace(late, &late.replace("\"part\":0", "\"part\":2"))), []);
    let line = GOOD.lines().find(|line| line.contains(late)).unwrap();
    let again = line.replace("\"sequence\":1", "\"sequence\":2").replace("\"part\":0", "\"part\":1");

    let found = check(&format!("{GOOD}{again}"));

    assert_eq!(found.iter().map(|violation| violation.rule).collect::<Vec<_>>(), [Rule::Parts]);
}

#[test]
fn what_was_promised_and_is_not_there_is_lost_also_when_it_went_by_the_other_lane() {
    let unknown = Promise::Accepted { instruction: "j".to_owned() };

    let found = History::read(GOOD).check(&[result_acked(7), event_acked(1), result_acked(2), unknown]);

    let numbers: Vec<Place> = found.iter().map(|violation| violation.place).collect();
    assert_eq!(numbers, [1, 2, 3, 4].map(Place::Promise));
    assert!(found[0].to_string().starts_with("promise 1: result 7 of a"), "{}", found[0]);
}

#[test]
fn what_the_switch_refused_itself_may_have_run_and_needs_no_result() {
    for code in ["UNLICENSED", "UNTRUSTED_SIGNER", "ROLLED_BACK"] {
        let cause = format!("\"cause\":\"{code}\"");
        let refused = GOOD
            .replace(
                "\"state\":\"expired\",\"devices\":[\"c\"],\"cause\":\"deadline\"",
                &format!("\"state\":\"refused\",\"devices\":[\"c\"],{cause}"),
            )
            .replace("\"refused\":1,\"expired\":1", "\"refused\":2");
        let late = |line: &&str| !(line.contains("\"result\"") && line.contains("\"device\":\"c\""));
        let without: String = refused.lines().filter(late).map(|line| format!("{line}\n")).collect();

        assert_eq!(check(&refused), [], "{code}");
        assert_eq!(check(&without), [], "{code}");
        let answered = check(&GOOD.replace("\"cause\":\"deadline\"", &cause));
        assert_eq!(answered.iter().map(|violation| violation.rule).collect::<Vec<_>>(), [Rule::Causes]);
    }
    // And who was blocked before an order was sent is cancelled.
    let blocked = GOOD
        .replace(
            "\"state\":\"expired\",\"devices\":[\"c\"],\"cause\":\"deadline\"",
            "\"state\":\"cancelled\",\"devices\":[\"c\"],\"cause\":\"blocked\"",
        )
        .replace("\"expired\":1", "\"cancelled\":1");
    assert_eq!(check(&blocked), []);
    let other = check(&GOOD.replace("\"cause\":\"deadline\"", "\"cause\":\"WRONG_TENANT\""));
    assert_eq!(other.iter().map(|violation| violation.rule).collect::<Vec<_>>(), [Rule::Causes]);
}

#[test]
fn what_was_acknowledged_of_a_device_whose_results_were_deleted_is_not_lost() {
    let deleted = GOOD.replace("\"complete\":false", "\"complete\":false,\"results_deleted\":true");
    let without: String = deleted
        .lines()
        .filter(|line| !line.contains("\"kind\":\"result\""))
        .map(|line| format!("{line}\n"))
        .collect();
    let other = Promise::ResultAcked { device: "z".to_owned(), outbox_id: OUTBOX.to_owned(), sequence: 1 };

    let found = History::read(&without).check(&[result_acked(3), other, event_acked(2)]);

    assert_eq!(found.iter().map(|violation| violation.place).collect::<Vec<_>>(), [Place::Promise(2)]);
}

#[test]
fn stops_approvals_and_definitions_that_were_promised_are_there() {
    let with = |more: &str| GOOD.replace("\"complete\":false", &format!("\"complete\":false,{more}"));
    let stop = || Promise::StopAccepted { instruction: "i".to_owned() };
    let by = |who: &str| Promise::ApprovalAccepted { instruction: "i".to_owned(), operator: who.to_owned() };
    let version =
        |version: &str| Promise::DefinitionImported { name: "Q".to_owned(), version: version.to_owned() };
    let stopped = with(r#""stop":{"id":"s"},"approvals_wanted":1,"approvals":[{"operator":"bob"}]"#);

    assert_eq!(History::read(&stopped).check(&[stop(), by("bob"), version("1.0.0")]), []);

    let lost = History::read(GOOD).check(&[stop(), by("bob"), version("2.0.0")]);
    assert_eq!(
        lost.iter().map(|violation| violation.place).collect::<Vec<_>>(),
        [1, 2, 3].map(Place::Promise)
    );
    assert_eq!(History::read(&stopped).check(&[by("carol")]).len(), 1);
}

#[test]
fn an_instruction_that_was_promised_and_has_lost_its_record_is_lost() {
    let without: String =
        GOOD.lines().filter(|line| !line.contains("\"id\"")).map(|line| format!("{line}\n")).collect();

    let found = History::read(&without).check(&[Promise::Accepted { instruction: "i".to_owned() }]);

    let rules: Vec<Rule> = found.iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::Record, Rule::Promises]);
}
