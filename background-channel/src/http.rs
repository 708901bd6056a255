//! The HTTP interface (PROTOCOL.md, "Background Channel").
//!
//! Devices read resources and post events; operators put and list resources. Who calls is decided by the certificate
//! alone, per connection, and stands in the request's extensions as [`Peer`].

use std::io::SeekFrom;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::StreamExt as _;
use muster_pki::Role;
use muster_proto::relay::v1::RelayedEvent;
use muster_proto::session::v1::{EventBatch, EventBatchAck, SequenceRange};
use muster_service::credentials::Peer;
use muster_service::wall::Wall;
use prost::Message as _;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::error_body;
use crate::metrics;
use crate::posts::{PostRefused, Posts};
use crate::range::{self, Selected};
use crate::resources::{ResourceError, Resources, Root};
use crate::spool::{Spool, SpoolError};
use crate::unread;

/// One read from a content file: large enough for few system calls, small beside a connection's own buffers.
const READ_BYTES: usize = 64 * 1024;
/// What a client waits when its events cannot be taken.
const RETRY_AFTER_SECONDS: u32 = 30;

/// What every request can reach.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) resources: Arc<Resources>,
    pub(crate) spool: Spool,
    pub(crate) posts: Arc<Posts>,
    pub(crate) wall: Wall,
}

/// The routes below `/Background/v1`.
pub(crate) fn router(shared: Shared) -> Router {
    let routes = Router::new()
        .route("/resources", get(list))
        .route("/resources/{name}", get(fetch).put(put))
        .route("/events", post(events))
        .with_state(shared);
    let all = Router::new().nest("/Background/v1", routes).fallback(nothing_here);
    // Around the whole router, not its routes: a route adds `Allow` to a 405 only after its layers.
    Router::new()
        .fallback_service(all)
        .layer(from_fn(error_body::one_line))
        .layer(from_fn(unread::answer_first))
}

/// Why a request was not served. It prints as one line of text.
#[derive(Debug)]
enum Refused {
    NotAllowed {
        wanted: &'static str,
    },
    Resource(ResourceError),
    Spool(SpoolError),
    Post(PostRefused),
    Bad(String),
    /// Nothing that the caller did.
    Internal(String),
    Range {
        size: u64,
    },
}

impl From<ResourceError> for Refused {
    fn from(error: ResourceError) -> Self {
        Self::Resource(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::NotAllowed { wanted } => {
                (StatusCode::FORBIDDEN, format!("this needs {wanted} certificate; yours has another role"))
            }
            Self::Resource(error) => (resource_status(&error), error.to_string()),
            Self::Spool(
                error @ (SpoolError::Full { .. }
                | SpoolError::DeviceFull { .. }
                | SpoolError::DiskFull { .. }
                | SpoolError::Busy),
            ) => return come_back(&error),
            Self::Spool(
                error @ (SpoolError::Closed | SpoolError::Newer { .. } | SpoolError::Store { .. }),
            ) => {
                tracing::error!(%error, "spool");
                (StatusCode::INTERNAL_SERVER_ERROR, "the spool does not take events".to_owned())
            }
            Self::Post(error @ (PostRefused::Full | PostRefused::DeviceFull)) => return come_back(&error),
            Self::Post(error @ PostRefused::TooLong) => (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            Self::Post(error @ PostRefused::Late(_)) => (StatusCode::REQUEST_TIMEOUT, error.to_string()),
            Self::Post(error @ PostRefused::Broken(_)) => (StatusCode::BAD_REQUEST, error.to_string()),
            Self::Bad(text) => (StatusCode::BAD_REQUEST, text),
            Self::Internal(error) => {
                tracing::error!(error, "request");
                (StatusCode::INTERNAL_SERVER_ERROR, "an error of the service; its log says which".to_owned())
            }
            Self::Range { size } => {
                let range = HeaderValue::try_from(format!("bytes */{size}"))
                    .unwrap_or(HeaderValue::from_static("bytes */*"));
                let text = format!(
                    "no byte of the {size} lies in that range; one range `bytes=FIRST-LAST` is taken"
                );
                return (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, range)], text)
                    .into_response();
            }
        };
        (status, format!("{text}\n")).into_response()
    }
}

