//! Everything a client checks before it runs something (G8), in two pure steps.
//!
//! [`order`] opens the envelope and names the definition; once the client has that, [`admit`] judges the whole. What
//! only its disk knows comes in as [`Memory`]; whether the instruction was seen before is the journal's to say.

mod documents;

use std::collections::BTreeMap;

use muster_pki::{Certificate, DeviceId, Facts, Refused, RevocationIndex, Role, Roots, UnixTime};
use muster_proto::common::v1::{NamedValue, Refusal, Value};
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::order::v1::Order;
use muster_proto::session::v1::InclusionProof;

use crate::audience::{AUTHENTICATED, AudienceError};
use crate::definition::{Bounds, Definition, Kind, Step};
use crate::envelope::{self, Anchors, ContentType, EnvelopeError, Judged, Opened};
use crate::licence::Licence;
use crate::timestamp::TimestampError;
use crate::{merkle, order as order_content};

pub use self::documents::{Documents, Signed};

/// How far the clock may be behind what was seen (signing.md, "clock set back"), in milliseconds.
const CLOCK_BACK_MS: i64 = 5 * 60 * 1_000;

/// By how much an order's window may exceed what its definition allows, in milliseconds: it begins a little early, so that
/// a slow clock does not refuse it.
const WINDOW_SLACK_MS: i64 = 10 * 60 * 1_000;

/// The roots of each role, and who is revoked.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'a> {
    /// Of definitions' authors.
    pub authors: &'a Roots,
    /// Of order signers.
    pub orders: &'a Roots,
    /// Of licensors.
    pub licences: &'a Roots,
    /// Of timestamp authorities; `None`: a timestamp is not believed, and refused.
    pub timestamps: Option<&'a Roots>,
    /// Who is revoked; `None`: not looked up.
    pub revocation: Option<&'a RevocationIndex>,
}

/// The device that is to run it.
#[derive(Debug, Clone, Copy)]
pub struct Device<'a> {
    /// Its name.
    pub id: &'a DeviceId,
    /// Its organisation.
    pub tenant: &'a str,
    /// What it knows of itself.
    pub attributes: &'a BTreeMap<String, Value>,
    /// The client's version.
    pub client_version: &'a semver::Version,
    /// Its platform, such as `linux-x86_64`.
    pub platform: &'a str,
}

/// What a client remembers against rollback.
#[derive(Debug, Clone, Copy)]
pub struct Memory<'a> {
    /// The highest version of this definition that was seen; `None`: none.
    pub highest_version: Option<&'a semver::Version>,
    /// The time floor: it is certain that it is as late as that.
    pub time_floor: UnixTime,
}

/// Why something is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", refusal.name())]
pub struct RefusalReason {
    /// The stable code.
    pub refusal: Refusal,
    /// What was wrong, and what would fix it.
    pub detail: String,
    /// Nothing was wrong but that an issuer has no fresh CRL (R6 of trust.md): another judgement, after one came, may differ.
    pub lacks_only_a_crl: bool,
    /// The definition that the order names, where author, licence and the order's tenant and time held and a later check did not.
    pub seen: Option<Box<Seen>>,
}

/// A version that its author signed, the licence admits and an order named: what a client remembers against rollback, whether it ran or
/// not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The definition's name.
    pub name: String,
    /// Its version.
    pub version: semver::Version,
}

impl Seen {
    /// Returns that of a definition.
    #[must_use]
    pub fn of(definition: &Definition) -> Self {
        Self { name: definition.name().to_string(), version: definition.version().clone() }
    }
}

/// What may be run: everything was checked.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The definition.
    pub definition: Definition,
    /// A checked value for each of its parameters, in their order.
    pub arguments: Vec<NamedValue>,
    /// Who signed the definition.
    pub author: Certificate,
    /// The licence it was admitted under.
    pub licence: Licence,
}

/// Opens an order: its signatures hold, its signers chain to the order roots, every field is in its bounds.
///
/// # Errors
/// `BAD_SIGNATURE`, `UNTRUSTED_SIGNER`, `SIGNER_REVOKED` or `TOO_LARGE`.
pub fn order(envelope: &[u8], trust: &Trust<'_>, now: UnixTime) -> Result<Order, RefusalReason> {
    signed_order(envelope, trust, now).map(|(order, _)| order)
}

