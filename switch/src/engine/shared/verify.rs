//! Signatures, checked on the caller's thread before the writer sees a document.

use std::fmt::Display;

use bytes::Bytes;
use muster_pki::{Certificate, Facts, Role, Roots};
use muster_proto::limits::ENVELOPE_BYTES_MAX;
use muster_service::credentials::Revocation;
use muster_signing::definition::Definition;
use muster_signing::envelope::{self, Anchors, ContentType, Verified};
use muster_signing::order::{self, Order};
use muster_signing::pack::{Digests, Index};

use super::Shared;
use crate::engine::EngineError;
use crate::engine::core::{
    ApprovalSubmission, Held, HeldDefinition, HeldLicence, HeldPack, HeldPolicy, StopSubmission, Submission,
    approvals,
};
use crate::engine::reader::check_aggregate;
use crate::engine::trust::Trust;

/// Longest idempotency key in bytes (instruction.proto).
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;

/// Checks a definition: signer (G1, G5), then text, then whether its aggregate can run.
pub(crate) fn verify_definition(shared: &Shared, envelope: Vec<u8>) -> Result<HeldDefinition, EngineError> {
    let trust = shared.trust();
    let (verified, signer) =
        verify(shared, &envelope, ContentType::Definition, Role::Author, &trust.authors)?;
    let held: HeldDefinition = Held::verified(envelope, verified, &signer)?;
    check_aggregate(&held.document)?;
    Ok(held)
}

/// Checks a pack without its resources (G9): the index's signer (G5), then each definition as one that comes alone, and that they
/// are those that the index names, all of them.
pub(crate) fn verify_pack(
    shared: &Shared,
    index: &[u8],
    definitions: Vec<Vec<u8>>,
) -> Result<HeldPack, EngineError> {
    let trust = shared.trust();
    let in_index = |error: EngineError| error.about("the pack's index");
    let (verified, _) =
        verify(shared, index, ContentType::Pack, Role::Author, &trust.authors).map_err(in_index)?;
    let text = String::from_utf8(verified.content).map_err(|error| in_index(invalid(&error)))?;
    let index = Index::parse(&text).map_err(|error| invalid(&error))?;
    let (got, wanted) = (definitions.len(), index.definitions().len());
    if got != wanted {
        return Err(EngineError::InvalidArgument(format!(
            "{got} definitions came, and the pack's index names {wanted}; send each of them, in the order of the index"
        )));
    }
    let mut held = Vec::with_capacity(wanted);
    for (number, (envelope, (_, _, member))) in definitions.into_iter().zip(index.definitions()).enumerate() {
        member.check(&Digests::of(&envelope)).map_err(|error| invalid(&error))?;
        let definition = verify_definition(shared, envelope).map_err(|error| error.about(member.path()))?;
        index.check_definition(number, &definition.document).map_err(|error| invalid(&error))?;
        held.push(definition);
    }
    let documents: Vec<Definition> = held.iter().map(|definition| definition.document.clone()).collect();
    index.check_resources(&documents).map_err(|error| invalid(&error))?;
    Ok(HeldPack { name: index.name().to_string(), version: index.version().to_string(), definitions: held })
}

/// Checks a licence: signer, then text.
pub(crate) fn verify_licence(shared: &Shared, envelope: Vec<u8>) -> Result<HeldLicence, EngineError> {
    let trust = shared.trust();
    let (verified, signer) =
        verify(shared, &envelope, ContentType::Licence, Role::Licensor, &trust.licences)?;
    Held::verified(envelope, verified, &signer)
}

/// Checks a policy: signer, then text.
pub(crate) fn verify_policy(shared: &Shared, envelope: Vec<u8>) -> Result<HeldPolicy, EngineError> {
    let trust = shared.trust();
    let roots = trust.policies.as_ref().ok_or_else(|| {
        EngineError::FailedPrecondition(
            "this Switch has no roots to verify policies with; name a file with those of the policies' administrators in \
             `[trust] policies` of its configuration, and restart it"
                .to_owned(),
        )
    })?;
    let (verified, signer) = verify(shared, &envelope, ContentType::Policy, Role::Policy, roots)?;
    Held::verified(envelope, verified, &signer)
}

