//! More sessions than a process may have files open, and what becomes of who connects when there is no descriptor left.

use std::io::Read as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use muster_load_tests::measure::cpu;
use muster_load_tests::tls;

use crate::revocation::crl_against;
use crate::support::{Place, Service, Sessions, binary, http, wait_until, write};

/// A Switch under a limit of open files, with these keys of `[sessions]`.
fn start(place: &Place, files_max: u32, shards: u16, limits: &str) -> Service {
    let path = place.switch_config(&format!("[sessions]\n{limits}"));
    let text = std::fs::read_to_string(&path).unwrap();
    let crl = place.home().join("pki/devices/crl.pem");
    write(&path, &text.replace("shards = 1\n", &format!("shards = {shards}\ncrls = [{crl:?}]\n")));
    let mut command = Command::new("/usr/bin/prlimit");
    command.arg(format!("--nofile={files_max}:{files_max}")).arg(binary("muster-switch").get_program());
    command.arg("run").arg("--config").arg(path);
    let mut switch = Service::start(command, &place.path("switch.log"));
    wait_until("the Switch to listen", || {
        assert!(switch.runs(), "the Switch ended:\n{}", switch.log());
        TcpStream::connect(("127.0.0.1", place.ports.operator)).is_ok()
    });
    switch
}

fn devices(place: &Place, count: usize) -> Vec<tls::Identity> {
    let names: Vec<String> = (0..count).map(|number| format!("descriptors-{number}")).collect();
    tls::issue_devices(&place.home(), &names).unwrap()
}

