//! Approves one instruction: has the Switch hand over the signed order, shows what it says, and signs the same bytes.
//!
//! An approval is worth what its giver has seen, so nothing is taken from the Switch's word: the signatures and the definition are
//! verified here, and what is shown is what is in the signed bytes.

use muster_pki::{Certificate, Facts, Role};
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::{
    GetInstructionRequest, Instruction, PrepareApprovalRequest, SubmitApprovalRequest,
};
use muster_proto::order::v1::Order;
use muster_signing::approval::is_same_person;
use muster_signing::definition::Definition;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::order;
use rustls_pki_types::UnixTime;
use tonic::{Code, Status};

use crate::clock::now_ms;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::issue::verified_definition;
use crate::operator::{Operator, answered};
use crate::order_check::{CLOCK_SLACK_MS, rooted};
use crate::output;
use crate::seen;
use crate::submit::RESUBMIT_PAUSE;

/// How often an order is signed anew since somebody else's approval came first: there can be no more.
const ATTEMPTS: u32 = envelope::APPROVALS_MAX + 1;

/// What there is to approve; everything in it was verified here.
#[derive(Debug)]
pub(crate) struct ToApprove {
    envelope: Vec<u8>,
    content: Vec<u8>,
    /// What the signed bytes say.
    pub(crate) order: Order,
    /// What it issues.
    pub(crate) definition: Definition,
    /// Who has signed it, in no order.
    pub(crate) signers: Vec<Certificate>,
}

/// How an instruction stands with its approvals.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It lacks some.
    Lacks(Box<ToApprove>),
    /// It lacks none, or asks for none.
    Whole(Box<Instruction>),
}

/// Fetches what there is to approve of an instruction.
pub(crate) async fn fetch(operator: &Operator, home: &Home, id: InstructionId) -> Result<Standing, Failure> {
    let request = PrepareApprovalRequest { instruction: id.to_string() };
    let prepared = answered(operator.instructions().prepare_approval(request)).await?;
    if prepared.envelope.is_empty() {
        return Ok(Standing::Whole(Box::new(prepared.instruction.unwrap_or_default())));
    }
    let roots = home.document_roots("orders")?;
    let facts = Facts::at(UnixTime::now());
    let (envelope, role) = (prepared.envelope, Role::OrderSigner);
    let verified = envelope::verify(&envelope, ContentType::Order, role, &roots.anchors(), &facts)
        .map_err(|error| Failure::denied(format!("the order's signatures: {error}; nothing was signed")))?;
    let order = order::decode(&verified.content).map_err(|error| {
        Failure::denied(format!("the Switch holds an order that does not decode: {error}"))
    })?;
    let authored = verified_definition(home, &prepared.definition)?;
    check(&order, id, &authored.definition, &prepared.definition, now_ms())?;
    seen::hold(operator, home, &order, &authored, seen::Age::Waiting).await?;
    let definition = authored.definition;
    let (content, signers) = (verified.content, verified.signers);
    Ok(Standing::Lacks(Box::new(ToApprove { envelope, content, order, definition, signers })))
}

/// Signs what was shown, and submits it; when this returns, the Switch has the approval on disk.
pub(crate) async fn approve(
    operator: &Operator,
    home: &Home,
    shown: ToApprove,
    id: InstructionId,
    signer: &Signer,
) -> Result<(), Failure> {
    let own = signer.certificate();
    if let Some(own) = own.filter(|&own| shown.signers.iter().any(|other| is_same_person(other, own))) {
        return Err(Failure::denied(format!(
            "{} has signed it already; an approval is another person's",
            own.subject()
        )));
    }
    let (content, mut envelope) = (shown.content, shown.envelope);
    for _ in 0..ATTEMPTS {
        let signed = envelope::cosign(&envelope, signer, UnixTime::now())
            .map_err(|error| Failure::denied(format!("sign the order: {error}")))?;
        match submit(operator, signed).await {
            Err(status) if status.code() == Code::Aborted => {}
            // Where no answer came to the first try, it may have counted, and others may have come after it.
            Err(_) if has_approved(operator, id, own).await => return Ok(()),
            Err(status) => {
                return Err(Failure::from(status).with_next(format!("muster instruction show {id}")));
            }
            Ok(()) => return Ok(()),
        }
        // Somebody else's came in between: the same bytes, with that signature, too.
        envelope = match fetch(operator, home, id).await? {
            Standing::Whole(_) => return Ok(()),
            Standing::Lacks(again) if again.content == content => again.envelope,
            Standing::Lacks(_) => {
                return Err(Failure::denied(
                    "the Switch holds another order than the one that was shown; nothing was approved",
                )
                .with_next("muster doctor"));
            }
        };
    }
    Err(Failure::new(Exit::Refused, "others approve it all the time; nothing was approved")
        .with_next(format!("muster instruction show {id}")))
}

