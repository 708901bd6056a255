//! Kill -9 at every fsync: of the Switch, and of a client, in the middle of questions under load.
//!
//! A round attaches `strace` to the victim, puts questions by several operators at once until the victim dies at its
//! N-th fsync, starts it again, sees every question through, and holds the Switch's export against what devices and
//! operators were told. All rounds share one store, so each kill also meets what the earlier ones left.

mod asks;
mod deeds;
mod devices;
mod failed_fsync;
mod first_start;
mod orders;
mod tracer;

use std::collections::{BTreeMap, BTreeSet};

use muster_load_tests::history::{History, Promise, Violation, mutation};
use muster_proto::common::v1::TargetState;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use self::asks::{Ask, Desk, Phase};
use self::devices::Devices;
use self::tracer::{Fault, Point, Tracer};
use crate::support::{Place, Service, wait_until};

/// The fsyncs of a sweep, from the one after the first question was put.
const POINTS: u32 = 50;
/// Simulated devices beside the victim.
const DEVICES: usize = 8;
/// Operators that ask at once.
const OPERATORS: usize = 3;
/// The real client.
const CLIENT: &str = "real.example.org";

#[test]
fn a_switch_killed_at_any_fsync_of_an_ask_keeps_every_promise() {
    let world = World::new(&[]);
    let mut switch = world.switch();
    let mut sweep = Sweep::new("Switch");

    for nth in 1..=POINTS {
        let tracer = Tracer::attach(switch.pid(), nth, Fault::Kill, &world.place.path("traces"));
        let asks = world.ask_until_it_dies(nth, &mut switch);
        let point = tracer.point();
        assert!(point.is_some() || switch.runs(), "the Switch ended by itself:\n{}", switch.log());
        if point.is_some() {
            switch = world.place.start_switch();
        }
        sweep.note(nth, point, &asks);
        world.see_through(nth, asks);
    }

    sweep.tell(&world);
    world.check_that_whatever_is_broken_is_found();
    switch.stop();
}

#[test]
fn a_client_killed_at_any_fsync_of_an_ask_starts_nothing_twice() {
    let world = World::new(&[CLIENT]);
    let switch = world.switch();
    world.client_config();
    let mut client = world.place.start_client(CLIENT);
    world.place.wait_online(CLIENT);
    let mut sweep = Sweep::new("client");

    for nth in 1..=POINTS {
        let tracer = Tracer::attach(client.pid(), nth, Fault::Kill, &world.place.path("traces"));
        let asks = world.ask_until_it_dies(nth, &mut client);
        let point = tracer.point();
        assert!(point.is_some() || client.runs(), "the client ended by itself:\n{}", client.log());
        if point.is_some() {
            client = world.place.start_client(CLIENT);
        }
        sweep.note(nth, point, &asks);
        world.see_through(nth, asks);
    }

    sweep.tell(&world);
    let (started, interrupted) = world.check_starts();
    eprintln!("client: {started} helpers started, {interrupted} instructions told as interrupted");
    client.stop();
    switch.stop();
}

/// A Switch's place, devices, and what everybody was told.
struct World {
    place: Place,
    devices: Devices,
    desk: Desk,
    accepted: std::sync::Mutex<BTreeMap<String, String>>,
    runtime: Runtime,
}

impl World {
    fn new(clients: &[&str]) -> Self {
        let place = Place::with_pki(clients);
        place.add_context();
        place.switch_config("");
        std::fs::create_dir(place.path("traces")).expect("a folder");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let names: Vec<String> = (0..DEVICES).map(|n| format!("simulated-{n}.example.org")).collect();
        let devices = Devices::start(&runtime, &place.home(), place.ports.sessions, &names);
        let desk = Desk::new(&place.home(), place.ports.operator);
        Self { place, devices, desk, accepted: std::sync::Mutex::default(), runtime }
    }

    /// Starts the Switch for the first time.
    fn switch(&self) -> Service {
        let switch = self.place.start_switch();
        self.place.import_all();
        wait_until("the simulated devices to connect", || {
            self.devices.log().sessions >= u64::try_from(DEVICES).expect("a small number")
        });
        switch
    }

    /// The client's configuration; its starts are recorded.
    fn client_config(&self) {
        self.place.client_config(CLIENT);
        self.place.record_starts(CLIENT);
    }

    /// Several operators ask one question after the other until the victim is dead, or they have asked enough.
    fn ask_until_it_dies(&self, nth: u32, victim: &mut Service) -> Vec<Ask> {
        let stop = CancellationToken::new();
        let operators: Vec<_> = (0..OPERATORS)
            .map(|n| {
                let name = format!("ask-{nth:02}-{n}");
                self.runtime.spawn(self.desk.clone().ask_until(name, stop.clone()))
            })
            .collect();
        wait_until("the victim to die", || {
            !victim.runs() || operators.iter().all(tokio::task::JoinHandle::is_finished)
        });
        stop.cancel();
        let asked = self.runtime.block_on(futures_util::future::join_all(operators));
        asked.into_iter().flat_map(|asks| asks.expect("an operator")).collect()
    }

