//! Preparing an order, and taking it back signed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_pki::DeviceId;
use muster_proto::common::v1::{NamedValue, TargetState};
use muster_proto::ids::{Digest, InstructionId};
use muster_service::config::human::duration;
use muster_signing::admit::RefusalReason;
use muster_signing::audience::{AUTHENTICATED, CLIENT_ATTRIBUTES, Expression};
use muster_signing::definition::{Bounds, Kind};
use muster_signing::order::{self, Audience, Order};
use roaring::RoaringBitmap;
use semver::Version;
use uuid::{NoContext, Timestamp, Uuid};

use super::blocking::BLOCKED;
use super::ledgers::Active;
use super::removal::REMOVED;
use super::{Core, HeldDefinition, Moment};
use crate::engine::clock::millis;
use crate::engine::error::invalid;
use crate::engine::ledger::Ledger;
use crate::engine::proofs::Proofs;
use crate::engine::store::{InstructionRecord, SubmissionRecord, Write, bitmap_bytes};
use crate::engine::{EngineError, Prepare, Prepared, metrics};

/// An order whose tree is yet to be built, which takes too long for the writer's thread.
#[derive(Debug)]
pub(crate) struct Draft {
    id: InstructionId,
    kind: Kind,
    order: Order,
    definition: Bytes,
    members: Vec<(DeviceId, u32)>,
    targets: RoaringBitmap,
    online: u64,
    grace: Duration,
    keep: Duration,
    approvals_wanted: u32,
}

/// An order that waits for its signature.
#[derive(Debug)]
pub(crate) struct PreparedOrder {
    id: InstructionId,
    bytes: Vec<u8>,
    targets: RoaringBitmap,
    proofs: Arc<Proofs>,
    grace: Duration,
    keep: Duration,
    approvals_wanted: u32,
    prepared_at_ms: i64,
    /// Who may submit it.
    operator: String,
}

/// A signed order whose signature was verified.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) envelope: Bytes,
    /// SHA-256 of the envelope.
    pub(crate) digest: Digest,
    /// The signed bytes.
    pub(crate) content: Vec<u8>,
    pub(crate) order: Order,
    /// How many other people than the one who issues it have signed it.
    pub(crate) approvals: u32,
    pub(crate) idempotency_key: String,
    pub(crate) operator: String,
}

/// Orders that wait for a signature at most; the oldest is forgotten first.
const PREPARED_MAX: usize = 1_000;

/// Of these, of one operator at most; the operator's oldest is forgotten first. An order is signed at once or not at all.
const PREPARED_PER_OPERATOR_MAX: usize = 100;

/// Instructions with targets that are not terminal at most: the writer looks at each of them in every batch.
const ACTIVE_MAX: usize = 10_000;

/// How far before its making an order's window begins, for clients whose clocks are behind. A client's own tolerance
/// comes on top.
pub(super) const NOT_BEFORE_MARGIN: Duration = Duration::from_secs(60);

/// How much longer than the definition's run time a target that was reached in time may take to answer.
const GRACE: Duration = Duration::from_secs(30);

/// Devices shown of an audience (instruction.proto).
const SAMPLE: usize = 10;

impl Core {
    /// Resolves an audience and makes the order, but for its tree.
    pub(super) fn draft(&mut self, prepare: Prepare, moment: Moment) -> Result<Draft, EngineError> {
        self.require_disk(0, moment)?;
        if self.active.len() >= ACTIVE_MAX {
            return Err(EngineError::ResourceExhausted(format!(
                "{ACTIVE_MAX} instructions have targets that are not done; wait for some to end, or gather for a shorter time"
            )));
        }
        let held = self.find_definition(&prepare.definition, &prepare.version, moment.now_ms)?;
        let kind = held.document.kind();
        let arguments = bind(&held, prepare.arguments)?;
        let lives = held.document.time_to_live();
        let gather = within(&held, "gather", &lives.gather, prepare.gather_ms)?;
        let keep = within(&held, "keep", &lives.keep, prepare.keep_ms)?;
        let targets = self.resolve(&prepare.audience)?;
        if targets.is_empty() {
            return Err(self.no_targets(&prepare.audience));
        }
        self.refuse_action(kind, &targets)?;
        let licence_serial = self.catalogue.licence.as_ref().map_or(0, |held| held.document.serial());
        let id = new_id(moment.now_ms);
        self.marks.order_sequence += 1;
        let expires_at_ms = moment.now_ms.saturating_add(millis(gather));
        let window = expires_at_ms.saturating_sub(millis(order::WINDOW_MAX));
        let order = Order {
            tenant: self.tenant.clone(),
            instruction: id.to_vec(),
            definition_name: held.document.name().to_string(),
            definition_version: held.document.version().to_string(),
            definition_digest: held.digest.to_vec(),
            licence_serial,
            arguments,
            audience: Some(Audience { expression: prepare.audience, ..Audience::default() }),
            not_before_ms: moment.now_ms.saturating_sub(millis(NOT_BEFORE_MARGIN)).max(window),
            expires_at_ms,
            sequence: self.marks.order_sequence,
            operator: prepare.operator,
            ..Order::default()
        };
        Ok(Draft {
            id,
            kind,
            order,
            definition: held.envelope.clone(),
            members: self.devices.members(&targets),
            online: targets.intersection_len(&self.online),
            grace: held.document.limits().run_time.saturating_add(GRACE),
            keep,
            approvals_wanted: held.document.approvals(),
            targets,
        })
    }

