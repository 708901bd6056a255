//! Between the record of a start and the run: a disk that is full may put hours there.

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::stopping::{results, shell};
use super::*;
use crate::config::OutboxConfig;
use crate::instructions::shell::{Inbound, Outbound, Shell};
use crate::store::Store;

#[test]
fn nothing_runs_before_its_start_is_told_to_be_on_disk() {
    let mut test = Test::new();
    test.admitted(1);

    let (told, starts) = test.effects_until_recorded();

    assert_eq!(told, ["recall 1", "intent 1", "acked 1", "start 1"]);
    assert_eq!(starts, [id(1)]);
    test.machine.handle_start_recorded(id(1), test.now);
    test.machine.handle_start_recorded(id(1), test.now);
    assert_eq!(test.effects(), ["running 1", "run 1"], "once");
}

#[test]
fn g8_a_window_that_ended_while_the_start_was_written_ends_as_expired_and_frees_its_slot() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects_until_recorded();

    test.now.wall_ms += 60_000;
    test.machine.handle_start_recorded(id(1), test.now);

    assert_eq!(test.effects(), ["result 1 Expired", "result 3 Expired"]);
    assert_eq!(test.machine.counts(), (0, 1));
}

#[test]
fn g8_what_does_not_verify_any_more_once_its_start_is_written_is_refused_however_lately_it_did() {
    for millis in [0, 1_000, 2_000] {
        let mut test = Test::new();
        test.admitted(1);
        test.effects_until_recorded();

        test.now.instant += Duration::from_millis(millis);
        test.machine.admission.is_revoked = true;
        test.machine.handle_start_recorded(id(1), test.now);

        assert_eq!(test.effects(), ["result 1 Refused"], "{millis} ms after it was verified");
    }
}

#[test]
fn a_stop_that_came_while_the_start_was_written_comes_first() {
    let mut test = Test::new();
    test.admitted(1);
    test.effects_until_recorded();

    test.order("9 stop 1");
    test.machine.handle_start_recorded(id(1), test.now);

    assert_eq!(test.effects_with_detail(), ["stop 1 Cancelled", "result 1 Cancelled: stopped by ann"]);
    assert_eq!(test.machine.counts(), (0, 0));
}

#[test]
fn a_run_waits_for_no_other_write() {
    let mut test = Test::new();
    test.admitted(1);
    test.effects_until_recorded();

    test.order("2 d");
    test.order("9 stop 7");
    test.machine.handle_start_recorded(id(1), test.now);

    assert_eq!(test.effects(), ["running 1", "run 1", "recall 2", "stop 7 Cancelled"]);
}

#[test]
fn a_start_of_a_store_that_turned_out_to_be_a_copy_is_ended_and_not_run() {
    let mut test = Test::new();
    test.admitted(1);
    test.effects_until_recorded();

    test.machine.handle_judged(Standing::Copy, NOW_MS, 0, test.now);
    test.machine.handle_start_recorded(id(1), test.now);

    assert_eq!(test.effects(), ["result 1 Interrupted"]);
}

#[tokio::test]
async fn a_stop_that_waits_behind_a_store_that_blocks_is_read_before_anything_runs() {
    let lab = Lab::start(60_000).await;

    lab.send(b"9 stop 1").await;
    let (states, told) = lab.go_on().await;

    assert_eq!(states, [TargetState::Cancelled]);
    assert!(!told.contains(&TargetState::Running), "{told:?}");
}

#[tokio::test]
async fn a_window_that_ends_while_the_store_blocks_is_answered_as_expired() {
    let lab = Lab::start(300).await;

    tokio::time::sleep(Duration::from_millis(400)).await;
    let (states, told) = lab.go_on().await;

    assert_eq!(states, [TargetState::Expired]);
    assert!(!told.contains(&TargetState::Running), "{told:?}");
}

#[tokio::test]
async fn what_still_holds_when_the_store_goes_on_runs() {
    let lab = Lab::start(60_000).await;

    let (states, told) = lab.go_on().await;

    // There is no helper here.
    assert_eq!(states, [TargetState::Failed]);
    assert!(told.contains(&TargetState::Running), "{told:?}");
}

#[tokio::test]
async fn what_has_its_start_on_disk_waits_for_the_stops_that_a_welcome_has_announced_meanwhile() {
    let lab = Lab::start(60_000).await;

    lab.judged(1).await;
    let mut lab = lab.unblocked().await;
    assert_eq!(lab.results().await, Vec::<TargetState>::new(), "nothing has run");
    assert!(lab.outbound.try_recv().is_err(), "nothing runs");
    lab.send(b"9 stop 1").await;
    let (states, told) = lab.go_on().await;

    assert_eq!(states, [TargetState::Cancelled]);
    assert!(!told.contains(&TargetState::Running), "{told:?}");
}

