//! Sums up an instruction's results: its committed rows in a table `results` in memory, and one SELECT over it.
//!
//! The SELECT is the definition's own, as its author signed it, or an operator's. [`table`] says what stands in the table, [`sandbox`] what
//! the SELECT may do and take. Results are read page by page, each with a connection that is given back at once, so that no other reader
//! waits for an aggregate. What does not fit is refused, and what is left out is counted: no sum over a part is told as one over the whole.

mod answer;
mod bounds;
mod error;
mod sandbox;
mod table;
#[cfg(test)]
mod tests;

use std::time::Instant;

use muster_proto::common::v1::TargetState;
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::operator::v1::{AggregateResultsResponse, DeviceResult, Instruction};
use muster_proto::order::v1::Order;
use muster_signing::definition::Definition;
use prost::Message;
use roaring::RoaringBitmap;
use tokio_util::sync::CancellationToken;

use super::instructions::{self, Stored};
use super::pool::{Pool, failed};
use crate::engine::EngineError;
use crate::engine::metrics;
use crate::engine::shared::Shared;
use bounds::Watch;
pub(crate) use bounds::{AggregateLimits, Aggregates};
use error::AggregateError;
use table::{Put, Table};

/// Bytes of records that are read at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// Results that are read at once.
const READ_RESULTS_MAX: usize = 1_000;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) id: InstructionId,
    /// The SELECT; empty: the definition's own.
    pub(super) query: &'a str,
    /// Ends it: the caller has gone, or the Switch stops.
    pub(super) stop: &'a CancellationToken,
}

/// Where the results are that were committed when it began.
struct Opened {
    id: InstructionId,
    instruction: Instruction,
    position: i64,
    until: i64,
    definition: Option<Definition>,
}

/// What went into the table.
#[derive(Debug, Default)]
struct Loaded {
    devices: RoaringBitmap,
    results: u64,
    left_out: u64,
    cut: u64,
}

/// Sums results up.
pub(super) fn run(
    pool: &Pool,
    shared: &Shared,
    aggregates: &Aggregates,
    asked: Asked<'_>,
) -> Result<AggregateResultsResponse, EngineError> {
    let begin = Instant::now();
    let ran = aggregates.enter().and_then(|_place| summed(pool, shared, aggregates.limits(), asked));
    let outcome = match &ran {
        Ok(answer) if answer.partial => "partial",
        Ok(_) => "whole",
        Err(error) => error.label(),
    };
    metrics::aggregated(outcome, begin.elapsed());
    ran.map_err(EngineError::from)
}

/// Prepares the aggregate of a definition against a table without rows, so that one that can never run is told before anybody issues it.
/// Where the columns are those of an argument's query, nothing can be told.
pub(crate) fn check(definition: &Definition) -> Result<(), EngineError> {
    let Some(query) = definition.aggregate().filter(|_| !definition.result().is_empty()) else {
        return Ok(());
    };
    let prepared = Watch::of_check().and_then(|watch| {
        let mut table = Table::new(Some(definition), watch)?;
        table.seal()?;
        table.select(query).map(|_| ())
    });
    prepared.map_err(|error| EngineError::from(error).about("the definition's [aggregate]"))
}

fn summed(
    pool: &Pool,
    shared: &Shared,
    limits: &AggregateLimits,
    asked: Asked<'_>,
) -> Result<AggregateResultsResponse, AggregateError> {
    let watch = Watch::begin(limits, asked.stop)?;
    let opened = open(pool, shared, asked.id)?;
    let query = query(asked.query, &opened)?;
    let mut table = Table::new(opened.definition.as_ref(), watch)?;
    let loaded = load(pool, shared, &opened, limits, &mut table)?;
    table.seal()?;
    let answer = answer::of(&table, &query, limits.answer_rows_max)?;
    let answered: u64 = opened
        .instruction
        .states
        .iter()
        .filter(|count| count.state() == TargetState::Answered)
        .map(|count| count.count)
        .sum();
    Ok(AggregateResultsResponse {
        partial: answered < opened.instruction.targets || loaded.left_out > 0 || loaded.cut > 0,
        columns: answer.columns,
        rows: answer.rows,
        truncated: answer.truncated,
        query,
        devices: loaded.devices.len(),
        results: loaded.results,
        rows_read: table.rows(),
        results_left_out: loaded.left_out,
        results_truncated: loaded.cut,
        instruction: Some(opened.instruction),
    })
}

