//! Why a client cannot start, and why it ends on its own.

use std::io;
use std::path::{Path, PathBuf};

use muster_service::config::Invalid;
use muster_service::credentials::CredentialError;

use crate::files::{Shared, WrongKind};
use crate::instructions::TrustError;
use crate::key::KeyError;
use crate::store::StoreError;
use crate::url::UrlError;

/// Why a client cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key of the configuration is wrong.
    #[error("{}: {}", .0.key(), .0.problem())]
    Config(Invalid),
    /// An address is wrong.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A file or a folder of `data_dir` cannot be used.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// Something stands where a file or a folder of another kind belongs.
    #[error(transparent)]
    WrongKind(#[from] WrongKind),
    /// `data_dir` is a folder that others may enter, and nothing says that it is the client's.
    #[error(transparent)]
    Shared(#[from] Shared),
    /// Another client uses the same `data_dir`.
    #[error("{path}: another client runs in this data_dir; stop it, or give this one a data_dir of its own")]
    Taken {
        /// The lock.
        path: PathBuf,
    },
    /// The device's certificate or the servers' roots cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The key of a device without a certificate cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate names no device, or another one than the configuration.
    #[error("tls.certificate: {0}")]
    Identity(String),
    /// The roots or lists that signatures are judged by cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The policy that is followed cannot be, as things are on this device.
    #[error(
        "policy {serial}: {cause}; mend that, or take the policies' roots out of trust.policies: then the client is as it was installed"
    )]
    Policy {
        /// Its serial.
        serial: u64,
        /// What is in the way.
        cause: String,
    },
    /// The disk of `data_dir` is full.
    #[error(
        "{path}: the disk is full; free some space and start the client again, and keep every file there"
    )]
    DiskFull {
        /// The folder.
        path: PathBuf,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StartError {
    /// Whether there was no room for a file or for the store.
    pub(super) fn is_full_disk(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::DiskFull),
            Self::File { cause, .. } | Self::Key(KeyError::File { cause, .. }) => {
                cause.kind() == io::ErrorKind::StorageFull
            }
            Self::DiskFull { .. } => true,
            Self::Config(_)
            | Self::Url(_)
            | Self::WrongKind(_)
            | Self::Shared(_)
            | Self::Taken { .. }
            | Self::Credentials(_)
            | Self::Identity(_)
            | Self::Key(KeyError::Shared { .. } | KeyError::Unusable { .. })
            | Self::Trust(_)
            | Self::Policy { .. } => false,
        }
    }
}

/// Why a client ended on its own.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store broke: nothing can be promised any more.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task of the client panicked.
    #[error("a task ended with a panic: {0}")]
    Task(String),
}

pub(super) fn in_file(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |cause| StartError::File { path, cause }
}
