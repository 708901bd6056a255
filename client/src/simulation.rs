//! The client without sockets, threads, clocks and helper processes, for the seeded simulation (`deploy/muster/src/simulation`).
//!
//! What decides is what the program runs: the machine of instructions with its signatures, the store on disk, the protocol's half of a
//! session. What lies between them there, tasks that wait for each other, is here a few calls that return at once, in the order in which
//! those tasks do the same: what must be on disk comes before what tells of it. A device can be told to die at any of its writes.

mod effects;
mod session;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_pki::{DeviceId, RevocationMode, UnixTime};
use muster_proto::common::v1::{Column, ColumnType, Row, TargetState, Value, value::Kind};
use muster_proto::ids::{InstructionId, OutboxId};
use muster_proto::session::client::{ClientSession, ClientSessionConfig};
use muster_proto::session::v1::{Event, Hello, Lane, SequenceRange};
use muster_service::credentials::{Clock, Revocation, RevocationFiles, RevocationSettings};

use self::session::{LaneDrain, Session};
use crate::config::{InstructionsConfig, OutboxConfig, TrustConfig};
use crate::connection::{Asks, ExpectedStops};
use crate::identity::{Identity, Known, Teller};
use crate::instructions::shell::Inbound;
use crate::instructions::{
    Collected, DownloadWait, HeldLicence, Instructions, Limits, LiveTrust, Memory, Now, SignedAdmission,
};
use crate::policy::Followed;
use crate::store::{FILE, QueueLane, Tables, event_record};

/// Bytes and events of what is posted at once.
const POSTED_BYTES: usize = 64 * 1024;
const POSTED_EVENTS: usize = 16;

/// How often what is out of date is forgotten.
const UPKEEP: Duration = Duration::from_secs(3_600);

/// Whom devices believe, read once.
#[derive(Debug, Clone)]
pub struct Trust {
    live: Arc<LiveTrust>,
    tenant: String,
}

/// A device's name, and what it tells of itself.
#[derive(Debug, Clone)]
pub struct Name(Identity);

/// Both clocks of a device.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Time that passes.
    pub instant: Instant,
    /// The wall clock, milliseconds since 1970.
    pub wall_ms: i64,
}

/// At which of its writes a device dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dies {
    /// So many writes from here: what that one would have put on disk is lost.
    Before(u64),
    /// As before, and it is on disk; nobody was told.
    After(u64),
}

/// On which side of a commit a device dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Nothing of it is on disk.
    Before,
    /// All of it is, and nobody was told.
    After,
}

/// Why a device does not go on. It is to be dropped, with all that it did not commit.
#[derive(Debug)]
pub enum Stopped {
    /// It died, as it was told to, at this write.
    Died(&'static str, Side),
    /// Its store broke.
    Broken(String),
}

/// How what ran has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// With one row of one integer, `one`.
    Answered,
    /// With nothing that its definition declares.
    Failed,
    /// By its stop.
    Ended,
}

/// What a device did or was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A session was welcomed.
    Welcomed,
    /// The store took itself for a copy, or somebody made up numbers of it.
    Renewed,
    /// It started an instruction; now is the only time.
    Started(InstructionId),
    /// What ran is to be ended.
    Ending(InstructionId),
    /// A result is on disk.
    Recorded(InstructionId, TargetState),
    /// A result or an event was acked and is deleted; of a result, whose it is and what it says.
    Acked(Lane, OutboxId, u64, Option<(InstructionId, TargetState)>),
    /// A session ended; the next may begin after the pause.
    Parted(String, Duration),
}

/// Events on their way to a Background Channel.
#[derive(Debug, Clone)]
pub struct Post {
    /// Of which outbox.
    pub outbox: OutboxId,
    /// In order.
    pub events: Vec<Event>,
}

