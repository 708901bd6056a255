//! The machine alone: what it is told as text, what it wants done as text.

mod arriving;
mod certificate;
mod flood;
mod licence;
mod lists;
mod outcome;
mod restored;
mod rows;
mod slots;
mod starting;
mod stopping;
mod stops;
mod unreadable;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use muster_endpoint::{Column, ColumnKind, Reach, SandboxProfile, SqlValue, Summary, TakeRows as _};
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::numbers::Standing;
use muster_proto::session::v1::InclusionProof;
use muster_signing::admit::Seen;

use super::admission::{Claimed, OpenedStop, OrderSigner, PlanColumn, PlanResource, PlanStep};
use super::licence::LicenceTerms;
use super::rows::{Collected, Collecting};
use super::{
    Admission, DownloadWait, Effect, FetchFailure, HeldLicence, Instructions, Limits, Memory, Now, Opened,
    Plan, RefreshJob, Refused, Room, Signed, WaitNotice,
};
use crate::store::{Entry, JournalState, Recalled};

const NOW_MS: i64 = 1_800_000_000_000;

/// An admission without signatures: an order is the text `NUMBER DEFINITION [forged|…]`, a stop `NUMBER stop STOPPED [forged|late]`,
/// and so is what is wrong.
#[derive(Debug, Default)]
struct Spoken {
    is_revoked: bool,
    /// Whether there is a CRL of those who signed what is `early`.
    has_list: bool,
    /// Whether there is a root of those who signed what is `strange`.
    has_root: bool,
    /// How often roots were read.
    refreshed: Arc<AtomicUsize>,
}

impl Spoken {
    fn lacks_a_list(&self, text: &str) -> Result<(), Refused> {
        if self.has_list || !text.contains("early") {
            return Ok(());
        }
        let refused = Refused::new(Refusal::UntrustedSigner, "R6".to_owned());
        Err(Refused { lacks_only_a_crl: true, ..refused })
    }
}

impl Admission for Spoken {
    fn open(&self, envelope: &[u8], now_ms: i64) -> Result<Signed, Refused> {
        let text = std::str::from_utf8(envelope).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        if words.len() < 2 || words.contains(&"forged") {
            return Err(Refused::new(Refusal::BadSignature, "forged".to_owned()));
        }
        self.lacks_a_list(text)?;
        if words.contains(&"young") && now_ms < NOW_MS {
            return Err(Refused::new(Refusal::UntrustedSigner, "not yet valid".to_owned()));
        }
        if words[1] == "stop" {
            return Ok(Signed::Stop(Box::new(OpenedStop {
                stops: id(words[2].parse().unwrap()),
                expires_at_ms: if words.contains(&"late") { now_ms } else { now_ms.max(NOW_MS) + 60_000 },
                order: muster_proto::order::v1::Order { operator: "ann".to_owned(), ..Default::default() },
                signer: OrderSigner::Operator,
            })));
        }
        Ok(Signed::Order(Box::new(Opened {
            instruction: id(words[0].parse().unwrap()),
            definition: digest(words[1]),
            licence_serial: 3,
            expires_at_ms: now_ms.max(NOW_MS) + 60_000,
            order: muster_proto::order::v1::Order::default(),
            signer: OrderSigner::Operator,
            people: if words.contains(&"approved") { 2 } else { 1 },
        })))
    }

