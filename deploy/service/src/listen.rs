//! Listening sockets whose errors name the port, what may hold it and the key to change.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Binds `address`, which configuration key `key` gave. Port 0 picks a free port.
///
/// # Errors
/// Returns [`BindError`] when the address is taken, not ours, or needs a privilege.
pub async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError::new(address, key, error))
}

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (key `{key}`): {problem}")]
pub struct BindError {
    address: SocketAddr,
    key: String,
    problem: String,
    #[source]
    source: io::Error,
}

impl BindError {
    /// Describes the operating system's `error` for `address`, for callers that bind themselves.
    #[must_use]
    pub fn new(address: SocketAddr, key: &str, error: io::Error) -> Self {
        Self::of(address, key, error, "", "-ltnp")
    }

    /// As [`Self::new`], of a socket for datagrams.
    #[must_use]
    pub fn new_udp(address: SocketAddr, key: &str, error: io::Error) -> Self {
        Self::of(address, key, error, "UDP ", "-lunp")
    }

    fn of(address: SocketAddr, key: &str, error: io::Error, kind_of_port: &str, listing: &str) -> Self {
        let port = address.port();
        let kind = error.kind();
        let problem = if kind == io::ErrorKind::AddrInUse {
            format!(
                "{kind_of_port}port {port} is in use, perhaps by another instance of Muster; `ss {listing} 'sport = :{port}'` \
                 shows by whom; stop it or change `{key}`"
            )
        } else if kind == io::ErrorKind::PermissionDenied {
            format!(
                "port {port} needs a privilege; give the service CAP_NET_BIND_SERVICE or set `{key}` to a \
                 port above 1023"
            )
        } else if kind == io::ErrorKind::AddrNotAvailable {
            format!("no interface has the address {}; change `{key}`", address.ip())
        } else {
            error.to_string()
        };
        Self { address, key: key.to_owned(), problem, source: error }
    }

    /// Returns the address that was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_port_names_the_port_and_the_key() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "listen").await.unwrap();
        let address = first.local_addr().unwrap();

        let error = bind(address, "admin_listen").await.unwrap_err().to_string();

        assert!(error.contains(&address.port().to_string()), "{error}");
        assert!(error.contains("change `admin_listen`"), "{error}");
    }
}
