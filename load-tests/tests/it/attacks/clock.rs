//! A device's clock that somebody moves: `libfaketime` below the real client.

use std::path::PathBuf;
use std::time::Duration;

use muster_pki::UnixTime;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::order::v1::Order;
use muster_signing::envelope::ContentType;
use muster_signing::order;

use super::{ANSWERED, DEVICE, Lab, instruction};
use crate::liar::now_ms;
use crate::support::orders::{MINUTE_MS, sign_at};
use crate::support::{Service, system, wait_until, write};

#[test]
fn attack_clock_set_back_into_the_window_of_an_old_order_is_refused_as_that_also_after_kill_9() {
    let lab = Lab::new();
    let clock = Clock::new(&lab);
    let liar = lab.liar();
    let client = clock.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    // Made for the time half an hour ago, and kept away until now.
    let kept = |lab: &Lab| {
        let begin = now_ms() - 45 * MINUTE_MS;
        let order =
            Order { not_before_ms: begin, expires_at_ms: begin + 25 * MINUTE_MS, ..lab.order(&lab.honest) };
        let at = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(begin).unwrap()));
        let envelope = sign_at(&order::encode(&order), ContentType::Order, &lab.operator, at);
        (order, envelope)
    };
    let (order, envelope) = kept(&lab);
    assert_eq!(lab.tried(&mut session, &order, &envelope).0, TargetState::Expired);

    clock.set("-30m");
    let (order, envelope) = kept(&lab);
    let told = lab.tried(&mut session, &order, &envelope);
    assert_eq!(told, (TargetState::Refused, Refusal::Clock), "while it runs");
    client.kill();
    drop(session);
    let client = clock.start();
    let mut session = liar.accept(lab.welcome());
    let (order, envelope) = kept(&lab);
    let told = lab.tried(&mut session, &order, &envelope);
    assert_eq!(told, (TargetState::Refused, Refusal::Clock), "after kill -9");
    // The Switch's time is nothing that a device goes by.
    client.kill();
    drop(session);
    let client = clock.start();
    let back = Some(now_ms() - 30 * MINUTE_MS);
    let mut session = liar.accept(crate::liar::Welcome { time_ms: back, ..lab.welcome() });
    let (order, envelope) = kept(&lab);
    let told = lab.tried(&mut session, &order, &envelope);
    assert_eq!(told, (TargetState::Refused, Refusal::Clock), "with the Switch");

    clock.set("+0");
    lab.goes_on(&mut session);
    drop(client);
}

#[test]
fn attack_clock_set_forward_and_back_makes_the_device_forget_no_order_that_it_ran() {
    let lab = Lab::new();
    lab.configure("", "", "[instructions]\nremember = \"10m\"\n[log]\nfilter = \"info,muster_client=debug\"");
    let clock = Clock::new(&lab);
    let liar = lab.liar();
    let client = clock.start();
    let mut session = liar.accept(lab.welcome());
    let order = Order { expires_at_ms: now_ms() + 5 * MINUTE_MS, ..lab.order(&lab.honest) };
    let envelope = lab.signed(&order);
    lab.runs(&mut session, &order, &envelope);
    client.kill();
    drop(session);

    // Beyond the window, and the time for which it is remembered.
    clock.set("+20m");
    let client = clock.start();
    upkept(&client, 2);
    client.kill();
    clock.set("+0");
    let _client = clock.start();
    let mut session = liar.accept(lab.welcome());
    session.deliver(&envelope);

    lab.goes_on(&mut session);
    assert_eq!(lab.place.starts(), 2, "the order and the honest one, each once");
    assert_eq!(
        session.until("its result", |told| told.results.first().map(|result| result.state())),
        ANSWERED.0
    );
}