    fn claimed(&self, envelope: &[u8]) -> Option<Claimed> {
        let text = std::str::from_utf8(envelope).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            [_, "stop", stopped, ..] => stopped.parse().ok().map(id).map(Claimed::Stop),
            _ => words[0].parse().ok().map(id).map(Claimed::Order),
        }
    }

    fn admit_stop(&self, stop: &OpenedStop, _memory: &Memory, now_ms: i64) -> Result<(), Refused> {
        if now_ms < stop.expires_at_ms {
            return Ok(());
        }
        Err(Refused::new(Refusal::Expired, "late".to_owned()))
    }

    fn admit(
        &self,
        opened: &Opened,
        definition: &[u8],
        _licence: &[u8],
        _proof: Option<&InclusionProof>,
        memory: &Memory,
        now_ms: i64,
    ) -> Result<Plan, Refused> {
        if now_ms < memory.time_floor_ms {
            return Err(Refused::new(Refusal::NotYetValid, "set back".to_owned()));
        }
        self.lacks_a_list(&String::from_utf8_lossy(definition))?;
        let mut plan = plan("Acme-A");
        match definition {
            b"unapproved" if opened.people < 2 => {
                return Err(Refused::new(Refusal::Unapproved, "one more".to_owned()));
            }
            b"wrong-audience" => {
                return Err(Refused::new(Refusal::WrongAudience, "not for you".to_owned()));
            }
            b"newer-for-others" => {
                let seen = Seen { name: plan.name, version: semver::Version::new(2, 0, 0) };
                let refused = Refused::new(Refusal::WrongAudience, "not for you".to_owned());
                return Err(Refused { seen: Some(Box::new(seen)), ..refused });
            }
            b"newer" => plan.version = semver::Version::new(2, 0, 0),
            b"with-resource" => {
                plan.resources =
                    vec![PlanResource { name: "a".to_owned(), size: 1, root: digest("a"), sha256: None }];
            }
            _ => {}
        }
        if memory.versions.get(&plan.name).is_some_and(|seen| plan.version < *seen) {
            return Err(Refused::new(Refusal::RolledBack, "a newer one was seen".to_owned()));
        }
        if self.is_revoked {
            return Err(Refused::new(Refusal::SignerRevoked, "revoked".to_owned()));
        }
        Ok(plan)
    }

    fn licence(&self, envelope: &[u8], _now_ms: i64) -> Result<LicenceTerms, Refused> {
        let text = std::str::from_utf8(envelope).unwrap();
        self.lacks_a_list(text)?;
        if text.starts_with("strange") && !self.has_root {
            return Err(Refused::new(Refusal::UntrustedSigner, "no root".to_owned()));
        }
        let text = &text[text.find("licence ").unwrap() + 8..];
        let (serial, refresh_by) = text.split_once(" refreshed by ").unwrap_or((text, ""));
        Ok(LicenceTerms { serial: serial.parse().unwrap(), refresh_by_ms: refresh_by.parse().ok() })
    }

    fn refresh(&self) -> Option<RefreshJob> {
        let refreshed = Arc::clone(&self.refreshed);
        Some(Box::new(move || {
            refreshed.fetch_add(1, Ordering::Relaxed);
        }))
    }
}

/// What a machine of these tests begins with.
fn held_licence() -> HeldLicence {
    let envelope = b"licence 3".to_vec();
    HeldLicence { envelope, digest: digest("licence 3"), serial: 3, refresh_by_ms: None }
}

struct Test {
    machine: Instructions<Spoken>,
    now: Now,
}

impl Test {
    fn new() -> Self {
        let limits = Limits { parallel: 2, queued: 3, document: Duration::from_secs(30) };
        let now = Now { instant: Instant::now(), wall_ms: NOW_MS };
        let memory = Memory { time_floor_ms: NOW_MS - 1_000, ..Memory::default() };
        let licence = held_licence();
        let machine = Instructions::new(Spoken::default(), limits, Some(licence), 3, memory, now.instant);
        let mut test = Self { machine, now };
        test.machine.handle_judged(Standing::Own, 0, 0, now);
        test
    }

    fn order(&mut self, text: &str) {
        self.machine.handle_order(text.as_bytes(), None, self.now);
    }

    fn recalled(&mut self, number: u8, known: Option<(JournalState, Digest)>, definition: Option<&str>) {
        let recalled = known.map(|(state, order_digest)| Recalled { order_digest, state });
        let definition = definition.map(|text| text.as_bytes().to_vec());
        self.machine.handle_recalled(id(number), recalled, definition, self.now);
    }

    fn admitted(&mut self, number: u8) {
        self.order(&format!("{number} d"));
        self.recalled(number, None, Some("d"));
    }

    fn licence(&mut self, text: &str) {
        self.machine.handle_licence_notice(digest(text), self.now);
        self.machine.handle_licence(digest(text), text.as_bytes(), self.now);
    }

    fn list(&mut self) {
        self.machine.admission.has_list = true;
        self.machine.handle_lists(self.now);
    }

    fn pass(&mut self, seconds: u64) {
        self.now.instant += Duration::from_secs(seconds);
        self.machine.handle_timeout(self.now);
    }

    fn finish(&mut self, number: u8) {
        self.machine.handle_finished(id(number), Ok(answer(&plan("Acme-A"), Vec::new())), self.now);
    }

    fn effects(&mut self) -> Vec<String> {
        let cut = |text: String| text.split(": ").next().unwrap_or_default().to_owned();
        self.effects_with_detail().into_iter().map(cut).collect()
    }

    /// Tells of each start that it is recorded, as the shell does.
    fn effects_with_detail(&mut self) -> Vec<String> {
        let (mut told, mut recorded) = (Vec::new(), VecDeque::new());
        loop {
            let (more, starts) = self.effects_until_recorded();
            told.extend(more);
            recorded.extend(starts);
            let Some(instruction) = recorded.pop_front() else { return told };
            self.machine.handle_start_recorded(instruction, self.now);
        }
    }