    /// Keeps a prepared order until it comes back signed.
    pub(super) fn keep(&mut self, mut prepared: PreparedOrder, now_ms: i64) {
        self.forget_prepared(now_ms);
        let of_operator = |kept: &PreparedOrder| kept.operator == prepared.operator;
        // Ids are UUIDv7, so the first is the oldest.
        if self.prepared.values().filter(|kept| of_operator(kept)).count() >= PREPARED_PER_OPERATOR_MAX {
            let oldest = self.prepared.iter().find(|(_, kept)| of_operator(kept)).map(|(id, _)| *id);
            oldest.and_then(|id| self.prepared.remove(&id));
            metrics::prepared_forgotten("operator");
        } else if self.prepared.len() >= PREPARED_MAX {
            self.prepared.pop_first();
            metrics::prepared_forgotten("all");
        }
        prepared.prepared_at_ms = now_ms;
        prepared.proofs = self.shared_tree(prepared.proofs);
        self.prepared.insert(prepared.id, prepared);
    }

    /// Takes a signed order that was prepared here.
    pub(super) fn submit(
        &mut self,
        submission: Submission,
        moment: Moment,
    ) -> Result<InstructionId, EngineError> {
        self.forget_prepared(moment.now_ms);
        let key = (submission.operator.clone(), submission.idempotency_key.clone());
        if let Some((digest, id)) = self.submissions.get(&key) {
            if *digest == submission.digest {
                return Ok(*id);
            }
            return Err(EngineError::InvalidArgument(format!(
                "idempotency_key was used for instruction {id}, with another envelope; choose a new key"
            )));
        }
        self.check_submission(&submission, moment)?;
        let id = InstructionId::try_from(&submission.order.instruction[..]);
        let id = id.map_err(|error| EngineError::InvalidArgument(error.to_string()))?;
        let Some(prepared) = self.prepared.remove(&id) else { return Err(self.not_prepared(id)) };
        self.accept(prepared, submission, moment.now_ms);
        metrics::instruction_accepted();
        Ok(id)
    }

    fn check_submission(&self, submission: &Submission, moment: Moment) -> Result<(), EngineError> {
        let order = &submission.order;
        let id = InstructionId::try_from(&order.instruction[..]);
        let id = id.map_err(|error| EngineError::InvalidArgument(error.to_string()))?;
        if order.operator != submission.operator {
            return Err(EngineError::PermissionDenied(format!(
                "the order was prepared for operator `{}`, the caller is `{}`; prepare your own",
                order.operator, submission.operator
            )));
        }
        let prepared = self.prepared.get(&id).ok_or_else(|| self.not_prepared(id))?;
        if prepared.bytes != submission.content {
            return Err(EngineError::InvalidArgument(format!(
                "the signed bytes are not those prepared as {id}; sign exactly the prepared bytes"
            )));
        }
        if moment.now_ms >= order.expires_at_ms {
            return Err(EngineError::NotPrepared(format!("order {id} has ended; prepare it again")));
        }
        let digest = Digest::try_from(&order.definition_digest[..]).ok();
        let held = digest.and_then(|digest| self.catalogue.definition_by_digest(digest));
        let held = held.ok_or_else(|| self.not_prepared(id))?;
        if let Some(reason) = self.catalogue.refusal(held, moment.now_ms) {
            return Err(barred(held, &reason));
        }
        self.require_disk(submission.envelope.len() + prepared.targets.serialized_size(), moment)
    }

