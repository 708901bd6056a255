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
