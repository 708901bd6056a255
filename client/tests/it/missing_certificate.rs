//! A client whose store of certificates holds none that will do (S6): it starts, says why, waits, and loses nothing.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use muster_client::local::{Reply, Request, ask};
use muster_client::{Config, Status};
use muster_proto::common::v1::value::Kind;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::session::v1::{Event, Lane};
use muster_signing::envelope;
use tokio::net::TcpListener;

use crate::lab::{DEVICE, Lab, PATIENCE, instruction, now_ms};
use crate::switch::{FakeSwitch, Session};

#[tokio::test(flavor = "multi_thread")]
async fn s6_a_client_without_a_certificate_starts_says_why_and_connects_when_one_comes_with_every_event() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let config = lab.with_folders();
    let away = Away::of(&config);
    std::fs::write(config.tls.store.join("broken.pfx"), b"no PFX").unwrap();

    let client = lab.start_with(config).await;
    let told = |text: &str| text.contains("0x209A") && text.contains("broken.pfx");
    client.wait_for(|status| told(&status.disconnected_because) && told(&status.credentials_problem)).await;
    assert_eq!(client.running.device(), None);
    let request = Request::Event { name: "app.started".to_owned(), fields: [].into() };
    assert!(matches!(ask(client.running.socket(), &request).await, Ok(Reply::Sequence(_))));

    away.back();
    let mut session = switch.accept(&lab).await;

    let names = events_until(&mut session, "certificate.recovered").await;
    let names: Vec<&str> = names.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["client.started", "certificate.missing", "app.started", "certificate.recovered"]);
    assert_eq!(client.running.device().unwrap().as_str(), DEVICE);
    let hello = session.hello.attributes.iter().find(|attribute| attribute.name == "device");
    let device = hello.and_then(|attribute| attribute.value.clone()?.kind);
    assert_eq!(device, Some(Kind::Text(DEVICE.to_owned())));
    session.order(&lab.order(1)).await;
    let (result, _) = session.result().await;
    assert_eq!(result.state(), TargetState::Answered);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_a_certificate_that_only_breaks_a_rule_is_waited_for_as_well() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let config = lab.with_folders();
    let away = Away::of(&config);
    let unfit = lab.device_without_distribution_point();
    std::fs::write(config.tls.store.join("unfit.pem"), unfit).unwrap();

    let client = lab.start_with(config.clone()).await;
    client.wait_for(|status| status.disconnected_because.contains("C6")).await;
    std::fs::remove_file(config.tls.store.join("unfit.pem")).unwrap();
    away.back();

    drop(switch.accept(&lab).await);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_a_download_without_a_certificate_waits_calls_nobody_survives_kill_9_and_starts_with_the_certificate()
 {
    let switch = FakeSwitch::listen().await;
    let background = TcpListener::bind("localhost:0").await.unwrap();
    let lab = Lab::new(switch.port(), background.local_addr().unwrap().port());
    let mut config = lab.with_folders();
    config.events.background_after = 2 * PATIENCE;
    let away = Away::later(&config);
    let client = Program::start(&lab, &config);
    let mut session = switch.accept(&lab).await;

    away.away();
    client.wait_for(|status| status.credentials_problem.contains("0x209A")).await;
    order_with_resource(&lab, &mut session).await;
    let missing = event_of(&mut session, "certificate.missing").await;
    let waits = client.wait_for(|status| !status.certificate_wait.is_empty()).await;
    client.kill();
    drop(session);
    let client = Program::start(&lab, &config);
    let again = client.wait_for(|status| !status.certificate_wait.is_empty()).await;
    let called = tokio::time::timeout(std::time::Duration::from_millis(500), background.accept()).await;

    assert_eq!(waits.certificate_wait, instruction(1).to_string());
    let left_ms = waits.certificate_wait_until_ms - now_ms();
    assert!((23 * 3_600_000..=24 * 3_600_000).contains(&left_ms), "{left_ms}");
    assert_eq!(again.certificate_wait_until_ms, waits.certificate_wait_until_ms, "the deadline stays");
    assert_eq!(text(&missing, "instruction"), Some(instruction(1).to_string()));
    assert!(called.is_err(), "the Background Channel was called without a certificate");
    away.back();
    let mut session = switch.accept_living(&lab).await;
    session.answer_until(background.accept()).await.unwrap();
    client.wait_for(|status| status.certificate_wait.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_at_its_deadline_a_download_ends_its_instruction_with_0x209a() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let mut config = lab.with_folders();
    config.resources.certificate_wait = std::time::Duration::from_secs(1);
    let away = Away::later(&config);
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;
    away.away();
    client.wait_for(|status| status.credentials_problem.contains("0x209A")).await;

    order_with_resource(&lab, &mut session).await;
    let (result, progress) = session.result().await;

    assert_eq!((result.state(), result.refusal()), (TargetState::Refused, Refusal::Resource));
    assert!(result.detail.starts_with("ERROR_CLIENT_CERT_MISSING (0x209A)"), "{}", result.detail);
    assert_eq!(progress, ["Acked"]);
    client.wait_for(|status| status.certificate_wait.is_empty()).await;
    client.stop().await;
}

async fn order_with_resource(lab: &Lab, session: &mut Session) {
    let definition = lab.definition_with_resource();
    let digest = envelope::digest(&definition).to_vec();
    session.definition = definition;
    session.order(&lab.order_with(1, |order| order.definition_digest = digest)).await;
}

/// Returns events up to the one of this name, acknowledged.
async fn events_until(session: &mut Session, name: &str) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = session.event().await;
        session.ack(Lane::Events, event.sequence).await;
        let is_last = event.name == name;
        events.push(event);
        if is_last {
            return events;
        }
    }
}

