mod room;

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bao_tree::BlockSize;
use bao_tree::io::outboard::PreOrderMemOutboard;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use muster_pki::authority::Authority;
use muster_pki::{Role, UnixTime};
use muster_service::credentials::{self, Clock, Deadlines, Own, Rules, Servers};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::*;
use crate::https::Https;
use crate::url::ServiceUrl;

const SIZE: usize = 300_000;

/// Wrong answers that are allowed.
const ATTEMPTS: usize = 3;

/// How the server answers for content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Honest,
    FlippedBit,
    FlippedOutboard,
    OutboardOfAnother,
    OutboardTooLongWithoutLength,
    TooLong,
    TooLongWithoutLength,
    TooShort,
    /// Ends in the middle, at every second request.
    Broken,
    /// Knows no ranges, and ends in the middle of the first request.
    BrokenWithoutRanges,
    Missing,
    /// Overloaded for more requests than wrong answers are allowed.
    OverloadedAtFirst,
    /// Sends a flipped bit once.
    FlippedBitOnce,
    Unavailable,
}

#[tokio::test]
async fn what_was_downloaded_is_held_against_its_sha_256_too() {
    let mut lab = Lab::new(Manner::Honest);
    lab.resource.sha256 = Some(Digest::from([7; 32]));

    let error = lab.fetch().await.unwrap_err();
    let ContentError::Sha256 { got, .. } = error else { panic!("{error}") };

    lab.resource.sha256 = Some(got);
    assert_eq!(lab.fetch().await.unwrap(), lab.path());
    assert_eq!(lab.requests(), 2, "hashes and content, once");
}

#[tokio::test]
async fn honest_content_is_cached_and_asked_for_once() {
    let lab = Lab::new(Manner::Honest);

    let first = lab.fetch().await.unwrap();
    let requests = lab.requests();
    let second = lab.fetch().await.unwrap();

    assert_eq!(std::fs::read(&first).unwrap(), bytes());
    assert_eq!((first, lab.requests()), (second, requests));
}

#[tokio::test]
async fn a_flipped_bit_is_refused_and_nothing_of_its_group_is_kept() {
    let lab = Lab::new(Manner::FlippedBit);

    let error = lab.fetch().await.unwrap_err();

    assert!(matches!(error, ContentError::Lie(LieError::Group { first: 147_456, .. })), "{error}");
    assert_eq!(lab.part_bytes(), bytes()[..147_456]);
    assert!(!lab.path().exists());
    assert_eq!(
        lab.requests(),
        1 + ATTEMPTS,
        "the outboard once, the content once more for each wrong answer"
    );
}

#[tokio::test]
async fn a_lying_outboard_is_refused_before_any_content_is_asked_for() {
    for manner in [Manner::FlippedOutboard, Manner::OutboardOfAnother, Manner::OutboardTooLongWithoutLength] {
        let lab = Lab::new(manner);

        let error = lab.fetch().await.unwrap_err();

        assert!(matches!(error, ContentError::Lie(_) | ContentError::Length { .. }), "{manner:?}: {error}");
        assert_eq!(lab.requests(), ATTEMPTS, "{manner:?}");
    }
}

#[tokio::test]
async fn a_wrong_length_is_refused() {
    for manner in [Manner::TooLong, Manner::TooShort] {
        let lab = Lab::new(manner);

        let error = lab.fetch().await.unwrap_err();

        assert!(matches!(error, ContentError::Length { .. }), "{manner:?}: {error}");
        assert!(!lab.path().exists(), "{manner:?}");
    }
}

