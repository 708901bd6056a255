//! What must be read before the sandbox closes.
//!
//! Landlock forbids `ptrace` of processes outside of it, and with that the kernel hides `/proc/PID/exe` and
//! `/proc/PID/fd`; the system-call filter forbids sockets, and with that the C library's `getifaddrs`. So a helper reads
//! these three first, and only when the SQL has the table's name in it. A table's name can't be written in SQL without
//! its letters, so a plain search of the text misses none.
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use super::Machine;

/// Descriptors of all processes that are looked at for sockets; a machine with more has some ports without a process.
const DESCRIPTORS_MAX: usize = 2_000_000;
/// Addresses that are read; a container host has some thousands.
const ADDRESSES_MAX: usize = 65_536;

/// What was read before the sandbox closed; empty where the SQL doesn't ask for it.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// Programs by process.
    pub(super) executables: BTreeMap<i32, String>,
    /// The process with the lowest number that has a socket open, by the socket's inode.
    pub(super) sockets: HashMap<u64, i32>,
    /// Addresses by interface.
    pub(super) addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    /// The interface.
    pub(super) interface: String,
    /// The address.
    pub(super) address: IpAddr,
    /// How many of its bits name the network.
    pub(super) prefix_length: Option<u8>,
}

impl Early {
    /// Reads what `sql` may ask for.
    pub(crate) fn read(machine: &Machine, sql: &str) -> Self {
        let sql = sql.to_ascii_lowercase();
        let asks = |table: &str| sql.contains(table);
        Self {
            executables: if asks("processes") { executables(machine) } else { BTreeMap::new() },
            sockets: if asks("listening_ports") { sockets(machine) } else { HashMap::new() },
            addresses: if asks("interfaces") { addresses() } else { Vec::new() },
        }
    }
}

/// The numbers of all processes, in order.
pub(super) fn processes(machine: &Machine) -> Vec<i32> {
    let mut numbers: Vec<i32> = machine.names("/proc").iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// The program of process `pid`; none for kernel threads and where we may not know.
pub(super) fn executable(machine: &Machine, pid: i32) -> Option<String> {
    machine.link(format!("/proc/{pid}/exe")).map(|path| path.to_string_lossy().into_owned())
}

fn executables(machine: &Machine) -> BTreeMap<i32, String> {
    processes(machine).into_iter().filter_map(|pid| Some((pid, executable(machine, pid)?))).collect()
}

/// Finds the processes behind sockets.
pub(super) fn sockets(machine: &Machine) -> HashMap<u64, i32> {
    let mut found = HashMap::new();
    let mut left = DESCRIPTORS_MAX;
    for pid in processes(machine) {
        let folder = format!("/proc/{pid}/fd");
        for name in machine.names(&folder) {
            left = left.saturating_sub(1);
            if left == 0 || machine.check_deadline().is_err() {
                return found;
            }
            let target = machine.link(format!("{folder}/{name}"));
            if let Some(inode) = target.as_deref().and_then(|target| socket_inode(&target.to_string_lossy()))
            {
                found.entry(inode).or_insert(pid);
            }
        }
    }
    found
}

/// `socket:[123]`, as the kernel names an open socket.
fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The addresses of this machine's interfaces, by the C library.
pub(super) fn addresses() -> Vec<Address> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    let mut found: Vec<Address> = all
        .take(ADDRESSES_MAX)
        .filter_map(|each| {
            let address = address_of(each.address.as_ref()?)?;
            let prefix_length = each.netmask.as_ref().and_then(address_of).map(ones);
            Some(Address { interface: each.interface_name, address, prefix_length })
        })
        .collect();
    found.sort_unstable();
    found
}

fn address_of(storage: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn ones(mask: IpAddr) -> u8 {
    let count = match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    };
    u8::try_from(count).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_have_an_inode() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        assert_eq!(socket_inode("pipe:[4711]"), None);
        assert_eq!(socket_inode("/socket:[1]"), None);
    }
}
