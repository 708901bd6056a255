//! Simulated devices that come back, and the log of what they were told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use muster_load_tests::history::Promise;
use muster_load_tests::journal::Seen;
use muster_load_tests::simulated::{self, AfterLoss, Shared, Told};
use muster_load_tests::tls;
use muster_pki::Roots;
use muster_proto::session::v1::Lane;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What devices tell and the log has not taken yet.
const TOLD_MAX: usize = 1_024;

/// A handful of devices, until it is dropped.
#[derive(Debug)]
pub(super) struct Devices {
    log: Arc<Mutex<Log>>,
    cancelled: CancellationToken,
    _tasks: JoinSet<()>,
}

/// What the devices did and were told, by their own word.
#[derive(Debug, Default, Clone)]
pub(super) struct Log {
    /// What was acked.
    pub(super) promises: Vec<Promise>,
    /// How often each instruction started, by instruction and device.
    pub(super) starts: BTreeMap<(String, String), u32>,
    /// Orders that came again.
    pub(super) repeats: u64,
    /// Sessions that stood.
    pub(super) sessions: u64,
    /// Why sessions ended.
    pub(super) losses: BTreeMap<String, u64>,
}

impl Devices {
    /// Starts devices of these names.
    pub(super) fn start(runtime: &Runtime, home: &Path, port: u16, names: &[String]) -> Self {
        let orders = home.join("trust/orders.pem");
        let orders =
            Roots::from_pem(&std::fs::read(&orders).expect("roots"), "trust/orders.pem").expect("roots");
        let shared = Arc::new(Shared::new(format!("127.0.0.1:{port}"), orders));
        let roots = tls::server_roots(home).expect("server roots");
        let (teller, told) = mpsc::channel(TOLD_MAX);
        let log = Arc::new(Mutex::new(Log::default()));
        let cancelled = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn_on(listen(told, Arc::clone(&log)), runtime.handle());
        for identity in tls::issue_devices(home, names).expect("certificates") {
            let config = tls::client(&roots, &identity, &[]).expect("a TLS client");
            let (shared, teller) = (Arc::clone(&shared), teller.clone());
            let device =
                simulated::run(shared, identity.name, config, AfterLoss::Return, teller, cancelled.clone());
            tasks.spawn_on(device, runtime.handle());
        }
        Self { log, cancelled, _tasks: tasks }
    }

    /// The log so far.
    pub(super) fn log(&self) -> Log {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}

async fn listen(mut told: mpsc::Receiver<Told>, log: Arc<Mutex<Log>>) {
    while let Some(told) = told.recv().await {
        log.lock().unwrap_or_else(PoisonError::into_inner).take(told);
    }
}

impl Log {
    fn take(&mut self, told: Told) {
        match told {
            Told::Connected { .. } => self.sessions += 1,
            Told::Ordered { device, instruction, seen: Seen::First, .. } => {
                *self.starts.entry((instruction.to_string(), device)).or_default() += 1;
            }
            Told::Ordered { seen: Seen::Repeat, .. } => self.repeats += 1,
            Told::Acked { device, outbox_id, lane: Lane::Results, sequence, .. } => {
                self.promises.push(Promise::ResultAcked { device, outbox_id, sequence });
            }
            Told::Acked { device, outbox_id, sequence, .. } => {
                self.promises.push(Promise::EventAcked { device, outbox_id, sequence });
            }
            Told::Failed { problem, .. } => *self.losses.entry(problem).or_default() += 1,
        }
    }
}
