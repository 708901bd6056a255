//! Kill -9 at fsyncs of stops, approvals, licences and definitions: of the Switch, and of a client, while operators do all of it at once.
//!
//! A stop that was acknowledged is never forgotten, and what it stopped before its start starts nowhere. An approval that was answered is
//! never lost, and an order that lacks one never runs. A licence that was imported is in force after the restart, and no serial goes back,
//! at the Switch nor on the client. Nothing starts twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use muster_load_tests::history::{History, Promise};
use muster_load_tests::operator::Operator;
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::Instruction;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::asks::Ask;
use super::deeds::{APPROVED, Approval, Deeds, Definition, FLIPPED, Import, Office, Stop, has_prefix};
use super::tracer::{Fault, Point, Tracer};
use super::{CLIENT, World, text};
use crate::approvals::approver;
use crate::support::{Service, wait_until, write};

/// The fsyncs of a small sweep, from the first deed on.
const FEW: [u32; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 16, 20, 25, 31, 38, 46];
/// The fsyncs of a whole one.
const ALL: u32 = 50;
/// Who approves.
const APPROVER: &str = "bob";

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Switch,
    Client,
}

#[test]
fn a_switch_killed_at_an_fsync_of_stops_approvals_and_imports_keeps_every_promise() {
    sweep(Victim::Switch);
}

#[test]
fn a_client_killed_at_an_fsync_of_stops_approvals_and_imports_keeps_every_promise() {
    sweep(Victim::Client);
}

fn sweep(victim: Victim) {
    let world = World::new(&[CLIENT]);
    let office = Office::new(&world.place, &approver(&world.place, APPROVER));
    world.client_config();
    // One at a time: a stop finds orders that were taken on and have not started.
    let config = world.place.path(&format!("{CLIENT}.toml"));
    let written = std::fs::read_to_string(&config).expect("the configuration");
    write(&config, &format!("{written}\n[instructions]\nparallel = 1\n"));
    // Before the services, so that it is there when they say what they logged.
    let mut orders = Orders::new(world, office);
    let mut switch = orders.world.switch();
    let mut client = orders.world.place.start_client(CLIENT);
    orders.world.place.wait_online(CLIENT);
    orders.import();
    let is_full = std::env::var("MUSTER_TEST_FULL").is_ok_and(|full| full == "yes");
    let points = if is_full { (1..=ALL).collect() } else { FEW.to_vec() };
    let began = std::time::Instant::now();

    for nth in points.iter().copied() {
        let killed = match victim {
            Victim::Switch => &mut switch,
            Victim::Client => &mut client,
        };
        let traces = orders.world.place.path("traces");
        let tracer = Tracer::attach(killed.pid(), nth, Fault::Kill, &traces);
        let deeds = orders.do_until_it_dies(nth, killed);
        let point = tracer.point();
        assert!(point.is_some() || killed.runs(), "{victim:?} ended by itself:\n{}", killed.log());
        if point.is_some() {
            *killed = match victim {
                Victim::Switch => orders.world.place.start_switch(),
                Victim::Client => orders.world.place.start_client(CLIENT),
            };
        }
        orders.points.extend(point);
        orders.see_through(nth, deeds);
    }

    orders.see_the_rest_through();
    let told = orders.tell();
    let killed = match victim {
        Victim::Switch => "Switch",
        Victim::Client => "client",
    };
    eprintln!(
        "kill sweep of the {killed} under stops, approvals, licences and definitions: {} distinct points hit of {} fsyncs in {:.1} s; {told}",
        orders.points.len(),
        points.len(),
        began.elapsed().as_secs_f64(),
    );
    assert_eq!(orders.points.len(), points.len(), "fsyncs that nothing came to");
    client.stop();
    switch.stop();
}

/// What everybody was told of stops, approvals and imports.
struct Orders {
    world: World,
    office: Arc<Office>,
    promises: Vec<Promise>,
    points: Vec<Point>,
    /// What nobody has approved.
    left: Vec<Ask>,
    /// The highest serial that an operator knows to be imported.
    imported: u64,
    /// The highest serial that the client ever said that it holds.
    held: u64,
    counts: BTreeMap<&'static str, usize>,
}

impl Orders {
    fn new(world: World, office: Office) -> Self {
        Self {
            world,
            office: Arc::new(office),
            promises: Vec::new(),
            points: Vec::new(),
            left: Vec::new(),
            imported: 1,
            held: 1,
            counts: BTreeMap::new(),
        }
    }

