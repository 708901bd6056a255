//! One attempt to download a resource, from where the last one ended.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::verify::{GROUP_BYTES, GroupHashes, outboard_bytes};
use super::{ContentError, blocking};
use crate::https::{Https, HttpsError};
use crate::instructions::PlanResource;

/// Downloads what is missing, and puts the whole file at `path`. Hashes that were had are not asked for again.
pub(super) async fn attempt(
    source: &Https,
    resource: &PlanResource,
    directory: &Path,
    path: &Path,
    known: &mut Option<GroupHashes>,
) -> Result<(), ContentError> {
    let hashes = match known.take() {
        Some(hashes) => hashes,
        None => outboard(source, resource).await?,
    };
    *known = Some(hashes.clone());
    let part = directory.join(format!("{}.part", resource.root));
    let verified = examine_part(part.clone(), hashes.clone()).await?;
    Download { source, hashes, part: part.clone(), verified }.run(resource).await?;
    let (directory, path) = (directory.to_owned(), path.to_owned());
    blocking(part.clone(), move || {
        std::fs::File::open(&part)?.sync_all()?;
        std::fs::rename(&part, &path)?;
        std::fs::File::open(&directory)?.sync_all()
    })
    .await
}

/// Gets and checks the hashes. Content of one group has none but its root.
async fn outboard(source: &Https, resource: &PlanResource) -> Result<GroupHashes, ContentError> {
    if resource.size <= GROUP_BYTES {
        return Ok(GroupHashes::from_outboard(&resource.size.to_le_bytes(), resource.root, resource.size)?);
    }
    let path = format!("/resources/{}.obao", resource.root);
    let response = source.get(&path, 0).await?;
    let wanted = outboard_bytes(resource.size);
    let told = content_length(response.headers());
    if let Some(got) = told.filter(|got| *got != wanted) {
        return Err(ContentError::Length { got, wanted });
    }
    let bytes = source.body(&path, response, usize::try_from(wanted).unwrap_or(usize::MAX)).await;
    // A lie as much as a length that is told: asked for again until the window ends, it would come again.
    let bytes = bytes.map_err(|error| match error {
        HttpsError::TooLong { .. } => ContentError::Length { got: wanted.saturating_add(1), wanted },
        error @ (HttpsError::Dial(_)
        | HttpsError::Broken { .. }
        | HttpsError::Silent { .. }
        | HttpsError::Status { .. }) => error.into(),
    })?;
    Ok(GroupHashes::from_outboard(&bytes, resource.root, resource.size)?)
}

/// Returns how many bytes of an earlier attempt are good, and cuts the rest off.
async fn examine_part(part: PathBuf, hashes: GroupHashes) -> Result<u64, ContentError> {
    blocking(part.clone(), move || {
        let mut file =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part)?;
        let length = file.metadata()?.len();
        let mut verified = 0;
        while verified < length && verified < hashes.size() {
            let mut group = vec![0; hashes.group_bytes(verified)];
            if file.read_exact(&mut group).is_err() || hashes.check(verified, &group).is_err() {
                break;
            }
            verified += group.len() as u64;
        }
        file.set_len(verified)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(verified)
    })
    .await
}

struct Download<'a> {
    source: &'a Https,
    hashes: GroupHashes,
    part: PathBuf,
    verified: u64,
}

impl Download<'_> {
    async fn run(&mut self, resource: &PlanResource) -> Result<(), ContentError> {
        if self.verified == self.hashes.size() && self.verified > 0 {
            return Ok(());
        }
        let path = format!("/resources/{}", resource.root);
        let response = self.source.get(&path, self.verified).await?;
        self.check_range(response.status(), response.headers())?;
        let left = self.hashes.size() - self.verified;
        if let Some(got) = content_length(response.headers()).filter(|got| *got != left) {
            return Err(ContentError::Length { got, wanted: left });
        }
        self.write(&path, response.into_body()).await
    }

    /// Starts over where the server would not go on.
    fn check_range(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), ContentError> {
        if status != StatusCode::PARTIAL_CONTENT {
            self.verified = 0;
            return Ok(());
        }
        let told = headers.get(CONTENT_RANGE).and_then(|range| {
            let (first, _) = range.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?;
            first.parse::<u64>().ok()
        });
        match told {
            Some(first) if first == self.verified => Ok(()),
            other => Err(ContentError::Length { got: other.unwrap_or(0), wanted: self.verified }),
        }
    }

    async fn write(&mut self, path: &str, mut body: Incoming) -> Result<(), ContentError> {
        let disk = |cause| ContentError::Disk { path: self.part.clone(), cause };
        let mut file = tokio::fs::OpenOptions::new().write(true).open(&self.part).await.map_err(disk)?;
        file.set_len(self.verified).await.map_err(disk)?;
        file.seek(SeekFrom::Start(self.verified)).await.map_err(disk)?;
        let outcome = self.copy(path, &mut body, &mut file).await;
        // What was verified stays, whatever came after it.
        file.flush().await.map_err(|cause| ContentError::Disk { path: self.part.clone(), cause })?;
        outcome
    }

    async fn copy(
        &mut self,
        path: &str,
        body: &mut Incoming,
        file: &mut tokio::fs::File,
    ) -> Result<(), ContentError> {
        let size = self.hashes.size();
        let mut group = Vec::with_capacity(self.hashes.group_bytes(self.verified));
        // No silence may be too long, and no group may come byte by byte: who trickles is left, and asked anew.
        let mut due = Instant::now() + self.source.patience(GROUP_BYTES);
        while let Some(frame) = timeout_at(due, timeout(self.source.silence, body.frame()))
            .await
            .map_err(|_| self.source.slow(path, GROUP_BYTES))?
            .map_err(|_| self.source.silent(path))?
        {
            let frame = frame.map_err(|cause| self.source.broken(path, cause.to_string()))?;
            let Ok(mut bytes) = frame.into_data() else { continue };
            while !bytes.is_empty() {
                let wanted = self.hashes.group_bytes(self.verified);
                if wanted == 0 {
                    return Err(ContentError::Length { got: size + bytes.len() as u64, wanted: size });
                }
                let taken = bytes.split_to((wanted - group.len()).min(bytes.len()));
                group.extend_from_slice(&taken);
                if group.len() == wanted {
                    self.keep(&group, file).await?;
                    group.clear();
                    due = Instant::now() + self.source.patience(GROUP_BYTES);
                }
            }
        }
        if self.verified < size {
            return Err(ContentError::Short { at: self.verified, size });
        }
        // Content of no bytes has one group of none.
        if size == 0 {
            self.hashes.check(0, &[])?;
        }
        Ok(())
    }

    async fn keep(&mut self, group: &[u8], file: &mut tokio::fs::File) -> Result<(), ContentError> {
        self.hashes.check(self.verified, group)?;
        let disk = |cause| ContentError::Disk { path: self.part.clone(), cause };
        file.write_all(group).await.map_err(disk)?;
        self.verified += group.len() as u64;
        metrics::counter!(crate::metrics::RESOURCE_BYTES).increment(group.len() as u64);
        Ok(())
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