/// The values of a series of the Switch, whatever its labels.
fn metric(place: &Place, series: &str) -> Vec<f64> {
    let told = http(place.ports.admin, "/metrics");
    let lines = told.lines().filter_map(|line| line.strip_prefix(series));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_holds_more_sessions_than_a_process_may_have_files_open() {
    const FILES: u32 = 500;
    const SESSIONS: usize = 700;
    let place = Place::with_pki(&[]);
    let limits = format!(
        "sessions_max = {SESSIONS}\nunauthenticated_max = 1\nhandshakes_max = 96\nhandshakes_per_source_max = 80\n\
         waiting_max = 128\nwaiting_per_source_max = 100\n"
    );
    let switch = start(&place, FILES, 0, &limits);
    let mut sessions = Sessions::new(&format!("127.0.0.1:{}", place.ports.sessions), &place.home());

    sessions.connect(&devices(&place, SESSIONS)).await;

    assert_eq!(sessions.standing(), SESSIONS);
    let by_shard = metric(&place, "muster_switch_sessions{");
    assert_eq!(by_shard.iter().sum::<f64>(), SESSIONS as f64, "{by_shard:?}");
    assert!(by_shard.len() > 2 && by_shard.iter().all(|sessions| *sessions > 0.0), "{by_shard:?}");
    assert!(switch.log().contains("each shard has descriptors of its own"), "{}", switch.log());
    assert_eq!(sessions.losses(Duration::from_secs(1)).await, [], "none is lost");
    // In order, that is, each session's end was written to its own socket.
    tokio::task::spawn_blocking(|| switch.stop()).await.unwrap();
    let told = sessions.next_losses(SESSIONS).await;
    assert!(told.iter().all(|loss| loss.problem.contains("the Switch stops")), "{:?}", told[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_renewed_or_revoked_reaches_shards_with_descriptors_of_their_own() {
    const FILES: u32 = 500;
    const SESSIONS: usize = 40;
    const REVOKED: usize = 20;
    let place = Place::with_pki(&[]);
    // More than one table holds.
    let switch = start(&place, FILES, 3, "sessions_max = 2000\nunauthenticated_max = 1\n");
    let mut sessions = Sessions::new(&format!("127.0.0.1:{}", place.ports.sessions), &place.home());
    let identities = devices(&place, SESSIONS + 1);
    sessions.connect(&identities[..SESSIONS]).await;
    let by_shard = metric(&place, "muster_switch_sessions{");
    assert!(by_shard.iter().filter(|sessions| **sessions > 0.0).count() == 3, "{by_shard:?}");
    assert!(switch.log().contains("each shard has descriptors of its own"), "{}", switch.log());

    let before = sessions.shown(&identities[SESSIONS]).await;
    place.issue(&["localhost", "--role", "switch", "--ip", "127.0.0.1"]);
    let renewed = async {
        // Each shard has had its turn after so many.
        let mut others = 0;
        while others < 12 {
            others = if sessions.shown(&identities[SESSIONS]).await == before { 0 } else { others + 1 };
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed).await.expect("the renewed certificate");
    let folder = place.home().join("pki/devices");
    std::fs::write(folder.join("crl.new"), crl_against(&place.home(), &identities[..REVOKED])).unwrap();
    std::fs::rename(folder.join("crl.new"), folder.join("crl.pem")).unwrap();

    let mut lost: Vec<String> =
        sessions.next_losses(REVOKED).await.into_iter().map(|loss| loss.device).collect();
    lost.sort();
    let mut revoked: Vec<String> = identities[..REVOKED].iter().map(|one| one.name.clone()).collect();
    revoked.sort();
    assert_eq!(lost, revoked);
    assert_eq!(sessions.losses(Duration::from_secs(1)).await, [], "a session of nobody's concern was lost");
    tokio::task::spawn_blocking(|| switch.stop()).await.unwrap();
    assert_eq!(sessions.next_losses(SESSIONS - REVOKED).await.len(), SESSIONS - REVOKED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_when_no_descriptor_is_left_is_turned_away_at_once_and_others_keep_theirs() {
    const FILES: u32 = 300;
    let place = Place::with_pki(&[]);
    let switch = start(&place, FILES, 1, "retry_after = \"1s\"\n");
    let identities = devices(&place, FILES as usize);
    let address = format!("127.0.0.1:{}", place.ports.sessions);
    let mut sessions = Sessions::new(&address, &place.home());
    let mut refused = 0;
    for identity in &identities {
        let since = Instant::now();
        refused += usize::from(sessions.try_connect(identity).await.is_err());
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }
    let standing = sessions.standing();
    assert!(standing > 100 && refused > 10, "{standing} sessions, {refused} refused");

    let (since, before) = (Instant::now(), cpu::of_process(switch.pid()).unwrap());
    let knocking = tokio::task::spawn_blocking(move || {
        let mut longest = Duration::ZERO;
        while since.elapsed() < Duration::from_secs(3) {
            let knocked = Instant::now();
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let answered = stream.read(&mut [0; 1]);
            assert!(matches!(answered, Ok(0) | Err(_)), "{answered:?}");
            longest = longest.max(knocked.elapsed());
        }
        longest
    });
    let longest = knocking.await.unwrap();
    let busy = cpu::of_process(switch.pid()).unwrap() - before;
    eprintln!(
        "{standing} sessions, {refused} refused; told after {longest:?} at most; {busy:?} of CPU in 3 s"
    );

    assert!(longest < Duration::from_secs(2), "{longest:?}");
    // Those who knock are paced by the pause between two looks, so it is idle for the most part.
    assert!(busy < Duration::from_secs(2), "{busy:?}");
    assert_eq!(sessions.losses(Duration::from_millis(100)).await, [], "a session was lost");
    drop(sessions);
    let mut later = Sessions::new(&format!("127.0.0.1:{}", place.ports.sessions), &place.home());
    wait_until("room again", || metric(&place, "muster_switch_sessions{") == [0.0]);
    later.connect(&identities[..100]).await;
    let shed =
        metric(&place, "muster_switch_handshakes_total{listener=\"sessions\",outcome=\"descriptors\"}");
    assert!(shed.first().is_some_and(|shed| *shed >= refused as f64), "{shed:?}");
    tokio::task::spawn_blocking(|| switch.stop()).await.unwrap();
}
