//! The tables as SQLite virtual tables.
//!
//! The one file of the workspace with `unsafe`: rusqlite's `VTab` and `VTabCursor` are unsafe traits, because SQLite
//! casts its base structures to ours. What they ask for, and all they ask for, is `#[repr(C)]` with the base structure
//! first. No pointer is touched here; a table is the safe [`Table`] trait.
#![expect(unsafe_code, reason = "rusqlite's virtual table traits are unsafe to implement")]

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;
use std::sync::Arc;

use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConfig, VTabConnection, VTabCursor,
    sqlite3_vtab, sqlite3_vtab_cursor,
};
use rusqlite::{Connection, Error, Result};

use crate::query::Granted;
use crate::schema::{Search, TableSchema};
use crate::tables::{Constraint, Machine, Operator, Row, Rows, Scan, TABLES, Table, TableError};
use crate::value::SqlValue;

/// What the plan of a table that needs a constraint and has none is called in `EXPLAIN QUERY PLAN`.
pub(crate) const UNCONSTRAINED: &str = "without-needed-constraint";

/// The planner's guess of the work to read a whole table; only its relation to [`COST_SEARCH`] matters.
const COST_WHOLE: f64 = 100_000.0;
/// The planner's guess of the work of one look-up by an equality.
const COST_SEARCH: f64 = 10.0;
/// The planner's guess of the work of one look-up by a pattern.
const COST_PATTERN: f64 = 1_000.0;
/// A cost that any other plan is under.
const COST_IMPOSSIBLE: f64 = 1e15;

/// Makes every table known to `connection`.
pub(crate) fn register(connection: &Connection, machine: &Arc<Machine>, granted: &Granted) -> Result<()> {
    const MODULE: Module<'static, TableTab<'static>> = Module::eponymous_only_module();
    for table in TABLES.iter().filter(|table| granted.has(table.schema().name)) {
        let source = Source { table: *table, machine: Arc::clone(machine) };
        connection.create_module(table.schema().name, &MODULE, Some(source))?;
    }
    Ok(())
}

/// A table and the machine that it reads.
#[derive(Clone)]
struct Source {
    table: &'static dyn Table,
    machine: Arc<Machine>,
}

/// One table of one connection.
#[repr(C)]
struct TableTab<'vtab> {
    base: sqlite3_vtab,
    source: Source,
    lifetime: PhantomData<&'vtab ()>,
}

// SAFETY: `repr(C)` with the base structure first, as the trait demands.
unsafe impl<'vtab> VTab<'vtab> for TableTab<'vtab> {
    type Aux = Source;
    type Cursor = TableCursor<'vtab>;

    fn connect(
        db: &mut VTabConnection,
        aux: Option<&Source>,
        _module_name: &[u8],
        _database_name: &[u8],
        _table_name: &[u8],
        _args: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        let source = aux.ok_or_else(|| Error::ModuleError("a module without its table".to_owned()))?.clone();
        db.config(VTabConfig::Innocuous)?;
        let declaration = CString::new(declaration(source.table.schema()))?;
        Ok((Cow::Owned(declaration), Self { base: sqlite3_vtab::default(), source, lifetime: PhantomData }))
    }

    fn best_index(&self, info: &mut IndexInfo) -> Result<bool> {
        let schema = self.source.table.schema();
        let mut plan = Plan { used: info.col_used(), terms: Vec::new() };
        let mut unusable = false;
        let mut chosen = Vec::new();
        for (number, constraint) in info.constraints().enumerate() {
            let Some(term) = term(schema, constraint.column(), &constraint.operator()) else { continue };
            if !constraint.is_usable() {
                unusable = true;
            } else if plan.terms.len() < TERMS_MAX {
                plan.terms.push(term);
                chosen.push(number);
            }
        }
        let starved = schema.needs.is_some() && plan.terms.is_empty();
        if starved && unusable {
            return Ok(false);
        }
        for (argument, number) in (1..).zip(&chosen) {
            info.constraint_usage(*number).set_argv_index(argument);
        }
        info.set_estimated_cost(plan.cost(starved));
        info.set_idx_str(&if starved { UNCONSTRAINED.to_owned() } else { plan.encode() });
        Ok(true)
    }

    fn open(&'vtab mut self) -> Result<TableCursor<'vtab>> {
        Ok(TableCursor {
            base: sqlite3_vtab_cursor::default(),
            source: self.source.clone(),
            rows: Box::new(std::iter::empty()),
            current: None,
            number: 0,
            lifetime: PhantomData,
        })
    }
}

/// One walk through a table.
#[repr(C)]
struct TableCursor<'vtab> {
    base: sqlite3_vtab_cursor,
    source: Source,
    rows: Rows,
    current: Option<Box<dyn Row>>,
    number: i64,
    lifetime: PhantomData<&'vtab ()>,
}

