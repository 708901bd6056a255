//! A Switch with one session at a time, whose every step the test decides.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use muster_pki::device_key::{DEVICE_KEY_HEADER, EXPORTER_BYTES, EXPORTER_LABEL, ProvenKey};
use muster_pki::{DeviceId, Thumbprint};
use muster_proto::frame;
use muster_proto::ids::Epoch;
use muster_proto::session::switch::{SwitchEvent, SwitchSession, SwitchSessionConfig, WelcomeArgs};
use muster_proto::session::v1::frame::Body;
use muster_proto::session::v1::{
    CloseReason, Document, DocumentKind, Event, Frame, Hello, Lane, OrderDelivery,
    Result as InstructionResult, SequenceRange,
};
use muster_service::credentials::provider;
use prost::Message as _;
use quinn::Endpoint;
use rustls::{ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::lab::{Lab, PATIENCE, now_ms};
use crate::road::{self, QuicRoad, Road};

/// What a Welcome says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) time_ms: i64,
    pub(crate) highest_sequence: u64,
    pub(crate) highest_by_session: Option<u64>,
    pub(crate) stops_due: u32,
}

impl Said {
    /// What a Switch says that has seen nothing of this client.
    pub(crate) fn now() -> Self {
        Self { time_ms: now_ms(), highest_sequence: 0, highest_by_session: Some(0), stops_due: 0 }
    }
}

/// The listener.
pub(crate) struct FakeSwitch {
    pub(crate) listener: TcpListener,
    quic: Option<Endpoint>,
    taken: Taken,
}

/// Results and events that a session acknowledged, as they came. A client that stopped before it read the ack brings them again in its next
/// session, which acknowledges them again and tells the test nothing, as a Switch does.
type Taken = Arc<Mutex<HashSet<Vec<u8>>>>;

impl FakeSwitch {
    pub(crate) async fn listen() -> Self {
        Self {
            listener: TcpListener::bind("localhost:0").await.unwrap(),
            quic: None,
            taken: Taken::default(),
        }
    }

    /// Listens by TCP and by UDP.
    pub(crate) async fn listen_both() -> (Self, Lab) {
        loop {
            let switch = Self::listen().await;
            let lab = Lab::new(switch.port(), 1);
            if let Some(switch) = switch.with_quic(&lab) {
                return (switch, lab);
            }
        }
    }

    /// Listens by UDP, too; not if somebody else does.
    pub(crate) fn with_quic(mut self, lab: &Lab) -> Option<Self> {
        let tls = with_certificate(lab, asking(lab, &[&rustls::version::TLS13]));
        self.quic = road::endpoint(&tls, self.listener.local_addr().unwrap());
        self.quic.is_some().then_some(self)
    }

    /// Sessions over QUIC that begin from now on are over after so much silence.
    pub(crate) fn end_the_silent(&self, lab: &Lab, idle: Duration) {
        let mut config = road::config(&with_certificate(lab, asking(lab, &[&rustls::version::TLS13])));
        let mut transport = quinn::TransportConfig::default();
        transport.max_idle_timeout(Some(idle.try_into().unwrap()));
        config.transport_config(Arc::new(transport));
        self.quic().set_server_config(Some(config));
    }

    pub(crate) fn quic(&self) -> &Endpoint {
        self.quic.as_ref().expect("it listens by UDP")
    }

    /// Takes the client's next session by UDP and welcomes it.
    pub(crate) async fn accept_by_quic(&self, lab: &Lab) -> Session {
        let accepted = self.living_by_quic(lab);
        tokio::time::timeout(PATIENCE, accepted).await.expect("the client did not connect")
    }

    /// Takes the client's next session, by whichever road; a connection over which nothing is said is passed over.
    pub(crate) async fn accept_by_any(&self, lab: &Lab) -> Session {
        let living = async {
            tokio::select! {
                session = self.living_by_quic(lab) => session,
                session = self.accept_living(lab) => session,
            }
        };
        tokio::time::timeout(PATIENCE, living).await.expect("the client did not connect")
    }

