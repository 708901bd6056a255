//! Sums over committed results.

use std::time::Duration;

use muster_proto::common::v1::{Column, ColumnType, Row, TargetState, Value, value::Kind};
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::AggregateResultsResponse;
use muster_proto::session::v1::Result as SessionResult;
use muster_signing::envelope::ContentType;
use tokio_util::sync::CancellationToken;

use super::damage::flip;
use super::world::*;
use crate::engine::EngineError;

const OWN: &str =
    "SELECT name, count(*) AS devices, sum(size) AS size FROM results GROUP BY name ORDER BY name";

/// A world whose definition has columns and this aggregate.
async fn world(aggregate: &str) -> World {
    let world = World::new().await;
    import(&world, aggregate).await.unwrap();
    world
}

async fn import(world: &World, aggregate: &str) -> Result<(), EngineError> {
    let columns = "[[result]]\nname = \"name\"\ntype = \"text\"\n\n[[result]]\nname = \"size\"";
    let text = definition_text("2.0.0", "SELECT 1").replace("[[result]]\nname = \"one\"", columns);
    let text = match aggregate {
        "" => text,
        aggregate => format!("{text}\n[aggregate]\nquery = '{aggregate}'\n"),
    };
    let envelope = world.author.sign(text.as_bytes(), ContentType::Definition, world.now_ms());
    world.engine.import_definition(envelope).await.map(|_| ())
}