#[tokio::test]
async fn what_is_sent_beyond_the_signed_bytes_is_never_kept() {
    let lab = Lab::new(Manner::TooLongWithoutLength);

    // All of what was signed came, so there is nothing left to ask for.
    let path = lab.fetch().await.unwrap();

    assert_eq!(std::fs::read(path).unwrap(), bytes());
    assert_eq!(lab.requests(), 2);
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_ended() {
    for manner in [Manner::Broken, Manner::BrokenWithoutRanges] {
        let lab = Lab::new(manner);

        let path = lab.fetch().await.unwrap();

        assert_eq!(std::fs::read(path).unwrap(), bytes(), "{manner:?}");
    }
}

#[tokio::test]
async fn a_part_of_an_earlier_run_is_verified_before_it_is_continued() {
    let lab = Lab::new(Manner::Honest);
    let mut part = bytes()[..100_000].to_vec();
    part[70_000] ^= 1;
    std::fs::write(lab.directory().join(format!("{}.part", lab.resource.root)), part).unwrap();

    let path = lab.fetch().await.unwrap();

    assert_eq!(std::fs::read(path).unwrap(), bytes());
    assert_eq!(lab.range(), "bytes=65536-");
}

#[tokio::test]
async fn a_cached_file_that_changed_is_fetched_again() {
    let lab = Lab::new(Manner::Honest);
    let path = lab.fetch().await.unwrap();
    std::fs::write(&path, b"tampered").unwrap();

    let path = lab.fetch().await.unwrap();

    assert_eq!(std::fs::read(path).unwrap(), bytes());
}

#[tokio::test]
async fn what_is_missing_is_not_asked_for_again() {
    let missing = Lab::new(Manner::Missing);

    assert!(missing.fetch().await.unwrap_err().to_string().contains("404"));

    assert_eq!(missing.requests(), 1);
}

#[tokio::test]
async fn a_wrong_answer_is_asked_for_again_and_a_right_one_taken() {
    let lab = Lab::new(Manner::FlippedBitOnce);

    let path = lab.fetch().await.unwrap();

    assert_eq!(std::fs::read(path).unwrap(), bytes());
}

#[tokio::test]
async fn an_overloaded_server_is_asked_until_it_answers_and_none_of_it_counts_as_a_wrong_answer() {
    let lab = Lab::new(Manner::OverloadedAtFirst);

    let path = lab.fetch().await.unwrap();

    assert_eq!(std::fs::read(path).unwrap(), bytes());
    assert_eq!(lab.requests(), OVERLOADED + 2);
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let mut lab = Lab::away(Manner::Honest, SIZE);
    let content = lab.content.clone();
    let resource = lab.resource.clone();
    let early = lab.tracker.spawn(async move { content.fetch(&resource, Instant::now() + PATIENCE).await });
    let refused = lab.content.fetch(&lab.resource, Instant::now() + SHORT).await.unwrap_err();
    assert!(matches!(refused, ContentError::Late { .. }), "{refused}");

    lab.come();

    assert_eq!(std::fs::read(early.await.unwrap().unwrap()).unwrap(), bytes());
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_has_it_up_to_the_longest_of_our_own() {
    let mut lab = Lab::new(Manner::Unavailable);
    // By its own first pause a download would come back some hundred times.
    lab.content.pauses = (Duration::from_millis(1), PATIENCE);

    lab.content.fetch(&lab.resource, Instant::now() + SHORT).await.unwrap_err();

    assert_eq!(lab.requests(), 1);
}

#[tokio::test]
async fn when_the_time_ends_the_last_error_is_told() {
    let away = Lab::away(Manner::Honest, SIZE);
    let unavailable = Lab::new(Manner::Unavailable);

    for (lab, told) in [(away, "refused"), (unavailable, FULL)] {
        let error = lab.content.fetch(&lab.resource, Instant::now() + SHORT).await.unwrap_err();

        let text = error.to_string();
        assert!(matches!(error, ContentError::Late { last: Some(_) }), "{text}");
        assert!(text.contains("window ended") && text.contains(told), "{text}");
    }
}

#[tokio::test]
async fn content_of_one_group_or_of_nothing_needs_no_outboard() {
    for size in [0, 1, 16_384] {
        let lab = Lab::with_size(Manner::Honest, size);

        let path = lab.fetch().await.unwrap();

        assert_eq!(std::fs::metadata(path).unwrap().len(), size as u64);
        assert_eq!(lab.requests(), 1);
    }
}

#[tokio::test]
async fn what_is_larger_than_allowed_is_refused_without_a_request() {
    let mut lab = Lab::new(Manner::Honest);
    lab.resource.size = 1 << 40;

    let error = lab.fetch().await.unwrap_err();

    assert!(matches!(error, ContentError::TooLarge { .. }), "{error}");
    assert_eq!(lab.requests(), 0);
}

/// A server with one resource, and a client of it.
struct Lab {
    folder: TempDir,
    content: Content,
    resource: PlanResource,
    served: Arc<Served>,
    tracker: TaskTracker,
    acceptor: TlsAcceptor,
    /// Bound, so that nobody else has its port; until it listens, connections are refused.
    socket: Option<TcpSocket>,
    server: Option<AbortOnDropHandle<()>>,
}

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than an attempt takes.
const SHORT: Duration = Duration::from_millis(500);

/// Requests that an overloaded server turns away.
const OVERLOADED: usize = 4 * ATTEMPTS;

#[derive(Debug)]
struct Served {
    manner: Manner,
    bytes: Vec<u8>,
    outboard: Vec<u8>,
    requests: AtomicUsize,
    range: Mutex<String>,
}

impl Lab {
    fn new(manner: Manner) -> Self {
        Self::with_size(manner, SIZE)
    }

    fn with_size(manner: Manner, size: usize) -> Self {
        let mut lab = Self::away(manner, size);
        lab.come();
        lab
    }

    /// Begins to serve.
    fn come(&mut self) {
        let listener = self.socket.take().unwrap().listen(8).unwrap();
        let server = serve(listener, self.acceptor.clone(), Arc::clone(&self.served), self.tracker.clone());
        self.server = Some(AbortOnDropHandle::new(self.tracker.spawn(server)));
    }

    /// Makes one whose server is not there yet.
    fn away(manner: Manner, size: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let bytes = bytes()[..size].to_vec();
        let outboard = PreOrderMemOutboard::create(&bytes, BlockSize::from_chunk_log(4));
        let root = Digest::from(*outboard.root.as_bytes());
        let served = Arc::new(Served {
            manner,
            bytes,
            outboard: outboard.into_inner_with_prefix(),
            requests: AtomicUsize::new(0),
            range: Mutex::default(),
        });
        let (acceptor, roots) = tls();
        let roots_file = folder.path().join("roots.pem");
        std::fs::write(&roots_file, roots).unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        let tracker = TaskTracker::new();
        let rules = Rules::lenient(Clock::system());
        let credentials =
            credentials::client(Own::None, Servers::Roots(roots_file), vec![], Role::Device, rules).unwrap();
        let second = Duration::from_secs(5);
        let https = Https {
            base: ServiceUrl::parse(&format!("https://localhost:{port}/Background/v1"), "https").unwrap(),
            credentials,
            dial: Deadlines { connect: second, tls: second },
            silence: second,
            tracker: tracker.clone(),
        };
        let config = ResourcesConfig { attempts: 3, cache_bytes_max: 1 << 20, ..ResourcesConfig::default() };
        let mut content = Content::open(folder.path(), config, Some(https)).unwrap();
        content.pauses = (Duration::from_millis(1), Duration::from_millis(10));
        let resource = PlanResource { name: "r".to_owned(), size: size as u64, root, sha256: None };
        Self { folder, content, resource, served, tracker, acceptor, socket: Some(socket), server: None }
    }

    async fn fetch(&self) -> Result<PathBuf, ContentError> {
        self.content.fetch(&self.resource, Instant::now() + PATIENCE).await
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join("resources")
    }

    fn path(&self) -> PathBuf {
        self.directory().join(self.resource.root.to_string())
    }

    fn part_bytes(&self) -> Vec<u8> {
        std::fs::read(self.directory().join(format!("{}.part", self.resource.root))).unwrap()
    }

    fn requests(&self) -> usize {
        self.served.requests.load(Ordering::SeqCst)
    }

    fn range(&self) -> String {
        self.served.range.lock().unwrap().clone()
    }
}

fn bytes() -> Vec<u8> {
    (0..SIZE).map(|index| u8::try_from(index * 37 % 253).unwrap()).collect()
}

fn tls() -> (TlsAcceptor, String) {
    let now = UnixTime::now();
    let root = Authority::root("Servers", Duration::from_secs(86_400), now).unwrap();
    let issued = root
        .issue(&muster_pki::authority::Request {
            common_name: "localhost".to_owned(),
            dns_names: vec!["localhost".to_owned()],
            ip_addresses: vec![],
            role: Role::Switch,
            not_before: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() - 60)),
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 3_600)),
            crl_url: Some("http://localhost/crl".to_owned()),
        })
        .unwrap();
    let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(credentials::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), root.certificate_pem())
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, served: Arc<Served>, tracker: TaskTracker) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, served) = (acceptor.clone(), Arc::clone(&served));
        tracker.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let response = answer(&served, &request);
                std::future::ready(Ok::<_, Infallible>(response))
            });
            // A download that is cut short is an error here, and meant to be one.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

