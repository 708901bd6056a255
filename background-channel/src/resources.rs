//! Content by its BLAKE3 root: one file and one outboard each, both whole or absent.
//!
//! ```text
//! resources/ROOT        the content
//! resources/ROOT.obao   8 bytes length (little-endian), then hash pairs in pre-order over 16 KiB groups (bao-tree)
//! resources/ROOT.json   name and time of the put
//! resources/tmp-*       unfinished puts; removed at start
//! ```
//! A client verifies every 16 KiB itself, so this store promises durability, not honesty.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bao_tree::io::outboard::PreOrderMemOutboard;
use bao_tree::io::sync;
use bao_tree::{BaoTree, BlockSize};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

/// Content is verified in groups of 2^4 BLAKE3 chunks of 1 KiB (DESIGN.md, journey 4).
pub const BLOCK_SIZE: BlockSize = BlockSize::from_chunk_log(4);

/// A BLAKE3 root: 64 lower-case hex digits, so that it is a safe file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root(blake3::Hash);

/// What is wrong with a resource or with storing it.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The address is not a root.
    #[error("`{0}` is not a BLAKE3 root: expected 64 hex digits")]
    BadRoot(String),
    /// The name cannot be listed.
    #[error("`{0}` is not a resource name: expected 1 to 128 ASCII letters, digits, `.`, `_` or `-`")]
    BadName(String),
    /// The content is not what its address says.
    #[error("the content's root is {got}, the address says {wanted}; put it under its own root")]
    WrongRoot {
        /// The content's.
        got: String,
        /// The address'.
        wanted: String,
    },
    /// The content is larger than a resource may be.
    #[error("more than {max} bytes; raise `limits.resource_bytes_max` at the Background Channel")]
    TooLarge {
        /// The bound in force.
        max: u64,
    },
    /// The disk has no room.
    #[error("the disk of the Background Channel is full; free space under its `data_dir`")]
    DiskFull,
    /// There is no such resource.
    #[error("no resource {0}; put it with `muster resource put FILE`")]
    Unknown(String),
    /// Reading or writing did not work.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is known of a stored resource.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourceInfo {
    /// Its root, hex.
    pub root: String,
    /// The name it was put under, for people.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was put, milliseconds since 1970.
    pub stored_at_ms: i64,
}

/// The folder of resources. Every method blocks; callers run them off the runtime.
#[derive(Debug)]
pub struct Resources {
    folder: PathBuf,
    bytes_max: u64,
}

impl std::str::FromStr for Root {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match blake3::Hash::from_hex(text) {
            Ok(hash) if lower => Ok(Self(hash)),
            _ => Err(ResourceError::BadRoot(text.chars().take(80).collect())),
        }
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.to_hex())
    }
}

impl Resources {
    /// Opens the folder, creates it, and removes what unfinished puts left behind.
    ///
    /// # Errors
    /// The folder cannot be created or read.
    pub fn open(folder: PathBuf, bytes_max: u64) -> Result<Self, ResourceError> {
        let resources = Self { folder, bytes_max };
        let failed = |source| io_error(&resources.folder, source);
        std::fs::create_dir_all(&resources.folder).map_err(failed)?;
        for entry in std::fs::read_dir(&resources.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if !entry.file_type().map_err(failed)?.is_file() {
                tracing::warn!(path = %path.display(), "no regular file: it is never served; take it away");
            } else if entry.file_name().to_string_lossy().starts_with("tmp-") {
                std::fs::remove_file(&path).map_err(|source| io_error(&path, source))?;
            }
        }
        Ok(resources)
    }

    /// Begins to take content in. What was written is dropped with the [`Put`] unless it is finished.
    ///
    /// # Errors
    /// The name is not one, or the file cannot be created.
    pub fn begin(&self, root: Root, name: &str) -> Result<Put, ResourceError> {
        let is_name = !name.is_empty()
            && name.len() <= 128
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !is_name {
            return Err(ResourceError::BadName(name.chars().take(140).collect()));
        }
        let file = tempfile::Builder::new()
            .prefix("tmp-")
            .tempfile_in(&self.folder)
            .map_err(|source| io_error(&self.folder, source))?;
        Ok(Put {
            root,
            name: name.to_owned(),
            file,
            size: 0,
            bytes_max: self.bytes_max,
            folder: self.folder.clone(),
        })
    }

