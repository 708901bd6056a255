//! What a frame's fields may hold.

use std::collections::BTreeSet;

use super::FrameError;
use crate::common::v1::value::Kind;
use crate::common::v1::{Column, ColumnType, NamedValue, Refusal, Row, TargetState, Value};
use crate::ids::{Digest, InstructionId, OutboxId};
use crate::limits;
use crate::session::v1::frame::Body;
use crate::session::v1::{
    Ack, CloseReason, Document, DocumentKind, DocumentRequest, Event, EventBatch, Frame, GoAway, Hello,
    InclusionProof, Lane, Progress, Result as InstructionResult, SequenceRange, Welcome,
};

type Checked = Result<(), FrameError>;

/// Checks a frame that was built rather than decoded, as [`super::decode`] checks what came from outside.
///
/// # Errors
/// [`FrameError`]: the first field that the peer would refuse.
pub fn check(frame: &Frame) -> Checked {
    if let Some(proof) = &frame.proof {
        check_proof(proof)?;
    }
    let Some(body) = &frame.body else { return Ok(()) };
    if frame.proof.is_some() && !matches!(body, Body::Order(_)) {
        return Err(invalid("proof", "beside another body", "a proof beside an order only"));
    }
    match body {
        Body::Hello(hello) => check_hello(hello),
        Body::Welcome(welcome) => check_welcome(welcome),
        Body::Ping(_) | Body::Pong(_) | Body::PolicyCheck(_) => Ok(()),
        Body::Order(order) => {
            at_most("OrderDelivery.envelope", order.envelope.len(), limits::ENVELOPE_BYTES_MAX)
        }
        Body::Progress(progress) => check_progress(progress),
        Body::Result(result) => check_result(result),
        Body::Event(event) => check_event(event),
        Body::Ack(ack) => check_ack(ack),
        Body::DocumentRequest(request) => check_document_request(request),
        Body::Document(document) => check_document(document),
        Body::LicenceNotice(notice) => id::<Digest>("LicenceNotice.digest", &notice.digest),
        Body::GoAway(go_away) => check_go_away(go_away),
        Body::PolicyNotice(notice) => digest_or_none("PolicyNotice.digest", &notice.digest),
    }
}

/// Checks the body of `POST /Background/v1/events`, decoded.
///
/// # Errors
/// [`FrameError`]: the first field that breaks a bound, no event at all, or events that are not in ascending order.
pub fn check_event_batch(batch: &EventBatch) -> Checked {
    id::<OutboxId>("EventBatch.outbox_id", &batch.outbox_id)?;
    no_more("EventBatch.events", batch.events.len(), limits::EVENT_BATCH_EVENTS_MAX)?;
    if batch.events.is_empty() {
        return Err(invalid("EventBatch.events", "none", "1 to 1,000 events"));
    }
    batch.events.iter().try_for_each(check_event)?;
    if !batch.events.is_sorted_by(|one, next| one.sequence < next.sequence) {
        return Err(invalid("EventBatch.events", "not in order", "events in ascending order of sequence"));
    }
    encoded_at_most("an EventBatch", batch, limits::EVENT_BATCH_BYTES_MAX)
}

fn check_hello(hello: &Hello) -> Checked {
    id::<OutboxId>("Hello.outbox_id", &hello.outbox_id)?;
    no_more("Hello.versions", hello.versions.len(), limits::VERSIONS_MAX)?;
    at_most("Hello.client_version", hello.client_version.len(), limits::CLIENT_VERSION_BYTES_MAX)?;
    no_more("Hello.attributes", hello.attributes.len(), limits::ATTRIBUTES_MAX)?;
    hello.attributes.iter().try_for_each(|attribute| check_named_value("Hello.attributes", attribute))?;
    digest_or_none("Hello.licence_digest", &hello.licence_digest)
}

fn check_welcome(welcome: &Welcome) -> Checked {
    let idle = u128::from(welcome.idle_timeout_ms);
    if !(limits::IDLE_TIMEOUT_MIN.as_millis()..=limits::IDLE_TIMEOUT_MAX.as_millis()).contains(&idle) {
        return Err(invalid("Welcome.idle_timeout_ms", idle, "1,000 to 3,600,000"));
    }
    digest_or_none("Welcome.licence_digest", &welcome.licence_digest)
}

