use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::health::State;
use crate::shutdown::{DrainOutcome, Shutdown};
use crate::telemetry;

#[tokio::test]
async fn answers_metrics_as_prometheus_text() {
    let admin = Served::start(Health::new()).await;
    ::metrics::counter!("muster_admin_test_total").increment(2);

    let answer = admin.get("/metrics").await;

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("muster_admin_test_total 2"), "{answer}");
    admin.stop().await;
}

#[tokio::test]
async fn healthz_lists_the_components_and_fails_with_one() {
    let health = Health::new();
    let store = health.component("store");
    store.set(State::Degraded("disk nearly full".into()));
    let admin = Served::start(health).await;

    let degraded = admin.get("/healthz").await;
    store.set(State::Failed("fsync: EIO".into()));
    let failed = admin.get("/healthz").await;

    assert!(degraded.starts_with("HTTP/1.1 200"), "{degraded}");
    assert!(degraded.contains("disk nearly full"), "{degraded}");
    assert!(failed.starts_with("HTTP/1.1 503"), "{failed}");
    assert!(failed.contains("\"state\": \"failed\""), "{failed}");
    admin.stop().await;
}

#[tokio::test]
async fn readyz_waits_for_every_component() {
    let health = Health::new();
    let sessions = health.component("sessions");
    let admin = Served::start(health).await;

    let starting = admin.get("/readyz").await;
    sessions.set(State::Ready);
    let ready = admin.get("/readyz").await;

    assert!(starting.starts_with("HTTP/1.1 503"), "{starting}");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.contains("\"status\": \"ok\""), "{ready}");
    admin.stop().await;
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let admin = Served::start(Health::new()).await;

    let answer = admin.get("/secrets").await;

    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    admin.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_at_the_deadline() {
    let admin = Served::start(Health::new()).await;
    let mut stream = TcpStream::connect(admin.address).await.unwrap();

    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest).await;

    assert!(read.is_ok(), "{read:?}");
    admin.stop().await;
}

#[tokio::test]
async fn refuses_an_address_that_others_can_reach() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();

    let error =
        serve(listener, Health::new(), telemetry::metrics(), CancellationToken::new()).await.unwrap_err();

    assert!(error.to_string().contains("wanted a loopback address"), "{error}");
}

struct Served {
    address: SocketAddr,
    shutdown: Shutdown,
}

impl Served {
    async fn start(health: Health) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let token = shutdown.token();
        let metrics = telemetry::metrics();
        shutdown.spawn("admin", async move {
            serve(listener, health, metrics, token).await.unwrap();
        });
        Self { address, shutdown }
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn stop(self) {
        assert_eq!(self.shutdown.drain(Duration::from_secs(20)).await, DrainOutcome::Drained);
        assert_eq!(self.shutdown.failure(), None);
    }
}
