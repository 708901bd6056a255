//! A Switch that lies: it has the real one's certificate and key, and offers policies of its choice.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use muster_proto::ids::{Digest, Epoch};
use muster_proto::session::switch::{SwitchEvent, SwitchSession, SwitchSessionConfig, WelcomeArgs};
use muster_proto::session::v1::{Document, DocumentKind};
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

use crate::support::{PATIENCE, Place};

/// The listener, where clients look for the real Switch.
pub(super) struct Liar {
    runtime: Runtime,
    listener: TcpListener,
    tls: TlsAcceptor,
}

/// What a client said to it.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The policies that it asked for, in order.
    pub(super) asked: Vec<Digest>,
    /// The serials that it said to follow, each once.
    pub(super) followed: Vec<u64>,
}

struct Session {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    protocol: SwitchSession,
    offers: Vec<Vec<u8>>,
    told: Told,
}

impl Liar {
    /// Listens in the real Switch's place.
    pub(super) fn listen(place: &Place, port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener =
            runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port))).expect("the Switch's port");
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
        Self { runtime, listener, tls: TlsAcceptor::from(Arc::new(config)) }
    }

    /// Offers policies one after the other to the client that comes, until it has reported the last.
    pub(super) fn offer(&self, offers: Vec<Vec<u8>>) -> Told {
        let offered = async {
            let mut session = self.accept(offers).await;
            session.run().await;
            session.told
        };
        self.runtime
            .block_on(async { timeout(PATIENCE, offered).await.expect("the client looks at all of them") })
    }

    async fn accept(&self, offers: Vec<Vec<u8>>) -> Session {
        loop {
            let (stream, _) = self.listener.accept().await.expect("a connection");
            let Ok(stream) = self.tls.accept(stream).await else { continue };
            let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, accept_protocol).await else {
                continue;
            };
            let protocol = SwitchSession::new(SwitchSessionConfig::default(), Instant::now());
            return Session { socket, protocol, offers, told: Told::default() };
        }
    }
}

impl Session {
    /// Answers until the client has reported every offer: what it reports waits for the real Switch.
    async fn run(&mut self) {
        loop {
            match self.next().await {
                SwitchEvent::Hello(hello) => self.protocol.push_welcome(
                    WelcomeArgs {
                        epoch: Epoch(hello.last_epoch + 1),
                        time_ms: 1,
                        licence_digest: None,
                        highest_sequence: 0,
                    },
                    Instant::now(),
                ),
                SwitchEvent::PolicyCheck { serial } => {
                    if !self.told.followed.contains(&serial) {
                        self.told.followed.push(serial);
                    }
                    self.offer_next();
                }
                SwitchEvent::DocumentRequest { kind: DocumentKind::Policy, digest } => {
                    self.told.asked.push(digest);
                    let found = self.offers.iter().find(|offer| envelope::digest(offer) == digest);
                    let envelope = found.cloned().unwrap_or_default().into();
                    let kind = DocumentKind::Policy.into();
                    self.protocol
                        .push_document(Document { kind, digest: digest.to_vec(), envelope })
                        .expect("a document that was asked for");
                }
                SwitchEvent::Event(event, _) if event.name == "policy.refused" => {
                    if self.told.asked.len() == self.offers.len() {
                        return;
                    }
                    self.offer_next();
                }
                SwitchEvent::Progress { .. }
                | SwitchEvent::Result(..)
                | SwitchEvent::Event(..)
                | SwitchEvent::DocumentRequest { .. }
                | SwitchEvent::Closed { .. } => {}
            }
            self.flush().await;
        }
    }

    fn offer_next(&mut self) {
        if let Some(next) = self.offers.get(self.told.asked.len()) {
            self.protocol.push_policy_notice(Some(envelope::digest(next)), Duration::ZERO);
        }
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