    fn accept(&mut self, prepared: PreparedOrder, submission: Submission, now_ms: i64) {
        let PreparedOrder { id, bytes, targets, proofs, grace, keep, approvals_wanted, .. } = prepared;
        self.marks.instruction += 1;
        let position = self.marks.instruction;
        let record = InstructionRecord {
            envelope: submission.envelope,
            order: bytes,
            created_at_ms: now_ms,
            grace_until_ms: submission.order.expires_at_ms.saturating_add(millis(grace)),
            targets: bitmap_bytes(&targets),
            approvals_wanted,
            approvals: submission.approvals,
        };
        // What runs at its end has still to bring its result.
        let kept_until_ms =
            submission.order.expires_at_ms.saturating_add(millis(keep)).max(record.grace_until_ms);
        // Removed since the order was prepared; the signed root has them in it.
        let gone = &targets - self.devices.all();
        let blocked = (&targets & self.blocked_numbers()) - &gone;
        let active = Active::new(id, Ledger::queued(targets), &submission.order, &record, None, Some(proofs));
        self.out.writes.push(Write::Instruction { position, id, record: Box::new(record) });
        self.keep_results(position, kept_until_ms);
        let record = SubmissionRecord {
            operator: submission.operator.clone(),
            idempotency_key: submission.idempotency_key.clone(),
            envelope_digest: submission.digest.to_vec(),
            id: id.to_vec(),
        };
        let write =
            Write::Submission { instruction: position, created_at_ms: now_ms, record: Box::new(record) };
        self.out.writes.push(write);
        let key = (submission.operator, submission.idempotency_key);
        self.submissions.insert(key, submission.digest, id, now_ms);
        self.activate(position, active);
        self.advance(position, &gone, TargetState::Cancelled, REMOVED);
        self.advance(position, &blocked, TargetState::Cancelled, BLOCKED);
    }

    fn find_definition(
        &self,
        name: &str,
        version: &str,
        now_ms: i64,
    ) -> Result<Arc<HeldDefinition>, EngineError> {
        let catalogue = &self.catalogue;
        let refused =
            |held: &Arc<HeldDefinition>| catalogue.refusal(held, now_ms).map(|reason| barred(held, &reason));
        if !version.is_empty() {
            let parsed: Version = version
                .parse()
                .map_err(|error| EngineError::InvalidArgument(format!("version `{version}`: {error}")))?;
            let held = catalogue.definition(name, &parsed);
            let held = held.ok_or_else(|| catalogue.missing(name, version))?;
            return refused(held).map_or_else(|| Ok(Arc::clone(held)), Err);
        }
        let Some(highest) = catalogue.versions(name).last() else {
            return Err(catalogue.missing(name, version));
        };
        let licensed = catalogue.versions(name).filter(|held| refused(held).is_none()).last();
        match (licensed, refused(highest)) {
            (Some(held), _) => Ok(Arc::clone(held)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Arc::clone(highest)),
        }
    }

    /// Returns the devices of an audience expression, without those that are blocked, or have no certificate and are not asked
    /// for.
    fn resolve(&self, audience: &str) -> Result<RoaringBitmap, EngineError> {
        if audience.is_empty() {
            return Ok(self.devices.eligible(None) - self.blocked_numbers());
        }
        let known = self.attribute_names();
        let expression = parse_audience(audience, &known)?;
        let here = self.devices.eligible(Some(&expression)) - self.blocked_numbers();
        let attributes = self.devices.attributes();
        Ok(attributes.select(&here, expression.names(), |values| expression.matches(values)))
    }

    fn no_targets(&self, audience: &str) -> EngineError {
        let blocked = match self.blocked_numbers().len() {
            0 => String::new(),
            blocked => format!(", {blocked} of them blocked"),
        };
        let without = match self.devices.unauthenticated().len() {
            0 => String::new(),
            without => format!(
                ", {without} of them unauthenticated, which an audience holds only if it names `{AUTHENTICATED}`"
            ),
        };
        EngineError::NoTargets(match (audience, self.devices.len()) {
            (_, 0) => "no device is known yet; connect a client first".to_owned(),
            (audience, 1) => {
                format!("no device is in the audience `{audience}`; 1 device is known{blocked}{without}")
            }
            (audience, known) => {
                format!(
                    "no device is in the audience `{audience}`; {known} devices are known{blocked}{without}"
                )
            }
        })
    }

