//! Admission by signatures: everything of `muster_signing`, with the trust that this client is configured with.

use std::sync::Arc;

use muster_endpoint::{Reach, SandboxProfile, SqlValue, Verb};
use muster_pki::{Certificate, Role, Thumbprint, UnixTime};
use muster_proto::common::v1::{NamedValue, Refusal, value::Kind};
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::order::v1::Order;
use muster_proto::session::v1::InclusionProof;
use muster_service::credentials::Revocation;
use muster_signing::admit::{self, Admitted, Documents, RefusalReason, Seen};
use muster_signing::approval::people;
use muster_signing::definition::{
    Action, Kind as DefinitionKind, Operand, Parameter, ParameterKind, Sandbox, ServiceVerb, Step,
};
use muster_signing::policy::{OrderKey, Policy};
use muster_signing::{envelope, order};

use super::admission::{
    Admission, Claimed, Memory, Opened, OpenedStop, OrderSigner, Plan, PlanAction, PlanColumn, PlanResource,
    PlanStep, PlanTables, RefreshJob, Refused, Signed,
};
use super::licence::LicenceTerms;
use super::live::{LiveTrust, SigningTrust};
use super::trust::TrustError;
use crate::config::TrustConfig;
use crate::identity::Identity;
use crate::policy::{Followed, Following};

/// Judges orders by their signatures.
#[derive(Debug, Clone)]
pub(crate) struct SignedAdmission {
    trust: Arc<LiveTrust>,
    identity: Identity,
    tenant: String,
    version: semver::Version,
    platform: String,
    followed: Followed,
    documents: Documents,
}

impl SignedAdmission {
    /// Reads the roots; who is revoked is `revocation`'s to say, which others follow, and `followed` grants what may run.
    pub(crate) fn load(
        files: TrustConfig,
        revocation: Arc<Revocation>,
        identity: Identity,
        tenant: String,
        followed: Followed,
    ) -> Result<Self, TrustError> {
        let trust = LiveTrust::load(files, revocation)?;
        Ok(Self::with(Arc::new(trust), identity, tenant, followed))
    }

    /// As [`Self::load`], by roots that were read before.
    pub(crate) fn with(
        trust: Arc<LiveTrust>,
        identity: Identity,
        tenant: String,
        followed: Followed,
    ) -> Self {
        let version = semver::Version::parse(env!("CARGO_PKG_VERSION"));
        Self {
            trust,
            identity,
            tenant,
            version: version.unwrap_or_else(|_| semver::Version::new(0, 0, 0)),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            followed,
            documents: Documents::default(),
        }
    }
}

impl SignedAdmission {
    /// Returns the trust that signatures are judged by, for policies.
    pub(crate) fn trust(&self) -> &Arc<LiveTrust> {
        &self.trust
    }

    /// Opens an order: of an operator, or of the Switch if the policy that is followed names the key that signed it. Also tells how many
    /// people signed it.
    fn signed_order(
        &self,
        envelope: &[u8],
        trust: &SigningTrust,
        now: UnixTime,
    ) -> Result<(Order, OrderSigner, usize), Refused> {
        let following = self.followed.current();
        let key = following.policy().and_then(|policy| policy.terms().order_key.as_ref());
        let is_switchs = |signer: &&Certificate| key.is_some_and(|key| key.is(&signer.thumbprint()));
        let signed = match admit::signed_order(envelope, &trust.as_trust(), now) {
            Err(reason) if reason.refusal == Refusal::UntrustedSigner && key.is_some() => {
                let orders = &trust.roots.switch_orders;
                let of_switch = admit::Trust { orders, ..trust.as_trust() };
                // By the roots of the Switch's keys alone nobody signs anything: the key itself is named, or it is a stranger's.
                match admit::signed_order(envelope, &of_switch, now) {
                    Ok((order, signers)) if signers.iter().all(|signer| is_switchs(&signer)) => {
                        Ok((order, signers))
                    }
                    // What it says of the key that is named counts, and of no other.
                    Err(of_key)
                        if (of_key.refusal == Refusal::SignerRevoked || of_key.lacks_only_a_crl)
                            && key.is_some_and(|key| is_claimed_by(envelope, key)) =>
                    {
                        Err(of_key)
                    }
                    Ok(_) | Err(_) => Err(reason),
                }
            }
            signed => signed,
        };
        let (order, signers) = signed.map_err(refused)?;
        let switchs = signers.iter().find(is_switchs).map(|signer| OrderSigner::Switch(signer.thumbprint()));
        // Keys of the Switch are nobody's second opinion, however many it has: all of them together are the one that issues.
        let operators: Vec<Certificate> =
            signers.iter().filter(|signer| !is_switchs(signer)).cloned().collect();
        let people = people(&operators).saturating_add(usize::from(switchs.is_some()));
        Ok((order, switchs.unwrap_or(OrderSigner::Operator), people))
    }

