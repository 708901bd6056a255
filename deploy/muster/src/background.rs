//! The way to the Background Channel: one request over a connection of its own, as the operator.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

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

/// Sends one request over a connection of its own; an answer other than 2xx is an error with the server's words.
///
/// HTTP/2, for two reasons: the server speaks first, so that a refused certificate is known before the body is sent, and a
/// request that is refused while its body is under way still gets its answer.
pub(crate) async fn send(
    home: &Home,
    base: &Url,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes, Failure> {
    send_with(home, base, method, path, body, PATIENCE).await
}

async fn send_with(
    home: &Home,
    base: &Url,
    method: Method,
    path: &str,
    body: Bytes,
    patience: Patience,
) -> Result<Bytes, Failure> {
    let credentials = operator::client_credentials(home, b"h2")?;
    let stream = operator::connect_tls(&credentials, &base.address).await?;
    let stream = operator::admitted(stream, "the Background Channel", &base.address).await?;
    let broken = |error: hyper::Error| {
        let error = muster_service::exit::describe(&error);
        Failure::unreachable(format!("the Background Channel at {}: {error}", base.address))
            .with_next("muster doctor")
    };
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(patience.ping_every)
        .keep_alive_timeout(patience.pong_within)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let moves = Moves::default();
    let request = Request::builder()
        .method(method)
        .uri(format!("https://{}{path}", base.address))
        .header("content-type", "application/octet-stream")
        .body(Sent { rest: body, moves: moves.clone() })
        .map_err(|error| Failure::usage(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        moves.note();
        let body = response.into_body().map_frame(|frame| {
            moves.note();
            frame
        });
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            Failure::unreachable(format!("the Background Channel at {}: {error}", base.address))
        })?;
        Ok::<_, Failure>((status, body.to_bytes()))
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
        Err(error) => broken(error),
        Ok(()) => {
            let said = format!("the Background Channel at {} closed the connection", base.address);
            Failure::unreachable(said).with_next("muster doctor")
        }
    };
    let (status, body) = beside(exchange, connection, gone).await?;
    answer(status, &body)
}

/// How often a transfer moved on, either way.
#[derive(Debug, Clone, Default)]
struct Moves(Arc<AtomicU64>);

impl Moves {
    fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for a whole such time.
    async fn silent_for(&self, silence: Duration) {
        let mut before = None;
        loop {
            let seen = self.0.load(Ordering::Relaxed);
            if before == Some(seen) {
                return;
            }
            before = Some(seen);
            tokio::time::sleep(silence).await;
        }
    }
}

/// A request's content in pieces, each of which is asked for when the server has room for it.
struct Sent {
    rest: Bytes,
    moves: Moves,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.moves.note();
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = (length > 0).then(|| Ok(Frame::data(self.rest.split_to(length))));
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.rest.len()).unwrap_or(u64::MAX))
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

fn answer(status: StatusCode, body: &Bytes) -> Result<Bytes, Failure> {
    if status.is_success() {
        return Ok(body.clone());
    }
    let text = String::from_utf8_lossy(body);
    let said = format!("the Background Channel: {status}: {}", output::printable(text.trim_end()));
    Err(match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Failure::denied(said),
        StatusCode::SERVICE_UNAVAILABLE => Failure::unreachable(said),
        _ => Failure::new(Exit::Refused, said),
    })
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
            let putting = send(&home, &base, Method::PUT, "/put", body.clone());
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
        let putting = send_with(&home, &base, Method::PUT, "/put", Bytes::from(vec![7; 4 << 20]), patience);

        let both = async { tokio::join!(putting, hanging) };
        let (sent, ()) = tokio::time::timeout(Duration::from_secs(30), Box::pin(both)).await.unwrap();

        let failure = sent.unwrap_err();
        assert_eq!(failure.exit(), Exit::Unreachable, "{failure}");
        assert!(failure.to_string().contains("nothing moved"), "{failure}");
    }
}