    /// The content's file and size.
    ///
    /// # Errors
    /// There is no such resource, or it cannot be opened.
    pub fn open_content(&self, root: Root) -> Result<(File, u64), ResourceError> {
        self.open_file(root, &root.to_string())
    }

    /// The outboard's file and size.
    ///
    /// # Errors
    /// There is no such resource, or it cannot be opened.
    pub fn open_outboard(&self, root: Root) -> Result<(File, u64), ResourceError> {
        self.open_file(root, &format!("{root}.obao"))
    }

    /// Every resource, by root. Unreadable entries are left out.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<ResourceInfo>, ResourceError> {
        let failed = |source| io_error(&self.folder, source);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok((file, _)) = open_regular(&path)
                && let Ok(info) = serde_json::from_reader::<_, ResourceInfo>(io::BufReader::new(file))
            {
                found.push(info);
            }
        }
        found.sort_by(|a, b| (&a.name, &a.root).cmp(&(&b.name, &b.root)));
        Ok(found)
    }

    fn open_file(&self, root: Root, name: &str) -> Result<(File, u64), ResourceError> {
        let path = self.folder.join(name);
        open_regular(&path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                ResourceError::Unknown(root.to_string())
            } else {
                io_error(&path, source)
            }
        })
    }
}

/// Content on its way in.
#[derive(Debug)]
pub struct Put {
    root: Root,
    name: String,
    file: tempfile::NamedTempFile,
    size: u64,
    bytes_max: u64,
    folder: PathBuf,
}

impl Put {
    /// Adds bytes.
    ///
    /// # Errors
    /// The resource grows beyond its bound, or the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ResourceError> {
        self.size = self.size.saturating_add(bytes.len().try_into().unwrap_or(u64::MAX));
        if self.size > self.bytes_max {
            return Err(ResourceError::TooLarge { max: self.bytes_max });
        }
        self.file.write_all(bytes).map_err(|source| io_error(self.file.path(), source))
    }

    /// Verifies the root, and makes content, outboard and description durable, in the order in which a reader may
    /// find them: the content's own name comes last.
    ///
    /// # Errors
    /// The content has another root, or the disk does not take it.
    pub fn finish(mut self, now_ms: i64) -> Result<ResourceInfo, ResourceError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| io_error(&path, source)
        };
        let content = self.file.path().to_owned();
        self.file.as_file_mut().sync_all().map_err(failed(&content))?;
        let reader = File::open(&content).map_err(failed(&content))?;
        let tree = BaoTree::new(self.size, BLOCK_SIZE);
        let room = vec![0; usize::try_from(tree.outboard_size()).unwrap_or(0)];
        let mut outboard = PreOrderMemOutboard { root: self.root.0, tree, data: room };
        outboard.root =
            sync::outboard(io::BufReader::new(reader), tree, &mut outboard).map_err(failed(&content))?;
        if outboard.root != self.root.0 {
            return Err(ResourceError::WrongRoot {
                got: outboard.root.to_hex().to_string(),
                wanted: self.root.to_string(),
            });
        }
        let info = ResourceInfo {
            root: self.root.to_string(),
            name: self.name,
            size: self.size,
            stored_at_ms: now_ms,
        };
        let description = serde_json::to_vec(&info).map_err(|error| failed(&content)(error.into()))?;
        persist(&self.folder, &format!("{}.obao", self.root), &outboard.into_inner_with_prefix())?;
        persist(&self.folder, &format!("{}.json", self.root), &description)?;
        let path = self.folder.join(self.root.to_string());
        self.file.persist(&path).map_err(|error| io_error(&path, error.error))?;
        sync_folder(&self.folder)?;
        Ok(info)
    }
}

/// Opens a file and returns its size, but nothing else that has a name: to open a named pipe waits for who writes to it.
fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    // Looked at once it is open, so that nothing can take its place in between. To a regular file the flag means nothing.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata.len()))
    } else {
        Err(io::Error::other("no regular file; take it away and put the resource again"))
    }
}

fn persist(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), ResourceError> {
    let path = folder.join(name);
    let failed = |source| io_error(&path, source);
    let mut file = tempfile::Builder::new().prefix("tmp-").tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| io_error(&path, error.error))?;
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<(), ResourceError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| io_error(folder, source))
}

