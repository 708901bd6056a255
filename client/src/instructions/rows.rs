//! Rows on their way from the helper into a result: held to their columns, cut, measured, and put into parts where one message has no room for
//! all of them.
//!
//! Rows come in batches and are encoded at once. One part of them is held in memory, whatever the definition allows; those before it wait in a
//! file ([`PartsFile`]).

use std::io;
use std::path::PathBuf;

use muster_endpoint::{SqlValue, Summary, TakeRows};
use muster_proto::common::v1::{Column, ColumnType, Row, Value, value::Kind};
use muster_proto::limits::{RESULT_BYTES_MAX, VALUE_BYTES_MAX};
use muster_proto::session::v1::Result as InstructionResult;
use prost::Message as _;

use super::Plan;
use super::admission::PlanColumn;
use super::outcome::cut;
use super::typed::{self, Mistyped};
use crate::config::Config;
use crate::store::{Parts, PartsFile};

/// What a part's rows may have, with their tags; the rest is room for what is said beside them.
pub(super) const PART_ROWS_BYTES_MAX: usize = RESULT_BYTES_MAX - HEAD_BYTES_MAX;

/// What a part without its rows has at most: 64 columns of 70 bytes, 16 layers of 66, ids, numbers and times.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// How much an answer may have here, whatever was signed, and where what memory has no room for is put.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    /// Bytes of rows at most.
    pub(crate) bytes_max: u32,
    /// A folder of the client's own.
    pub(crate) folder: PathBuf,
}

impl Room {
    /// The room that the configuration gives.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            bytes_max: u32::try_from(config.instructions.result_bytes_max).unwrap_or(u32::MAX),
            folder: config.data_dir.clone(),
        }
    }
}

/// Takes the rows of an answer.
#[derive(Debug)]
pub(crate) struct Collecting {
    declared: Option<Vec<PlanColumn>>,
    guessed: Vec<Guess>,
    /// Rows that came, for whoever is told which one is wrong.
    came: usize,
    /// Encoded rows of the part in the making.
    part: Vec<u8>,
    before: Option<PartsFile>,
    bytes_left: usize,
    folder: PathBuf,
    is_full: bool,
    truncated: bool,
    problem: Option<RowsProblem>,
}

/// An answer whose last row has come.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// With the types that are declared, or that the values have.
    pub(crate) columns: Vec<Column>,
    /// All rows, unless there are parts.
    pub(crate) rows: Vec<Row>,
    /// The rows where they are more than one message has room for.
    pub(crate) parts: Option<Parts>,
    /// Rows or values were left out or cut.
    pub(crate) truncated: bool,
    /// The layers of the sandbox that were not applied.
    pub(crate) sandbox_missing: Vec<String>,
    /// Why the rows are no answer.
    pub(crate) problem: Option<RowsProblem>,
}

/// Why rows are no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsProblem {
    /// One of them is not of the declared types.
    #[error(transparent)]
    Mistyped(#[from] Mistyped),
    /// They could not be kept.
    #[error("it ran, but its rows could not be kept on this device's disk: {0}")]
    Unkept(#[from] io::Error),
}

/// The type of a column whose definition declares none: that of its values, if they agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    Nothing,
    One(ColumnType),
    Several,
}

impl Collecting {
    /// Begins with the last step of a plan.
    pub(super) fn new(plan: &Plan, room: &Room) -> Self {
        Self {
            declared: plan.columns.clone(),
            guessed: Vec::new(),
            came: 0,
            part: Vec::new(),
            before: None,
            bytes_left: usize::try_from(plan.bytes.min(room.bytes_max)).unwrap_or(usize::MAX),
            folder: room.folder.clone(),
            is_full: false,
            truncated: false,
            problem: None,
        }
    }