    /// Returns the policy that grants what may run.
    pub(crate) fn followed(&self) -> &Followed {
        &self.followed
    }
}

impl Admission for SignedAdmission {
    fn open(&self, envelope: &[u8], now_ms: i64) -> Result<Signed, Refused> {
        let trust = self.trust.current_for(envelope, Role::OrderSigner);
        let (order, signer, people) = self.signed_order(envelope, &trust, unix_time(now_ms))?;
        let unreadable =
            |field| Refused::new(Refusal::BadSignature, format!("the signed order has no usable {field}"));
        if let Some(stops) = order::stops(&order) {
            let expires_at_ms = order.expires_at_ms;
            return Ok(Signed::Stop(Box::new(OpenedStop { stops, expires_at_ms, order, signer })));
        }
        Ok(Signed::Order(Box::new(Opened {
            instruction: InstructionId::try_from(&order.instruction[..])
                .map_err(|_| unreadable("instruction"))?,
            definition: Digest::try_from(&order.definition_digest[..])
                .map_err(|_| unreadable("definition"))?,
            licence_serial: order.licence_serial,
            expires_at_ms: order.expires_at_ms,
            order,
            signer,
            people,
        })))
    }

    fn claimed(&self, envelope: &[u8]) -> Option<Claimed> {
        let inspection = envelope::inspect(envelope).ok()?;
        let order = order::decode(&inspection.content).ok()?;
        match order::stops(&order) {
            Some(stopped) => Some(Claimed::Stop(stopped)),
            None => InstructionId::try_from(&order.instruction[..]).ok().map(Claimed::Order),
        }
    }

    fn admit_stop(&self, stop: &OpenedStop, memory: &Memory, now_ms: i64) -> Result<(), Refused> {
        if let OrderSigner::Switch(thumbprint) = stop.signer {
            // What a policy names is what the Switch may have run; nothing says whose instructions it may end.
            let detail = format!(
                "the stop is signed by the Switch's key {thumbprint}; only an operator's stops anything"
            );
            return Err(Refused::new(Refusal::NotGranted, detail));
        }
        let floor = unix_time(memory.time_floor_ms);
        admit::stop(&stop.order, &self.tenant, floor, unix_time(now_ms)).map(drop).map_err(refused)
    }

