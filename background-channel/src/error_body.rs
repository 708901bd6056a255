//! Every error answer is one clear line of text (PROTOCOL.md §8), whoever made it: a handler, an extractor of the HTTP
//! library, or nobody at all.
//!
//! A line may repeat what the caller sent, and it ends up in terminals and logs, so what could drive those is escaped.

use axum::body::{self, Body};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use muster_pki::text::is_misleading;

/// Characters of a line; the rest says nothing more.
const CHARACTERS_MAX: usize = 300;
/// Bytes that are read of an error's body; all of ours are shorter.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Replaces the body of an error answer by one line; answers that succeed pass unchanged, and an answer to HEAD has no body at all
/// (RFC 9110 §9.3.2): over HTTP/2 a caller takes one for a broken stream.
pub(crate) async fn one_line(request: Request, next: Next) -> Response {
    let is_head = request.method() == Method::HEAD;
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if is_head {
        return Response::from_parts(parts, Body::empty());
    }
    // A body that cannot be read, or is longer than any of ours, is told by its status alone.
    let bytes = body::to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    let said = line(&String::from_utf8_lossy(&bytes));
    let text = if said.is_empty() {
        let allowed = parts.headers.get(header::ALLOW).and_then(|allowed| allowed.to_str().ok());
        unsaid(status, allowed)
    } else {
        said
    };
    Response::from_parts(parts, Body::from(format!("{text}\n")))
}

/// The text as one line without control characters and without those that reorder text or look like nothing.
fn line(text: &str) -> String {
    let mut line = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == CHARACTERS_MAX {
            line.push('…');
            break;
        }
        if is_misleading(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// What an answer without a body means.
fn unsaid(status: StatusCode, allowed: Option<&str>) -> String {
    match (status, allowed) {
        (StatusCode::METHOD_NOT_ALLOWED, Some(allowed)) => {
            format!("this address does not take that method; it takes {}", allowed.replace(',', ", "))
        }
        _ => status.canonical_reason().unwrap_or("refused").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_sent_cannot_drive_a_terminal_or_break_the_line() {
        assert_eq!(
            line("`a\u{1b}[2J\nb\u{202e}` is not a root\n"),
            "`a\\u{1b}[2J\\nb\\u{202e}` is not a root"
        );
        assert_eq!(line(&"x".repeat(1_000)).chars().count(), CHARACTERS_MAX + 1);
    }
}
