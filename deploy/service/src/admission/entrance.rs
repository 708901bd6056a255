//! [`Entrance`]: the way in of every TLS listener, from the socket to a peer whose certificate was judged.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_pki::Role;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::secured::Secured;
use super::{Handshakes, Lobby, Permit, Place, Refused, Spare, farewell, spare};
use crate::credentials::{ClientCertificate, Peer, PeerRefused, ServerCredentials};
use crate::line::Accepted;

/// How long accepting rests when the process is out of descriptors or memory, so that the loop does not spin; those who come meanwhile are
/// few enough for the kernel's backlog.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What a peer is told whose certificate is not taken although its handshake was good, in the protocol that it speaks.
pub type Answer = fn(&PeerRefused) -> Vec<u8>;

/// Hears why somebody was turned away, and whom.
pub type Tell = Box<dyn Fn(&TurnedAway, Option<SocketAddr>) + Send + Sync>;

/// What every connection of a listener passes: a place in the lobby, its first byte, room for a handshake, TLS, the check
/// of its certificate. Each step is bounded, and ends with `stop`.
pub struct Entrance {
    /// Where connections wait for their first byte. All listeners of one address share one.
    pub lobby: Arc<Lobby>,
    /// The handshakes that may be in progress.
    pub handshakes: Arc<Handshakes>,
    /// From the first byte to the end of the TLS handshake; the wait for room has as long for itself.
    pub tls_deadline: Duration,
    /// What is shown, who is trusted, and by which clock.
    pub credentials: Arc<ServerCredentials>,
    /// Who may come in.
    pub roles: &'static [Role],
    /// TLS 1.3 has no word for a refusal after the handshake, as of a session that was resumed; none: the connection just ends.
    pub answer: Option<Answer>,
    /// Held for when the process has no descriptor left.
    pub spare: Spare,
    /// Nobody is let in any more.
    pub stop: CancellationToken,
    /// Hears of everyone who is turned away, once; the address is missing where there was no connection.
    pub tell: Tell,
}

/// A connection of which no byte has come yet.
#[derive(Debug)]
pub struct Newcomer {
    stream: TcpStream,
    /// Where it is from.
    pub address: SocketAddr,
    place: Place,
}

/// A connection whose peer was judged.
#[derive(Debug)]
pub struct Admitted<P = Peer, S = TlsStream<TcpStream>> {
    /// The connection.
    pub stream: S,
    /// Where it is from.
    pub address: SocketAddr,
    /// Who it is.
    pub peer: P,
    /// Changes when the peer has to be judged again; nothing that changed since it was judged is missed.
    pub changes: watch::Receiver<u64>,
    /// Its handshake; the next begins when it is dropped.
    pub permit: Permit,
}

/// What becomes of who shows no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nameless {
    Refused,
    Admitted,
}

/// Why a connection was not let in.
#[derive(Debug, thiserror::Error)]
pub enum TurnedAway {
    /// There is no connection to speak of.
    #[error("no connection could be accepted: {0}; see LimitNOFILE")]
    Accept(io::Error),
    /// No handshake began.
    #[error(transparent)]
    Early(#[from] Refused),
    /// The handshake took too long, counted from its first byte.
    #[error("the TLS handshake took longer than `tls_deadline`")]
    TlsDeadline,
    /// The handshake failed; see [`Self::certificate`].
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The handshake was good, and the peer's certificate is not.
    #[error("{0}")]
    Certificate(PeerRefused),
}

impl TurnedAway {
    /// Returns its name in metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Accept(_) => "accept",
            Self::Early(refused) => refused.label(),
            Self::TlsDeadline => "tls_deadline",
            Self::Tls(_) => "tls",
            Self::Certificate(_) => "certificate",
        }
    }

    /// Returns what is wrong with the peer's certificate, if that is why, in the handshake or after it.
    #[must_use]
    pub fn certificate(&self) -> Option<&PeerRefused> {
        match self {
            Self::Certificate(refused) => Some(refused),
            Self::Tls(error) => PeerRefused::of(error),
            Self::Accept(_) | Self::Early(_) | Self::TlsDeadline => None,
        }
    }
}

