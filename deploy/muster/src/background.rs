//! The way to the Background Channel, as the operator: a connection, and one request after the other over it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::client::conn::http2::SendRequest;
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use indicatif::ProgressBar;

use crate::address::{self, Url};
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home};
use crate::operator::{self, PATIENCE, Patience};
use crate::output;

/// An answer to a listing or a put.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// For what has arrived already when a connection has ended.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// What is sent between two looks at whether it moves.
const PIECE_BYTES: usize = 256 * 1024;

/// Where the Background Channel of a context is. What was typed is checked; a file that was edited may be wrong.
pub(crate) fn base_of(context: &Context) -> Result<Url, Failure> {
    let text = &context.background_channel;
    let next = "muster ctx add NAME --switch HOST:4001 --background-channel https://HOST:4443/Background/v1";
    if text.is_empty() {
        let problem = format!("context {} has no address of a Background Channel", context.name);
        return Err(Failure::usage(problem).with_next(next));
    }
    address::url("https", 443, text).map_err(|problem| {
        Failure::usage(format!(
            "context {}: `{text}` is not https://HOST:PORT/Background/v1: {problem}",
            context.name
        ))
        .with_next(next)
    })
}

/// A connection to a Background Channel, for one request after the other.
pub(crate) struct Way {
    base: Url,
    sender: SendRequest<Sent>,
    /// What drives it, until it ends.
    connection: Option<Driven>,
    patience: Patience,
}

type Driven = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// Puts content under its root, over a connection of its own.
pub(crate) async fn put(
    home: &Home,
    base: &Url,
    root: &str,
    name: &str,
    content: Content,
) -> Result<(), Failure> {
    Way::open(home, base).await?.put(root, name, content).await
}

/// What the Background Channel lists: the body of its answer.
pub(crate) async fn listed(home: &Home, base: &Url) -> Result<Bytes, Failure> {
    let path = format!("{}/resources", base.path);
    let request = Asked { method: Method::GET, path, content: Content::Bytes(Bytes::new()) };
    Way::open(home, base).await?.ask(request).await?.said()
}

/// One request.
struct Asked {
    method: Method,
    path: String,
    content: Content,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Way {
    /// Connects as the operator.
    pub(crate) async fn open(home: &Home, base: &Url) -> Result<Self, Failure> {
        Self::open_with(home, base, PATIENCE).await
    }

    /// HTTP/2, for two reasons: the server speaks first, so that a refused certificate is known before the body is sent, and a
    /// request that is refused while its body is under way still gets its answer.
    async fn open_with(home: &Home, base: &Url, patience: Patience) -> Result<Self, Failure> {
        let credentials = operator::client_credentials(home, b"h2")?;
        let stream = operator::connect_tls(&credentials, &base.address).await?;
        let stream = operator::admitted(stream, "the Background Channel", &base.address).await?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(patience.ping_every)
            .keep_alive_timeout(patience.pong_within)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(base, &error))?;
        Ok(Self { base: base.clone(), sender, connection: Some(Box::pin(connection)), patience })
    }

    /// Puts content under its root; the Background Channel holds it against that.
    pub(crate) async fn put(&mut self, root: &str, name: &str, content: Content) -> Result<(), Failure> {
        let path = format!("{}/resources/{root}?name={name}", self.base.path);
        self.ask(Asked { method: Method::PUT, path, content }).await?.said().map(drop)
    }

    /// Whether the Background Channel gives content of this root and size.
    pub(crate) async fn holds(&mut self, root: &str, size: u64) -> Result<bool, Failure> {
        let path = format!("{}/resources/{root}", self.base.path);
        let asked = Asked { method: Method::HEAD, path, content: Content::Bytes(Bytes::new()) };
        let answer = self.ask(asked).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let length = answer.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        answer.said().map(|_| length == Some(size))
    }

