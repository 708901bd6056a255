//! `files`: what lies under a path.
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use nix::fcntl::OFlag;

use super::users::Names;
use super::walk::{Found, walk};
use super::{Machine, Row, Rows, Scan, Table, TableError};
use crate::schema::{ColumnSchema, Search, TableSchema};
use crate::value::SqlValue;

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "files",
    description: "Files of any type, as `stat` tells them, links not followed. The WHERE clause must say which: \
                  `path = …`, `path IN (…)`, `glob = …` (glob(7): `*` stays within a folder, `**` doesn't) or `path GLOB \
                  …` (SQLite's: `*` goes through folders; outside of /proc, /sys and /dev unless it begins there).",
    columns: &[
        ColumnSchema::text("path", "Absolute path").searched(Search::EqualOrGlob),
        ColumnSchema::text(
            "type",
            "`file`, `directory`, `symlink`, `block`, `character`, `fifo` or `socket`",
        ),
        ColumnSchema::integer("size", "Bytes"),
        ColumnSchema::text("mode", "Permissions in octal as `stat -c %a`, `644`"),
        ColumnSchema::integer("uid", "Number of the owner"),
        ColumnSchema::text("owner", "Name of the owner; NULL where the number has none"),
        ColumnSchema::integer("gid", "Number of the group"),
        ColumnSchema::integer("mtime", "Last change of the contents, Unix seconds"),
        ColumnSchema::integer("ctime", "Last change of contents or attributes, Unix seconds"),
        ColumnSchema::integer("atime", "Last access, Unix seconds"),
        ColumnSchema::text(
            "sha256",
            "SHA-256 of a regular file in lower-case hexadecimal, worked out only where it is asked for; NULL for others and for what can't be read",
        ),
        ColumnSchema::text("glob", "Input: the pattern of glob(7) to look for")
            .searched(Search::Equal)
            .input(),
    ],
    needs: Some(NEEDS),
};

const NEEDS: &str = "to be told which files: write WHERE path = '/…', path IN (…), glob = '/etc/*.conf' or path GLOB '/etc/*'";

/// Table `files`.
#[derive(Debug)]
pub(crate) struct Files;

impl Table for Files {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let found = walk(scan)?.ok_or(TableError::Needs { table: SCHEMA.name, needs: NEEDS })?;
        let machine = Arc::clone(&scan.machine);
        let owners = Arc::new(Names::of_users(&machine));
        Ok(Box::new(found.filter_map(move |found| {
            let found = match found {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            // A file that isn't there, or may not be looked at, is no row.
            let metadata = fs::symlink_metadata(machine.path(&found.path)).ok()?;
            let row = FileRow { found, metadata, machine: Arc::clone(&machine), owners: Arc::clone(&owners) };
            Some(Ok(Box::new(row) as Box<dyn Row>))
        })))
    }
}

struct FileRow {
    found: Found,
    metadata: Metadata,
    machine: Arc<Machine>,
    owners: Arc<Names>,
}

impl Row for FileRow {
    fn value(&self, column: usize) -> Result<SqlValue, TableError> {
        let metadata = &self.metadata;
        Ok(match column {
            0 => self.found.path.to_string_lossy().into_owned().into(),
            1 => type_name(metadata).into(),
            2 => metadata.size().into(),
            3 => format!("{:o}", metadata.mode() & PERMISSIONS).into(),
            4 => metadata.uid().into(),
            5 => self.owners.find(metadata.uid()).into(),
            6 => metadata.gid().into(),
            7 => metadata.mtime().into(),
            8 => metadata.ctime().into(),
            9 => metadata.atime().into(),
            10 if metadata.is_file() => sha256(&self.machine, &self.found.path)?.into(),
            11 => self.found.glob.clone().into(),
            _ => SqlValue::Null,
        })
    }
}

/// The twelve permission bits of a mode.
const PERMISSIONS: u32 = 0o7777;

fn type_name(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    let names = [
        (kind.is_file(), "file"),
        (kind.is_dir(), "directory"),
        (kind.is_symlink(), "symlink"),
        (kind.is_block_device(), "block"),
        (kind.is_char_device(), "character"),
        (kind.is_fifo(), "fifo"),
        (kind.is_socket(), "socket"),
    ];
    names.into_iter().find(|(fits, _)| *fits).map(|(_, name)| name)
}

/// How much of a file is hashed between two looks at the clock.
const HASH_STEP_BYTES: usize = 256 * 1024;

/// The hash of a regular file; none if it can't be read. The deadline is its only bound, since it holds one step.
fn sha256(machine: &Machine, path: &Path) -> Result<Option<String>, TableError> {
    let Ok(mut file) = open_regular(&machine.path(path)) else { return Ok(None) };
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; HASH_STEP_BYTES];
    loop {
        machine.check_deadline()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hex::encode(context.finish()))),
            Ok(count) => context.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
    }
}

/// Opens a file that may have become a link or a pipe since it was looked at, which must not lead on or wait.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}
