//! What an instruction's results come to: one SELECT over them, run by the Switch.

use std::collections::BTreeMap;

use muster_proto::operator::v1::{AggregateResultsRequest, AggregateResultsResponse};
use serde_json::json;
use tonic::Code;

use crate::exit::{Exit, Failure};
use crate::operator::{Operator, answered};
use crate::output::{self, Cell, Format, Table};

/// An answer of the Switch.
#[derive(Debug)]
pub(crate) struct Summed(AggregateResultsResponse);

/// `muster instruction aggregate`
pub(crate) async fn run(operator: &Operator, id: &str, query: &str, format: Format) -> Result<Exit, Failure> {
    let summed = fetch(operator, id, query).await?;
    match format {
        Format::Json => output::print_json(&summed.document(id))?,
        Format::Table | Format::Wide => summed.print_table(format)?,
        Format::Jsonl | Format::Csv => {
            summed.table().print(format)?;
            summed.note_gaps();
        }
    }
    Ok(summed.exit())
}

/// The definition's own aggregate over an instruction's results.
pub(crate) async fn of_definition(operator: &Operator, id: &str) -> Result<Summed, Failure> {
    fetch(operator, id, "").await
}

async fn fetch(operator: &Operator, id: &str, query: &str) -> Result<Summed, Failure> {
    let request = AggregateResultsRequest { instruction: id.to_owned(), query: query.to_owned() };
    let answer = answered(operator.instructions().aggregate_results(request)).await;
    answer.map(Summed).map_err(|status| {
        let is_about_sql = status.code() == Code::InvalidArgument;
        let failure = Failure::from(status);
        match (is_about_sql, query.trim().is_empty()) {
            (false, _) => failure,
            (true, true) => failure.with_next(format!(
                "muster instruction aggregate {id} --query 'SELECT count(*) AS n FROM results'"
            )),
            (true, false) => failure.with_next("muster instruction aggregate --help"),
        }
    })
}

impl Summed {
    /// Prints the rows for people, and what they are over.
    pub(crate) fn print_table(&self, format: Format) -> Result<(), Failure> {
        let table = self.table();
        if table.len() > 0 {
            table.print(format)?;
        }
        output::note(&format!("\n{}", self.summary()));
        self.note_gaps();
        Ok(())
    }

    /// Partial if the rows are not over the whole, or not all there.
    fn exit(&self) -> Exit {
        if self.0.partial || self.0.truncated { Exit::Partial } else { Exit::Ok }
    }

