//! A Switch that takes its licence from a web server (G6).

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use muster_pki::Role;
use muster_switch::StartError;

use crate::degraded::{admin, status, until_ready, until_ready_says};
use crate::licence_server::{
    Answer, LicenceServer, ask_at, https, licence, licence_saying, licence_until, signed_by, world_asking,
};
use crate::strangers::ask;
use crate::world::{PATIENCE, Switch, World};

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "{what}");
}

async fn until_serial(switch: &Switch, serial: u64) {
    let line = format!("muster_switch_licence_serial {serial}\n");
    until(&format!("licence {serial}"), async || admin(switch, "/metrics").await.contains(&line)).await;
}

#[tokio::test]
async fn g6_a_licence_is_taken_from_its_url_and_asked_for_by_its_etag_until_there_is_a_newer_one() {
    let mut world = World::new();
    let server = LicenceServer::new(Answer::Document(licence(&world, 1)), None).await;
    ask_at(&mut world, server.url());

    let switch = world.start().await;
    until_serial(&switch, 1).await;
    until("a 304", async || server.asked().iter().any(|(_, status)| *status == 304)).await;
    server.answers(Answer::Document(licence(&world, 2)));
    until_serial(&switch, 2).await;

    let asked = server.asked();
    assert!(asked[0].0.starts_with("get /acme.cms http/1.1\r\n") && !asked[0].0.contains("if-none-match"));
    let taken = asked.iter().filter(|(_, status)| *status == 200).count();
    assert_eq!(taken, 2, "a licence that is held is not sent again: {asked:?}");
    assert!(admin(&switch, "/readyz").await.contains("licence_url"));
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn g6_what_is_older_forged_garbage_or_lapsed_is_not_taken_and_told_at_once() {
    let mut world = World::new();
    let server = LicenceServer::new(Answer::Document(licence(&world, 5)), None).await;
    ask_at(&mut world, server.url());
    let switch = world.start().await;
    until_serial(&switch, 5).await;
    let author = "serial = 6\nlicensee = \"Acme\"\ntenant = \"acme\"\nnot_before = 2020-01-01T00:00:00Z\n\
                  not_after = 2099-01-01T00:00:00Z\n";
    let other = author.replace("tenant = \"acme\"", "tenant = \"other\"");

    for (document, said) in [
        (licence(&world, 4), "a serial never goes back"),
        (signed_by(&world, Role::Author, author), "not trusted"),
        (signed_by(&world, Role::Licensor, &other), "the licence is for tenant `other`"),
        (b"<html>Log in first</html>".to_vec(), "not a signed envelope"),
        (licence_until(&world, 9, "2021-01-01T00:00:00Z", ""), "licence 9 is valid from"),
    ] {
        server.answers(Answer::Document(document));
        let ready = until_ready_says(&switch, said).await;
        assert!(ready.contains(r#""licence_url":{"state":"degraded","#), "{ready}");
        let status = status(&world, &switch).await;
        assert_eq!(status.licence_serial, 5);
        assert!(status.warnings.iter().any(|warning| warning.contains(said)), "{:?}", status.warnings);
    }
    server.answers(Answer::Document(licence(&world, 6)));
    until_serial(&switch, 6).await;
    until_ready(&switch, |ready| !ready.contains("licence from http")).await;
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn g6_a_server_that_is_away_silent_or_endless_is_told_after_some_failures_and_asked_again() {
    let mut world = World::new();
    let server = LicenceServer::new(Answer::Silence, None).await;
    ask_at(&mut world, server.url());
    world.config.licence_refresh.alarm_after = 2;
    let switch = world.start().await;

    let silent = until_ready_says(&switch, "no whole answer within 2s").await;
    server.answers(Answer::Endless);
    until_ready_says(&switch, "more than 262144 bytes").await;
    server.answers(Answer::Status(503));
    until_ready_says(&switch, "status 503; wanted 200 with the licence").await;
    let asked = server.asked().len();
    server.answers(Answer::Document(licence(&world, 1)));
    until_serial(&switch, 1).await;
    until_ready(&switch, |ready| !ready.contains("licence from http")).await;

    assert!(silent.starts_with("HTTP/1.1200OK"), "the Switch serves all the same: {silent}");
    assert!(asked >= 3, "{asked}");
    let metrics = admin(&switch, "/metrics").await;
    assert!(metrics.contains("muster_switch_licence_looks_total{outcome=\"unreached\"}"), "{metrics}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn g6_nobody_at_the_url_is_told_after_the_failures_that_are_configured_and_not_before() {
    for (alarm_after, is_told) in [(1_000, false), (2, true)] {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut world = world_asking(format!("http://{closed}/acme.cms"));
        world.config.licence_refresh.alarm_after = alarm_after;
        let switch = world.start().await;
        let failures = async || {
            let metrics = admin(&switch, "/metrics").await;
            let line = "muster_switch_licence_looks_total{outcome=\"unreached\"} ";
            let count = metrics.lines().find_map(|counted| counted.strip_prefix(line)?.trim().parse().ok());
            count.unwrap_or(0_u64)
        };

        let before = failures().await;
        until("three failures", async || failures().await >= before + 3).await;

        let ready = admin(&switch, "/readyz").await;
        assert_eq!(ready.contains("cannot connect"), is_told, "{ready}");
        switch.stop().await.unwrap();
    }
}

#[tokio::test]
async fn g6_an_https_server_is_judged_by_the_roots_that_are_named_and_a_redirect_followed() {
    let mut world = World::new();
    let server = LicenceServer::new(Answer::Document(licence(&world, 3)), Some(https(&world))).await;
    let url = format!("https://localhost:{}/acme.cms", server.address.port());
    let redirect = LicenceServer::new(Answer::Elsewhere(url.clone()), None).await;
    ask_at(&mut world, url);
    world.config.licence_refresh.alarm_after = 1;

    let switch = world.start().await;
    let refused = until_ready_says(&switch, "licence_url").await;
    let unknown = until_ready_says(&switch, "cannot connect").await;
    switch.stop().await.unwrap();
    world.config.licence_refresh.https_roots = Some(world.pki.roots_file("servers"));
    world.config.licence_url = Some(redirect.url());
    let switch = world.start().await;
    until_serial(&switch, 3).await;

    assert!(refused.contains("licence_url") && unknown.contains("degraded"), "{unknown}");
    assert_eq!(redirect.asked().first().map(|(_, status)| *status), Some(302));
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn g6_a_licence_whose_refresh_by_lapsed_is_told_everywhere_and_goes_on_working() {
    let mut world = World::new();
    let line = "refresh_by = 2021-01-01T00:00:00Z";
    let server = LicenceServer::new(Answer::Document(licence_saying(&world, 1, line)), None).await;
    ask_at(&mut world, server.url());
    let switch = world.start().await;

    let ready = until_ready_says(&switch, "should have had a successor").await;
    let lapsed = status(&world, &switch).await;
    let overdue = admin(&switch, "/metrics").await;
    server.answers(Answer::Document(licence_saying(&world, 2, "refresh_by = 2098-01-01T00:00:00Z")));
    until_serial(&switch, 2).await;
    until_ready(&switch, |ready| !ready.contains("successor")).await;

    assert!(
        ready.starts_with("HTTP/1.1200OK") && ready.contains(r#""licence":{"state":"degraded","#),
        "{ready}"
    );
    assert_eq!(lapsed.licence_serial, 1);
    assert!(lapsed.warnings.iter().any(|warning| warning.contains("refresh_by")), "{:?}", lapsed.warnings);
    assert!(overdue.contains("muster_switch_licence_overdue 1"), "{overdue}");
    assert!(overdue.contains("muster_switch_licence_refresh_by_seconds 1609459200"), "{overdue}");
    assert!(admin(&switch, "/metrics").await.contains("muster_switch_licence_overdue 0"));
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn g6_a_url_that_is_none_is_refused_at_the_start() {
    let world = world_asking("ftp://licences.test/acme.cms".to_owned());

    let Err(StartError::Config(invalid)) = world.try_start().await else { panic!("started") };

    assert!(invalid.to_string().contains("licence_url") && invalid.to_string().contains("http"), "{invalid}");
}

/// A Switch as a process of its own.
struct Process {
    child: Child,
    admin: SocketAddr,
}

impl Process {
    /// Starts it, and waits until it listens.
    fn start(world: &World) -> Self {
        let file = world.folder().join("switch.toml");
        std::fs::write(&file, toml::to_string(&world.config).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster-switch"));
        command.args(["run", "--config"]).arg(file).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let admin = log.by_ref().find_map(|line| admin_of(&line.unwrap())).expect("it listens");
        // Nobody else reads what it says, and it must not wait for that.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, admin }
    }

    async fn says(&self, path: &str, wanted: &str) -> bool {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        ask(self.admin, request.as_bytes()).await.contains(wanted)
    }

    /// Ends it as a power failure does.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Reads the admin address out of the line that tells where the Switch listens.
fn admin_of(line: &str) -> Option<SocketAddr> {
    line.split("admin_addr=").nth(1)?.split_whitespace().next()?.parse().ok()
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test]
async fn g6_a_licence_that_came_over_http_outlives_kill_9_and_works_offline_and_never_goes_back() {
    let mut world = World::new();
    let server = LicenceServer::new(Answer::Document(licence(&world, 7)), None).await;
    ask_at(&mut world, server.url());
    let seven = "muster_switch_licence_serial 7\n";

    for answer in [Answer::Status(503), Answer::Document(licence(&world, 6))] {
        server.answers(Answer::Document(licence(&world, 7)));
        let switch = Process::start(&world);
        until("licence 7", async || switch.says("/metrics", seven).await).await;
        switch.kill();
        server.answers(answer.clone());
        let asked = server.asked().len();
        let switch = Process::start(&world);
        until("a question", async || server.asked().len() > asked).await;
        until("licence 7 again", async || switch.says("/metrics", seven).await).await;
        if matches!(answer, Answer::Document(_)) {
            until("refused", async || switch.says("/readyz", "a serial never goes back").await).await;
        }
        assert!(switch.says("/metrics", seven).await);
        switch.kill();
    }
}
