//! Who calls the Background Channel: HTTP/1.1 or 2 over TLS, as the certificate and ALPN say.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::world::{CHANNEL_NAME, PATIENCE};

/// What went wrong before there was an answer.
pub(crate) type Broken = Box<dyn std::error::Error + Send + Sync>;

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Someone with credentials; each call has a connection of its own.
pub(crate) struct Caller {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// One connection, kept open between calls.
pub(crate) struct Line {
    sender: Sender,
    driver: JoinSet<()>,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Caller {
    pub(crate) fn new(address: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        Self { address, tls }
    }

    /// Opens a connection that speaks what the server chose.
    pub(crate) async fn connect(&self) -> Result<Line, Broken> {
        let stream = TcpStream::connect(self.address).await?;
        let name = CHANNEL_NAME.try_into()?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let (stream, mut driver) = (TokioIo::new(stream), JoinSet::new());
        let sender = if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            driver.spawn(async { drop(connection.await) });
            Sender::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            driver.spawn(async { drop(connection.await) });
            Sender::One(sender)
        };
        Ok(Line { sender, driver })
    }

    pub(crate) async fn try_call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Broken> {
        self.connect().await?.call(method, path, headers, body).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        self.try_call(method, path, &[], body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_call(Method::GET, path, headers, "").await.unwrap()
    }
}

impl Line {
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Broken> {
        let base = match &self.sender {
            Sender::One(_) => "/Background/v1".to_owned(),
            Sender::Two(_) => format!("https://{CHANNEL_NAME}/Background/v1"),
        };
        let mut request = Request::builder().method(method).uri(format!("{base}{path}"));
        if matches!(self.sender, Sender::One(_)) {
            request = request.header("host", CHANNEL_NAME);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let exchange = async {
            let response = match &mut self.sender {
                Sender::One(sender) => sender.send_request(request).await?,
                Sender::Two(sender) => sender.send_request(request).await?,
            };
            let (parts, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap()
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Two(_))
    }

    /// Waits until the server has ended the connection.
    pub(crate) async fn ended(&mut self) {
        tokio::time::timeout(PATIENCE, self.driver.join_next()).await.unwrap();
    }
}
