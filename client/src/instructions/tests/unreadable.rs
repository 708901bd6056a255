//! What comes as an order and does not even claim to be of an instruction.

use tempfile::TempDir;

use super::stopping::{open, shell};
use super::*;

#[tokio::test]
async fn garbage_is_told_once_each_and_no_further_than_a_bound() {
    let folder = TempDir::new().unwrap();
    let mut test = Test::new();
    for number in 0..300 {
        for _ in 0..2 {
            test.order(&format!("garbage{number}"));
        }
    }
    let (shell, stop) = shell(&folder, open(&folder), test.machine);
    let store = shell.store.clone();
    stop.cancel();

    shell.run().await.unwrap();

    let counts = store.write(|tables| Ok(tables.outbox_counts())).await.unwrap();
    assert_eq!((counts.events, counts.results), (256, 0));
}
