//! What an HTTP answer says beside its status, written by somebody else: when to come back, and why.

use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, HeaderValue, RETRY_AFTER};
use muster_pki::text::is_misleading;

/// Most characters of an answer's text that are logged.
const TEXT_CHARS_MAX: usize = 256;

/// Returns the beginning of an answer's text, for logs and people.
pub(crate) fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().filter(|character| !is_misleading(*character)).take(TEXT_CHARS_MAX).collect()
}

/// Returns how long the answer asks to stay away (RFC 9110 §10.2.3); none without the header. A date in it is counted from the
/// answer's own: our clock may differ from the server's. Without that one, the usual pause does as well.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let asked = text_of(headers.get(RETRY_AFTER)?)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let said = httpdate::parse_http_date(text_of(headers.get(DATE)?)?).ok()?;
    Some(until.duration_since(said).unwrap_or_default())
}

fn text_of(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_come_back_is_read_in_seconds_or_as_a_date_by_the_servers_clock() {
        let asked_at = |value: &str, said: Option<&str>| {
            let said = said.map(|said| (DATE, said.parse().unwrap()));
            retry_after(&[(RETRY_AFTER, value.parse().unwrap())].into_iter().chain(said).collect())
        };
        let asked = |value: &str| asked_at(value, None);

        assert_eq!(asked("30"), Some(Duration::from_secs(30)));
        let (half_past, later) = ("Wed, 21 Oct 2026 07:30:00 GMT", "Wed, 21 Oct 2026 07:30:45 GMT");
        assert_eq!(asked_at(later, Some(half_past)), Some(Duration::from_secs(45)));
        assert_eq!(asked_at(half_past, Some(later)), Some(Duration::ZERO), "it is over");
        assert_eq!(asked_at("soon", Some(later)), None);
        assert_eq!(asked_at(later, Some("today")), None);
        assert_eq!(asked(later), None, "nobody says when that is");
        assert_eq!(asked("-1"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn a_foreign_text_is_short_and_forges_no_line() {
        assert_eq!(text(b" no room\nerror: \x1b[31m\n"), "no roomerror: [31m");
        assert_eq!(text("no \u{202e}moor\u{200b}\u{e0041}".as_bytes()), "no moor");
        assert_eq!(text("ä".repeat(1_000).as_bytes()).chars().count(), TEXT_CHARS_MAX);
    }
}