    /// Hands the definitions that it asks to the Switch.
    fn import(&self) {
        for (name, approvals) in [(APPROVED, 1), (FLIPPED, 0)] {
            let envelope = self.office.definition(name, approvals);
            let imported = self.world.runtime.block_on(async {
                let operator = self.office.desk.operator().await?;
                operator.import_definition(envelope).await
            });
            imported.expect("a definition");
        }
    }

    /// Several operators do one thing after the other until the victim is dead, or they have done enough.
    fn do_until_it_dies(&self, nth: u32, victim: &mut Service) -> Deeds {
        let over = CancellationToken::new();
        let (office, runtime) = (|| Arc::clone(&self.office), &self.world.runtime);
        let stops = runtime.spawn(office().stop_until(format!("stop-{nth:02}"), over.clone()));
        let approvals = runtime.spawn(office().approve_until(format!("approve-{nth:02}"), over.clone()));
        let imports = runtime.spawn(office().import_until(format!("import-{nth:02}"), over.clone()));
        wait_until("the victim to die", || {
            !victim.runs() || stops.is_finished() && approvals.is_finished() && imports.is_finished()
        });
        over.cancel();
        runtime.block_on(async {
            let deeds = imports.await.expect("an operator");
            let stops = stops.await.expect("an operator");
            Deeds { stops, approvals: approvals.await.expect("an operator"), ..deeds }
        })
    }

    fn see_through(&mut self, nth: u32, deeds: Deeds) {
        let Deeds { stops, approvals, flips, definitions, licences } = deeds;
        for (what, count) in [
            ("stops", stops.len()),
            ("stops acked before a kill", stops.iter().filter(|stop| stop.is_accepted).count()),
            ("orders that need an approval", approvals.len()),
            ("approvals acked before a kill", approvals.iter().filter(|it| it.is_accepted).count()),
            ("licences", licences.len()),
            ("orders under the prefix that goes", flips.len()),
            ("definitions", definitions.len()),
        ] {
            *self.counts.entry(what).or_default() += count;
        }
        self.note(&stops, &approvals, &definitions);
        self.check(nth);
        self.see_licences(nth, licences);
        for stop in stops {
            self.see_stop(nth, stop);
        }
        for (number, approval) in approvals.into_iter().enumerate() {
            self.see_approval(nth, approval, number % 4 == 1);
        }
        for flip in flips {
            self.see_flip(nth, flip);
        }
        for Definition { name, envelope, .. } in definitions {
            let import = async |operator: &Operator| operator.import_definition(envelope.clone()).await;
            self.world.runtime.block_on(self.office.desk.patiently(import)).expect("a definition");
            self.promises.push(Promise::DefinitionImported { name, version: "1.0.0".to_owned() });
        }
        self.see_client();
        self.check(nth);
    }

    /// Keeps what was promised before anything died.
    fn note(&mut self, stops: &[Stop], approvals: &[Approval], definitions: &[Definition]) {
        let id = |ask: &Ask| ask.accepted.clone().expect("an id");
        let stopped = stops.iter().filter(|stop| stop.is_accepted);
        let approved = approvals.iter().filter(|approval| approval.is_accepted);
        let imported = definitions.iter().filter(|definition| definition.is_accepted);
        self.promises.extend(stopped.map(|stop| Promise::StopAccepted { instruction: id(&stop.ask) }));
        self.promises.extend(approved.map(|approval| approval_of(id(&approval.ask))));
        self.promises.extend(imported.map(|definition| Promise::DefinitionImported {
            name: definition.name.clone(),
            version: "1.0.0".to_owned(),
        }));
        let asks = stops.iter().map(|stop| &stop.ask).chain(approvals.iter().map(|approval| &approval.ask));
        for ask in asks.filter(|ask| ask.accepted.is_some()) {
            self.accepted(ask);
        }
    }

    fn accepted(&self, ask: &Ask) {
        let id = ask.accepted.clone().expect("an id");
        let before = self.world.accepted.lock().expect("accepted").insert(ask.key.clone(), id.clone());
        assert!(before.is_none_or(|before| before == id), "{ask:?}");
    }

    /// Holds the Switch's export against all that was ever promised.
    fn check(&self, nth: u32) {
        let accepted = self.world.accepted.lock().expect("accepted");
        let accepted = accepted.values().map(|id| Promise::Accepted { instruction: id.clone() });
        let promises = self.promises.iter().cloned().chain(accepted);
        let promises: Vec<Promise> = promises.chain(self.world.devices.log().promises).collect();
        assert_eq!(History::read(&self.world.export()).check(&promises), [], "fsync {nth}");
    }