/// Checks a signed order: key, signer, then every field.
pub(crate) fn verify_order(
    shared: &Shared,
    envelope: Vec<u8>,
    idempotency_key: String,
    operator: String,
) -> Result<Submission, EngineError> {
    if idempotency_key.is_empty() || idempotency_key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(EngineError::InvalidArgument(format!(
            "idempotency_key has {} bytes, wanted 1 to {IDEMPOTENCY_KEY_BYTES_MAX}; choose one for each order, such as a UUID",
            idempotency_key.len()
        )));
    }
    let (content, order, signers) = open_order(shared, &envelope)?;
    if order::stops(&order).is_some() {
        return Err(EngineError::InvalidArgument(
            "the order is a stop; submit it with SubmitStop".to_owned(),
        ));
    }
    let (digest, approvals) = (envelope::digest(&envelope), approvals(&signers));
    let envelope = Bytes::from(envelope);
    Ok(Submission { envelope, digest, content, order, approvals, idempotency_key, operator })
}

/// Checks a signed stop: signer, then every field.
pub(crate) fn verify_stop(
    shared: &Shared,
    envelope: Vec<u8>,
    operator: String,
) -> Result<StopSubmission, EngineError> {
    let (content, order, _) = open_order(shared, &envelope)?;
    Ok(StopSubmission { envelope: Bytes::from(envelope), content, order, operator })
}

/// Checks an order with one more signature: signers, then every field.
pub(crate) fn verify_approval(
    shared: &Shared,
    envelope: Vec<u8>,
    operator: String,
) -> Result<ApprovalSubmission, EngineError> {
    let (content, order, signers) = open_order(shared, &envelope)?;
    Ok(ApprovalSubmission { envelope: Bytes::from(envelope), content, order, signers, operator })
}

/// Returns the signed bytes of an order, what they say, and who signed them.
fn open_order(shared: &Shared, envelope: &[u8]) -> Result<(Vec<u8>, Order, Vec<Certificate>), EngineError> {
    let trust = shared.trust();
    let (verified, _) = verify(shared, envelope, ContentType::Order, Role::OrderSigner, &trust.orders)?;
    let order = order::decode(&verified.content).map_err(|error| invalid(&error))?;
    Ok((verified.content, order, verified.signers))
}

fn verify(
    shared: &Shared,
    envelope: &[u8],
    content_type: ContentType,
    role: Role,
    roots: &Roots,
) -> Result<(Verified, Certificate), EngineError> {
    if envelope.len() > ENVELOPE_BYTES_MAX {
        return Err(EngineError::InvalidArgument(format!(
            "the envelope has {} bytes, at most {ENVELOPE_BYTES_MAX}",
            envelope.len()
        )));
    }
    let trust = shared.trust();
    if let Some(sources) = &trust.sources {
        learn(sources, envelope, role, &trust, roots);
    }
    let facts = Facts { revocation: trust.revocation.as_ref(), ..Facts::at(shared.clock.unix_time()) };
    let anchors = Anchors { signers: roots, timestamps: trust.timestamps.as_ref() };
    let verified = envelope::verify(envelope, content_type, role, &anchors, &facts)
        .map_err(|error| EngineError::PermissionDenied(error.to_string()))?;
    let signer = verified.signers.first().cloned();
    let signer =
        signer.ok_or_else(|| EngineError::PermissionDenied("the envelope has no signer".to_owned()))?;
    Ok((verified, signer))
}

/// Tells from where the CRLs of the signers' issuers may be fetched, and of the timestamp authorities', before they are judged by
/// them (R1 of trust.md).
pub(crate) fn learn(sources: &Revocation, envelope: &[u8], role: Role, trust: &Trust, roots: &Roots) {
    let Ok(inspection) = envelope::inspect(envelope) else { return };
    for chain in inspection.chains(role) {
        let of_role = if chain.role == Role::Timestamp { trust.timestamps.as_ref() } else { Some(roots) };
        if let Some(roots) = of_role {
            sources.learn_signer(chain.role, &chain.certificates, roots, chain.signed_at);
        }
    }
}

fn invalid(error: &impl Display) -> EngineError {
    EngineError::InvalidArgument(error.to_string())
}
