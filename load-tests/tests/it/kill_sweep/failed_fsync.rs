//! An fsync that fails: the program ends and says so, since what the kernel still holds nobody knows; it never takes a
//! second try for success. The next start keeps every promise.

use super::tracer::{Fault, Tracer};
use super::{CLIENT, World};
use crate::support::Service;

/// The fsyncs that fail, one a round, from the one after the first question was put.
const POINTS: u32 = 8;
/// What operators find in the log, whichever store it was.
const WORDS: [&str; 2] = ["disk I/O error", "store"];

#[test]
fn a_switch_whose_fsync_fails_ends_and_keeps_every_promise() {
    let world = World::new(&[]);
    let mut switch = world.switch();

    for nth in 1..=POINTS {
        let asks = world.fail(nth, &mut switch);
        switch = world.place.start_switch();
        world.see_through(nth, asks);
    }

    switch.stop();
}

#[test]
fn a_client_whose_fsync_fails_ends_and_starts_nothing_twice() {
    let world = World::new(&[CLIENT]);
    let switch = world.switch();
    world.client_config();
    let mut client = world.place.start_client(CLIENT);
    world.place.wait_online(CLIENT);

    for nth in 1..=POINTS {
        let asks = world.fail(nth, &mut client);
        client = world.place.start_client(CLIENT);
        world.see_through(nth, asks);
    }

    let (started, _) = world.check_starts();
    assert!(started > 0, "no question was started at all");
    client.stop();
    switch.stop();
}

impl World {
    /// Lets the victim's N-th fsync of some questions fail, by turns as a broken and as a full disk does; it must end by
    /// itself and name the cause.
    fn fail(&self, nth: u32, victim: &mut Service) -> Vec<super::Ask> {
        let fault = if nth.is_multiple_of(2) { Fault::Enospc } else { Fault::Eio };
        let logged = victim.log().len();
        let tracer = Tracer::attach(victim.pid(), nth, fault, &self.place.path("traces"));
        let asks = self.ask_until_it_dies(nth, victim);
        let point = tracer.point();
        let log = victim.log();
        let said = log.get(logged..).unwrap_or_default();
        assert!(point.is_some(), "no question came to fsync {nth}:\n{said}");
        assert!(!victim.runs(), "{fault:?} at {point:?} and it goes on:\n{said}");
        assert_eq!(victim.ends(), Some(1), "{fault:?} at {point:?}:\n{said}");
        for word in WORDS {
            assert!(said.contains(word), "{fault:?} at {point:?}: no `{word}` in\n{said}");
        }
        asks
    }
}
