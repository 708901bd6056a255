//! Records of the outbox whose checksum holds and that cannot be read.

use muster_client::Config;
use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_proto::seen::{GAP_EVENT, gap_ranges};
use muster_proto::session::v1::SequenceRange;
use rusqlite::{Connection, params};

use crate::lab::{Lab, PATIENCE, instruction};
use crate::policies::at;
use crate::switch::FakeSwitch;

const RESULTS: i64 = 1;
const EVENTS: i64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_of_records_that_cannot_be_read_and_what_is_behind_them_goes_out() {
    let lab = Lab::new(1, 1);
    let mut config = lab.config();
    // The other road sets aside what it finds as well.
    config.events.background_after = 2 * PATIENCE;
    let client = lab.start_with(config.clone()).await;
    let mut posted = Vec::new();
    for name in ["to.be.a.result", "to.be.garbage", "later"] {
        posted.push(client.running.post_event(name, Vec::new()).await.unwrap());
    }
    client.stop().await;
    spoil(&config, posted[0], RESULTS, Some(instruction(9)));
    spoil(&config, posted[1], EVENTS, None);

    let switch = FakeSwitch::listen().await;
    config.switch = at(&switch);
    let client = lab.start_with(config).await;
    let mut session = switch.accept(&lab).await;
    let (mut gaps, mut names) = (Vec::new(), Vec::new());
    let told = async {
        while gaps.len() < 2 {
            let Some(event) = session.event_or_other().await else { continue };
            gaps.extend(gap_ranges(&event));
            names.push(event.name);
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("nobody told of the numbers that never come");
    drop(session);
    let mut session = switch.accept(&lab).await;
    let (result, _) = session.result().await;

    gaps.sort_unstable_by_key(|range| range.first);
    assert_eq!(gaps, [one(posted[0]), one(posted[1])]);
    assert!(names.iter().any(|name| name == "later"), "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == GAP_EVENT).count(), 2, "{names:?}");
    assert_eq!(result.instruction, instruction(9).as_bytes());
    assert_eq!(result.state(), TargetState::Interrupted);
    client.stop().await;
}

fn one(sequence: u64) -> SequenceRange {
    SequenceRange { first: sequence, last: sequence }
}

/// Makes a record one of that lane that nobody can read, with a checksum that holds.
fn spoil(config: &Config, sequence: u64, lane: i64, of: Option<InstructionId>) {
    let database = Connection::open(config.data_dir.join("client.db")).unwrap();
    let sequence = i64::try_from(sequence).unwrap();
    let select = "SELECT at_ms FROM outbox WHERE sequence = ?1";
    let at_ms: i64 = database.query_row(select, [sequence], |row| row.get(0)).unwrap();
    let instruction = of.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
    let (record, mut crc) = (vec![0xff], crc32c::crc32c(b"outbox"));
    let fields: [&[u8]; 5] =
        [&sequence.to_be_bytes(), &lane.to_be_bytes(), &instruction, &at_ms.to_be_bytes(), &record];
    for field in fields {
        crc = crc32c::crc32c_append(crc, &(field.len() as u64).to_be_bytes());
        crc = crc32c::crc32c_append(crc, field);
    }
    let update = "UPDATE outbox SET lane = ?2, instruction = ?3, record = ?4, crc = ?5 WHERE sequence = ?1";
    database.execute(update, params![sequence, lane, instruction, record, i64::from(crc)]).unwrap();
}