fn come_back(error: &impl std::fmt::Display) -> Response {
    let retry = [(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))];
    (StatusCode::SERVICE_UNAVAILABLE, retry, format!("{error}\n")).into_response()
}

fn resource_status(error: &ResourceError) -> StatusCode {
    match error {
        ResourceError::BadRoot(_) | ResourceError::BadName(_) => StatusCode::BAD_REQUEST,
        ResourceError::WrongRoot { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        ResourceError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ResourceError::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        ResourceError::Unknown(_) => StatusCode::NOT_FOUND,
        ResourceError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn nothing_here() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "nothing here; the interface begins at /Background/v1\n")
}

/// `GET|HEAD /resources/{root}` and `/resources/{root}.obao`, with `Range`.
async fn fetch(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let answered =
        fetch_file(&shared, &name, &method, &headers).await.unwrap_or_else(IntoResponse::into_response);
    metrics::request("resource", answered.status().as_u16());
    answered
}

async fn fetch_file(
    shared: &Shared,
    name: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refused> {
    let resources = Arc::clone(&shared.resources);
    let (root, is_outboard): (Root, bool) = match name.strip_suffix(".obao") {
        Some(root) => (root.parse()?, true),
        None => (name.parse()?, false),
    };
    let open = move || if is_outboard { resources.open_outboard(root) } else { resources.open_content(root) };
    let (file, size) = blocking(open).await??;
    let selected = range::select(headers.get(header::RANGE), size).map_err(|_| Refused::Range { size })?;
    let (status, first, length) = match selected {
        Selected::Whole => (StatusCode::OK, 0, size),
        Selected::Part { first, length } => (StatusCode::PARTIAL_CONTENT, first, length),
    };
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, length)
        // The address is the content's hash, so it never changes.
        .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
        .header(header::ETAG, format!("\"{name}\""));
    if status == StatusCode::PARTIAL_CONTENT {
        response =
            response.header(header::CONTENT_RANGE, format!("bytes {first}-{}/{size}", first + length - 1));
    }
    let body = if method == Method::HEAD { Body::empty() } else { content(file, first, length).await? };
    response.body(body).map_err(|error| Refused::Internal(error.to_string()))
}

async fn content(file: std::fs::File, first: u64, length: u64) -> Result<Body, Refused> {
    let mut file = tokio::fs::File::from_std(file);
    let sought = file.seek(SeekFrom::Start(first)).await;
    sought.map_err(|error| Refused::Internal(format!("seek to {first}: {error}")))?;
    metrics::sent_bytes(length);
    Ok(Body::from_stream(ReaderStream::with_capacity(file.take(length), READ_BYTES)))
}

/// `?name=` of a put.
#[derive(Debug, Deserialize)]
struct PutQuery {
    name: String,
}

/// `PUT /resources/{root}?name=NAME`: operators only.
async fn put(
    State(shared): State<Shared>,
    Extension(peer): Extension<Arc<Peer>>,
    Path(root): Path<String>,
    query: Result<Query<PutQuery>, QueryRejection>,
    body: Body,
) -> Response {
    let named = need(&peer, Role::Operator).and_then(|()| {
        let expected = |_| Refused::Bad("the address must end in ?name=NAME".to_owned());
        query.map_err(expected)
    });
    let taken = match named {
        Ok(Query(query)) => take(&shared, &root, &query.name, body).await,
        Err(refused) => Err(refused),
    };
    let answered = match taken {
        Ok(info) => (StatusCode::CREATED, Json(info)).into_response(),
        Err(refused) => refused.into_response(),
    };
    metrics::request("put", answered.status().as_u16());
    answered
}

async fn take(
    shared: &Shared,
    root: &str,
    name: &str,
    body: Body,
) -> Result<crate::resources::ResourceInfo, Refused> {
    let root: Root = root.parse()?;
    let (resources, name) = (Arc::clone(&shared.resources), name.to_owned());
    let mut put = blocking(move || resources.begin(root, &name)).await??;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Refused::Bad(format!("the body ended early: {error}")))?;
        put = blocking(move || put.write(&chunk).map(|()| put)).await??;
    }
    let now_ms = shared.wall.now_ms();
    Ok(blocking(move || put.finish(now_ms)).await??)
}

