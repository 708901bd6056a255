//! Approvals: an order whose definition asks for the signatures of others goes to nobody before it has them.
//!
//! Clients count for themselves (`muster_signing::admit`), so that a Switch which sends such an order early has it refused. This one keeps
//! it, its targets queued, and takes one signature after the other over the same bytes; each is on disk before it is answered. With the
//! last one the order goes out, with all signatures in one envelope.

use bytes::Bytes;
use muster_pki::Certificate;
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::operator::v1::Approval;
use muster_signing::approval::people;
use muster_signing::envelope;
use muster_signing::order::Order;

use super::ledgers::Active;
use super::{Core, Moment};
use crate::engine::store::{ApprovalsRecord, InstructionRecord, Write};
use crate::engine::{EngineError, metrics};

/// An order that lacks approvals.
#[derive(Debug)]
pub(super) struct Unapproved {
    /// The signed bytes.
    content: Vec<u8>,
    wanted: u32,
    record: ApprovalsRecord,
}

/// An order with one more signature; all of them were verified.
#[derive(Debug)]
pub(crate) struct ApprovalSubmission {
    pub(crate) envelope: Bytes,
    /// The signed bytes.
    pub(crate) content: Vec<u8>,
    pub(crate) order: Order,
    /// Whose signatures are in the envelope.
    pub(crate) signers: Vec<Certificate>,
    /// Who brings it.
    pub(crate) operator: String,
}

impl Unapproved {
    /// Returns the envelope with all signatures, and what it lacks; `None`: nothing.
    pub(super) fn of(
        record: &InstructionRecord,
        given: Option<ApprovalsRecord>,
    ) -> (Bytes, Option<Box<Self>>) {
        let given = given.unwrap_or_else(|| ApprovalsRecord {
            envelope: record.envelope.clone(),
            approvals: record.approvals,
            given: Vec::new(),
        });
        let (envelope, wanted) = (given.envelope.clone(), record.approvals_wanted);
        let lacks = given.approvals < wanted;
        let unapproved = || Box::new(Self { content: record.order.clone(), wanted, record: given });
        (envelope, lacks.then(unapproved))
    }

    /// Takes the approvals that there are now; returns whether they are enough.
    pub(super) fn take(&mut self, record: ApprovalsRecord) -> bool {
        self.record = record;
        self.record.approvals >= self.wanted
    }

    /// Returns who approves by this submission; `None`: everybody whose signature it has is known to have signed.
    ///
    /// # Errors
    /// It is over other bytes, lacks a signature that is there, or is by somebody who has signed before.
    fn approver<'a>(
        &self,
        submission: &'a ApprovalSubmission,
    ) -> Result<Option<&'a Certificate>, EngineError> {
        let ApprovalSubmission { content, order, signers, operator, .. } = submission;
        if *content != self.content {
            let what = "the signed bytes are not those of the instruction; sign exactly these";
            return Err(EngineError::InvalidArgument(what.to_owned()));
        }
        let again = |by: &str| {
            EngineError::PermissionDenied(format!(
                "{by} has issued or approved it before; an approval is another person's"
            ))
        };
        let there = envelope::inspect(&self.record.envelope);
        let there = there.map_err(|error| EngineError::Internal(error.to_string()))?.signers;
        let is_there = |signer: &Certificate| there.iter().any(|(earlier, _)| earlier == signer);
        let mut new = signers.iter().filter(|signer| !is_there(signer));
        let (first, second) = (new.next(), new.next());
        let before = self.record.given.iter().map(|given| given.operator.as_str());
        let mut before = before.chain([order.operator.as_str()]);
        if first.is_some() && before.any(|name| name.eq_ignore_ascii_case(operator)) {
            return Err(again(operator));
        }
        match (first, second) {
            (Some(signer), None) if signers.len() > there.len() => {
                let known: Vec<Certificate> = there.into_iter().map(|(signer, _)| signer).collect();
                if people(signers) > people(&known) { Ok(Some(signer)) } else { Err(again(signer.subject())) }
            }
            (None, _) => Ok(None),
            (Some(_), _) => Err(EngineError::NotPrepared(
                "another approval came in between; fetch the order again and sign that".to_owned(),
            )),
        }
    }
}

impl Core {
    /// Takes one more signature of an instruction that lacks approvals; with the last one its order goes out. Of an instruction that has
    /// enough, and of the same envelope again, nothing changes.
    pub(super) fn approve(
        &mut self,
        submission: ApprovalSubmission,
        moment: Moment,
    ) -> Result<InstructionId, EngineError> {
        let id = InstructionId::try_from(&submission.order.instruction[..])
            .map_err(|error| EngineError::InvalidArgument(error.to_string()))?;
        let ended = |what: &str| EngineError::FailedPrecondition(format!("instruction {id} {what}"));
        let Some(position) = self.positions.get(&id).copied() else {
            return Err(ended("has ended, or is not known here; there is nothing to approve"));
        };
        if self.stops.has(position) {
            return Err(ended("was stopped; issue it again"));
        }
        let Some(active) = self.active.get(&position) else {
            return Err(ended("is not known here"));
        };
        let Some(unapproved) = active.unapproved() else { return Ok(id) };
        if moment.now_ms >= submission.order.expires_at_ms {
            return Err(ended("has ended without enough approvals; issue it again"));
        }
        let Some(signer) = unapproved.approver(&submission)? else { return Ok(id) };
        self.require_licence(active, moment.now_ms)?;
        self.require_disk(submission.envelope.len(), moment)?;

        let mut record = unapproved.record.clone();
        record.approvals = approvals(&submission.signers);
        record.given.push(Approval {
            operator: submission.operator.clone(),
            signer: signer.subject().to_owned(),
            signer_thumbprint: signer.thumbprint().to_string(),
            at_ms: moment.now_ms,
        });
        tracing::info!(instruction = %id, operator = submission.operator, signer = signer.subject(), "instruction approved");
        record.envelope = submission.envelope;
        self.accept_approval(position, record, moment.now_ms);
        Ok(id)
    }

    fn accept_approval(&mut self, position: i64, record: ApprovalsRecord, now_ms: i64) {
        let Some(active) = self.active.get_mut(&position) else { return };
        metrics::approval_accepted();
        self.out.writes.push(Write::Approvals { instruction: position, record: Box::new(record.clone()) });
        if active.take_approvals(record, now_ms) {
            let waiting = active.queued() & &self.online;
            self.send_order(position, waiting);
        }
    }

    /// What it issues may have lost its licence, or its signers, since it was submitted.
    fn require_licence(&self, active: &Active, now_ms: i64) -> Result<(), EngineError> {
        let digest = Digest::try_from(&active.definition_digest[..]).ok();
        let held = digest.and_then(|digest| self.catalogue.definition_by_digest(digest));
        let held = held.ok_or_else(|| {
            EngineError::FailedPrecondition(
                "its definition is not held here any more; import it again".to_owned(),
            )
        })?;
        match self.catalogue.refusal(held, now_ms) {
            Some(reason) => Err(super::issue::barred(held, &reason)),
            None => Ok(()),
        }
    }
}

/// Returns how many approvals these signatures are: people beside the one who issues.
pub(crate) fn approvals(signers: &[Certificate]) -> u32 {
    u32::try_from(people(signers).saturating_sub(1)).unwrap_or(u32::MAX)
}
