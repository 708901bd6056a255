//! C7: whose certificate it is.

use std::net::IpAddr;

use crate::certificate::Certificate;
use crate::device_id::DeviceId;
use crate::finding::{Finding, Rule};
use crate::role::Role;

/// Returns what is wrong with the leaf's name: it is no name for its role, or not the one that was expected.
pub(super) fn finding(role: Role, leaf: &Certificate, expected: Option<&str>) -> Option<Finding> {
    if role == Role::Device
        && let Err(error) = DeviceId::from_certificate(leaf)
    {
        let fix = "reissue it with the computer name as SAN dNSName";
        return Some(Finding::refusal(Rule::C7, leaf, error.to_string(), "a computer name", fix));
    }
    let expected = expected?;
    if is_named(role, leaf, expected) {
        return None;
    }
    let names = names(leaf);
    let got = if names.is_empty() { "no name".to_owned() } else { format!("the name {}", names.join(", ")) };
    let fix = format!("reissue it with the SAN dNSName {expected:?}, or use the name that it has");
    Some(Finding::refusal(Rule::C7, leaf, got, format!("the name {expected:?}"), fix))
}

/// Returns whether the leaf carries the name: case-insensitive, exact; a device by its id alone, a server also by address
/// or by a wildcard in the leftmost label.
fn is_named(role: Role, leaf: &Certificate, expected: &str) -> bool {
    if role == Role::Device {
        let id = DeviceId::from_certificate(leaf);
        return id.is_ok_and(|id| id.as_str().eq_ignore_ascii_case(expected));
    }
    let is_server = role == Role::Switch;
    if let (true, Ok(address)) = (is_server, expected.parse::<IpAddr>()) {
        return leaf.ip_addresses().contains(&address);
    }
    names(leaf).iter().any(|name| {
        name.eq_ignore_ascii_case(expected) && !name.contains('*')
            || is_server && is_wildcard_of(name, expected)
    })
}

/// Returns the SAN dNSNames, or the CN where there is none.
pub(crate) fn names(leaf: &Certificate) -> Vec<&str> {
    if leaf.dns_names().is_empty() {
        return leaf.common_name().into_iter().collect();
    }
    leaf.dns_names().iter().map(String::as_str).collect()
}

/// Returns whether `pattern` is `*.rest` and `name` is one label before the same rest, which has a dot itself.
pub(crate) fn is_wildcard_of(pattern: &str, name: &str) -> bool {
    let Some(rest) = pattern.strip_prefix("*.") else { return false };
    let Some((label, parent)) = name.split_once('.') else { return false };
    !label.is_empty() && rest.contains('.') && !rest.contains('*') && rest.eq_ignore_ascii_case(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c7_a_wildcard_stands_for_one_label() {
        assert!(is_wildcard_of("*.acme.local", "switch.ACME.local"));
        for (pattern, name) in [
            ("*.acme.local", "acme.local"),
            ("*.acme.local", ".acme.local"),
            ("*.acme.local", "a.b.acme.local"),
            ("s*.acme.local", "switch.acme.local"),
            ("*.local", "acme.local"),
            ("*.*.local", "a.*.local"),
        ] {
            assert!(!is_wildcard_of(pattern, name), "{pattern} {name}");
        }
    }
}
