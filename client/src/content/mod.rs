//! Resources by BLAKE3 root: the cache, and the download that fills it.
//!
//! Nothing is written that was not verified: the outboard first, then every 16 KiB against it ([`verify`]). A download that
//! broke goes on where it ended; a file counts once it was synced and renamed into place.

mod download;
mod known;
mod verify;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use known::{Judged, Known};
use muster_proto::ids::Digest;
use muster_service::credentials::DialError;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

pub use verify::LieError;

use crate::backoff::Backoff;
use crate::config::ResourcesConfig;
use crate::https::{Background, HttpsError};
use crate::instructions::PlanResource;
use crate::key::DeviceIdentity;

/// A file used within this time is never removed to make room: it may be in use.
const IN_USE: Duration = Duration::from_secs(3_600);

/// How old the mark of a use may be that counts as one of now: little of [`IN_USE`].
const MARKED_FOR: Duration = Duration::from_secs(300);

/// First bound of the pause between two attempts of a download.
const RETRY_BASE: Duration = Duration::from_millis(500);

/// Longest pause between two attempts of a download: long enough that a fleet does not hold a weak server down, short enough
/// that the shortest windows see it come back.
const RETRY_CAP: Duration = Duration::from_secs(30);

/// Why a resource cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It is larger than this client takes.
    #[error("it has {got} bytes, this device takes at most {max} (resources.bytes_max)")]
    TooLarge {
        /// Its signed size.
        got: u64,
        /// The bound.
        max: u64,
    },
    /// The cache is full of what is in use.
    #[error(
        "it has {size} bytes, and the cache has no room: {kept} of at most {max} bytes (resources.cache_bytes_max) are in \
         use or on their way; issue it again in an hour, or allow more"
    )]
    NoRoom {
        /// Its bytes.
        size: u64,
        /// What cannot go.
        kept: u64,
        /// The bound.
        max: u64,
    },
    /// There is nowhere to get it from.
    #[error("it is not in the cache, and no background_channel is configured")]
    NoSource,
    /// The device has no certificate, and the Background Channel takes nobody else (C1).
    #[error(
        "it is not in the cache, and this device has no certificate (tls.identity = \"key\"), without which the Background \
         Channel gives nothing; give it one"
    )]
    Unauthenticated,
    /// The server gave other bytes than the signed ones.
    #[error("the Background Channel gave other bytes than the signed ones: {0}")]
    Lie(#[from] LieError),
    /// The server told another length than the signed one.
    #[error("the Background Channel gave {got} bytes, {wanted} were signed")]
    Length {
        /// What it told or sent.
        got: u64,
        /// What was signed, or what is left of it.
        wanted: u64,
    },
    /// The exchange broke.
    #[error(transparent)]
    Http(#[from] HttpsError),
    /// The server ended before the content did.
    #[error("the Background Channel ended at byte {at} of {size}")]
    Short {
        /// What is verified.
        at: u64,
        /// The signed size.
        size: u64,
    },
    /// The window of the instruction ended first.
    #[error("its window ended before it was here; issue it again{}", told(last.as_deref()))]
    Late {
        /// Why the last attempt failed, if one has ended.
        last: Option<Box<Self>>,
    },
    /// The file is not what it was when it was verified.
    #[error(
        "its file was changed or removed on this device after it was verified; look at who writes below {}, and issue it again",
        path.parent().unwrap_or(path).display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// It is what the signed root says, and not what the signed SHA-256 says: the definition contradicts itself.
    #[error(
        "its bytes have the signed BLAKE3 root, and the SHA-256 {got}; {wanted} was signed beside it; have a version of the definition signed in which \
         both are of one file"
    )]
    Sha256 {
        /// Of the bytes.
        got: Digest,
        /// In the definition.
        wanted: Digest,
    },
    /// It is what the signed root says, which is of one size only, and the definition says another.
    #[error(
        "its bytes have the signed BLAKE3 root, and are {got}; a size of {wanted} was signed beside it; have a version of the definition signed in \
         which both are of one file"
    )]
    Size {
        /// How many there are.
        got: u64,
        /// In the definition.
        wanted: u64,
    },
    /// The disk refused.
    #[error("{path}: {cause}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
}