/// As [`order`], with the certificates of those who signed it.
///
/// # Errors
/// As [`order`].
pub fn signed_order(
    envelope: &[u8],
    trust: &Trust<'_>,
    now: UnixTime,
) -> Result<(Order, Vec<Certificate>), RefusalReason> {
    let (opened, judged) = verified(envelope, ContentType::Order, trust, now)?;
    let order =
        order_content::decode(opened.content()).map_err(|error| refuse(Refusal::BadSignature, error))?;
    Ok((order, judged.signers))
}

/// Verifies a licence; whether its serial goes back is the caller's to check.
///
/// # Errors
/// `BAD_SIGNATURE`, `UNTRUSTED_SIGNER`, `SIGNER_REVOKED`, `TOO_LARGE`, or `LICENCE_STALE` when it is not valid at `now`.
pub fn licence(envelope: &[u8], trust: &Trust<'_>, now: UnixTime) -> Result<Licence, RefusalReason> {
    valid_licence(&Signed::licence(envelope)?, trust, now)
}

fn valid_licence(
    signed: &Signed<Licence>,
    trust: &Trust<'_>,
    now: UnixTime,
) -> Result<Licence, RefusalReason> {
    signed.judge(trust, now)?;
    let licence = signed.says()?;
    if !licence.is_valid_at(now) {
        let detail = format!("licence {} is not valid at this time; have a new one issued", licence.serial());
        return Err(refuse(Refusal::LicenceStale, detail));
    }
    Ok(licence)
}

/// Verifies a definition: who signed it, and since when at the latest, where a timestamp proves it.
///
/// # Errors
/// `BAD_SIGNATURE`, `UNTRUSTED_SIGNER`, `SIGNER_REVOKED` or `TOO_LARGE`; `UNSUPPORTED` when its text does not parse here.
pub fn definition(
    envelope: &[u8],
    trust: &Trust<'_>,
    now: UnixTime,
) -> Result<(Definition, Certificate, Option<UnixTime>), RefusalReason> {
    authored(&Signed::definition(envelope)?, trust, now)
}

fn authored(
    signed: &Signed<Definition>,
    trust: &Trust<'_>,
    now: UnixTime,
) -> Result<(Definition, Certificate, Option<UnixTime>), RefusalReason> {
    let Judged { signers, stamped_at, .. } = signed.judge(trust, now)?;
    match signers.into_iter().next() {
        Some(author) => Ok((signed.says()?, author, stamped_at)),
        None => Err(refuse(Refusal::BadSignature, "a definition without signer")),
    }
}

/// Judges an order that [`signed_order`] opened and so many different [`people`](crate::approval::people) signed, with the definition it names and the licence that
/// the device holds.
///
/// # Errors
/// The first check that fails; each has its own code. The tenant comes first, then the time, since all that follows is judged by it.
#[expect(
    clippy::too_many_arguments,
    reason = "each is one fact that the judgement needs, and all differ in type"
)]
pub fn admit(
    order: &Order,
    people: usize,
    definition_envelope: &[u8],
    licence: &[u8],
    proof: Option<&InclusionProof>,
    trust: &Trust<'_>,
    device: &Device<'_>,
    memory: &Memory<'_>,
    documents: &Documents,
    now: UnixTime,
) -> Result<Admitted, RefusalReason> {
    require(order.stops.is_empty(), Refusal::Unsupported, || {
        "the order is a stop, and runs nothing".to_owned()
    })?;
    check_tenant(&order.tenant, device.tenant)?;
    check_time(order, memory.time_floor, now)?;
    let digest = check_digest(order, definition_envelope)?;
    let signed_licence = documents.licence(licence, envelope::digest(licence))?;
    let licence = valid_licence(&signed_licence, trust, now)?;
    check_licence(order, &licence, device)?;
    let signed = documents.definition(definition_envelope, digest)?;
    let (definition, author, stamped_at) = authored(&signed, trust, now)?;
    check_label(order, &definition)?;
    licence
        .admits(definition.name(), definition.version(), &author.thumbprint(), stamped_at)
        .map_err(|error| refuse(error.refusal(), error))?;
    check_version(&definition, memory)?;
    match check_issue(order, people, &definition, proof, device) {
        Ok(arguments) => Ok(Admitted { definition, arguments, author, licence }),
        Err(reason) => Err(RefusalReason { seen: Some(Box::new(Seen::of(&definition))), ..reason }),
    }
}