fn io_error(path: &Path, source: io::Error) -> ResourceError {
    if source.kind() == io::ErrorKind::StorageFull {
        ResourceError::DiskFull
    } else {
        ResourceError::Io { path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(bytes: &[u8]) -> (tempfile::TempDir, Resources, Root) {
        let folder = tempfile::tempdir().unwrap();
        let resources = Resources::open(folder.path().join("resources"), 1_000_000).unwrap();
        let root = Root(blake3::hash(bytes));
        let mut put = resources.begin(root, "tool.bin").unwrap();
        bytes.chunks(1_000).for_each(|chunk| put.write(chunk).unwrap());
        put.finish(7).unwrap();
        (folder, resources, root)
    }

    #[test]
    fn content_comes_back_under_its_root_with_an_outboard_of_16_kib_groups() {
        for size in [0, 1, 16_384, 16_385, 100_000] {
            let bytes: Vec<u8> = (0..size).map(|i: u32| i.to_le_bytes()[0]).collect();

            let (_folder, resources, root) = stored(&bytes);

            let expected = PreOrderMemOutboard::create(&bytes, BLOCK_SIZE).into_inner_with_prefix();
            let read = |mut file: File| {
                let mut found = Vec::new();
                io::Read::read_to_end(&mut file, &mut found).unwrap();
                found
            };
            assert_eq!(read(resources.open_content(root).unwrap().0), bytes);
            assert_eq!(read(resources.open_outboard(root).unwrap().0), expected);
            assert_eq!(resources.list().unwrap().len(), 1);
        }
    }

    #[test]
    fn content_under_a_foreign_root_is_refused_and_leaves_nothing() {
        let (_folder, resources, root) = stored(b"right");
        let other = Root(blake3::hash(b"other"));
        let mut put = resources.begin(other, "x").unwrap();
        put.write(b"not that").unwrap();

        let error = put.finish(0).unwrap_err();

        assert!(matches!(error, ResourceError::WrongRoot { .. }));
        assert!(matches!(resources.open_content(other), Err(ResourceError::Unknown(_))));
        assert!(resources.open_content(root).is_ok());
        assert_eq!(
            std::fs::read_dir(&resources.folder).unwrap().count(),
            3,
            "content, outboard, description"
        );
    }

    #[test]
    fn a_resource_over_its_bound_is_refused_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let resources = Resources::open(folder.path().to_owned(), 10).unwrap();
        let mut put = resources.begin(Root(blake3::hash(b"")), "x").unwrap();

        assert!(put.write(&[0; 10]).is_ok());
        assert!(matches!(put.write(&[0]), Err(ResourceError::TooLarge { max: 10 })));
    }

    #[test]
    fn unfinished_puts_are_removed_at_start() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tmp-abc"), b"half").unwrap();

        Resources::open(folder.path().to_owned(), 10).unwrap();

        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_named_pipe_is_neither_served_nor_waited_for() {
        let (folder, resources, root) = stored(b"content");
        let pipe = |name: &str| {
            let path = folder.path().join("resources").join(name);
            std::fs::remove_file(&path).ok();
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        };
        for name in [root.to_string(), format!("{root}.obao"), format!("{root}.json"), "tmp-pipe".to_owned()]
        {
            pipe(&name);
        }

        let content = resources.open_content(root).unwrap_err();
        let outboard = resources.open_outboard(root).unwrap_err();
        let listed = resources.list().unwrap();
        let again = Resources::open(folder.path().join("resources"), 1_000);

        assert!(content.to_string().contains("no regular file"), "{content}");
        assert!(outboard.to_string().contains("no regular file"), "{outboard}");
        assert_eq!(listed.len(), 0);
        assert!(again.is_ok(), "{again:?}");
    }

    #[test]
    fn an_address_or_name_that_could_leave_the_folder_is_refused() {
        for text in ["../../etc/passwd", "", "ABCDEF", &"A".repeat(64), &"a".repeat(63)] {
            assert!(text.parse::<Root>().is_err(), "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let resources = Resources::open(folder.path().to_owned(), 10).unwrap();
        assert!(matches!(resources.begin(Root(blake3::hash(b"")), "a/b"), Err(ResourceError::BadName(_))));
    }
}