impl ContentError {
    /// Returns whether another attempt may succeed, however long it takes: nothing is wrong with the content itself.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Short { .. } => true,
            Self::Http(error) => error.is_transient(),
            Self::TooLarge { .. }
            | Self::NoRoom { .. }
            | Self::NoSource
            | Self::Unauthenticated
            | Self::Lie(_)
            | Self::Length { .. }
            | Self::Late { .. }
            | Self::Changed { .. }
            | Self::Sha256 { .. }
            | Self::Size { .. }
            | Self::Disk { .. } => false,
        }
    }

    /// Returns whether nobody was asked, for the lack of a certificate of this device (S6).
    pub(crate) fn lacks_certificate(&self) -> bool {
        matches!(self, Self::Http(HttpsError::Dial(DialError::NoCertificate { .. })))
    }

    /// Returns how long the server asks to stay away; zero if it does not.
    fn retry_after(&self) -> Duration {
        if let Self::Http(error) = self { error.retry_after() } else { Duration::ZERO }
    }

    /// Returns whether the server gave content that is not the signed one.
    fn is_wrong_answer(&self) -> bool {
        match self {
            Self::Lie(_) | Self::Length { .. } => true,
            Self::TooLarge { .. }
            | Self::NoRoom { .. }
            | Self::NoSource
            | Self::Unauthenticated
            | Self::Http(_)
            | Self::Short { .. }
            | Self::Late { .. }
            | Self::Changed { .. }
            | Self::Sha256 { .. }
            | Self::Size { .. }
            | Self::Disk { .. } => false,
        }
    }
}

fn told(last: Option<&ContentError>) -> String {
    last.map(|error| format!("; the last attempt: {error}")).unwrap_or_default()
}

/// The cache of resources.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    directory: PathBuf,
    config: ResourcesConfig,
    source: Background,
    identity: DeviceIdentity,
    /// The first bound of the pauses between two attempts of a download, and the longest.
    pauses: (Duration, Duration),
    /// One lock for each root that somebody wants at the moment.
    wanted: Arc<Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>>,
    reserved: Reserved,
    known: Known,
}

impl Content {
    /// Opens the cache below `data_dir`.
    pub(crate) fn open(
        data_dir: &Path,
        config: ResourcesConfig,
        source: impl Into<Background>,
    ) -> io::Result<Self> {
        let directory = data_dir.join("resources");
        crate::files::make_private_dir(&directory)?;
        let (pauses, source) = ((RETRY_BASE, RETRY_CAP), source.into());
        let (identity, wanted, reserved) = (DeviceIdentity::default(), Arc::default(), Reserved::default());
        let known = Known::default();
        Ok(Self { directory, config, source, identity, pauses, wanted, reserved, known })
    }

    /// Says by what the device is known; one without a certificate gets nothing that is not in the cache.
    pub(crate) fn of(self, identity: DeviceIdentity) -> Self {
        Self { identity, ..self }
    }

    fn no_source(&self) -> ContentError {
        match self.identity {
            DeviceIdentity::Certificate => ContentError::NoSource,
            DeviceIdentity::Key => ContentError::Unauthenticated,
        }
    }

    /// Returns the path of a file whose bytes are those that were signed, downloading it if need be. A server that is away or
    /// overloaded is asked again until `deadline`; dropping the future gives the download up, and its part stays.
    ///
    /// # Errors
    /// Says what the cache, the server or the disk did.
    pub(crate) async fn fetch(
        &self,
        resource: &PlanResource,
        deadline: Instant,
    ) -> Result<PathBuf, ContentError> {
        let mut last = None;
        let outcome = timeout_at(deadline, self.fetch_patiently(resource, &mut last)).await;
        outcome.unwrap_or_else(|_| Err(ContentError::Late { last: last.map(Box::new) }))
    }

