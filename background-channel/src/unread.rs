//! Refusals that come before the request's content is through.
//!
//! Over HTTP/2 a request whose content nobody reads is reset with its answer. Clients that were still sending tell their
//! user of a broken stream then, and not what was answered (curl's error 92). So the answer goes out first, and what is
//! under way is taken and thrown away, within bounds, before the stream ends.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::Version;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::metrics;

/// What is thrown away at most: the window of a connection (1 MiB) is under way at once, and is opened again as it is
/// read, until the client has seen the answer.
const UNREAD_BYTES_MAX: u64 = 4 << 20;
/// How long a client has to see the answer. A round trip around the world takes 0.4 s.
const UNREAD_DEADLINE: Duration = Duration::from_secs(3);

/// A request's content, lent to its handler.
struct Lent(Arc<Mutex<Body>>);

/// An answer, and behind it what its handler left of the request's content.
struct Answer {
    answer: Body,
    rest: Arc<Mutex<Body>>,
    left: u64,
    deadline: Pin<Box<Sleep>>,
}

/// Has an HTTP/2 stream end when the answer is out and the content is taken.
pub(crate) async fn answer_first(request: Request, next: Next) -> Response {
    if request.version() != Version::HTTP_2 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let rest = Arc::new(Mutex::new(body));
    let lent = Body::new(Lent(Arc::clone(&rest)));
    let response = next.run(Request::from_parts(parts, lent)).await;
    if with(&rest, |rest| rest.is_end_stream()) {
        return response;
    }
    metrics::unread();
    let deadline = Box::pin(tokio::time::sleep(UNREAD_DEADLINE));
    response.map(|answer| Body::new(Answer { answer, rest, left: UNREAD_BYTES_MAX, deadline }))
}

/// Only one of handler and answer is at it, so that nobody ever waits for the lock.
fn with<T>(body: &Mutex<Body>, act: impl FnOnce(&mut Body) -> T) -> T {
    act(&mut body.lock().unwrap_or_else(PoisonError::into_inner))
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        with(&self.0, |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        with(&self.0, |body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        with(&self.0, |body| body.size_hint())
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.answer).poll_frame(context) {
            Poll::Ready(None) => {}
            frame @ Poll::Ready(Some(_)) => return frame,
            Poll::Pending => return Poll::Pending,
        }
        while self.left > 0 && self.deadline.as_mut().poll(context).is_pending() {
            let Poll::Ready(frame) = with(&self.rest, |rest| Pin::new(rest).poll_frame(context)) else {
                return Poll::Pending;
            };
            // Trailers end it like an error does: nothing comes after them.
            let Some(Ok(Ok(data))) = frame.map(|frame| frame.map(Frame::into_data)) else { break };
            self.left = self.left.saturating_sub(data.len().try_into().unwrap_or(u64::MAX));
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}