fn check_proof(proof: &InclusionProof) -> Checked {
    no_more("InclusionProof.hashes", proof.hashes.len(), limits::PROOF_HASHES_MAX)?;
    proof.hashes.iter().try_for_each(|hash| id::<Digest>("InclusionProof.hashes", hash))
}

fn check_progress(progress: &Progress) -> Checked {
    id::<InstructionId>("Progress.instruction", &progress.instruction)?;
    match TargetState::try_from(progress.state) {
        Ok(TargetState::Acked | TargetState::Running) => Ok(()),
        _ => Err(invalid("Progress.state", progress.state, "ACKED or RUNNING")),
    }
}

fn check_result(result: &InstructionResult) -> Checked {
    sequence("Result.sequence", result.sequence)?;
    id::<InstructionId>("Result.instruction", &result.instruction)?;
    let state = TargetState::try_from(result.state).ok().filter(|state| state.is_terminal());
    let state = state.ok_or_else(|| invalid("Result.state", result.state, "a terminal state"))?;
    let refusal = Refusal::try_from(result.refusal)
        .map_err(|_| invalid("Result.refusal", result.refusal, "a Refusal"))?;
    if (state == TargetState::Refused) != (refusal != Refusal::Unspecified) {
        return Err(invalid(
            "Result.refusal",
            refusal.name(),
            "a refusal if, and only if, the state is REFUSED",
        ));
    }
    at_most("Result.detail", result.detail.len(), limits::DETAIL_BYTES_MAX)?;
    no_more("Result.sandbox_missing", result.sandbox_missing.len(), limits::SANDBOX_MISSING_MAX)?;
    let mut layers = result.sandbox_missing.iter();
    layers.try_for_each(|layer| at_most("Result.sandbox_missing", layer.len(), limits::NAME_BYTES_MAX))?;
    check_columns(&result.columns)?;
    result.rows.iter().try_for_each(|row| check_row(row, result.columns.len()))?;
    // A row of no values takes two bytes on the wire and many more here.
    if result.columns.is_empty() && !result.rows.is_empty() {
        return Err(invalid("Result.rows", "rows without columns", "columns, where there are rows"));
    }
    encoded_at_most("a Result", result, limits::RESULT_BYTES_MAX)
}