    /// As [`Self::fetch`], for as long as it takes; `last` is why the last attempt failed.
    async fn fetch_patiently(
        &self,
        resource: &PlanResource,
        last: &mut Option<ContentError>,
    ) -> Result<PathBuf, ContentError> {
        if resource.size > self.config.bytes_max {
            return Err(ContentError::TooLarge { got: resource.size, max: self.config.bytes_max });
        }
        let lock = self.lock(resource.root);
        let _held = lock.lock().await;
        let path = self.directory.join(resource.root.to_string());
        if self.is_cached(&path, resource).await? {
            return Ok(path);
        }
        self.download(&path, resource, last).await?;
        // What came was held against its root, group by group.
        if resource.sha256.is_some() && !self.is_cached(&path, resource).await? {
            return Err(ContentError::Changed { path });
        }
        Ok(path)
    }

    async fn download(
        &self,
        path: &Path,
        resource: &PlanResource,
        last: &mut Option<ContentError>,
    ) -> Result<(), ContentError> {
        let mut source = self.source.current().ok_or_else(|| self.no_source())?;
        let _room = self.make_room(resource).await?;
        let mut backoff = Backoff::new(self.pauses.0, self.pauses.1, rand::random());
        let mut wrong_answers = 0;
        let mut hashes = None;
        loop {
            let attempt = download::attempt(&source, resource, &self.directory, path, &mut hashes);
            let error = match attempt.await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if error.is_wrong_answer() {
                metrics::counter!(crate::metrics::RESOURCE_LIES).increment(1);
                wrong_answers += 1;
                if wrong_answers >= self.config.attempts {
                    return Err(error);
                }
            } else if !error.is_transient() {
                return Err(error);
            }
            metrics::counter!(crate::metrics::RESOURCE_RETRIES).increment(1);
            if last.is_none() {
                tracing::warn!(%error, root = %resource.root, "a resource is not here yet; it is asked for again");
            } else {
                tracing::debug!(%error, root = %resource.root, "a resource is asked for again");
            }
            let asked = error.retry_after();
            *last = Some(error);
            tokio::time::sleep(backoff.next_pause_after_some(asked)).await;
            // A policy may have moved it meanwhile.
            source = self.source.current().ok_or_else(|| self.no_source())?;
        }
    }

    pub(crate) fn lock(&self, root: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = wanted.get(&root).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        wanted.insert(root, Arc::downgrade(&lock));
        lock
    }

    /// Hashes a cached file again: a disk may lie, and a file may have been changed.
    async fn is_cached(&self, path: &Path, resource: &PlanResource) -> Result<bool, ContentError> {
        let (path, resource, known) = (path.to_owned(), resource.clone(), self.known.clone());
        blocking(path.clone(), move || {
            let Ok(file) = std::fs::File::open(&path) else { return Ok(Ok(false)) };
            mark_used(&file)?;
            match known.hash(file, &resource)? {
                Judged::Signed => Ok(Ok(true)),
                Judged::Contradicted { got, wanted } => Ok(Err(ContentError::Sha256 { got, wanted })),
                Judged::Sized { got, wanted } => Ok(Err(ContentError::Size { got, wanted })),
                Judged::Other => {
                    tracing::error!(root = %resource.root, "a cached resource is damaged; it is removed");
                    remove_damaged(&path)?;
                    Ok(Ok(false))
                }
            }
        })
        .await?
    }

    /// Looks once more, right before something begins to read a file that [`Self::fetch`] gave: it may have waited for hours. What
    /// cannot have changed since it was hashed is not hashed again.
    ///
    /// # Errors
    /// [`ContentError::Changed`]: the file is gone or has other bytes, and is removed; or what the disk did.
    pub(crate) async fn confirm(&self, resource: &PlanResource, path: &Path) -> Result<(), ContentError> {
        let (file, resource, known) = (path.to_owned(), resource.clone(), self.known.clone());
        let judged = blocking(path.to_owned(), move || {
            let Ok(opened) = std::fs::File::open(&file) else { return Ok(Judged::Other) };
            if known.is_known(&opened, &resource)? {
                return Ok(Judged::Signed);
            }
            let judged = known.hash(opened, &resource)?;
            if judged == Judged::Other {
                tracing::error!(root = %resource.root, "a resource was changed after it was verified; it is removed");
                remove_damaged(&file)?;
            }
            Ok(judged)
        });
        match judged.await? {
            Judged::Signed => Ok(()),
            Judged::Contradicted { got, wanted } => Err(ContentError::Sha256 { got, wanted }),
            Judged::Sized { got, wanted } => Err(ContentError::Size { got, wanted }),
            Judged::Other => Err(ContentError::Changed { path: path.to_owned() }),
        }
    }

