//! One seed's world: its agenda, its clocks, and who lives in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_client::simulation::{Device, Moment, Post, Ran};
use muster_load_tests::history::Promise;
use muster_proto::common::v1::TargetState;
use muster_proto::ids::{InstructionId, OutboxId};
use muster_proto::session::v1::SequenceRange;
use muster_switch::simulation::{Hands, Switch};
use tempfile::TempDir;

use super::background::Channel;
use super::link::Link;
use super::operators::Job;
use super::organisation::{BEGINS_MS, DEVICES_MAX, Organisation};
use super::rng::Rng;
use super::totals::Totals;

/// How long there are faults, in virtual milliseconds.
const CHAOS_MS: u64 = 150_000;

/// How long what is left may take behind them: a clock that was set forward is believed after ten minutes, and instructions end by it.
const DRAIN_MS: u64 = 120 * 60_000;

/// When the last question is asked behind them, for which every device has time enough to find out that it has no session.
const LAST_AFTER_MS: u64 = 45_000;

/// How often it is looked at whether everything has drained.
const LOOK_MS: u64 = 2_000;

/// Something that is to happen.
#[derive(Debug)]
pub(super) enum Step {
    ToSwitch(u64, Bytes),
    ToDevice(u64, Bytes),
    ClosedAtSwitch(u64),
    ClosedAtDevice(u64),
    SessionDue(u64),
    Engine(u32),
    SwitchStarts,
    DeviceStarts(usize),
    DeviceWorks(usize, u32),
    DeviceConnects(usize, u32),
    Ran { device: usize, generation: u32, instruction: InstructionId, how: Ran },
    Posted { device: usize, generation: u32, post: Post },
    PostAcked { device: usize, generation: u32, outbox: OutboxId, ranges: Vec<SequenceRange> },
    Relay,
    Job(usize),
    Chaos,
    LastQuestion,
}

/// The Switch's machine.
#[derive(Debug)]
pub(super) struct SwitchSide {
    pub(super) live: Option<Switch>,
    /// How often it has started.
    pub(super) generation: u32,
    pub(super) folder: PathBuf,
    pub(super) hands: Hands,
    pub(super) skew_ms: i64,
    pub(super) engine_at: Option<u64>,
    /// Which of the next steps it dies in.
    pub(super) dies_in: Option<u64>,
}

/// A device's machine.
#[derive(Debug)]
pub(super) struct DeviceSide {
    pub(super) live: Option<Device>,
    pub(super) generation: u32,
    pub(super) folder: PathBuf,
    pub(super) skew_ms: i64,
    pub(super) link: Option<u64>,
    pub(super) works_at: Option<u64>,
}

/// What really happened, whatever anybody remembers of it.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// How often a device started an instruction.
    pub(super) starts: BTreeMap<(usize, InstructionId), u32>,
    /// Results that were on disk.
    pub(super) recorded: Vec<(usize, InstructionId, TargetState)>,
    /// Events that were on disk.
    pub(super) events: BTreeSet<(usize, OutboxId, u64)>,
    /// Instructions in the order in which they were prepared.
    pub(super) prepared: Vec<InstructionId>,
    /// Those that an operator was told to be accepted.
    pub(super) accepted: Vec<InstructionId>,
    /// The one that is asked when nothing goes wrong any more.
    pub(super) last: Option<InstructionId>,
    /// Those that an operator was told not to be known.
    pub(super) denied: BTreeSet<InstructionId>,
    /// What was broken at once.
    pub(super) broken: Vec<String>,
}

/// The world.
pub(super) struct World {
    pub(super) organisation: &'static Organisation,
    pub(super) rng: Rng,
    pub(super) now: u64,
    pub(super) is_calm: bool,
    agenda: BTreeMap<(u64, u64), Step>,
    steps: u64,
    pub(super) switch: SwitchSide,
    pub(super) devices: Vec<DeviceSide>,
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) links_made: u64,
    pub(super) jobs: Vec<Job>,
    /// Who waits for which answer of this Switch.
    pub(super) calls: BTreeMap<u64, Caller>,
    pub(super) channel: Channel,
    pub(super) truth: Truth,
    pub(super) promises: Vec<Promise>,
    pub(super) totals: Totals,
    pub(super) trace: Option<Vec<String>>,
    _folder: TempDir,
}

/// Who asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caller {
    Job(usize),
    Relay,
}

/// Whether each step is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    Kept,
    Not,
}