/// One device: its process, as long as that lives.
#[derive(Debug)]
pub struct Device {
    name: Name,
    tables: Tables,
    machine: Instructions<SignedAdmission>,
    remember: Duration,
    upkeep_at: Instant,
    /// Starts that are on disk and that the machine has yet to be told of.
    recorded: VecDeque<InstructionId>,
    /// What the session has for the machine.
    inbox: VecDeque<Inbound>,
    session: Option<Session>,
    writes: u64,
    dies: Option<Dies>,
    notes: Vec<Note>,
}

impl Trust {
    /// Reads the roots of everyone who signs.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(files: TrustConfig, tenant: &str, now: UnixTime) -> Result<Self, String> {
        let roots: Vec<PathBuf> = [&files.switch, &files.authors, &files.orders, &files.licences]
            .into_iter()
            .filter(|path| !path.as_os_str().is_empty())
            .cloned()
            .collect();
        let lists = RevocationFiles { roots, ..RevocationFiles::default() };
        let settings =
            RevocationSettings { mode: RevocationMode::Soft, fetch: false, ..RevocationSettings::default() };
        let revocation =
            Revocation::load(lists, settings, Clock::new(move || now)).map_err(|error| error.to_string())?;
        let live = LiveTrust::load(files, revocation).map_err(|error| error.to_string())?;
        Ok(Self { live: Arc::new(live), tenant: tenant.to_owned() })
    }

    fn admission(&self, name: &Name) -> SignedAdmission {
        SignedAdmission::with(
            Arc::clone(&self.live),
            name.0.clone(),
            self.tenant.clone(),
            Followed::default(),
        )
    }
}

impl Name {
    /// Makes the name of a device whose certificate says so.
    #[must_use]
    pub fn of(device: DeviceId) -> Self {
        Self(Teller::new(Some(Known::of(device))).identity())
    }
}

impl Moment {
    fn now(self) -> Now {
        Now { instant: self.instant, wall_ms: self.wall_ms }
    }
}

impl Device {
    /// Starts the process on a folder that exists: opens the store, reports what was interrupted, and goes on with what was taken on.
    ///
    /// # Errors
    /// It died as it was told to, or its store broke.
    pub fn start(
        folder: &Path,
        trust: &Trust,
        name: &Name,
        dies: Option<Dies>,
        at: Moment,
    ) -> Result<Self, Stopped> {
        let tables = Tables::open(&folder.join(FILE), OutboxConfig::default(), at.wall_ms);
        let tables = tables.map_err(|error| Stopped::Broken(error.to_string()))?;
        let instructions = InstructionsConfig::default();
        let limits = Limits {
            parallel: instructions.parallel,
            queued: instructions.queued,
            document: instructions.definition_timeout,
        };
        let machine = |memory, licence: Option<HeldLicence>, serial| {
            let admission = trust.admission(name);
            Instructions::new(admission, limits.clone(), licence, serial, memory, at.instant)
        };
        let mut device = Self {
            name: name.clone(),
            tables,
            machine: machine(Memory::default(), None, 0),
            remember: instructions.remember,
            upkeep_at: at.instant,
            recorded: VecDeque::new(),
            inbox: VecDeque::new(),
            session: None,
            writes: 0,
            dies,
            notes: Vec::new(),
        };
        // As `running::recovered` does.
        let now_ms = at.wall_ms;
        let (intents, memory, licence, serial) = device.write("recovery", move |tables| {
            let mut intents = Vec::new();
            for entry in tables.recover(now_ms)? {
                let definition = tables.definition(entry.definition, now_ms)?;
                intents.push((entry, definition));
            }
            let memory = Memory {
                versions: tables.versions(now_ms)?,
                time_floor_ms: tables.time_floor_ms(now_ms)?,
                restored_at_ms: tables.restored_at_ms(now_ms)?,
            };
            let licence = tables.licence(now_ms)?.map(HeldLicence::kept);
            Ok((intents, memory, licence, tables.licence_serial(now_ms)?))
        })?;
        let downloads = DownloadWait::restore(Duration::from_secs(60), None, now_ms);
        device.machine = machine(memory, licence, serial).with_download_wait(downloads);
        for (entry, definition) in intents {
            device.machine.handle_recovered(entry, definition);
        }
        Ok(device)
    }