    fn admit(
        &self,
        opened: &Opened,
        definition: &[u8],
        licence: &[u8],
        proof: Option<&InclusionProof>,
        memory: &Memory,
        now_ms: i64,
    ) -> Result<Plan, Refused> {
        let trust = self.trust.current_for(definition, Role::Author);
        // Orders come over sessions, which need the certificate that tells it.
        let Some(known) = self.identity.known() else {
            let detail =
                "this device has no certificate yet, and so no name that an audience could hold".to_owned();
            return Err(Refused::new(Refusal::WrongAudience, detail));
        };
        let device = admit::Device {
            id: &known.device,
            tenant: &self.tenant,
            attributes: &known.values(),
            client_version: &self.version,
            platform: &self.platform,
        };
        let memory = admit::Memory {
            highest_version: memory.versions.get(&opened.order.definition_name),
            time_floor: unix_time(memory.time_floor_ms),
        };
        admit::admit(
            &opened.order,
            opened.people,
            definition,
            licence,
            proof,
            &trust.as_trust(),
            &device,
            &memory,
            &self.documents,
            unix_time(now_ms),
        )
        .map_err(refused)
        .and_then(|admitted| {
            let seen = Seen::of(&admitted.definition);
            granted(admitted, opened.signer, &self.followed.current())
                .map_err(|refused| Refused { seen: Some(Box::new(seen)), ..refused })
        })
        // The Switch's key signs for what a policy names: what is refused of it, nobody has vouched for.
        .map_err(|refused| Refused {
            seen: refused.seen.filter(|_| opened.signer == OrderSigner::Operator),
            ..refused
        })
    }

    fn licence(&self, envelope: &[u8], now_ms: i64) -> Result<LicenceTerms, Refused> {
        let trust = self.trust.current_for(envelope, Role::Licensor);
        let licence = admit::licence(envelope, &trust.as_trust(), unix_time(now_ms)).map_err(refused)?;
        if licence.tenant() != self.tenant {
            // Its serial says nothing about ours, and would keep every later one of ours out.
            let detail = format!(
                "licence {} is for the tenant {:?}, this device belongs to {:?}; import this tenant's licence",
                licence.serial(),
                licence.tenant(),
                self.tenant
            );
            return Err(Refused::new(Refusal::WrongTenant, detail));
        }
        Ok(LicenceTerms::of(&licence))
    }

    fn refresh(&self) -> Option<RefreshJob> {
        let trust = Arc::clone(&self.trust);
        Some(Box::new(move || drop(trust.refresh())))
    }
}

impl SigningTrust {
    fn as_trust(&self) -> admit::Trust<'_> {
        admit::Trust {
            authors: &self.roots.authors,
            orders: &self.roots.orders,
            licences: &self.roots.licences,
            timestamps: self.roots.timestamps.as_ref(),
            revocation: Some(&self.revocation),
        }
    }
}

/// Holds what may run by its signatures against what the administrators' policy lets run here (K2).
fn granted(admitted: Admitted, signer: OrderSigner, following: &Following) -> Result<Plan, Refused> {
    let followed = match following {
        Following::AsInstalled => None,
        Following::Policy(policy) => Some(policy),
        Following::Unreadable(problem) => return Err(Refused::policy_unreadable(problem)),
    };
    if let OrderSigner::Switch(thumbprint) = signer {
        admit_switch(&admitted, &thumbprint, followed)?;
    }
    let Some(policy) = followed else { return plan(admitted, None) };
    let grants = &policy.terms().grants;
    grants.admit(&admitted.definition).map_err(|error| Refused::not_granted(policy.serial(), &error))?;
    let tables = grants.tables.clone().map(|tables| PlanTables { policy: policy.serial(), tables });
    plan(admitted, tables)
}

/// Whether every signer that an envelope names is a key of the Switch that the policy names; nothing is verified.
fn is_claimed_by(envelope: &[u8], key: &OrderKey) -> bool {
    let Ok(inspection) = envelope::inspect(envelope) else { return false };
    !inspection.signers.is_empty()
        && inspection.signers.iter().all(|(signer, _)| key.is(&signer.thumbprint()))
}

/// The Switch's key counts for what the policy names that is followed now; another one may have been when the order was opened.
fn admit_switch(
    admitted: &Admitted,
    thumbprint: &Thumbprint,
    followed: Option<&Policy>,
) -> Result<(), Refused> {
    let named = followed.and_then(|policy| Some((policy.serial(), policy.terms().order_key.as_ref()?)));
    match named.filter(|(_, key)| key.is(thumbprint)) {
        Some((serial, key)) => {
            key.admit(&admitted.definition).map_err(|error| Refused::not_granted(serial, &error))
        }
        None => {
            let detail =
                format!("the order is signed by the key {thumbprint}, which no policy names any more");
            Err(Refused::new(Refusal::UntrustedSigner, detail))
        }
    }
}

