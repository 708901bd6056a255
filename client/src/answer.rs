//! What an HTTP answer says beside its status, written by somebody else: when to come back, and why.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// Most characters of an answer's text that are logged.
const TEXT_CHARS_MAX: usize = 256;

/// Returns the beginning of an answer's text, for logs and people.
pub(crate) fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().filter(|character| !character.is_control()).take(TEXT_CHARS_MAX).collect()
}

/// Returns how long the answer asks to stay away (RFC 9110 §10.2.3); none without the header. A date in it is passed over: clocks
/// differ, and the usual pause does as well.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_come_back_is_read_in_seconds_and_nothing_else() {
        let asked = |value: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            retry_after(&headers)
        };

        assert_eq!(asked("30"), Some(Duration::from_secs(30)));
        assert_eq!(asked("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(asked("-1"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn a_foreign_text_is_short_and_forges_no_line() {
        assert_eq!(text(b" no room\nerror: \x1b[31m\n"), "no roomerror: [31m");
        assert_eq!(text("ä".repeat(1_000).as_bytes()).chars().count(), TEXT_CHARS_MAX);
    }
}