/// Whether the Switch has an approval by this certificate.
async fn has_approved(operator: &Operator, id: InstructionId, own: Option<&Certificate>) -> bool {
    let request = GetInstructionRequest { instruction: id.to_string() };
    let shown = answered(operator.instructions().get_instruction(request)).await;
    let given =
        shown.ok().and_then(|shown| shown.instruction).map(|shown| shown.approvals).unwrap_or_default();
    let thumbprint = own.map(|own| own.thumbprint().to_string());
    given.into_iter().any(|given| Some(given.signer_thumbprint) == thumbprint)
}

/// Submits the approval, and once more where no answer came: the same one twice is one.
async fn submit(operator: &Operator, envelope: Vec<u8>) -> Result<(), Status> {
    let request = SubmitApprovalRequest { envelope };
    let once = async || answered(operator.instructions().submit_approval(request.clone())).await.map(drop);
    match once().await {
        Err(status) if Failure::from(status.clone()).exit() == Exit::Unreachable => {
            tokio::time::sleep(RESUBMIT_PAUSE).await;
            once().await
        }
        answered => answered,
    }
}

/// Holds the order against what was typed, and against the definition that came with it.
///
/// # Errors
/// Names the first difference; nothing may be signed then.
fn check(
    order: &Order,
    id: InstructionId,
    definition: &Definition,
    definition_envelope: &[u8],
    now_ms: i64,
) -> Result<(), Failure> {
    let made_at_ms =
        InstructionId::try_from(order.instruction.as_slice()).map_or(i64::MAX, |id| id.made_at_ms());
    let first_ms = now_ms.saturating_add(CLOCK_SLACK_MS);
    // As of what one issues oneself: a signature must not be put aside for later.
    if made_at_ms > first_ms || order.not_before_ms > first_ms || order.expires_at_ms <= now_ms {
        return Err(Failure::denied(format!(
            "the order is for the time from {} to {}, and was made at {}; nothing was signed",
            output::moment(order.not_before_ms),
            output::moment(order.expires_at_ms),
            output::moment(made_at_ms),
        ))
        .with_next("muster doctor   (is this clock right?)"));
    }
    let instruction = InstructionId::try_from(order.instruction.as_slice());
    let instruction = instruction.map_or_else(|error| error.to_string(), |it| it.to_string());
    let digest = hex::encode(envelope::digest(definition_envelope));
    let compared = [
        ("the instruction", instruction, id.to_string()),
        ("the definition", hex::encode(&order.definition_digest), digest),
        ("the name", order.definition_name.clone(), definition.name().to_string()),
        ("the version", order.definition_version.clone(), definition.version().to_string()),
        (
            "the members root",
            rooted(&order.audience.clone().unwrap_or_default()).to_owned(),
            "there".to_owned(),
        ),
    ];
    for (what, got, wanted) in compared {
        if got != wanted {
            return Err(Failure::denied(format!(
                "the Switch hands over another order than was asked for: {what} is {got}, wanted {wanted}; nothing was signed"
            ))
            .with_next("muster doctor   (is it the right Switch?)"));
        }
    }
    if order::stops(order).is_some() {
        return Err(Failure::denied("the Switch hands over a stop, which needs no approval"));
    }
    definition.bind(&order.arguments).map(drop).map_err(|error| Failure::denied(error.to_string()))
}

#[cfg(test)]
mod tests {
    use muster_proto::order::v1::Audience;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    const ENVELOPE: &[u8] = b"the definition's envelope";

    #[test]
    fn a_switch_that_hands_over_another_order_gets_no_signature() {
        let text = include_str!("../../../signing/definitions/Muster-Os-Version.toml");
        let definition = Definition::parse(text).unwrap();
        let id = |last: u8| InstructionId::from([1, 2, 3, 4, 5, 6, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, last]);
        let order = Order {
            instruction: id(1).to_vec(),
            definition_name: "Muster-Os-Version".to_owned(),
            definition_version: definition.version().to_string(),
            definition_digest: envelope::digest(ENVELOPE).to_vec(),
            not_before_ms: NOW - 60_000,
            expires_at_ms: NOW + 60_000,
            audience: Some(Audience { members_root: vec![7; 32], members_count: 1, ..Audience::default() }),
            ..Order::default()
        };
        let verdict = |order: &Order| {
            check(order, id(1), &definition, ENVELOPE, NOW).map_err(|failure| failure.to_string())
        };
        assert_eq!(verdict(&order), Ok(()));

        type Lie = (&'static str, fn(&mut Order));
        let lies: [Lie; 9] = [
            ("the members root", |order| order.audience = Some(Audience::default())),
            ("the instruction", |order| order.instruction[15] = 2),
            ("the definition", |order| order.definition_digest[0] ^= 1),
            ("the name", |order| order.definition_name = "Muster-Process-Top".to_owned()),
            ("the version", |order| order.definition_version = "2.0.0".to_owned()),
            ("a stop", |order| order.stops = vec![1; 16]),
            ("for the time from", |order| order.not_before_ms = NOW + 600_000),
            ("for the time from", |order| order.expires_at_ms = NOW),
            ("for the time from", |order| order.instruction[0] = 0xff),
        ];
        for (what, lie) in lies {
            let mut order = order.clone();
            lie(&mut order);

            let refused = verdict(&order).unwrap_err();

            assert!(refused.contains(what), "{what}: {refused}");
        }
    }
}
