//! What a client said, told to the engine; and the engine's answers, told to the client.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use muster_proto::common::v1::TargetState;
use muster_proto::ids::{Digest, Epoch, InstructionId, OutboxId};
use muster_proto::session::switch::{SwitchEvent, WelcomeArgs};
use muster_proto::session::v1::{CloseReason, Document, DocumentKind, Hello};

use super::Shard;
use super::handshake::Visitor;
use super::session::{Due, Ending, Identity, Session};
use super::table::Table;
use crate::engine::{Connect, Connected, DueOrder, EngineError, SessionKey, Urgency};
use crate::metrics;

/// How long a client is told to stay away when the engine could not take it.
const REFUSED_RECONNECT_AFTER: Duration = Duration::from_secs(10);

/// Tells the engine everything that the protocol's half has understood.
///
/// Waiting for the engine here is the backpressure: meanwhile nothing more is read from this client. The engine
/// answers within its own deadlines, or dies, and then every answer is an error.
pub(super) async fn converse(shard: &Shard, session: &Rc<Session>, visitor: &Visitor) {
    while let Some(saying) = next(shard, session, visitor) {
        saying.await;
    }
}

/// Takes the next event; what becomes of it is boxed, so that a session to which nothing happens has no room for it.
fn next<'a>(
    shard: &'a Shard,
    session: &'a Rc<Session>,
    visitor: &'a Visitor,
) -> Option<Pin<Box<dyn Future<Output = ()> + 'a>>> {
    // The end is left for the pump, which writes the last frames first.
    if session.half(|half| half.is_closed()) {
        return None;
    }
    Some(match session.half(|half| half.poll_event())? {
        SwitchEvent::Hello(hello) => Box::pin(greet(shard, session, visitor, hello)),
        event @ (SwitchEvent::Progress { .. }
        | SwitchEvent::Result(..)
        | SwitchEvent::Event(..)
        | SwitchEvent::DocumentRequest { .. }
        | SwitchEvent::PolicyCheck { .. }
        | SwitchEvent::Closed { .. }) => Box::pin(report(shard, session, event)),
    })
}

async fn greet(shard: &Shard, session: &Rc<Session>, visitor: &Visitor, hello: Hello) {
    let Ok(outbox) = OutboxId::try_from(hello.outbox_id.as_slice()) else {
        let detail = "outbox_id must be 16 bytes".to_owned();
        session.end(&Ending {
            reason: CloseReason::ProtocolError,
            reconnect_after: REFUSED_RECONNECT_AFTER,
            detail,
        });
        return;
    };
    let connect = Connect {
        device: session.device.clone(),
        thumbprint: visitor.certificate.map(|shown| shown.thumbprint.to_string()).unwrap_or_default(),
        certificate_not_after_ms: visitor.certificate.map(|shown| shown.not_after_ms).unwrap_or_default(),
        address: visitor.address.get(),
        shard: shard.index,
        slot: session.slot,
        hello,
    };
    shard.table.connecting();
    match shard.engine.connect(connect).await {
        Ok(connected) => welcome(shard, session, visitor.address.get(), outbox, connected),
        Err(error) => {
            shard.table.not_connected();
            session.note_unanswered();
            unwelcome(session, &error);
        }
    }
}

/// Notes where a client is whose address has changed, for whoever lists it.
pub(super) fn follow(shard: &Shard, session: &Session, visitor: &Visitor) {
    let before = visitor.address.get();
    let Some(address) = session.wire(|wire| wire.address()).flatten().filter(|address| *address != before)
    else {
        return;
    };
    visitor.address.set(address);
    shard.engine.moved(&session.device, before, address);
    tracing::debug!(device = %session.device, %before, %address, "the client has another address");
}

fn welcome(
    shard: &Shard,
    session: &Rc<Session>,
    address: SocketAddr,
    outbox: OutboxId,
    connected: Connected,
) {
    let (epoch, due) = (connected.epoch, connected.due.len());
    let key = SessionKey { shard: shard.index, slot: session.slot, epoch };
    shard.registry.insert(session.device.clone(), key);
    introduce(&shard.table, session, outbox, connected, (shard.wall.now_ms(), Instant::now()));
    session.wire(|wire| wire.welcome());
    tracing::debug!(device = %session.device, %address, %epoch, due, "session established");
}

/// Gives a session its identity, its Welcome and what is due. Nothing here waits, so no message of the engine comes between the session's
/// identity and its due orders.
pub(super) fn introduce(
    table: &Table,
    session: &Rc<Session>,
    outbox: OutboxId,
    connected: Connected,
    (time_ms, now): (i64, Instant),
) {
    let Connected { number, epoch, licence_digest, licence_serial, policy_serial, due, .. } = connected;
    let licence_digest = table.newest_licence(licence_serial, licence_digest);
    session.note_policy(policy_serial);
    let stops_due = due.iter().filter(|order| order.urgency == Urgency::Stop).count();
    let args = WelcomeArgs {
        epoch,
        time_ms,
        licence_digest,
        highest_sequence: connected.highest_sequence,
        highest_by_session: connected.highest_by_session,
        stops_due: u32::try_from(stops_due).unwrap_or(u32::MAX),
    };
    session.half(|half| half.push_welcome(args, now));
    let had: Vec<InstructionId> = due.iter().map(|order| order.instruction).collect();
    session.push_due(
        due.into_iter()
            .map(|order| {
                let DueOrder { instruction, frame, urgency } = order;
                Due { instruction, frame, since: now, urgency }
            })
            .collect(),
    );
    table.connected(session, Identity { number, epoch, outbox }, &had);
}

