//! `cpu` and `memory`: processors, load and memory.
use std::collections::BTreeSet;

use super::machine::LIST_BYTES_MAX;
use super::{Machine, Rows, Scan, Table, TableError, ready};
use crate::schema::{ColumnSchema, TableSchema};
use crate::value::SqlValue;

pub(crate) const CPU: TableSchema = TableSchema {
    name: "cpu",
    description: "The processors together, one row, from /proc/cpuinfo and /proc/loadavg.",
    columns: &[
        ColumnSchema::integer("logical_cores", "Processors that the kernel runs on, as `nproc --all`"),
        ColumnSchema::integer("physical_cores", "Different cores; NULL where the kernel doesn't tell"),
        ColumnSchema::text("model", "Model of the first processor"),
        ColumnSchema::real("mhz", "Momentary clock of the first processor, MHz"),
        ColumnSchema::real("load_1", "Mean of running and waiting tasks over 1 minute"),
        ColumnSchema::real("load_5", "Mean over 5 minutes"),
        ColumnSchema::real("load_15", "Mean over 15 minutes"),
    ],
    needs: None,
};

pub(crate) const MEMORY: TableSchema = TableSchema {
    name: "memory",
    description: "Memory and swap in bytes, one row, from /proc/meminfo.",
    columns: &[
        ColumnSchema::integer("total_bytes", "Memory that the kernel has"),
        ColumnSchema::integer("available_bytes", "Memory that programs can have without swapping"),
        ColumnSchema::integer("free_bytes", "Memory that nothing uses"),
        ColumnSchema::integer("swap_total_bytes", "All swap"),
        ColumnSchema::integer("swap_free_bytes", "Swap that nothing uses"),
    ],
    needs: None,
};

/// Table `cpu`.
#[derive(Debug)]
pub(crate) struct Cpu;

impl Table for Cpu {
    fn schema(&self) -> &'static TableSchema {
        &CPU
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let information = scan.machine.text("/proc/cpuinfo", LIST_BYTES_MAX)?.unwrap_or_default();
        let processors = processors(&information);
        let load = scan.machine.detail("/proc/loadavg").unwrap_or_default();
        let mut loads = load.split_whitespace().map(|word| word.parse::<f64>().ok());
        let mut next_load = || SqlValue::from(loads.next().flatten());
        Ok(ready([vec![
            processors.logical.into(),
            processors.physical.into(),
            processors.model.into(),
            processors.mhz.into(),
            next_load(),
            next_load(),
            next_load(),
        ]]))
    }
}

/// Table `memory`.
#[derive(Debug)]
pub(crate) struct Memory;

impl Table for Memory {
    fn schema(&self) -> &'static TableSchema {
        &MEMORY
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let text = scan.machine.detail("/proc/meminfo").unwrap_or_default();
        let keys = ["MemTotal", "MemAvailable", "MemFree", "SwapTotal", "SwapFree"];
        Ok(ready([keys.map(|key| kibibytes(&text, key).into()).to_vec()]))
    }
}

/// `key:   123 kB` of /proc/meminfo or /proc/PID/status, in bytes.
pub(super) fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The logical processors of `machine`.
pub(crate) fn logical_cores(machine: &Machine) -> Option<u64> {
    let information = machine.text("/proc/cpuinfo", LIST_BYTES_MAX).ok()??;
    Some(processors(&information).logical)
}

/// The memory of `machine`, MiB.
pub(crate) fn memory_mebibytes(machine: &Machine) -> Option<u64> {
    kibibytes(&machine.detail("/proc/meminfo")?, "MemTotal").map(|size| size / (1024 * 1024))
}

struct Processors {
    logical: u64,
    physical: Option<u64>,
    model: Option<String>,
    mhz: Option<f64>,
}

fn processors(information: &str) -> Processors {
    let mut found = Processors { logical: 0, physical: None, model: None, mhz: None };
    let mut cores = BTreeSet::new();
    let mut package = "";
    for line in information.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key.trim() {
            "processor" => found.logical += 1,
            "physical id" => package = value,
            "core id" => {
                cores.insert((package, value));
            }
            "model name" | "Model" | "uarch" if found.model.is_none() => found.model = Some(value.to_owned()),
            "cpu MHz" if found.mhz.is_none() => found.mhz = value.parse().ok(),
            _ => {}
        }
    }
    found.physical = u64::try_from(cores.len()).ok().filter(|count| *count > 0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyper_threads_share_a_core() {
        let block = |number: u8, core: u8| {
            format!(
                "processor\t: {number}\nmodel name\t: X\ncpu MHz\t\t: 2100.5\nphysical id\t: 0\ncore id\t: {core}\n\n"
            )
        };
        let text = [block(0, 0), block(1, 0), block(2, 1), block(3, 1)].concat();

        let found = processors(&text);

        assert_eq!((found.logical, found.physical, found.mhz), (4, Some(2), Some(2100.5)));
    }

    #[test]
    fn kibibytes_become_bytes() {
        assert_eq!(kibibytes("MemTotal:       2048 kB\nMemFree: 1 kB\n", "MemFree"), Some(1024));
        assert_eq!(kibibytes("MemTotalX: 5 kB\n", "MemTotal"), None);
    }
}