/// A result with rows of a name and a size.
fn rows(id: InstructionId, sequence: u64, rows: &[(&str, i64)]) -> SessionResult {
    let column = |name: &str, kind: ColumnType| Column { name: name.to_owned(), r#type: kind.into() };
    let row = |(name, size): &(&str, i64)| Row {
        values: vec![
            Value { kind: Some(Kind::Text((*name).to_owned())) },
            Value { kind: Some(Kind::Integer(*size)) },
        ],
    };
    SessionResult {
        columns: vec![column("name", ColumnType::Text), column("size", ColumnType::Integer)],
        rows: rows.iter().map(row).collect(),
        ..result(id, sequence, TargetState::Answered)
    }
}

async fn tell(world: &mut World, session: &Session, result: SessionResult) {
    world.tell_result(session, result).await;
    world.next_ack().await;
}

fn aggregate(world: &World, id: InstructionId, query: &str) -> Result<AggregateResultsResponse, EngineError> {
    world.engine.reader().aggregate(id, query, &CancellationToken::new())
}

fn shown(answer: &AggregateResultsResponse) -> Vec<String> {
    let value = |value: &Value| match &value.kind {
        Some(Kind::Integer(number)) => number.to_string(),
        Some(Kind::Text(text)) => text.clone(),
        other @ (None | Some(Kind::Real(_) | Kind::Blob(_))) => format!("{other:?}"),
    };
    answer.rows.iter().map(|row| row.values.iter().map(value).collect::<Vec<_>>().join("|")).collect()
}

#[tokio::test]
async fn the_definitions_own_aggregate_is_over_every_row_of_every_device_also_after_a_restart() {
    let mut world = world(OWN).await;
    let (first, second) = (world.connect("w1.acme.local").await, world.connect("w2.acme.local").await);
    let id = world.issue("").await;
    tell(&mut world, &first, rows(id, 1, &[("a", 1), ("b", 2)])).await;
    tell(&mut world, &second, SessionResult { last: false, ..rows(id, 1, &[("a", 10)]) }).await;
    tell(&mut world, &second, SessionResult { part: 1, ..rows(id, 2, &[("a", 100)]) }).await;

    let before = aggregate(&world, id, "").unwrap();
    let world = world.restart(|_| ());
    let after = aggregate(&world, id, "").unwrap();

    assert_eq!(shown(&before), ["a|3|111", "b|1|2"]);
    assert_eq!((before.devices, before.results, before.rows_read), (2, 3, 4));
    assert_eq!((before.partial, before.truncated, before.query.as_str()), (false, false, OWN));
    assert_eq!(before.instruction.as_ref().map(|instruction| instruction.complete), Some(true));
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_query_of_an_operator_runs_in_the_place_of_the_aggregate_and_knows_whose_row_it_is() {
    let mut world = world("").await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    tell(&mut world, &session, rows(id, 1, &[("a", 1), ("b", 2)])).await;

    let asked = aggregate(&world, id, "SELECT device, max(size) FROM results").unwrap();
    let none = aggregate(&world, id, " ").unwrap_err();
    let wrong = aggregate(&world, id, "SELECT bytes FROM results").unwrap_err();
    let unknown = aggregate(&world, InstructionId::from([7; 16]), "").unwrap_err();

    assert_eq!(shown(&asked), ["w1.acme.local|2"]);
    let said = none.to_string();
    assert!(said.contains("Acme-Test-Kernel 2.0.0 has no [aggregate]; give a query"), "{said}");
    assert!(
        matches!(none, EngineError::InvalidArgument(_)) && matches!(wrong, EngineError::InvalidArgument(_))
    );
    assert!(wrong.to_string().contains("columns device, name, size"), "{wrong}");
    assert!(matches!(unknown, EngineError::NotFound(_)), "{unknown:?}");
}

#[tokio::test]
async fn what_is_missing_marks_the_sum_as_one_over_a_part() {
    let mut world = world(OWN).await;
    let sessions = [
        world.connect("w1.acme.local").await,
        world.connect("w2.acme.local").await,
        world.connect("w3.acme.local").await,
    ];
    let id = world.issue("").await;
    tell(&mut world, &sessions[0], rows(id, 1, &[("a", 1)])).await;
    let unanswered = aggregate(&world, id, "").unwrap();
    let mut unfit = rows(id, 1, &[("a", 1)]);
    unfit.rows[0].values[1].kind = Some(Kind::Text("1".to_owned()));
    tell(&mut world, &sessions[1], unfit).await;
    let cut = SessionResult { truncated: true, ..rows(id, 1, &[("a", 10)]) };
    tell(&mut world, &sessions[2], cut).await;
    let all = aggregate(&world, id, "").unwrap();
    let world = world.restart(|database| flip(database, "results", "position = 1"));
    let damaged = aggregate(&world, id, "").unwrap();

    let told = |answer: &AggregateResultsResponse| {
        assert!(answer.partial, "{answer:?}");
        (shown(answer), answer.devices, answer.results_left_out, answer.results_truncated)
    };
    assert_eq!(told(&unanswered), (vec!["a|1|1".to_owned()], 1, 0, 0));
    assert_eq!(told(&all), (vec!["a|2|11".to_owned()], 2, 1, 1));
    assert_eq!(told(&damaged), (vec!["a|1|10".to_owned()], 1, 2, 1));
}

#[tokio::test]
async fn rows_of_removed_devices_and_those_that_came_late_are_in_it() {
    let mut world = world(OWN).await;
    let (gone, late) = (world.connect("w1.acme.local").await, world.connect("w2.acme.local").await);
    let id = world.issue("").await;
    tell(&mut world, &gone, rows(id, 1, &[("a", 1)])).await;
    world.engine.remove("w1.acme.local".parse().unwrap()).await.unwrap();
    world.advance(Duration::from_secs(2 * 3_600));
    world.until_state(id, TargetState::Expired).await;
    tell(&mut world, &late, rows(id, 1, &[("a", 10)])).await;

    let answer = aggregate(&world, id, "SELECT group_concat(device), sum(size) FROM results").unwrap();

    assert_eq!(shown(&answer), ["w1.acme.local,w2.acme.local|11"]);
    assert!(answer.partial, "its target stays expired");
}

#[tokio::test]
async fn more_rows_than_may_go_in_are_refused_and_never_summed_in_part() {
    let mut world = world(OWN).await;
    let session = world.connect("w1.acme.local").await;
    let (fits, exceeds) = (world.issue("").await, world.issue("").await);
    let many = vec![("a", 1); usize::try_from(AGGREGATE_ROWS_MAX).unwrap()];
    tell(&mut world, &session, rows(fits, 1, &many)).await;
    tell(&mut world, &session, SessionResult { last: false, ..rows(exceeds, 2, &many) }).await;
    tell(&mut world, &session, SessionResult { part: 1, ..rows(exceeds, 3, &[("a", 1)]) }).await;

    let whole = aggregate(&world, fits, "").unwrap();
    let refused = aggregate(&world, exceeds, "").unwrap_err();

    assert_eq!(whole.rows_read, AGGREGATE_ROWS_MAX);
    assert!(matches!(refused, EngineError::ResourceExhausted(_)), "{refused:?}");
    assert!(refused.to_string().contains("engine.aggregate_rows_max"), "{refused}");
}

#[tokio::test]
async fn one_that_nobody_waits_for_is_not_run() {
    let world = world(OWN).await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let stop = CancellationToken::new();
    stop.cancel();

    let ended = world.engine.reader().aggregate(id, "", &stop);

    assert_eq!(ended.unwrap_err(), EngineError::Closed);
}

#[tokio::test]
async fn a_definition_whose_aggregate_can_never_run_is_not_imported() {
    let world = World::new().await;

    let refused = import(&world, "SELECT bytes FROM results").await.unwrap_err();
    let taken = import(&world, OWN).await;

    assert!(matches!(refused, EngineError::InvalidArgument(_)), "{refused:?}");
    assert!(refused.to_string().contains("no such column: bytes"), "{refused}");
    assert_eq!(taken, Ok(()));
}
