//! Sessions of a client whose disk is full: a real one of two megabytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::common::v1::TargetState;
use muster_proto::session::v1::Lane;

use crate::lab::{Lab, PATIENCE, instruction};
use crate::rights::lacks;
use crate::switch::FakeSwitch;

const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS answer FROM n";

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_that_a_full_disk_has_no_room_for_ends_no_session_and_counts_when_there_is() {
    let (switch, lab) = lab().await;
    let Some(disk) = Small::mount(&lab.config().data_dir) else { return };
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    let started = session.event().await;

    disk.fill();
    session.ack(Lane::Events, started.sequence).await;

    let stands = tokio::time::timeout(Duration::from_secs(1), session.answer()).await;
    assert!(stands.is_err(), "it never ends");
    client.wait_for(|status| status.connected && status.outbox.events == 1).await;
    disk.free();
    session.order(&lab.order(1)).await;
    let (result, _) = session.result().await;
    assert_eq!(result.state(), TargetState::Answered, "{}", result.detail);
    session.ack(Lane::Results, result.sequence).await;
    client.wait_for(|status| status.outbox.events == 0 && status.outbox.results == 0).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_what_runs_where_a_full_disk_has_no_room_for_the_welcome_and_nothing_else_comes_of_that_session()
 {
    let (switch, mut lab) = lab().await;
    lab.definition = lab.definition_of(ENDLESS, "10m");
    let Some(disk) = Small::mount(&lab.config().data_dir) else { return };
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(1)).await;
    for wanted in ["Acked", "Running"] {
        assert_eq!(session.progress().await, wanted);
    }
    wait_until("the helper", || helpers() > 0).await;
    disk.fill();
    drop(session);

    let mut session = switch.accept(&lab).await;
    session.order(&lab.order(2)).await;
    session.order(&lab.stop(9, 1)).await;

    wait_until("the helper to be gone", || helpers() == 0).await;
    disk.free();
    session.end().await;
    let mut session = switch.accept_living(&lab).await;
    let (result, progress) = session.result().await;
    assert_eq!(
        (result.instruction.clone(), result.state(), result.started_at_ms > 0),
        (instruction(1).to_vec(), TargetState::Cancelled, true),
        "{}",
        result.detail
    );
    assert_eq!(progress, Vec::<String>::new());
    session.order(&lab.order(3)).await;
    session.order(&lab.stop(8, 3)).await;
    let (result, _) = session.result().await;
    assert_eq!(result.instruction, instruction(3).to_vec(), "the second was never taken on");
    client.stop().await;
}

/// How many processes this one has started that have not ended.
fn helpers() -> usize {
    let parent = std::process::id().to_string();
    let lives = |path: PathBuf| {
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, of) = (fields.next(), fields.next());
        state != Some("Z") && of == Some(&parent)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| lives(entry.path())).count()
}

async fn wait_until(what: &str, is: impl Fn() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// A tmpfs, unmounted with the test.
struct Small(PathBuf);

impl Small {
    /// Mounts it on a folder, which is made; `None`: the test is skipped.
    fn mount(folder: &Path) -> Option<Self> {
        if lacks("mount", !nix::unistd::Uid::effective().is_root(), "run it as root, who may mount a tmpfs") {
            return None;
        }
        std::fs::create_dir_all(folder).unwrap();
        let none: Option<&str> = None;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(none, folder, Some("tmpfs"), flags, Some("size=2m,mode=700")).unwrap();
        Some(Self(folder.to_owned()))
    }

    /// Takes all that is left.
    fn fill(&self) {
        // Writes what fits, and fails then.
        drop(std::fs::write(self.filler(), vec![1; 4 << 20]));
    }

    /// Gives it back.
    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _gone: nix::Result<()> = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

async fn lab() -> (FakeSwitch, Lab) {
    let switch = FakeSwitch::listen().await;
    // Nobody listens on port 1: the Background Channel is away.
    let lab = Lab::new(switch.port(), 1);
    (switch, lab)
}
