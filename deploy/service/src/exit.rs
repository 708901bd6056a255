//! Exit codes of the services, and the one place that prints why a start was refused.
//!
//! The codes above 63 are those of BSD's `sysexits.h`, which systemd shows by name.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use crate::config::ConfigErrors;
use crate::telemetry::escape_controls;

/// Ended as asked.
pub const OK: u8 = 0;
/// Ended by a fault at run time; the last log line says which.
pub const FAILURE: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// `EX_UNAVAILABLE`: something needed is taken or absent, such as a busy port.
pub const UNAVAILABLE: u8 = 69;
/// `EX_CONFIG`: the configuration, a file it names, or the store must be changed first; a restart cannot help.
pub const CONFIG: u8 = 78;

/// Why a program did not run, or did not end as asked: what to print, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Ended {
    text: String,
    code: u8,
}

impl Ended {
    /// Tells `error` and its causes, to end with `code`.
    #[must_use]
    pub fn new(code: u8, error: &dyn Error) -> Self {
        Self { text: describe(error), code }
    }

    /// Returns the exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }
}

/// Prints file, line, key and problem of every mistake to standard error, a line each, and returns [`CONFIG`].
#[must_use]
pub fn refuse_config(program: &str, errors: &ConfigErrors) -> ExitCode {
    for line in errors.to_string().lines() {
        print_error(program, line);
    }
    ExitCode::from(CONFIG)
}

/// Prints `error` and what caused it to standard error, and returns `code`.
#[must_use]
pub fn refuse(program: &str, error: &dyn Error, code: u8) -> ExitCode {
    print_error(program, &describe(error));
    ExitCode::from(code)
}

fn print_error(program: &str, text: &str) {
    // Files and peers have their words in it; their control characters are not for terminals.
    let lines: Vec<String> = text.lines().map(escape_controls).collect();
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(std::io::stderr(), "{program}: {}", lines.join("\n")));
}

/// Returns `error` and its causes as one line, each cause once.
#[must_use]
pub fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("data_dir /x")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn describes_an_error_with_its_cause() {
        let error = Outer(std::io::Error::other("disk on fire"));

        let text = describe(&error);

        assert_eq!(text, "data_dir /x: disk on fire");
    }
}