fn plan(admitted: Admitted, tables: Option<PlanTables>) -> Result<Plan, Refused> {
    let Admitted { definition, arguments, .. } = admitted;
    let mut steps = Vec::new();
    for step in definition.steps() {
        may_be_of(definition.kind(), step)?;
        steps.push(plan_step(step, &arguments)?);
    }
    let columns = definition.result().iter().map(|column| PlanColumn {
        name: column.name.clone(),
        kind: column.kind,
        max_length: column.max_length,
    });
    let resources = definition.resources().iter().map(|resource| PlanResource {
        name: resource.name.clone(),
        size: resource.size,
        root: resource.root,
        sha256: resource.sha256,
    });
    let limits = definition.limits();
    let is_boolean = |it: &&Parameter| matches!(it.kind(), ParameterKind::Boolean);
    Ok(Plan {
        name: definition.name().to_string(),
        version: definition.version().clone(),
        steps,
        reach: reach_of(definition.kind()),
        booleans: definition.parameters().iter().filter(is_boolean).map(|it| it.name().to_owned()).collect(),
        columns: (!definition.result().is_empty()).then(|| columns.collect()),
        resources: resources.collect(),
        run_time: limits.run_time,
        rows: limits.rows,
        bytes: limits.bytes,
        sandbox: match definition.sandbox() {
            Sandbox::Standard => SandboxProfile::Standard,
            Sandbox::Strict => SandboxProfile::Strict,
        },
        parameters: arguments.into_iter().map(bound).collect(),
        tables,
    })
}

/// What scripts may do.
const fn reach_of(kind: DefinitionKind) -> Reach {
    match kind {
        DefinitionKind::Question => Reach::Reads,
        DefinitionKind::Action => Reach::Changes,
    }
}

/// A question is asked without anybody's confirmation, so it changes nothing. No definition is read that has an action in one, and here that is
/// not taken on trust. A script of a question is no matter of its step: it is started with [`Reach::Reads`].
fn may_be_of(kind: DefinitionKind, step: &Step) -> Result<(), Refused> {
    if kind == DefinitionKind::Question && matches!(step, Step::Action(_)) {
        let detail = "it is a question with an action, which nobody confirmed; wanted: kind = \"action\"";
        return Err(Refused::new(Refusal::Unsupported, detail.to_owned()));
    }
    Ok(())
}

/// Returns what a step runs: as it is signed, or, for the platform's free question, the one argument that is it.
fn plan_step(step: &Step, arguments: &[NamedValue]) -> Result<PlanStep, Refused> {
    let unsupported = |detail: String| Refused::new(Refusal::Unsupported, detail);
    match step {
        Step::Query { sql } => Ok(PlanStep::Query(sql.clone())),
        Step::Script(script) => Ok(PlanStep::Script(script.clone())),
        Step::Action(action) => plan_action(action, arguments).map(PlanStep::Action),
        Step::QueryParameter { parameter } => {
            let argument = arguments.iter().find(|argument| argument.name == *parameter);
            match argument.and_then(|argument| argument.value.clone()?.kind) {
                Some(Kind::Text(sql)) => Ok(PlanStep::Query(sql)),
                Some(Kind::Integer(_) | Kind::Real(_) | Kind::Blob(_)) | None => {
                    Err(unsupported(format!("its step is parameter {parameter:?}, which has no text")))
                }
            }
        }
        _ => Err(unsupported("it has a step of a kind that this version does not run".to_owned())),
    }
}