    /// As [`Self::accept_by_key`], by UDP.
    pub(crate) async fn accept_by_key_over_quic(&self, lab: &Lab) -> (Session, DeviceId) {
        let accepted = async {
            let mut road = QuicRoad::accept(self.quic()).await.expect("a stream");
            let proof = road.hear().await.expect("a proof");
            let proven = ProvenKey::verify(&proof, &road.exported()).unwrap();
            (self.greet(lab, Said::now(), Road::Quic(Box::new(road))).await, proven.device().clone())
        };
        tokio::time::timeout(PATIENCE, accepted).await.expect("the client did not connect")
    }

    async fn living_by_quic(&self, lab: &Lab) -> Session {
        loop {
            if let Some(road) = QuicRoad::accept(self.quic()).await {
                return self.greet(lab, Said::now(), Road::Quic(Box::new(road))).await;
            }
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Takes the client's next session and welcomes it.
    pub(crate) async fn accept(&self, lab: &Lab) -> Session {
        self.accept_saying(lab, Said::now()).await
    }

    /// As [`Self::accept`], by another clock, milliseconds since 1970.
    pub(crate) async fn accept_at(&self, lab: &Lab, time_ms: i64) -> Session {
        self.accept_saying(lab, Said { time_ms, ..Said::now() }).await
    }

    /// As [`Self::accept`], and says this.
    pub(crate) async fn accept_saying(&self, lab: &Lab, said: Said) -> Session {
        tokio::time::timeout(PATIENCE, self.accept_one(lab, said)).await.expect("the client did not connect")
    }

    /// Takes the client's next connection and does not take its certificate.
    pub(crate) async fn refuse(&self, lab: &Lab, version: &'static SupportedProtocolVersion) {
        let refused = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let handshake = acceptor_for(lab, &[version]).accept(stream).into_fallible().await;
            let Err((_, mut stream)) = handshake else { panic!("the certificate was taken") };
            // Closed with unread bytes, the connection would be reset, and the alert might be lost.
            drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await);
        };
        tokio::time::timeout(PATIENCE, refused).await.expect("the client did not connect");
    }

    /// Takes the next session that comes about; connections that the client gave up are passed over.
    pub(crate) async fn accept_living(&self, lab: &Lab) -> Session {
        let living = async {
            loop {
                let (stream, _) = self.listener.accept().await.unwrap();
                let Ok(stream) = acceptor(lab).accept(stream).await else { continue };
                if let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, check_upgrade).await {
                    return self.greet(lab, Said::now(), Road::WebSocket(Box::new(socket))).await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, living).await.expect("the client did not connect")
    }

    /// Takes the next session of a device that shows no certificate, and welcomes it; returns the device that it has proven to be.
    pub(crate) async fn accept_by_key(&self, lab: &Lab) -> (Session, DeviceId) {
        let accepted = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let config = server_config(rustls::ALL_VERSIONS).with_no_client_auth();
            let stream = TlsAcceptor::from(with_certificate(lab, config)).accept(stream).await.unwrap();
            let tls = stream.get_ref().1;
            let exported = tls.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None).unwrap();
            let mut proven = None;
            #[expect(clippy::result_large_err, reason = "the library's signature")]
            let check = |request: &Request, response: Response| {
                let proof = &request.headers()[DEVICE_KEY_HEADER];
                proven = Some(ProvenKey::verify(proof.as_bytes(), &exported).unwrap());
                check_upgrade(request, response)
            };
            let socket = tokio_tungstenite::accept_hdr_async(stream, check).await.unwrap();
            let session = self.greet(lab, Said::now(), Road::WebSocket(Box::new(socket))).await;
            (session, proven.unwrap().device().clone())
        };
        tokio::time::timeout(PATIENCE, accepted).await.expect("the client did not connect")
    }

    /// Answers the next upgrade with this, in place of a session.
    pub(crate) async fn turn_away(&self, lab: &Lab, answer: &str) {
        let turned = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut stream = acceptor(lab).accept(stream).await.unwrap();
            let mut request = [0; 4096];
            let _read = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        tokio::time::timeout(PATIENCE, turned).await.expect("the client did not connect");
    }

    async fn accept_one(&self, lab: &Lab, said: Said) -> Session {
        let (stream, _) = self.listener.accept().await.unwrap();
        let stream = acceptor(lab).accept(stream).await.unwrap();
        self.welcome(lab, said, stream).await
    }

    async fn welcome(&self, lab: &Lab, said: Said, stream: TlsStream<TcpStream>) -> Session {
        let socket = tokio_tungstenite::accept_hdr_async(stream, check_upgrade).await.unwrap();
        self.greet(lab, said, Road::WebSocket(Box::new(socket))).await
    }

    async fn greet(&self, lab: &Lab, said: Said, road: Road) -> Session {
        let protocol = SwitchSession::new(SwitchSessionConfig::default(), Instant::now());
        let mut session = Session {
            road,
            protocol,
            hello: Hello::default(),
            licence: lab.licence.clone(),
            definition: lab.definition.clone(),
            policy: None,
            followed: None,
            seen: VecDeque::new(),
            asked: 0,
            handed: BTreeMap::new(),
            taken: Arc::clone(&self.taken),
        };
        let SwitchEvent::Hello(hello) = session.next_raw().await else { panic!("no Hello") };
        let welcome = WelcomeArgs {
            epoch: Epoch(hello.last_epoch + 1),
            time_ms: said.time_ms,
            licence_digest: Some(lab.licence_digest()),
            highest_sequence: said.highest_sequence,
            highest_by_session: said.highest_by_session,
            stops_due: said.stops_due,
        };
        session.protocol.push_welcome(welcome, Instant::now());
        session.hello = hello;
        session.flush().await;
        session
    }
}