/// Returns the next event of this name, passing over progress and other events.
async fn event_of(session: &mut Session, name: &str) -> Event {
    loop {
        if let Some(event) = session.event_or_other().await
            && event.name == name
        {
            return event;
        }
    }
}

fn text(event: &Event, name: &str) -> Option<String> {
    let field = event.fields.iter().find(|field| field.name == name)?;
    match field.value.clone()?.kind {
        Some(Kind::Text(text)) => Some(text),
        _ => None,
    }
}

/// The store's certificate, taken away and brought back.
struct Away {
    store: std::path::PathBuf,
    aside: std::path::PathBuf,
}

impl Away {
    fn later(config: &Config) -> Self {
        Self { store: config.tls.store.clone(), aside: config.tls.store.with_extension("aside") }
    }

    fn of(config: &Config) -> Self {
        let away = Self::later(config);
        away.away();
        away
    }

    fn away(&self) {
        std::fs::create_dir_all(&self.aside).unwrap();
        self.move_all(&self.store, &self.aside);
    }

    fn back(&self) {
        self.move_all(&self.aside, &self.store);
    }

    fn move_all(&self, from: &Path, to: &Path) {
        // The key first, so that the certificate comes whole.
        for name in ["any name.key", "any name.pem"] {
            std::fs::rename(from.join(name), to.join(name)).unwrap();
        }
    }
}

/// A client as a program, killed with the test.
struct Program {
    child: Child,
    socket: std::path::PathBuf,
}

impl Program {
    fn start(lab: &Lab, config: &Config) -> Self {
        let path = lab.folder.path().join("client.toml");
        let text = |path: &Path| format!("{:?}", path.to_str().unwrap());
        let (tls, trust) = (&config.tls, &config.trust);
        let toml = format!(
            "switch = {:?}\nbackground_channel = {:?}\ntenant = {:?}\ndata_dir = {}\n\
             [tls]\ncertificate = \"\"\nkey = \"\"\nstore = {}\n\
             [trust]\nswitch = \"\"\nfolder = {}\nauthors = {}\norders = {}\nlicences = {}\n\
             [session]\nreconnect_base = \"10ms\"\n[events]\nbackground_after = \"1h\"\n",
            config.switch,
            config.background_channel,
            config.tenant,
            text(&config.data_dir),
            text(&tls.store),
            text(&trust.folder),
            text(&trust.authors),
            text(&trust.orders),
            text(&trust.licences),
        );
        std::fs::write(&path, toml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster-client"));
        command.args(["run", "--config"]).arg(&path).stdin(Stdio::null());
        Self { child: command.spawn().unwrap(), socket: config.socket() }
    }

    /// Waits until what it tells of itself fits.
    async fn wait_for(&self, fits: impl Fn(&Status) -> bool) -> Status {
        let wait = async {
            loop {
                if let Ok(Reply::Status(status)) = ask(&self.socket, &Request::Status {}).await
                    && fits(&status)
                {
                    return *status;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the client never came to that")
    }

    /// Ends it as kill -9 does.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
