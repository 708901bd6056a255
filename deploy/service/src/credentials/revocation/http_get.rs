//! One GET of a signed document, such as a CRL (R1) or a licence (G6), with a deadline and a bound for every byte of it; and of a file
//! that is larger than memory: [`download()`].

mod download;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ETAG, LAST_MODIFIED, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, Request, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use muster_pki::{FetchRequest, FetchResponse, Validators};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub use self::download::{Download, DownloadError, download};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// It took too long, in all.
    #[error("no whole answer within {0:?}; look at the server that publishes it")]
    Late(Duration),
    /// An https URL, and nothing to judge its server by.
    #[error(
        "an https URL, and no roots to judge its server by; name them as `https_roots`, or publish over http too: what is fetched is signed"
    )]
    NoHttpsRoots,
    /// The URL has no host.
    #[error("no host in the URL")]
    NoHost,
    /// Name look-up, TCP or TLS.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// A request that HTTP does not allow.
    #[error("HTTP request: {0}")]
    Request(#[from] http::Error),
    /// A body without end.
    #[error("more than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
}

/// Asks once for one of the types of `accept`, and follows nothing. `https` judges the server of an https URL.
///
/// # Errors
/// There is no whole answer.
pub async fn get(
    request: FetchRequest,
    accept: &str,
    https: Option<Arc<ClientConfig>>,
) -> Result<FetchResponse, GetError> {
    let limit = request.timeout;
    tokio::time::timeout(limit, exchange(request, accept, https)).await.map_err(|_| GetError::Late(limit))?
}

async fn exchange(
    request: FetchRequest,
    accept: &str,
    https: Option<Arc<ClientConfig>>,
) -> Result<FetchResponse, GetError> {
    let uri: Uri = request.url.as_str().parse().map_err(http::Error::from)?;
    talk(connect(&uri, https).await?, &request, accept, &uri).await
}

/// A connection that bytes go over, TLS or not.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Opens TCP, and TLS for an https URL.
async fn connect(uri: &Uri, https: Option<Arc<ClientConfig>>) -> Result<Box<dyn Duplex>, GetError> {
    let host = uri.host().ok_or(GetError::NoHost)?.trim_matches(['[', ']']).to_owned();
    let is_https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let config = match (is_https, https) {
        (true, None) => return Err(GetError::NoHttpsRoots),
        (true, Some(config)) => Some(config),
        (false, _) => None,
    };
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(GetError::Connect)?;
    Ok(match config {
        None => Box::new(tcp),
        Some(config) => {
            let name = ServerName::try_from(host).map_err(|_| GetError::NoHost)?;
            Box::new(TlsConnector::from(config).connect(name, tcp).await.map_err(GetError::Connect)?)
        }
    })
}

/// Begins a request for what is at a URL.
fn asking(uri: &Uri, accept: &str) -> Result<http::request::Builder, GetError> {
    let authority = uri.authority().ok_or(GetError::NoHost)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, accept)
        .header(header::CONNECTION, "close"))
}

/// Drives a connection while an answer is read from it, which may be for longer than the connection lasts: what arrived is still there.
async fn beside<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = T>,
) -> T {
    let drive = async {
        let _its_errors_reach_the_answer = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = answer => answer,
        never = drive => match never {},
    }
}

async fn talk(
    stream: Box<dyn Duplex>,
    request: &FetchRequest,
    accept: &str,
    uri: &Uri,
) -> Result<FetchResponse, GetError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut head = asking(uri, accept)?;
    if let Some(etag) = &request.validators.etag {
        head = head.header(header::IF_NONE_MATCH, etag);
    }
    if let Some(last_modified) = &request.validators.last_modified {
        head = head.header(header::IF_MODIFIED_SINCE, last_modified);
    }
    let ask = head.body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(ask).await?;
        let (head, body) = response.into_parts();
        let body = match head.status.as_u16() {
            200 => collect(body, request.body_bytes_max).await?,
            _ => Vec::new(),
        };
        Ok(FetchResponse {
            status: head.status.as_u16(),
            validators: Validators {
                etag: text(&head.headers, &ETAG),
                last_modified: text(&head.headers, &LAST_MODIFIED),
            },
            location: text(&head.headers, &LOCATION),
            retry_after: text(&head.headers, &RETRY_AFTER)
                .and_then(|seconds| seconds.trim().parse().ok())
                .map(Duration::from_secs),
            body,
        })
    };
    beside(connection, answer).await
}

