//! Why the engine did not do what it was asked.

use super::store::StoreError;

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no thread or timer.
    #[error("the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why the engine ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineEnd {
    /// It was told to.
    #[error("the engine was closed")]
    Closed,
    /// The store can promise nothing any more. Nothing unpromised was acked.
    #[error("{says}")]
    Store {
        /// What is wrong with it, and what to do.
        says: String,
        /// Whether a restart may help.
        exit_code: u8,
    },
    /// The writer's thread panicked.
    #[error("the writer's thread panicked; its log line says where")]
    Panicked,
}

impl From<&StoreError> for EngineEnd {
    fn from(error: &StoreError) -> Self {
        Self::Store { says: error.to_string(), exit_code: error.exit_code() }
    }
}

/// Why a call was refused. Each variant knows what it means to a caller of the operator API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// There is no such instruction, device or definition, or its results have been deleted (`NOT_FOUND`).
    #[error("{0}")]
    NotFound(String),
    /// The audience is well written and holds no device (`OUT_OF_RANGE`, so that a caller can tell it from a mistake).
    #[error("{0}")]
    NoTargets(String),
    /// What was sent is wrong and stays wrong, such as an audience that doesn't parse (`INVALID_ARGUMENT`). The text
    /// may have several lines and point into what was typed.
    #[error("{0}")]
    InvalidArgument(String),
    /// It may work later, after what the text says is done (`FAILED_PRECONDITION`).
    #[error("{0}")]
    FailedPrecondition(String),
    /// The order is not one that waits here, as after a restart: nothing is denied, and preparing another works (`ABORTED`).
    #[error("{0}")]
    NotPrepared(String),
    /// The signer or caller may not do it (`PERMISSION_DENIED`).
    #[error("{0}")]
    PermissionDenied(String),
    /// The disk or a queue is full (`RESOURCE_EXHAUSTED`).
    #[error("{0}")]
    ResourceExhausted(String),
    /// What is asked for is damaged on disk and was set aside (`DATA_LOSS`).
    #[error("{0}")]
    Damaged(String),
    /// The engine stops or has stopped (`UNAVAILABLE`).
    #[error("the switch is stopping; try again when it is back")]
    Closed,
    /// The engine failed on its own account (`INTERNAL`).
    #[error("{0}")]
    Internal(String),
}

impl EngineError {
    /// Says which of several things it is about.
    pub(crate) fn about(self, what: &str) -> Self {
        let told = |text: String| format!("{what}: {text}");
        match self {
            Self::NotFound(text) => Self::NotFound(told(text)),
            Self::NoTargets(text) => Self::NoTargets(told(text)),
            Self::InvalidArgument(text) => Self::InvalidArgument(told(text)),
            Self::FailedPrecondition(text) => Self::FailedPrecondition(told(text)),
            Self::NotPrepared(text) => Self::NotPrepared(told(text)),
            Self::PermissionDenied(text) => Self::PermissionDenied(told(text)),
            Self::ResourceExhausted(text) => Self::ResourceExhausted(told(text)),
            Self::Damaged(text) => Self::Damaged(told(text)),
            Self::Internal(text) => Self::Internal(told(text)),
            Self::Closed => Self::Closed,
        }
    }

    /// Returns whether the same call may succeed later without anyone changing it.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::ResourceExhausted(_) | Self::Closed => true,
            Self::NotFound(_)
            | Self::NoTargets(_)
            | Self::InvalidArgument(_)
            | Self::FailedPrecondition(_)
            | Self::NotPrepared(_)
            | Self::PermissionDenied(_)
            | Self::Damaged(_)
            | Self::Internal(_) => false,
        }
    }
}

/// Says what is wrong with something that a person typed, with the place pointed at.
pub(crate) fn invalid(error: &dyn miette::Diagnostic) -> EngineError {
    let mut text = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
    match handler.with_links(false).render_report(&mut text, error) {
        Ok(()) => EngineError::InvalidArgument(text.trim().to_owned()),
        Err(_) => EngineError::InvalidArgument(error.to_string()),
    }
}
