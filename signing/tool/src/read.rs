//! Files that are read whole. Each kind has a bound, looked at before anything is read: what is larger is never held, and what has no end
//! (a device, a file that grows) ends at it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use muster_pki::{CRL_BYTES_MAX, pfx::PFX_BYTES_MAX, trust_store::INPUT_BYTES_MAX};
use muster_signing::envelope::ENVELOPE_BYTES_MAX;
use muster_signing::exchange::LIST_BYTES_MAX;
use muster_signing::timestamp::TOKEN_BYTES_MAX;

/// What a file is read as, and how large such a file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKind {
    wanted: &'static str,
    bytes_max: usize,
}

impl FileKind {
    /// An envelope, in DER or PEM, which is a third longer and has some lines around it.
    pub const ENVELOPE: Self = Self::new("an envelope", 2 * ENVELOPE_BYTES_MAX);
    /// An authored text, or the envelope that it may have become.
    pub const DOCUMENT: Self =
        Self::new("an authored text (TOML) or an envelope with one", 2 * ENVELOPE_BYTES_MAX);
    /// Certificates: roots, or a signer's with those above it.
    pub const CERTIFICATES: Self = Self::new("certificates (PEM)", INPUT_BYTES_MAX);
    /// A CRL, or several.
    pub const CRL: Self = Self::new("a CRL (PEM or DER)", CRL_BYTES_MAX);
    /// A signing key, or its certificates.
    pub const KEY: Self = Self::new("a key or its certificates (PEM, or a PFX)", PFX_BYTES_MAX);
    /// What a timestamp authority is asked, or answers.
    pub const TIMESTAMP: Self = Self::new("a timestamp authority's request or answer (DER)", TOKEN_BYTES_MAX);
    /// The list of an exchange.
    pub const EXCHANGE: Self = Self::new("the list of an exchange (JSON)", LIST_BYTES_MAX);

    /// A kind of at most so many bytes; `wanted` says what it is, with its article.
    #[must_use]
    pub const fn new(wanted: &'static str, bytes_max: usize) -> Self {
        Self { wanted, bytes_max }
    }
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system does not give it.
    #[error("{}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not. No `source`: whoever prints causes would say it twice.
        problem: std::io::Error,
    },
    /// No file of its kind is that large.
    #[error("{}: {size} bytes; wanted {wanted} of at most {max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, or `more than` what was read.
        size: String,
        /// What was expected.
        wanted: &'static str,
        /// Most bytes of its kind.
        max: usize,
    },
    /// It is to be a text.
    #[error("{}: not UTF-8; wanted {wanted}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What was expected.
        wanted: &'static str,
    },
}

impl FileError {
    /// Returns whether it is too large for its kind.
    #[must_use]
    pub const fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }

    /// Returns whether there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Read { problem, .. } => problem.kind() == std::io::ErrorKind::NotFound,
            Self::TooLarge { .. } | Self::NotText { .. } => false,
        }
    }
}

/// Reads a file of a kind.
///
/// # Errors
/// It is not there, cannot be read, or is larger than any of its kind.
pub fn read_file(path: &Path, kind: FileKind) -> Result<Vec<u8>, FileError> {
    let opened = File::open(path).map_err(|problem| FileError::Read { path: path.to_owned(), problem })?;
    read_opened(&opened, path, kind)
}

/// Reads a text of a kind.
///
/// # Errors
/// As [`read_file`], or it is not UTF-8.
pub fn read_text(path: &Path, kind: FileKind) -> Result<String, FileError> {
    let not_text = |_| FileError::NotText { path: path.to_owned(), wanted: kind.wanted };
    String::from_utf8(read_file(path, kind)?).map_err(not_text)
}

/// Reads a file that is open, from where it stands.
pub(crate) fn read_opened(file: &File, path: &Path, kind: FileKind) -> Result<Vec<u8>, FileError> {
    let failed = |problem| FileError::Read { path: path.to_owned(), problem };
    let too_large = |size: String| FileError::TooLarge {
        path: path.to_owned(),
        size,
        wanted: kind.wanted,
        max: kind.bytes_max,
    };
    let max = u64::try_from(kind.bytes_max).unwrap_or(u64::MAX);
    // Of a device or a pipe it says nothing.
    let size = file.metadata().map_err(failed)?.len();
    if size > max {
        return Err(too_large(size.to_string()));
    }
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > kind.bytes_max {
        return Err(too_large(format!("more than {}", kind.bytes_max)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: FileKind = FileKind::new("a little", 8);

    #[test]
    fn a_file_of_its_bound_is_read_and_a_larger_one_is_told_with_name_size_bound_and_what_was_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_file(&path, KIND).map_err(|error| error.to_string())
        };

        assert_eq!(read(b"12345678").as_deref(), Ok(&b"12345678"[..]));
        assert_eq!(
            read(b"123456789"),
            Err(format!("{}: 9 bytes; wanted a little of at most 8 bytes", path.display()))
        );
        File::create(&path).unwrap().set_len(100 << 30).unwrap();
        let sparse = read_file(&path, FileKind::CRL).unwrap_err().to_string();
        assert!(sparse.contains("107374182400 bytes; wanted a CRL"), "{sparse}");
    }

    #[test]
    fn what_has_no_end_ends_at_the_bound() {
        let endless = read_file(Path::new("/dev/zero"), KIND).unwrap_err().to_string();

        assert_eq!(endless, "/dev/zero: more than 8 bytes; wanted a little of at most 8 bytes");
        assert_eq!(read_file(Path::new("/dev/null"), KIND).unwrap(), b"");
    }

    #[test]
    fn what_is_not_there_or_no_text_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let missing = read_text(&path, KIND).unwrap_err();
        std::fs::write(&path, b"\xff").unwrap();
        let bytes = read_text(&path, KIND).unwrap_err();

        assert!(missing.is_missing() && missing.to_string().contains("file: No such file"), "{missing}");
        assert!(!bytes.is_missing() && bytes.to_string().ends_with("file: not UTF-8; wanted a little"));
    }
}
