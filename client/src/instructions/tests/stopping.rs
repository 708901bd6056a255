//! What a client says that has to stop while its disk is full.

use muster_endpoint::HelperCommand;
use muster_proto::session::v1::Result as InstructionResult;
use prost::Message as _;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{OutboxConfig, ResourcesConfig};
use crate::content::Content;
use crate::https::CertificateWatch;
use crate::instructions::shell::{Shell, Workload};
use crate::instructions::work::Work;
use crate::instructions::{Confinement, Delayed, Due, LicenceAlarm};
use crate::store::{QueueLane, Store, StoreError, Tables};

#[tokio::test]
async fn a_client_that_stops_on_a_full_disk_names_everything_that_it_could_not_write() {
    let folder = TempDir::new().unwrap();
    let mut test = Test::new();
    // An order of more than a page does not fit into what the file has left.
    test.order(&format!("1 d {}", "x".repeat(10_000)));
    test.recalled(1, None, Some("d"));
    test.order("2 forged");
    let (shell, stop) = shell(&folder, open(&folder), test.machine);
    shell.store.write(|tables| tables.fill()).await.unwrap();
    stop.cancel();

    let error = shell.run().await.unwrap_err();

    assert!(matches!(error, StoreError::Unwritten { .. }), "{error:?}");
    let text = error.to_string();
    for wanted in ["disk", "free some space", &id(1).to_string(), &id(2).to_string()] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[tokio::test]
async fn a_client_that_stops_on_a_full_disk_with_nothing_to_write_stops_in_order() {
    let folder = TempDir::new().unwrap();
    let (shell, stop) = shell(&folder, open(&folder), Test::new().machine);
    shell.store.write(|tables| tables.fill()).await.unwrap();
    stop.cancel();

    shell.run().await.unwrap();
}

pub(super) fn open(folder: &TempDir) -> Store {
    Store::open(folder.path(), &OutboxConfig::default(), NOW_MS).unwrap()
}

/// A shell that hears of no session, and what tells it to stop.
pub(super) fn shell(
    folder: &TempDir,
    store: Store,
    machine: Instructions<Spoken>,
) -> (Shell<Spoken>, CancellationToken) {
    let stop = CancellationToken::new();
    let (session, _) = mpsc::channel(8);
    let (_, inbox) = mpsc::channel(1);
    let shell = Shell {
        machine,
        store,
        content: Content::open(folder.path(), ResourcesConfig::default(), None).unwrap(),
        certificate: CertificateWatch::new(None.into()),
        helper: HelperCommand {
            program: "/nowhere/helper".into(),
            arguments: Vec::new(),
            closed: Vec::new(),
            locks: folder.path().to_owned(),
        },
        confinement: Confinement::default(),
        room: Room { bytes_max: 1 << 20, folder: folder.path().to_owned() },
        inbox,
        session,
        workload: watch::channel(Workload::default()).0,
        lists: watch::channel(0).1,
        remember: Duration::from_secs(3_600),
        work: Work::default(),
        alarm: LicenceAlarm::default(),
        recorded: VecDeque::new(),
        delayed: Delayed::default(),
        due: Due::default(),
        stop: stop.clone(),
    };
    (shell, stop)
}

/// What has become of instructions, and of orders that name one, as far as it waits for the Switch.
pub(super) async fn results(store: &Store) -> Vec<TargetState> {
    let read = |tables: &mut Tables| tables.queued(QueueLane::Results, 0, usize::MAX, NOW_MS);
    let queued = store.write(read).await.unwrap();
    let state = |record: &[u8]| InstructionResult::decode(record).unwrap().state();
    queued.iter().map(|queued| state(&queued.record[..])).collect()
}