async fn collect(mut body: Incoming, max: usize) -> Result<Vec<u8>, GetError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if bytes.len() + data.len() > max {
                return Err(GetError::TooLarge { max });
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use muster_pki::CrlUrl;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    const ACCEPT: &str = "application/pkix-crl";

    /// What a server does with the one request that it takes.
    #[derive(Clone, Copy)]
    enum Answer {
        /// This head, and nothing behind it.
        Head(&'static str),
        /// This head, and a body without end.
        Endless(&'static str),
        Nothing,
    }

    /// Serves one request; the task returns the lines that were asked with.
    async fn serve(answer: Answer) -> (JoinSet<Vec<String>>, FetchRequest) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: CrlUrl = format!("http://{}/ca.crl", listener.local_addr().unwrap()).parse().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            match answer {
                Answer::Head(head) => stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap(),
                Answer::Endless(head) => {
                    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
                    while stream.write_all(&[0; 1024]).await.is_ok() {}
                }
                Answer::Nothing => std::future::pending().await,
            }
            String::from_utf8(asked).unwrap().lines().map(str::to_owned).collect()
        });
        let validators = Validators {
            etag: Some("\"7\"".to_owned()),
            last_modified: Some("Mon, 01 Jun 2026 00:00:00 GMT".to_owned()),
        };
        let request =
            FetchRequest { url, validators, body_bytes_max: 1_000, timeout: Duration::from_secs(30) };
        (tasks, request)
    }

    #[tokio::test]
    async fn r1_what_is_known_of_the_list_is_asked_with_and_what_the_server_says_is_read() {
        let head = "HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nETag: \"8\"\r\nLast-Modified: today\r\n\
                    Location: /b\r\nContent-Length: 0";
        let (mut server, request) = serve(Answer::Head(head)).await;

        let response = get(request, ACCEPT, None).await.unwrap();

        let asked = server.join_next().await.unwrap().unwrap();
        assert_eq!(asked[0], "GET /ca.crl HTTP/1.1");
        for line in ["if-none-match: \"7\"", "if-modified-since: Mon, 01 Jun 2026 00:00:00 GMT"] {
            assert!(asked.iter().any(|asked| asked == line), "{line:?} in {asked:?}");
        }
        let validators =
            Validators { etag: Some("\"8\"".to_owned()), last_modified: Some("today".to_owned()) };
        let wanted = FetchResponse {
            status: 503,
            validators,
            location: Some("/b".to_owned()),
            retry_after: Some(Duration::from_secs(120)),
            body: Vec::new(),
        };
        assert_eq!(response, wanted);
    }

    #[tokio::test]
    async fn r1_a_body_without_end_is_broken_off_and_that_of_an_error_is_not_read() {
        let (_server, request) = serve(Answer::Endless("HTTP/1.1 200 OK")).await;
        let endless = get(request, ACCEPT, None).await;
        let (_server, request) = serve(Answer::Endless("HTTP/1.1 404 Gone")).await;
        let error = get(request, ACCEPT, None).await.unwrap();

        assert!(matches!(endless, Err(GetError::TooLarge { max: 1_000 })), "{endless:?}");
        assert_eq!((error.status, error.body.len()), (404, 0));
    }

    #[tokio::test]
    async fn r1_a_server_that_says_nothing_is_given_up_in_time() {
        let (_server, request) = serve(Answer::Nothing).await;
        let timeout = Duration::from_millis(50);

        let late = tokio::time::timeout(
            Duration::from_secs(20),
            get(FetchRequest { timeout, ..request }, ACCEPT, None),
        );

        let late = late.await.expect("an end of its own");
        assert!(matches!(late, Err(GetError::Late(after)) if after == timeout), "{late:?}");
    }

    #[tokio::test]
    async fn r1_an_https_point_without_roots_is_not_called() {
        let (mut server, request) = serve(Answer::Head("HTTP/1.1 200 OK\r\nContent-Length: 0")).await;
        let url = request.url.as_str().replace("http:", "https:").parse().unwrap();

        let refused = get(FetchRequest { url, ..request }, ACCEPT, None).await;

        assert!(matches!(refused, Err(GetError::NoHttpsRoots)), "{refused:?}");
        assert!(server.try_join_next().is_none());
    }
}
