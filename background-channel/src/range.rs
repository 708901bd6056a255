//! The `Range` request header (RFC 9110 §14): one byte range; several are served as the whole, as the RFC allows.

use axum::http::HeaderValue;

/// Which bytes to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selected {
    /// All of them, with status 200.
    Whole,
    /// Some of them, with status 206.
    Part {
        /// The first byte's index.
        first: u64,
        /// How many; never 0.
        length: u64,
    },
}

/// No byte of the range exists: status 416.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsatisfiable;

/// Reads the header for content of `size` bytes. A header that is not understood is ignored (RFC 9110 §14.2).
pub(crate) fn select(header: Option<&HeaderValue>, size: u64) -> Result<Selected, Unsatisfiable> {
    let spec = header.and_then(|value| value.to_str().ok()).and_then(|text| text.strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.trim().split_once('-')) else {
        return Ok(Selected::Whole);
    };
    let number = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
    };
    match (first, last) {
        ("", suffix) => match number(suffix) {
            None => Ok(Selected::Whole),
            Some(0) => Err(Unsatisfiable),
            Some(_) if size == 0 => Err(Unsatisfiable),
            Some(suffix) => {
                Ok(Selected::Part { first: size.saturating_sub(suffix), length: suffix.min(size) })
            }
        },
        (first, last) => {
            let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match (number(first), last) {
                (Some(first), Some(last)) if first <= last => {
                    let last = last.min(size.saturating_sub(1));
                    if first >= size {
                        Err(Unsatisfiable)
                    } else {
                        Ok(Selected::Part { first, length: last - first + 1 })
                    }
                }
                _ => Ok(Selected::Whole),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, size: u64) -> Result<Selected, Unsatisfiable> {
        select(Some(&HeaderValue::from_str(text).unwrap()), size)
    }

    #[test]
    fn selects_as_rfc_9110_says() {
        let part = |first, length| Ok(Selected::Part { first, length });

        assert_eq!(select(None, 10), Ok(Selected::Whole));
        assert_eq!(of("bytes=0-0", 10), part(0, 1));
        assert_eq!(of("bytes=2-", 10), part(2, 8));
        assert_eq!(of("bytes=2-99", 10), part(2, 8));
        assert_eq!(of("bytes=-3", 10), part(7, 3));
        assert_eq!(of("bytes=-30", 10), part(0, 10));
        assert_eq!(of("bytes=10-", 10), Err(Unsatisfiable));
        assert_eq!(of("bytes=-0", 10), Err(Unsatisfiable));
        assert_eq!(of("bytes=0-", 0), Err(Unsatisfiable));
        for ignored in ["bytes=3-2", "bytes=a-b", "items=0-1", "bytes=0-1,3-4", "bytes=+1-2"] {
            assert_eq!(of(ignored, 10), Ok(Selected::Whole), "{ignored}");
        }
    }
}
