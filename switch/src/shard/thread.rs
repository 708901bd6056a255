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
    let is_own = matches!(descriptors, Descriptors::Own { .. });
    let (parted, has_parted) = oneshot::channel();
    let thread = Builder::new().name(format!("shard-{index}")).spawn(move || {
        let own = match descriptors {
            Descriptors::Shared => Ok(()),
            Descriptors::Own { others } => descriptors::part(&others),
        };
        let may_go_on = own.is_ok();
        drop(parted.send(own));
        if may_go_on {
            LocalSet::new().block_on(&runtime, serve(index, way, messages, common))
        } else {
            Ok(())
        }
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
