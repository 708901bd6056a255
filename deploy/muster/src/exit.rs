//! What the command line's exit codes mean, and how a failure becomes one.

use std::process::ExitCode;

use crate::output;

/// The exit codes that scripts may rely on (DESIGN.md, CLI).
///
/// Of a signed document that is refused: [`Self::Usage`] if its file is not there, [`Self::Refused`] if it is none or its text will not do,
/// [`Self::Denied`] if it is not to be trusted: its signature, its signer, a serial that goes back, another organisation. The same holds of definitions,
/// packs, licences and policies. What is wrong with the files of this machine, such as an order key, is [`Self::Refused`]: nobody denied anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Ok,
    /// What was asked about was refused or unhealthy (`pki check`, `doctor`), a document is none, or a file here is of no use.
    Refused,
    /// What was typed is wrong, or names what is not there.
    Usage,
    /// Not every target answered, something of an answer was left out, or some of several things are done.
    Partial,
    /// Permission, licence or trust forbids it.
    Denied,
    /// The Switch or the Background Channel does not answer.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0_u8,
            Exit::Refused => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::Denied => 4,
            Exit::Unreachable => 5,
        })
    }
}

/// A command that could not be done: the exit code, what was wrong, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    next: Option<String>,
}

impl Failure {
    /// Creates a failure.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), next: None }
    }

    /// What was typed is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Forbidden.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(Exit::Denied, message)
    }

    /// Nobody answers.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
    }

    /// A file is no signed document.
    pub(crate) fn no_document(why: impl std::fmt::Display) -> Self {
        Self::new(Exit::Refused, why.to_string())
    }

    /// What the Switch said of a signed document. Nobody typed what is wrong with its text.
    pub(crate) fn of_document(status: tonic::Status) -> Self {
        let failure = Self::from(status);
        match failure.exit {
            Exit::Usage => Self { exit: Exit::Refused, ..failure },
            Exit::Ok | Exit::Refused | Exit::Partial | Exit::Denied | Exit::Unreachable => failure,
        }
    }

    /// Adds the next thing to type or do.
    pub(crate) fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Says that an instruction was submitted before this went wrong: it goes on, and this is how to see it.
    pub(crate) fn after_submit(self, instruction: &str) -> Self {
        Self {
            message: format!("{}; instruction {instruction} was submitted and goes on", self.message),
            ..self
        }
        .with_next(format!("muster instruction watch {instruction}"))
    }

    /// Some of several things are done all the same; says which.
    pub(crate) fn after_some(self, done: &str) -> Self {
        Self { exit: Exit::Partial, ..self }.adding(done)
    }

    /// Says which of several things it is about.
    pub(crate) fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Says what follows from it.
    pub(crate) fn adding(mut self, what: &str) -> Self {
        self.message = format!("{}; {what}", self.message.trim_end());
        self
    }

    /// Says which file it is about.
    pub(crate) fn in_file(self, file: &std::path::Path) -> Self {
        self.about(&file.display().to_string())
    }

    /// The next thing to type or do, where there is one.
    pub(crate) fn next(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints it to standard error and gives the process's exit code.
    pub(crate) fn report(&self) -> ExitCode {
        // Some of it may be a server's or a file's words.
        let shown = |text: &str| text.lines().map(output::printable).collect::<Vec<_>>().join("\n");
        output::note(&format!("error: {}", shown(self.message.trim())));
        if let Some(next) = &self.next {
            output::note(&format!("  try: {}", shown(next)));
        }
        self.exit.into()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::new(Exit::Refused, format!("{error:#}")),
        }
    }
}

impl std::error::Error for Failure {}

impl From<tonic::Status> for Failure {
    /// Maps what the Switch said; its messages already name the fix. What it did not say, since the connection broke, has
    /// a code that was made up on this side, and a source; a status from the wire has none.
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        if std::error::Error::source(&status).is_some() {
            let message = format!("the connection to the Switch broke: {}", status.message());
            return Self::unreachable(message).with_next("muster doctor");
        }
        let exit = match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists => Exit::Usage,
            // The audience holds no device: nothing is wrong, and nobody answers.
            Code::OutOfRange => Exit::Partial,
            Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition => Exit::Denied,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Exit::Unreachable,
            Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unknown
            | Code::DataLoss
            | Code::Unimplemented
            | Code::Ok => Exit::Refused,
        };
        let failure = Self::new(exit, status.message());
        match exit {
            Exit::Unreachable => failure.with_next("muster doctor"),
            Exit::Ok | Exit::Refused | Exit::Usage | Exit::Partial | Exit::Denied => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn a_documents_text_is_refused_its_signer_is_denied_and_neither_was_typed() {
        let of_document = |status| Failure::of_document(status).exit();

        assert_eq!(of_document(Status::invalid_argument("an aggregate that cannot run")), Exit::Refused);
        assert_eq!(of_document(Status::permission_denied("the signature does not verify")), Exit::Denied);
        assert_eq!(of_document(Status::failed_precondition("a serial never goes back")), Exit::Denied);
        assert_eq!(of_document(Status::unavailable("away")), Exit::Unreachable);
        assert_eq!(Failure::no_document("neither PEM nor DER").exit(), Exit::Refused);
        assert_eq!(Failure::from(Status::invalid_argument("an audience")).exit(), Exit::Usage);
    }
}
