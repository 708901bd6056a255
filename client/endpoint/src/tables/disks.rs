//! `disks`: whole block devices.
use super::{Machine, Rows, Scan, Table, TableError, ready};
use crate::schema::{ColumnSchema, Search, TableSchema};
use crate::value::SqlValue;

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "disks",
    description: "Whole block devices as `lsblk --nodeps` lists them: no RAM disks, no unused loop devices. From /sys/block.",
    columns: &[
        ColumnSchema::text("name", "Kernel name, `sda`").searched(Search::Equal),
        ColumnSchema::text("model", "Model that the device tells"),
        ColumnSchema::integer("size_bytes", "Capacity"),
        ColumnSchema::integer("rotational", "1 for spinning disks"),
        ColumnSchema::integer("removable", "1 for media that can be taken out"),
    ],
    needs: None,
};

/// The unit of `/sys/block/*/size`, whatever the device's own sectors.
const SECTOR_BYTES: i64 = 512;
/// The device major of RAM disks, which `lsblk` leaves out.
const RAM_DISK_MAJOR: &str = "1:";
/// The device major of loop devices, which `lsblk` leaves out while they have no file.
const LOOP_MAJOR: &str = "7:";

/// Table `disks`.
#[derive(Debug)]
pub(crate) struct Disks;

impl Table for Disks {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let machine = &scan.machine;
        let names = machine.names("/sys/block");
        let rows: Vec<_> = names.iter().filter_map(|name| disk(machine, name)).collect();
        Ok(ready(rows))
    }
}

fn disk(machine: &Machine, name: &str) -> Option<Vec<SqlValue>> {
    let folder = format!("/sys/block/{name}");
    let size_bytes = machine.number(format!("{folder}/size"))?.checked_mul(SECTOR_BYTES)?;
    let device = machine.detail(format!("{folder}/dev"))?;
    if device.starts_with(RAM_DISK_MAJOR) || (size_bytes == 0 && device.starts_with(LOOP_MAJOR)) {
        return None;
    }
    let model = machine.detail(format!("{folder}/device/model")).map(|text| text.trim().to_owned());
    Some(vec![
        // The kernel writes `!` for the `/` of a device's name.
        name.replace('!', "/").into(),
        model.filter(|model| !model.is_empty()).into(),
        size_bytes.into(),
        machine.number(format!("{folder}/queue/rotational")).into(),
        machine.number(format!("{folder}/removable")).into(),
    ])
}
