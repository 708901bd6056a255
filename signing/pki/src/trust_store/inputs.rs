//! What a trust store is merged from, and a hash that tells whether any of it changed (T1, T2, T10).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

use crate::identity::NamedBytes;

/// Largest file that is merged, in bytes; all roots of a browser have 0.3 MiB.
pub const INPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Separates this hash from all others, and one way of merging from the next: another one rebuilds every store.
const HASH_DOMAIN: &[u8] = b"muster trust store inputs 1\0";

/// One of the files to merge.
#[derive(Debug, Clone, Copy, Default)]
pub enum Input<'a> {
    /// There is none, and none is expected.
    #[default]
    Absent,
    /// Its bytes.
    File(NamedBytes<'a>),
    /// It is expected, but the file side refused or could not read it.
    Unusable {
        /// The file's path.
        what: &'a str,
        /// Why.
        problem: &'a FileProblem,
    },
}

/// The files to merge, in the order of T1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    /// `cainfo.pem`: the server's certificate, and what people added.
    pub server: Input<'a>,
    /// `cainfo-ss.pem`: site servers.
    pub site_servers: Input<'a>,
    /// The CA file that the policy names (T9).
    pub policy: Input<'a>,
}

impl<'a> Inputs<'a> {
    pub(super) fn in_order(&self) -> [Input<'a>; 3] {
        [self.server, self.site_servers, self.policy]
    }
}

/// Hashes the content of all inputs: a caller that finds another value than the merged file names rebuilds it (T2).
#[must_use]
pub fn inputs_fingerprint(inputs: &Inputs<'_>) -> InputsFingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(HASH_DOMAIN);
    for input in inputs.in_order() {
        match input {
            Input::Absent => context.update(&[0]),
            Input::File(NamedBytes { what, bytes }) => {
                context.update(&[1]);
                update(&mut context, what.as_bytes());
                update(&mut context, bytes);
            }
            Input::Unusable { what, problem } => {
                context.update(&[2]);
                update(&mut context, what.as_bytes());
                update(&mut context, problem.to_string().as_bytes());
            }
        }
    }
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    InputsFingerprint(hash)
}

/// Adds a length and the bytes, so that no two inputs run into each other.
fn update(context: &mut digest::Context, bytes: &[u8]) {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    context.update(&length.to_be_bytes());
    context.update(bytes);
}

/// SHA-256 over names and contents of all inputs; shown as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InputsFingerprint([u8; 32]);

/// How the text begins.
const PREFIX: &str = "sha256:";

impl fmt::Display for InputsFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for InputsFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InputsFingerprint({self})")
    }
}

impl FromStr for InputsFingerprint {
    type Err = InputsFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || InputsFingerprintError(text.chars().take(80).collect());
        let mut hash = [0; 32];
        let digits = text.strip_prefix(PREFIX).ok_or_else(wrong)?;
        hex::decode_to_slice(digits, &mut hash).map_err(|_| wrong())?;
        Ok(Self(hash))
    }
}

/// A text that is no [`InputsFingerprint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no hash of inputs; wanted `sha256:` and 64 hex digits")]
pub struct InputsFingerprintError(String);

/// Why the file side does not hand an input over (T10).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// The policy names it, and it is not there.
    #[error("does not exist; wanted the CA file that the policy names; put it there, or correct `ca_file`")]
    Missing,
    /// Everyone on the machine may add anchors to it.
    #[error(
        "can be written by everyone (mode {mode:04o}); wanted its owner alone to write; `chmod o-w` it, then look through it"
    )]
    WorldWritable {
        /// Its permission bits.
        mode: u32,
    },
    /// A folder, a device, a socket.
    #[error("is no regular file; wanted a PEM file")]
    NotAFile,
    /// The path depends on the working directory.
    #[error("is a relative path; wanted one that begins at the root of the file system")]
    Relative,
    /// The system's reason.
    #[error("cannot be read: {0}; see that the client's user may read it")]
    Unreadable(String),
}

impl FileProblem {
    /// Judges a file's permission bits, as `stat` gives them: the one rule of T10 for files and their folders.
    #[must_use]
    pub const fn of_mode(mode: u32) -> Option<Self> {
        const OTHERS_WRITE: u32 = 0o002;
        if mode & OTHERS_WRITE == 0 { None } else { Some(Self::WorldWritable { mode: mode & 0o7777 }) }
    }
}
