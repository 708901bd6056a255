//! Times as text and as `time` takes them.

use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Returns `2026-01-31T12:00:00Z`; a time beyond the year 9999 as seconds.
pub(crate) fn text(at: UnixTime) -> String {
    date(at)
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} s after 1970", at.as_secs()))
}

/// Returns the calendar date; `None` beyond the year 9999.
pub(crate) fn date(at: UnixTime) -> Option<OffsetDateTime> {
    let seconds = i64::try_from(at.as_secs()).ok()?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}
