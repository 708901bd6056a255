//! Distribution points that fail in every way while devices are connected (R1, R4, R5, R6).
//!
//! One Switch, one root, and below it an issuing CA for each row of [`ISSUERS`], with a distribution point of its own.
//! Each list is good for [`FRESH`], so that it lapses while the test runs:
//!
//! ```text
//! good ──► each fails in its way, the lists before are fresh ──► those lists lapse ──► good again
//! ```

mod point;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use muster_load_tests::tls::{self, Identity};
use muster_pki::authority::Authority;
use muster_pki::{Role, UnixTime};
use serde_json::Value;

use self::point::{Answer, Point};
use crate::support::{Place, Service, Sessions, http, wait_for, wait_until, write};

/// How long each list is good for: it is asked for again after half of it, at most.
const FRESH: Duration = Duration::from_secs(60);
/// A distribution point that failed twice is asked again after a minute at most, one that hung after a minute and a half.
const UNTIL_MENDED: Duration = Duration::from_secs(200);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What `[revocation]` says of an issuer (R6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Hard,
    Grace,
    Soft,
}

/// Each issuing CA: what its distribution point does after it was good, and its mode.
const ISSUERS: [(Answer, Mode); 14] = [
    (Answer::Good, Mode::Hard),
    (Answer::Down, Mode::Hard),
    (Answer::Down, Mode::Grace),
    (Answer::Down, Mode::Soft),
    (Answer::Slow, Mode::Hard),
    (Answer::Garbage, Mode::Hard),
    (Answer::Stale, Mode::Hard),
    (Answer::Stale, Mode::Grace),
    (Answer::RolledBack, Mode::Hard),
    (Answer::Forged, Mode::Hard),
    (Answer::OfAnother, Mode::Hard),
    (Answer::LongAgo, Mode::Hard),
    (Answer::LongAgo, Mode::Grace),
    (Answer::LongAgo, Mode::Soft),
];

/// Where the test stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Every list was fetched once.
    Good,
    /// Every distribution point was asked again, and failed; what it gave before is fresh.
    Failing,
    /// What it gave before has lapsed.
    Lapsed,
    /// Every distribution point is good again.
    Mended,
}

/// Whether a new session is to be had.
fn is_welcome(phase: Phase, answer: Answer, mode: Mode) -> bool {
    match (phase, answer, mode) {
        // Its only list ended a day and an hour ago: beyond the grace.
        (Phase::Good | Phase::Failing | Phase::Lapsed, Answer::LongAgo, Mode::Hard | Mode::Grace) => false,
        // A higher number replaces the list before, and it ended an hour ago: within the grace.
        (Phase::Failing | Phase::Lapsed, Answer::Stale, Mode::Hard) => false,
        (Phase::Lapsed, Answer::Good, Mode::Hard) => true,
        (Phase::Lapsed, _, Mode::Hard) => false,
        _ => true,
    }
}

/// Whether `/readyz` complains of the issuer or its distribution point.
fn is_told(phase: Phase, answer: Answer) -> bool {
    match (phase, answer) {
        (Phase::Mended, _) | (_, Answer::Good) => false,
        (_, Answer::LongAgo) | (Phase::Lapsed, _) => true,
        (Phase::Good, _) => false,
        // A list that is refused is told at once, a server that does not answer at its third failure.
        (Phase::Failing, Answer::Down | Answer::Slow) => false,
        (
            Phase::Failing,
            Answer::Garbage | Answer::Stale | Answer::RolledBack | Answer::Forged | Answer::OfAnother,
        ) => true,
    }
}

