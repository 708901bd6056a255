//! `routes`: the main routing table.
use std::net::{IpAddr, Ipv6Addr};

use super::machine::LIST_BYTES_MAX;
use super::ports::parse_address;
use super::{Rows, Scan, Table, TableError, ready};
use crate::schema::{ColumnSchema, TableSchema};
use crate::value::SqlValue;

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "routes",
    description: "Routes of the main table as `ip route` and `ip -6 route` list them, from /proc/net/route and \
                  /proc/net/ipv6_route; a default route has prefix length 0.",
    columns: &[
        ColumnSchema::text("destination", "Address of the network; `0.0.0.0` or `::` for a default route"),
        ColumnSchema::integer("prefix_length", "Bits of the destination that name the network"),
        ColumnSchema::text("gateway", "Next hop; NULL for a network that is directly there"),
        ColumnSchema::text("interface", "Interface it leaves by"),
        ColumnSchema::integer("metric", "The lower is taken"),
        ColumnSchema::text("family", "`inet` or `inet6`"),
    ],
    needs: None,
};

/// RTF_GATEWAY: the route has a next hop.
const GATEWAY: u32 = 0x0002;
/// RTF_REJECT: the kernel's own `unreachable`.
const REJECT: u32 = 0x0200;
/// RTF_LOCAL, RTF_ANYCAST and RTF_MULTICAST: routes of the local table, which `ip route` doesn't show.
const LOCAL_TABLE: u32 = 0x8000_0000 | 0x0010_0000 | 0x0020_0000;

/// Table `routes`.
#[derive(Debug)]
pub(crate) struct Routes;

impl Table for Routes {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let text = |file: &str| Ok(scan.machine.text(file, LIST_BYTES_MAX)?.unwrap_or_default());
        let mut routes = parse_v4(&text("/proc/net/route")?);
        routes.extend(parse_v6(&text("/proc/net/ipv6_route")?));
        Ok(ready(routes.into_iter().map(Route::into_row)))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Route {
    destination: IpAddr,
    prefix_length: u32,
    gateway: Option<IpAddr>,
    interface: String,
    metric: u32,
}

impl Route {
    fn into_row(self) -> Vec<SqlValue> {
        let family = if self.destination.is_ipv4() { "inet" } else { "inet6" };
        vec![
            self.destination.to_string().into(),
            self.prefix_length.into(),
            self.gateway.map(|gateway| gateway.to_string()).into(),
            self.interface.into(),
            self.metric.into(),
            family.into(),
        ]
    }
}

/// A heading, then `Iface Destination Gateway Flags RefCnt Use Metric Mask …`.
fn parse_v4(text: &str) -> Vec<Route> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
        let IpAddr::V4(mask) = parse_address(fields.get(7)?)? else { return None };
        let gateway = parse_address(fields.get(2)?)?;
        (flags & REJECT == 0).then_some(Route {
            destination: parse_address(fields.get(1)?)?,
            prefix_length: mask.to_bits().count_ones(),
            gateway: (flags & GATEWAY != 0).then_some(gateway),
            interface: (*fields.first()?).to_owned(),
            metric: fields.get(6)?.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// `destination length source length next-hop metric references use flags interface`, in plain network order.
fn parse_v6(text: &str) -> Vec<Route> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = |place: usize| {
            let bits = u128::from_str_radix(fields.get(place)?, 16).ok()?;
            Some(Ipv6Addr::from_bits(bits))
        };
        let number = |place: usize| u32::from_str_radix(fields.get(place)?, 16).ok();
        let flags = number(8)?;
        let destination = address(0)?;
        let shown = flags & (REJECT | LOCAL_TABLE) == 0 && !destination.is_multicast();
        let gateway = address(4)?;
        shown.then_some(Route {
            destination: destination.into(),
            prefix_length: number(1)?,
            gateway: (flags & GATEWAY != 0).then_some(gateway.into()),
            interface: (*fields.get(9)?).to_owned(),
            metric: number(5)?,
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_has_prefix_length_0_and_a_gateway() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                    eth0\t0000000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";

        let routes = parse_v4(text);

        assert_eq!(routes.len(), 2);
        assert_eq!((routes[0].prefix_length, routes[0].gateway), (0, Some([10, 0, 0, 1].into())));
        assert_eq!((routes[1].destination, routes[1].prefix_length), ([10, 0, 0, 0].into(), 24));
    }

    #[test]
    fn routes_of_the_local_table_are_left_out() {
        let zero = "00000000000000000000000000000000";
        let text = format!(
            "fe800000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0\n\
             {zero}0 00\n\
             00000000000000000000000000000001 80 {zero} 00 {zero} 00000000 00000003 00000000 80200001       lo\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );

        let routes = parse_v6(&text);

        assert_eq!(routes.len(), 1);
        assert_eq!(
            (routes[0].prefix_length, routes[0].metric, routes[0].interface.as_str()),
            (64, 256, "eth0")
        );
    }
}
