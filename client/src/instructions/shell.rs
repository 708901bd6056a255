//! Carries out what [`Instructions`] decides: disk, session, downloads, helper processes.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use muster_endpoint::{HelperCommand, SandboxProfile};
use muster_proto::common::v1::TargetState;
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::numbers::Standing;
use muster_proto::session::v1::{DocumentKind, InclusionProof, Result as InstructionResult};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::confinement::Confinement;
use super::delayed::Delayed;
use super::due::Due;
use super::rows::Room;
use super::run::{StepError, run_steps};
use super::work::{Done, Work, fetch};
use super::{Admission, Effect, Instructions, LicenceAlarm, Plan, Refused, WaitNotice, outcome};
use crate::clock;
use crate::content::Content;
use crate::events::{CERTIFICATE_MISSING, CERTIFICATE_RECOVERED, ORDER_UNREADABLE, STOP_REFUSED};
use crate::https::CertificateWatch;
use crate::store::{Entry, StopEntry, Store, StoreError, event_record};
use crate::value;

/// What came over the session.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// An order.
    Order {
        /// Its envelope.
        envelope: Bytes,
        /// The proof beside it.
        proof: Option<InclusionProof>,
    },
    /// An order of a session whose Welcome could not be judged: if it is the stop of something that runs, that is ended. Nothing else comes
    /// of it, and the next session brings it again.
    Urgent(Bytes),
    /// A document that was asked for.
    Document {
        /// What it is.
        kind: DocumentKind,
        /// As asked.
        digest: Digest,
        /// Empty: the Switch does not have it.
        envelope: Bytes,
    },
    /// Which licence the Switch holds.
    LicenceNotice(Digest),
    /// A Welcome was judged; it comes before everything else of its session.
    Judged {
        /// Whether it showed the store to be a copy.
        standing: Standing,
        /// When the store was last brought back from a copy, milliseconds since 1970; 0: never.
        restored_at_ms: i64,
        /// The Switch's clock, milliseconds since 1970.
        switch_ms: i64,
        /// How many stops it says come next.
        stops_due: u32,
    },
    /// A Welcome could not be judged, since the disk had no room for what it says.
    Unjudged,
    /// The session ended.
    Disconnected,
}

/// What goes out over the session, if there is one.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// How far an instruction is.
    Progress(InstructionId, TargetState),
    /// A document is wanted.
    Ask(DocumentKind, Digest),
    /// This policy is followed, 0 for none; is there a later one?
    CheckPolicy(u64),
    /// Another session is wanted, in which the Switch sends again what was not answered.
    Again,
}

/// What others may know of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Instructions that wait.
    pub(crate) waiting: usize,
    /// Instructions that run.
    pub(crate) running: usize,
    /// SHA-256 of the licence held.
    pub(crate) licence: Option<Digest>,
    /// Its serial, 0 without one.
    pub(crate) licence_serial: u64,
    /// What is wrong with it, such as that a newer one should have come; empty if nothing is.
    pub(crate) licence_problem: String,
    /// The instruction whose download waits for a certificate (S6), and when it fails, milliseconds since 1970.
    pub(crate) certificate_wait: Option<(InstructionId, i64)>,
}

/// How long what runs may take to end when the client stops; what takes longer is reported as interrupted at the next
/// start.
const DRAIN: Duration = Duration::from_secs(2);

/// Everything an instruction may need.
#[derive(Debug)]
pub(crate) struct Shell<A> {
    /// The machine.
    pub(crate) machine: Instructions<A>,
    /// The store.
    pub(crate) store: Store,
    /// The cache of resources.
    pub(crate) content: Content,
    /// Whether downloads have a certificate to show.
    pub(crate) certificate: CertificateWatch,
    /// What runs SQL.
    pub(crate) helper: HelperCommand,
    /// Whether a whole sandbox is to be had.
    pub(crate) confinement: Confinement,
    /// How much an answer may have.
    pub(crate) room: Room,
    /// Rises when the CRLs change.
    pub(crate) lists: watch::Receiver<u64>,
    /// From the session.
    pub(crate) inbox: mpsc::Receiver<Inbound>,
    /// To the session.
    pub(crate) session: mpsc::Sender<Outbound>,
    /// To whom asks.
    pub(crate) workload: watch::Sender<Workload>,
    /// How long ended instructions are remembered.
    pub(crate) remember: Duration,
    /// Downloads and runs.
    pub(crate) work: Work,
    /// What was told of the licence.
    pub(crate) alarm: LicenceAlarm,
    /// Starts that are on disk and that the machine has yet to be told of.
    pub(crate) recorded: VecDeque<InstructionId>,
    /// What came over the session while a write waited for room on the disk, in order; before what the inbox has.
    pub(crate) delayed: Delayed,
    /// What is done at times of its own.
    pub(crate) due: Due,
    /// Ends the task.
    pub(crate) stop: CancellationToken,
}

