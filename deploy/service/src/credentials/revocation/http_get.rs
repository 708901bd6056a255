//! One GET of a CRL, with a deadline and a bound for every byte of it (R1).

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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    /// It took too long, in all.
    #[error("no whole answer within {0:?}; look at the server that publishes the CRL")]
    Late(Duration),
    /// An https URL, and nothing to judge its server by.
    #[error(
        "an https distribution point; set `revocation.https_roots`, or publish over http too: a CRL is signed"
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
    #[error("more than {max} bytes; let the CA drop expired certificates")]
    TooLarge {
        /// The bound.
        max: usize,
    },
}

/// Asks once, and follows nothing.
pub(super) async fn get(
    request: FetchRequest,
    https: Option<Arc<ClientConfig>>,
) -> Result<FetchResponse, GetError> {
    let limit = request.timeout;
    tokio::time::timeout(limit, exchange(request, https)).await.map_err(|_| GetError::Late(limit))?
}

async fn exchange(
    request: FetchRequest,
    https: Option<Arc<ClientConfig>>,
) -> Result<FetchResponse, GetError> {
    let uri: Uri = request.url.as_str().parse().map_err(http::Error::from)?;
    let host = uri.host().ok_or(GetError::NoHost)?.trim_matches(['[', ']']).to_owned();
    let is_https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let config = match (is_https, https) {
        (true, None) => return Err(GetError::NoHttpsRoots),
        (true, Some(config)) => Some(config),
        (false, _) => None,
    };
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(GetError::Connect)?;
    match config {
        None => talk(tcp, &request, &uri).await,
        Some(config) => {
            let name = ServerName::try_from(host).map_err(|_| GetError::NoHost)?;
            let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(GetError::Connect)?;
            talk(tls, &request, &uri).await
        }
    }
}

async fn talk<S>(stream: S, request: &FetchRequest, uri: &Uri) -> Result<FetchResponse, GetError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let authority = uri.authority().ok_or(GetError::NoHost)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut head = Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "application/pkix-crl, */*;q=0.5")
        .header(header::CONNECTION, "close");
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
    // The connection must be driven for the answer to come; it may end before the last of the body is taken from it.
    let drive = async {
        let _its_errors_reach_the_answer = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = answer => answer,
        never = drive => match never {},
    }
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
