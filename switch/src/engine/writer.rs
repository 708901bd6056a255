//! The writer thread: batches in, one commit for each, then what the batch promised.
//!
//! A batch is what queued during the previous fsync; nobody waits for it to fill. Replies, acks and orders leave after
//! the commit. The thread's own runtime has a timer and no descriptors. What a batch goes through is [`Works`].

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::core::Command;
use super::reader::Reader;
use super::shared::Shared;
use super::works::Works;
use super::{EngineConfig, EngineEnd, OpenError, ShardMessage};

/// Whether the writer lives, and why it doesn't.
#[derive(Debug)]
pub(crate) struct Life {
    close: CancellationToken,
    ended: watch::Receiver<Option<EngineEnd>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Everything the thread owns.
#[derive(Debug)]
struct Writer {
    works: Works,
    queue: mpsc::Receiver<Command>,
    close: CancellationToken,
    batch_items_max: usize,
}

/// How soon a full mailbox is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// What [`start`] gives: what every thread may look at, the way to read, and the thread's life.
pub(super) type Started = (Arc<Shared>, Reader, Arc<Life>);

/// Opens and loads the store, and starts the thread.
pub(super) fn start(
    config: EngineConfig,
    shards: Vec<mpsc::Sender<ShardMessage>>,
    queue: mpsc::Receiver<Command>,
) -> Result<Started, OpenError> {
    let batch_items_max = config.batch_items_max.max(1);
    let (works, reader) = Works::open(config, shards)?;
    let shared = Arc::clone(works.shared());
    let close = CancellationToken::new();
    let mut writer = Writer { works, queue, close: close.clone(), batch_items_max };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (ending, ended) = watch::channel(None);
    let body = move || {
        let end = runtime.block_on(writer.run());
        ending.send_replace(Some(end));
    };
    let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(body)?;
    Ok((shared, reader, Arc::new(Life { close, ended, thread: Mutex::new(Some(thread)) })))
}

impl Life {
    /// Returns why the writer ended, when it does.
    pub(super) async fn failed(&self) -> EngineEnd {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(EngineEnd::Panicked)
    }

    /// Lets the writer commit what is queued, waits for its end and returns why it ended.
    pub(super) fn close(&self) -> EngineEnd {
        self.close.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer's thread panicked");
        }
        self.ended.borrow().clone().unwrap_or(EngineEnd::Panicked)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.close.cancel();
    }
}

impl Writer {
    /// Runs until it is closed or a commit fails; returns why.
    async fn run(&mut self) -> EngineEnd {
        let mut batch = Vec::with_capacity(self.batch_items_max);
        let mut delivered = true;
        loop {
            let sleep = if delivered { self.works.until_next() } else { RETRY };
            let closing = tokio::select! {
                biased;
                () = self.close.cancelled() => true,
                received = self.queue.recv_many(&mut batch, self.batch_items_max) => received == 0,
                () = tokio::time::sleep(sleep) => false,
            };
            if closing {
                self.queue.close();
                self.queue.recv_many(&mut batch, usize::MAX).await;
                self.works.handle_closing();
            }
            match self.works.commit(&mut batch) {
                Ok(all) => delivered = all,
                Err(error) => {
                    tracing::error!(%error, "the store cannot be written; ending");
                    return EngineEnd::from(&error);
                }
            }
            if closing {
                return EngineEnd::Closed;
            }
        }
    }
}
