use super::*;
use crate::instructions::outcome;

#[test]
fn rows_that_do_not_fit_are_left_out_and_told() {
    let plan = plan("Acme-A");
    let rows = vec![vec![SqlValue::Text("x".repeat(60_000))]; 100];

    let result = outcome::finished(id(1), &plan, Ok(answer(rows)), NOW_MS, NOW_MS);

    assert!(result.truncated && !result.rows.is_empty());
    assert!(prost::Message::encoded_len(&result) <= muster_proto::limits::RESULT_BYTES_MAX);
}

#[test]
fn other_columns_than_the_declared_ones_are_a_failure() {
    let mut plan = plan("Acme-A");
    plan.columns = Some(vec![PlanColumn {
        name: "b".to_owned(),
        kind: muster_proto::common::v1::ColumnType::Text,
        max_length: None,
    }]);

    let result = outcome::finished(id(1), &plan, Ok(answer(Vec::new())), NOW_MS, NOW_MS);

    assert_eq!(result.state(), TargetState::Failed);
    assert!(result.detail.contains("[\"a\"]") && result.detail.contains("[\"b\"]"), "{}", result.detail);
}

#[test]
fn columns_that_the_wire_refuses_are_a_failure_not_a_stuck_outbox() {
    let mut answer = answer(Vec::new());
    answer.columns.push(answer.columns[0].clone());

    let result = outcome::finished(id(1), &plan("Acme-A"), Ok(answer), NOW_MS, NOW_MS);

    assert_eq!(result.state(), TargetState::Failed, "{}", result.detail);
}

#[test]
fn the_texts_of_missing_layers_are_cut_and_never_fail_a_result() {
    let mut answer = answer(vec![vec![SqlValue::Integer(1)]]);
    let long = format!("cgroup: {}", "ü".repeat(100));
    answer.sandbox_missing = vec![long.clone(); 100];

    let result = outcome::finished(id(1), &plan("Acme-A"), Ok(answer), NOW_MS, NOW_MS);

    assert_eq!((result.state(), result.rows.len()), (TargetState::Answered, 1), "{}", result.detail);
    let layers = &result.sandbox_missing;
    assert_eq!(layers.len(), muster_proto::limits::SANDBOX_MISSING_MAX);
    assert!(
        layers.iter().all(|layer| layer.starts_with("cgroup: ü") && long.starts_with(layer)),
        "{layers:?}"
    );
}

#[test]
fn what_is_not_run_has_a_code_in_the_log_whether_it_is_a_refusal_or_a_state() {
    for (refusal, code) in [
        (Refusal::Expired, "EXPIRED"),
        (Refusal::WrongAudience, "WRONG_AUDIENCE"),
        (Refusal::Unapproved, "UNAPPROVED"),
    ] {
        let refused = Refused::new(refusal, String::new());

        assert_eq!(outcome::code(&outcome::refused(id(1), &refused, NOW_MS)), code);
    }
    assert_eq!(outcome::code(&outcome::failed(id(1), "no room", 0, NOW_MS)), "FAILED");
    assert_eq!(outcome::code(&outcome::restored(id(1), NOW_MS)), "INTERRUPTED");
}

#[test]
fn a_value_of_another_type_than_the_declared_one_fails_the_step_that_gave_it() {
    let mut plan = plan("Acme-A");
    plan.steps.push(PlanStep::Query("SELECT 2".to_owned()));
    plan.columns = Some(vec![PlanColumn {
        name: "a".to_owned(),
        kind: muster_proto::common::v1::ColumnType::Integer,
        max_length: None,
    }]);
    let finished = |value: SqlValue| {
        let rows = vec![vec![SqlValue::Integer(1)], vec![value]];
        outcome::finished(id(1), &plan, Ok(answer(rows)), NOW_MS, NOW_MS)
    };

    let result = finished(SqlValue::Text("two".to_owned()));

    assert_eq!((result.state(), result.rows.len()), (TargetState::Failed, 0));
    assert!(
        result
            .detail
            .starts_with("step 2 of 2: row 2, column \"a\": found the text \"two\", wanted an integer"),
        "{}",
        result.detail
    );
    assert_eq!(finished(SqlValue::Real(2.0)).state(), TargetState::Answered);
    assert_eq!(finished(SqlValue::Null).state(), TargetState::Answered);
}
