//! Addresses as people type them, checked before they are kept.

use muster_pki::CrlUrl;
use muster_pki::text::is_misleading;
use muster_signing::order::TENANT_BYTES_MAX;
use rustls_pki_types::ServerName;

/// A port where nothing listens.
const NO_PORT: u16 = 0;

/// The parts of `SCHEME://HOST[:PORT]/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// `host:port` to connect to.
    pub(crate) address: String,
    /// The host, without an IPv6 address's brackets.
    pub(crate) host: String,
    /// The path, without a slash at its end.
    pub(crate) path: String,
}

/// Checks `HOST:PORT` of an operator API.
pub(crate) fn switch(text: &str) -> Result<String, String> {
    const EXAMPLE: &str = "such as switch.example.org:4001";
    if let Some((_, rest)) = text.split_once("://") {
        let bare = rest.trim_end_matches('/');
        return Err(format!("expected HOST:PORT without a scheme, {}", suggestion(bare, EXAMPLE)));
    }
    match split(text) {
        Ok((_, Some(_))) => Ok(text.to_owned()),
        Ok((host, None)) => Err(format!("there is no port; expected HOST:PORT, such as {host}:4001")),
        Err(problem) => Err(format!("{problem}; expected HOST:PORT, {EXAMPLE}")),
    }
}

/// Checks the URL of a Background Channel. Nothing stands for none.
pub(crate) fn background_channel(text: &str) -> Result<String, String> {
    const EXAMPLE: &str = "expected https://HOST:PORT/Background/v1, such as \
                           https://background.example.org:4443/Background/v1";
    if text.is_empty() {
        return Ok(String::new());
    }
    let url = url("https", 443, text).map_err(|problem| format!("{problem}; {EXAMPLE}"))?;
    if url.path.is_empty() {
        return Err(format!("there is no path; did you mean {}/Background/v1?", text.trim_end_matches('/')));
    }
    Ok(text.to_owned())
}

/// Checks the URL of an exchange's list: https alone, and a file.
pub(crate) fn exchange(text: &str) -> Result<String, String> {
    const EXAMPLE: &str =
        "expected the https URL of a list, such as https://exchange.example.org/exchange.json";
    let parts = url("https", 443, text).map_err(|problem| format!("{problem}; {EXAMPLE}"))?;
    if parts.path.is_empty() || text.ends_with('/') {
        return Err(format!("there is no file; {EXAMPLE}"));
    }
    text.parse::<CrlUrl>().map_err(|error| format!("{error}; {EXAMPLE}"))?;
    Ok(text.to_owned())
}

/// Checks the URL of an admin address. Nothing stands for none.
pub(crate) fn admin(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let expected = |problem| format!("{problem}; expected http://HOST:PORT, such as http://127.0.0.1:4002");
    match url("http", 80, text).map_err(expected)? {
        Url { path, .. } if !path.is_empty() => Err(expected(format!("the path {path} is too much"))),
        Url { .. } => Ok(text.to_owned()),
    }
}

/// Checks the name of a context: it is typed again, and stands in tables.
pub(crate) fn context_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && text.len() <= 64 && text.chars().all(fits) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 ASCII letters, digits, `.`, `_` and `-`, such as production".to_owned())
    }
}

/// Checks the name of an organisation, as orders and licences have it. Nothing stands for none.
pub(crate) fn tenant(text: &str) -> Result<String, String> {
    if text.len() <= TENANT_BYTES_MAX && !text.chars().any(is_misleading) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "expected at most {TENANT_BYTES_MAX} bytes without hidden characters, as the licence has it"
        ))
    }
}

/// Takes a URL of one scheme apart; `default_port` is the scheme's.
pub(crate) fn url(scheme: &str, default_port: u16, text: &str) -> Result<Url, String> {
    let rest = text
        .strip_prefix(scheme)
        .and_then(|rest| rest.strip_prefix("://"))
        .ok_or_else(|| format!("it does not begin with {scheme}://"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if text.contains(['?', '#', '@']) || text.contains(|c: char| c.is_whitespace() || is_misleading(c)) {
        return Err("a user, query, fragment or space does not belong there".to_owned());
    }
    let (host, port) = split(authority)?;
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let address = format!("{bracketed}:{}", port.unwrap_or(default_port));
    Ok(Url { address, host, path: path.trim_end_matches('/').to_owned() })
}

/// Splits `HOST[:PORT]`, the host a DNS name, an IPv4 address or an IPv6 address in brackets.
fn split(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("`{}` is no IPv6 address", host.escape_debug()));
            }
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(format!("`{}` after the bracket is no port", rest.escape_debug())),
            }
        }
        None if text.parse::<std::net::Ipv6Addr>().is_ok() => {
            return Err(format!("an IPv6 address needs brackets: [{text}]"));
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("there is no host".to_owned());
    }
    ServerName::try_from(host)
        .map_err(|_| format!("`{}` is neither a DNS name nor an address", host.escape_debug()))?;
    let port = match port {
        None => None,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port != NO_PORT && !text.starts_with('+') => Some(port),
            _ => return Err(format!("`{}` is no port from 1 to 65535", text.escape_debug())),
        },
    };
    Ok((host.to_owned(), port))
}