struct Issuer {
    name: String,
    answer: Answer,
    mode: Mode,
    point: Point,
    /// For each phase a device that connects in it.
    devices: Vec<Identity>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_whatever_a_distribution_point_does_sessions_stand_and_each_mode_decides_for_new_ones() {
    let place = Place::with_pki(&[]);
    let issuers = issuers(&place);
    let mut switch = start(&place, &issuers);
    let mut sessions = Sessions::new(&format!("127.0.0.1:{}", place.ports.sessions), &place.home());

    wait_for_all("a first list", &switch, &issuers, PATIENCE, |issuer, log| taken(log, issuer) >= 1);
    phase(Phase::Good, &place, &switch, &issuers, &mut sessions).await;
    assert_eq!(metric(&place, "muster_crl_entries"), ISSUERS.len() as f64, "an entry on each list");

    for issuer in &issuers {
        issuer.point.set(issuer.answer);
    }
    let before = log_lines(&switch);
    wait_for_all("a second answer", &switch, &issuers, PATIENCE, |issuer, log| match issuer.answer {
        Answer::Down | Answer::Garbage | Answer::RolledBack | Answer::Forged | Answer::OfAnother => {
            failed(log, issuer) >= 1
        }
        Answer::Slow => issuer.point.asked() >= 2,
        Answer::Good | Answer::Stale => taken(&log[before.min(log.len())..], issuer) >= 1,
        Answer::LongAgo => true,
    });
    phase(Phase::Failing, &place, &switch, &issuers, &mut sessions).await;
    assert!(metric(&place, "muster_crl_fetch_failures_total") >= 5.0, "down thrice, garbage, rolled back");
    assert!(metric(&place, "muster_crl_refused_total") >= 4.0, "garbage, rolled back, forged, of another");

    let lapse = issuers.iter().filter(|issuer| issuer.answer != Answer::Good);
    let lapse = lapse.filter_map(|issuer| issuer.point.last_good()).max().unwrap() + FRESH;
    tokio::time::sleep_until((lapse + Duration::from_secs(2)).into()).await;
    phase(Phase::Lapsed, &place, &switch, &issuers, &mut sessions).await;

    let before = log_lines(&switch);
    for issuer in &issuers {
        issuer.point.set(Answer::Good);
    }
    wait_for_all("a good list", &switch, &issuers, UNTIL_MENDED, |issuer, log| {
        taken(&log[before.min(log.len())..], issuer) >= 1
    });
    phase(Phase::Mended, &place, &switch, &issuers, &mut sessions).await;
    assert!(switch.runs());
}

/// Tries one new device of each issuer, and holds what stands, what is refused and what is told against the table.
async fn phase(phase: Phase, place: &Place, switch: &Service, issuers: &[Issuer], sessions: &mut Sessions) {
    let mut wrong = Vec::new();
    for issuer in issuers {
        let device = &issuer.devices[phase as usize];
        let got = sessions.try_connect(device).await;
        if got.is_ok() != is_welcome(phase, issuer.answer, issuer.mode) {
            wrong.push(format!("{}: {got:?}", device.name));
        }
        if got.is_err() {
            // It is told to the device before it is logged.
            wait_until(&format!("R6 for {} in the log", device.name), || {
                refused_by_r6(&switch.log(), device)
            });
        }
    }
    let lost = sessions.losses(Duration::from_millis(500)).await;
    assert!(wrong.is_empty() && lost.is_empty(), "{phase:?}: {wrong:#?}, lost {lost:#?}\n{}", switch.log());
    let mut told = String::new();
    let ready = wait_for(&format!("{phase:?} in /readyz, the last of {told}"), || {
        let (code, text) = ready(place);
        let right =
            issuers.iter().all(|issuer| is_names(&text, &issuer.name) == is_told(phase, issuer.answer));
        told.clone_from(&text);
        right.then_some(code)
    });
    assert_eq!(ready, 200, "a Switch without a fresh list still serves others");
    let welcome = issuers.iter().filter(|issuer| is_welcome(phase, issuer.answer, issuer.mode)).count();
    eprintln!(
        "{phase:?}: {welcome} of {} new handshakes accepted, {} sessions stand, none lost",
        issuers.len(),
        sessions.standing()
    );
}

/// Makes the CAs, their distribution points and their devices.
fn issuers(place: &Place) -> Vec<Issuer> {
    let read = |name: &str| std::fs::read_to_string(place.home().join("pki/devices").join(name)).unwrap();
    let root = Authority::from_pem(&read("root.pem"), &read("root.key")).unwrap();
    let authority = |name: &str| root.issue_authority(name, YEAR, UnixTime::now()).unwrap();
    let other = authority("another issuer");
    write(&place.path("ca/another.pem"), &other.certificate_pem());
    let other = (other.certificate_pem(), other.key_pem().to_string());
    let make = |(answer, mode): (Answer, Mode)| {
        let name = format!("{answer:?}-{mode:?}").to_lowercase();
        let issuing = authority(&name);
        write(&place.path(&format!("ca/{name}.pem")), &issuing.certificate_pem());
        let names = [Phase::Good, Phase::Failing, Phase::Lapsed, Phase::Mended]
            .map(|phase| format!("{name}-{phase:?}").to_lowercase());
        let other = Authority::from_pem(&other.0, &other.1).unwrap();
        let point = Point::start(&name, issuing, other, FRESH);
        point.set(if answer == Answer::LongAgo { Answer::LongAgo } else { Answer::Good });
        let devices = tls::issue_below(&point.authority(), Role::Device, &names, &point.url()).unwrap();
        Issuer { name, answer, mode, point, devices }
    };
    ISSUERS.into_iter().map(make).collect()
}

/// Starts a Switch that knows them all; what the development CA itself published comes from files.
fn start(place: &Place, issuers: &[Issuer]) -> Service {
    let rows: Vec<String> = issuers
        .iter()
        .map(|issuer| {
            let certificate = place.path(&format!("ca/{}.pem", issuer.name));
            let mode = format!("{:?}", issuer.mode).to_lowercase();
            format!(
                "{{ certificates = {certificate:?}, mode = {mode:?}, urls = [{:?}] }}",
                issuer.point.url()
            )
        })
        .collect();
    let another = place.path("ca/another.pem");
    let config = place.switch_config(&format!(
        "[revocation]\nissuers = [\n{},\n{{ certificates = {another:?}, mode = \"soft\" }},\n]\n[log]\nformat = \"json\"\n",
        rows.join(",\n")
    ));
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("crls = {:?}\n{text}", lists(&place.home()))).unwrap();
    place.start_switch()
}