impl<A: Admission> Shell<A> {
    /// Runs until it is stopped or the store fails. What is due is done before each wait, and what changes seldom is looked at first:
    /// whoever keeps the inbox full, keeps neither a root that was removed nor the time floor from being noted.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        loop {
            self.handle_due().await?;
            self.settle().await?;
            self.come_again();
            let timeout = self.poll_timeout();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.drain().await,
                Ok(()) = self.lists.changed() => self.machine.handle_lists(clock::now()),
                () = self.certificate.changed() => {
                    self.machine.handle_certificate(self.certificate.availability(), clock::now());
                }
                Some(done) = self.work.next() => self.handle_done(done),
                Some(inbound) = next(&mut self.delayed, &mut self.inbox) => self.handle_inbound(inbound),
                () = sleep_until(timeout) => {}
            }
        }
    }

    /// Takes in what has come over the session by now.
    fn read_inbox(&mut self) {
        while let Some(inbound) = self.delayed.pop() {
            self.handle_inbound(inbound);
        }
        for _ in 0..self.inbox.len() {
            let Ok(inbound) = self.inbox.try_recv() else { return };
            self.handle_inbound(inbound);
        }
    }

    fn handle_inbound(&mut self, inbound: Inbound) {
        let now = clock::now();
        match inbound {
            Inbound::Order { envelope, proof } => self.machine.handle_order(&envelope, proof, now),
            Inbound::Document { kind: DocumentKind::Licence, digest, envelope } => {
                self.machine.handle_licence(digest, &envelope, now);
            }
            Inbound::Document {
                kind: DocumentKind::Definition | DocumentKind::Unspecified,
                digest,
                envelope,
            } => {
                self.machine.handle_definition(digest, &envelope, now);
            }
            // The session hands them to whoever follows policies.
            Inbound::Document { kind: DocumentKind::Policy, .. } => {}
            Inbound::LicenceNotice(digest) => self.machine.handle_licence_notice(digest, now),
            Inbound::Judged { standing, restored_at_ms, switch_ms, stops_due } => {
                self.machine.handle_switch_time(switch_ms, now);
                self.machine.handle_judged(standing, restored_at_ms, stops_due, now);
                self.keep_fetching();
            }
            Inbound::Urgent(envelope) => self.hear_urgent(&envelope),
            Inbound::Unjudged => self.machine.handle_unjudged(now),
            Inbound::Disconnected => self.machine.handle_disconnected(),
        }
    }

    /// Gives up the downloads that the machine does not want any more.
    fn keep_fetching(&self) {
        self.work.keep_fetching(|instruction| self.machine.is_fetching(instruction));
    }

    fn handle_done(&mut self, done: Done) {
        let now = clock::now();
        match done {
            Done::Fetched(instruction, fetched) => self.machine.handle_fetched(instruction, fetched, now),
            Done::Ran(instruction, answer) => self.machine.handle_finished(instruction, answer, now),
            Done::Ended(instruction) => self.machine.handle_ended(instruction, now),
            Done::Refreshed => self.machine.handle_refreshed(now),
            Done::GivenUp => {}
            Done::Broke(instruction, detail) => self.machine.handle_broken(instruction, &detail, now),
        }
    }

    /// Carries out every effect, in order, and then runs what has its start on disk, unless stops are waited for: that ends by itself
    /// ([`Instructions::poll_timeout`]) or with what comes.
    async fn settle(&mut self) -> Result<(), StoreError> {
        loop {
            while let Some(effect) = self.machine.poll_effect() {
                let loss = effect.loss();
                match self.perform(effect).await {
                    Err(StoreError::DiskFull) => return self.give_up(loss),
                    performed => performed?,
                }
            }
            if self.recorded.is_empty() || self.machine.is_held() {
                break;
            }
            // The disk may have taken its time, and a stop may have come in it, or a Welcome that announces some.
            self.read_inbox();
            if !self.machine.is_held()
                && let Some(instruction) = self.recorded.pop_front()
            {
                self.machine.handle_start_recorded(instruction, clock::now());
            }
        }
        let licence_problem = self.tell_licence().await?;
        let (waiting, running) = self.machine.counts();
        let licence = self.machine.licence();
        let workload = Workload {
            waiting,
            running,
            licence: licence.map(|licence| licence.digest),
            licence_serial: licence.map_or(0, |licence| licence.serial),
            licence_problem,
            certificate_wait: self.machine.download_waiting(),
        };
        let waits = if workload.certificate_wait.is_some() { 1.0 } else { 0.0 };
        metrics::gauge!(crate::metrics::DOWNLOAD_WAITS).set(waits);
        self.workload.send_if_modified(|current| {
            let changed = *current != workload;
            *current = workload;
            changed
        });
        Ok(())
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), StoreError> {
        let now_ms = clock::wall_ms();
        match effect {
            Effect::Recall { instruction, order_digest, definition } => {
                let (recalled, definition) = self
                    .durable(move |tables| {
                        let recalled = tables.recall_order(instruction, order_digest)?;
                        Ok((recalled, tables.definition(definition, now_ms)?))
                    })
                    .await?;
                self.machine.handle_recalled(instruction, recalled, definition, clock::now());
            }
            Effect::AskDefinition { digest } => self.send(Outbound::Ask(DocumentKind::Definition, digest)),
            Effect::AskLicence { digest } => self.send(Outbound::Ask(DocumentKind::Licence, digest)),
            Effect::SendProgress { instruction, state } => self.send(Outbound::Progress(instruction, state)),
            Effect::KeepDefinition { digest, envelope } => {
                self.durable(move |tables| tables.keep_definition(digest, &envelope, now_ms)).await?;
            }
            Effect::KeepVersion { name, version } => {
                self.durable(move |tables| tables.keep_version(&name, &version)).await?;
            }
            Effect::KeepLicence { envelope, serial } => {
                tracing::info!(serial, "licence taken");
                self.durable(move |tables| tables.keep_licence(&envelope, serial)).await?;
            }
            Effect::RecordIntent { entry, name, version, floor_ms } => {
                self.durable(move |tables| {
                    tables.record_intent(&entry)?;
                    tables.keep_version(&name, &version)?;
                    tables.raise_time_floor(floor_ms)
                })
                .await?;
            }
            Effect::RecordStart { instruction, at_ms, sandbox } => {
                self.record_start(instruction, at_ms, sandbox).await?;
            }
            Effect::Fetch { instruction, plan, expires_at_ms } => {
                self.fetch(instruction, *plan, expires_at_ms);
            }
            Effect::StopFetching => self.keep_fetching(),
            Effect::LookForCertificate => {
                let availability = self.certificate.look().await;
                self.machine.handle_certificate(availability, clock::now());
            }
            Effect::RecordWait { stored, notice } => self.record_wait(stored, notice, now_ms).await?,
            Effect::Run { instruction, plan, resources } => self.start(instruction, *plan, resources),
            Effect::RecordStop { stop, result } => self.record_stop(*stop, *result, now_ms).await?,
            Effect::EndRun { instruction } => self.work.end_run(instruction),
            Effect::ReportStop { digest, instruction, refused } => {
                self.report_stop(digest, instruction, &refused, now_ms).await?;
            }
            Effect::RecordResult { result, parts } => {
                metrics::counter!(crate::metrics::RESULTS_TRUNCATED).increment(u64::from(result.truncated));
                self.durable(move |tables| {
                    tables.record_answer((*result).clone(), parts.as_ref(), now_ms).map(drop)
                })
                .await?;
            }
            Effect::RecordRefusal { order_digest, entry, result } => {
                self.record_refusal(order_digest, entry, *result, now_ms).await?;
            }
            Effect::ReportUnreadable { order_digest, refused } => {
                self.report_unreadable(order_digest, &refused, now_ms).await?;
            }
        }
        Ok(())
    }

    async fn record_start(
        &mut self,
        instruction: InstructionId,
        at_ms: i64,
        sandbox: SandboxProfile,
    ) -> Result<(), StoreError> {
        if let Some(why) = self.confinement.refuses(&self.helper, sandbox, &self.stop).await {
            tracing::warn!(%instruction, %why, "it is not run");
            self.machine.handle_unconfined(instruction, &why, clock::now());
        } else if self.durable(move |tables| tables.record_start(instruction, at_ms)).await? {
            self.recorded.push_back(instruction);
        } else {
            tracing::warn!(%instruction, "it has started or ended before; it is not run");
            self.machine.handle_forbidden(instruction, clock::now());
        }
        Ok(())
    }

    async fn record_refusal(
        &mut self,
        order_digest: Digest,
        entry: Option<Box<Entry>>,
        result: InstructionResult,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        metrics::counter!(crate::metrics::ORDERS_REFUSED).increment(1);
        tracing::warn!(refusal = outcome::code(&result), detail = result.detail, "order refused");
        self.durable(move |tables| {
            tables.record_refusal(order_digest, entry.as_deref(), result.clone(), now_ms)
        })
        .await
        .map(drop)
    }

    async fn record_stop(
        &mut self,
        stop: StopEntry,
        result: InstructionResult,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (instruction, detail) = (stop.instruction, stop.detail.clone());
        // The Switch sends a stop until it is answered.
        if self.durable(move |tables| tables.record_stop(&stop, result.clone(), now_ms)).await? {
            tracing::info!(%instruction, detail, "instruction stopped");
            metrics::counter!(crate::metrics::STOPS).increment(1);
        }
        Ok(())
    }

    async fn report_stop(
        &mut self,
        digest: Digest,
        instruction: InstructionId,
        refused: &Refused,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        metrics::counter!(crate::metrics::ORDERS_REFUSED).increment(1);
        let refusal = refused.refusal.name();
        tracing::warn!(%instruction, refusal, detail = refused.detail, "stop refused");
        let fields = vec![
            value::text("instruction", &instruction.to_string()),
            value::text("stop", &digest.to_string()),
            value::text("refusal", refused.refusal.name()),
            value::text("detail", &refused.detail),
        ];
        let event = event_record(now_ms, STOP_REFUSED, fields);
        self.durable(move |tables| tables.report_refused(digest, event.clone(), now_ms)).await
    }

    async fn report_unreadable(
        &mut self,
        order_digest: Digest,
        refused: &Refused,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        metrics::counter!(crate::metrics::ORDERS_REFUSED).increment(1);
        tracing::warn!(%order_digest, detail = refused.detail, "an order cannot be read");
        let fields = vec![
            value::text("order", &order_digest.to_string()),
            value::text("refusal", refused.refusal.name()),
            value::text("detail", &refused.detail),
        ];
        let event = event_record(now_ms, ORDER_UNREADABLE, fields);
        self.durable(move |tables| tables.report_refused(order_digest, event.clone(), now_ms)).await
    }

    async fn record_wait(
        &mut self,
        stored: Option<Vec<u8>>,
        notice: Option<WaitNotice>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        if let Some(notice) = notice {
            tracing::warn!(?notice, "a download waits for a certificate, or did");
        }
        let event = notice.map(|notice| {
            let (name, fields) = match notice {
                WaitNotice::Missing { instruction, deadline_ms } => (
                    CERTIFICATE_MISSING,
                    vec![
                        value::text("instruction", &instruction.to_string()),
                        value::integer("deadline_ms", deadline_ms),
                    ],
                ),
                WaitNotice::Recovered { instruction, waited_ms } => (
                    CERTIFICATE_RECOVERED,
                    vec![
                        value::text("instruction", &instruction.to_string()),
                        value::integer("waited_ms", waited_ms),
                    ],
                ),
            };
            event_record(now_ms, name, fields)
        });
        self.durable(move |tables| {
            tables.keep_certificate_wait(stored.as_deref())?;
            event.map_or(Ok(()), |event| tables.append_event(event, now_ms).map(drop))
        })
        .await
    }

    /// Sends if there is a session with room; the Switch asks again for what it does not hear.
    fn send(&self, outbound: Outbound) {
        if let Err(error) = self.session.try_send(outbound) {
            tracing::debug!(%error, "not sent");
        }
    }

    fn fetch(&mut self, instruction: InstructionId, plan: Plan, expires_at_ms: i64) {
        let content = self.content.clone();
        let left = u64::try_from(expires_at_ms.saturating_sub(clock::wall_ms())).unwrap_or(0);
        let left = Duration::from_millis(left);
        let task = async move { Done::Fetched(instruction, fetch(&content, &plan, left).await) };
        self.work.fetch(instruction, task);
    }

    fn start(&mut self, instruction: InstructionId, plan: Plan, resources: Vec<(String, PathBuf)>) {
        tracing::info!(%instruction, definition = plan.name, version = %plan.version, "instruction started");
        metrics::counter!(crate::metrics::INSTRUCTIONS_STARTED).increment(1);
        let (helper, content, room) = (self.helper.clone(), self.content.clone(), self.room.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = async move {
            match run_steps(&helper, &content, &plan, &resources, &room, &stopped).await {
                Err(StepError::Stopped) => Done::Ended(instruction),
                ran => Done::Ran(instruction, ran),
            }
        };
        self.work.run(instruction, stop, task);
    }

    /// Gives what runs a moment to end. Downloads are given up: they go on where they ended, after the next start.
    async fn drain(mut self) -> Result<(), StoreError> {
        self.machine.handle_stopping();
        let deadline = Instant::now() + DRAIN;
        while self.machine.counts().1 > 0 || self.work.is_refreshing() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(Some(done)) = timeout(left, self.work.next()).await else { break };
            self.handle_done(done);
            self.settle().await?;
        }
        Ok(())
    }
}

/// Waits for what comes next over the session. Nothing is lost when the wait is given up.
async fn next(delayed: &mut Delayed, inbox: &mut mpsc::Receiver<Inbound>) -> Option<Inbound> {
    match delayed.pop() {
        Some(inbound) => Some(inbound),
        None => inbox.recv().await,
    }
}