#[test]
fn attack_replay_of_an_order_that_the_device_has_forgotten_is_expired_and_no_clock_that_is_set_back_revives_it()
 {
    let lab = Lab::new();
    lab.configure("", "", "[instructions]\nremember = \"10m\"\n[log]\nfilter = \"info,muster_client=debug\"");
    let clock = Clock::new(&lab);
    let liar = lab.liar();
    let client = clock.start();
    let mut session = liar.accept(lab.welcome());
    let order = Order { expires_at_ms: now_ms() + 2 * MINUTE_MS, ..lab.order(&lab.honest) };
    let envelope = lab.signed(&order);
    lab.runs(&mut session, &order, &envelope);
    session.ack();
    client.kill();
    drop(session);

    // Twenty minutes later, which an order of then proves to the device.
    clock.set("+20m");
    let client = clock.start();
    let mut session = liar.accept(lab.welcome());
    let later = || {
        let now = now_ms() + 20 * MINUTE_MS;
        Order {
            not_before_ms: now - MINUTE_MS,
            expires_at_ms: now + 10 * MINUTE_MS,
            ..lab.order(&lab.honest)
        }
    };
    let second = later();
    lab.runs(&mut session, &second, &lab.signed(&second));
    session.ack();
    client.kill();
    drop(session);
    let client = clock.start();
    upkept(&client, 3);
    let hex = hex::encode(&order.instruction);
    let store = lab.place.path(DEVICE).join("client.db");
    let known = format!("SELECT count(*) FROM journal WHERE instruction = x'{hex}'");
    let known = system("sqlite3", &[store.to_str().unwrap(), &known]);
    assert_eq!(known.out.trim(), "0", "it is forgotten");
    let mut session = liar.accept(lab.welcome());
    session.deliver(&envelope);
    let of = instruction(&order).to_vec();
    let count = |told: &crate::liar::Told, state: TargetState| {
        told.results.iter().filter(|result| result.instruction == of && result.state() == state).count()
    };
    session.until("its end", |told| (count(told, TargetState::Expired) == 1).then_some(()));
    client.kill();
    drop(session);

    clock.set("+0");
    let _client = clock.start();
    let mut session = liar.accept(lab.welcome());
    session.deliver(&envelope);
    let third = lab.order(&lab.honest);
    lab.refused(&mut session, &third, Refusal::Clock, "the device has seen a later time");
    clock.set("+20m");
    let fourth = later();
    lab.runs(&mut session, &fourth, &lab.signed(&fourth));
    assert_eq!(lab.place.starts(), 3, "the first, the second and the fourth");
}

/// Waits until the client has forgotten what is out of date so often, since its first start.
fn upkept(client: &Service, times: usize) {
    wait_until("what is out of date to be forgotten", || client.log().matches("upkeep").count() >= times);
}

/// What a client takes for the time.
pub(super) struct Clock<'a> {
    lab: &'a Lab,
    file: PathBuf,
}

impl<'a> Clock<'a> {
    /// One that is right.
    pub(super) fn new(lab: &'a Lab) -> Self {
        let clock = Self { lab, file: lab.place.path("clock") };
        clock.set("+0");
        clock
    }

    /// Moves it away from the right time, as `faketime` writes it.
    pub(super) fn set(&self, offset: &str) {
        let new = self.file.with_extension("new");
        write(&new, &format!("{offset}\n"));
        std::fs::rename(new, &self.file).unwrap();
    }

    pub(super) fn start(&self) -> Service {
        self.lab.place.start_client_with(DEVICE, &self.environment())
    }

    /// What makes a process go by it.
    pub(super) fn environment(&self) -> [(&'static str, String); 7] {
        [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Wall clocks alone are set by people.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
            ("FAKETIME_DISABLE_SHM", "1".to_owned()),
        ]
    }
}

/// The library that moves a process's clock.
fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let folders = folders.chain(["/usr/lib", "/usr/lib64"].map(PathBuf::from));
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let found = libraries.find(|library| library.exists());
    found.expect("needs libfaketime: apt-get install faketime").display().to_string()
}
