//! The WebSocket upgrade: the request is read here, so that what is no upgrade gets an answer, too.

use muster_proto::session::{PATH, SUBPROTOCOL};
use muster_service::admission;
use muster_service::credentials::PeerRefused;
use muster_service::line::{Accepted, Came, Line};
use tokio_tungstenite::tungstenite::Error as UpgradeError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse as _;
use tokio_tungstenite::tungstenite::handshake::server::{
    ErrorResponse, Request, Response, create_response, write_response,
};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};

use super::stranger::Unproven;
use super::wire::Wire;
use crate::config::SessionLimits;
use crate::registry::NoRoom;

/// What a blocked device is told.
pub(super) const BLOCKED: &str =
    "an operator has blocked this device (R2); ask whoever runs the Switch to unblock it";

/// The longest request. A client's has less than 1 KiB.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// Why a client that asks well gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// There is no room for it now.
    NoRoom(NoRoom),
    /// An operator keeps it out. It is not told who, and why.
    Blocked,
    /// It shows no certificate, and has not shown that it has a key.
    Unproven(Unproven),
}

/// A request for a session that has no answer yet.
#[derive(Debug)]
pub(super) struct Asked {
    line: Line,
    request: Request,
    response: Response,
}

/// Reads the request. What is no upgrade is told what this port is.
///
/// # Errors
/// Why there is none; whoever asked was told, and has had time to read it.
pub(super) async fn read(accepted: Accepted) -> Result<Asked, UpgradeError> {
    let Accepted { mut line, early } = accepted;
    let read = read_request(&mut line, early).await;
    match read.and_then(|request| Ok((create_response(&request)?, request))) {
        Ok((response, request)) => Ok(Asked { line, request, response }),
        Err(error) => Err(refuse(line, no_upgrade(error)?).await?),
    }
}

impl Asked {
    /// Returns the request.
    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    /// Returns the connection that it came by.
    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    /// Answers. A client for whom there is no room, or that is denied, is told so by HTTP.
    ///
    /// # Errors
    /// Why there is no socket; whoever asked was told, and has had time to read it.
    pub(super) async fn answer(
        self,
        denial: Option<Denial>,
        limits: &SessionLimits,
    ) -> Result<Wire, UpgradeError> {
        let Self { mut line, request, response } = self;
        match answer(denial, limits.retry_after.as_secs())(&request, response) {
            Ok(response) => {
                line.send(&encode(&response, "")?)?;
                line.flush().await?;
                Ok(Wire::new(line, usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX)))
            }
            Err(refusal) => Err(refuse(line, refusal).await?),
        }
    }
}

/// Writes a refusal and ends the connection; returns it as an error.
async fn refuse(mut line: Line, refusal: ErrorResponse) -> Result<UpgradeError, UpgradeError> {
    let (parts, body) = refusal.into_parts();
    let body = body.unwrap_or_default();
    let refusal = Response::from_parts(parts, ());
    line.send(&encode(&refusal, &body)?)?;
    line.flush().await?;
    admission::end_line(line).await;
    Ok(UpgradeError::Http(Box::new(refusal.map(|()| Some(body.into_bytes())))))
}

/// Returns the answer to whoever's certificate is not taken, before its request is read.
pub(super) fn denied(refused: &PeerRefused) -> Vec<u8> {
    let (parts, body) = refusal(StatusCode::FORBIDDEN, &certificate_denied(refused)).into_parts();
    // What cannot be written is an end without a word, as before.
    encode(&Response::from_parts(parts, ()), &body.unwrap_or_default()).unwrap_or_default()
}

/// Says that a certificate is not taken, to its holder.
pub(super) fn certificate_denied(refused: &PeerRefused) -> String {
    let rules = refused.told().rules.join(", ");
    format!(
        "this device's certificate is not taken ({rules}); the Switch's log and `muster client list --refused` say why"
    )
}

/// Reads a request that is an upgrade as far as its method and version go; nothing may follow it before the answer.
async fn read_request(line: &mut Line, early: Vec<u8>) -> Result<Request, UpgradeError> {
    let mut bytes = early;
    let mut came = Came::Some;
    loop {
        // By what came, not by what is missing: one read may hold more than a request may have.
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(UpgradeError::AttackAttempt);
        }
        match Request::try_parse(&bytes)? {
            Some((length, request)) if length == bytes.len() => return Ok(request),
            Some(_) => return Err(ProtocolError::JunkAfterRequest.into()),
            None if came == Came::End => return Err(ProtocolError::HandshakeIncomplete.into()),
            None => came = line.receive(&mut bytes).await?,
        }
    }
}

