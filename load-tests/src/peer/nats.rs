//! The NATS client protocol, as far as it is needed: CONNECT, SUB, PUB, MSG, PING, PONG, +OK, -ERR, INFO.
//!
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>: lines that end in CR LF; a MSG line tells how many bytes follow.

use anyhow::{Context as _, bail};

use super::session::Item;

/// The longest line that a server sends: INFO, a few hundred bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// A message is a tag and a filler.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What is said first; the answer to the PING shows that the subscription stands.
pub(crate) fn hello(subjects: &[&str]) -> Vec<u8> {
    let options = r#"{"verbose":false,"pedantic":false,"tls_required":false,"lang":"muster-load","version":"1","protocol":1}"#;
    let subscriptions: String =
        subjects.iter().zip(1..).map(|(subject, number)| format!("SUB {subject} {number}\r\n")).collect();
    format!("CONNECT {options}\r\n{subscriptions}PING\r\n").into_bytes()
}

/// A message to all who subscribed.
pub(crate) fn publish(subject: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("PUB {subject} {}\r\n", payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The answer to a PING.
pub(crate) const PONG: &[u8] = b"PONG\r\n";

/// Takes the first item; gives how many bytes it had, or `None` where more are needed.
pub(crate) fn take(bytes: &[u8]) -> anyhow::Result<Option<(Item, usize)>> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
        if bytes.len() > LINE_BYTES_MAX {
            bail!("a line of NATS has no end within {LINE_BYTES_MAX} bytes");
        }
        return Ok(None);
    };
    let line = bytes.get(..end).unwrap_or_default();
    let after = end + 2;
    if let Some(words) = line.strip_prefix(b"MSG ") {
        let words = std::str::from_utf8(words).context("a MSG line of NATS")?;
        let length: usize =
            words.rsplit(' ').next().and_then(|word| word.parse().ok()).context("its length")?;
        if length > MESSAGE_BYTES_MAX {
            bail!("a message of NATS has {length} bytes, at most {MESSAGE_BYTES_MAX} were sent");
        }
        let Some(payload) = bytes.get(after..after + length) else { return Ok(None) };
        let whole = after + length + 2;
        return Ok((bytes.len() >= whole).then(|| (Item::Message(payload.to_vec()), whole)));
    }
    let item = if line.starts_with(b"PING") {
        Item::Ping
    } else if line.starts_with(b"PONG") {
        Item::Ready
    } else if line.starts_with(b"-ERR") {
        bail!("NATS refused: {}", String::from_utf8_lossy(line));
    } else {
        Item::Other
    };
    Ok(Some((item, after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_whole_however_it_is_cut() {
        let bytes = b"INFO {\"x\":1}\r\nMSG all 1 5\r\nhe\r\no\r\nPING\r\n";
        let mut read = Vec::new();
        let mut items = Vec::new();

        for byte in bytes {
            read.push(*byte);
            while let Some((item, length)) = take(&read).unwrap() {
                read.drain(..length);
                items.push(item);
            }
        }

        assert_eq!(items, [Item::Other, Item::Message(b"he\r\no".to_vec()), Item::Ping]);
        assert!(read.is_empty());
    }

    #[test]
    fn what_a_server_refuses_or_claims_beyond_all_bounds_ends_it() {
        assert!(
            take(b"-ERR 'Authorization Violation'\r\n").unwrap_err().to_string().contains("Authorization")
        );
        assert!(take(b"MSG all 1 99999999\r\n").is_err());
        assert!(take(b"MSG all 1 x\r\n").is_err());
        assert!(take(&vec![b'a'; LINE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn what_is_published_comes_as_it_was() {
        assert_eq!(publish("all", b"ab"), b"PUB all 2\r\nab\r\n");
        assert!(hello(&["all", "slow"]).ends_with(b"SUB all 1\r\nSUB slow 2\r\nPING\r\n"));
    }
}