    /// The licence in force is the last one that was acked, or one that was on its way; then the last one is imported.
    fn see_licences(&mut self, nth: u32, licences: Vec<Import>) {
        let (desk, runtime) = (&self.office.desk, &self.world.runtime);
        let acked = licences.iter().filter(|licence| licence.is_accepted).map(|licence| licence.serial).max();
        self.imported = self.imported.max(acked.unwrap_or_default());
        let in_force = async |operator: &Operator| {
            let serial = operator.licence_serial().await?;
            match operator.prepare_of(FLIPPED, ("tag", "is it licensed?"), "").await {
                Ok(_) => Ok((serial, true)),
                Err(error) if is_unlicensed(&error) => Ok((serial, false)),
                Err(error) => Err(error),
            }
        };
        let (serial, admits) = runtime.block_on(desk.patiently(in_force)).expect("a licence");
        assert!(serial >= self.imported, "fsync {nth}: {serial} is in force, {} was acked", self.imported);
        assert_eq!(admits, has_prefix(serial), "fsync {nth}: licence {serial}");
        let Some(last) = licences.into_iter().last() else { return };
        assert!(serial <= last.serial, "fsync {nth}: {serial} is in force, nobody issued it");
        let import = async |operator: &Operator| operator.import_licence(last.envelope.clone()).await;
        runtime.block_on(desk.patiently(import)).expect("the last licence");
        self.imported = last.serial;
    }

    fn see_stop(&mut self, nth: u32, mut stop: Stop) {
        let was_accepted = stop.is_accepted;
        let seen = self.world.runtime.block_on(self.office.desk.patiently(async |operator| {
            stop.attempt(operator).await?;
            let id = stop.ask.accepted.clone().context("an id")?;
            operator.complete(&id).await
        }));
        let shown = seen.unwrap_or_else(|error| panic!("fsync {nth}: {stop:?}: {error:#}"));
        self.accepted(&stop.ask);
        assert!(stop.is_accepted || !was_accepted, "fsync {nth}: its stop is forgotten: {shown:?}");
        if stop.is_accepted {
            self.promises.push(Promise::StopAccepted { instruction: shown.id.clone() });
        }
        let may_be = [TargetState::Answered, TargetState::Cancelled, TargetState::Interrupted];
        self.states(nth, &shown, &may_be);
    }

    /// What nobody has approved so far has run nowhere; some of it never is.
    fn see_approval(&mut self, nth: u32, mut approval: Approval, is_left: bool) {
        let Approval { ask, is_accepted } = &mut approval;
        let id = self
            .world
            .runtime
            .block_on(self.office.desk.patiently(async |operator| ask.accept(operator).await));
        let id = id.unwrap_or_else(|error| panic!("fsync {nth}: {ask:?}: {error:#}"));
        self.accepted(ask);
        if is_left && !*is_accepted {
            self.left.push(approval.ask);
            return;
        }
        self.approve(nth, &id);
        let complete = async |operator: &Operator| operator.complete(&id).await;
        let shown = self.world.runtime.block_on(self.office.desk.patiently(complete));
        let shown = shown.unwrap_or_else(|error| panic!("fsync {nth}: {approval:?}: {error:#}"));
        self.states(nth, &shown, &[TargetState::Answered, TargetState::Interrupted]);
    }

    fn approve(&mut self, nth: u32, id: &str) {
        let approve = async |operator: &Operator| operator.approve(id).await;
        let approved = self.world.runtime.block_on(self.office.approver.patiently(approve));
        approved.unwrap_or_else(|error| panic!("fsync {nth}: {id}: {error:#}"));
        self.promises.push(approval_of(id.to_owned()));
    }

    /// What the Switch took runs under a licence that has the prefix, or is refused under one that has not.
    fn see_flip(&mut self, nth: u32, mut ask: Ask) {
        let seen = self.world.runtime.block_on(self.office.desk.patiently(async |operator| {
            match ask.accept(operator).await {
                Ok(id) => operator.complete(&id).await.map(Some),
                Err(error) if is_unlicensed(&error) => Ok(None),
                Err(error) => Err(error),
            }
        }));
        let seen = seen.unwrap_or_else(|error| panic!("fsync {nth}: {ask:?}: {error:#}"));
        let Some(shown) = seen else {
            assert_eq!(ask.accepted, None, "fsync {nth}: {ask:?} was taken, and is not known");
            return;
        };
        self.accepted(&ask);
        let may_be = [TargetState::Answered, TargetState::Refused, TargetState::Interrupted];
        self.states(nth, &shown, &may_be);
    }