    /// Says that nothing waits for this signature. Who is told `NotPrepared` may prepare another, so what was submitted
    /// already must not be told that.
    fn not_prepared(&self, id: InstructionId) -> EngineError {
        if self.submissions.has(id) {
            return EngineError::InvalidArgument(format!(
                "order {id} was submitted already, under another idempotency_key; it is instruction {id}"
            ));
        }
        EngineError::NotPrepared(format!(
            "order {id} is not one that waits for a signature here (the Switch restarted, or it is too old); prepare it again"
        ))
    }

    fn forget_prepared(&mut self, now_ms: i64) {
        let ttl = self.prepared_ttl_ms;
        self.prepared.retain(|_, prepared| now_ms < prepared.prepared_at_ms.saturating_add(ttl));
    }
}

impl Draft {
    /// Returns the kind of the definition that was found.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Builds the tree and encodes the order; takes milliseconds of CPU.
    pub(crate) fn finish(self) -> (PreparedOrder, Prepared) {
        let mut order = self.order;
        let mut sample: Vec<DeviceId> = self.members.iter().map(|(device, _)| device.clone()).collect();
        sample.sort();
        sample.truncate(SAMPLE);
        let targets = u64::try_from(self.members.len()).unwrap_or(u64::MAX);
        let proofs = Proofs::new(self.members);
        if let Some(audience) = &mut order.audience {
            audience.members_root = proofs.root().to_vec();
            audience.members_count = targets;
        }
        let bytes = order::encode(&order);
        let operator = order.operator;
        let prepared = Prepared {
            order: bytes.clone(),
            definition: self.definition,
            targets,
            online: self.online,
            sample,
        };
        let proofs = Arc::new(proofs);
        let kept = PreparedOrder {
            id: self.id,
            bytes,
            targets: self.targets,
            proofs,
            grace: self.grace,
            keep: self.keep,
            approvals_wanted: self.approvals_wanted,
            prepared_at_ms: 0,
            operator,
        };
        (kept, prepared)
    }
}

/// Parses an audience and refuses names that no device tells, and operators that do not go with an attribute's type.
pub(crate) fn parse_audience(audience: &str, known: &BTreeSet<String>) -> Result<Expression, EngineError> {
    let expression = Expression::parse(audience).map_err(|error| invalid(&error))?;
    let known = known.iter().map(String::as_str).chain(CLIENT_ATTRIBUTES);
    expression.check_names(known).map_err(|error| invalid(&error))?;
    expression.check_types().map_err(|error| invalid(&error))?;
    Ok(expression)
}

/// Checks the arguments, and returns those given, in the definition's order.
fn bind(held: &HeldDefinition, arguments: Vec<NamedValue>) -> Result<Vec<NamedValue>, EngineError> {
    let bound =
        held.document.bind(&arguments).map_err(|error| EngineError::InvalidArgument(error.to_string()))?;
    let given: BTreeMap<&str, ()> = arguments.iter().map(|argument| (argument.name.as_str(), ())).collect();
    Ok(bound.into_iter().filter(|argument| given.contains_key(argument.name.as_str())).collect())
}

/// Returns a time that the definition bounds (`time_to_live`): the one asked for, or its default.
fn within(
    held: &HeldDefinition,
    what: &str,
    allowed: &Bounds,
    asked_ms: u64,
) -> Result<Duration, EngineError> {
    if asked_ms == 0 {
        return Ok(allowed.default);
    }
    let asked = Duration::from_millis(asked_ms);
    if asked < allowed.min || asked > allowed.max {
        return Err(EngineError::InvalidArgument(format!(
            "a {what} time of {}, wanted {} to {}, as {} says",
            duration::format(asked),
            duration::format(allowed.min),
            duration::format(allowed.max),
            held.document.name()
        )));
    }
    Ok(asked)
}

pub(super) fn new_id(now_ms: i64) -> InstructionId {
    let now = Duration::from_millis(u64::try_from(now_ms).unwrap_or_default());
    let time = Timestamp::from_unix(NoContext, now.as_secs(), now.subsec_nanos());
    InstructionId::from(Uuid::new_v7(time).into_bytes())
}

/// Says why a definition is not issued, as clients would.
pub(super) fn barred(held: &HeldDefinition, reason: &RefusalReason) -> EngineError {
    let (name, version) = (held.document.name(), held.document.version());
    EngineError::FailedPrecondition(format!("{name} {version} cannot be issued: {reason}"))
}
