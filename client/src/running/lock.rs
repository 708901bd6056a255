//! The lock that makes one process the owner of its folder.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::error::StartError;

/// How long another owner of the folder is waited for: a helper that was being made when its client was killed holds a
/// copy of the client's descriptors, the lock among them, until it becomes another program.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at the lock.
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// Makes this process the only owner of its folder. Called before anything is served, so it may block.
pub(super) fn lock(data_dir: &Path) -> Result<Flock<File>, StartError> {
    let path = data_dir.join("client.lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|cause| StartError::File { path: path.clone(), cause })?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    let mut attempt = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    loop {
        match attempt {
            Ok(lock) => return Ok(lock),
            Err(_) if Instant::now() >= deadline => return Err(StartError::Taken { path }),
            Err((file, _)) => {
                std::thread::sleep(LOCK_AGAIN);
                attempt = Flock::lock(file, FlockArg::LockExclusiveNonblock);
            }
        }
    }
}
