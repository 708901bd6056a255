//! A Switch that lies: it has the real one's certificate and key, and makes none of its checks. A test decides what it says and in which
//! order, and sees all that a client says to it. It is the process of the test, and the client is a real one.

pub(crate) mod background;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use muster_pki::UnixTime;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::frame;
use muster_proto::ids::{Digest, Epoch, InstructionId};
use muster_proto::limits::SessionLimits;
use muster_proto::session::switch::{SwitchEvent, SwitchSession, SwitchSessionConfig, WelcomeArgs};
use muster_proto::session::v1::frame::Body;
use muster_proto::session::v1::{
    Document, DocumentKind, Event, Frame, Hello, InclusionProof, Lane, OrderDelivery,
    Result as InstructionResult, SequenceRange,
};
use muster_signing::envelope;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::support::{PATIENCE, Place};

/// The listener, where clients look for the real Switch, and what it serves.
pub(crate) struct Liar {
    runtime: Runtime,
    listener: TcpListener,
    tls: TlsAcceptor,
    /// What is given to whoever asks for a digest.
    shelf: RefCell<BTreeMap<Digest, Vec<u8>>>,
}

/// What a Welcome says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Welcome {
    /// `None`: the one after the client's last.
    pub(crate) epoch: Option<u64>,
    /// `None`: what the clock shows.
    pub(crate) time_ms: Option<i64>,
    /// The licence that it names.
    pub(crate) licence: Option<Digest>,
    pub(crate) highest_sequence: u64,
    /// `None`: it does not tell the roads apart.
    pub(crate) highest_by_session: Option<u64>,
    pub(crate) stops_due: u32,
    /// After what silence the session is said to be dead; `None`: as usual.
    pub(crate) dead_after: Option<Duration>,
}

/// What a client said in one session.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) hello: Hello,
    pub(crate) progress: Vec<(InstructionId, TargetState)>,
    pub(crate) results: Vec<InstructionResult>,
    pub(crate) events: Vec<Event>,
    /// The documents that it asked for, in order.
    pub(crate) asked: Vec<(DocumentKind, Digest)>,
    /// The serials of the policies that it said to follow, in order.
    pub(crate) followed: Vec<u64>,
    /// How it ended the session.
    pub(crate) ended: Option<String>,
}

/// One session.
pub(crate) struct Session<'a> {
    liar: &'a Liar,
    socket: WebSocketStream<TlsStream<TcpStream>>,
    protocol: SwitchSession,
    pub(crate) told: Told,
    /// What was not acked yet.
    results: Owed,
    events: Owed,
}

/// What a client sent in a lane and was not acked.
#[derive(Debug, Default)]
struct Owed {
    ranges: Vec<SequenceRange>,
    bytes: u64,
}

impl Owed {
    fn add(&mut self, sequence: u64, bytes: u32) {
        self.ranges.push(SequenceRange { first: sequence, last: sequence });
        self.bytes += u64::from(bytes);
    }
}

impl Liar {
    /// Listens in the real Switch's place.
    pub(crate) fn listen(place: &Place) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let address = (Ipv4Addr::LOCALHOST, place.ports.sessions);
        let listener = runtime.block_on(TcpListener::bind(address)).expect("the Switch's port");
        let tls = TlsAcceptor::from(identity(place));
        Self { runtime, listener, tls, shelf: RefCell::default() }
    }

    /// Has a document for whoever asks for it; returns its digest.
    pub(crate) fn shelve(&self, document: &[u8]) -> Digest {
        let digest = envelope::digest(document);
        self.serve(digest, document);
        digest
    }

    /// Gives these bytes to whoever asks for the digest, whatever they are.
    pub(crate) fn serve(&self, digest: Digest, bytes: &[u8]) {
        self.shelf.borrow_mut().insert(digest, bytes.to_vec());
    }

    /// Takes the client's next session and welcomes it.
    pub(crate) fn accept(&self, welcome: Welcome) -> Session<'_> {
        let usual = SessionLimits::default();
        let dead_after = welcome.dead_after.unwrap_or(usual.dead_after);
        let limits = Arc::new(SessionLimits { dead_after, ..usual });
        let accepted = async {
            loop {
                let (stream, _) = self.listener.accept().await.expect("a connection");
                let Ok(stream) = self.tls.accept(stream).await else { continue };
                let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, accept_protocol).await else {
                    continue;
                };
                let config = SwitchSessionConfig::new(Arc::clone(&limits));
                let protocol = SwitchSession::new(config, Instant::now());
                let (told, results, events) = Default::default();
                let mut session = Session { liar: self, socket, protocol, told, results, events };
                // A client that was killed while it connected has left.
                if session.introduced().await {
                    session.welcome(welcome).await;
                    return session;
                }
            }
        };
        self.runtime.block_on(async { timeout(PATIENCE, accepted).await.expect("the client connects") })
    }

    /// Takes the client's next connection and answers its upgrade with these lines over and over, until it leaves; gives the bytes that
    /// were written by then.
    pub(crate) fn answer_without_end(&self, head: &str, line: &str) -> u64 {
        let answered = async {
            loop {
                let (stream, _) = self.listener.accept().await.expect("a connection");
                let Ok(mut stream) = self.tls.accept(stream).await else { continue };
                let mut sent = 0;
                let mut text = head.to_owned();
                while stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok() {
                    sent += text.len() as u64;
                    text.clear();
                    text.push_str(line);
                }
                return sent;
            }
        };
        self.runtime.block_on(async { timeout(PATIENCE, answered).await.expect("the client leaves") })
    }
}