/// Finds the instruction with its counts, and the last of its results as of the same moment.
fn open(pool: &Pool, shared: &Shared, id: InstructionId) -> Result<Opened, EngineError> {
    pool.read(|connection| {
        let snapshot = connection.unchecked_transaction().map_err(failed)?;
        let stored = instructions::find(&snapshot, shared, id)?;
        instructions::require_results(&snapshot, shared, id, stored.position)?;
        let instruction = instructions::shown(&snapshot, shared, &stored)?;
        let sql = "SELECT coalesce(max(position), 0) FROM results WHERE instruction = ?1";
        let mut statement = snapshot.prepare_cached(sql).map_err(failed)?;
        let until = statement.query_row([stored.position], |row| row.get(0)).map_err(failed)?;
        let definition = definition(shared, &stored)?;
        Ok(Opened { id, instruction, position: stored.position, until, definition })
    })
}

/// Returns the very definition that the order names, whatever was imported since.
fn definition(shared: &Shared, stored: &Stored) -> Result<Option<Definition>, EngineError> {
    let order = Order::decode(&stored.record.order[..]).map_err(failed)?;
    let digest = Digest::try_from(&order.definition_digest[..]).ok();
    let catalogue = shared.catalogue();
    let held = digest.and_then(|digest| catalogue.definition_by_digest(digest));
    Ok(held.map(|held| held.document.clone()))
}

/// Returns the SELECT that is to run.
fn query(asked: &str, opened: &Opened) -> Result<String, AggregateError> {
    if !asked.trim().is_empty() {
        return Ok(asked.to_owned());
    }
    let own = opened.definition.as_ref().and_then(Definition::aggregate);
    own.map(str::to_owned).ok_or_else(|| AggregateError::None {
        definition: format!("{} {}", opened.instruction.definition, opened.instruction.version),
    })
}

/// Puts the results into the table.
fn load(
    pool: &Pool,
    shared: &Shared,
    opened: &Opened,
    limits: &AggregateLimits,
    table: &mut Table,
) -> Result<Loaded, AggregateError> {
    let mut loaded = Loaded::default();
    let mut after = 0;
    loop {
        table.watch().look()?;
        let page = page(pool, shared, opened, after)?;
        let Some((last, _, _)) = page.last() else { return Ok(loaded) };
        after = *last;
        for (_, number, result) in &page {
            let Some(result) = result else {
                loaded.left_out += 1;
                continue;
            };
            let rows = u64::try_from(result.rows.len()).unwrap_or(u64::MAX);
            if table.rows().saturating_add(rows) > limits.rows_max {
                return Err(AggregateError::TooManyRows { most: limits.rows_max });
            }
            match table.put(result)? {
                Put::Unfit => loaded.left_out += 1,
                Put::In => {
                    loaded.results += 1;
                    loaded.cut += u64::from(result.truncated);
                    if rows > 0 {
                        loaded.devices.insert(*number);
                    }
                }
            }
        }
    }
}

/// A result's position, its device's number, and the result, unless it is damaged.
type Read = (i64, u32, Option<DeviceResult>);

/// Reads some results after a position; none at the end.
fn page(pool: &Pool, shared: &Shared, opened: &Opened, after: i64) -> Result<Vec<Read>, EngineError> {
    pool.read(|connection| {
        let snapshot = connection.unchecked_transaction().map_err(failed)?;
        // Their time may be up between two pages.
        instructions::require_results(&snapshot, shared, opened.id, opened.position)?;
        let sql = "SELECT position, instruction, number, record, crc FROM results \
                   WHERE instruction = ?1 AND position > ?2 AND position <= ?3 ORDER BY position";
        let mut statement = snapshot.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query([opened.position, after, opened.until]).map_err(failed)?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while bytes < READ_BYTES_MAX && page.len() < READ_RESULTS_MAX {
            let Some(row) = rows.next().map_err(failed)? else { break };
            bytes += row.get_ref(3).map_err(failed)?.as_blob().map_or(0, <[u8]>::len);
            let (position, number) = (row.get(0).map_err(failed)?, row.get(2).map_err(failed)?);
            let result = instructions::result(row, shared)?.and_then(|exported| exported.result);
            page.push((position, number, result));
        }
        Ok(page)
    })
}