    /// Reserves room below the cap, for which the longest unused files go, or nothing if that is not enough.
    async fn make_room(&self, resource: &PlanResource) -> Result<Room, ContentError> {
        let (directory, cap) = (self.directory.clone(), self.config.cache_bytes_max);
        let (reserved, root, size) = (Arc::clone(&self.reserved), resource.root, resource.size);
        let room = blocking(directory.clone(), move || {
            // Held to the end: two that look at once would both find the same room.
            let mut held = reserved.lock().unwrap_or_else(PoisonError::into_inner);
            let others = held.values().sum::<u64>().saturating_add(size);
            let is_counted = |name: &str| {
                let of = name.strip_suffix(".part").unwrap_or(name);
                of == root.to_string() || held.keys().any(|other| of == other.to_string())
            };
            let (unused, in_use) = cached(&directory, is_counted)?;
            let kept = others.saturating_add(in_use);
            if kept > cap {
                return Ok(Err(ContentError::NoRoom { size, kept: kept.saturating_sub(size), max: cap }));
            }
            let mut total = unused.iter().map(|(_, bytes, _)| bytes).sum::<u64>().saturating_add(kept);
            for (_, bytes, path) in unused {
                if total <= cap {
                    break;
                }
                std::fs::remove_file(path)?;
                total = total.saturating_sub(bytes);
            }
            held.insert(root, size);
            drop(held);
            Ok(Ok(Room { reserved, root }))
        });
        room.await?
    }
}

/// Bytes that downloads under way will take, by root.
type Reserved = Arc<Mutex<BTreeMap<Digest, u64>>>;

/// Room for a download, given back when this is dropped: by then the file is there, or it is not coming.
#[derive(Debug)]
struct Room {
    reserved: Reserved,
    root: Digest,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.root);
    }
}

/// A file of the cache: when it was used, its bytes, its path.
type Cached = (SystemTime, u64, PathBuf);

/// Returns the files that may go, the longest unused first, and the bytes of those that may not. What `is_counted` by its
/// reservation is in neither.
fn cached(directory: &Path, is_counted: impl Fn(&str) -> bool) -> io::Result<(Vec<Cached>, u64)> {
    let (mut unused, mut in_use) = (Vec::new(), 0_u64);
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if is_counted(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let metadata = entry.metadata()?;
        let used = metadata.modified()?;
        if is_in_use(used, SystemTime::now()) {
            in_use = in_use.saturating_add(metadata.len());
        } else {
            unused.push((used, metadata.len(), entry.path()));
        }
    }
    unused.sort();
    Ok((unused, in_use))
}

/// A mark of the far future is one of a clock that was wrong, and keeps nothing.
fn is_in_use(used: SystemTime, now: SystemTime) -> bool {
    let apart = now.duration_since(used).unwrap_or_else(|ahead| ahead.duration());
    apart < IN_USE
}

/// Marks a file as used; without the mark it goes earlier, nothing worse. A mark is a change, after which a file has to be hashed, so
/// it comes before that, and not each time.
fn mark_used(file: &std::fs::File) -> io::Result<()> {
    let now = SystemTime::now();
    let is_marked = now.duration_since(file.metadata()?.modified()?).is_ok_and(|since| since < MARKED_FOR);
    if !is_marked {
        drop(file.set_modified(now));
    }
    Ok(())
}

fn remove_damaged(path: &Path) -> io::Result<()> {
    metrics::counter!(crate::metrics::RECORDS_DAMAGED).increment(1);
    std::fs::remove_file(path)
}

/// Runs what touches the disk apart from the runtime.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ContentError> {
    match spawn_blocking(job).await {
        Ok(answer) => answer.map_err(|cause| ContentError::Disk { path, cause }),
        Err(cause) => Err(ContentError::Disk { path, cause: io::Error::other(cause) }),
    }
}

#[cfg(test)]
mod tests;
