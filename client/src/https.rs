//! HTTP/1.1 over TLS to the Background Channel: one connection for each request, since requests are rare.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use muster_pki::select::Availability;
use muster_service::credentials::{ClientCredentials, Deadlines, DialError, Outgoing, dial};
use muster_service::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::answer;
use crate::config::Config;
use crate::profile::Profile;
use crate::url::ServiceUrl;

/// The slowest body that is waited for, in bytes a second: a modem's.
const RATE_BYTES_MIN: u64 = 1_024;

/// The longest explanation of a refusal that is read; ours are a line or two.
const EXPLANATION_BYTES_MAX: usize = 4 * 1024;

/// How long it is waited for: it comes with the status, or it is not worth a wait.
const EXPLANATION_PATIENCE: Duration = Duration::from_secs(5);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The exchange broke.
    #[error("{url}: {cause}")]
    Broken {
        /// What was asked for.
        url: String,
        /// What went wrong.
        cause: String,
    },
    /// The server sent more than there can be.
    #[error("{url}: more than {limit} bytes came")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The most there can be.
        limit: usize,
    },
    /// The server was silent for too long.
    #[error("{url}: silent for {limit:?}")]
    Silent {
        /// What was asked for.
        url: String,
        /// The deadline.
        limit: Duration,
    },
    /// The server answered with another status than one that helps.
    #[error("{url}: {status}{}{text}", if text.is_empty() { "" } else { ": " })]
    Status {
        /// What was asked for.
        url: String,
        /// The answer.
        status: StatusCode,
        /// How long it asks to stay away.
        retry_after: Option<Duration>,
        /// Its explanation.
        text: String,
    },
}

impl HttpsError {
    /// Returns how long the server asks to stay away; zero if it does not.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            Self::Status { retry_after, .. } => retry_after.unwrap_or_default(),
            Self::Dial(_) | Self::Broken { .. } | Self::TooLong { .. } | Self::Silent { .. } => {
                Duration::ZERO
            }
        }
    }

    /// Returns whether the same request may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            // Asking again changes nothing; the download waits for a certificate (S6).
            Self::Dial(DialError::NoCertificate { .. }) => false,
            Self::Dial(_) | Self::Broken { .. } | Self::TooLong { .. } | Self::Silent { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
        }
    }
}

/// A client of one base address.
#[derive(Debug, Clone)]
pub(crate) struct Https {
    /// The base.
    pub(crate) base: ServiceUrl,
    /// The device's certificate and the servers' roots.
    pub(crate) credentials: Arc<ClientCredentials>,
    /// Deadlines of a connection.
    pub(crate) dial: Deadlines,
    /// The longest silence.
    pub(crate) silence: Duration,
    /// Owns the tasks that drive connections; each ends with its response.
    pub(crate) tracker: TaskTracker,
}

/// The Background Channel that is called at present; a policy may name another, or there may be none.
#[derive(Debug, Clone)]
pub(crate) struct Background(watch::Receiver<Option<Https>>);

impl Background {
    /// Follows what `sender` names.
    pub(crate) fn of(sender: &watch::Sender<Option<Https>>) -> Self {
        Self(sender.subscribe())
    }

    /// Returns how to call it now.
    pub(crate) fn current(&self) -> Option<Https> {
        self.0.borrow().clone()
    }

    /// Waits until there is another one, or none.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells whether whoever calls the Background Channel has a certificate to show (S6).
#[derive(Debug, Clone)]
pub(crate) struct CertificateWatch {
    background: Background,
    seen: Option<(Arc<ClientCredentials>, watch::Receiver<u64>)>,
}

impl CertificateWatch {
    /// Follows whatever is called at present.
    pub(crate) fn new(background: Background) -> Self {
        Self { background, seen: None }
    }

    /// Returns whether there is one. Where nothing is called, none is missing.
    pub(crate) fn availability(&self) -> Availability {
        let lacks = self.background.current().is_some_and(|https| https.credentials.lacks_own());
        if lacks { Availability::Missing } else { Availability::Present }
    }

    /// Looks into the store, apart from the runtime, and returns whether there is one.
    pub(crate) async fn look(&self) -> Availability {
        if let Some(https) = self.background.current() {
            let looked = spawn_blocking(move || https.credentials.reload()).await;
            tracing::debug!(?looked, "looked for a certificate");
        }
        self.availability()
    }