fn suggestion(bare: &str, example: &str) -> String {
    if matches!(split(bare), Ok((_, Some(_)))) { format!("such as {bare}") } else { example.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_switch_is_host_and_port() {
        for good in ["localhost:4001", "switch.example.org:1", "10.0.0.1:65535", "[::1]:4001"] {
            assert_eq!(switch(good), Ok(good.to_owned()));
        }
        let refused = [
            ("", "no host"),
            ("switch.example.org", "such as switch.example.org:4001"),
            (":4001", "no host"),
            ("a:", "no port"),
            ("a:0", "1 to 65535"),
            ("a:65536", "1 to 65535"),
            ("a:+1", "1 to 65535"),
            ("a:1:2", "1 to 65535"),
            ("a b:1", "neither a DNS name"),
            ("a/b:1", "neither a DNS name"),
            ("::1", "brackets: [::1]"),
            ("[::1:4001", "not closed"),
            ("https://a:4001/", "such as a:4001"),
            ("a\u{1b}:1", "\\u{1b}"),
        ];
        for (bad, says) in refused {
            let error = switch(bad).unwrap_err();
            assert!(error.contains(says) && error.contains("HOST:PORT"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_url_of_a_background_channel_is_https_and_has_its_path() {
        for good in ["", "https://a:4443/Background/v1", "https://a/Background/v1/", "https://[::1]:1/x"] {
            assert_eq!(background_channel(good), Ok(good.to_owned()));
        }
        for bad in [
            "ftp",
            "a:4443",
            "http://a/Background/v1",
            "https://",
            "https://a b/x",
            "https://a:0/x",
            "https://u@a/x",
        ] {
            let error = background_channel(bad).unwrap_err();
            assert!(error.contains("such as https://"), "{bad}: {error}");
        }
        let bare = background_channel("https://a:4443/").unwrap_err();
        assert!(bare.contains("did you mean https://a:4443/Background/v1?"), "{bare}");
        let url = url("https", 443, "https://[::1]/Background/v1/").unwrap();
        assert_eq!(
            (url.address.as_str(), url.host.as_str(), url.path.as_str()),
            ("[::1]:443", "::1", "/Background/v1")
        );
    }

    #[test]
    fn a_list_of_packs_is_a_file_on_an_https_server() {
        for good in ["https://a/exchange.json", "https://a:4443/x/y.json", "https://[::1]/list"] {
            assert_eq!(exchange(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "exchange.json",
            "http://a/exchange.json",
            "HTTP://a/exchange.json",
            "file:///exchange.json",
            "https://a",
            "https://a/",
            "https://a/x/",
            "https://u@a/x",
            "https://a/x?y",
            "https://a/x#y",
            "https://a/ä",
            "https://a/x\r\nb",
        ] {
            let error = exchange(bad).unwrap_err();
            assert!(error.contains("such as https://exchange.example.org/"), "{bad}: {error}");
        }
    }

    #[test]
    fn an_admin_address_is_plain_http_without_a_path() {
        for good in ["", "http://127.0.0.1:4002", "http://localhost:4002/"] {
            assert_eq!(admin(good), Ok(good.to_owned()));
        }
        for bad in ["127.0.0.1:4002", "https://a:4002", "http://a:4002/metrics", "zzz"] {
            assert!(admin(bad).unwrap_err().contains("such as http://127.0.0.1:4002"), "{bad}");
        }
    }

    #[test]
    fn an_organisation_has_the_name_that_an_order_may_have() {
        assert!(tenant("").is_ok() && tenant(&"a".repeat(64)).is_ok());
        for bad in [&"a".repeat(65), "a\n", "ac\u{200b}me"] {
            assert!(tenant(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_context_has_a_name_that_can_be_typed() {
        assert!(context_name("prod-eu.1").is_ok());
        for bad in ["", "a b", "-x", "ä", "a\n"] {
            assert!(context_name(bad).is_err(), "{bad:?}");
        }
    }
}
