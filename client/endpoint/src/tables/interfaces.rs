//! `interfaces`: network interfaces and their addresses.
use super::early::{Address, addresses};
use super::{Machine, Rows, Scan, Table, TableError, ready};
use crate::schema::{ColumnSchema, Search, TableSchema};
use crate::value::SqlValue;

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "interfaces",
    description: "Network interfaces, a row for each address as `ip address` lists them, and one row with NULL address \
                  for an interface without any. From /sys/class/net and getifaddrs(3).",
    columns: &[
        ColumnSchema::text("name", "Name, `eth0`").searched(Search::Equal),
        ColumnSchema::text("mac", "Hardware address; NULL where it has none"),
        ColumnSchema::text("address", "IPv4 or IPv6 address"),
        ColumnSchema::integer("prefix_length", "Bits of the address that name the network"),
        ColumnSchema::text("family", "`inet` or `inet6`, as `ip` calls them"),
        ColumnSchema::integer("mtu", "Largest packet, bytes"),
        ColumnSchema::text("state", "The kernel's operstate: `up`, `down`, `unknown` …"),
        ColumnSchema::integer("rx_bytes", "Bytes received since the interface was made"),
        ColumnSchema::integer("tx_bytes", "Bytes sent"),
    ],
    needs: None,
};

/// Table `interfaces`.
#[derive(Debug)]
pub(crate) struct Interfaces;

impl Table for Interfaces {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let machine = &scan.machine;
        let live;
        let known = match machine.early() {
            Some(early) => &early.addresses,
            None if machine.is_live() => {
                live = addresses();
                &live
            }
            None => {
                live = Vec::new();
                &live
            }
        };
        let mut rows = Vec::new();
        for name in machine.names("/sys/class/net") {
            // Not every name in that folder is an interface: `bonding_masters` is a file.
            let Some(mtu) = machine.number(format!("/sys/class/net/{name}/mtu")) else { continue };
            let own: Vec<_> = known.iter().filter(|address| address.interface == name).collect();
            rows.extend(own.iter().map(|address| row(machine, &name, mtu, Some(address))));
            if own.is_empty() {
                rows.push(row(machine, &name, mtu, None));
            }
        }
        Ok(ready(rows))
    }
}

fn row(machine: &Machine, name: &str, mtu: i64, address: Option<&Address>) -> Vec<SqlValue> {
    let folder = format!("/sys/class/net/{name}");
    let text = |file: &str| machine.detail(format!("{folder}/{file}")).map(|text| text.trim().to_owned());
    let family = |address: &Address| if address.address.is_ipv4() { "inet" } else { "inet6" };
    vec![
        name.into(),
        text("address").filter(|mac| !mac.is_empty()).into(),
        address.map(|each| each.address.to_string()).into(),
        address.and_then(|each| each.prefix_length).map(u32::from).into(),
        address.map(family).into(),
        mtu.into(),
        text("operstate").into(),
        machine.number(format!("{folder}/statistics/rx_bytes")).into(),
        machine.number(format!("{folder}/statistics/tx_bytes")).into(),
    ]
}
