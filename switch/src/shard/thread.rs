//! The thread of a shard.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::thread::{Builder, JoinHandle};

use muster_service::descriptors;
use muster_service::quic::ResetKey;
use muster_service::shutdown::Shutdown;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::{Common, serve};
use crate::engine::ShardMessage;

/// What a shard is made of; everything in it was opened on the main thread.
#[derive(Debug)]
pub(crate) struct ShardParts {
    /// Its number, from 0.
    pub(crate) index: u16,
    /// Its runtime.
    pub(crate) runtime: Runtime,
    /// Its way in.
    pub(crate) way: Way,
    /// Its descriptors.
    pub(crate) descriptors: Descriptors,
    /// What the engine says.
    pub(crate) messages: mpsc::Receiver<ShardMessage>,
    /// What all shards share.
    pub(crate) common: Common,
}

/// The way into a shard.
#[derive(Debug)]
pub(crate) enum Way {
    /// WebSocket over TLS over TCP.
    Tcp(TcpListener),
    /// QUIC.
    Quic {
        /// Where its datagrams come.
        socket: UdpSocket,
        /// What its resets are made with.
        key: ResetKey,
    },
}

impl AsRawFd for Way {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(listener) => listener.as_raw_fd(),
            Self::Quic { socket, .. } => socket.as_raw_fd(),
        }
    }
}

/// The table that a shard's descriptors are in.
#[derive(Debug, Clone)]
pub(crate) enum Descriptors {
    /// The process'.
    Shared,
    /// Its own: a copy of the process' without `others`, listeners that would be open for as long as it is.
    Own {
        /// Their numbers.
        others: Vec<RawFd>,
    },
}

/// Starts a shard's thread. It ends when the Switch stops and its sessions are gone or `drain_timeout` is over.
///
/// # Errors
/// The system gave no thread, or no table of descriptors.
pub(crate) fn spawn(parts: ShardParts) -> io::Result<JoinHandle<io::Result<()>>> {
    let ShardParts { index, runtime, way, descriptors, messages, common } = parts;
    let alarm = Alarm { index, stop: common.stop.clone(), shutdown: common.shutdown.clone() };
    let number = way.as_raw_fd();
    let body = move || LocalSet::new().block_on(&runtime, serve(index, way, messages, common));
    spawn_with(alarm, number, descriptors, body)
}

/// Starts the thread with what it does; `number` is the listener that it alone uses.
fn spawn_with(
    alarm: Alarm,
    number: RawFd,
    descriptors: Descriptors,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let index = alarm.index;
    let is_own = matches!(descriptors, Descriptors::Own { .. });
    let (parted, has_parted) = oneshot::channel();
    let thread = Builder::new().name(format!("shard-{index}")).spawn(move || {
        let own = match descriptors {
            Descriptors::Shared => Ok(()),
            Descriptors::Own { others } => descriptors::part(&others),
        };
        let may_go_on = own.is_ok();
        drop(parted.send(own));
        if may_go_on { body() } else { Ok(()) }
    })?;
    // Before anything else is opened, of which this thread's table would have a copy.
    has_parted
        .blocking_recv()
        .unwrap_or_else(|_| Err(io::Error::other("a shard's thread ended at its start")))?;
    if is_own {
        // The shard's is its own now. Here it would stay open when the shard takes no more connections.
        descriptors::close(number)?;
    }
    // Apart from the shard's thread: whoever hears the alarm may have been made after the thread parted, and is not to be woken from there.
    Builder::new().name(format!("shard-{index}-end")).spawn(move || {
        let _alarm = alarm;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other(format!("the thread of shard {index} panicked"))))
    })
}

/// Ends the process when a shard's thread ends before it was told to: half of the sessions gone is worse than a restart.
struct Alarm {
    index: u16,
    stop: CancellationToken,
    shutdown: Shutdown,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.shutdown.fail(format!("shard {} ended by itself", self.index));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_shard_with_descriptors_of_its_own_that_panics_ends_the_process_whoever_waits_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.as_raw_fd();
        let (shutdown, stop) = (Shutdown::new(), CancellationToken::new());
        let alarm = Alarm { index: 7, stop, shutdown: shutdown.clone() };
        let (go, may_go) = std::sync::mpsc::sync_channel(1);
        let body = move || {
            may_go.recv().unwrap();
            panic!("a bug, with {listener:?}")
        };

        let thread = spawn_with(alarm, number, Descriptors::Own { others: Vec::new() }, body).unwrap();
        // Who waits was made after the thread had parted, so that its descriptors are none there.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = runtime.block_on(async {
            go.send(()).unwrap();
            tokio::time::timeout(Duration::from_secs(20), shutdown.cancelled()).await
        });

        assert!(ended.is_ok(), "nobody was told");
        assert!(shutdown.failure().unwrap().contains("shard 7"), "{:?}", shutdown.failure());
        let told = thread.join().unwrap().unwrap_err().to_string();
        assert!(told.contains("shard 7 panicked"), "{told}");
    }
}