/// Says what this port is to whoever asked for something else. Whoever is gone is not told.
fn no_upgrade(error: UpgradeError) -> Result<ErrorResponse, UpgradeError> {
    if matches!(error, UpgradeError::Io(_) | UpgradeError::Protocol(ProtocolError::HandshakeIncomplete)) {
        return Err(error);
    }
    let status = if let UpgradeError::Protocol(reason) = &error {
        let is_garbage = matches!(reason, ProtocolError::JunkAfterRequest | ProtocolError::HttparseError(_));
        if is_garbage { StatusCode::BAD_REQUEST } else { StatusCode::UPGRADE_REQUIRED }
    } else {
        StatusCode::BAD_REQUEST
    };
    let text = format!(
        "this port holds the sessions of Muster's clients: WebSocket at {PATH}, subprotocol {SUBPROTOCOL} ({error})"
    );
    let mut refusal = refusal(status, &text);
    // RFC 9110 §15.5.22 and §7.8: the answer names what to upgrade to.
    refusal.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade, close"));
    Ok(refusal)
}

/// Answers the upgrade. A client for whom there is no room is told so by HTTP, where a delay has its header.
#[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
fn answer(
    denial: Option<Denial>,
    retry_after_s: u64,
) -> impl FnOnce(&Request, Response) -> Result<Response, ErrorResponse> {
    move |request, mut response| {
        if request.uri().path() != PATH {
            return Err(refusal(StatusCode::NOT_FOUND, &format!("sessions are at {PATH}")));
        }
        if !offers_subprotocol(request) {
            return Err(refusal(StatusCode::BAD_REQUEST, &format!("offer the subprotocol {SUBPROTOCOL}")));
        }
        if let Some(denial) = denial {
            let mut refusal = match denial {
                Denial::NoRoom(no_room) => refusal(StatusCode::SERVICE_UNAVAILABLE, &no_room.to_string()),
                Denial::Blocked => refusal(StatusCode::FORBIDDEN, BLOCKED),
                Denial::Unproven(unproven) => refusal(StatusCode::FORBIDDEN, &unproven.to_string()),
            };
            refusal.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
            return Err(refusal);
        }
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        Ok(response)
    }
}

fn offers_subprotocol(request: &Request) -> bool {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL)
}

fn refusal(status: StatusCode, text: &str) -> ErrorResponse {
    let body = format!("{text}\n");
    let length = HeaderValue::from(body.len());
    let mut response = ErrorResponse::new(Some(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn encode(response: &Response, body: &str) -> Result<Vec<u8>, UpgradeError> {
    let mut bytes = Vec::new();
    write_response(&mut bytes, response)?;
    bytes.extend_from_slice(body.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_the_path_and_subprotocol_of_the_protocol() {
        let response = answer(None, 30)(&request(PATH, "other, muster.v1"), Response::new(())).unwrap();

        assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], SUBPROTOCOL);
    }

    #[test]
    fn refuses_another_path_or_subprotocol_with_the_right_one_named() {
        let path = answer(None, 30)(&request("/", SUBPROTOCOL), Response::new(())).unwrap_err();
        let subprotocol = answer(None, 30)(&request(PATH, "muster.v2"), Response::new(())).unwrap_err();

        assert_eq!((path.status(), subprotocol.status()), (StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST));
        assert_eq!(subprotocol.body().as_deref(), Some("offer the subprotocol muster.v1\n"));
    }

    #[test]
    fn tells_a_client_when_to_come_back_if_there_is_no_room() {
        let full =
            answer(Some(Denial::NoRoom(NoRoom::Full)), 30)(&request(PATH, SUBPROTOCOL), Response::new(()))
                .unwrap_err();

        assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(full.headers()[header::RETRY_AFTER], "30");
    }

    fn request(path: &str, subprotocols: &str) -> Request {
        Request::builder().uri(path).header(header::SEC_WEBSOCKET_PROTOCOL, subprotocols).body(()).unwrap()
    }
}
