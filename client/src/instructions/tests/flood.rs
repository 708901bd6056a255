//! What the shell does whatever comes: while garbage keeps the inbox full, and while the disk is full.

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::stopping::{open, results, shell};
use super::*;
use crate::instructions::Due;
use crate::instructions::floor::TimeFloor;
use crate::instructions::restored::STOPS_WAIT;
use crate::instructions::shell::{Inbound, Outbound, Shell};
use crate::instructions::work::Done;
use crate::store::{Store, StoreError};

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
    lab.fill().await;
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

#[tokio::test]
async fn however_much_is_repeated_while_a_write_waits_for_room_a_stop_ends_what_runs_and_the_inbox_is_read() {
    let mut lab = Lab::start(|_| {});
    lab.fill().await;
    // As a Switch sends every stop until it is answered, of what does not run here as well, and orders beside it.
    for round in 0..200 {
        lab.send(b"8 stop 7").await;
        lab.send(format!("{round} stop 6").as_bytes()).await;
        lab.send(format!("3 d {round}").as_bytes()).await;
    }
    assert!(!lab.ended.is_cancelled());

    lab.send(b"9 stop 1").await;
    tokio::time::timeout(PATIENCE, lab.ended.cancelled()).await.expect("it is not ended");

    lab.hear(Inbound::Disconnected).await;
    for _ in 0..200 {
        lab.judged(1).await;
        lab.send(b"9 stop 1").await;
        lab.hear(Inbound::Disconnected).await;
    }
    lab.judged(0).await;
    lab.store.write(|tables| tables.empty()).await.unwrap();
    lab.until("the answers", async |lab| Some(lab.results().await).filter(|it| it.len() >= 3)).await;
    let told: Vec<Outbound> = std::iter::from_fn(|| lab.outbound.try_recv().ok()).collect();
    let asks_again = told.iter().any(|outbound| matches!(outbound, Outbound::Again));
    assert!(!asks_again, "the sessions that came since bring again what had no room: {told:?}");
    lab.end().await;
}

#[tokio::test]
async fn another_session_brings_again_what_there_was_no_room_for_while_a_write_waited() {
    let mut lab = Lab::start(|_| {});
    lab.fill().await;
    for round in 0..200 {
        lab.send(format!("3 d {round}").as_bytes()).await;
    }

    lab.store.write(|tables| tables.empty()).await.unwrap();

    let asked = async { while !matches!(lab.outbound.recv().await, Some(Outbound::Again)) {} };
    tokio::time::timeout(PATIENCE, asked).await.expect("no other session is asked for");
    lab.end().await;
}

#[tokio::test]
async fn an_announced_stop_that_was_heard_while_a_write_waited_counts_and_nothing_waits_for_it_any_more() {
    let lab = Lab::start(|_| {});
    lab.fill().await;
    lab.hear(Inbound::Disconnected).await;
    lab.judged(1).await;
    lab.send(b"9 stop 1").await;
    tokio::time::timeout(PATIENCE, lab.ended.cancelled()).await.expect("it is not ended");

    let begun = tokio::time::Instant::now();
    lab.store.write(|tables| tables.empty()).await.unwrap();
    lab.send(b"3 d").await;

    // There is no helper here.
    let has_run = async |lab: &Lab| lab.results().await.contains(&TargetState::Failed).then_some(());
    lab.until("the next one to run", has_run).await;
    assert!(begun.elapsed() < STOPS_WAIT, "{:?}", begun.elapsed());
    lab.end().await;
}

#[tokio::test]
async fn in_a_session_that_could_not_be_judged_a_stop_ends_what_runs_and_nothing_else_comes_of_an_order() {
    let lab = Lab::start(|_| {});
    lab.store.write(|tables| tables.keep_definition(digest("d"), b"d", NOW_MS)).await.unwrap();
    lab.hear(Inbound::Unjudged).await;
    for other in ["3 d", "8 stop 7", "8 stop 1 forged", "8 stop 1 late"] {
        lab.hear(Inbound::Urgent(other.into())).await;
    }
    assert!(!lab.ended.is_cancelled());

    lab.hear(Inbound::Urgent("9 stop 1".into())).await;

    tokio::time::timeout(PATIENCE, lab.ended.cancelled()).await.expect("it is not ended");
    let states =
        lab.until("the answer", async |lab| Some(lab.results().await).filter(|it| !it.is_empty())).await;
    assert_eq!(states[0], TargetState::Cancelled);
    lab.hear(Inbound::Disconnected).await;
    lab.judged(0).await;
    lab.send(b"4 d").await;
    let has_run =
        async |lab: &Lab| Some(lab.results().await).filter(|states| states.contains(&TargetState::Failed));
    let states = lab.until("the order of a session", has_run).await;
    // The journal does not know the first one, so that its stop and its end are both told.
    let wanted = [TargetState::Cancelled, TargetState::Cancelled, TargetState::Failed];
    assert_eq!(states, wanted, "of 1 twice and of 4");
    lab.end().await;
}

/// A shell in which instruction 1 runs until it is ended.
struct Lab {
    _folder: TempDir,
    store: Store,
    inbox: mpsc::Sender<Inbound>,
    outbound: mpsc::Receiver<Outbound>,
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
        let (session, outbound) = mpsc::channel(8);
        let mut shell = Shell { inbox: from_session, session, due: Due::every(every, every), ..shell };
        let (told, stopped) = (ended.clone(), CancellationToken::new());
        shell.work.run(id(1), stopped.clone(), async move {
            stopped.cancelled().await;
            told.cancel();
            Done::Ended(id(1))
        });
        let mut running = JoinSet::new();
        running.spawn(shell.run());
        Self { _folder: folder, store, inbox, outbound, running, ended, refreshed, stop }
    }

    /// Fills the disk, and has the shell wait for room there.
    async fn fill(&self) {
        self.store.write(|tables| tables.keep_definition(digest("d"), b"d", NOW_MS)).await.unwrap();
        self.store.write(|tables| tables.fill()).await.unwrap();
        // An order of more than a page does not fit.
        self.send(format!("2 d {}", "x".repeat(10_000)).as_bytes()).await;
    }

    async fn hear(&self, inbound: Inbound) {
        self.inbox.send_timeout(inbound, PATIENCE).await.expect("the inbox is not read");
    }

    /// A Welcome is judged that announces so many stops.
    async fn judged(&self, stops_due: u32) {
        let (standing, switch_ms) = (Standing::Own, crate::clock::now().wall_ms);
        self.hear(Inbound::Judged { standing, restored_at_ms: 0, switch_ms, stops_due }).await;
    }

    async fn send(&self, envelope: &[u8]) {
        self.hear(Inbound::Order { envelope: envelope.to_vec().into(), proof: None }).await;
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
        results(&self.store).await
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}