/// Checks what an order asks of a definition that may be run; returns its arguments.
fn check_issue(
    order: &Order,
    people: usize,
    definition: &Definition,
    proof: Option<&InclusionProof>,
    device: &Device<'_>,
) -> Result<Vec<NamedValue>, RefusalReason> {
    check_standing(order, definition, device)?;
    check_approvals(definition, people)?;
    check_audience(order, definition, proof, device)?;
    check_window(order, definition)?;
    check_platform(definition, device)?;
    definition.bind(&order.arguments).map_err(|error| refuse(Refusal::BadArgument, error))
}

/// Judges a stop that [`order`] opened. A stop runs nothing: it needs no definition, no licence and no place in an audience, and so
/// no device can be kept from it; but it is an operator's of this tenant, and of now.
///
/// # Errors
/// `UNSUPPORTED` for an order that is no stop; then `WRONG_TENANT`, `CLOCK`, `NOT_YET_VALID` or `EXPIRED`, as for any order.
pub fn stop(
    order: &Order,
    tenant: &str,
    time_floor: UnixTime,
    now: UnixTime,
) -> Result<InstructionId, RefusalReason> {
    let stopped = order_content::stops(order)
        .ok_or_else(|| refuse(Refusal::Unsupported, "the order stops nothing; it is to be run or refused"))?;
    check_tenant(&order.tenant, tenant)?;
    check_time(order, time_floor, now)?;
    Ok(stopped)
}

fn verified(
    envelope: &[u8],
    content_type: ContentType,
    trust: &Trust<'_>,
    now: UnixTime,
) -> Result<(Opened, Judged), RefusalReason> {
    let opened = envelope::open(envelope, content_type).map_err(|error| unopened(content_type, &error))?;
    let judged = judged(&opened, content_type, trust, now)?;
    Ok((opened, judged))
}

/// Judges who signed a document, by the roots of its role.
fn judged(
    opened: &Opened,
    content_type: ContentType,
    trust: &Trust<'_>,
    now: UnixTime,
) -> Result<Judged, RefusalReason> {
    let (role, roots) = match content_type {
        ContentType::Definition => (Role::Author, trust.authors),
        ContentType::Order => (Role::OrderSigner, trust.orders),
        ContentType::Licence => (Role::Licensor, trust.licences),
        // No order names these, and their roots are not among those of the others.
        ContentType::Policy | ContentType::Pack | ContentType::File | ContentType::LicenceRequest => {
            let detail = format!("a {}, which no order names; it is judged elsewhere", content_type.name());
            return Err(refuse(Refusal::UntrustedSigner, detail));
        }
    };
    let facts = Facts { revocation: trust.revocation, ..Facts::at(now) };
    let anchors = Anchors { signers: roots, timestamps: trust.timestamps };
    opened.judge(role, &anchors, &facts).map_err(|error| unopened(content_type, &error))
}

/// Returns what is told of an envelope that is refused.
fn unopened(content_type: ContentType, error: &EnvelopeError) -> RefusalReason {
    let detail = format!("{}: {}", content_type.name(), brief(error));
    RefusalReason { lacks_only_a_crl: error.lacks_only_a_crl(), ..refuse(error.refusal(), detail) }
}

fn check_tenant(tenant: &str, own: &str) -> Result<(), RefusalReason> {
    require(tenant == own, Refusal::WrongTenant, || {
        format!("the order is for tenant {tenant:?}; this device belongs to {own:?}")
    })
}

