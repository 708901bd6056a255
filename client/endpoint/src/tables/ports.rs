//! `listening_ports`: sockets that wait for others.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::machine::LIST_BYTES_MAX;
use super::{Rows, Scan, Table, TableError, early, processes, ready};
use crate::schema::{ColumnSchema, TableSchema};

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "listening_ports",
    description: "Listening TCP and unconnected UDP sockets as `ss -ltun` lists them, from /proc/net. A socket that \
                  several processes share has the lowest of their numbers.",
    columns: &[
        ColumnSchema::text("protocol", "`tcp` or `udp`, over either family"),
        ColumnSchema::text("address", "Local address; `0.0.0.0` and `::` stand for all"),
        ColumnSchema::integer("port", "Local port"),
        ColumnSchema::integer("pid", "The process; NULL for the kernel's own and without the right to know"),
        ColumnSchema::text("process", "Name of the process"),
        ColumnSchema::integer("uid", "Number of the user who opened it"),
    ],
    needs: None,
};

/// Table `listening_ports`.
#[derive(Debug)]
pub(crate) struct ListeningPorts;

impl Table for ListeningPorts {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let machine = &scan.machine;
        let mut sockets = Vec::new();
        for (file, protocol) in
            [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
        {
            let text = machine.text(format!("/proc/net/{file}"), LIST_BYTES_MAX)?.unwrap_or_default();
            sockets.extend(parse(&text, protocol).into_iter().map(|socket| (protocol, socket)));
        }
        let live;
        let owners = match machine.early() {
            Some(early) => &early.sockets,
            None if scan.uses("pid") || scan.uses("process") => {
                live = early::sockets(machine);
                &live
            }
            None => {
                live = Default::default();
                &live
            }
        };
        let rows: Vec<_> = sockets
            .into_iter()
            .map(|(protocol, socket)| {
                let pid = owners.get(&socket.inode).copied();
                vec![
                    protocol.name().into(),
                    socket.address.to_string().into(),
                    u32::from(socket.port).into(),
                    pid.map(i64::from).into(),
                    pid.and_then(|pid| processes::name(machine, pid)).into(),
                    socket.uid.into(),
                ]
            })
            .collect();
        Ok(ready(rows))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The state in /proc/net that means waiting for others: TCP_LISTEN, and TCP_CLOSE for unconnected UDP.
    const fn waiting(self) -> &'static str {
        match self {
            Self::Tcp => "0A",
            Self::Udp => "07",
        }
    }
}

/// One waiting socket.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    uid: u32,
    inode: u64,
}

/// Reads /proc/net/{tcp,tcp6,udp,udp6}: a heading, then `sl local remote st … uid timeout inode …`.
fn parse(text: &str, protocol: Protocol) -> Vec<Socket> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if *fields.get(3)? != protocol.waiting() {
            return None;
        }
        let (address, port) = fields.get(1)?.split_once(':')?;
        Some(Socket {
            address: parse_address(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
            uid: fields.get(7)?.parse().ok()?,
            inode: fields.get(9)?.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// Hexadecimal words of 32 bits, each printed in the machine's byte order over network-order bytes.
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |place: usize| {
        let digits = text.get(place * 8..place * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (place, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(place)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0 0 10 0\n   \
        1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 12346 1 0 20 4 30 10 -1\n";

    #[test]
    fn only_listening_sockets_are_rows() {
        let sockets = parse(TCP, Protocol::Tcp);

        let wanted = Socket { address: Ipv4Addr::LOCALHOST.into(), port: 8080, uid: 1000, inode: 12345 };
        assert_eq!(sockets, [wanted]);
    }

    proptest! {
        #[test]
        fn every_ipv6_address_is_read_back(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            let text: String =
                address.octets().chunks(4).map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap()))).collect();
            prop_assert_eq!(parse_address(&text), Some(IpAddr::V6(address)));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,300}", line in "[ 0-9A-F:]{0,200}") {
            prop_assert!(parse(&text, Protocol::Udp).len() <= 300);
            let table = format!("heading\n{line}");
            prop_assert!(parse(&table, Protocol::Tcp).len() <= 1);
        }
    }
}