/// One session.
pub(crate) struct Session {
    road: Road,
    protocol: SwitchSession,
    pub(crate) hello: Hello,
    /// What is answered when the licence is asked for.
    licence: Vec<u8>,
    /// What is answered when a definition is asked for.
    pub(crate) definition: Vec<u8>,
    /// What is offered when the client tells which policy it follows, and answered when that is asked for.
    pub(crate) policy: Option<Vec<u8>>,
    /// The policy that the client last said it follows.
    pub(crate) followed: Option<u64>,
    /// Events that came, and were acknowledged, while something else was waited for.
    seen: VecDeque<Event>,
    /// How often a policy was asked for.
    pub(crate) asked: usize,
    /// Results and events that the test has, by lane and sequence.
    handed: BTreeMap<(Lane, u64), Vec<u8>>,
    taken: Taken,
}

impl Session {
    /// Returns the thumbprint of the client's certificate.
    pub(crate) fn thumbprint(&self) -> Thumbprint {
        let Road::WebSocket(socket) = &self.road else { panic!("not by WebSocket") };
        let peer = socket.get_ref().get_ref().1.peer_certificates();
        Thumbprint::of(&peer.expect("a certificate")[0])
    }

    /// Returns where a client over QUIC is at present.
    pub(crate) fn remote(&self) -> SocketAddr {
        let Road::Quic(road) = &self.road else { panic!("not by QUIC") };
        road.connection.remote_address()
    }

    /// Hands an order over.
    pub(crate) async fn order(&mut self, envelope: &[u8]) {
        let body = Body::Order(OrderDelivery { envelope: envelope.to_vec().into() });
        self.protocol.push_order(frame::encode(&Frame { body: Some(body), proof: None })).unwrap();
        self.flush().await;
    }

    /// Acknowledges a sequence.
    pub(crate) async fn ack(&mut self, lane: Lane, sequence: u64) {
        if let Some(bytes) = self.handed.remove(&(lane, sequence)) {
            self.taken.lock().unwrap().insert(bytes);
        }
        self.protocol.push_ack(lane, vec![SequenceRange { first: sequence, last: sequence }], 10_000);
        self.flush().await;
    }

    /// Offers a policy out of turn, as after an import.
    pub(crate) async fn offer(&mut self, policy: Vec<u8>) {
        self.offer_over(policy, Duration::ZERO).await;
    }

