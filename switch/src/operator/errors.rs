//! What the engine's and the gate's refusals are in gRPC.

use tonic::{Code, Status};

use crate::engine::EngineError;
use crate::gate::Denied;

impl From<EngineError> for Status {
    fn from(error: EngineError) -> Self {
        let code = match &error {
            EngineError::NotFound(_) => Code::NotFound,
            EngineError::NoTargets(_) => Code::OutOfRange,
            EngineError::InvalidArgument(_) => Code::InvalidArgument,
            EngineError::FailedPrecondition(_) => Code::FailedPrecondition,
            EngineError::NotPrepared(_) => Code::Aborted,
            EngineError::PermissionDenied(_) => Code::PermissionDenied,
            EngineError::ResourceExhausted(_) => Code::ResourceExhausted,
            EngineError::Damaged(_) => Code::DataLoss,
            EngineError::Closed => Code::Unavailable,
            EngineError::Internal(_) => Code::Internal,
        };
        if matches!(code, Code::Internal | Code::DataLoss) {
            tracing::error!(%error, "operator call");
        }
        Self::new(code, fit(error.to_string()))
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unauthenticated => Self::unauthenticated(denied.to_string()),
            Denied::WrongRole { .. } | Denied::NotGranted { .. } => {
                Self::permission_denied(denied.to_string())
            }
        }
    }
}

/// The longest message of a status. It travels in a header, percent-encoded, and peers cap headers at 16 KiB or less.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Cuts a message to what fits a header.
fn fit(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_words() {
        let status = Status::from(EngineError::FailedPrecondition(
            "the prepared order has expired: prepare again".to_owned(),
        ));

        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "the prepared order has expired: prepare again");
    }

    #[test]
    fn an_order_that_does_not_wait_here_is_to_be_prepared_again_and_breaks_no_precondition() {
        let status = Status::from(EngineError::NotPrepared("prepare it again".to_owned()));

        assert_eq!(status.code(), Code::Aborted);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let status = Status::from(EngineError::InvalidArgument("ü".repeat(4000)));

        assert!(status.message().len() <= MESSAGE_BYTES_MAX + '…'.len_utf8());
        assert!(status.message().ends_with("ü…"));
    }
}