fn check_time(order: &Order, time_floor: UnixTime, now: UnixTime) -> Result<(), RefusalReason> {
    let (now_ms, floor_ms) = (milliseconds(now), milliseconds(time_floor));
    require(now_ms >= floor_ms.saturating_sub(CLOCK_BACK_MS), Refusal::Clock, || {
        format!("this device's clock is {} s behind what it has seen; set it", (floor_ms - now_ms) / 1_000)
    })?;
    require(now_ms >= order.not_before_ms, Refusal::NotYetValid, || {
        format!("the order begins in {} s by this device's clock", (order.not_before_ms - now_ms) / 1_000)
    })?;
    require(now_ms < order.expires_at_ms, Refusal::Expired, || {
        format!(
            "the order ended {} s ago by this device's clock; issue it again",
            (now_ms - order.expires_at_ms) / 1_000
        )
    })
}

fn check_digest(order: &Order, definition_envelope: &[u8]) -> Result<Digest, RefusalReason> {
    let got = envelope::digest(definition_envelope);
    require(got.as_ref() == order.definition_digest, Refusal::WrongDefinition, || {
        format!("definition {got}; the order names {}", hex::encode(&order.definition_digest))
    })?;
    Ok(got)
}

fn check_licence(order: &Order, licence: &Licence, device: &Device<'_>) -> Result<(), RefusalReason> {
    require(licence.tenant() == device.tenant, Refusal::Unlicensed, || {
        format!(
            "the licence is for tenant {:?}; this device belongs to {:?}",
            licence.tenant(),
            device.tenant
        )
    })?;
    require(licence.serial() >= order.licence_serial, Refusal::LicenceStale, || {
        format!(
            "this device holds licence {}; the order asks for {} or a later one",
            licence.serial(),
            order.licence_serial
        )
    })
}

fn check_label(order: &Order, definition: &Definition) -> Result<(), RefusalReason> {
    let (name, version) = (definition.name().as_str(), definition.version().to_string());
    require(
        order.definition_name == name && order.definition_version == version,
        Refusal::WrongDefinition,
        || {
            format!(
                "the definition is {name} {version}; the order says {} {}",
                order.definition_name, order.definition_version
            )
        },
    )
}

fn check_version(definition: &Definition, memory: &Memory<'_>) -> Result<(), RefusalReason> {
    match memory.highest_version {
        Some(seen) if definition.version() < seen => {
            let detail = format!(
                "{} {}; this device has seen {seen} already",
                definition.name(),
                definition.version()
            );
            Err(refuse(Refusal::RolledBack, detail))
        }
        Some(_) | None => Ok(()),
    }
}

/// The operator, and as many others as the author asks for (signing.md, "Order").
fn check_approvals(definition: &Definition, people: usize) -> Result<(), RefusalReason> {
    let wanted = usize::try_from(definition.approvals()).unwrap_or(usize::MAX);
    let approvals = people.saturating_sub(1);
    require(approvals >= wanted, Refusal::Unapproved, || {
        format!(
            "{approvals} of the {wanted} approvals that {} asks for; let others sign: muster instruction approve ID",
            definition.name()
        )
    })
}

/// A device without a certificate runs no action, and is in no audience that does not ask for such devices (C1 of
/// trust.md): whoever has the Switch cannot widen that.
fn check_standing(order: &Order, definition: &Definition, device: &Device<'_>) -> Result<(), RefusalReason> {
    if !device.id.is_of_key() {
        return Ok(());
    }
    require(definition.kind() == Kind::Question, Refusal::Unauthenticated, || {
        format!("{} has no certificate, and runs no action; give it one", device.id)
    })?;
    require(definition.steps().iter().all(Step::is_sql), Refusal::Unauthenticated, || {
        format!("{} has no certificate, and runs nothing but SQL; give it one", device.id)
    })?;
    let expression = order_content::expression(&order.audience.clone().unwrap_or_default());
    let expression = expression.map_err(|error| refuse(Refusal::WrongAudience, error))?;
    require(expression.is_some_and(|it| it.asks_for_unauthenticated()), Refusal::Unauthenticated, || {
        format!(
            "{} has no certificate, and the audience does not ask for such devices; name `{AUTHENTICATED}` in it",
            device.id
        )
    })
}