impl Session<'_> {
    /// Hands an order over.
    pub(crate) fn deliver(&mut self, envelope: &[u8]) {
        self.deliver_with(envelope, None);
    }

    /// Hands an order over, with a proof beside it.
    pub(crate) fn deliver_with(&mut self, envelope: &[u8], proof: Option<InclusionProof>) {
        let body = Body::Order(OrderDelivery { envelope: envelope.to_vec().into() });
        self.send(frame::encode(&Frame { body: Some(body), proof }));
    }

    /// Tells of a licence.
    pub(crate) fn tell_licence(&mut self, digest: Digest) {
        self.protocol.push_licence_notice(digest);
        self.wait(Self::flush);
    }

    /// Tells of a policy.
    pub(crate) fn tell_policy(&mut self, digest: Option<Digest>) {
        self.protocol.push_policy_notice(digest, Duration::ZERO);
        self.wait(Self::flush);
    }

    /// Sends a message of any bytes.
    pub(crate) fn send(&mut self, message: Bytes) {
        self.wait(async |session: &mut Self| {
            // A client that has gone says so where it is read.
            drop(session.socket.send(Message::Binary(message)).await);
        });
    }

    /// Writes bytes past WebSocket, the second ones over and over with a pause before each, until the client leaves; gives how many were
    /// written by then.
    pub(crate) fn write_over_and_over(&mut self, first: &[u8], bytes: &[u8], pause: Duration) -> u64 {
        self.wait(async |session: &mut Self| {
            let stream = session.socket.get_mut();
            let written = async {
                let (mut sent, mut next) = (0, first);
                while stream.write_all(next).await.is_ok() && stream.flush().await.is_ok() {
                    sent += next.len() as u64;
                    next = bytes;
                    tokio::time::sleep(pause).await;
                }
                sent
            };
            timeout(PATIENCE, written).await.expect("the client reads, or leaves")
        })
    }

    /// Sends a document that nobody asked for.
    pub(crate) fn push(&mut self, kind: DocumentKind, digest: Digest, bytes: &[u8]) {
        let body = Body::Document(document(kind, digest, bytes));
        self.send(frame::encode(&Frame { body: Some(body), proof: None }));
    }

    /// Listens until a condition of what the client said gives a value.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, what: &str, mut found: impl FnMut(&Told) -> Option<T>) -> T {
        let heard = self.wait(async |session: &mut Self| {
            let heard = async {
                loop {
                    match found(&session.told) {
                        Some(value) => return Some(value),
                        None if session.told.ended.is_some() => return None,
                        None => session.hear().await,
                    }
                }
            };
            timeout(PATIENCE, heard).await.ok().flatten()
        });
        let Told { progress, results, events, asked, ended, .. } = &self.told;
        heard.unwrap_or_else(|| {
            panic!(
                "listened in vain for {what}; the client said {progress:?}, {results:?}, {events:?}, asked for {asked:?} and \
                 ended with {ended:?}"
            )
        })
    }

    /// Listens for the result of an instruction that has not been looked at: what became of it, and why.
    #[track_caller]
    pub(crate) fn result(&mut self, of: InstructionId) -> (TargetState, Refusal) {
        let (state, refusal, _) = self.result_with_detail(of);
        (state, refusal)
    }

    /// As [`Self::result`], with what it says for people.
    #[track_caller]
    pub(crate) fn result_with_detail(&mut self, of: InstructionId) -> (TargetState, Refusal, String) {
        let at = self.until(&format!("the result of {of}"), |told| {
            told.results.iter().position(|result| result.instruction == of.to_vec())
        });
        let result = self.told.results.remove(at);
        (result.state(), result.refusal(), result.detail)
    }

    /// Acks everything that the client has sent so far, so that it is not sent again.
    pub(crate) fn ack(&mut self) {
        for (lane, owed) in [(Lane::Results, &mut self.results), (Lane::Events, &mut self.events)] {
            let Owed { ranges, bytes } = std::mem::take(owed);
            self.protocol.push_ack(lane, ranges, bytes);
        }
        self.wait(Self::flush);
    }

    fn wait<T>(&mut self, job: impl AsyncFnOnce(&mut Self) -> T) -> T {
        let liar = self.liar;
        liar.runtime.block_on(job(self))
    }

    /// Waits for the Hello; `false`: the client left.
    async fn introduced(&mut self) -> bool {
        while self.told.ended.is_none() {
            if let Some(SwitchEvent::Hello(hello)) = self.protocol.poll_event() {
                self.told.hello = hello;
                return true;
            }
            self.read().await;
        }
        false
    }

    async fn welcome(&mut self, said: Welcome) {
        let welcome = WelcomeArgs {
            epoch: Epoch(said.epoch.unwrap_or(self.told.hello.last_epoch.wrapping_add(1))),
            time_ms: said.time_ms.unwrap_or_else(now_ms),
            licence_digest: said.licence,
            highest_sequence: said.highest_sequence,
            highest_by_session: said.highest_by_session,
            stops_due: said.stops_due,
        };
        self.protocol.push_welcome(welcome, Instant::now());
        self.flush().await;
    }

    /// Takes the next thing that the client says, and gives what it asks for.
    async fn hear(&mut self) {
        let Some(event) = self.protocol.poll_event() else { return self.read().await };
        match event {
            SwitchEvent::Hello(_) => {}
            SwitchEvent::Progress { instruction, state } => self.told.progress.push((instruction, state)),
            SwitchEvent::Result(result, bytes) => {
                self.results.add(result.sequence, bytes);
                self.told.results.push(result);
            }
            SwitchEvent::Event(event, bytes) => {
                self.events.add(event.sequence, bytes);
                self.told.events.push(event);
            }
            SwitchEvent::DocumentRequest { kind, digest } => {
                self.told.asked.push((kind, digest));
                let found = self.liar.shelf.borrow().get(&digest).cloned().unwrap_or_default();
                let document = document(kind, digest, &found);
                // What the protocol would not let through goes past it.
                if self.protocol.push_document(document.clone()).is_err() {
                    let frame = Frame { body: Some(Body::Document(document)), proof: None };
                    drop(self.socket.send(Message::Binary(frame::encode(&frame))).await);
                }
            }
            SwitchEvent::PolicyCheck { serial } => {
                self.told.followed.push(serial);
                self.protocol.push_policy_notice(None, Duration::ZERO);
            }
            SwitchEvent::Closed { reason } => {
                self.told.ended.get_or_insert_with(|| reason.as_str_name().to_owned());
            }
        }
        self.flush().await;
    }

    async fn read(&mut self) {
        match self.socket.next().await {
            Some(Ok(Message::Binary(bytes))) => self.protocol.handle_message(&bytes, Instant::now()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(other @ (Message::Text(_) | Message::Close(_) | Message::Frame(_)))) => {
                self.told.ended = Some(format!("{other:?}"));
            }
            Some(Err(error)) => self.told.ended = Some(error.to_string()),
            None => self.told.ended = Some("the connection ended".to_owned()),
        }
    }

    async fn flush(&mut self) {
        while let Some(bytes) = self.protocol.poll_transmit() {
            drop(self.socket.send(Message::Binary(bytes)).await);
        }
    }
}

/// The certificate and key of a place's servers, who ask nobody for a certificate.
pub(crate) fn identity(place: &Place) -> Arc<ServerConfig> {
    let read = |name: &str| std::fs::read(place.path(name)).expect("the Switch's file");
    let chain = CertificateDer::pem_slice_iter(&read("certs/localhost.pem")).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(&read("certs/localhost.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the Switch's identity");
    Arc::new(config)
}

fn document(kind: DocumentKind, digest: Digest, envelope: &[u8]) -> Document {
    Document { kind: kind.into(), digest: digest.to_vec(), envelope: envelope.to_vec().into() }
}

/// What the clock shows, milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).expect("a time") * 1_000
}

#[expect(clippy::result_large_err, clippy::unnecessary_wraps, reason = "the library's signature")]
fn accept_protocol(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    response.headers_mut().insert("Sec-WebSocket-Protocol", "muster.v1".parse().unwrap());
    Ok(response)
}
