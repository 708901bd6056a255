//! [`ErrorCode`] and [`SuccessCodes`]: the numbers that callers of a download see (S6).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The result of a download job as a number; written `0x209A`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct ErrorCode(u32);

/// How a code stands in a configuration: `"0x209A"`, or the bare number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u32),
    Text(String),
}

impl ErrorCode {
    /// `ERROR_CLIENT_CERT_MISSING`: no valid client certificate (S6).
    pub const CLIENT_CERT_MISSING: Self = Self(0x209A);

    /// Takes a number as a code.
    #[must_use]
    pub const fn new(code: u32) -> Self {
        Self(code)
    }

    /// Returns the number.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06X}", self.0)
    }
}

impl FromStr for ErrorCode {
    type Err = ErrorCodeError;

    /// Reads `0x209A` or `8346`.
    fn from_str(text: &str) -> Result<Self, ErrorCodeError> {
        let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        // `from_str_radix` would take a sign.
        let digits = hex.unwrap_or(text);
        let is_bare = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = if hex.is_some() { u32::from_str_radix(digits, 16) } else { digits.parse() };
        code.ok().filter(|_| is_bare).map(Self).ok_or_else(|| ErrorCodeError(text.chars().take(40).collect()))
    }
}

impl TryFrom<Written> for ErrorCode {
    type Error = ErrorCodeError;

    fn try_from(written: Written) -> Result<Self, ErrorCodeError> {
        match written {
            Written::Number(code) => Ok(Self(code)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<ErrorCode> for String {
    fn from(code: ErrorCode) -> Self {
        code.to_string()
    }
}

/// A text that is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no code; wanted a number of 32 bits as `0x209A` or `8346`")]
pub struct ErrorCodeError(String);

/// `success_codes`: the results after which a caller may not fetch the content from the origin (S6).
///
/// The default holds [`ErrorCode::CLIENT_CERT_MISSING`]: a fleet whose certificates expired must not storm the origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SuccessCodes(BTreeSet<ErrorCode>);

/// What a caller may do after a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Fetch the content from the origin.
    Allowed,
    /// Leave it: the code counts as success.
    Forbidden,
}

impl SuccessCodes {
    /// Returns whether the origin may be used after a job ended with `code`.
    #[must_use]
    pub fn origin_after(&self, code: ErrorCode) -> Origin {
        if self.0.contains(&code) { Origin::Forbidden } else { Origin::Allowed }
    }

    /// Returns the codes in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ErrorCode> {
        self.0.iter().copied()
    }
}

impl Default for SuccessCodes {
    fn default() -> Self {
        Self::from_iter([ErrorCode::CLIENT_CERT_MISSING])
    }
}

impl FromIterator<ErrorCode> for SuccessCodes {
    fn from_iter<I: IntoIterator<Item = ErrorCode>>(codes: I) -> Self {
        Self(codes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s6_the_default_success_codes_keep_a_caller_from_the_origin() {
        let codes = SuccessCodes::default();

        assert_eq!(codes.origin_after(ErrorCode::CLIENT_CERT_MISSING), Origin::Forbidden);
        assert_eq!(codes.origin_after(ErrorCode::new(0x2EFD)), Origin::Allowed);
        assert_eq!(codes.iter().collect::<Vec<_>>(), [ErrorCode::new(8346)]);
    }

    #[test]
    fn codes_are_read_in_both_notations_and_written_in_one() {
        for text in ["0x209A", "0X209a", "8346"] {
            assert_eq!(text.parse(), Ok(ErrorCode::CLIENT_CERT_MISSING), "{text}");
        }
        let codes: SuccessCodes = serde_json::from_str(r#"["0x209a", 8346, 16]"#).unwrap();
        assert_eq!(serde_json::to_string(&codes).unwrap(), r#"["0x0010","0x209A"]"#);
        assert_eq!(ErrorCode::CLIENT_CERT_MISSING.to_string(), "0x209A");
        assert_eq!(ErrorCode::new(0x4CF).to_string(), "0x04CF");
        for text in ["", "0x", "+1", "-1", "0x+1", "209A", "4294967296", "0x100000000"] {
            assert!(text.parse::<ErrorCode>().is_err(), "{text}");
        }
    }
}
