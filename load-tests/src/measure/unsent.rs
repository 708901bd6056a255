//! What a server wrote and the kernel could not yet deliver: how full the sockets of slow readers are.

use std::collections::BTreeMap;

/// Bytes that wait in the kernel, by the socket's other end.
pub type Unsent = BTreeMap<String, u64>;

/// What waits in the sockets of a server on a loopback port, those with nothing left away.
///
/// # Errors
/// The kernel has no table of sockets.
pub fn of_port(port: u16) -> anyhow::Result<Unsent> {
    let mut all = waiting(&std::fs::read_to_string("/proc/net/tcp")?, port);
    // A server that listens for both has its IPv4 connections here. A machine without IPv6 has no such table.
    all.extend(waiting(&std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default(), port));
    Ok(all)
}

fn waiting(table: &str, port: u16) -> Unsent {
    let socket = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote, _state, queues) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (_, local_port) = local.rsplit_once(':')?;
        let is_here = u16::from_str_radix(local_port, 16).ok()? == port;
        let bytes = u64::from_str_radix(queues.split_once(':')?.0, 16).ok()?;
        (is_here && bytes > 0).then(|| (remote.to_owned(), bytes))
    };
    table.lines().skip(1).filter_map(socket).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_nobody_reads_waits_in_the_kernel_until_it_takes_no_more() {
        check("127.0.0.1:0");
    }

    #[test]
    fn a_server_that_listens_for_both_versions_of_ip_is_found_too() {
        check("[::]:0");
    }

    #[track_caller]
    fn check(address: &str) {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _reads_nothing = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut writer, _) = listener.accept().unwrap();
        writer.set_nonblocking(true).unwrap();
        assert!(of_port(port).unwrap().is_empty());

        let mut written = 0;
        let refused = loop {
            match writer.write(&[7; 65_536]) {
                Ok(count) => written += count as u64,
                Err(error) => break error,
            }
        };

        assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
        let waits = of_port(port).unwrap();
        assert_eq!(waits.len(), 1, "{waits:?}");
        let bytes = waits.values().sum::<u64>();
        assert!(bytes > 0 && bytes <= written, "{bytes} of {written}");
    }
}