/// Why the Background Channel of these tests takes nobody.
const FULL: &str = "too many downloads are under way";

type Body = BoxBody<Bytes, io::Error>;

fn answer(served: &Served, request: &Request<Incoming>) -> Response<Body> {
    let count = served.requests.fetch_add(1, Ordering::SeqCst);
    if served.manner == Manner::Missing {
        return status(StatusCode::NOT_FOUND);
    }
    if served.manner == Manner::Unavailable {
        let text =
            BodyExt::boxed(Full::new(Bytes::from_static(FULL.as_bytes())).map_err(|never| match never {}));
        let mut answer = Response::new(text);
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        answer.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("30"));
        return answer;
    }
    if served.manner == Manner::OverloadedAtFirst && count < OVERLOADED {
        let answers = [
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::INSUFFICIENT_STORAGE,
            StatusCode::INTERNAL_SERVER_ERROR,
        ];
        return status(answers[count % answers.len()]);
    }
    if request.uri().path().ends_with(".obao") {
        let mut outboard = served.outboard.clone();
        if served.manner == Manner::FlippedOutboard {
            outboard[100] ^= 4;
        }
        if served.manner == Manner::OutboardOfAnother {
            outboard.truncate(72);
        }
        if served.manner == Manner::OutboardTooLongWithoutLength {
            outboard.push(0);
            return Response::new(pieces(vec![Ok(outboard)]));
        }
        return Response::new(whole(outboard));
    }
    let range = request.headers().get(RANGE).map(|range| range.to_str().unwrap().to_owned());
    let first: usize = range
        .as_deref()
        .map_or(0, |range| range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap());
    *served.range.lock().unwrap() = range.unwrap_or_default();
    content(served, count, first)
}