/// Ends a session that the engine does not take.
pub(super) fn unwelcome(session: &Session, error: &EngineError) {
    tracing::warn!(device = %session.device, %error, "client refused by the engine");
    let reason = if matches!(error, EngineError::PermissionDenied(_)) {
        // Blocked since its handshake.
        CloseReason::Revoked
    } else if error.is_transient() {
        CloseReason::Shutdown
    } else {
        CloseReason::ProtocolError
    };
    session.end(&Ending { reason, reconnect_after: REFUSED_RECONNECT_AFTER, detail: error.to_string() });
}

/// Tells the engine that a session has ended, however long its queue is full: a device that it took for online would
/// stay so until it connects again. A session without an
/// identity must still have its slot.
pub(super) async fn farewell(shard: &Shard, session: &Session) {
    let told = match session.identity() {
        Some(Identity { number, epoch, .. }) => until_told(|| shard.engine.disconnected(number, epoch)).await,
        None if session.is_unanswered() => {
            until_told(|| shard.engine.abandon(session.device.clone(), shard.index, session.slot)).await
        }
        None => Ok(()),
    };
    if let Err(error) = told {
        tracing::debug!(%error, "the engine was not told of a session's end");
    }
}

/// Tries until the engine has taken it or cannot take it any more. Each attempt waits for the engine's own deadline.
async fn until_told<F: Future<Output = Result<(), EngineError>>>(
    mut tell: impl FnMut() -> F,
) -> Result<(), EngineError> {
    loop {
        match tell().await {
            Err(error @ EngineError::ResourceExhausted(_)) => {
                // The engine counts its full queue; thousands of sessions may wait here at once.
                tracing::debug!(%error, "a session's end waits for the engine");
                tokio::task::yield_now().await;
            }
            told => return told,
        }
    }
}

async fn report(shard: &Shard, session: &Session, said: SwitchEvent) {
    // The protocol's half lets nothing through before its Welcome, which comes after the identity.
    let Some(Identity { number, epoch, outbox }) = session.identity() else { return };
    let key = SessionKey { shard: shard.index, slot: session.slot, epoch };
    let taken = match said {
        SwitchEvent::Progress { state: TargetState::Sent, .. } => Ok(()),
        SwitchEvent::Progress { instruction, state } if shard.words.note((instruction, state), number) => {
            Ok(())
        }
        SwitchEvent::Progress { instruction, state } => {
            shard.engine.progress(instruction, state, [number].into()).await
        }
        SwitchEvent::Result(result, bytes) => shard.engine.result(number, outbox, key, result, bytes).await,
        SwitchEvent::Event(event, bytes) => shard.engine.event(number, outbox, key, event, bytes).await,
        SwitchEvent::DocumentRequest { kind, digest } => {
            hand_over(shard, session, kind, digest);
            Ok(())
        }
        SwitchEvent::PolicyCheck { serial } => check_policy(shard, session, number, epoch, serial).await,
        SwitchEvent::Hello(_) | SwitchEvent::Closed { .. } => Ok(()),
    };
    if let Err(error) = taken {
        // The client keeps what was not acked and sends it again in its next session.
        unwelcome(session, &error);
    }
}

/// Notes which policy the client follows, and names a later one, or none.
async fn check_policy(
    shard: &Shard,
    session: &Session,
    number: u32,
    epoch: Epoch,
    serial: u64,
) -> Result<(), EngineError> {
    let later = shard.engine.policy_check(number, epoch, serial, session.policy()).await?;
    session.note_policy(serial);
    // Who asks of itself does so at a moment of its own already.
    session.push_policy_notice(later, Duration::ZERO);
    Ok(())
}

fn hand_over(shard: &Shard, session: &Session, kind: DocumentKind, digest: Digest) {
    let envelope = shard.engine.document(kind, digest).unwrap_or_default();
    let document = Document { kind: kind.into(), digest: digest.to_vec(), envelope };
    if session.half(|half| half.push_document(document)).is_err() {
        metrics::dropped("document");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_session_is_told_until_the_engine_takes_it() {
        let attempts = Cell::new(0);

        let told = until_told(|| async {
            attempts.set(attempts.get() + 1);
            if attempts.get() < 4 { Err(EngineError::ResourceExhausted("full".to_owned())) } else { Ok(()) }
        })
        .await;

        assert_eq!((told, attempts.get()), (Ok(()), 4));
    }

    #[tokio::test]
    async fn the_end_of_a_session_is_not_told_to_an_engine_that_is_gone() {
        assert_eq!(until_told(|| async { Err(EngineError::Closed) }).await, Err(EngineError::Closed));
    }
}
