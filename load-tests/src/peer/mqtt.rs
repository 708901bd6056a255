//! MQTT 3.1.1, as far as it is needed: CONNECT, CONNACK, SUBSCRIBE, SUBACK, PUBLISH at QoS 0, PINGREQ.
//!
//! OASIS MQTT 3.1.1 §2: one byte with the type, the remaining length as a varint of at most four bytes, the rest.

use anyhow::{Context as _, bail};

use super::session::Item;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 2;
const PUBLISH_QOS_0: u8 = 0x30;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 9;
const PINGRESP: u8 = 13;
/// Clean session; §3.1.2.4.
const CLEAN: u8 = 2;
/// A message is a tag and a filler.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// CONNECT and SUBSCRIBE in one go (§3.1: a client need not wait for CONNACK); the SUBACK shows that the subscription stands.
pub(crate) fn hello(client: &str, topics: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut body = text("MQTT")?;
    // Level 4 is 3.1.1; a keep-alive of 0 turns it off, as the peers' other heartbeats are.
    body.extend_from_slice(&[4, CLEAN, 0, 0]);
    body.extend(text(client)?);
    let mut bytes = packet(CONNECT, &body);
    let mut body = vec![0, 1];
    for topic in topics {
        body.extend(text(topic)?);
        body.push(0);
    }
    bytes.extend(packet(SUBSCRIBE, &body));
    Ok(bytes)
}

/// A message to all who subscribed.
pub(crate) fn publish(topic: &str, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = text(topic)?;
    body.extend_from_slice(payload);
    Ok(packet(PUBLISH_QOS_0, &body))
}

/// A sign of life.
pub(crate) const PING: &[u8] = &[0xc0, 0];

/// Takes the first item; gives how many bytes it had, or `None` where more are needed.
pub(crate) fn take(bytes: &[u8]) -> anyhow::Result<Option<(Item, usize)>> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let (mut length, mut start) = (0_usize, 1_usize);
    loop {
        let Some(byte) = bytes.get(start) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (start - 1));
        start += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if start > 4 {
            bail!("a packet of MQTT has a length of more than four bytes");
        }
    }
    if length > PACKET_BYTES_MAX {
        bail!("a packet of MQTT has {length} bytes, at most {PACKET_BYTES_MAX} were sent");
    }
    let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
    let item = match first >> 4 {
        PUBLISH => {
            let topic = body.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
            let payload =
                topic.and_then(|topic| body.get(2 + topic..)).context("a PUBLISH without a topic")?;
            Item::Message(payload.to_vec())
        }
        CONNACK => match body {
            [_, 0] => Item::Other,
            _ => bail!("MQTT refused the connection: {body:?} (§3.2.2.3)"),
        },
        SUBACK => match body {
            [.., 0x80] => bail!("MQTT refused the subscription (§3.9.3)"),
            _ => Item::Ready,
        },
        PINGRESP => Item::Other,
        other => bail!("MQTT sent a packet of type {other}, which a client does not expect"),
    };
    Ok(Some((item, start + length)))
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap_or_default();
        rest >>= 7;
        bytes.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn text(text: &str) -> anyhow::Result<Vec<u8>> {
    let length = u16::try_from(text.len()).context("a text of MQTT has at most 65,535 bytes")?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_taken_whole_however_they_are_cut() {
        let long = vec![9; 300];
        let mut bytes = vec![0x20, 2, 0, 0, 0x90, 3, 0, 1, 0];
        bytes.extend(publish("all", &long).unwrap());
        let (mut read, mut items) = (Vec::new(), Vec::new());

        for byte in bytes {
            read.push(byte);
            while let Some((item, length)) = take(&read).unwrap() {
                read.drain(..length);
                items.push(item);
            }
        }

        assert_eq!(items, [Item::Other, Item::Ready, Item::Message(long)]);
        assert!(read.is_empty());
    }

    #[test]
    fn hello_is_a_connect_and_a_subscribe_as_the_specification_has_them() {
        let bytes = hello("a", &["all"]).unwrap();

        assert_eq!(bytes[..15], [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'a']);
        assert_eq!(bytes[15..], [0x82, 8, 0, 1, 0, 3, b'a', b'l', b'l', 0]);
    }

    #[test]
    fn what_a_server_refuses_or_claims_beyond_all_bounds_ends_it() {
        assert!(take(&[0x20, 2, 0, 5]).unwrap_err().to_string().contains("refused"));
        assert!(take(&[0x90, 3, 0, 1, 0x80]).is_err());
        assert!(take(&[0x30, 0xff, 0xff, 0xff, 0x7f]).is_err());
        assert!(take(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
        assert!(take(&[0x30, 1, 0]).is_err());
        assert_eq!(take(&[0x30, 5, 0]).unwrap(), None);
    }
}