/// Returns an action with its values, which were checked when the arguments were.
fn plan_action(action: &Action, arguments: &[NamedValue]) -> Result<PlanAction, Refused> {
    let value = |operand: &Operand| {
        let lacks = || Refused::new(Refusal::BadArgument, format!("an action has no text for {operand:?}"));
        operand.value(arguments).map(str::to_owned).ok_or_else(lacks)
    };
    Ok(match action {
        Action::Service { verb, unit } => PlanAction::Service(plan_verb(*verb), value(unit)?),
        Action::FilePut { resource, path, mode } => {
            PlanAction::Put(resource.clone(), value(path)?.into(), *mode)
        }
        Action::FileRemove { path } => PlanAction::Remove(value(path)?.into()),
    })
}

fn plan_verb(verb: ServiceVerb) -> Verb {
    match verb {
        ServiceVerb::Start => Verb::Start,
        ServiceVerb::Stop => Verb::Stop,
        ServiceVerb::Restart => Verb::Restart,
        ServiceVerb::Reload => Verb::Reload,
    }
}

fn bound(argument: NamedValue) -> (String, SqlValue) {
    let value = match argument.value.and_then(|value| value.kind) {
        None => SqlValue::Null,
        Some(Kind::Integer(number)) => SqlValue::Integer(number),
        Some(Kind::Real(number)) => SqlValue::Real(number),
        Some(Kind::Text(text)) => SqlValue::Text(text),
        Some(Kind::Blob(bytes)) => SqlValue::Blob(bytes.to_vec()),
    };
    (argument.name, value)
}

fn refused(reason: RefusalReason) -> Refused {
    let RefusalReason { refusal, detail, lacks_only_a_crl, seen } = reason;
    Refused { refusal, detail, lacks_only_a_crl, seen }
}

fn unix_time(ms: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use muster_signing::definition::Definition;

    use super::*;

    #[test]
    fn no_action_is_planned_of_a_question_whoever_read_the_definition() {
        let unit = || Operand::Literal("ssh.service".to_owned());
        let path = || Operand::Literal("/etc/motd".to_owned());
        let restart = Action::Service { verb: ServiceVerb::Restart, unit: unit() };
        let put = Action::FilePut { resource: "motd".to_owned(), path: path(), mode: 0o644 };
        for action in [restart, put, Action::FileRemove { path: path() }] {
            let step = Step::Action(action);

            let refused = may_be_of(DefinitionKind::Question, &step).unwrap_err();

            assert_eq!(refused.refusal, Refusal::Unsupported);
            assert!(refused.detail.contains("a question with an action"), "{}", refused.detail);
            assert_eq!(may_be_of(DefinitionKind::Action, &step), Ok(()));
        }
        let query = Step::Query { sql: "SELECT 1 AS one".to_owned() };
        assert_eq!(may_be_of(DefinitionKind::Question, &query), Ok(()));
    }

    #[test]
    fn a_script_may_change_something_in_an_action_alone() {
        for (kind, reach) in [("question", Reach::Reads), ("action", Reach::Changes)] {
            let text = format!(
                "name = \"Acme-Some-Script\"\nversion = \"1.0.0\"\nkind = \"{kind}\"\nsays = \"Runs it\"\n[[step]]\n\
                 script = {{ interpreter = \"/bin/sh\", text = \"true\" }}\n[[result]]\nname = \"line\"\ntype = \"text\"\nmax_length = 9\n\
                 [limits]\nrun_time = \"10s\"\nrows = 10\nbytes = \"1 KiB\"\n[time_to_live]\n\
                 gather = {{ default = \"1h\", min = \"1m\", max = \"7d\" }}\nkeep = {{ default = \"1d\", min = \"1h\", max = \"30d\" }}\n"
            );
            let definition = Definition::parse(&text).unwrap_or_else(|error| panic!("{error}"));

            assert_eq!(reach_of(definition.kind()), reach);
            assert_eq!(may_be_of(definition.kind(), &definition.steps()[0]), Ok(()));
        }
    }
}