    /// Ends with what the helper says at its end.
    pub(super) async fn finish(mut self, summary: Summary) -> Collected {
        let kinds = summary
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| Column { name: column.name.clone(), r#type: self.kind(at).into() });
        let columns = kinds.collect();
        let (rows, parts) = match self.kept().await {
            Ok(kept) => kept,
            Err(error) => {
                self.problem.get_or_insert(RowsProblem::Unkept(error));
                Default::default()
            }
        };
        Collected {
            columns,
            rows,
            parts,
            truncated: summary.truncated || self.truncated,
            sandbox_missing: summary.sandbox_missing,
            problem: self.problem,
        }
    }

    /// Returns the rows: as they are if they are one part, else where they were put.
    async fn kept(&mut self) -> io::Result<(Vec<Row>, Option<Parts>)> {
        let part = std::mem::take(&mut self.part);
        let Some(mut before) = self.before.take() else {
            let decoded = InstructionResult::decode(&part[..]).map_err(io::Error::other)?;
            return Ok((decoded.rows, None));
        };
        before.add(&part).await?;
        Ok((Vec::new(), Some(before.finish().await?)))
    }

    async fn take_row(&mut self, mut row: Vec<SqlValue>) -> Result<(), RowsProblem> {
        if let Some(declared) = &self.declared {
            typed::check(declared, self.came, &mut row)?;
        }
        self.came += 1;
        self.guess(&row);
        let (row, fits) = self.wire_row(row);
        let alone = InstructionResult { rows: vec![row], ..InstructionResult::default() };
        let bytes = alone.encoded_len();
        if bytes > PART_ROWS_BYTES_MAX || bytes > self.bytes_left {
            // What comes behind it is left out, too: the rows that are told are the first ones.
            self.is_full = true;
            self.truncated = true;
            return Ok(());
        }
        if self.part.len() + bytes > PART_ROWS_BYTES_MAX {
            self.put_aside().await?;
        }
        self.bytes_left -= bytes;
        self.truncated |= !fits;
        self.part.extend(alone.encode_to_vec());
        Ok(())
    }

    /// Puts a part that is full where the others are.
    async fn put_aside(&mut self) -> io::Result<()> {
        let part = std::mem::take(&mut self.part);
        if self.before.is_none() {
            self.before = Some(PartsFile::make(&self.folder).await?);
        }
        match &mut self.before {
            Some(before) => before.add(&part).await,
            None => Ok(()),
        }
    }

    fn guess(&mut self, row: &[SqlValue]) {
        self.guessed.resize(self.guessed.len().max(row.len()), Guess::Nothing);
        for (guess, value) in self.guessed.iter_mut().zip(row) {
            let kind = match value {
                SqlValue::Null => continue,
                SqlValue::Integer(_) => ColumnType::Integer,
                SqlValue::Real(_) => ColumnType::Real,
                SqlValue::Text(_) => ColumnType::Text,
                SqlValue::Blob(_) => ColumnType::Blob,
            };
            *guess = match *guess {
                Guess::Nothing => Guess::One(kind),
                Guess::One(known) if known == kind => Guess::One(kind),
                Guess::One(_) | Guess::Several => Guess::Several,
            };
        }
    }

    fn kind(&self, at: usize) -> ColumnType {
        let declared = self.declared.as_ref().and_then(|columns| columns.get(at)).map(|column| column.kind);
        declared.unwrap_or_else(|| match self.guessed.get(at) {
            Some(Guess::One(kind)) => *kind,
            Some(Guess::Nothing | Guess::Several) | None => ColumnType::Unspecified,
        })
    }

    /// Returns a row for the wire, and whether all of its values are whole.
    fn wire_row(&self, row: Vec<SqlValue>) -> (Row, bool) {
        let mut values = Vec::with_capacity(row.len());
        let mut all_fit = true;
        for (at, value) in row.into_iter().enumerate() {
            let declared = self.declared.as_ref().and_then(|columns| columns.get(at)?.max_length);
            let length_max = declared.unwrap_or(VALUE_BYTES_MAX).min(VALUE_BYTES_MAX);
            let (value, fits) = wire_value(value, length_max);
            all_fit &= fits;
            values.push(value);
        }
        (Row { values }, all_fit)
    }
}

impl TakeRows for Collecting {
    /// A step is not ended early because of its rows: it may change the machine.
    async fn take(&mut self, rows: Vec<Vec<SqlValue>>) {
        for row in rows {
            if self.is_full || self.problem.is_some() {
                return;
            }
            self.problem = self.take_row(row).await.err();
        }
    }
}

/// Returns a value for the wire, and whether it is whole.
fn wire_value(value: SqlValue, length_max: usize) -> (Value, bool) {
    let (kind, fits) = match value {
        SqlValue::Null => (None, true),
        SqlValue::Integer(number) => (Some(Kind::Integer(number)), true),
        // NaN does not exist in SQL; as a precaution it is NULL.
        SqlValue::Real(number) if number.is_nan() => (None, true),
        SqlValue::Real(number) => (Some(Kind::Real(number)), true),
        SqlValue::Text(text) => {
            let fits = text.len() <= length_max;
            (Some(Kind::Text(if fits { text } else { cut(&text, length_max) })), fits)
        }
        SqlValue::Blob(mut bytes) => {
            let fits = bytes.len() <= length_max;
            bytes.truncate(length_max);
            (Some(Kind::Blob(bytes)), fits)
        }
    };
    (Value { kind }, fits)
}
