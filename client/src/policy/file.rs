//! [`PolicyFile`]: a policy that somebody puts on this machine, for one that no Switch reaches, or whose Switch has moved (K1).

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use muster_proto::limits::ENVELOPE_BYTES_MAX;
use muster_service::credentials::WatchedFile;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::Heard;
use crate::store::StoreError;

/// Follows the file, and tells the [`super::Follower`] what is in it.
#[derive(Debug)]
pub(crate) struct PolicyFile {
    pub(crate) path: PathBuf,
    pub(crate) heard: mpsc::Sender<Heard>,
    pub(crate) stop: CancellationToken,
}

impl PolicyFile {
    /// Runs until it is stopped.
    pub(crate) async fn run(self) -> Result<(), StoreError> {
        self.stop.run_until_cancelled(self.follow()).await;
        Ok(())
    }

    async fn follow(&self) {
        let (watched, mut known) = (WatchedFile::new(&self.path), Ok(None));
        loop {
            let path = self.path.clone();
            let read = spawn_blocking(move || read(&path)).await;
            let read = read.unwrap_or_else(|panicked| Err(panicked.to_string()));
            if read != known {
                known = read.clone();
                if self.heard.send(Heard::File(read)).await.is_err() {
                    return;
                }
            }
            watched.changed().await;
        }
    }
}

/// Reads the file; one that is not there has no policy.
fn read(path: &Path) -> Result<Option<Bytes>, String> {
    let told = |error: std::io::Error| format!("policy.file {}: {error}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(told(error)),
        // Opening a pipe would wait for whoever writes to it.
        Ok(found) if !found.is_file() => return Err(format!("policy.file {}: is no file", path.display())),
        Ok(_) => {}
    }
    let file = File::open(path).map_err(told)?;
    let mut bytes = Vec::new();
    let max = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(format!(
            "policy.file {}: more than {ENVELOPE_BYTES_MAX} bytes, wanted a policy that `muster-sign policy sign` wrote",
            path.display()
        ));
    }
    Ok(Some(bytes.into()))
}