fn content(served: &Served, count: usize, first: usize) -> Response<Body> {
    let mut bytes = served.bytes[first..].to_vec();
    let mut response = match served.manner {
        Manner::FlippedBit => {
            bytes[150_000 - first] ^= 1;
            Response::new(whole(bytes))
        }
        Manner::FlippedBitOnce if count == 1 => {
            bytes[150_000] ^= 1;
            Response::new(whole(bytes))
        }
        Manner::TooLong => {
            bytes.push(0);
            Response::new(whole(bytes))
        }
        Manner::TooLongWithoutLength => {
            bytes.push(0);
            Response::new(pieces(vec![Ok(bytes)]))
        }
        Manner::TooShort => {
            bytes.pop();
            Response::new(whole(bytes))
        }
        Manner::Broken if count.is_multiple_of(2) => Response::new(whole(bytes)),
        Manner::Broken => cut(bytes),
        Manner::BrokenWithoutRanges => {
            let bytes = served.bytes.clone();
            return if count == 1 { cut(bytes) } else { Response::new(whole(bytes)) };
        }
        Manner::Honest
        | Manner::FlippedOutboard
        | Manner::OutboardOfAnother
        | Manner::OutboardTooLongWithoutLength
        | Manner::Missing
        | Manner::OverloadedAtFirst
        | Manner::FlippedBitOnce
        | Manner::Unavailable => Response::new(whole(bytes)),
    };
    if first > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {first}-{}/{}", served.bytes.len() - 1, served.bytes.len());
        response.headers_mut().insert(CONTENT_RANGE, range.parse().unwrap());
    }
    response
}

/// Announces everything, sends a third of it, and hangs up.
fn cut(bytes: Vec<u8>) -> Response<Body> {
    let length = bytes.len();
    let third = bytes[..length / 3].to_vec();
    let mut response = Response::new(pieces(vec![Ok(third), Err(io::Error::other("cut"))]));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn whole(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

fn pieces(pieces: Vec<Result<Vec<u8>, io::Error>>) -> Body {
    let frames = pieces.into_iter().map(|piece| piece.map(|bytes| Frame::data(Bytes::from(bytes))));
    BodyExt::boxed(StreamBody::new(stream::iter(frames)))
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(Vec::new()));
    *response.status_mut() = status;
    response
}
