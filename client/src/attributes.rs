//! What the client tells of itself, for audiences.

use std::collections::BTreeMap;

use muster_endpoint::SqlValue;
use muster_pki::DeviceId;
use muster_proto::common::v1::{NamedValue, Value, value::Kind};
use muster_signing::audience::AUTHENTICATED;

/// Returns every attribute: the endpoint's, with those that the identity decides.
pub(crate) fn collect(device: &DeviceId) -> BTreeMap<String, SqlValue> {
    let mut attributes = muster_endpoint::attributes::collect();
    let is_authenticated = !device.is_of_key();
    attributes.insert(AUTHENTICATED.to_owned(), SqlValue::Integer(is_authenticated.into()));
    let device = device.to_string();
    if !is_authenticated {
        // A key says nothing of host and domain; they are what the machine says.
        for (name, text) in [("device", &device[..]), ("version", env!("CARGO_PKG_VERSION"))] {
            attributes.insert(name.to_owned(), SqlValue::Text(text.to_owned()));
        }
        return attributes;
    }
    let (host, domain) = device.split_once('.').unwrap_or((&device, ""));
    for (name, text) in
        [("host", host), ("domain", domain), ("device", &device), ("version", env!("CARGO_PKG_VERSION"))]
    {
        attributes.insert(name.to_owned(), SqlValue::Text(text.to_owned()));
    }
    attributes
}

/// Returns them as the wire has them; what is unknown is left out.
pub(crate) fn named(attributes: &BTreeMap<String, SqlValue>) -> Vec<NamedValue> {
    attributes
        .iter()
        .filter_map(|(name, value)| Some(NamedValue { name: name.clone(), value: Some(wire(value)?) }))
        .collect()
}

/// Returns a value as the wire has it.
pub(crate) fn wire(value: &SqlValue) -> Option<Value> {
    let kind = match value {
        SqlValue::Null => return None,
        SqlValue::Integer(number) => Kind::Integer(*number),
        SqlValue::Real(number) => Kind::Real(*number),
        SqlValue::Text(text) => Kind::Text(text.clone()),
        SqlValue::Blob(bytes) => Kind::Blob(bytes.clone()),
    };
    Some(Value { kind: Some(kind) })
}
