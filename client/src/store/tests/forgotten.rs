//! When the journal forgets.

use super::damaged::damage;
use super::*;

#[tokio::test]
async fn ended_instructions_are_forgotten_after_their_time_and_open_ones_never() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store
        .write(|tables| {
            tables.record_intent(&entry(1))?;
            tables.record_intent(&entry(2))?;
            tables.record_result(result(1), NOW)
        })
        .await
        .unwrap();

    store.write(|tables| tables.forget(entry(1).expires_at_ms + 1)).await.unwrap();

    assert_eq!((recall(&store, 1).await, recall(&store, 2).await), (None, Some(JournalState::Intent)));
}

#[tokio::test]
async fn a_clock_that_stepped_forward_forgets_no_instruction_before_the_time_floor_passed_it() {
    const REMEMBER_MS: i64 = 600_000;
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let end_ms = entry(1).expires_at_ms;
    store
        .write(|tables| {
            tables.record_intent(&entry(1))?;
            tables.record_result(result(1), NOW)?;
            tables.raise_time_floor(NOW)
        })
        .await
        .unwrap();
    let forget = async |floor_ms: i64, now_ms: i64| {
        let forgotten = store.write(move |tables| {
            tables.raise_time_floor(floor_ms)?;
            tables.forget_ended(REMEMBER_MS, now_ms)
        });
        forgotten.await.unwrap()
    };

    assert_eq!(forget(NOW, end_ms + REMEMBER_MS + 1).await, 0);
    assert_eq!(forget(end_ms + REMEMBER_MS, i64::MAX).await, 0);
    assert_eq!(forget(end_ms + REMEMBER_MS + 1, end_ms).await, 0);

    assert_eq!(forget(end_ms + REMEMBER_MS + 1, i64::MAX).await, 1);
}

#[tokio::test]
async fn a_damaged_instruction_is_remembered_until_the_longest_window_has_ended_by_the_latest_time_known() {
    const DAY_MS: i64 = 86_400_000;
    let window_ms = i64::try_from(muster_signing::order::WINDOW_MAX.as_millis()).unwrap();
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let entry = Entry { expires_at_ms: NOW + DAY_MS + window_ms, ..entry(1) };
    store
        .write(move |tables| {
            tables.record_intent(&entry)?;
            tables.record_result(result(1), NOW)?;
            tables.raise_time_floor(NOW + DAY_MS)
        })
        .await
        .unwrap();
    // The clock was set back meanwhile.
    let store = damage(store, &folder, "UPDATE journal SET expires_at_ms = 1").await;
    let forget = async |floor_ms: i64| {
        let forgotten = store.write(move |tables| {
            tables.raise_time_floor(floor_ms)?;
            tables.forget_ended(0, i64::MAX)
        });
        forgotten.await.unwrap()
    };

    assert_eq!(forget(NOW + DAY_MS + window_ms).await, 0);
    assert_eq!(recall(&store, 1).await, Some(JournalState::Done));

    assert_eq!(forget(NOW + DAY_MS + window_ms + 1).await, 1);
}
