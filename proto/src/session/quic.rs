//! What a session over QUIC says outside of its frames: by which name it is asked for, and why its connection ends.

use std::time::Duration;

/// The name of the protocol in the TLS handshake (ALPN, RFC 7301).
pub const ALPN: &[u8] = b"muster/1";

/// Bytes of the text beside a close at most; more may not fit its packet.
pub const REASON_BYTES_MAX: usize = 512;

/// Why a connection ends, in either direction: the application's error code of CONNECTION_CLOSE (RFC 9000 §19.19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// It did what it was for: the Switch has said `GoAway` before, or the client leaves or has its session by another road.
    Done,
    /// The Switch does not take this device. The text says why.
    Refused,
    /// There is no room at present. The text begins with the seconds to stay away, see [`Close::busy`].
    Busy,
    /// What came is no session of Muster. The text says why.
    Protocol,
    /// The stream was not opened in time.
    Late,
}

impl Close {
    const ALL: [Self; 5] = [Self::Done, Self::Refused, Self::Busy, Self::Protocol, Self::Late];

    /// Returns its code.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Busy => 2,
            Self::Protocol => 3,
            Self::Late => 4,
        }
    }

    /// Returns what a code means; `None`: this version does not know it.
    #[must_use]
    pub fn of_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|close| u64::from(close.code()) == code)
    }

    /// Returns the text of [`Self::Busy`].
    #[must_use]
    pub fn busy(retry_after: Duration, why: &str) -> String {
        format!("{} {why}", retry_after.as_secs())
    }

    /// Reads the text of [`Self::Busy`]: how long to stay away, if it says so, and why.
    #[must_use]
    pub fn read_busy(text: &str) -> (Option<Duration>, &str) {
        let (first, why) = text.split_once(' ').unwrap_or((text, ""));
        match first.parse() {
            Ok(seconds) => (Some(Duration::from_secs(seconds)), why),
            Err(_) => (None, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_they_are_written_and_others_are_unknown() {
        for close in Close::ALL {
            assert_eq!(Close::of_code(close.code().into()), Some(close));
        }
        assert_eq!(Close::of_code(99), None);
    }

    #[test]
    fn a_busy_switch_says_how_long_to_stay_away() {
        let text = Close::busy(Duration::from_secs(30), "the Switch is full");

        assert_eq!(Close::read_busy(&text), (Some(Duration::from_secs(30)), "the Switch is full"));
        assert_eq!(Close::read_busy("full of people"), (None, "full of people"));
        assert_eq!(Close::read_busy(""), (None, ""));
    }
}