#[tokio::test]
async fn what_has_its_start_on_disk_runs_once_the_announced_stops_of_others_have_come() {
    let lab = Lab::start(60_000).await;

    lab.judged(1).await;
    let lab = lab.unblocked().await;
    lab.send(b"9 stop 7").await;
    let (states, told) = lab.go_on().await;

    // There is no helper here.
    assert_eq!(states, [TargetState::Cancelled, TargetState::Failed]);
    assert!(told.contains(&TargetState::Running), "{told:?}");
}

/// A shell whose store blocks while it writes the start of instruction 1.
struct Lab {
    _folder: TempDir,
    store: Store,
    inbox: mpsc::Sender<Inbound>,
    outbound: mpsc::Receiver<Outbound>,
    blocker: std::sync::mpsc::SyncSender<()>,
    running: tokio::task::JoinSet<Result<(), crate::store::StoreError>>,
    stop: CancellationToken,
}

impl Lab {
    /// The instruction was taken on before a restart, and its window ends after so long.
    async fn start(window_ms: i64) -> Self {
        let folder = TempDir::new().unwrap();
        let now = crate::clock::now();
        let store = Store::open(folder.path(), &OutboxConfig::default(), now.wall_ms).unwrap();
        let entry = Entry {
            instruction: id(1),
            order_digest: digest("1 d"),
            definition: digest("d"),
            expires_at_ms: now.wall_ms + window_ms,
            envelope: b"1 d".to_vec(),
            proof: None,
        };
        let taken_on = entry.clone();
        store.write(move |tables| tables.record_intent(&taken_on)).await.unwrap();
        let limits = Limits { parallel: 2, queued: 3, document: Duration::from_secs(30) };
        let (licence, memory) = (Some(held_licence()), Memory::default());
        let mut machine = Instructions::new(Spoken::default(), limits, licence, 3, memory, now.instant);
        machine.handle_recovered(entry, Some(b"d".to_vec()));
        let (inbox, from_session) = mpsc::channel(8);
        let (session, outbound) = mpsc::channel(8);
        let (shell, stop) = shell(&folder, store.clone(), machine);
        let shell = Shell { inbox: from_session, session, ..shell };
        let mut running = tokio::task::JoinSet::new();
        running.spawn(shell.run());
        let mut lab = Self {
            _folder: folder,
            store,
            inbox,
            outbound,
            blocker: std::sync::mpsc::sync_channel(1).0,
            running,
            stop,
        };
        // Behind what the shell writes as soon as it begins.
        while lab.store.write(|tables| tables.time_floor_ms(NOW_MS)).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        lab.block().await;
        lab.judged(0).await;
        // The shell has taken it, and waits for the store.
        while lab.inbox.capacity() < lab.inbox.max_capacity() {
            tokio::task::yield_now().await;
        }
        lab
    }

    async fn block(&mut self) {
        let (blocker, goes_on) = std::sync::mpsc::sync_channel(1);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let store = self.store.clone();
        self.running.spawn(async move {
            let wait = move |_: &mut crate::store::Tables| {
                begun.send(()).unwrap();
                // Ends with its sender.
                let _gone: Result<(), std::sync::mpsc::RecvError> = goes_on.recv();
                Ok(())
            };
            store.write(wait).await
        });
        has_begun.await.unwrap();
        self.blocker = blocker;
    }

    /// A Welcome is judged that announces so many stops.
    async fn judged(&self, stops_due: u32) {
        let (standing, switch_ms) = (Standing::Own, crate::clock::now().wall_ms);
        let judged = Inbound::Judged { standing, restored_at_ms: 0, switch_ms, stops_due };
        self.inbox.send(judged).await.unwrap();
    }

    /// Lets the store go on until the start of the instruction is on disk and the inbox was read.
    async fn unblocked(mut self) -> Self {
        self.blocker = std::sync::mpsc::sync_channel(1).0;
        let state = |tables: &mut crate::store::Tables| Ok(tables.recall(id(1))?.map(|known| known.state));
        while self.store.write(state).await.unwrap() != Some(JournalState::Started)
            || self.inbox.capacity() < self.inbox.max_capacity()
        {
            tokio::task::yield_now().await;
        }
        self
    }

    /// What has become of instructions.
    async fn results(&self) -> Vec<TargetState> {
        results(&self.store).await
    }

    async fn send(&self, envelope: &'static [u8]) {
        self.inbox.send(Inbound::Order { envelope: envelope.into(), proof: None }).await.unwrap();
    }

    /// Lets the store go on, and returns the results and the progress of the instruction.
    async fn go_on(mut self) -> (Vec<TargetState>, Vec<TargetState>) {
        self.blocker = std::sync::mpsc::sync_channel(1).0;
        let is_of_it = |tables: &mut crate::store::Tables| {
            Ok(tables.recall(id(1))?.is_some_and(|known| known.state == JournalState::Done))
        };
        while !self.store.write(is_of_it).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let results = self.results().await;
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap().unwrap();
        }
        let mut told = Vec::new();
        while let Ok(outbound) = self.outbound.try_recv() {
            if let Outbound::Progress(_, state) = outbound {
                told.push(state);
            }
        }
        (results, told)
    }
}
