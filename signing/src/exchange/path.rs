//! [`PackPath`]: where a pack lies.

use std::fmt;
use std::str::FromStr;

use super::ExchangeError;
use super::error::shown;

/// Bytes of a path.
const PATH_BYTES_MAX: usize = 255;

/// Where a pack lies, below the folder of its list: names of letters, digits and `._+-`, with `/` between them.
///
/// No name begins with `.`, none is empty, and there is neither scheme nor host, so that it cannot lead anywhere else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackPath(String);

impl PackPath {
    /// Returns the path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PackPath {
    type Err = ExchangeError;

    fn from_str(text: &str) -> Result<Self, ExchangeError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
        let is_name = |name: &str| !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits);
        if text.len() > PATH_BYTES_MAX || !text.split('/').all(is_name) {
            return Err(ExchangeError::Path(shown(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PackPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