    /// As [`Self::offer`], to many at once.
    pub(crate) async fn offer_over(&mut self, policy: Vec<u8>, spread: Duration) {
        self.protocol.push_policy_notice(Some(muster_signing::envelope::digest(&policy)), spread);
        self.policy = Some(policy);
        self.flush().await;
    }

    /// Answers until the client hangs up.
    pub(crate) async fn end(mut self) {
        let end = async {
            while let Some(bytes) = self.road.hear().await {
                self.protocol.handle_message(&bytes, Instant::now());
                while self.protocol.poll_event().is_some() {}
                self.flush().await;
            }
        };
        tokio::time::timeout(PATIENCE, end).await.expect("the client did not leave");
    }

    /// Answers whatever comes, for as long as it is waited for.
    pub(crate) async fn answer(&mut self) {
        loop {
            if let Some(SwitchEvent::Event(event, _)) = self.next_or_check().await {
                self.ack(Lane::Events, event.sequence).await;
                self.seen.push_back(event);
            }
        }
    }

    /// Answers until a policy was asked for and sent.
    pub(crate) async fn policy_sent(&mut self) {
        while self.asked == 0 {
            if let Some(SwitchEvent::Event(event, _)) = self.next_or_check().await {
                self.ack(Lane::Events, event.sequence).await;
            }
        }
    }

    /// Answers until the client says that it follows this policy.
    pub(crate) async fn follows(&mut self, serial: u64) {
        while self.followed != Some(serial) {
            let event = self.next_or_check().await;
            if let Some(SwitchEvent::Event(event, _)) = event {
                self.ack(Lane::Events, event.sequence).await;
            }
        }
    }

    /// Ends the session as a Switch does.
    pub(crate) async fn close(&mut self, reason: CloseReason) {
        self.protocol.push_close(reason, Duration::ZERO, "as the test wants it");
        self.flush().await;
    }