    /// Tells the device when to die.
    pub fn set_dies(&mut self, dies: Option<Dies>) {
        self.dies = match dies {
            Some(Dies::Before(writes)) => Some(Dies::Before(self.writes + writes)),
            Some(Dies::After(writes)) => Some(Dies::After(self.writes + writes)),
            None => None,
        };
    }

    /// Takes what it did since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Returns whether it has a session, or begins one.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Returns how many results and events wait.
    #[must_use]
    pub fn queued(&self) -> (u64, u64) {
        let counts = self.tables.outbox_counts();
        (counts.results, counts.events)
    }

    /// Returns how many instructions wait and run.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.machine.counts()
    }

    /// Begins a session on a connection that is open.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn connect(&mut self, at: Moment) -> Result<(), Stopped> {
        let now_ms = at.wall_ms;
        let (outbox, last_epoch, counts) = self.write("hello", move |tables| {
            Ok((tables.outbox_id(), tables.epoch(now_ms)?, tables.outbox_counts()))
        })?;
        let known = self.name.0.known();
        let hello = Hello {
            outbox_id: outbox.to_vec(),
            last_epoch,
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            attributes: known.map(|known| known.named()).unwrap_or_default(),
            queued_results: counts.results,
            queued_events: counts.events,
            licence_digest: self.machine.licence().map(|licence| licence.digest.to_vec()).unwrap_or_default(),
            ..Hello::default()
        };
        self.session = Some(Session {
            protocol: ClientSession::new(ClientSessionConfig::default(), hello, at.instant),
            asks: Asks::default(),
            stops: ExpectedStops::default(),
            results: LaneDrain::new(QueueLane::Results),
            events: LaneDrain::new(QueueLane::Events),
            appended: self.tables.appended(),
        });
        Ok(())
    }

    /// Takes a message of the Switch.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn receive(&mut self, message: &[u8], at: Moment) -> Result<(), Stopped> {
        if let Some(session) = &mut self.session {
            session.protocol.handle_message(message, at.instant);
        }
        self.hear(at)
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.part("the connection was closed".to_owned(), Duration::ZERO);
    }

    /// Takes what the session has to send: acks of nothing are waited for here, only credit.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn transmit(&mut self, at: Moment) -> Result<Vec<Bytes>, Stopped> {
        let Some(session) = &mut self.session else { return Ok(Vec::new()) };
        let appended = self.tables.appended();
        if std::mem::replace(&mut session.appended, appended) != appended {
            session.results.is_empty = false;
            session.events.is_empty = false;
        }
        if !session.stops.are_due(at.instant) {
            session.drain(&mut self.tables, at.wall_ms).map_err(broken)?;
        }
        session.asks.send(&mut session.protocol);
        let mut frames = Vec::new();
        while let Some(frame) = session.protocol.poll_transmit() {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Lets the machine do what it has to: takes in what came, and carries out every effect in order.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn work(&mut self, at: Moment) -> Result<(), Stopped> {
        if self.upkeep_at <= at.instant {
            self.upkeep_at = at.instant + UPKEEP;
            let (now_ms, floor_ms) = (at.wall_ms, self.machine.time_floor_ms(at.now()));
            let remember_ms = i64::try_from(self.remember.as_millis()).unwrap_or(i64::MAX);
            self.write("upkeep", move |tables| {
                tables.raise_time_floor(floor_ms)?;
                tables.drop_beyond_bounds(now_ms)?;
                tables.forget_ended(remember_ms, now_ms).map(drop)
            })?;
        }
        if self.machine.poll_timeout(at.now()).is_some_and(|due| due <= at.instant) {
            self.machine.handle_timeout(at.now());
        }
        self.settle(at)?;
        while let Some(inbound) = self.inbox.pop_front() {
            self.handle_inbound(inbound, at);
            self.settle(at)?;
        }
        Ok(())
    }

    /// Tells the session that its deadlines may have passed.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn handle_timeout(&mut self, at: Moment) -> Result<(), Stopped> {
        if let Some(session) = &mut self.session {
            session.protocol.handle_timeout(at.instant);
        }
        self.hear(at)
    }

    /// Returns when [`Self::handle_timeout`] and [`Self::work`] should next be called.
    #[must_use]
    pub fn poll_timeout(&self, at: Moment) -> Option<Instant> {
        let session = self.session.as_ref();
        let protocol = session.and_then(|session| session.protocol.poll_timeout());
        let stops = session.and_then(|session| session.stops.poll_timeout());
        self.machine.poll_timeout(at.now()).into_iter().chain(protocol).chain(stops).min()
    }

    /// What ran has come to its end, or was ended.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn finish(&mut self, instruction: InstructionId, ran: Ran, at: Moment) -> Result<(), Stopped> {
        match ran {
            Ran::Answered => self.machine.handle_finished(instruction, Ok(one_row()), at.now()),
            // Without the column that is declared it is no answer.
            Ran::Failed => self.machine.handle_finished(instruction, Ok(Collected::default()), at.now()),
            Ran::Ended => self.machine.handle_ended(instruction, at.now()),
        }
        self.settle(at)
    }

    /// Appends an event; returns its outbox and number.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn report(&mut self, name: &str, at: Moment) -> Result<(OutboxId, u64), Stopped> {
        let event = event_record(at.wall_ms, name, Vec::new());
        self.write("event", move |tables| Ok((tables.append_event(event, at.wall_ms)?, tables.outbox_id())))
            .map(|(sequence, outbox)| (outbox, sequence))
    }

    /// Returns the events that wait first, for the other road; they are noted as offered.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn post(&mut self, at: Moment) -> Result<Option<Post>, Stopped> {
        let now_ms = at.wall_ms;
        let events = self.tables.queued_events(0, POSTED_BYTES, POSTED_EVENTS, now_ms).map_err(broken)?;
        let Some(last) = events.last().map(|event| event.sequence) else { return Ok(None) };
        self.write("offer", move |tables| tables.offer(last))?;
        Ok(Some(Post { outbox: self.tables.outbox_id(), events }))
    }

    /// The Background Channel has acked what was posted.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn posted(&mut self, outbox: OutboxId, ranges: Vec<SequenceRange>) -> Result<(), Stopped> {
        if outbox == self.tables.outbox_id() {
            self.acked(Lane::Events, ranges)?;
        }
        Ok(())
    }

    /// One transaction, or the end of the process.
    fn write<T>(
        &mut self,
        what: &'static str,
        job: impl FnOnce(&mut Tables) -> rusqlite::Result<T>,
    ) -> Result<T, Stopped> {
        self.writes += 1;
        self.tables.begin().map_err(broken)?;
        let value = job(&mut self.tables).map_err(broken)?;
        // With the process goes the open transaction.
        if self.dies == Some(Dies::Before(self.writes)) {
            return Err(Stopped::Died(what, Side::Before));
        }
        self.tables.commit().map_err(broken)?;
        self.tables.checkpoint().map_err(broken)?;
        if self.dies == Some(Dies::After(self.writes)) {
            return Err(Stopped::Died(what, Side::After));
        }
        Ok(value)
    }

    fn part(&mut self, why: String, pause: Duration) {
        if self.session.take().is_some() {
            self.tables.parted();
            self.inbox.push_back(Inbound::Disconnected);
            self.notes.push(Note::Parted(why, pause));
        }
    }
}

/// The answer of a definition that declares one integer, `one`.
fn one_row() -> Collected {
    let value = Value { kind: Some(Kind::Integer(1)) };
    Collected {
        columns: vec![Column { name: "one".to_owned(), r#type: ColumnType::Integer.into() }],
        rows: vec![Row { values: vec![value] }],
        ..Collected::default()
    }
}

/// What broke is told as it is.
fn broken(error: rusqlite::Error) -> Stopped {
    Stopped::Broken(error.to_string())
}
