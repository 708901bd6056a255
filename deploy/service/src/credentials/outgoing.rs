//! [`Outgoing`]: a connection that goes out and stands, whose server is judged for as long as it stands (R3, C12).

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use muster_pki::CertificateDer;
use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client_side::ClientCredentials;
use super::error::PeerRefused;

/// What [`super::dial`] returns: it breaks once its server is revoked, or its root is not trusted any more. The error has the
/// [`PeerRefused`] inside, which [`PeerRefused::of_live`] finds. A CRL that lapsed ends nothing that stands (R6), nor does the end of the
/// server's certificate: it was renewed long before, and all that connected until then would come back at once (N1).
pub struct Outgoing {
    stream: TlsStream<TcpStream>,
    chain: Vec<CertificateDer<'static>>,
    name: String,
    credentials: Arc<ClientCredentials>,
    refusal: Pin<Box<dyn Future<Output = PeerRefused> + Send>>,
    refused: Option<PeerRefused>,
}

impl Outgoing {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        credentials: &Arc<ClientCredentials>,
        name: &str,
    ) -> Self {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain: Vec<CertificateDer<'static>> =
            chain.iter().cloned().map(CertificateDer::into_owned).collect();
        let (name, credentials) = (name.to_owned(), Arc::clone(credentials));
        let refusal = Box::pin(refusal(Arc::clone(&credentials), chain.clone(), name.clone()));
        Self { stream, chain, name, credentials, refusal, refused: None }
    }

    /// Returns the socket, and the TLS on it.
    #[must_use]
    pub fn get_ref(&self) -> (&TcpStream, &ClientConnection) {
        self.stream.get_ref()
    }

    /// Judges the server once more, as a new connection would: for who has read the CRLs again since.
    ///
    /// # Errors
    /// As [`ClientCredentials::check_server`].
    pub fn check(&self) -> Result<(), PeerRefused> {
        let now = self.credentials.clock().now();
        self.credentials.check_server(Some(&self.chain), &self.name, now).map(drop)
    }

    /// Reading and writing both ask: whoever waits for a full socket to take something reads nothing.
    fn stands(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.refused.is_none()
            && let Poll::Ready(refused) = self.refusal.as_mut().poll(context)
        {
            tracing::warn!(%refused, "connection ended: the certificate of its server is no longer accepted");
            self.refused = Some(refused);
        }
        let aborted = |refused| io::Error::new(io::ErrorKind::ConnectionAborted, refused);
        self.refused.clone().map_or(Ok(()), |refused| Err(aborted(refused)))
    }
}

/// Waits until the server is no longer accepted.
pub(super) async fn refusal(
    credentials: Arc<ClientCredentials>,
    chain: Vec<CertificateDer<'static>>,
    name: String,
) -> PeerRefused {
    let (mut trust, mut lists) = (credentials.rechecks(), credentials.revocation().changes());
    loop {
        let now = credentials.clock().now();
        match credentials.check_server(Some(&chain), &name, now) {
            Err(refused) if !refused.keeps_what_stands() => return refused,
            Ok(_) | Err(_) => {}
        }
        tokio::select! {
            biased;
            Ok(()) = trust.changed() => {}
            Ok(()) = lists.changed() => {}
            else => std::future::pending().await,
        }
    }
}

impl AsyncRead for Outgoing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stands(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stands(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stands(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Outgoing").field("refused", &self.refused).finish_non_exhaustive()
    }
}
