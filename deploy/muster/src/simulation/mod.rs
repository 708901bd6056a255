//! The seeded simulation: one thread, virtual time, one seed gives one run.
//!
//! A Switch and some devices live through minutes of faults in milliseconds. What decides is what the programs run (`simulation` of
//! muster-switch and muster-client): the engine and its SQLite store, the table of sessions, both halves of the protocol, the
//! client's machine with real signatures, its journal and outbox. Between them is a network that delays, loses, goes silent and is cut; the
//! Switch and devices die at any of their commits, before it or behind it, and come back with what was on disk; clocks jump; operators
//! hear no answer and ask again. Then the network is whole, everything drains, and `judge` has the history checker
//! (`muster-load check`) compare the export with what everybody was told, and itself with what really happened.
//!
//! `MUSTER_SEED=7 cargo test -p muster a_seed` replays a seed and prints its steps; `MUSTER_SEEDS=20000` tries that many.
//! What it finds was seen by switching protections off, one at a time:
//!
//! | switched off | first seed that fails, and how many of the first dozens did | how it shows |
//! |---|---|---|
//! | what was seen of an outbox (`Core::see`) | 0, and 11 of 11 | a sequence is there twice |
//! | the record of what was seen (`Outboxes::poll_writes`) | 0, and 10 of 13 | the same, after a restart of the Switch |
//! | the journal's start (`Tables::recover`, `record_start`) | 2, and 11 of 19 | a second start |
//! | the journal's intent (`Tables::record_intent`) | 0, and 11 of 11 | the last question is not answered |
//! | the commit before acks and replies (`Works::keep`, one batch late) | 0, and 11 of 11 | what was acked or accepted is gone |
//! | the epoch in a session's end (`Core::disconnected`) | 0, and 10 of 54 | the last question is not answered |
//! | the idempotency key (`Core::submit`) | 0, and 10 of 17 | a repeated submission is refused |
//! | the record of a submission (`Write::Submission`) | 2, and 11 of 45 | an instruction is there that its operator was told is not |
//! | the guard of transitions (`Ledger::advance`) | 0, and 11 of 11 | a state goes back |
//! | the outbox until the ack (results deleted when they are sent) | 0, and 11 of 12 | a result that was on disk is gone |
//! | the record of what is offered (`Tables::offer`) | 0, and 11 of 14 | a store takes itself for a copy |
//! | the look for an answer that waits (`Tables::record_stop`) | 213, and 3 of 1,000 | a result is acked and nowhere |
//!
//! Not simulated: TLS and sockets, full and lying disks, power cuts, copies of stores, policies, approvals, resources and answers of
//! several parts: their tests use real processes.

mod background;
mod chaos;
mod device_side;
mod judge;
mod link;
mod operators;
mod organisation;
mod rng;
mod switch_side;
mod totals;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use totals::Totals;
use world::{Trace, World};

/// Seeds that `./test` tries.
const SEEDS: u64 = 1_000;

/// Seeds whose failures are told; there is no need for more.
const FAILURES_MAX: usize = 10;

#[test]
fn every_promise_holds_through_the_faults_of_a_thousand_seeds() {
    let seeds = number("MUSTER_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let (next, failures, totals) = (AtomicU64::new(0), Mutex::new(Vec::new()), Mutex::new(Totals::default()));

    let work = || {
        while failures.lock().unwrap().len() < FAILURES_MAX {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let mut world = World::new(seed, Trace::Not);
            match world.run() {
                Ok(()) => totals.lock().unwrap().add(&world.totals),
                Err(broken) => failures.lock().unwrap().push((seed, broken)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });

    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    let tried = next.into_inner().min(seeds);
    println!("{tried} seeds in {:.1} s: {}", began.elapsed().as_secs_f64(), totals.into_inner().unwrap());
    let told: Vec<String> = failures.iter().map(|(seed, broken)| told(*seed, broken)).collect();
    assert!(told.is_empty(), "{} of {tried} seeds failed:\n{}", told.len(), told.join("\n"));
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    let seed = number("MUSTER_SEED");
    let mut world = World::new(seed.unwrap_or(1), Trace::Kept);
    let ended = world.run();
    let first = world.trace.take().unwrap();
    if let Some(seed) = seed {
        println!("{}\nseed {seed}: {}", first.join("\n"), world.totals);
        if let Err(broken) = ended {
            panic!("{}", told(seed, &broken));
        }
    }

    let mut again = World::new(seed.unwrap_or(1), Trace::Kept);
    drop(again.run());
    let second = again.trace.take().unwrap();

    let differs = first.iter().zip(&second).position(|(one, other)| one != other);
    let at = differs.unwrap_or(first.len().min(second.len()));
    assert_eq!(first.get(at), second.get(at), "the runs differ from step {at} on");
    assert!(first.len() > 100, "{first:#?}");
}

fn told(seed: u64, broken: &str) -> String {
    format!("seed {seed}: {broken}\n  replay: MUSTER_SEED={seed} cargo test -p muster a_seed -- --nocapture")
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: `{text}` is no number")))
}
