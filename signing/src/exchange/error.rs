//! [`ExchangeError`].

use muster_proto::ids::Digest;

use super::LIST_BYTES_MAX;

/// Characters of what was found that an error repeats: it may be anything.
const SHOWN_CHARS_MAX: usize = 200;

/// Why a list is not made or not taken, or a pack that it names is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// More than a list may be.
    #[error("a list of {got} bytes; wanted at most {LIST_BYTES_MAX}: make two lists")]
    TooLarge {
        /// Its bytes.
        got: usize,
    },
    /// It is no list of this form.
    #[error("no list of packs: {0}; `muster-sign exchange build` makes one")]
    Form(String),
    /// What it says of a pack cannot be.
    #[error("pack {pack}: {problem}")]
    Pack {
        /// Name and version; control characters are escaped.
        pack: String,
        /// What is wrong.
        problem: String,
    },
    /// A text that is no path of a pack.
    #[error(
        "`{0}` is no path below the list's folder: wanted names of letters, digits and `._+-` with `/` between them, none of which \
         begins with `.`, such as packs/basics.pack; a pack lies on the server of its list"
    )]
    Path(String),
    /// More came of a pack than the list says.
    #[error("more than the {wanted} bytes that the list says; the rest was not taken")]
    TooLong {
        /// As many bytes as the list says.
        wanted: u64,
    },
    /// Less came of a pack than the list says.
    #[error("{got} bytes; the list says {wanted}: it was cut off")]
    TooShort {
        /// As many bytes as came.
        got: u64,
        /// As many bytes as the list says.
        wanted: u64,
    },
    /// Other bytes came than the list says.
    #[error("SHA-256 {got}; the list says {wanted}: it is another file, or the list is an old one")]
    Differs {
        /// That of what came.
        got: Digest,
        /// That of the list.
        wanted: Digest,
    },
    /// The pack, which its own signer vouches for, is not the one that the list tells of.
    #[error("the list tells of {listed}, and what it gives is {found}: they differ in {differing}")]
    Other {
        /// Name and version in the list.
        listed: String,
        /// Name and version in the pack.
        found: String,
        /// The fields.
        differing: String,
    },
}

impl ExchangeError {
    pub(super) fn form(problem: &str) -> Self {
        Self::Form(shown(problem))
    }

    pub(super) fn pack(pack: &str, problem: String) -> Self {
        Self::Pack { pack: shown(pack), problem }
    }
}

/// The beginning of a foreign text, on one line.
pub(super) fn shown(text: &str) -> String {
    let beginning: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    beginning.escape_debug().to_string()
}
