//! A minimal client: TLS, WebSocket, the protocol's client half, and nothing behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use muster_proto::common::v1::{NamedValue, Value, value::Kind};
use muster_proto::session::client::{ClientEvent, ClientSession, ClientSessionConfig};
use muster_proto::session::v1::{CloseReason, Hello, Welcome};
use muster_proto::session::{PATH, SUBPROTOCOL};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::quic_client::{Denied, QuicSocket};
use crate::world::{PATIENCE, SWITCH_NAME};

pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// A client with one session.
pub(crate) struct Client {
    pub(crate) session: ClientSession,
    socket: Road,
}

/// By which a session comes.
enum Road {
    WebSocket(Box<Socket>),
    Quic(Box<QuicSocket>),
}

/// Upgrades to a WebSocket on `path`, as a client with these credentials.
pub(crate) async fn dial(address: SocketAddr, tls: Arc<ClientConfig>, path: &str) -> Result<Socket, Error> {
    let stream = TcpStream::connect(address).await?;
    let name = SWITCH_NAME.try_into().unwrap();
    let stream = TlsConnector::from(tls).connect(name, stream).await?;
    let mut request = format!("wss://{SWITCH_NAME}{path}").into_client_request()?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse().unwrap());
    let upgrade = tokio_tungstenite::client_async(request, stream);
    let (socket, _) = tokio::time::timeout(PATIENCE, upgrade).await.unwrap()?;
    Ok(socket)
}

/// What a client of these tests says of itself.
pub(crate) fn hello(outbox: u8) -> Hello {
    let attribute =
        |name: &str, kind| NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(kind) }) };
    Hello {
        outbox_id: vec![outbox; 16],
        last_epoch: 0,
        versions: vec![1],
        client_version: "0.1.0".to_owned(),
        attributes: vec![
            attribute("os", Kind::Text("linux".to_owned())),
            attribute("cpus", Kind::Integer(2)),
        ],
        queued_results: 0,
        queued_events: 0,
        licence_digest: Vec::new(),
    }
}

impl Client {
    /// Opens a session and says hello, without waiting for the answer.
    pub(crate) async fn open(address: SocketAddr, tls: Arc<ClientConfig>, outbox: u8) -> Result<Self, Error> {
        Self::open_saying(address, tls, hello(outbox)).await
    }

    /// Opens a session with a hello of one's own, without waiting for the answer.
    pub(crate) async fn open_saying(
        address: SocketAddr,
        tls: Arc<ClientConfig>,
        hello: Hello,
    ) -> Result<Self, Error> {
        let socket = dial(address, tls, PATH).await?;
        let session = ClientSession::new(ClientSessionConfig::default(), hello, Instant::now());
        Ok(Self { session, socket: Road::WebSocket(Box::new(socket)) })
    }

    /// Says hello over a socket that is open.
    pub(crate) fn over(socket: Socket, outbox: u8) -> Self {
        let session = ClientSession::new(ClientSessionConfig::default(), hello(outbox), Instant::now());
        Self { session, socket: Road::WebSocket(Box::new(socket)) }
    }

    /// Says hello over a stream that is open.
    pub(crate) fn over_quic(socket: QuicSocket, hello: Hello) -> Self {
        let session = ClientSession::new(ClientSessionConfig::default(), hello, Instant::now());
        Self { session, socket: Road::Quic(Box::new(socket)) }
    }

    /// Returns the connection of a session over QUIC.
    pub(crate) fn quic(&mut self) -> &mut QuicSocket {
        match &mut self.socket {
            Road::Quic(socket) => socket,
            Road::WebSocket(_) => panic!("a session over WebSocket"),
        }
    }

    /// Opens a session and waits for its welcome.
    pub(crate) async fn connect(address: SocketAddr, tls: Arc<ClientConfig>, outbox: u8) -> (Self, Welcome) {
        let mut client = Self::open(address, tls, outbox).await.unwrap();
        let welcome = client.until_welcome().await;
        (client, welcome)
    }

    pub(crate) async fn until_welcome(&mut self) -> Welcome {
        self.until(|event| match event {
            ClientEvent::Welcome(welcome) => Some(welcome),
            _ => None,
        })
        .await
    }

    /// Reads and writes until an event is the one looked for.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(ClientEvent) -> Option<T>) -> T {
        let looking = async {
            loop {
                self.flush().await;
                while let Some(event) = self.session.poll_event() {
                    let said = format!("{event:?}");
                    match wanted(event) {
                        Some(found) => return found,
                        None => assert!(!said.starts_with("Closed"), "the session closed first: {said}"),
                    }
                }
                if let Err(ended) = self.hear().await {
                    panic!("the connection ended first: {ended:?}");
                }
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap()
    }

    /// Hears one message.
    async fn hear(&mut self) -> Result<(), Denied> {
        let lost = |text: String| Denied { close: None, text };
        match &mut self.socket {
            Road::WebSocket(socket) => match socket.next().await {
                Some(Ok(Message::Binary(bytes))) => self.session.handle_message(&bytes, Instant::now()),
                Some(Ok(_)) => self.session.handle_byte(Instant::now()),
                ended => return Err(lost(format!("{ended:?}"))),
            },
            Road::Quic(socket) => match socket.next().await? {
                Some(bytes) => self.session.handle_message(&bytes, Instant::now()),
                None => return Err(lost("the stream ended".to_owned())),
            },
        }
        Ok(())
    }

    /// Waits for the welcome, or for how the Switch denies a session over QUIC.
    pub(crate) async fn until_welcome_or_denied(mut self) -> Result<(Self, Welcome), Denied> {
        let looking = async {
            loop {
                self.try_flush().await?;
                while let Some(event) = self.session.poll_event() {
                    if let ClientEvent::Welcome(welcome) = event {
                        return Ok::<_, Denied>(welcome);
                    }
                }
                self.hear().await?;
            }
        };
        let welcome = tokio::time::timeout(PATIENCE, looking).await.unwrap()?;
        Ok((self, welcome))
    }

    async fn try_flush(&mut self) -> Result<(), Denied> {
        while let Some(frame) = self.session.poll_transmit() {
            self.send(frame).await?;
        }
        Ok(())
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Denied> {
        match &mut self.socket {
            Road::WebSocket(socket) => {
                let sent = socket.send(Message::Binary(bytes)).await;
                sent.map_err(|error| Denied { close: None, text: error.to_string() })
            }
            Road::Quic(socket) => socket.send(&bytes).await,
        }
    }

    /// Waits until the Switch sends the client away; returns why, and when it may come back.
    pub(crate) async fn until_sent_away(&mut self) -> (CloseReason, std::time::Duration) {
        self.until(|event| match event {
            ClientEvent::GoAway { reason, reconnect_after, .. } => Some((reason, reconnect_after)),
            _ => None,
        })
        .await
    }

    /// Writes what waits.
    pub(crate) async fn flush(&mut self) {
        self.try_flush().await.unwrap();
    }

    /// Writes bytes that need not be a frame.
    pub(crate) async fn send_raw(&mut self, bytes: &'static [u8]) {
        self.send(Bytes::from_static(bytes)).await.unwrap();
    }

    /// Vanishes without a word.
    pub(crate) fn vanish(self) {
        drop(self.socket);
    }
}
