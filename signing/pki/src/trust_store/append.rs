//! [`append`]: one more certificate for `cainfo.pem`, which is never overwritten (T1, T7).

use super::inputs::INPUT_BYTES_MAX;
use super::merge::{Problem, certificate, items, shown};
use crate::certificate::Certificate;
use crate::identity::NamedBytes;

/// What became of a certificate that was to be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Appended {
    /// The file's new content: the old bytes, unchanged, and the certificate behind them.
    Changed(Vec<u8>),
    /// It stands there already.
    AlreadyThere,
}

/// Appends `certificate` to the PEM file `existing`, behind a comment with `note` (where it came from).
///
/// # Errors
/// The file is DER, PFX, UTF-16 or full: appending to it would spoil it.
pub fn append(existing: NamedBytes<'_>, new: &Certificate, note: &str) -> Result<Appended, AppendError> {
    let NamedBytes { what, bytes } = existing;
    let blocks = items(bytes, what).map_err(AppendError)?;
    if blocks.into_iter().any(|item| certificate(item).is_ok_and(|known| known == *new)) {
        return Ok(Appended::AlreadyThere);
    }
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = bytes {
        let text = "UTF-16; wanted UTF-8 or ASCII; convert it: `iconv -f UTF-16 -t UTF-8`".to_owned();
        return Err(AppendError(Problem::new(what, None, text)));
    }
    let mut content = bytes.to_vec();
    if content.last().is_some_and(|last| *last != b'\n') {
        content.push(b'\n');
    }
    let comment = format!("# {}: {}\n# SHA-256 {}\n", shown(note), shown(new.subject()), new.thumbprint());
    content.extend_from_slice(comment.as_bytes());
    content.extend_from_slice(new.pem().as_bytes());
    if content.len() > INPUT_BYTES_MAX {
        let text = format!(
            "would have {} bytes; wanted at most {INPUT_BYTES_MAX}; remove old certificates",
            content.len()
        );
        return Err(AppendError(Problem::new(what, None, text)));
    }
    Ok(Appended::Changed(content))
}

/// Why nothing can be appended to a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AppendError(Problem);
