//! A client's trust store: PEM files outside the system's store (T1 to T11).
//!
//! ```text
//! cainfo.pem ─┐
//! cainfo-ss.pem ─┼─► merge ──► text of cainfo-merged.pem ──► TrustStore::read ──► check_server ──► which anchor matched
//! policy's CA file ─┘   └── inputs_fingerprint, rebuild_reason: when to do it again
//! ```
//! Everything here is bytes in, text or verdict out. Reading files with their permissions and writing atomically (T10) is
//! the file side's; [`FileProblem`] has its words. Start with [`merge`] and [`TrustStore`].

mod append;
pub mod fingerprint;
mod inputs;
mod merge;
mod server;
mod settings;
mod store;

pub use self::append::{AppendError, Appended, append};
pub use self::inputs::{
    FileProblem, INPUT_BYTES_MAX, Input, Inputs, InputsFingerprint, InputsFingerprintError,
    inputs_fingerprint,
};
pub use self::merge::{ANCHORS_MAX, MergeError, Merged, Problem, RebuildReason, merge, rebuild_reason};
pub use self::server::{Matched, MatchedAnchor, ServerVerdict};
pub use self::settings::{PeerVerification, TrustFields, TrustSettings, TrustSettingsError, YesNo};
pub use self::store::{Anchor, AnchorKind, TrustStore, TrustStoreError};

/// The server's certificate, saved at install, and what people added; appended to, never overwritten (T1).
pub const SERVER_FILE: &str = "cainfo.pem";
/// Site servers' certificates (T1, T7).
pub const SITE_SERVERS_FILE: &str = "cainfo-ss.pem";
/// What is made of both and the policy's CA file; hand edits are lost (T2).
pub const MERGED_FILE: &str = "cainfo-merged.pem";