// SAFETY: `repr(C)` with the base structure first, as the trait demands.
unsafe impl VTabCursor for TableCursor<'_> {
    fn filter(&mut self, _idx_num: c_int, idx_str: Option<&str>, args: &Filters<'_>) -> Result<()> {
        let schema = self.source.table.schema();
        let encoded = idx_str.unwrap_or_default();
        if encoded == UNCONSTRAINED {
            return Err(refusal(&TableError::Needs {
                table: schema.name,
                needs: schema.needs.unwrap_or_default(),
            }));
        }
        let plan = Plan::decode(encoded);
        let constraints = plan
            .terms
            .iter()
            .zip(args.iter())
            .map(|(term, value)| Constraint {
                column: term.column,
                operator: term.operator,
                value: SqlValue::from_sqlite(value),
            })
            .collect();
        let scan = Scan { machine: Arc::clone(&self.source.machine), schema, constraints, used: plan.used };
        self.rows = self.source.table.rows(&scan).map_err(|error| refusal(&error))?;
        self.number = 0;
        self.next()
    }

    fn next(&mut self) -> Result<()> {
        self.source.machine.check_deadline().map_err(|error| refusal(&error))?;
        self.current = self.rows.next().transpose().map_err(|error| refusal(&error))?;
        self.number += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.current.is_none()
    }

    fn column(&self, ctx: &mut Context, column: c_int) -> Result<()> {
        let (Some(row), Ok(column)) = (&self.current, usize::try_from(column)) else {
            return ctx.set_result(SqlValue::Null);
        };
        ctx.set_result(row.value(column).map_err(|error| refusal(&error))?)
    }

    fn rowid(&self) -> Result<i64> {
        Ok(self.number)
    }
}

/// The most constraints that one plan uses; a table has at most four searched columns.
const TERMS_MAX: usize = 8;

/// What `best_index` tells `filter`, as text: the used columns, then a constraint for each argument.
struct Plan {
    used: u64,
    terms: Vec<Term>,
}

/// A constraint whose value comes with `filter`.
struct Term {
    column: usize,
    operator: Operator,
}

impl Plan {
    fn cost(&self, starved: bool) -> f64 {
        if starved {
            return COST_IMPOSSIBLE;
        }
        let cost = |term: &Term| if term.operator == Operator::Equal { COST_SEARCH } else { COST_PATTERN };
        self.terms.iter().map(cost).fold(COST_WHOLE, f64::min)
    }

    fn encode(&self) -> String {
        let mut text = format!("{:x}", self.used);
        for term in &self.terms {
            text.push(if term.operator == Operator::Equal { '=' } else { '~' });
            text.push_str(&term.column.to_string());
        }
        text
    }

    fn decode(text: &str) -> Self {
        let end = text.find(['=', '~']).unwrap_or(text.len());
        let used = u64::from_str_radix(&text[..end], 16).unwrap_or(u64::MAX);
        let mut terms = Vec::new();
        let mut rest = &text[end..];
        while let Some(sign) = rest.chars().next() {
            let body = &rest[1..];
            let end = body.find(['=', '~']).unwrap_or(body.len());
            let operator = if sign == '=' { Operator::Equal } else { Operator::Glob };
            terms.push(Term { column: body[..end].parse().unwrap_or(usize::MAX), operator });
            rest = &body[end..];
        }
        Self { used, terms }
    }
}

/// The constraint as the table uses it, if it does.
fn term(schema: &TableSchema, column: c_int, operator: &IndexConstraintOp) -> Option<Term> {
    let column = usize::try_from(column).ok()?;
    let search = schema.columns.get(column)?.search;
    let operator = if *operator == IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ && search != Search::None {
        Operator::Equal
    } else if *operator == IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_GLOB && search == Search::EqualOrGlob {
        Operator::Glob
    } else {
        return None;
    };
    Some(Term { column, operator })
}

/// `CREATE TABLE` as SQLite wants it from a virtual table.
fn declaration(schema: &TableSchema) -> String {
    let column = |column: &crate::schema::ColumnSchema| {
        let hidden = if column.hidden { " HIDDEN" } else { "" };
        format!("\"{}\" {}{hidden}", column.name, column.kind.name())
    };
    let columns: Vec<_> = schema.columns.iter().map(column).collect();
    format!("CREATE TABLE x({})", columns.join(", "))
}

fn refusal(error: &TableError) -> Error {
    Error::ModuleError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_text() {
        let plan = Plan {
            used: 0x8000_0000_0000_0005,
            terms: vec![
                Term { column: 0, operator: Operator::Equal },
                Term { column: 13, operator: Operator::Glob },
            ],
        };

        let decoded = Plan::decode(&plan.encode());

        assert_eq!(decoded.used, plan.used);
        let terms: Vec<_> = decoded.terms.iter().map(|term| (term.column, term.operator)).collect();
        assert_eq!(terms, [(0, Operator::Equal), (13, Operator::Glob)]);
    }
}
