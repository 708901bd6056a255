//! Stops one instruction: has the Switch prepare the stop, holds it against what was typed, signs it, and submits it.
//!
//! A stop is an order, and the Switch is no more believed with it than with any other: what is signed ends the instruction that was
//! named, for the reason that was typed, and nothing else.

use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::{Instruction, PrepareStopRequest, SubmitStopRequest};
use muster_proto::order::v1::Order;
use muster_signing::envelope::{self, ContentType};
use muster_signing::order;
use rustls_pki_types::UnixTime;
use tonic::Code;

use crate::cli::OrderKey;
use crate::clock::now_ms;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::operator::{Operator, answered};
use crate::order_check::CLOCK_SLACK_MS;
use crate::order_key;
use crate::output;
use crate::seen;
use crate::submit::RESUBMIT_PAUSE;

/// What an instruction was when it was to be stopped.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It is stopped by this call.
    Stopped,
    /// It had ended, or was stopped before.
    Before(Box<Instruction>),
}

/// Stops an instruction; when this returns, the Switch has the stop on disk.
pub(crate) async fn stop(
    operator: &Operator,
    home: &Home,
    id: InstructionId,
    reason: &str,
    key: &OrderKey,
) -> Result<Standing, Failure> {
    let signer = order_key::open(home, key)?;
    let request = PrepareStopRequest { instruction: id.to_string(), reason: reason.to_owned() };
    let prepared = answered(operator.instructions().prepare_stop(request)).await?;
    if prepared.order.is_empty() {
        return Ok(Standing::Before(Box::new(prepared.instruction.unwrap_or_default())));
    }
    let stop = order::decode(&prepared.order).map_err(|error| {
        Failure::denied(format!("the Switch prepared a stop that does not decode: {error}"))
    })?;
    check(&stop, id, reason, operator.name(), now_ms())?;
    seen::hold_stop(operator, home, &stop).await?;
    let envelope = envelope::sign(&prepared.order, ContentType::Order, &signer, UnixTime::now())
        .map_err(|error| Failure::denied(format!("sign the stop: {error}")))?;
    submit(operator, envelope, id).await
}

/// Submits the stop, and once more where no answer came: the same stop twice is one.
async fn submit(operator: &Operator, envelope: Vec<u8>, id: InstructionId) -> Result<Standing, Failure> {
    let request = SubmitStopRequest { envelope };
    let once = async || answered(operator.instructions().submit_stop(request.clone())).await;
    let mut submitted = once().await;
    if let Err(status) = &submitted
        && Failure::from(status.clone()).exit() == Exit::Unreachable
    {
        tokio::time::sleep(RESUBMIT_PAUSE).await;
        submitted = once().await;
    }
    match submitted {
        Ok(_) => Ok(Standing::Stopped),
        Err(status) if status.code() == Code::FailedPrecondition => ended(operator, id, status).await,
        Err(status) => Err(Failure::from(status).with_next(format!("muster instruction show {id}"))),
    }
}

/// It may have ended between the two calls; then there is nothing to stop.
async fn ended(operator: &Operator, id: InstructionId, status: tonic::Status) -> Result<Standing, Failure> {
    let request = muster_proto::operator::v1::GetInstructionRequest { instruction: id.to_string() };
    let shown = answered(operator.instructions().get_instruction(request)).await?.instruction;
    match shown.filter(|instruction| instruction.complete) {
        Some(instruction) => Ok(Standing::Before(Box::new(instruction))),
        None => Err(status.into()),
    }
}

/// Holds a prepared stop against what was typed.
///
/// # Errors
/// Names the first difference; nothing may be signed then.
fn check(stop: &Order, id: InstructionId, reason: &str, operator: &str, now_ms: i64) -> Result<(), Failure> {
    let stopped = order::stops(stop).map_or_else(|| "none".to_owned(), |stopped| stopped.to_string());
    let compared = [
        ("the instruction that it stops", stopped, id.to_string()),
        ("the reason", format!("{:?}", stop.reason), format!("{reason:?}")),
        ("the operator", stop.operator.to_lowercase(), operator.to_lowercase()),
    ];
    for (what, got, wanted) in compared {
        if got != wanted {
            return Err(differs(what, &got, &wanted));
        }
    }
    let first = now_ms.saturating_add(CLOCK_SLACK_MS);
    if stop.not_before_ms > first {
        return Err(differs("the start of its window", &output::moment(stop.not_before_ms), "now"));
    }
    if stop.expires_at_ms < now_ms {
        return Err(differs("the end of its window", &output::moment(stop.expires_at_ms), "later"));
    }
    Ok(())
}

fn differs(what: &str, got: &str, wanted: &str) -> Failure {
    Failure::denied(format!(
        "the Switch prepared another stop than was asked for: {what} is {got}, asked was {wanted}; nothing was signed"
    ))
    .with_next("muster doctor   (is it the right Switch, and is its clock right?)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn id(last: u8) -> InstructionId {
        InstructionId::from([1, 2, 3, 4, 5, 6, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, last])
    }

    fn prepared() -> Order {
        Order {
            operator: "jane".to_owned(),
            stops: id(1).to_vec(),
            reason: "wrong fleet".to_owned(),
            not_before_ms: NOW - 60_000,
            expires_at_ms: NOW + 600_000,
            ..Order::default()
        }
    }

    #[test]
    fn a_switch_that_prepares_another_stop_gets_no_signature() {
        let verdict = |stop: &Order| {
            check(stop, id(1), "wrong fleet", "jane", NOW).map_err(|failure| failure.to_string())
        };
        assert_eq!(verdict(&prepared()), Ok(()));

        type Lie = (&'static str, fn(&mut Order));
        let lies: [Lie; 6] = [
            ("the instruction that it stops", |stop| stop.stops = id(2).to_vec()),
            ("the instruction that it stops", |stop| stop.stops.clear()),
            ("the reason", |stop| stop.reason.clear()),
            ("the operator", |stop| stop.operator = "eve".to_owned()),
            ("the start of its window", |stop| stop.not_before_ms = NOW + 600_000),
            ("the end of its window", |stop| stop.expires_at_ms = NOW - 1),
        ];
        for (what, lie) in lies {
            let mut stop = prepared();
            lie(&mut stop);

            let refused = verdict(&stop).unwrap_err();

            assert!(refused.contains(what) && refused.contains("nothing was signed"), "{what}: {refused}");
        }
    }
}