    /// Waits until every question is complete, and checks all that was ever promised.
    fn see_through(&self, nth: u32, asks: Vec<Ask>) {
        for mut ask in asks {
            let before = ask.accepted.clone();
            let finished = self.runtime.block_on(self.desk.finish(&mut ask));
            let shown = finished.unwrap_or_else(|error| panic!("fsync {nth}: {error:#}"));
            let id = ask.accepted.clone().expect("an id");
            assert!(before.is_none_or(|before| before == id), "fsync {nth}: {ask:?}");
            let counted: u64 = shown.states.iter().map(|count| count.count).sum();
            assert_eq!(counted, shown.targets, "fsync {nth}: {shown:?}");
            for count in &shown.states {
                let interrupted = count.state() == TargetState::Interrupted && count.count <= 1;
                assert!(count.state() == TargetState::Answered || interrupted, "fsync {nth}: {shown:?}");
            }
            self.accepted.lock().expect("accepted").insert(ask.key, id);
        }
        assert_eq!(self.violations(&self.export()), [], "fsync {nth}");
    }

    fn export(&self) -> String {
        self.place.muster(["export", "--format", "jsonl"]).with_code(0).out
    }

    /// What the export breaks of its own rules and of what was promised.
    fn violations(&self, export: &str) -> Vec<Violation> {
        let ids = self.accepted.lock().expect("accepted");
        let accepted = ids.values().map(|id| Promise::Accepted { instruction: id.clone() });
        let promises: Vec<Promise> = self.devices.log().promises.into_iter().chain(accepted).collect();
        History::read(export).check(&promises)
    }

    /// The oracle itself: whatever is broken in this history, the check finds it.
    fn check_that_whatever_is_broken_is_found(&self) {
        let export = self.export();
        for mutation in mutation::ALL {
            let broken =
                mutation.of(&export).unwrap_or_else(|| panic!("{}: nothing to change", mutation.name));
            let found = self.violations(&broken);
            let is_found = found.iter().any(|violation| violation.rule == mutation.breaks);
            assert!(is_found, "{}: {:?} in {found:?}", mutation.name, mutation.breaks);
        }
    }

    /// Holds what the real client started against its results; gives how many starts and interruptions there were.
    fn check_starts(&self) -> (usize, usize) {
        let requests: Vec<Vec<u8>> = std::fs::read_dir(self.place.path("starts"))
            .expect("starts")
            .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a request"))
            .collect();
        let results: BTreeMap<String, String> = self
            .export()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .filter(|record| record["kind"] == "result" && record["device"] == CLIENT)
            .map(|record| (text(&record["instruction"]), text(&record["state"])))
            .collect();
        let (mut started, mut interrupted) = (0, 0);
        for (key, id) in self.accepted.lock().expect("accepted").iter() {
            let tag = format!("'{key}'");
            let starts = requests
                .iter()
                .filter(|request| request.windows(tag.len()).any(|part| part == tag.as_bytes()))
                .count();
            match results.get(id).map(String::as_str) {
                Some("answered") => assert_eq!(starts, 1, "{key} was answered and started {starts} times"),
                Some("interrupted") => {
                    assert!(starts <= 1, "{key} was interrupted and started {starts} times");
                    interrupted += 1;
                }
                other => panic!("{key}: {other:?}, started {starts} times"),
            }
            started += starts;
        }
        (started, interrupted)
    }
}

/// What a sweep hit.
struct Sweep {
    victim: &'static str,
    points: BTreeSet<Point>,
    phases: BTreeMap<Phase, u32>,
    missed: Vec<u32>,
    asks: usize,
    began: std::time::Instant,
}

impl Sweep {
    fn new(victim: &'static str) -> Self {
        let began = std::time::Instant::now();
        Self { victim, points: BTreeSet::new(), phases: BTreeMap::new(), missed: Vec::new(), asks: 0, began }
    }

    fn note(&mut self, nth: u32, point: Option<Point>, asks: &[Ask]) {
        self.asks += asks.len();
        match point {
            Some(point) => {
                self.points.insert(point);
                // What the question that had come least far was waiting for.
                if let Some(phase) = asks.iter().map(|ask| ask.phase).min() {
                    *self.phases.entry(phase).or_default() += 1;
                }
            }
            None => self.missed.push(nth),
        }
    }

    /// Prints what was hit; all of it must have been.
    fn tell(&self, world: &World) {
        let mut files: BTreeMap<&str, u32> = BTreeMap::new();
        for point in &self.points {
            *files.entry(&point.file).or_default() += 1;
        }
        let log = world.devices.log();
        eprintln!(
            "kill sweep of the {}: {} distinct points hit of {POINTS} fsyncs in {:.1} s; files {files:?}; \
             the question furthest behind was {:?}; {} questions, {} sessions of simulated devices, \
             {} orders repeated, {} acks, 0 violations",
            self.victim,
            self.points.len(),
            self.began.elapsed().as_secs_f64(),
            self.phases,
            self.asks,
            log.sessions,
            log.repeats,
            log.promises.len(),
        );
        assert_eq!(self.missed, [0; 0], "fsyncs that no question came to");
        let twice: Vec<_> = log.starts.iter().filter(|(_, starts)| **starts > 1).collect();
        assert!(twice.is_empty(), "started twice: {twice:?}");
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}
