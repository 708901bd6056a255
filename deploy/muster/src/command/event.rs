//! `muster event`: what clients reported on their own account.

use muster_proto::common::v1::ColumnType;
use muster_proto::operator::v1::{ListEventsRequest, LoggedEvent};
use serde_json::json;

use crate::cli::{Event, Listing};
use crate::exit::{Exit, Failure};
use crate::operator::{self, Operator, answered};
use crate::output::{self, Cell, Table};

/// Runs a verb.
pub(crate) async fn run(operator: &Operator, verb: Event) -> Result<Exit, Failure> {
    match verb {
        Event::List { device, after, follow: false, listing } => {
            list(operator, device, after, &listing).await
        }
        Event::List { device, after, follow: true, .. } => follow(operator, device, after).await,
    }
}

async fn list(operator: &Operator, device: String, after: u64, listing: &Listing) -> Result<Exit, Failure> {
    let mut table = Table::new([
        "position",
        "device",
        "name",
        "occurred",
        "fields",
        "committed",
        "road",
        "sequence",
        "outbox_id",
    ])
    .wide_only(&["committed", "road", "sequence", "outbox_id"]);
    // One more than is shown tells whether there are more.
    let request = ListEventsRequest { device, after, limit: listing.limit.saturating_add(1), follow: false };
    let mut stream = answered(operator.events().list_events(request)).await?;
    let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
    let (mut last, mut has_more) = (after, false);
    while let Some(response) = operator::next(&mut stream).await? {
        let event = response.event.unwrap_or_default();
        if table.len() == limit {
            has_more = true;
            break;
        }
        last = event.position;
        table.push(row(&event));
    }
    table.print(listing.output)?;
    if has_more {
        output::note(&format!(
            "only the first {limit}; there are more: --after {last}, or --limit N for more at once"
        ));
    }
    if table.len() == 0 {
        output::note("no event");
    }
    Ok(Exit::Ok)
}

async fn follow(operator: &Operator, device: String, after: u64) -> Result<Exit, Failure> {
    let request = ListEventsRequest { device, after, limit: 0, follow: true };
    let mut stream = answered(operator.events().list_events(request)).await?;
    while let Some(response) = stream.message().await? {
        output::print_json_line(&as_json(&response.event.unwrap_or_default()))?;
    }
    Ok(Exit::Ok)
}

fn row(logged: &LoggedEvent) -> Vec<Cell> {
    let event = logged.event.clone().unwrap_or_default();
    let fields = fields(logged);
    let text: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    vec![
        Cell::number(logged.position),
        Cell::text(&logged.device),
        Cell::text(&event.name),
        Cell::moment(event.occurred_at_ms),
        Cell { text: text.join(" "), json: serde_json::Value::Object(fields) },
        Cell::moment(logged.committed_at_ms),
        Cell::text(&logged.road),
        Cell::number(event.sequence),
        Cell::text(hex::encode(&logged.outbox_id)),
    ]
}

fn fields(logged: &LoggedEvent) -> serde_json::Map<String, serde_json::Value> {
    logged
        .event
        .iter()
        .flat_map(|event| &event.fields)
        .map(|field| {
            let value = field.value.clone().unwrap_or_default();
            (field.name.clone(), Cell::value(&value, ColumnType::Unspecified).json)
        })
        .collect()
}

/// One event as a JSON object, as `export` prints it.
pub(crate) fn as_json(logged: &LoggedEvent) -> serde_json::Value {
    let event = logged.event.clone().unwrap_or_default();
    json!({
        "kind": "event",
        "position": logged.position,
        "device": logged.device,
        "outbox_id": hex::encode(&logged.outbox_id),
        "sequence": event.sequence,
        "name": event.name,
        "occurred_at_ms": event.occurred_at_ms,
        "committed_at_ms": logged.committed_at_ms,
        "road": logged.road,
        "fields": fields(logged),
    })
}