    /// Waits until there may be another one; at the first call not at all.
    pub(crate) async fn changed(&mut self) {
        loop {
            let Self { background, seen } = self;
            let current = background.current().map(|https| https.credentials);
            match (seen.as_mut(), current) {
                (Some((known, changes)), Some(current)) if Arc::ptr_eq(known, &current) => {
                    tokio::select! {
                        biased;
                        () = background.changed() => {}
                        // The credentials hold the sender, so it is not gone.
                        _ = changes.changed() => return,
                    }
                }
                (_, Some(current)) => {
                    let changes = current.changes();
                    *seen = Some((current, changes));
                    return;
                }
                (_, None) => {
                    *seen = None;
                    background.changed().await;
                }
            }
        }
    }
}

#[cfg(test)]
impl From<Option<Https>> for Background {
    fn from(https: Option<Https>) -> Self {
        Self(watch::channel(https).1)
    }
}

impl Https {
    /// Calls the Background Channel of a profile, if it has one.
    pub(crate) fn of(profile: &Profile, config: &Config, shutdown: &Shutdown) -> Option<Self> {
        let dial = Deadlines { connect: config.session.connect_timeout, tls: config.session.tls_timeout };
        Some(Self {
            base: profile.background.clone()?,
            credentials: Arc::clone(&profile.credentials),
            dial,
            silence: config.resources.stall_timeout,
            tracker: shutdown.tracker().clone(),
        })
    }

    /// Gets `path` below the base, from byte `offset` on.
    pub(crate) async fn get(&self, path: &str, offset: u64) -> Result<Response<Incoming>, HttpsError> {
        let mut request = Request::new(Full::new(Bytes::new()));
        if offset > 0 {
            let range = format!("bytes={offset}-");
            // Digits and ASCII only; a value that cannot be a header is never made here.
            if let Ok(range) = range.parse() {
                request.headers_mut().insert(RANGE, range);
            }
        }
        self.send(self.dial().await?, path, request).await
    }

    /// Connects, for [`Self::post`]: until then nothing has left this machine.
    pub(crate) async fn dial(&self) -> Result<Outgoing, HttpsError> {
        Ok(dial(&self.credentials, self.base.address(), self.dial).await?)
    }

    /// Posts protobuf to `path` below the base.
    pub(crate) async fn post(
        &self,
        stream: Outgoing,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, HttpsError> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let kind = http::HeaderValue::from_static("application/x-protobuf");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        self.send(stream, path, request).await
    }

    /// Returns the whole body, of at most `bytes_max`, however long it takes as long as it keeps coming: no silence is longer
    /// than the bound, and on the whole it is not slower than [`RATE_BYTES_MIN`].
    pub(crate) async fn body(
        &self,
        path: &str,
        response: Response<Incoming>,
        bytes_max: usize,
    ) -> Result<Bytes, HttpsError> {
        let whole = self.patience(bytes_max as u64);
        match timeout(whole, self.collect(path, response.into_body(), bytes_max)).await {
            Err(_) => Err(self.slow(path, bytes_max as u64)),
            Ok(collected) => collected,
        }
    }

    /// Returns how long so many bytes may take on the whole.
    pub(crate) fn patience(&self, bytes: u64) -> Duration {
        self.silence.saturating_add(Duration::from_secs(bytes / RATE_BYTES_MIN))
    }

    pub(crate) fn slow(&self, path: &str, bytes: u64) -> HttpsError {
        self.broken(path, format!("{bytes} bytes did not come in {:?}", self.patience(bytes)))
    }

    async fn collect(&self, path: &str, body: Incoming, bytes_max: usize) -> Result<Bytes, HttpsError> {
        let mut body = Limited::new(body, bytes_max);
        let mut bytes = Vec::new();
        while let Some(frame) = timeout(self.silence, body.frame()).await.map_err(|_| self.silent(path))? {
            let frame = frame.map_err(|cause| {
                if cause.is::<LengthLimitError>() {
                    HttpsError::TooLong { url: self.url(path), limit: bytes_max }
                } else {
                    self.broken(path, cause.to_string())
                }
            })?;
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.into())
    }

    pub(crate) fn silent(&self, path: &str) -> HttpsError {
        HttpsError::Silent { url: self.url(path), limit: self.silence }
    }

    pub(crate) fn broken(&self, path: &str, cause: String) -> HttpsError {
        HttpsError::Broken { url: self.url(path), cause }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(
        &self,
        stream: Outgoing,
        path: &str,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, HttpsError> {
        let target = format!("{}{path}", self.base.path());
        *request.uri_mut() = target.parse().map_err(|_| self.broken(path, "not a path".to_owned()))?;
        let host = self
            .base
            .address()
            .to_string()
            .parse()
            .map_err(|_| self.broken(path, "not a host".to_owned()))?;
        request.headers_mut().insert(HOST, host);
        let broken = |cause: hyper::Error| self.broken(path, cause.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        self.tracker.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the Background Channel broke");
            }
        });
        let response = timeout(self.silence, sender.send_request(request)).await;
        let response = response.map_err(|_| self.silent(path))?.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, retry_after) = (response.status(), answer::retry_after(response.headers()));
        let text = self.explanation(response.into_body()).await;
        Err(HttpsError::Status { url: self.url(path), status, retry_after, text })
    }

    /// Returns what a refusal says; nothing where it is long, or does not come.
    async fn explanation(&self, body: Incoming) -> String {
        let body = Limited::new(body, EXPLANATION_BYTES_MAX).collect();
        match timeout(self.silence.min(EXPLANATION_PATIENCE), body).await {
            Ok(Ok(body)) => answer::text(&body.to_bytes()),
            Ok(Err(_)) | Err(_) => String::new(),
        }
    }
}
