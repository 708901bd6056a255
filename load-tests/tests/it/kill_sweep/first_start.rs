//! Kill -9 at every fsync by which a program makes its store: what is half made is finished by the next start.

use std::process::Command;

use muster_load_tests::dev_fleet::binary;
use nix::sys::signal::Signal;

use crate::support::{Place, Service, children, kill, rows, wait_until};

/// More fsyncs than a first start makes.
const FSYNCS_MAX: u32 = 30;
const DEVICE: &str = "first.example.org";

#[test]
fn a_switch_killed_while_it_makes_its_store_starts_again() {
    let place = Place::with_pki(&[]);
    place.add_context();
    place.switch_config("");

    let hit = sweep(
        &place,
        ["muster-switch", "switch"],
        || place.muster(["client", "list"]).code == 0,
        || {
            let switch = place.start_switch();
            place.import_all();
            assert!(place.muster(["definition", "list"]).with_code(0).out.contains("Muster-Core-Query"));
            switch.kill();
        },
    );

    eprintln!("kill sweep of the Switch's first start: {hit} distinct points hit");
}

#[test]
fn a_client_killed_while_it_makes_its_store_starts_again() {
    let place = Place::with_pki(&[DEVICE]);
    place.add_context();
    place.switch_config("");
    place.client_config(DEVICE);
    let switch = place.start_switch();
    place.import_all();

    let hit = sweep(
        &place,
        ["muster-client", DEVICE],
        || place.status(DEVICE).is_some(),
        || {
            let client = place.start_client(DEVICE);
            place.wait_online(DEVICE);
            assert_eq!(rows(&place.ask("SELECT name FROM os", 0)).len(), 1);
            client.kill();
        },
    );

    eprintln!("kill sweep of the client's first start: {hit} distinct points hit");
    switch.stop();
}

/// Starts a program on no store, to be killed at its N-th fsync, for each N until it answers before; starts it again each
/// time. Returns how many points were hit.
fn sweep(
    place: &Place,
    [program, name]: [&str; 2],
    answers: impl Fn() -> bool,
    starts_again: impl Fn(),
) -> u32 {
    for nth in 1..=FSYNCS_MAX {
        if place.path(name).exists() {
            std::fs::remove_dir_all(place.path(name)).expect("the store to go");
        }
        let mut command = Command::new("strace");
        // Not with --seccomp-bpf: strace 6.1 then injects nothing into the first thread.
        command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync"]);
        command.args(["-e", &format!("inject=fsync,fdatasync:signal=KILL:when={nth}")]);
        command.arg("-o").arg(place.path(&format!("{name}-{nth}.trace"))).arg(binary(program));
        command.arg("run").arg("--config").arg(place.path(&format!("{name}.toml")));
        let mut traced = Service::start(command, &place.path(&format!("{name}.log")));
        wait_until("it to die or to answer", || !traced.runs() || answers());
        if traced.runs() {
            children(traced.pid()).into_iter().for_each(|pid| kill(pid, Signal::SIGKILL));
            traced.ends();
            assert!(nth > 1, "{program} answered before any fsync");
            return nth - 1;
        }
        assert_eq!(traced.ends(), None, "{program} ended by itself:\n{}", traced.log());
        starts_again();
    }
    panic!("{program} makes more than {FSYNCS_MAX} fsyncs before it answers");
}
