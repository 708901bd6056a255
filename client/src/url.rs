//! Addresses of services: scheme, host, port and path, nothing else.

use std::fmt;

use http::Uri;
use muster_service::credentials::Address;

/// A parsed `wss://` or `https://` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    scheme: String,
    address: Address,
    path: String,
}

/// Why an address is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The text is not a URL.
    #[error("{0:?} is not a URL")]
    Malformed(String),
    /// The scheme is another.
    #[error("got scheme {got:?}, wanted {wanted:?}")]
    Scheme {
        /// What the address has.
        got: String,
        /// What it must have.
        wanted: String,
    },
    /// A query cannot be part of it.
    #[error("{0:?} has a query; remove it")]
    Query(String),
}

/// The port of `https` and `wss` where none is named (RFC 9110 §4.2.2, RFC 6455 §3).
const DEFAULT_PORT: u16 = 443;

impl ServiceUrl {
    /// Parses an address that must have this scheme. A `/` at the end of the path is dropped.
    ///
    /// # Errors
    /// Names what is wrong with the text.
    pub fn parse(text: &str, scheme: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed(text.to_owned()))?;
        let got = uri.scheme_str().unwrap_or_default();
        if got != scheme {
            return Err(UrlError::Scheme { got: got.to_owned(), wanted: scheme.to_owned() });
        }
        if uri.query().is_some() {
            return Err(UrlError::Query(text.to_owned()));
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(UrlError::Malformed(text.to_owned()));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = Address::new(host, uri.port_u16().unwrap_or(DEFAULT_PORT))
            .map_err(|_| UrlError::Malformed(text.to_owned()))?;
        Ok(Self { scheme: scheme.to_owned(), address, path: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Returns where it is; in text, `host:port` as a `Host` header has it.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the path, without a `/` at its end.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.address, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_host_port_and_path() {
        let url = ServiceUrl::parse("wss://switch.acme.local:4000/v1/session", "wss").unwrap();

        assert_eq!(
            (url.address().to_string().as_str(), url.path()),
            ("switch.acme.local:4000", "/v1/session")
        );
        assert_eq!(url.to_string(), "wss://switch.acme.local:4000/v1/session");
    }

    #[test]
    fn takes_port_443_where_none_is_named_and_keeps_brackets_for_ipv6() {
        let url = ServiceUrl::parse("https://[::1]/Background/v1/", "https").unwrap();

        assert_eq!(
            (url.address().host(), url.address().to_string().as_str(), url.path()),
            ("::1", "[::1]:443", "/Background/v1")
        );
    }

    #[test]
    fn refuses_other_schemes_queries_and_user_names() {
        for text in ["http://a/", "https://a/?q=1", "https://user@a/", "https:///x", "nonsense"] {
            assert!(ServiceUrl::parse(text, "https").is_err(), "{text}");
        }
    }
}
