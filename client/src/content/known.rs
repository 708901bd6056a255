//! What is known of cached files: which of them are as they were when they were hashed.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_proto::ids::Digest;
use muster_signing::pack::MemberHasher;

use crate::instructions::PlanResource;

/// Files that are remembered; beyond it all are forgotten, and hashed once more. Some 100 bytes each, and more than a client has
/// instructions that wait.
const FILES_MAX: usize = 1_024;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// How coarse a file system's times may be: a change within this time after another may leave the same time behind. Some keep whole
/// seconds (ext4 with small inodes, many of the network), or every second one.
const COARSE: Duration = Duration::from_secs(3);

/// What changes with every write to a file, and with every other file in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Nobody sets it but the kernel, to its clock: seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns whether a later change shows: the time of the last one has passed by now.
    fn tells_later_changes(&self) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return false;
        };
        let changed = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        SystemTime::now().duration_since(changed).is_ok_and(|passed| passed >= COARSE)
    }
}

/// What a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// The bytes that were signed.
    Signed,
    /// Those of the signed root, and not those of the SHA-256 that was signed beside it.
    Contradicted { got: Digest, wanted: Digest },
    /// Those of the signed root, of which there are not as many as were signed beside it.
    Sized { got: u64, wanted: u64 },
    /// Others.
    Other,
}

/// A file as it was when it was hashed and had the bytes of its root, with their SHA-256 if somebody wanted that.
#[derive(Debug, Clone, Copy)]
struct Hashed {
    stamp: Stamp,
    sha256: Option<Digest>,
}

/// Files by what they were when they were hashed and had the bytes of their roots.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<Mutex<BTreeMap<Digest, Hashed>>>);

impl Known {
    /// Hashes a file, and remembers it if it is what was signed.
    pub(super) fn hash(&self, mut file: File, resource: &PlanResource) -> io::Result<Judged> {
        let before = Stamp::of(&file.metadata()?);
        // Asked before anything is read: what is written after that has another time, or is read.
        let is_telling = before.tells_later_changes();
        let (root, sha256) = digests(&mut file, resource)?;
        let is_signed = root == resource.root;
        if is_signed && before.size != resource.size {
            // A root is of one size only: the definition is wrong, and the file is what others signed.
            return Ok(Judged::Sized { got: before.size, wanted: resource.size });
        }
        let is_as_it_was = Stamp::of(&file.metadata()?) == before;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&resource.root);
        if is_signed && is_as_it_was && is_telling {
            if known.len() >= FILES_MAX {
                known.clear();
            }
            known.insert(resource.root, Hashed { stamp: before, sha256 });
        }
        drop(known);
        Ok(match (resource.sha256, sha256) {
            _ if !is_signed => Judged::Other,
            (Some(wanted), Some(got)) if got != wanted => Judged::Contradicted { got, wanted },
            (Some(_) | None, _) => Judged::Signed,
        })
    }

    /// Returns whether a file is as it was when it was hashed and had the signed bytes.
    pub(super) fn is_known(&self, file: &File, resource: &PlanResource) -> io::Result<bool> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&resource.root).copied();
        Ok(known.is_some_and(|known| {
            resource.size == known.stamp.size
                && (resource.sha256.is_none() || resource.sha256 == known.sha256)
                && file.metadata().is_ok_and(|metadata| Stamp::of(&metadata) == known.stamp)
        }))
    }
}

