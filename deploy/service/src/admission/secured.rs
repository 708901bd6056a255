//! [`Secured`]: what the entrance asks of a connection under TLS, whoever keeps its buffers.

use std::io;

use muster_pki::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::farewell;
use crate::credentials::{ClientCertificate, ServerCredentials};
use crate::line::{Accepted, Keying, Line};

/// A server's connection under TLS.
pub(super) trait Secured: Sized {
    /// Shakes hands; a failure gives the socket back, and has told the peer.
    async fn accept(
        credentials: &ServerCredentials,
        stream: TcpStream,
    ) -> Result<Self, (io::Error, TcpStream)>;

    /// Returns the chain that the peer showed, or showed when the session began that this one resumes.
    fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]>;

    /// Writes what the peer is to read last, and ends the connection.
    async fn say(self, last: &[u8]);
}

impl Secured for TlsStream<TcpStream> {
    async fn accept(
        credentials: &ServerCredentials,
        stream: TcpStream,
    ) -> Result<Self, (io::Error, TcpStream)> {
        TlsAcceptor::from(credentials.config()).accept(stream).into_fallible().await
    }

    fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.get_ref().1.peer_certificates()
    }

    async fn say(self, last: &[u8]) {
        farewell::say(self, last).await;
    }
}

impl Secured for Accepted {
    async fn accept(
        credentials: &ServerCredentials,
        stream: TcpStream,
    ) -> Result<Self, (io::Error, TcpStream)> {
        let keying = match credentials.asks() {
            ClientCertificate::Required => Keying::Closed,
            // Who shows none proves a key on this very connection.
            ClientCertificate::Optional | ClientCertificate::None => Keying::Exported,
        };
        Line::accept(credentials.config(), stream, keying).await
    }

    fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.line.peer_certificates()
    }

    async fn say(self, last: &[u8]) {
        farewell::say_by_line(self.line, last).await;
    }
}