    fn table(&self) -> Table {
        let columns = &self.0.columns;
        let mut table = Table::new(columns.iter().map(|column| column.name.as_str()));
        for row in &self.0.rows {
            let cells =
                columns.iter().zip(&row.values).map(|(column, value)| Cell::value(value, column.r#type()));
            table.push(cells.collect());
        }
        table
    }

    fn states(&self) -> BTreeMap<&'static str, u64> {
        let states = self.0.instruction.iter().flat_map(|instruction| &instruction.states);
        states.map(|count| (count.state().name(), count.count)).collect()
    }

    /// The JSON of an aggregate. `truncated` and `left_out` are there only where something is missing.
    fn document(&self, id: &str) -> serde_json::Value {
        let (answer, table) = (&self.0, self.table());
        let mut document = json!({
            "instruction": id,
            "query": answer.query,
            "targets": answer.instruction.as_ref().map_or(0, |instruction| instruction.targets),
            "states": self.states(),
            "devices": answer.devices,
            "rows_read": answer.rows_read,
            "partial": answer.partial,
            "columns": table.columns(),
            "rows": table.objects(),
        });
        if answer.truncated {
            document["truncated"] = json!(true);
        }
        if answer.results_left_out > 0 || answer.results_truncated > 0 {
            document["left_out"] =
                json!({ "results": answer.results_left_out, "cut_results": answer.results_truncated });
        }
        document
    }

    fn summary(&self) -> String {
        let answer = &self.0;
        let states: Vec<String> =
            self.states().iter().map(|(state, count)| format!("{count} {state}")).collect();
        let targets = answer.instruction.as_ref().map_or(0, |instruction| instruction.targets);
        format!(
            "{} rows over {} rows of {} devices, of {targets} targets ({})",
            answer.rows.len(),
            answer.rows_read,
            answer.devices,
            states.join(", "),
        )
    }

    /// Tells on standard error what is missing.
    fn note_gaps(&self) {
        for gap in self.gaps() {
            output::note(&format!("  {gap}"));
        }
    }

    fn gaps(&self) -> Vec<String> {
        let answer = &self.0;
        let mut gaps = Vec::new();
        let states = self.states();
        let targets = answer.instruction.as_ref().map_or(0, |instruction| instruction.targets);
        let silent = targets.saturating_sub(states.get("answered").copied().unwrap_or_default());
        if silent > 0 {
            gaps.push(format!("partial: {silent} of {targets} targets have not answered"));
        }
        if answer.results_truncated > 0 {
            let cut = answer.results_truncated;
            gaps.push(format!("partial: {cut} results are cut at a limit of the definition"));
        }
        if answer.results_left_out > 0 {
            let out = answer.results_left_out;
            gaps.push(format!(
                "partial: {out} results are damaged on disk, or not what the definition declares, and are not in it"
            ));
        }
        if answer.truncated {
            gaps.push("the answer is cut: select fewer rows, shorter texts, or add LIMIT".to_owned());
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::common::v1::{Column, ColumnType, Row, TargetState, Value, value::Kind};
    use muster_proto::operator::v1::{Instruction, StateCount};

    use super::*;

    fn summed() -> AggregateResultsResponse {
        let column = |name: &str, kind: ColumnType| Column { name: name.to_owned(), r#type: kind.into() };
        let value = |kind| Value { kind: Some(kind) };
        let state = |state: TargetState, count| StateCount { state: state.into(), count };
        AggregateResultsResponse {
            columns: vec![column("name", ColumnType::Text), column("at", ColumnType::Datetime)],
            rows: vec![Row { values: vec![value(Kind::Text("a".to_owned())), value(Kind::Integer(0))] }],
            query: "SELECT name, min(at) AS at FROM results".to_owned(),
            devices: 2,
            results: 2,
            rows_read: 5,
            instruction: Some(Instruction {
                targets: 2,
                states: vec![state(TargetState::Answered, 2)],
                ..Instruction::default()
            }),
            ..AggregateResultsResponse::default()
        }
    }

    #[test]
    fn a_whole_aggregate_says_what_it_is_over_and_exits_with_0() {
        let summed = Summed(summed());

        let document = summed.document("0");

        let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
        let wanted = [
            "columns",
            "devices",
            "instruction",
            "partial",
            "query",
            "rows",
            "rows_read",
            "states",
            "targets",
        ];
        assert_eq!(keys, wanted);
        assert_eq!(document["rows"], json!([{ "name": "a", "at": "1970-01-01T00:00:00Z" }]));
        assert_eq!(summed.summary(), "1 rows over 5 rows of 2 devices, of 2 targets (2 answered)");
        assert_eq!((summed.gaps(), summed.exit()), (Vec::new(), Exit::Ok));
    }

    #[test]
    fn whatever_is_missing_is_told_and_exits_with_3() {
        let mut instruction = summed().instruction.unwrap();
        instruction.targets = 3;
        let partial = AggregateResultsResponse { partial: true, ..summed() };
        for (answer, word) in [
            (
                AggregateResultsResponse { instruction: Some(instruction), ..partial.clone() },
                "1 of 3 targets",
            ),
            (AggregateResultsResponse { results_truncated: 4, ..partial.clone() }, "4 results are cut"),
            (AggregateResultsResponse { results_left_out: 4, ..partial }, "4 results are damaged"),
            (AggregateResultsResponse { truncated: true, ..summed() }, "the answer is cut"),
        ] {
            let summed = Summed(answer);

            let gaps = summed.gaps();

            assert!(matches!(gaps.as_slice(), [gap] if gap.contains(word)), "{gaps:?}");
            assert_eq!(summed.exit(), Exit::Partial, "{gaps:?}");
        }
    }
}