/// Hashes a file: its root, and its SHA-256 where one was signed.
fn digests(file: &mut File, resource: &PlanResource) -> io::Result<(Digest, Option<Digest>)> {
    if resource.sha256.is_none() {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        return Ok((Digest::from(*hasher.finalize().as_bytes()), None));
    }
    let mut hasher = MemberHasher::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = match file.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(read) = piece.get(..read).filter(|read| !read.is_empty()) else { break };
        hasher.update(read);
    }
    let digests = hasher.finish();
    Ok((digests.root, Some(digests.sha256)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::config::ResourcesConfig;
    use crate::content::{Content, ContentError};

    const SIGNED: &[u8] = b"what was signed";

    #[test]
    fn a_file_is_known_until_it_is_written_to_or_another_one_takes_its_place() {
        let other = b"what is like it";
        assert_eq!(other.len(), SIGNED.len());
        let in_place = |path: &Path| std::fs::write(path, other).unwrap();
        let renamed = |path: &Path| {
            std::fs::write(path.with_extension("new"), other).unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        };
        let set_back = |path: &Path| {
            let modified = std::fs::metadata(path).unwrap().modified().unwrap();
            std::fs::write(path, other).unwrap();
            File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
        };
        let changes: [&dyn Fn(&Path); 3] = [&in_place, &renamed, &set_back];
        for change in changes {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("a");
            std::fs::write(&path, SIGNED).unwrap();
            let known = Known::default();
            let (opened, signed) = (|| File::open(&path).unwrap(), signed());
            assert!(!known.is_known(&opened(), &signed).unwrap(), "nobody hashed it");
            // As soon as the time of its making has passed.
            while !known.is_known(&opened(), &signed).unwrap() {
                assert_eq!(known.hash(opened(), &signed).unwrap(), Judged::Signed);
            }

            change(&path);

            assert!(!known.is_known(&opened(), &signed).unwrap());
            assert_eq!(known.hash(opened(), &signed).unwrap(), Judged::Other);
            assert!(!known.is_known(&opened(), &signed).unwrap());
        }
    }

    #[test]
    fn a_file_of_this_very_moment_is_not_known_since_a_change_might_not_show() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a");
        let known = Known::default();
        let lately = loop {
            std::fs::write(&path, SIGNED).unwrap();
            let begun = std::time::Instant::now();
            assert_eq!(known.hash(File::open(&path).unwrap(), &signed()).unwrap(), Judged::Signed);
            if begun.elapsed() < COARSE / 2 {
                break known.is_known(&File::open(&path).unwrap(), &signed()).unwrap();
            }
        };

        assert!(!lately);
    }

    #[tokio::test]
    async fn a_file_that_was_changed_while_its_instruction_waited_is_not_confirmed_and_goes() {
        let folder = TempDir::new().unwrap();
        let content = Content::open(folder.path(), ResourcesConfig::default(), None).unwrap();
        let resource = signed();
        let path = folder.path().join("resources").join(resource.root.to_string());
        std::fs::write(&path, SIGNED).unwrap();
        let until = tokio::time::Instant::now() + Duration::from_secs(60);
        assert_eq!(content.fetch(&resource, until).await.unwrap(), path);
        content.confirm(&resource, &path).await.unwrap();
        std::fs::write(&path, b"what is like it").unwrap();

        let changed = content.confirm(&resource, &path).await.unwrap_err();
        let gone = content.confirm(&resource, &path).await.unwrap_err();

        assert!(matches!(changed, ContentError::Changed { .. }), "{changed}");
        assert!(matches!(gone, ContentError::Changed { .. }), "{gone}");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_resource_whose_sha_256_is_not_the_signed_one_is_refused_and_its_bytes_stay_for_others() {
        let folder = TempDir::new().unwrap();
        let content = Content::open(folder.path(), ResourcesConfig::default(), None).unwrap();
        let path = folder.path().join("resources").join(signed().root.to_string());
        std::fs::write(&path, SIGNED).unwrap();
        let other = Digest::from([7; 32]);
        let right = PlanResource { sha256: Some(muster_signing::envelope::digest(SIGNED)), ..signed() };
        let wrong = PlanResource { sha256: Some(other), ..signed() };
        let until = tokio::time::Instant::now() + Duration::from_secs(60);

        for resource in [signed(), right.clone()] {
            assert_eq!(content.fetch(&resource, until).await.unwrap(), path);
            content.confirm(&resource, &path).await.unwrap();
        }
        let fetched = content.fetch(&wrong, until).await.unwrap_err();
        let confirmed = content.confirm(&wrong, &path).await.unwrap_err();

        assert!(matches!(fetched, ContentError::Sha256 { wanted, .. } if wanted == other), "{fetched}");
        assert!(matches!(confirmed, ContentError::Sha256 { .. }), "{confirmed}");
        assert_eq!(content.fetch(&right, until).await.unwrap(), path);
    }

    #[tokio::test]
    async fn a_resource_whose_size_is_not_the_signed_one_is_refused_and_its_bytes_stay_for_others() {
        let folder = TempDir::new().unwrap();
        let content = Content::open(folder.path(), ResourcesConfig::default(), None).unwrap();
        let path = folder.path().join("resources").join(signed().root.to_string());
        std::fs::write(&path, SIGNED).unwrap();
        let wrong = PlanResource { size: signed().size + 1, ..signed() };
        let until = tokio::time::Instant::now() + Duration::from_secs(60);
        assert_eq!(content.fetch(&signed(), until).await.unwrap(), path);

        let fetched = content.fetch(&wrong, until).await.unwrap_err();
        let confirmed = content.confirm(&wrong, &path).await.unwrap_err();

        let (got, wanted) = (signed().size, wrong.size);
        for error in [fetched, confirmed] {
            assert!(
                matches!(error, ContentError::Size { got: found, wanted: said } if (found, said) == (got, wanted)),
                "{error}"
            );
        }
        assert_eq!(content.fetch(&signed(), until).await.unwrap(), path);
    }

    #[test]
    fn a_file_that_is_known_is_not_known_by_another_size() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, SIGNED).unwrap();
        let known = Known::default();
        let opened = || File::open(&path).unwrap();
        let wrong = PlanResource { size: signed().size + 1, ..signed() };
        while !known.is_known(&opened(), &signed()).unwrap() {
            assert_eq!(known.hash(opened(), &signed()).unwrap(), Judged::Signed);
        }

        assert!(!known.is_known(&opened(), &wrong).unwrap());
        assert!(matches!(known.hash(opened(), &wrong).unwrap(), Judged::Sized { .. }));
        assert!(known.is_known(&opened(), &signed()).unwrap(), "whoever says another size changes nothing");
    }

    #[test]
    fn a_file_that_is_known_by_its_root_is_hashed_once_more_for_a_sha_256() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, SIGNED).unwrap();
        let known = Known::default();
        let (opened, plain) = (|| File::open(&path).unwrap(), signed());
        let sha256 = Some(muster_signing::envelope::digest(SIGNED));
        let right = PlanResource { sha256, ..signed() };
        while !known.is_known(&opened(), &plain).unwrap() {
            assert_eq!(known.hash(opened(), &plain).unwrap(), Judged::Signed);
        }

        assert!(!known.is_known(&opened(), &right).unwrap());
        assert_eq!(known.hash(opened(), &right).unwrap(), Judged::Signed);

        assert!(known.is_known(&opened(), &right).unwrap() && known.is_known(&opened(), &plain).unwrap());
    }

    fn signed() -> PlanResource {
        let root = Digest::from(*blake3::hash(SIGNED).as_bytes());
        PlanResource { name: "a".to_owned(), size: SIGNED.len() as u64, root, sha256: None }
    }
}