    /// Returns the next result, and the progress before it. Events are acknowledged.
    pub(crate) async fn result(&mut self) -> (InstructionResult, Vec<String>) {
        let mut progress = Vec::new();
        loop {
            match self.next().await {
                SwitchEvent::Result(result, _) => return (result, progress),
                SwitchEvent::Progress { state, .. } => progress.push(format!("{state:?}")),
                SwitchEvent::Event(event, _) => self.ack(Lane::Events, event.sequence).await,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Returns the next progress. Events are acknowledged.
    pub(crate) async fn progress(&mut self) -> String {
        loop {
            match self.next().await {
                SwitchEvent::Progress { state, .. } => return format!("{state:?}"),
                SwitchEvent::Event(event, _) => self.ack(Lane::Events, event.sequence).await,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Returns the next event, acknowledged; `None`: something else came.
    pub(crate) async fn event_or_other(&mut self) -> Option<Event> {
        if let Some(event) = self.seen.pop_front() {
            return Some(event);
        }
        match self.next().await {
            SwitchEvent::Event(event, _) => {
                self.ack(Lane::Events, event.sequence).await;
                Some(event)
            }
            _ => None,
        }
    }

    /// Answers whatever comes until something else has happened; events are kept for [`Self::event_or_other`].
    pub(crate) async fn answer_until<T>(&mut self, happens: impl Future<Output = T>) -> T {
        tokio::select! {
            happened = tokio::time::timeout(PATIENCE, happens) => happened.expect("it did not happen"),
            () = self.answer() => unreachable!("it answers for ever"),
        }
    }

    /// Returns the next event.
    pub(crate) async fn event(&mut self) -> Event {
        if let Some(event) = self.seen.pop_front() {
            return event;
        }
        match self.next().await {
            SwitchEvent::Event(event, _) => event,
            other => panic!("{other:?}"),
        }
    }

    /// Returns what comes next, answering requests for documents and policies.
    async fn next(&mut self) -> SwitchEvent {
        loop {
            if let Some(event) = self.next_or_check().await {
                return event;
            }
        }
    }

    /// As [`Self::next`]; none: something was answered.
    async fn next_or_check(&mut self) -> Option<SwitchEvent> {
        match self.next_raw().await {
            SwitchEvent::PolicyCheck { serial } => {
                self.followed = Some(serial);
                let digest = self.policy.as_deref().map(muster_signing::envelope::digest);
                self.protocol.push_policy_notice(digest, Duration::ZERO);
                self.flush().await;
            }
            SwitchEvent::DocumentRequest { kind, digest } => {
                self.asked += usize::from(kind == DocumentKind::Policy);
                let envelope = match kind {
                    DocumentKind::Licence => self.licence.clone(),
                    DocumentKind::Policy => self.policy.clone().unwrap_or_default(),
                    DocumentKind::Definition | DocumentKind::Unspecified => self.definition.clone(),
                };
                let document =
                    Document { kind: kind.into(), digest: digest.to_vec(), envelope: envelope.into() };
                self.protocol.push_document(document).unwrap();
                self.flush().await;
            }
            SwitchEvent::Result(result, length) => {
                let bytes = result.encode_to_vec();
                if self.hand_out(Lane::Results, result.sequence, bytes).await {
                    return Some(SwitchEvent::Result(result, length));
                }
            }
            SwitchEvent::Event(event, length) => {
                let bytes = event.encode_to_vec();
                if self.hand_out(Lane::Events, event.sequence, bytes).await {
                    return Some(SwitchEvent::Event(event, length));
                }
            }
            other => return Some(other),
        }
        None
    }

    /// Returns whether the test is to have a result or an event; one that was acknowledged before is acknowledged again.
    async fn hand_out(&mut self, lane: Lane, sequence: u64, bytes: Vec<u8>) -> bool {
        let is_new = !self.taken.lock().unwrap().contains(&bytes);
        if is_new {
            self.handed.insert((lane, sequence), bytes);
        } else {
            self.ack(lane, sequence).await;
        }
        is_new
    }

    async fn next_raw(&mut self) -> SwitchEvent {
        loop {
            if let Some(event) = self.protocol.poll_event() {
                return event;
            }
            let heard = tokio::time::timeout(PATIENCE, self.road.hear()).await.expect("nothing came");
            self.protocol.handle_message(&heard.expect("the client hung up"), Instant::now());
        }
    }

    async fn flush(&mut self) {
        while let Some(bytes) = self.protocol.poll_transmit() {
            self.road.tell(bytes).await;
        }
    }
}

pub(crate) fn acceptor(lab: &Lab) -> TlsAcceptor {
    acceptor_for(lab, rustls::ALL_VERSIONS)
}

type Asking = rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>;

type Showing = rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>;

fn server_config(versions: &[&'static SupportedProtocolVersion]) -> Asking {
    ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap()
}

fn with_certificate(lab: &Lab, config: Showing) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(lab.server.chain_pem.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(lab.server.key_pem.as_bytes()).unwrap();
    Arc::new(config.with_single_cert(chain, key).unwrap())
}

fn acceptor_for(lab: &Lab, versions: &[&'static SupportedProtocolVersion]) -> TlsAcceptor {
    TlsAcceptor::from(with_certificate(lab, asking(lab, versions)))
}

fn asking(lab: &Lab, versions: &[&'static SupportedProtocolVersion]) -> Showing {
    let mut roots = rustls::RootCertStore::empty();
    let devices = std::fs::read(lab.folder.path().join("devices.pem")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&devices).unwrap()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    // A device that shows none is known by its key.
    let verifier = verifier.allow_unauthenticated().build().unwrap();
    server_config(versions).with_client_cert_verifier(verifier)
}

#[expect(clippy::result_large_err, reason = "the library's signature")]
#[expect(clippy::unnecessary_wraps, reason = "the library's signature")]
fn check_upgrade(
    request: &Request,
    mut response: Response,
) -> Result<Response, tokio_tungstenite::tungstenite::handshake::server::ErrorResponse> {
    assert_eq!(request.uri().path(), "/v1/session");
    assert_eq!(request.headers()["Sec-WebSocket-Protocol"], "muster.v1");
    response.headers_mut().insert("Sec-WebSocket-Protocol", "muster.v1".parse().unwrap());
    Ok(response)
}
