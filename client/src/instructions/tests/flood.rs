//! What the shell does whatever comes: while garbage keeps the inbox full, and while the disk is full.

use muster_proto::session::v1::Result as InstructionResult;
use prost::Message as _;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::stopping::{open, shell};
use super::*;
use crate::instructions::Due;
use crate::instructions::floor::TimeFloor;
use crate::instructions::shell::{Inbound, Shell};
use crate::instructions::work::Done;
use crate::store::{QueueLane, Store, StoreError};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn garbage_that_keeps_the_inbox_full_delays_no_deadline_no_roots_and_no_time_floor() {
    let mut lab = Lab::start(|machine| machine.limits.document = Duration::from_millis(300));
    // Its definition does not come.
    lab.send(b"2 e").await;
    let inbox = lab.inbox.clone();
    lab.running.spawn(async move {
        let garbage = || Inbound::Order { envelope: b"garbage".as_slice().into(), proof: None };
        while inbox.send(garbage()).await.is_ok() {}
        Ok(())
    });
    let floor = lab.until("the first upkeep", async |lab| Some(lab.floor().await).filter(|ms| *ms > 0)).await;
    let refreshed = lab.refreshed.load(Ordering::Relaxed);

    lab.until("a later time floor", async |lab| (lab.floor().await > floor).then_some(())).await;
    lab.until("the roots", async |lab| (lab.refreshed.load(Ordering::Relaxed) > refreshed + 1).then_some(()))
        .await;
    let states =
        lab.until("the deadline", async |lab| Some(lab.results().await).filter(|it| !it.is_empty())).await;

    assert_eq!(states, [TargetState::Refused]);
    lab.end().await;
}

#[tokio::test]
async fn a_stop_ends_what_runs_while_another_write_waits_for_room_on_the_disk() {
    let lab = Lab::start(|_| {});
    lab.store.write(|tables| tables.keep_definition(digest("d"), b"d", NOW_MS)).await.unwrap();
    lab.store.write(|tables| tables.fill()).await.unwrap();
    // An order of more than a page does not fit.
    let large = format!("2 d {}", "x".repeat(10_000));
    lab.send(large.as_bytes()).await;
    // A full inbox, and then the stop.
    for _ in 0..9 {
        lab.send(b"garbage").await;
    }
    assert!(!lab.ended.is_cancelled());

    lab.send(b"9 stop 1").await;
    tokio::time::timeout(PATIENCE, lab.ended.cancelled()).await.expect("it is not ended");

    assert!(lab.results().await.is_empty(), "there is no room for an answer");
    let refreshed = lab.refreshed.load(Ordering::Relaxed);
    lab.until("the roots", async |lab| (lab.refreshed.load(Ordering::Relaxed) > refreshed + 1).then_some(()))
        .await;
    lab.store.write(|tables| tables.empty()).await.unwrap();
    let states =
        lab.until("the answer", async |lab| Some(lab.results().await).filter(|it| !it.is_empty())).await;
    assert_eq!(states[0], TargetState::Cancelled);
    lab.end().await;
}

/// A shell in which instruction 1 runs until it is ended.
struct Lab {
    _folder: TempDir,
    store: Store,
    inbox: mpsc::Sender<Inbound>,
    running: JoinSet<Result<(), StoreError>>,
    /// The run of instruction 1 was ended.
    ended: CancellationToken,
    /// How often roots were read.
    refreshed: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Lab {
    fn start(change: impl FnOnce(&mut Instructions<Spoken>)) -> Self {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        let mut test = Test::new();
        test.now = crate::clock::now();
        test.machine.memory = Memory::default();
        test.machine.floor = TimeFloor::new(0, test.now.instant);
        test.admitted(1);
        assert!(test.effects().contains(&"run 1".to_owned()));
        change(&mut test.machine);
        let refreshed = Arc::clone(&test.machine.admission.refreshed);
        let (inbox, from_session) = mpsc::channel(4);
        let (shell, stop) = shell(&folder, store.clone(), test.machine);
        let (every, ended) = (Duration::from_millis(100), CancellationToken::new());
        let mut shell = Shell { inbox: from_session, due: Due::every(every, every), ..shell };
        let (told, stopped) = (ended.clone(), CancellationToken::new());
        shell.work.run(id(1), stopped.clone(), async move {
            stopped.cancelled().await;
            told.cancel();
            Done::Ended(id(1))
        });
        let mut running = JoinSet::new();
        running.spawn(shell.run());
        Self { _folder: folder, store, inbox, running, ended, refreshed, stop }
    }

    async fn send(&self, envelope: &[u8]) {
        let order = Inbound::Order { envelope: envelope.to_vec().into(), proof: None };
        self.inbox.send_timeout(order, PATIENCE).await.unwrap();
    }

    async fn until<T>(&self, what: &str, look: impl AsyncFn(&Self) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = look(self).await {
                    return found;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    async fn floor(&self) -> i64 {
        self.store.write(|tables| tables.time_floor_ms(NOW_MS)).await.unwrap()
    }

    /// What became of instructions, and of orders that name one.
    async fn results(&self) -> Vec<TargetState> {
        let read =
            |tables: &mut crate::store::Tables| tables.queued(QueueLane::Results, 0, usize::MAX, NOW_MS);
        let queued = self.store.write(read).await.unwrap();
        let state = |record: &[u8]| InstructionResult::decode(record).unwrap().state();
        queued.iter().map(|queued| state(&queued.record[..])).collect()
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}
