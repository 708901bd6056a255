//! [`CrlUrl`]: where a CRL may be fetched: http or https, nothing else (R1).

use std::fmt;
use std::str::FromStr;

/// Longest URL in bytes; those of Windows CAs have some 150, and 2,048 is what servers commonly take.
const URL_BYTES_MAX: usize = 2048;

/// An absolute http or https URL without user and fragment. Scheme and host are in lower case, so that equal ones compare so.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrlUrl {
    text: String,
    /// Where the path begins in `text`.
    path: usize,
}

impl CrlUrl {
    /// Returns the URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns scheme, host and port as they are written: who is asked.
    #[must_use]
    pub fn server(&self) -> &str {
        self.text.split_at(self.path).0
    }

    /// Returns where a redirect from here leads: `location` is absolute, or a path on the same server.
    ///
    /// # Errors
    /// It leads anywhere but to http or https.
    pub(super) fn redirect(&self, location: &str) -> Result<Self, CrlUrlError> {
        let (server, path) = self.text.split_at(self.path);
        if location.starts_with("//") {
            let scheme = server.split_once("//").map_or(server, |(scheme, _)| scheme);
            return format!("{scheme}{location}").parse();
        }
        if location.starts_with('/') {
            return format!("{server}{location}").parse();
        }
        let is_absolute = location
            .split_once(':')
            .is_some_and(|(scheme, _)| !scheme.is_empty() && !scheme.contains(['/', '?', '#']));
        if is_absolute {
            return location.parse();
        }
        let path = path.split('?').next().unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{server}{folder}/{location}").parse()
    }
}

impl FromStr for CrlUrl {
    type Err = CrlUrlError;

    fn from_str(text: &str) -> Result<Self, CrlUrlError> {
        let refuse = |problem: &'static str| CrlUrlError { url: shown(text), problem };
        if text.len() > URL_BYTES_MAX {
            return Err(refuse("it has more than 2048 bytes"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse("it has spaces, control characters or letters that are not ASCII"));
        }
        let text = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refuse("it is not absolute"))?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(refuse("its scheme is neither http nor https"));
        }
        let end = rest.find(['/', '?', '\\']).unwrap_or(rest.len());
        let (server, path) = rest.split_at(end);
        if !is_server(server) {
            return Err(refuse("its host or port is none, or it names a user"));
        }
        if path.starts_with('\\') {
            return Err(refuse("it has a backslash behind its host"));
        }
        let front = format!("{scheme}://{}", server.to_ascii_lowercase());
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { path: front.len(), text: format!("{front}{slash}{path}") })
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_server(server: &str) -> bool {
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            let Ok(_) = address.parse::<std::net::Ipv6Addr>() else { return false };
            ("v6", port)
        }
        None => server.split_at(server.find(':').unwrap_or(server.len())),
    };
    let is_host = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let is_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(port) => {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        }
    };
    is_host && is_port
}

/// Enough of a foreign text to recognise it, without what terminals would act on.
fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_default).collect()
}

impl fmt::Display for CrlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for CrlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrlUrl({})", self.text)
    }
}

/// Why nothing is fetched from a URL (R1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?}: {problem}; wanted an absolute URL that begins with http:// or https://")]
pub struct CrlUrlError {
    /// The URL, its beginning.
    pub url: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> CrlUrl {
        text.parse().unwrap()
    }

    #[test]
    fn r1_takes_http_and_https_and_nothing_else() {
        for (text, expected) in [
            ("http://crl.acme.local/issuing.crl", "http://crl.acme.local/issuing.crl"),
            (
                "HTTPS://CRL.Acme.local:8443/A%20b(1)+.crl?x=y#top",
                "https://crl.acme.local:8443/A%20b(1)+.crl?x=y",
            ),
            ("http://[2001:DB8::1]:80/a", "http://[2001:db8::1]:80/a"),
            ("http://10.0.0.1", "http://10.0.0.1/"),
            ("http://a?b", "http://a/?b"),
        ] {
            assert_eq!(url(text).as_str(), expected);
            assert_eq!(url(expected), url(text));
        }
        for text in [
            "ldap:///CN=Issuing?certificateRevocationList",
            "file:///etc/passwd",
            "ftp://a/b",
            "//a/b",
            "/b",
            "http:a",
            "http://",
            "http:///b",
            "http://user@a/b",
            "http://user:secret@a/b",
            "http://a:0/b",
            "http://a:65536/b",
            "http://a:+1/b",
            "http://a\\@b/c",
            "http://[::1/b",
            "http://[a]/b",
            "http://a b/c",
            "http://a/b\r\nHost: c",
            "http://ä/b",
            "",
            &format!("http://a/{}", "b".repeat(URL_BYTES_MAX)),
        ] {
            assert!(text.parse::<CrlUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn r1_a_server_is_the_same_whatever_is_asked_of_it() {
        for text in
            ["http://crl.acme.local:81/a", "HTTP://CRL.acme.local:81/b/c.crl?d", "http://crl.acme.local:81"]
        {
            assert_eq!(url(text).server(), "http://crl.acme.local:81");
        }
        assert_eq!(url("https://[::1]/a").server(), "https://[::1]");
    }

    #[test]
    fn r1_a_redirect_leads_to_http_and_https_only() {
        let from = url("http://a:81/x/y.crl?z=/w");
        for (location, expected) in [
            ("https://b/c", "https://b/c"),
            ("/c?d", "http://a:81/c?d"),
            ("c.crl", "http://a:81/x/c.crl"),
            ("?d:e", "http://a:81/x/?d:e"),
            ("//b/c", "http://b/c"),
            ("c/d:e", "http://a:81/x/c/d:e"),
        ] {
            assert_eq!(
                from.redirect(location).map(|to| to.to_string()),
                Ok(expected.to_owned()),
                "{location}"
            );
        }
        for location in ["ldap://b/c", "file:///c", "javascript:alert(1)", "http://u@b/", "/c d"] {
            assert!(from.redirect(location).is_err(), "{location}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_an_error(text in "\\PC*", location in "\\PC*") {
            if let Ok(url) = text.parse::<CrlUrl>() {
                let again: Result<CrlUrl, _> = url.as_str().parse();
                prop_assert_eq!(again.as_ref(), Ok(&url));
            }
            if let Ok(to) = url("http://a/b").redirect(&location) {
                prop_assert!(to.as_str().starts_with("http://") || to.as_str().starts_with("https://"));
            }
        }
    }
}