impl Entrance {
    /// Waits for the next connection that has a place in the lobby; `None` when it is time to stop. While no handshake may
    /// begin, connections are left in the kernel's backlog.
    pub async fn newcomer(&self, listener: &TcpListener) -> Option<Newcomer> {
        loop {
            let connection = async {
                self.handshakes.room().await;
                listener.accept().await
            };
            match self.stop.run_until_cancelled(connection).await? {
                Ok((stream, address)) => match self.lobby.enter(address) {
                    Ok(place) => return Some(Newcomer { stream, address, place }),
                    Err(refused) => (self.tell)(&refused.into(), Some(address)),
                },
                Err(error) => {
                    let sheds = spare::is_out_of_descriptors(&error);
                    (self.tell)(&TurnedAway::Accept(error), None);
                    if sheds {
                        let turned_away = TurnedAway::Early(Refused::OutOfDescriptors);
                        self.spare.shed(listener, |address| (self.tell)(&turned_away, Some(address))).await;
                    }
                    tokio::time::sleep(ACCEPT_REST).await;
                    self.spare.hold();
                }
            }
        }
    }

    /// Waits until there is something to shake hands about, does, and judges the peer. `None` if it was turned away, or it is
    /// time to stop: a handshake that nobody ends must not hold that up.
    pub async fn admit(&self, newcomer: Newcomer) -> Option<Admitted> {
        let judged = self.stop.run_until_cancelled(self.judge(newcomer, Nameless::Refused)).await??;
        let Admitted { stream, address, peer, changes, permit } = judged;
        Some(Admitted { stream, address, peer: peer?, changes, permit })
    }

    /// As [`Self::admit`], to a connection without buffers of its own; who shows no certificate where none is required comes in, too, and is
    /// nobody yet.
    pub async fn admit_anyone(&self, newcomer: Newcomer) -> Option<Admitted<Option<Peer>, Accepted>> {
        let nameless = match self.credentials.asks() {
            ClientCertificate::Required => Nameless::Refused,
            ClientCertificate::Optional | ClientCertificate::None => Nameless::Admitted,
        };
        self.stop.run_until_cancelled(self.judge(newcomer, nameless)).await?
    }

    /// Tells a handshake in which no certificate was shown though one is required from one that failed: the first is a refusal like
    /// that of a bad certificate (C14 of trust.md).
    fn failed(&self, error: io::Error) -> TurnedAway {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if !matches!(tls, Some(rustls::Error::NoCertificatesPresented)) {
            return TurnedAway::Tls(error);
        }
        match self.credentials.check_peer_role(None, self.roles, self.credentials.clock().now()) {
            Err(refused) => TurnedAway::Certificate(refused),
            Ok(_nobody) => TurnedAway::Tls(error),
        }
    }

    async fn judge<S: Secured>(
        &self,
        newcomer: Newcomer,
        nameless: Nameless,
    ) -> Option<Admitted<Option<Peer>, S>> {
        let Newcomer { mut stream, address, place } = newcomer;
        let turn_away = |why: TurnedAway| (self.tell)(&why, Some(address));
        let permit = place.pass(&mut stream, &self.handshakes, self.tls_deadline).await;
        let permit = permit.map_err(|refused| turn_away(refused.into())).ok()?;
        // What is small leaves at once: an order is not held back for the ack of the one before.
        stream.set_nodelay(true).map_err(|error| turn_away(TurnedAway::Tls(error))).ok()?;
        // Before the check, so that no change falls between the two.
        let changes = self.credentials.rechecks();
        let accepted = timeout(self.tls_deadline, S::accept(&self.credentials, stream)).await;
        let stream = match accepted.map_err(|_| turn_away(TurnedAway::TlsDeadline)).ok()? {
            Ok(stream) => stream,
            Err((error, stream)) => {
                turn_away(self.failed(error));
                farewell::linger(stream).await;
                return None;
            }
        };
        // A resumed session never meets the verifier, so everyone is looked at here (R2 of trust.md).
        let chain = stream.peer_certificates();
        let now = self.credentials.clock().now();
        // What the handshake showed, or the one before that this resumes: no chain is nobody, and a bad one is never taken for none.
        if nameless == Nameless::Admitted && chain.is_none_or(<[_]>::is_empty) {
            return Some(Admitted { stream, address, peer: None, changes, permit });
        }
        match self.credentials.check_peer_role(chain, self.roles, now) {
            Ok(peer) => Some(Admitted { stream, address, peer: Some(peer), changes, permit }),
            Err(refused) => {
                let answer = self.answer.map(|answer| answer(&refused)).unwrap_or_default();
                turn_away(TurnedAway::Certificate(refused));
                Box::pin(stream.say(&answer)).await;
                None
            }
        }
    }
}

impl fmt::Debug for Entrance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Entrance").field("roles", &self.roles).finish_non_exhaustive()
    }
}
