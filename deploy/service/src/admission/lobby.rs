//! [`Lobby`]: the connections that wait for their first byte, and then for a handshake.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handshakes::{Handshakes, Permit};
use super::shares::{Full, Places, Taken};
use super::{Refused, plain};

/// The bits of an IPv6 address that name a network; the others a host chooses as it likes (RFC 4291 §2.5.4).
const IPV6_NETWORK_BITS: u32 = 64;

/// What a lobby holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LobbyBounds {
    /// From the connection to its first byte.
    pub first_byte_deadline: Duration,
    /// Connections at most.
    pub waiting_max: u32,
    /// Connections of one source at most.
    pub waiting_per_source_max: u32,
}

/// Where a connection is from, as far as one host cannot choose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

/// The connections that wait for their first byte, and then for a handshake. All listeners of one address share one.
#[derive(Debug)]
pub struct Lobby {
    first_byte_deadline: Duration,
    places: Places<Source>,
}

/// One connection's place in a lobby; dropped, it is free.
#[derive(Debug)]
pub struct Place {
    lobby: Arc<Lobby>,
    source: Source,
    _taken: Taken<Source>,
}

impl From<SocketAddr> for Source {
    fn from(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> IPV6_NETWORK_BITS << IPV6_NETWORK_BITS;
                Self(Ipv6Addr::from(network).into())
            }
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

impl Lobby {
    /// Makes an empty one.
    #[must_use]
    pub fn new(bounds: LobbyBounds) -> Arc<Self> {
        let LobbyBounds { first_byte_deadline, waiting_max, waiting_per_source_max } = bounds;
        Arc::new(Self { first_byte_deadline, places: Places::new(waiting_max, waiting_per_source_max) })
    }

    /// Gives a connection its place.
    ///
    /// # Errors
    /// [`Refused::LobbyFull`] or [`Refused::SourceFull`].
    pub fn enter(self: &Arc<Self>, address: SocketAddr) -> Result<Place, Refused> {
        let source = Source::from(address);
        let taken = self.places.take(Some(source)).map_err(|full| match full {
            Full::Share => Refused::SourceFull,
            Full::All => Refused::LobbyFull,
        })?;
        Ok(Place { lobby: Arc::clone(self), source, _taken: taken })
    }
}

impl Place {
    /// Waits for the connection's first byte, then at most `patience` for one of `handshakes`. Who speaks plain text is
    /// told that this port speaks TLS. The place is free when it returns.
    ///
    /// # Errors
    /// Why there is to be no handshake; the connection has only to be dropped.
    pub async fn pass(
        self,
        stream: &mut TcpStream,
        handshakes: &Arc<Handshakes>,
        patience: Duration,
    ) -> Result<Permit, Refused> {
        let mut first = [0];
        match timeout(self.lobby.first_byte_deadline, stream.peek(&mut first)).await {
            Err(_) => return Err(Refused::Silent),
            Ok(Ok(0) | Err(_)) => return Err(Refused::Gone),
            Ok(Ok(_)) => {}
        }
        // A TLS record of a handshake begins with 0x16 (RFC 8446 §5.1); anything else that is no text gets TLS's own alert.
        if first[0].is_ascii_alphabetic() {
            plain::answer(stream).await;
            return Err(Refused::PlainText);
        }
        timeout(patience, handshakes.permit(self.source)).await.map_err(|_| Refused::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: LobbyBounds = LobbyBounds {
        first_byte_deadline: Duration::from_secs(3),
        waiting_max: 3,
        waiting_per_source_max: 2,
    };

    #[test]
    fn a_source_that_has_its_share_leaves_room_for_others_and_the_whole_is_bounded() {
        let lobby = Lobby::new(BOUNDS);
        let enter = |address: &str| lobby.enter(address.parse().unwrap());

        let (first, second) = (enter("192.0.2.1:1").unwrap(), enter("192.0.2.1:2").unwrap());
        assert_eq!(enter("192.0.2.1:3").unwrap_err(), Refused::SourceFull);
        let third = enter("192.0.2.2:1").unwrap();
        assert_eq!(enter("192.0.2.3:1").unwrap_err(), Refused::LobbyFull);
        drop((first, third));

        assert!(enter("192.0.2.1:4").is_ok());
        drop(second);
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network() {
        for (one, other, same) in [
            ("192.0.2.1:1", "192.0.2.1:2", true),
            ("192.0.2.1:1", "192.0.2.2:1", false),
            ("192.0.2.1:1", "[::ffff:192.0.2.1]:1", true),
            ("[2001:db8:1:2::1]:1", "[2001:db8:1:2:ffff::9]:1", true),
            ("[2001:db8:1:2::1]:1", "[2001:db8:1:3::1]:1", false),
        ] {
            let source = |address: &str| Source::from(address.parse::<SocketAddr>().unwrap());

            assert_eq!(source(one) == source(other), same, "{one} {other}");
        }
    }
}