    /// What is done before the machine is told of a start that is on disk, and whose starts these are.
    fn effects_until_recorded(&mut self) -> (Vec<String>, Vec<InstructionId>) {
        let effects: Vec<Effect> = std::iter::from_fn(|| self.machine.poll_effect()).collect();
        let start = |effect: &Effect| {
            if let Effect::RecordStart { instruction, .. } = effect { Some(*instruction) } else { None }
        };
        (effects.iter().map(shown).collect(), effects.iter().filter_map(start).collect())
    }
}

fn shown(effect: &Effect) -> String {
    let n = |instruction: &InstructionId| instruction.as_bytes()[0];
    match effect {
        Effect::Recall { instruction, .. } => format!("recall {}", n(instruction)),
        Effect::AskDefinition { .. } => "ask definition".to_owned(),
        Effect::AskLicence { .. } => "ask licence".to_owned(),
        Effect::KeepDefinition { .. } => "keep definition".to_owned(),
        Effect::KeepVersion { name, version } => format!("keep {name} {version}"),
        Effect::KeepLicence { serial, .. } => format!("keep licence {serial}"),
        Effect::RecordIntent { entry, .. } => format!("intent {}", n(&entry.instruction)),
        Effect::SendProgress { instruction, state: TargetState::Acked } => {
            format!("acked {}", n(instruction))
        }
        Effect::SendProgress { instruction, .. } => format!("running {}", n(instruction)),
        Effect::Fetch { instruction, .. } => format!("fetch {}", n(instruction)),
        Effect::StopFetching => "stop fetching".to_owned(),
        Effect::LookForCertificate => "look".to_owned(),
        Effect::RecordWait { stored, notice } => {
            let waits = if stored.is_some() { "wait" } else { "no wait" };
            match notice {
                None => waits.to_owned(),
                Some(WaitNotice::Missing { instruction, .. }) => {
                    format!("{waits}, missing {}", n(instruction))
                }
                Some(WaitNotice::Recovered { instruction, waited_ms }) => {
                    format!("{waits}, recovered {} after {} s", n(instruction), waited_ms / 1_000)
                }
            }
        }
        Effect::RecordStart { instruction, .. } => format!("start {}", n(instruction)),
        Effect::Run { instruction, .. } => format!("run {}", n(instruction)),
        Effect::RecordResult { result, .. } if result.detail.is_empty() => {
            format!("result {} {:?}", result.instruction[0], result.state())
        }
        Effect::RecordResult { result, .. } => {
            format!("result {} {:?}: {}", result.instruction[0], result.state(), result.detail)
        }
        Effect::RecordRefusal { entry, result, .. } => {
            let journaled = if entry.is_some() { " journaled" } else { "" };
            let outcome = if result.state() == TargetState::Refused {
                format!("{:?}", result.refusal())
            } else {
                format!("{:?}", result.state())
            };
            format!("refuse {} {outcome}{journaled}: {}", result.instruction[0], result.detail)
        }
        Effect::ReportUnreadable { .. } => "unreadable".to_owned(),
        Effect::RecordStop { stop, result } => format!("stop {} {:?}", n(&stop.instruction), result.state()),
        Effect::EndRun { instruction } => format!("end {}", n(instruction)),
        Effect::ReportStop { instruction, refused, .. } => {
            format!("stop of {} refused {:?}", n(instruction), refused.refusal)
        }
    }
}

pub(super) fn id(number: u8) -> InstructionId {
    InstructionId::from([number; 16])
}

pub(super) fn digest(text: &str) -> Digest {
    muster_signing::envelope::digest(text.as_bytes())
}

/// What a helper says behind its rows.
fn summary() -> Summary {
    let columns = vec![Column { name: "a".to_owned(), kind: ColumnKind::Text }];
    Summary { columns, truncated: false, sandbox_missing: Vec::new() }
}

/// The answer of these rows, which one part has room for.
fn answer(plan: &Plan, rows: Vec<Vec<SqlValue>>) -> Collected {
    let room = Room { bytes_max: 1 << 20, folder: "/nowhere".into() };
    let mut collecting = Collecting::new(plan, &room);
    let collected = async {
        collecting.take(rows).await;
        collecting.finish(summary()).await
    };
    collected.now_or_never().expect("nothing of it is put on a disk")
}

pub(super) fn plan(name: &str) -> Plan {
    Plan {
        name: name.to_owned(),
        version: semver::Version::new(1, 0, 0),
        steps: vec![PlanStep::Query("SELECT 1".to_owned())],
        reach: Reach::Reads,
        booleans: BTreeSet::new(),
        parameters: Vec::new(),
        columns: None,
        resources: Vec::new(),
        run_time: Duration::from_secs(1),
        rows: 10,
        bytes: 1_000,
        sandbox: SandboxProfile::Standard,
        tables: None,
    }
}
