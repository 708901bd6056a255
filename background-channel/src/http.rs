//! The HTTP interface (PROTOCOL.md, "Background Channel").
//!
//! Devices read resources and post events; operators put and list resources. Who calls is decided by the certificate
//! alone, per connection, and stands in the request's extensions as [`Peer`].

use std::io::SeekFrom;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use futures_util::StreamExt as _;
use muster_pki::Role;
use muster_proto::relay::v1::RelayedEvent;
use muster_proto::session::v1::{EventBatch, EventBatchAck, SequenceRange};
use muster_service::credentials::Peer;
use prost::Message as _;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::error_body;
use crate::metrics;
use crate::range::{self, Selected};
use crate::resources::{ResourceError, Resources, Root};
use crate::spool::{Spool, SpoolError};
use crate::unread;

/// Body of a post of events (PROTOCOL.md).
const EVENTS_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Events in one post (`EventBatch.events`).
const EVENTS_MAX: usize = 1_000;
/// One read from a content file: large enough for few system calls, small beside a connection's own buffers.
const READ_BYTES: usize = 64 * 1024;
/// What a client waits when the spool cannot take its events.
const RETRY_AFTER_SECONDS: u32 = 30;

/// What every request can reach.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) resources: Arc<Resources>,
    pub(crate) spool: Spool,
    pub(crate) now_ms: fn() -> i64,
}

/// The routes below `/Background/v1`.
pub(crate) fn router(shared: Shared) -> Router {
    let routes = Router::new()
        .route("/resources", get(list))
        .route("/resources/{name}", get(fetch).put(put))
        .route("/events", post(events).layer(DefaultBodyLimit::max(EVENTS_BODY_BYTES_MAX)))
        .with_state(shared);
    let all = Router::new().nest("/Background/v1", routes).fallback(nothing_here);
    // Around the whole router, not its routes: a route adds `Allow` to a 405 only after its layers.
    Router::new()
        .fallback_service(all)
        .layer(map_response(error_body::one_line))
        .layer(from_fn(unread::answer_first))
}

/// Why a request was not served. It prints as one line of text.
#[derive(Debug)]
enum Refused {
    NotAllowed { wanted: &'static str },
    Resource(ResourceError),
    Spool(SpoolError),
    Bad(String),
    TooLong,
    Range { size: u64 },
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
                error @ (SpoolError::Full { .. } | SpoolError::DiskFull { .. } | SpoolError::Busy),
            ) => {
                let retry = [(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))];
                return (StatusCode::SERVICE_UNAVAILABLE, retry, format!("{error}\n")).into_response();
            }
            Self::Spool(
                error @ (SpoolError::Closed | SpoolError::Newer { .. } | SpoolError::Store { .. }),
            ) => {
                tracing::error!(%error, "spool");
                (StatusCode::INTERNAL_SERVER_ERROR, "the spool does not take events".to_owned())
            }
            Self::Bad(text) => (StatusCode::BAD_REQUEST, text),
            Self::TooLong => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a post of events has at most {EVENTS_BODY_BYTES_MAX} bytes; post fewer at once"),
            ),
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
    response.body(body).map_err(|error| Refused::Bad(error.to_string()))
}

async fn content(file: std::fs::File, first: u64, length: u64) -> Result<Body, Refused> {
    let mut file = tokio::fs::File::from_std(file);
    file.seek(SeekFrom::Start(first)).await.map_err(|error| Refused::Bad(error.to_string()))?;
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
    let now_ms = (shared.now_ms)();
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
async fn events(
    State(shared): State<Shared>,
    Extension(peer): Extension<Arc<Peer>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let acked = async {
        need(&peer, Role::Device)?;
        let body = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refused::TooLong,
            _ => Refused::Bad(format!("the body ended early: {rejection}")),
        })?;
        let batch = checked_batch(&body)?;
        let ranges = ranges(&batch);
        let device = peer.device_id().map(ToString::to_string).unwrap_or_default();
        let relayed = |event| RelayedEvent {
            device: device.clone(),
            outbox_id: batch.outbox_id.clone(),
            event: Some(event),
        };
        let events = batch.events.iter().cloned().map(relayed).collect();
        shared.spool.append(events).await.map_err(Refused::Spool)?;
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))];
        Ok::<_, Refused>((headers, EventBatchAck { ranges }.encode_to_vec()))
    };
    let answered = acked.await.map_or_else(IntoResponse::into_response, IntoResponse::into_response);
    metrics::request("events", answered.status().as_u16());
    answered
}

/// Decodes a post and checks its bounds.
fn checked_batch(body: &[u8]) -> Result<EventBatch, Refused> {
    let batch =
        EventBatch::decode(body).map_err(|error| Refused::Bad(format!("not an EventBatch: {error}")))?;
    if batch.outbox_id.len() != 16 {
        return Err(Refused::Bad(format!("outbox_id has {} bytes, expected 16", batch.outbox_id.len())));
    }
    if batch.events.is_empty() || batch.events.len() > EVENTS_MAX {
        return Err(Refused::Bad(format!("{} events, expected 1 to {EVENTS_MAX}", batch.events.len())));
    }
    let ascending = batch.events.windows(2).all(|pair| pair[0].sequence < pair[1].sequence);
    if !ascending || batch.events[0].sequence == 0 {
        return Err(Refused::Bad("sequences must ascend from 1 or more".to_owned()));
    }
    for event in &batch.events {
        muster_proto::frame::check_event(event)
            .map_err(|error| Refused::Bad(format!("event {}: {error}", event.sequence)))?;
    }
    Ok(batch)
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
    tokio::task::spawn_blocking(work).await.map_err(|error| Refused::Bad(format!("interrupted: {error}")))
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

    #[test]
    fn a_batch_out_of_order_or_bounds_is_refused() {
        for bad in [
            batch(&[]),
            batch(&[0]),
            batch(&[2, 2]),
            batch(&[2, 1]),
            EventBatch { outbox_id: vec![], ..batch(&[1]) },
        ] {
            assert!(checked_batch(&bad.encode_to_vec()).is_err(), "{bad:?}");
        }
        assert!(checked_batch(&batch(&[1, 5]).encode_to_vec()).is_ok());
        assert!(checked_batch(b"\xff\xff").is_err());
    }
}