fn check_columns(columns: &[Column]) -> Checked {
    no_more("Result.columns", columns.len(), limits::COLUMNS_MAX)?;
    let mut names = BTreeSet::new();
    for column in columns {
        if column.name.is_empty() || !names.insert(column.name.as_str()) {
            return Err(invalid(
                "Result.columns",
                excerpt(&column.name),
                "names of 1 to 64 bytes, each once",
            ));
        }
        at_most("Column.name", column.name.len(), limits::NAME_BYTES_MAX)?;
        ColumnType::try_from(column.r#type)
            .map_err(|_| invalid("Column.type", column.r#type, "a ColumnType"))?;
    }
    Ok(())
}

fn check_row(row: &Row, columns: usize) -> Checked {
    if row.values.len() != columns {
        return Err(invalid("Row.values", row.values.len(), "as many as there are columns"));
    }
    row.values.iter().try_for_each(|value| check_value("Row.values", value))
}

/// Checks an event by itself.
///
/// # Errors
/// [`FrameError`]: the first field that breaks a bound.
pub fn check_event(event: &Event) -> Checked {
    sequence("Event.sequence", event.sequence)?;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.');
    if !(1..=limits::NAME_BYTES_MAX).contains(&event.name.len()) || !event.name.bytes().all(fits) {
        return Err(invalid("Event.name", excerpt(&event.name), "1 to 64 of a-z, 0-9, `_` and `.`"));
    }
    no_more("Event.fields", event.fields.len(), limits::EVENT_FIELDS_MAX)?;
    event.fields.iter().try_for_each(|field| check_named_value("Event.fields", field))?;
    encoded_at_most("an Event", event, limits::EVENT_BYTES_MAX)
}

fn check_ack(ack: &Ack) -> Checked {
    match Lane::try_from(ack.lane) {
        Ok(Lane::Results | Lane::Events) => {}
        Ok(Lane::Unspecified) | Err(_) => return Err(invalid("Ack.lane", ack.lane, "RESULTS or EVENTS")),
    }
    no_more("Ack.ranges", ack.ranges.len(), limits::ACK_RANGES_MAX)?;
    ack.ranges.iter().try_for_each(check_range)
}

fn check_range(range: &SequenceRange) -> Checked {
    if range.first == 0 || range.last < range.first {
        let got = format!("{}..={}", range.first, range.last);
        return Err(invalid("SequenceRange", got, "1 or more, the last not before the first"));
    }
    Ok(())
}

fn check_document_request(request: &DocumentRequest) -> Checked {
    document_kind("DocumentRequest.kind", request.kind)?;
    id::<Digest>("DocumentRequest.digest", &request.digest)
}

fn check_document(document: &Document) -> Checked {
    document_kind("Document.kind", document.kind)?;
    id::<Digest>("Document.digest", &document.digest)?;
    at_most("Document.envelope", document.envelope.len(), limits::ENVELOPE_BYTES_MAX)
}

fn check_go_away(go_away: &GoAway) -> Checked {
    match CloseReason::try_from(go_away.reason) {
        Ok(CloseReason::Unspecified) | Err(_) => {
            return Err(invalid("GoAway.reason", go_away.reason, "a CloseReason"));
        }
        Ok(_) => {}
    }
    if u128::from(go_away.reconnect_after_ms) > limits::RECONNECT_AFTER_MAX.as_millis() {
        return Err(invalid("GoAway.reconnect_after_ms", go_away.reconnect_after_ms, "at most 3,600,000"));
    }
    at_most("GoAway.detail", go_away.detail.len(), limits::GO_AWAY_DETAIL_BYTES_MAX)
}

fn check_named_value(field: &'static str, named: &NamedValue) -> Checked {
    name(field, &named.name)?;
    named.value.as_ref().map_or(Ok(()), |value| check_value(field, value))
}

fn check_value(field: &'static str, value: &Value) -> Checked {
    match &value.kind {
        None | Some(Kind::Integer(_)) => Ok(()),
        Some(Kind::Real(real)) if real.is_nan() => Err(invalid(field, "NaN", "a number, or NULL")),
        Some(Kind::Real(_)) => Ok(()),
        Some(Kind::Text(text)) => at_most(field, text.len(), limits::VALUE_BYTES_MAX),
        Some(Kind::Blob(blob)) => at_most(field, blob.len(), limits::VALUE_BYTES_MAX),
    }
}

fn document_kind(field: &'static str, kind: i32) -> Checked {
    match DocumentKind::try_from(kind) {
        Ok(DocumentKind::Definition | DocumentKind::Licence | DocumentKind::Policy) => Ok(()),
        Ok(DocumentKind::Unspecified) | Err(_) => Err(invalid(field, kind, "DEFINITION, LICENCE or POLICY")),
    }
}

fn name(field: &'static str, name: &str) -> Checked {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !(1..=limits::NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(fits) {
        return Err(invalid(
            field,
            excerpt(name),
            "names of 1 to 64 ASCII letters, digits, `_`, `.` and `-`",
        ));
    }
    Ok(())
}

fn sequence(field: &'static str, sequence: u64) -> Checked {
    if sequence == 0 { Err(invalid(field, 0, "1 or more")) } else { Ok(()) }
}

fn digest_or_none(field: &'static str, digest: &[u8]) -> Checked {
    if digest.is_empty() { Ok(()) } else { id::<Digest>(field, digest) }
}

fn id<'a, T: TryFrom<&'a [u8]>>(field: &'static str, bytes: &'a [u8]) -> Checked {
    let wanted = if size_of::<T>() == 32 { "32 bytes" } else { "16 bytes" };
    T::try_from(bytes).map(|_| ()).map_err(|_| invalid(field, format!("{} bytes", bytes.len()), wanted))
}

fn at_most(what: &'static str, got: usize, max: usize) -> Checked {
    if got > max { Err(FrameError::TooLarge { what, got, max }) } else { Ok(()) }
}

fn no_more(what: &'static str, got: usize, max: usize) -> Checked {
    if got > max { Err(FrameError::TooMany { what, got, max }) } else { Ok(()) }
}

fn encoded_at_most(what: &'static str, message: &impl prost::Message, max: usize) -> Checked {
    at_most(what, message.encoded_len(), max)
}

fn invalid(field: &'static str, got: impl ToString, wanted: &'static str) -> FrameError {
    FrameError::Invalid { field, got: got.to_string(), wanted }
}

/// Quotes the beginning of foreign text, so that an error's length is bounded and control characters are escaped.
fn excerpt(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}
