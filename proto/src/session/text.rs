//! What goes into a `GoAway`: delays and words for people, cut to their bounds.

use std::time::Duration;

use crate::session::v1::frame::Body;

/// Returns the whole milliseconds, at most what 32 bits hold.
pub(super) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Returns the longest beginning of whole characters within `bytes_max`.
pub(super) fn truncated(text: &str, bytes_max: usize) -> String {
    let ends = text.char_indices().map(|(start, character)| start + character.len_utf8());
    text[..ends.take_while(|end| *end <= bytes_max).last().unwrap_or(0)].to_owned()
}

/// Returns what a body is called in messages to people.
pub(super) fn name(body: &Body) -> &'static str {
    match body {
        Body::Hello(_) => "a Hello",
        Body::Welcome(_) => "a Welcome",
        Body::Ping(_) => "a Ping",
        Body::Pong(_) => "a Pong",
        Body::Order(_) => "an OrderDelivery",
        Body::Progress(_) => "a Progress",
        Body::Result(_) => "a Result",
        Body::Event(_) => "an Event",
        Body::Ack(_) => "an Ack",
        Body::DocumentRequest(_) => "a DocumentRequest",
        Body::Document(_) => "a Document",
        Body::LicenceNotice(_) => "a LicenceNotice",
        Body::GoAway(_) => "a GoAway",
        Body::PolicyCheck(_) => "a PolicyCheck",
        Body::PolicyNotice(_) => "a PolicyNotice",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(truncated("grün", 3), "gr");
        assert_eq!(truncated("grün", 4), "grü");
        assert_eq!(truncated("", 4), "");
    }

    #[test]
    fn a_delay_beyond_32_bits_is_the_longest() {
        assert_eq!(millis(Duration::MAX), u32::MAX);
    }
}