    fn states(&mut self, nth: u32, shown: &Instruction, may_be: &[TargetState]) {
        let counted: u64 = shown.states.iter().map(|count| count.count).sum();
        assert_eq!(counted, shown.targets, "fsync {nth}: {shown:?}");
        for count in &shown.states {
            assert!(
                may_be.contains(&count.state()),
                "fsync {nth}: {shown:?}\n{}",
                self.results_of(&shown.id)
            );
            *self.counts.entry(count.state().name()).or_default() +=
                usize::try_from(count.count).unwrap_or(0);
        }
    }

    /// What the export tells of an instruction.
    fn results_of(&self, id: &str) -> String {
        self.world.export().lines().filter(|line| line.contains(id)).collect::<Vec<_>>().join("\n")
    }

    /// The client comes to the licence that is in force, and never to an older one than it had.
    fn see_client(&mut self) {
        wait_until("the client to hold the licence", || {
            let status = self.world.place.status(CLIENT);
            let serial = status.and_then(|status| status["licence_serial"].as_u64()).unwrap_or_default();
            // It says 0 until it has read its store.
            assert!(serial == 0 || serial >= self.held, "the client held {}, and holds {serial}", self.held);
            self.held = self.held.max(serial);
            serial == self.imported
        });
    }

    /// What was left without an approval has run nowhere. Every second one gets it now, the others are stopped.
    fn see_the_rest_through(&mut self) {
        assert!(!self.left.is_empty(), "no order lacked its approval to the end");
        for (number, ask) in std::mem::take(&mut self.left).into_iter().enumerate() {
            let id = ask.accepted.clone().expect("an id");
            assert_eq!(self.starts_of(&ask.key), 0, "{ask:?} ran without its approval");
            let complete = async |operator: &Operator| {
                if number % 2 == 1 {
                    operator.stop(&id, "nobody approves it").await?;
                }
                operator.complete(&id).await
            };
            let may_be = if number % 2 == 1 {
                [TargetState::Cancelled]
            } else {
                self.approve(0, &id);
                [TargetState::Answered]
            };
            let shown = self.world.runtime.block_on(self.office.desk.patiently(complete));
            let shown = shown.unwrap_or_else(|error| panic!("{ask:?}: {error:#}"));
            self.states(0, &shown, &may_be);
        }
        self.check(0);
    }

    /// Holds what the client started against what it told; says what there was of everything.
    fn tell(&self) -> String {
        let requests = self.requests();
        let results: BTreeMap<String, Value> = self
            .world
            .export()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .filter(|record| record["kind"] == "result" && record["device"] == CLIENT)
            .map(|record| (text(&record["instruction"]), record))
            .collect();
        let mut started = 0;
        for (key, id) in self.world.accepted.lock().expect("accepted").iter() {
            let starts = requests.iter().filter(|request| request.contains(key)).count();
            let result = results.get(id);
            let state = result.map_or("none", |result| result["state"].as_str().unwrap_or_default());
            let has_started = result.is_some_and(|result| result["started_at_ms"] != 0);
            match state {
                "answered" => assert_eq!(starts, 1, "{key} was answered and started {starts} times"),
                "interrupted" | "cancelled" if has_started => {
                    assert!(starts <= 1, "{key} was {state} and started {starts} times");
                }
                "cancelled" | "refused" | "none" => {
                    assert_eq!(starts, 0, "{key} was not to start, and started {starts} times: {result:?}");
                }
                other => panic!("{key}: {other:?}, started {starts} times"),
            }
            started += starts;
        }
        let log = self.world.devices.log();
        let twice: Vec<_> = log.starts.iter().filter(|(_, starts)| **starts > 1).collect();
        assert!(twice.is_empty(), "started twice: {twice:?}");
        assert!(started > 0, "nothing was started at all");
        format!(
            "{:?}; {started} helpers started, {} promises, 0 violations",
            self.counts,
            self.promises.len()
        )
    }

    fn starts_of(&self, key: &str) -> usize {
        self.requests().iter().filter(|request| request.contains(key)).count()
    }

    /// What each helper was asked that the client started.
    fn requests(&self) -> Vec<String> {
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let bytes = std::fs::read(entry.expect("an entry").path()).expect("a request");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        std::fs::read_dir(self.world.place.path("starts")).expect("starts").map(read).collect()
    }
}

fn approval_of(instruction: String) -> Promise {
    Promise::ApprovalAccepted { instruction, operator: APPROVER.to_owned() }
}

/// Whether the Switch refuses to issue what the licence does not admit.
fn is_unlicensed(error: &anyhow::Error) -> bool {
    let status = error.downcast_ref::<tonic::Status>();
    status.is_some_and(|status| {
        status.code() == tonic::Code::FailedPrecondition && status.message().contains("cannot be issued")
    })
}