impl World {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let folder = temporary();
        let device = |number: usize| {
            let folder = folder.path().join(format!("d{number:02}"));
            std::fs::create_dir(&folder).unwrap();
            DeviceSide { live: None, generation: 0, folder, skew_ms: 0, link: None, works_at: None }
        };
        let devices = usize::try_from(rng.between(2, u64::try_from(DEVICES_MAX).unwrap())).unwrap();
        let devices = (0..devices).map(device).collect();
        let switch = SwitchSide {
            live: None,
            generation: 0,
            folder: folder.path().join("switch"),
            hands: Hands::new(BEGINS_MS),
            skew_ms: 0,
            engine_at: None,
            dies_in: None,
        };
        Self {
            organisation: Organisation::get(),
            rng,
            now: 0,
            is_calm: false,
            agenda: BTreeMap::new(),
            steps: 0,
            switch,
            devices,
            links: BTreeMap::new(),
            links_made: 0,
            jobs: Vec::new(),
            calls: BTreeMap::new(),
            channel: Channel::default(),
            truth: Truth::default(),
            promises: Vec::new(),
            totals: Totals::default(),
            trace: (trace == Trace::Kept).then(Vec::new),
            _folder: folder,
        }
    }

    /// Runs to the end; returns what was driven, or everything that broke.
    pub(super) fn run(&mut self) -> Result<(), String> {
        self.begin()?;
        let mut looked_at = 0;
        while let Some(((at, _), step)) = self.agenda.pop_first() {
            self.now = at;
            self.turn_hands();
            if !self.is_calm && at >= CHAOS_MS {
                self.calm();
            }
            self.perform(step)?;
            if let Some(broken) = self.truth.broken.first() {
                return Err(broken.clone());
            }
            if self.is_calm && at >= looked_at + LOOK_MS {
                looked_at = at;
                if self.is_drained() {
                    break;
                }
            }
            if at >= CHAOS_MS + DRAIN_MS {
                return Err(self.undrained());
            }
        }
        self.judge()
    }

    /// Puts something on the agenda.
    pub(super) fn schedule(&mut self, after_ms: u64, step: Step) {
        self.steps += 1;
        self.agenda.insert((self.now + after_ms, self.steps), step);
    }

    /// Writes down what happens, if anybody wants to know.
    pub(super) fn note(&mut self, says: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>9} {}", self.now, says(self));
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }

    pub(super) fn instant(&self) -> Instant {
        self.organisation.begins + Duration::from_millis(self.now)
    }

    /// The time of day as it is, milliseconds since 1970.
    pub(super) fn wall_ms(&self) -> i64 {
        BEGINS_MS + i64::try_from(self.now).unwrap()
    }

    /// Both clocks of a device.
    pub(super) fn moment(&self, device: usize) -> Moment {
        Moment { instant: self.instant(), wall_ms: self.wall_ms() + self.devices[device].skew_ms }
    }

    /// What people call an instruction.
    pub(super) fn called(&self, instruction: InstructionId) -> String {
        let at = self.truth.prepared.iter().position(|known| *known == instruction);
        at.map_or_else(|| "i?".to_owned(), |at| format!("i{at}"))
    }

    pub(super) fn turn_hands(&self) {
        self.switch.hands.set(self.wall_ms() + self.switch.skew_ms, Duration::from_millis(self.now));
    }

    fn begin(&mut self) -> Result<(), String> {
        self.start_switch()?;
        self.import()?;
        for device in 0..self.devices.len() {
            let after = self.rng.below(3_000);
            self.schedule(after, Step::DeviceStarts(device));
        }
        self.schedule(500, Step::Chaos);
        self.schedule(1_000, Step::Relay);
        Ok(())
    }

    fn perform(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::ToSwitch(link, frame) => self.arrived_at_switch(link, &frame),
            Step::ToDevice(link, frame) => self.arrived_at_device(link, &frame)?,
            Step::ClosedAtSwitch(link) => self.closed_at_switch(link),
            Step::ClosedAtDevice(link) => self.closed_at_device(link)?,
            Step::SessionDue(link) => self.session_due(link),
            Step::Engine(generation) => self.engine(generation)?,
            Step::SwitchStarts => self.start_switch()?,
            Step::DeviceStarts(device) => self.start_device(device)?,
            Step::DeviceWorks(device, generation) => self.device_works(device, generation)?,
            Step::DeviceConnects(device, generation) => self.device_connects(device, generation)?,
            Step::Ran { device, generation, instruction, how } => {
                self.ran(device, generation, instruction, how)?;
            }
            Step::Posted { device, generation, post } => self.posted(device, generation, post),
            Step::PostAcked { device, generation, outbox, ranges } => {
                self.post_acked(device, generation, outbox, ranges)?;
            }
            Step::Relay => self.relay(),
            Step::Job(job) => self.job(job),
            Step::Chaos => self.chaos()?,
            Step::LastQuestion => self.ask_last(),
        }
        Ok(())
    }

    /// From here on nothing breaks, and whatever is down comes back.
    fn calm(&mut self) {
        self.is_calm = true;
        self.note(|_| "calm: no faults from here on".to_owned());
        self.switch.skew_ms = 0;
        self.switch.dies_in = None;
        self.schedule(LAST_AFTER_MS, Step::LastQuestion);
        for side in &mut self.devices {
            side.skew_ms = 0;
            if let Some(live) = &mut side.live {
                live.set_dies(None);
            }
        }
    }

    fn is_drained(&self) -> bool {
        let devices = self.devices.iter().all(|side| {
            let idle = |live: &Device| live.queued() == (0, 0) && live.counts() == (0, 0);
            side.live.as_ref().is_some_and(idle)
        });
        let switch = self.switch.live.as_ref().is_some_and(|live| live.active() == 0 && !live.has_work());
        let was_asked = self.truth.last.is_some_and(|last| self.truth.accepted.contains(&last));
        was_asked && devices && switch && self.channel.is_empty() && self.jobs.iter().all(Job::is_done)
    }

    fn undrained(&mut self) -> String {
        let targets = self.open_targets().join(", ");
        let devices = self.devices.iter().enumerate().filter_map(|(number, side)| {
            let live = side.live.as_ref()?;
            let is_idle = live.queued() == (0, 0) && live.counts() == (0, 0);
            (!is_idle).then(|| format!("d{number:02} has {:?} and {:?}", live.queued(), live.counts()))
        });
        let devices: Vec<String> = devices.collect();
        format!(
            "nothing drained: {} instructions active, {} events in the Background Channel, {} operators wait, {}{targets}",
            self.switch.live.as_ref().map_or(0, Switch::active),
            self.channel.len(),
            self.jobs.iter().filter(|job| !job.is_done()).count(),
            devices.join(", "),
        )
    }
}

/// Makes a folder in memory where the machine has one: the store is the real one, only its fsyncs cost nothing.
fn temporary() -> TempDir {
    TempDir::with_prefix_in("muster-simulation-", "/dev/shm")
        .or_else(|_| TempDir::with_prefix("muster-simulation-"))
        .unwrap()
}
