//! `mounts`: mounted file systems.
use std::cell::OnceCell;
use std::path::PathBuf;

use nix::sys::statvfs::{Statvfs, statvfs};

use super::machine::LIST_BYTES_MAX;
use super::{Row, Rows, Scan, Table, TableError};
use crate::schema::{ColumnSchema, Search, TableSchema};
use crate::value::SqlValue;

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "mounts",
    description: "Mounted file systems as `mount` lists them, from /proc/self/mounts. Sizes as `df` has them; NULL for \
                  network file systems, whose server may not answer.",
    columns: &[
        ColumnSchema::text("device", "What is mounted"),
        ColumnSchema::text("path", "Where").searched(Search::Equal),
        ColumnSchema::text("type", "Type of the file system"),
        ColumnSchema::text("options", "Options, joined by commas"),
        ColumnSchema::integer("size_bytes", "Capacity"),
        ColumnSchema::integer("free_bytes", "Free for users that aren't root, as `Avail` of `df`"),
        ColumnSchema::integer("inodes", "Inodes"),
        ColumnSchema::integer("inodes_free", "Free inodes"),
    ],
    needs: None,
};

/// File systems that wait for a server, or for a mount on first use, when they are asked for their size.
const WAITING_TYPES: &[&str] =
    &["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "afs", "lustre", "ncpfs", "autofs"];

/// Table `mounts`.
#[derive(Debug)]
pub(crate) struct Mounts;

impl Table for Mounts {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let text = scan.machine.text("/proc/self/mounts", LIST_BYTES_MAX)?.unwrap_or_default();
        let is_live = scan.machine.is_live();
        Ok(Box::new(parse(&text).into_iter().map(move |mount| {
            let asks = is_live && !waits(&mount.fstype);
            let place = asks.then(|| PathBuf::from(&mount.path));
            Ok(Box::new(MountRow { mount, place, usage: OnceCell::new() }) as Box<dyn Row>)
        })))
    }
}

fn waits(fstype: &str) -> bool {
    WAITING_TYPES.contains(&fstype) || fstype.starts_with("fuse")
}

struct MountRow {
    mount: Mount,
    /// Where its size may be asked for.
    place: Option<PathBuf>,
    usage: OnceCell<Option<Statvfs>>,
}

impl Row for MountRow {
    fn value(&self, column: usize) -> Result<SqlValue, TableError> {
        let usage = |value: fn(&Statvfs) -> u64| {
            let ask = || self.place.as_deref().and_then(|place| statvfs(place).ok());
            SqlValue::from(self.usage.get_or_init(ask).as_ref().map(value))
        };
        Ok(match column {
            0 => self.mount.device.as_str().into(),
            1 => self.mount.path.as_str().into(),
            2 => self.mount.fstype.as_str().into(),
            3 => self.mount.options.as_str().into(),
            4 => usage(|all| all.blocks().saturating_mul(all.fragment_size())),
            5 => usage(|all| all.blocks_available().saturating_mul(all.fragment_size())),
            6 => usage(Statvfs::files),
            7 => usage(Statvfs::files_free),
            _ => SqlValue::Null,
        })
    }
}

/// One line of a mount table.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    path: String,
    fstype: String,
    options: String,
}

/// Reads fstab(5)'s form; lines with fewer than four fields are left out.
fn parse(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let mut words = line.split(' ').map(unescape);
        Some(Mount {
            device: words.next()?,
            path: words.next()?,
            fstype: words.next()?,
            options: words.next()?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Turns `\040` and its like back into the bytes that they stand for.
fn unescape(word: &str) -> String {
    let bytes = word.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while let Some(byte) = bytes.get(place) {
        let digits = bytes.get(place + 1..place + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) if *byte == b'\\' => {
                plain.push(code);
                place += 4;
            }
            Some(_) | None => {
                plain.push(*byte);
                place += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spaces_and_backslashes_of_a_mount_point_are_read_back() {
        let mounts = parse("tmpfs /mnt/a\\040b\\134c tmpfs rw,size=4k 0 0\nshort\n");

        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].path, "/mnt/a b\\c");
        assert_eq!(mounts[0].options, "rw,size=4k");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}") {
            let lines = text.lines().count();
            prop_assert!(parse(&text).len() <= lines);
        }
    }
}