    /// Sends one request.
    async fn ask(&mut self, asked: Asked) -> Result<Answer, Failure> {
        let Self { base, sender, connection, patience } = self;
        let base = &*base;
        let moves = Moves::default();
        let request = Request::builder()
            .method(asked.method)
            .uri(format!("https://{}{}", base.address, asked.path))
            .header("content-type", "application/octet-stream")
            .body(Sent { rest: asked.content, moves: moves.clone() })
            .map_err(|error| Failure::usage(error.to_string()))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| broken(base, &error))?;
            let (status, headers) = (response.status(), response.headers().clone());
            moves.note();
            let body = response.into_body().map_frame(|frame| {
                moves.note();
                frame
            });
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
                Failure::unreachable(format!("the Background Channel at {}: {error}", base.address))
            })?;
            Ok::<_, Failure>(Answer { status, headers, body: body.to_bytes() })
        };
        let exchange = async {
            tokio::select! {
                biased;
                exchanged = exchange => exchanged,
                () = moves.silent_for(patience.silence) => Err(Failure::unreachable(format!(
                    "the Background Channel at {}: nothing moved for {:?}",
                    base.address, patience.silence
                ))
                .with_next("muster doctor")),
            }
        };
        let gone = |ended: hyper::Result<()>| match ended {
            Err(error) => broken(base, &error),
            Ok(()) => {
                let said = format!("the Background Channel at {} closed the connection", base.address);
                Failure::unreachable(said).with_next("muster doctor")
            }
        };
        let answered = beside(exchange, drive(connection), gone).await;
        // What was not sent whole was not taken either, and the connection's end says nothing about why.
        match moves.unread() {
            Some(problem) => Err(Failure::new(Exit::Refused, problem)),
            None => answered,
        }
    }
}

fn broken(base: &Url, error: &hyper::Error) -> Failure {
    let error = muster_service::exit::describe(error);
    Failure::unreachable(format!("the Background Channel at {}: {error}", base.address))
        .with_next("muster doctor")
}

/// Drives a connection to its end; one that has ended stays so.
async fn drive(connection: &mut Option<Driven>) -> hyper::Result<()> {
    let Some(driven) = connection else { return Ok(()) };
    let ended = driven.await;
    *connection = None;
    ended
}

impl Answer {
    /// Returns the body; an answer other than 2xx is an error with the server's words.
    fn said(self) -> Result<Bytes, Failure> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let text = String::from_utf8_lossy(&self.body);
        let said = format!("the Background Channel: {}: {}", self.status, output::printable(text.trim_end()));
        Err(match self.status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Failure::denied(said),
            StatusCode::SERVICE_UNAVAILABLE => Failure::unreachable(said),
            _ => Failure::new(Exit::Refused, said),
        })
    }
}

/// How often a transfer moved on, either way, and why what was to be sent could not be read.
#[derive(Debug, Clone, Default)]
struct Moves(Arc<Moved>);

#[derive(Debug, Default)]
struct Moved {
    times: AtomicU64,
    unread: OnceLock<String>,
}

impl Moves {
    fn note(&self) {
        self.0.times.fetch_add(1, Ordering::Relaxed);
    }

    fn unread(&self) -> Option<&str> {
        self.0.unread.get().map(String::as_str)
    }

    /// Returns when nothing has moved for a whole such time.
    async fn silent_for(&self, silence: Duration) {
        let mut before = None;
        loop {
            let seen = self.0.times.load(Ordering::Relaxed);
            if before == Some(seen) {
                return;
            }
            before = Some(seen);
            tokio::time::sleep(silence).await;
        }
    }
}

/// What a request carries.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it is here.
    Bytes(Bytes),
    /// It is read when the server has room for it.
    Part(Part),
}

/// A part of an open file.
#[derive(Debug)]
pub(crate) struct Part {
    /// The file.
    pub(crate) file: Arc<File>,
    /// Where the part begins; it moves on with what is read.
    pub(crate) at: u64,
    /// How long it is.
    pub(crate) left: u64,
    /// Where people see how much is read.
    pub(crate) bar: ProgressBar,
}

impl Content {
    fn left(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Part(part) => part.left,
        }
    }

    fn next(&mut self) -> std::io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.split_to(bytes.len().min(PIECE_BYTES))),
            Self::Part(part) => part.next(),
        }
    }
}

