//! SQL tables over the live machine, scripts, typed actions, and the sandboxed helper process that runs them.
//!
//! [`run`] starts a helper process ([`helper::main`]), gives it one [`Query`], and returns its [`Answer`]; [`run_script`]
//! does the same with a [`Script`], [`run_action`] with an [`Action`]. The helper of a query reads the kernel's and the system's own files (`/proc`, `/sys`, `/etc`, dpkg's database, unit files), starts no
//! program, and shuts itself in before it looks at the SQL: see [`helper`] for the layers. [`schema()`] lists the tables,
//! [`check()`] prepares SQL without running it, [`attributes::collect`] is what the client tells of itself.
//!
//! The crate knows nothing of sessions, instructions or signatures. Times are Unix seconds (UTC), sizes are bytes and
//! booleans are 0 or 1 in every table; what the machine doesn't tell is NULL.

mod action;
pub mod attributes;
mod check;
mod error;
pub mod helper;
mod query;
mod schema;
mod script;
mod tables;
mod value;
mod vtab;

pub use action::{Action, Deed, Verb};
pub use check::check;
pub use error::QueryError;
pub use query::{
    Answer, Granted, HelperCommand, Query, QueryLimits, RUN_GRACE, SCRIPT_BYTES_MAX, SQL_BYTES_MAX,
    SandboxProfile, Summary, TakeRows, VALUE_BYTES_MAX, Work, arrange_groups, run, run_action, run_script,
    run_until,
};
pub use schema::{ColumnSchema, Search, TableSchema, schema};
pub use script::{Content, Given, Reach, RowColumn, RowKind, Script, ScriptText};
pub use value::{Column, ColumnKind, SqlValue};
