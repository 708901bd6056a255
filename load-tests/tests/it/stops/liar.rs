//! A Switch that lies: it has the real one's certificate and key, and hands over orders of its choice, in its order.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use muster_proto::common::v1::TargetState;
use muster_proto::frame;
use muster_proto::ids::{Epoch, InstructionId};
use muster_proto::session::switch::{SwitchEvent, SwitchSession, SwitchSessionConfig, WelcomeArgs};
use muster_proto::session::v1::frame::Body;
use muster_proto::session::v1::{Document, Frame, OrderDelivery};
use muster_signing::envelope;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::told;
use crate::support::{PATIENCE, Place};

/// The listener, where clients look for the real Switch, and the documents that it has.
pub(super) struct Liar {
    runtime: Runtime,
    listener: TcpListener,
    tls: TlsAcceptor,
    documents: Vec<Vec<u8>>,
}

/// One session.
pub(super) struct Session<'a> {
    liar: &'a Liar,
    socket: WebSocketStream<TlsStream<TcpStream>>,
    protocol: SwitchSession,
}

impl Liar {
    /// Listens in the real Switch's place.
    pub(super) fn listen(place: &Place, documents: Vec<Vec<u8>>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let address = (Ipv4Addr::LOCALHOST, place.ports.sessions);
        let listener = runtime.block_on(TcpListener::bind(address)).expect("the Switch's port");
        let read = |name: &str| std::fs::read(place.path(name)).expect("the Switch's file");
        let chain =
            CertificateDer::pem_slice_iter(&read("certs/localhost.pem")).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(&read("certs/localhost.key")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the Switch's identity");
        Self { runtime, listener, tls: TlsAcceptor::from(Arc::new(config)), documents }
    }

    /// Takes the client's next session and welcomes it.
    pub(super) fn accept(&self) -> Session<'_> {
        let accepted = async {
            loop {
                let (stream, _) = self.listener.accept().await.expect("a connection");
                let Ok(stream) = self.tls.accept(stream).await else { continue };
                let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, accept_protocol).await else {
                    continue;
                };
                let protocol = SwitchSession::new(SwitchSessionConfig::default(), Instant::now());
                let mut session = Session { liar: self, socket, protocol };
                let SwitchEvent::Hello(hello) = session.next().await else { panic!("no Hello") };
                session.protocol.push_welcome(
                    WelcomeArgs {
                        epoch: Epoch(hello.last_epoch + 1),
                        time_ms: 1,
                        licence_digest: self.documents.last().map(|licence| envelope::digest(licence)),
                        highest_sequence: 0,
                    },
                    Instant::now(),
                );
                session.flush().await;
                return session;
            }
        };
        self.runtime.block_on(async { timeout(PATIENCE, accepted).await.expect("the client connects") })
    }
}

impl Session<'_> {
    /// Hands an order over.
    pub(super) fn deliver(&mut self, envelope: &[u8]) {
        let body = Body::Order(OrderDelivery { envelope: envelope.to_vec().into() });
        self.protocol.push_order(frame::encode(&Frame { body: Some(body), proof: None })).expect("room");
        let liar = self.liar;
        liar.runtime.block_on(self.flush());
    }

    /// Returns the next result: of which instruction, and what became of it. Nothing is acked.
    pub(super) fn result(&mut self) -> (InstructionId, TargetState) {
        let liar = self.liar;
        let answered = async {
            loop {
                match self.next().await {
                    SwitchEvent::Result(result, _) => return told(&result),
                    SwitchEvent::DocumentRequest { kind, digest } => {
                        let found =
                            liar.documents.iter().find(|document| envelope::digest(document) == digest);
                        let envelope = found.cloned().unwrap_or_default().into();
                        let (kind, digest) = (kind.into(), digest.to_vec());
                        self.protocol
                            .push_document(Document { kind, digest, envelope })
                            .expect("a document that was asked for");
                    }
                    SwitchEvent::PolicyCheck { .. } => self.protocol.push_policy_notice(None, Duration::ZERO),
                    SwitchEvent::Hello(_)
                    | SwitchEvent::Progress { .. }
                    | SwitchEvent::Event(..)
                    | SwitchEvent::Closed { .. } => {}
                }
                self.flush().await;
            }
        };
        liar.runtime.block_on(async { timeout(PATIENCE, answered).await.expect("the client answers") })
    }

    async fn next(&mut self) -> SwitchEvent {
        loop {
            if let Some(event) = self.protocol.poll_event() {
                return event;
            }
            match self.socket.next().await.expect("the client stays").expect("a message") {
                Message::Binary(bytes) => self.protocol.handle_message(&bytes, Instant::now()),
                other @ (Message::Text(_)
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Close(_)
                | Message::Frame(_)) => panic!("{other:?}"),
            }
        }
    }

    async fn flush(&mut self) {
        while let Some(bytes) = self.protocol.poll_transmit() {
            self.socket.send(Message::Binary(bytes)).await.expect("the client reads");
        }
    }
}

#[expect(clippy::result_large_err, clippy::unnecessary_wraps, reason = "the library's signature")]
fn accept_protocol(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    response.headers_mut().insert("Sec-WebSocket-Protocol", "muster.v1".parse().unwrap());
    Ok(response)
}