impl Part {
    /// Reads the next piece. A local file gives it faster than a network takes it, so nothing is gained by a thread.
    fn next(&mut self) -> std::io::Result<Bytes> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let mut piece = vec![0; length];
        self.file.read_exact_at(&mut piece, self.at)?;
        let read = u64::try_from(length).unwrap_or(u64::MAX);
        (self.at, self.left) = (self.at.saturating_add(read), self.left.saturating_sub(read));
        self.bar.inc(read);
        Ok(Bytes::from(piece))
    }
}

/// A request's content in pieces, each of which is asked for when the server has room for it.
struct Sent {
    rest: Content,
    moves: Moves,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.moves.note();
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let read = self.rest.next();
        if let Err(error) = &read {
            // The first reason counts, and there is no second one.
            let _first = self.moves.0.unread.set(format!("what was to be sent cannot be read: {error}"));
        }
        Poll::Ready(Some(read.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.left())
    }
}

/// Drives a connection beside an exchange over it, and ends with the exchange. A server that refuses may answer and go
/// before the body is out: what it said has arrived by then, and says why.
async fn beside<T, E>(
    exchange: impl Future<Output = Result<T, Failure>>,
    connection: impl Future<Output = Result<(), E>>,
    gone: impl FnOnce(Result<(), E>) -> Failure,
) -> Result<T, Failure> {
    let mut exchange = std::pin::pin!(exchange);
    let ended = tokio::select! {
        biased;
        exchanged = &mut exchange => return exchanged,
        ended = connection => ended,
    };
    match tokio::time::timeout(ANSWER_DEADLINE, exchange).await {
        Ok(Ok(exchanged)) => Ok(exchanged),
        Ok(Err(_)) | Err(_) => Err(gone(ended)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http_body_util::Full;
    use muster_pki::{Role, UnixTime};
    use muster_service::credentials::{self, Clock, CredentialFiles, Rules};

    use super::*;
    use crate::pki_home::{PkiHome, Wanted};

    fn home_with_pki(folder: &Path) -> Home {
        let home = Home::locate(Some(folder.to_owned())).unwrap();
        PkiHome::of(&home).create(UnixTime::now()).unwrap();
        home
    }

    /// Issues `PATH.pem` and `PATH.key` below the folder of `to`, by the CA of `by`.
    fn issue(by: &Home, to: &Home, path: &str, role: Role, name: &str) {
        let issued = PkiHome::of(by).issue(&Wanted::named(role, name, 30), UnixTime::now()).unwrap();
        to.write(&format!("{path}.pem"), issued.chain_pem.as_bytes(), crate::home::Secrecy::Public).unwrap();
        to.write(&format!("{path}.key"), issued.key_pem.as_bytes(), crate::home::Secrecy::Private).unwrap();
    }

    /// Answers the first request before its body is there, and closes the connection.
    async fn refuse_early(listener: tokio::net::TcpListener, tls: tokio_rustls::TlsAcceptor) {
        let stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        let answered = Arc::new(tokio::sync::Notify::new());
        let told = Arc::clone(&answered);
        let refuse = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
            told.notify_one();
            let body = Full::new(Bytes::from_static(b"at most 1 MiB"));
            let refused = hyper::Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE).body(body);
            std::future::ready(refused)
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), refuse));
        tokio::select! {
            _ended = &mut connection => return,
            () = answered.notified() => {}
        }
        connection.as_mut().graceful_shutdown();
        drop(connection.await);
    }

    #[tokio::test]
    async fn an_answer_that_came_with_the_connections_end_is_not_lost() {
        let (arrives, answered) = tokio::sync::oneshot::channel();
        let exchange = async { answered.await.map_err(|_| Failure::unreachable("no answer")) };
        let connection = async {
            arrives.send(413).unwrap();
            Ok::<(), std::convert::Infallible>(())
        };

        let told = beside(exchange, connection, |_| Failure::unreachable("gone")).await;

        assert_eq!(told.unwrap(), 413);
    }

    #[tokio::test]
    async fn a_refusal_that_comes_before_the_body_is_out_is_told_in_the_servers_words() {
        let folder = tempfile::tempdir().unwrap();
        let home = home_with_pki(folder.path());
        issue(&home, &home, "channel", Role::Switch, "localhost");
        issue(&home, &home, "operator/tls", Role::Operator, "alice");
        let tls = credentials::server(
            CredentialFiles::pem(home.path("channel.pem"), home.path("channel.key")),
            vec![(Role::Operator, home.roots("operators"))],
            vec![b"h2".to_vec()],
            Role::Switch,
            Rules::lenient(Clock::system()),
        )
        .unwrap();
        let body = Bytes::from(vec![7; 4 << 20]);

        for _ in 0..3 {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("https://localhost:{}/put", listener.local_addr().unwrap().port());
            let base = address::url("https", 443, &address).unwrap();
            let putting = put(&home, &base, "root", "name", Content::Bytes(body.clone()));
            let (sent, ()) = tokio::join!(putting, refuse_early(listener, tls.config().into()));

            let refused = sent.unwrap_err();
            assert_eq!(refused.exit(), Exit::Refused, "{refused}");
            assert!(
                refused.to_string().contains("413") && refused.to_string().contains("at most 1 MiB"),
                "{refused}"
            );
        }
    }

    /// The TLS of a Background Channel.
    fn channel_tls(home: &Home) -> tokio_rustls::TlsAcceptor {
        issue(home, home, "channel", Role::Switch, "localhost");
        issue(home, home, "operator/tls", Role::Operator, "alice");
        let own = CredentialFiles::pem(home.path("channel.pem"), home.path("channel.key"));
        let roles = vec![(Role::Operator, home.roots("operators"))];
        let alpn = vec![b"h2".to_vec()];
        let tls = credentials::server(own, roles, alpn, Role::Switch, Rules::lenient(Clock::system()));
        tls.unwrap().config().into()
    }

    #[tokio::test]
    async fn a_transfer_that_moves_no_more_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let home = home_with_pki(folder.path());
        let tls = channel_tls(&home);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://localhost:{}/put", listener.local_addr().unwrap().port());
        let base = address::url("https", 443, &address).unwrap();
        // It answers PINGs and reads nothing of the content.
        let hanging = async {
            let stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
            let never = hyper::service::service_fn(|_: Request<hyper::body::Incoming>| {
                std::future::pending::<Result<hyper::Response<Full<Bytes>>, std::convert::Infallible>>()
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), never).await);
        };
        let patience = Patience { silence: Duration::from_millis(100), ..PATIENCE };
        let content = Content::Bytes(Bytes::from(vec![7; 4 << 20]));
        let asked = Asked { method: Method::PUT, path: "/put".to_owned(), content };
        let putting = async { Way::open_with(&home, &base, patience).await?.ask(asked).await };

        let both = async { tokio::join!(putting, hanging) };
        let (sent, ()) = tokio::time::timeout(Duration::from_secs(30), Box::pin(both)).await.unwrap();

        let failure = sent.map(|_| ()).unwrap_err();
        assert_eq!(failure.exit(), Exit::Unreachable, "{failure}");
        assert!(failure.to_string().contains("nothing moved"), "{failure}");
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_while_it_is_sent_is_told_and_no_matter_of_the_network() {
        let folder = tempfile::tempdir().unwrap();
        let home = home_with_pki(folder.path());
        let tls = channel_tls(&home);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://localhost:{}/put", listener.local_addr().unwrap().port());
        let base = address::url("https", 443, &address).unwrap();
        let reading = async {
            let stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
            let read = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
                request.into_body().collect().await.map(|_| hyper::Response::new(Full::new(Bytes::new())))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), read).await);
        };
        let file = folder.path().join("short");
        std::fs::write(&file, vec![7; PIECE_BYTES + 1]).unwrap();
        let part = Part {
            file: Arc::new(File::open(&file).unwrap()),
            at: 0,
            left: 2 * 256 * 1024,
            bar: ProgressBar::hidden(),
        };

        let both = async { tokio::join!(put(&home, &base, "root", "name", Content::Part(part)), reading) };
        let (sent, ()) = tokio::time::timeout(Duration::from_secs(30), Box::pin(both)).await.unwrap();

        let failure = sent.unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused, "{failure}");
        assert!(failure.to_string().contains("cannot be read"), "{failure}");
    }
}
