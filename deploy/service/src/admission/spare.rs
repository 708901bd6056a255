//! [`Spare`]: a descriptor that is held for when there is none left.
//!
//! Who connects to a process without descriptors waits in the kernel's backlog until its own deadline is over, and the accept loop finds it there
//! again and again. So one descriptor is given up for a moment, those who wait are taken and turned away with it, and come back at another time.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::net::TcpListener;

/// What is opened to hold a descriptor.
const HELD: &str = "/dev/null";

/// Connections turned away in one go, before others get their turn.
const SHED_MAX: usize = 256;

/// The descriptor.
#[derive(Debug)]
pub struct Spare(Mutex<Option<File>>);

impl Spare {
    /// Takes one; where there is none left it is taken later.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(File::open(HELD).ok()))
    }

    /// Takes those who wait at the listener and ends their connections. `turned_away` hears where each is from.
    pub(super) async fn shed(&self, listener: &TcpListener, mut turned_away: impl FnMut(SocketAddr)) {
        for _ in 0..SHED_MAX {
            let taken = std::future::poll_fn(|context| {
                // Held meanwhile, so that other listeners of the process do not take what is given up for this one.
                let mut held = self.held();
                if held.take().is_none() {
                    return Poll::Ready(None);
                }
                let address = match listener.poll_accept(context) {
                    Poll::Ready(Ok((_ended, address))) => Some(address),
                    Poll::Ready(Err(_)) | Poll::Pending => None,
                };
                *held = File::open(HELD).ok();
                Poll::Ready(address)
            });
            let Some(address) = taken.await else { break };
            turned_away(address);
        }
    }

    /// Takes the descriptor back if it is gone, as far as there is one.
    pub(super) fn hold(&self) {
        let mut held = self.held();
        if held.is_none() {
            *held = File::open(HELD).ok();
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Spare {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns whether accepting failed for want of descriptors, of the process or of the machine.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    let wanted = [nix::errno::Errno::EMFILE, nix::errno::Errno::ENFILE].map(|errno| Some(errno as i32));
    wanted.contains(&error.raw_os_error())
}