fn check_audience(
    order: &Order,
    definition: &Definition,
    proof: Option<&InclusionProof>,
    device: &Device<'_>,
) -> Result<(), RefusalReason> {
    let audience = order.audience.clone().unwrap_or_default();
    let wrong = |detail: String| Err(refuse(Refusal::WrongAudience, detail));
    let expression = order_content::expression(&audience)
        .map_err(|error: AudienceError| refuse(Refusal::WrongAudience, error))?;
    let Ok(root) = <[u8; 32]>::try_from(audience.members_root.as_slice()) else {
        // Who may change a machine is decided by names, never by what a machine says of itself (DESIGN.md, "Audience in an
        // order").
        if definition.kind() == Kind::Action {
            return wrong("an action without members root; issue it again".to_owned());
        }
        return match expression {
            Some(expression) if !expression.matches(device.attributes) => {
                wrong(format!("`{expression}` is not true of this device"))
            }
            Some(_) | None => Ok(()),
        };
    };
    if !proof.is_some_and(|proof| merkle::verify(device.id, proof, &root, audience.members_count)) {
        return wrong(format!("{} is not proven to be under the order's members root", device.id));
    }
    match expression {
        Some(expression) if !expression.admits_member(device.attributes) => {
            wrong(format!("`{expression}` is not true of this device"))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_window(order: &Order, definition: &Definition) -> Result<(), RefusalReason> {
    let Bounds { min: least, max: most, .. } = &definition.time_to_live().gather;
    let [least_ms, most_ms] = [least, most].map(|bound| i64::try_from(bound.as_millis()).unwrap_or(i64::MAX));
    let window_ms = order.expires_at_ms.saturating_sub(order.not_before_ms);
    // Orders begin before they are made, so that one of the least time is longer than it.
    require(window_ms >= least_ms, Refusal::BadArgument, || {
        format!("a window of {} s; its definition asks for {} s at least", window_ms / 1_000, least.as_secs())
    })?;
    require(window_ms <= most_ms.saturating_add(WINDOW_SLACK_MS), Refusal::BadArgument, || {
        format!("a window of {} s; its definition allows {} s", window_ms / 1_000, most.as_secs())
    })
}

fn check_platform(definition: &Definition, device: &Device<'_>) -> Result<(), RefusalReason> {
    require(definition.is_for_platform(device.platform), Refusal::Unsupported, || {
        format!("the definition is for {}; this is {}", definition.platforms().join(", "), device.platform)
    })?;
    match definition.minimum_client_version() {
        Some(least) if device.client_version < least => {
            let detail = format!(
                "client {}; the definition asks for {least}: update the client",
                device.client_version
            );
            Err(refuse(Refusal::Unsupported, detail))
        }
        Some(_) | None => Ok(()),
    }
}

/// A chain's findings fill a screen; a refusal's detail has 1 KiB.
fn brief(error: &EnvelopeError) -> String {
    match error {
        EnvelopeError::Untrusted(refused) | EnvelopeError::Revoked(refused) => worst(refused),
        EnvelopeError::TooLarge(_)
        | EnvelopeError::TooManyCertificates(_)
        | EnvelopeError::Form(_)
        | EnvelopeError::ContentType { .. }
        | EnvelopeError::Signature { .. }
        | EnvelopeError::Algorithm(_)
        | EnvelopeError::SigningTime { .. }
        | EnvelopeError::UnusedCertificate(_)
        | EnvelopeError::NoTimestampRoots => error.to_string(),
        EnvelopeError::Timestamp(TimestampError::Untrusted(refused)) => {
            format!("timestamp: {}", worst(refused))
        }
        EnvelopeError::Timestamp(error) => error.to_string(),
    }
}

fn worst(refused: &Refused) -> String {
    refused.findings().first().map_or_else(String::new, ToString::to_string)
}

fn milliseconds(moment: UnixTime) -> i64 {
    i64::try_from(moment.as_secs().saturating_mul(1_000)).unwrap_or(i64::MAX)
}

fn require(holds: bool, refusal: Refusal, detail: impl FnOnce() -> String) -> Result<(), RefusalReason> {
    if holds { Ok(()) } else { Err(refuse(refusal, detail())) }
}

fn refuse(refusal: Refusal, detail: impl ToString) -> RefusalReason {
    RefusalReason { refusal, detail: detail.to_string(), lacks_only_a_crl: false, seen: None }
}

#[cfg(test)]
mod tests;
