use muster_endpoint::QueryError;
use muster_proto::session::v1::Result as InstructionResult;

use super::*;
use crate::instructions::outcome;
use crate::instructions::run::{Place, StepError};

fn finished(plan: &Plan, collected: Collected) -> InstructionResult {
    outcome::finished(id(1), plan, Ok(collected), NOW_MS, NOW_MS).0
}

#[test]
fn other_columns_than_the_declared_ones_are_a_failure() {
    let mut plan = plan("Acme-A");
    plan.columns = Some(vec![PlanColumn {
        name: "b".to_owned(),
        kind: muster_proto::common::v1::ColumnType::Text,
        max_length: None,
    }]);

    let result = finished(&plan, answer(&plan, Vec::new()));

    assert_eq!(result.state(), TargetState::Failed);
    assert!(result.detail.contains("[\"a\"]") && result.detail.contains("[\"b\"]"), "{}", result.detail);
}

#[test]
fn columns_that_the_wire_refuses_are_a_failure_not_a_stuck_outbox() {
    let plan = plan("Acme-A");
    let mut answer = answer(&plan, Vec::new());
    answer.columns.push(answer.columns[0].clone());

    let result = finished(&plan, answer);

    assert_eq!(result.state(), TargetState::Failed, "{}", result.detail);
}

#[test]
fn the_texts_of_missing_layers_are_cut_and_never_fail_a_result() {
    let plan = plan("Acme-A");
    let mut answer = answer(&plan, vec![vec![SqlValue::Integer(1)]]);
    let long = format!("cgroup: {}", "ü".repeat(100));
    answer.sandbox_missing = vec![long.clone(); 100];

    let result = finished(&plan, answer);

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
    let of = |value: SqlValue| {
        let rows = vec![vec![SqlValue::Integer(1)], vec![value]];
        finished(&plan, answer(&plan, rows))
    };

    let result = of(SqlValue::Text("two".to_owned()));

    assert_eq!((result.state(), result.rows.len()), (TargetState::Failed, 0));
    assert!(
        result
            .detail
            .starts_with("step 2 of 2: row 2, column \"a\": found the text \"two\", wanted an integer"),
        "{}",
        result.detail
    );
    assert_eq!(of(SqlValue::Real(2.0)).state(), TargetState::Answered);
    assert_eq!(of(SqlValue::Null).state(), TargetState::Answered);
}

#[test]
fn a_sandbox_that_cannot_be_had_refuses_the_first_step_and_fails_a_later_one() {
    let missing = || vec!["landlock: none".to_owned()];
    let ended = |step, cause| {
        let error = StepError::Query { place: Place { step, of: 2 }, cause };
        outcome::finished(id(1), &plan("Acme-A"), Err(error), NOW_MS, NOW_MS).0
    };

    for cause in [QueryError::Sandbox { missing: missing() }, QueryError::Unconfined { missing: missing() }] {
        let (first, later) = (ended(1, cause.clone()), ended(2, cause));

        assert_eq!((first.state(), first.refusal()), (TargetState::Refused, Refusal::Unsupported));
        assert_eq!((later.state(), later.refusal()), (TargetState::Failed, Refusal::Unspecified));
        assert!(first.detail.contains("landlock: none") && later.detail.contains("landlock: none"));
    }
}
