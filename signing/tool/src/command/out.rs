//! Where a command writes: never over what it reads, nor over what somebody else has there.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use muster_signing::envelope::{self, ContentType};
use muster_signing::exchange::Exchange;
use muster_signing::pack::INDEX_PATH;
use muster_signing::timestamp::Request;

use super::read;
use crate::cli::{Judged, SignerFiles, StampAtOnce};
use crate::{FileKind, read_envelope};

/// A place that may be written to. Nothing else is: [`super::write`] and [`super::whole::Whole`] take no bare path.
#[derive(Debug)]
pub(super) struct Out(PathBuf);

/// What a command writes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Product {
    /// An envelope.
    Envelope(ContentType),
    /// A pack.
    Pack,
    /// The list of an exchange.
    Exchange,
    /// A question for a timestamp authority.
    TimestampRequest,
}

impl Out {
    /// Judges the path that `argument` gave: it is none of `sources`, and what is there already, if anything, is a `product`, too. A key,
    /// a certificate or an authored text that a slip of the pen names would be gone.
    pub(super) fn new(
        argument: &str,
        path: &Path,
        product: Product,
        sources: &Sources,
    ) -> anyhow::Result<Self> {
        let named = path.display();
        if let Some((source, _)) = sources.0.iter().find(|(_, source)| is_same(path, source)) {
            anyhow::bail!("{argument} {named}: names the file of {source}; wanted a file of its own");
        }
        match std::fs::metadata(path) {
            Ok(there) if there.is_file() && there.len() > 0 && !product.is_at(path) => anyhow::bail!(
                "{argument} {named}: there is a file already, and it is no {}; it is not replaced: give another name, or remove it",
                product.name()
            ),
            Ok(_) | Err(_) => Ok(Self(path.to_owned())),
        }
    }

    /// The same file that a command read, for one that changes a document in its place.
    pub(super) fn in_place(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Product {
    const fn name(self) -> &'static str {
        match self {
            Self::Envelope(kind) => kind.name(),
            Self::Pack => "pack",
            Self::Exchange => "list of an exchange",
            Self::TimestampRequest => "timestamp request",
        }
    }

    /// Returns whether a file is such a product; whose, and whether it is good, does not matter.
    fn is_at(self, path: &Path) -> bool {
        match self {
            Self::Envelope(kind) => read(path, FileKind::ENVELOPE)
                .is_ok_and(|bytes| content_type(&bytes).is_some_and(|found| found == kind)),
            Self::Pack => is_pack(path).unwrap_or(false),
            Self::Exchange => {
                read(path, FileKind::EXCHANGE).is_ok_and(|bytes| Exchange::parse(&bytes).is_ok())
            }
            Self::TimestampRequest => {
                read(path, FileKind::TIMESTAMP).is_ok_and(|bytes| Request::nonce_of(&bytes).is_ok())
            }
        }
    }
}

fn content_type(bytes: &[u8]) -> Option<ContentType> {
    Some(envelope::inspect(&read_envelope(bytes).ok()?).ok()?.content_type)
}

/// A pack begins with the name of its index (tar).
fn is_pack(path: &Path) -> std::io::Result<bool> {
    use std::io::Read as _;

    let mut start = vec![0; INDEX_PATH.len() + 1];
    std::fs::File::open(path)?.read_exact(&mut start)?;
    Ok(start.strip_prefix(INDEX_PATH.as_bytes()) == Some(&[0]))
}

/// The files that a command reads, each with the argument that names it.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<(&'static str, PathBuf)>);

impl Sources {
    /// No files but these.
    pub(super) fn of<'a>(argument: &'static str, files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        Self::default().and(argument, files)
    }

    /// These files, too.
    pub(super) fn and<'a>(
        mut self,
        argument: &'static str,
        files: impl IntoIterator<Item = &'a PathBuf>,
    ) -> Self {
        self.0.extend(files.into_iter().map(|file| (argument, file.clone())));
        self
    }

    /// What opens a key, too.
    pub(super) fn and_signer(self, signer: &SignerFiles) -> Self {
        self.and("--key", &signer.key.files())
            .and("--cert", &signer.cert)
            .and("--key-password-file", &signer.key_password_file)
            .and("--pkcs11-module", &signer.pkcs11_module)
    }

    /// What a timestamp is believed by, too.
    pub(super) fn and_stamp(self, stamp: &StampAtOnce) -> Self {
        self.and("--timestamp-roots", &stamp.timestamp_roots)
    }

    /// What signatures are judged by, too.
    pub(super) fn and_judged(self, roots: &Option<PathBuf>, judged: &Judged) -> Self {
        self.and("--roots", roots).and("--timestamp-roots", &judged.timestamp_roots).and("--crl", &judged.crl)
    }
}

/// Returns whether two paths name one file, through links and `..`, too, or would where neither is there yet.
fn is_same(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        // One terminal is no file that could be lost.
        (Ok(one), Ok(other)) => one.is_file() && known_by(&one) == known_by(&other),
        (Err(_), Err(_)) => place(one).is_some_and(|one| place(other) == Some(one)),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

fn known_by(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Returns where a file would be made.
fn place(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(std::fs::canonicalize(folder).ok()?.join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_known_under_all_its_names_and_before_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a"), "a").unwrap();
        std::fs::write(at("b"), "a").unwrap();
        std::fs::create_dir(at("d")).unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        std::fs::hard_link(at("a"), at("hard")).unwrap();

        for other in ["a", "d/../a", "link", "hard"] {
            assert!(is_same(&at("a"), &at(other)), "{other}");
        }
        assert!(is_same(&at("new"), &at("d/../new")));
        for (one, other) in [("a", "b"), ("a", "new"), ("new", "newer"), ("d", "d")] {
            assert!(!is_same(&at(one), &at(other)), "{one} {other}");
        }
        assert!(!is_same(Path::new("/dev/null"), Path::new("/dev/null")));
    }

    #[test]
    fn what_is_there_is_replaced_by_its_own_kind_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let judged = |product| Out::new("--out", &path, product, &Sources::default());
        for product in [
            Product::Envelope(ContentType::Definition),
            Product::Pack,
            Product::Exchange,
            Product::TimestampRequest,
        ] {
            judged(product).unwrap();
            std::fs::write(&path, "").unwrap();
            judged(product).unwrap();
            std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\n").unwrap();
            let refused = judged(product).unwrap_err().to_string();
            assert!(refused.contains("there is a file already, and it is no "), "{refused}");
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::write(&path, "index.cms\0").unwrap();
        judged(Product::Pack).unwrap();
        std::fs::write(&path, "index.cmsX").unwrap();
        judged(Product::Pack).unwrap_err();
    }
}