/// The lists that `muster pki` wrote of the CAs whose certificates may connect.
fn lists(home: &Path) -> Vec<PathBuf> {
    let of = |role| ["crl.pem", "root-crl.pem"].map(|name| home.join("pki").join(role).join(name));
    ["devices", "operators", "services"].into_iter().flat_map(of).collect()
}

const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until something holds for every issuer; the log is given as its lines.
fn wait_for_all(
    what: &str,
    switch: &Service,
    issuers: &[Issuer],
    patience: Duration,
    holds: impl Fn(&Issuer, &[&str]) -> bool,
) {
    let started = Instant::now();
    loop {
        let log = switch.log();
        let lines: Vec<&str> = log.lines().collect();
        let left: Vec<&str> =
            issuers.iter().filter(|one| !holds(one, &lines)).map(|one| one.name.as_str()).collect();
        if left.is_empty() {
            eprintln!("{what} from every distribution point after {:.1} s", started.elapsed().as_secs_f64());
            return;
        }
        assert!(started.elapsed() < patience, "waited {patience:?} for {what} of {left:?}:\n{log}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn log_lines(switch: &Service) -> usize {
    switch.log().lines().count()
}

/// How often a list from its distribution point came into use.
fn taken(log: &[&str], issuer: &Issuer) -> usize {
    let url = issuer.point.url();
    log.iter().filter(|line| line.contains("is in use") && is_names(line, &url)).count()
}

/// How often its distribution point gave none.
fn failed(log: &[&str], issuer: &Issuer) -> usize {
    let url = issuer.point.url();
    log.iter().filter(|line| line.contains("could not be fetched") && is_names(line, &url)).count()
}

fn refused_by_r6(log: &str, device: &Identity) -> bool {
    log.lines().any(|line| {
        line.contains("certificate refused") && is_names(line, &device.name) && line.contains("R6")
    })
}

/// Whether a text names it as a whole word.
fn is_names(text: &str, name: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '-';
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part))
}

/// The status of `/readyz`, and how revocation is in it.
fn ready(place: &Place) -> (u16, String) {
    let answer = http(place.ports.admin, "/readyz");
    let code = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let told: Value = serde_json::from_str(body).unwrap_or_default();
    (code, told["components"]["revocation"].to_string())
}

/// The sum of a metric's series.
fn metric(place: &Place, name: &str) -> f64 {
    let text = http(place.ports.admin, "/metrics");
    let lines =
        text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