/// `GET /resources`: operators only.
async fn list(State(shared): State<Shared>, Extension(peer): Extension<Arc<Peer>>) -> Response {
    let listed = async {
        need(&peer, Role::Operator)?;
        let resources = Arc::clone(&shared.resources);
        Ok::<_, Refused>(Json(blocking(move || resources.list()).await??))
    };
    let answered = listed.await.map_or_else(IntoResponse::into_response, IntoResponse::into_response);
    metrics::request("list", answered.status().as_u16());
    answered
}

/// `POST /events`: devices only. The answer means that the events are on disk.
async fn events(State(shared): State<Shared>, Extension(peer): Extension<Arc<Peer>>, body: Body) -> Response {
    let acked = spool_post(&shared, &peer, body).await;
    let answered = acked.map_or_else(IntoResponse::into_response, |ack| {
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))];
        (headers, ack.encode_to_vec()).into_response()
    });
    metrics::request("events", answered.status().as_u16());
    answered
}

async fn spool_post(shared: &Shared, peer: &Peer, body: Body) -> Result<EventBatchAck, Refused> {
    need(peer, Role::Device)?;
    let id = peer.device_id().ok_or(Refused::NotAllowed { wanted: "a device's" })?;
    let (body, place) = shared.posts.collect(id, body).await.map_err(Refused::Post)?;
    let batch =
        muster_proto::frame::decode_event_batch(&body).map_err(|error| Refused::Bad(error.to_string()))?;
    drop(body);
    let (device, ranges) = (id.to_string(), ranges(&batch));
    let EventBatch { outbox_id, events } = batch;
    let relayed =
        |event| RelayedEvent { device: device.clone(), outbox_id: outbox_id.clone(), event: Some(event) };
    let events = events.into_iter().map(relayed).collect();
    shared.spool.append_holding(events, Some(place)).await.map_err(Refused::Spool)?;
    Ok(EventBatchAck { ranges })
}

/// The sequences of a batch as ranges.
fn ranges(batch: &EventBatch) -> Vec<SequenceRange> {
    let mut ranges: Vec<SequenceRange> = Vec::new();
    for sequence in batch.events.iter().map(|event| event.sequence) {
        match ranges.last_mut() {
            Some(range) if range.last.checked_add(1) == Some(sequence) => range.last = sequence,
            _ => ranges.push(SequenceRange { first: sequence, last: sequence }),
        }
    }
    ranges
}

fn need(peer: &Peer, role: Role) -> Result<(), Refused> {
    let wanted = if role == Role::Operator { "an operator's" } else { "a device's" };
    if peer.role() == role { Ok(()) } else { Err(Refused::NotAllowed { wanted }) }
}

/// Runs what blocks off the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Refused::Internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use muster_proto::session::v1::Event;

    use super::*;

    fn batch(sequences: &[u64]) -> EventBatch {
        let event =
            |sequence: &u64| Event { sequence: *sequence, name: "a.b".to_owned(), ..Event::default() };
        EventBatch { outbox_id: vec![1; 16], events: sequences.iter().map(event).collect() }
    }

    #[test]
    fn a_batch_is_acked_by_ranges() {
        let range = |first, last| SequenceRange { first, last };

        assert_eq!(ranges(&batch(&[1, 2, 3, 7, 9, 10])), [range(1, 3), range(7, 7), range(9, 10)]);
        assert_eq!(ranges(&batch(&[u64::MAX])), [range(u64::MAX, u64::MAX)]);
    }

    #[tokio::test]
    async fn a_task_that_died_is_an_error_of_the_service_and_not_of_the_caller() {
        let refused = blocking(|| panic!("the test wants it")).await.unwrap_err();

        assert_eq!(refused.into_response().status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
