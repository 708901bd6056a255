//! What the client tells of its machine when it connects; audiences are written over it.
use std::collections::BTreeMap;

use crate::tables::{Machine, facts, logical_cores, memory_mebibytes};
use crate::value::SqlValue;

/// Reads the attributes of this machine; what it doesn't tell is absent.
///
/// | name | value |
/// |---|---|
/// | `os` | `linux` |
/// | `os_version` | `VERSION_ID` of os-release |
/// | `arch`, `kernel` | as `uname -m` and `uname -r` |
/// | `host`, `domain` | the full name's first label and the rest, lower case; `domain` is absent without one |
/// | `cpus`, `memory_mb` | logical processors, MiB of memory |
/// | `virtual` | 1 in a container or a virtual machine, else 0 |
///
/// `device` and `version` are the caller's to add: a machine doesn't know them.
#[must_use]
pub fn collect() -> BTreeMap<String, SqlValue> {
    let machine = Machine::live();
    let facts = facts(&machine);
    let full_name = facts.fqdn.unwrap_or_default().to_ascii_lowercase();
    let (host, domain) = full_name.split_once('.').unwrap_or((&full_name, ""));
    let told = |text: &str| SqlValue::from((!text.is_empty()).then(|| text.to_owned()));
    let release = |key: &str| SqlValue::from(facts.release.get(key).cloned());
    let mut attributes = BTreeMap::from([
        ("os".to_owned(), told(std::env::consts::OS)),
        ("os_version".to_owned(), release("VERSION_ID")),
        ("arch".to_owned(), told(&facts.arch)),
        ("kernel".to_owned(), facts.kernel.into()),
        ("host".to_owned(), told(host)),
        ("domain".to_owned(), told(domain)),
        ("cpus".to_owned(), logical_cores(&machine).into()),
        ("memory_mb".to_owned(), memory_mebibytes(&machine).into()),
        ("virtual".to_owned(), SqlValue::from(facts.virtualization != "none")),
    ]);
    attributes.retain(|_, value| *value != SqlValue::Null);
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_host_and_processors() {
        let attributes = collect();

        assert!(attributes["host"].as_text().is_some_and(|host| !host.contains('.')));
        assert!(attributes["cpus"].as_integer().is_some_and(|cpus| cpus > 0));
        assert!(attributes["memory_mb"].as_integer().is_some_and(|size| size > 0));
        assert!(!attributes.contains_key("device"));
    }
}
