//! Opens every listener before a thread starts, so that a busy port is one clear error and no half-started Switch.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use muster_service::listen::BindError;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;

/// Connections of operators, or of admin, that the kernel keeps waiting: people and scrapers, not a fleet.
const SMALL_BACKLOG: i32 = 128;

/// Times another port is tried where any will do, and the one that is free by TCP is not by UDP.
const FREE_PORT_ATTEMPTS: u32 = 16;

/// What the kernel may keep of datagrams of a whole fleet, each way: the acknowledgements of a broadcast come at once.
const UDP_BUFFER_BYTES: usize = 16 << 20;

/// Every listener of the Switch, non-blocking, not yet known to a runtime.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// One for each shard, all on the same address: the kernel spreads connections over them (`SO_REUSEPORT`).
    pub(crate) sessions: Vec<TcpListener>,
    /// Sessions over QUIC, at the same address: one socket, since a client's address may change.
    pub(crate) quic: Option<UdpSocket>,
    /// Operators and services.
    pub(crate) operators: TcpListener,
    /// Metrics and health.
    pub(crate) admin: TcpListener,
}

impl Listeners {
    /// Opens all of them.
    ///
    /// # Errors
    /// One for every address that cannot be had, not only for the first.
    pub(crate) fn open(config: &Config) -> Result<Self, Vec<BindError>> {
        let backlog = i32::try_from(config.sessions.backlog).unwrap_or(i32::MAX);
        let sessions = open_sessions(config, backlog);
        let operators = open_alone(config.operator_listen, "operator_listen");
        let admin = open_alone(config.admin_listen, "admin_listen");
        match (sessions, operators, admin) {
            (Ok((sessions, quic)), Ok(operators), Ok(admin)) => Ok(Self { sessions, quic, operators, admin }),
            (sessions, operators, admin) => {
                Err([sessions.err(), operators.err(), admin.err()].into_iter().flatten().collect())
            }
        }
    }
}

/// Opens those of clients, by TCP and by UDP. A free port is one that is free for both.
fn open_sessions(config: &Config, backlog: i32) -> Result<(Vec<TcpListener>, Option<UdpSocket>), BindError> {
    let mut attempts = if config.listen.port() == 0 { FREE_PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let sessions = open_shared(config.listen, "listen", config.shard_count(), backlog)?;
        let chosen = sessions.first().and_then(|first| first.local_addr().ok()).unwrap_or(config.listen);
        if !config.sessions.quic {
            return Ok((sessions, None));
        }
        match open_udp(chosen) {
            Ok(quic) => return Ok((sessions, Some(quic))),
            Err(error) if attempts == 0 => return Err(BindError::new_udp(chosen, "listen", error)),
            Err(_) => {}
        }
    }
}

fn open_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The system gives what `net.core.rmem_max` and `wmem_max` let it.
    socket.set_recv_buffer_size(UDP_BUFFER_BYTES)?;
    socket.set_send_buffer_size(UDP_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn open_alone(address: SocketAddr, key: &'static str) -> Result<TcpListener, BindError> {
    bind(address, Sharing::Alone)
        .and_then(|socket| listening(socket, SMALL_BACKLOG))
        .map_err(|error| BindError::new(address, key, error))
}

/// Opens `count` listeners on one address.
///
/// `SO_REUSEPORT` would let a second Switch of the same user join in silently and take half of the clients, so a first
/// socket without it shows that the port is free.
fn open_shared(
    address: SocketAddr,
    key: &'static str,
    count: u16,
    backlog: i32,
) -> Result<Vec<TcpListener>, BindError> {
    let open = || -> io::Result<Vec<TcpListener>> {
        if address.port() != 0 {
            drop(bind(address, Sharing::Alone).and_then(|socket| listening(socket, 1))?);
        }
        let first = listening(bind(address, Sharing::Shards)?, backlog)?;
        let chosen = first.local_addr()?;
        let mut all = vec![first];
        for _ in 1..count {
            all.push(listening(bind(chosen, Sharing::Shards)?, backlog)?);
        }
        Ok(all)
    };
    open().map_err(|error| BindError::new(address, key, error))
}

/// Whether other sockets of this process may have the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Shards,
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier run that linger in TIME_WAIT must not hold up a restart.
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Shards {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listening(socket: Socket, backlog: i32) -> io::Result<TcpListener> {
    socket.listen(backlog)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_names_address_key_and_how_to_find_its_holder() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();

        let error = open_alone(address, "operator_listen").unwrap_err().to_string();

        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains("`operator_listen`"), "{error}");
        assert!(error.contains("ss -ltnp"), "{error}");
    }

    #[test]
    fn a_port_that_is_busy_by_udp_alone_is_told_so() {
        let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
        let config = Config { listen: holder.local_addr().unwrap(), shards: 1, ..Config::default() };

        let error = open_sessions(&config, 16).unwrap_err().to_string();

        assert!(error.contains("UDP") && error.contains("ss -lunp"), "{error}");
        let mut without = config;
        without.sessions.quic = false;
        assert!(open_sessions(&without, 16).unwrap().1.is_none());
    }

    #[test]
    fn shards_share_an_address_that_a_second_switch_cannot_join() {
        let shards = open_shared("127.0.0.1:0".parse().unwrap(), "listen", 3, 16).unwrap();
        let address = shards[0].local_addr().unwrap();

        let second = open_shared(address, "listen", 1, 16);

        assert_eq!(shards.len(), 3);
        assert!(shards.iter().all(|shard| shard.local_addr().unwrap() == address));
        assert!(second.as_ref().is_err_and(|error| error.to_string().contains("in use")), "{second:?}");
    }
}
