//! The frames of RFC 6455 as a server reads and writes them: pure, without a buffer of its own while nothing is under way.
//!
//! The caller gives plaintext as it came, and keeps what is not a whole frame yet; a frame too large for its bound is refused by its header,
//! before any of it is kept. No extension is spoken, so the reserved bits are zero.

#[cfg(test)]
mod tests;

use std::ops::Range;

/// Bytes of a control frame's payload at most (RFC 6455 §5.5).
pub(in crate::shard) const CONTROL_BYTES_MAX: usize = 125;

/// Bytes of a server's header at most: it masks nothing.
pub(in crate::shard) const HEADER_BYTES_MAX: usize = 10;

/// Bytes of the key that each frame of a client is masked with.
const MASK_BYTES: usize = 4;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Kind {
    /// UTF-8, which was looked at.
    Text,
    /// Bytes.
    Binary,
}

/// A frame's kind (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Message(Kind),
    Close,
    Ping,
    Pong,
}

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shard) enum Received {
    /// A message in one frame: its place in the bytes that were given, unmasked.
    Whole(Kind, Range<usize>),
    /// The last frame of a message in several.
    Gathered(Kind, Vec<u8>),
    /// A frame of a message that goes on, or a pong.
    Nothing,
    /// A ping, whose payload the pong has to repeat.
    Ping(Range<usize>),
    /// The client closes; the code that is to be repeated, if it gave one.
    Close(Option<u16>),
}

/// Why what came is no frame that may be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::shard) enum Violation {
    /// A reserved bit without an extension.
    #[error("a frame with a reserved bit, and no extension was agreed on (RFC 6455 §5.2)")]
    ReservedBit,
    /// An opcode that RFC 6455 does not know.
    #[error("a frame of the unknown kind {0} (RFC 6455 §5.2)")]
    Opcode(u8),
    /// A client masks.
    #[error("a frame without a mask, which every frame of a client has (RFC 6455 §5.1)")]
    Unmasked,
    /// A length that has a shorter form, or is beyond 2⁶³.
    #[error("a frame whose length is not in its shortest form (RFC 6455 §5.2)")]
    Length,
    /// A control frame in parts, or a long one.
    #[error("a control frame of {got} bytes or in parts; wanted one of at most 125 (RFC 6455 §5.5)")]
    Control {
        /// Its bytes.
        got: usize,
    },
    /// A part without a beginning.
    #[error("a part of a message that did not begin (RFC 6455 §5.4)")]
    NoBeginning,
    /// A beginning before the end of the message before it.
    #[error("a message that begins within another (RFC 6455 §5.4)")]
    Interleaved,
    /// A message beyond its bound.
    #[error("a message of more than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// A text that is none.
    #[error("a text that is not UTF-8 (RFC 6455 §8.1)")]
    NotUtf8,
    /// A close frame that no endpoint may send.
    #[error(
        "a close frame with one byte, an unknown code or a reason that is not UTF-8 (RFC 6455 §5.5.1, §7.4)"
    )]
    Close,
}

impl Violation {
    /// Returns the code to close with (RFC 6455 §7.4.1).
    pub(in crate::shard) fn close_code(self) -> u16 {
        match self {
            Self::NotUtf8 => 1007,
            Self::TooLarge { .. } => 1009,
            Self::ReservedBit
            | Self::Opcode(_)
            | Self::Unmasked
            | Self::Length
            | Self::Control { .. }
            | Self::NoBeginning
            | Self::Interleaved
            | Self::Close => 1002,
        }
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    is_final: bool,
    opcode: Opcode,
    mask: [u8; MASK_BYTES],
    /// Bytes of the header itself.
    bytes: usize,
    payload: usize,
}

/// A message that comes in parts.
#[derive(Debug)]
struct Parts {
    kind: Kind,
    gathered: Vec<u8>,
    /// Bytes at the beginning that are known to be UTF-8, of a text.
    checked: usize,
}

/// Reads what a client sends.
#[derive(Debug)]
pub(in crate::shard) struct Reader {
    message_bytes_max: usize,
    // Boxed: hardly any client sends a message in parts.
    parts: Option<Box<Parts>>,
}

impl Reader {
    /// Begins a connection whose messages have at most so many bytes.
    pub(in crate::shard) fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, parts: None }
    }

    /// Reads the frame at the beginning of `bytes`, and unmasks it in place. Returns its bytes in all and what it is; `None`: it is not whole.
    ///
    /// # Errors
    /// How the client broke RFC 6455; nothing of the connection may be read any more.
    pub(in crate::shard) fn read(
        &mut self,
        bytes: &mut [u8],
    ) -> Result<Option<(usize, Received)>, Violation> {
        let Some(header) = Header::read(bytes)? else { return Ok(None) };
        self.check(&header)?;
        let whole = header.bytes..header.bytes + header.payload;
        let Some(payload) = bytes.get_mut(whole.clone()) else { return Ok(None) };
        unmask(payload, header.mask);
        let received = self.receive(&header, payload, &whole)?;
        Ok(Some((whole.end, received)))
    }

    /// Looks at a frame before its payload is there.
    fn check(&self, header: &Header) -> Result<(), Violation> {
        let so_far = match (header.opcode, &self.parts) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                let is_short = header.is_final && header.payload <= CONTROL_BYTES_MAX;
                return if is_short { Ok(()) } else { Err(Violation::Control { got: header.payload }) };
            }
            (Opcode::Continuation, None) => return Err(Violation::NoBeginning),
            (Opcode::Message(_), Some(_)) => return Err(Violation::Interleaved),
            (Opcode::Continuation, Some(parts)) => parts.gathered.len(),
            (Opcode::Message(_), None) => 0,
        };
        let fits = so_far.checked_add(header.payload).is_some_and(|all| all <= self.message_bytes_max);
        if fits { Ok(()) } else { Err(Violation::TooLarge { max: self.message_bytes_max }) }
    }

    fn receive(
        &mut self,
        header: &Header,
        payload: &[u8],
        place: &Range<usize>,
    ) -> Result<Received, Violation> {
        match header.opcode {
            Opcode::Ping => Ok(Received::Ping(place.clone())),
            Opcode::Pong => Ok(Received::Nothing),
            Opcode::Close => close_code(payload).map(Received::Close),
            Opcode::Message(kind) if header.is_final => {
                if kind == Kind::Text && std::str::from_utf8(payload).is_err() {
                    return Err(Violation::NotUtf8);
                }
                Ok(Received::Whole(kind, place.clone()))
            }
            Opcode::Message(kind) => {
                let mut parts = Parts { kind, gathered: payload.to_vec(), checked: 0 };
                parts.check(false)?;
                self.parts = Some(Box::new(parts));
                Ok(Received::Nothing)
            }
            Opcode::Continuation => {
                let Some(mut parts) = self.parts.take() else { return Err(Violation::NoBeginning) };
                parts.gathered.extend_from_slice(payload);
                parts.check(header.is_final)?;
                if header.is_final {
                    let Parts { kind, gathered, .. } = *parts;
                    return Ok(Received::Gathered(kind, gathered));
                }
                self.parts = Some(parts);
                Ok(Received::Nothing)
            }
        }
    }
}

impl Parts {
    /// Looks at what came of a text: a character may be cut by the end of a frame, and not by that of the message.
    fn check(&mut self, is_last: bool) -> Result<(), Violation> {
        if self.kind == Kind::Binary {
            return Ok(());
        }
        let new = self.gathered.get(self.checked..).unwrap_or_default();
        match std::str::from_utf8(new) {
            Ok(_) => self.checked = self.gathered.len(),
            Err(error) if error.error_len().is_none() && !is_last => self.checked += error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }
}

impl Header {
    /// Reads a client's header; `None`: it is not whole.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBit);
        }
        let opcode = Opcode::read(first & 0x0f)?;
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        let Some((payload, length_bytes)) = length(second & 0x7f, rest)? else { return Ok(None) };
        let Some(mask) = rest.get(length_bytes..length_bytes + MASK_BYTES) else { return Ok(None) };
        let mut key = [0; MASK_BYTES];
        key.copy_from_slice(mask);
        let bytes = 2 + length_bytes + MASK_BYTES;
        Ok(Some(Self { is_final: first & 0x80 != 0, opcode, mask: key, bytes, payload }))
    }
}

impl Opcode {
    fn read(number: u8) -> Result<Self, Violation> {
        Ok(match number {
            0 => Self::Continuation,
            1 => Self::Message(Kind::Text),
            2 => Self::Message(Kind::Binary),
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            unknown => return Err(Violation::Opcode(unknown)),
        })
    }

    const fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Message(Kind::Text) => 1,
            Self::Message(Kind::Binary) => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// Returns a payload's length and the bytes that it took beyond the second; `None`: they are not there yet.
fn length(short: u8, rest: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    let (long, least) = match short {
        126 => (2, 126),
        127 => (8, 1 << 16),
        short => return Ok(Some((usize::from(short), 0))),
    };
    let Some(bytes) = rest.get(..long) else { return Ok(None) };
    let length = bytes.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
    if length < least || length > i64::MAX.cast_unsigned() {
        return Err(Violation::Length);
    }
    // What no memory holds is refused by the bound of a message.
    Ok(Some((usize::try_from(length).unwrap_or(usize::MAX), long)))
}

/// Takes the mask off (RFC 6455 §5.3), eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; MASK_BYTES]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Reads a close frame (RFC 6455 §5.5.1).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // §7.4: those that stand for what was not sent are never sent; what is not assigned means nothing.
            let is_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if is_sent && std::str::from_utf8(reason).is_ok() {
                Ok(Some(code))
            } else {
                Err(Violation::Close)
            }
        }
        [_] => Err(Violation::Close),
    }
}

/// Appends a message in one frame.
#[cfg(test)]
pub(in crate::shard) fn write_message(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    write_frame(out, Opcode::Message(kind), payload);
}

/// Appends the header of a message in one frame; its payload goes behind it.
pub(in crate::shard) fn write_message_header(out: &mut Vec<u8>, kind: Kind, payload_bytes: usize) {
    write_header(out, Opcode::Message(kind), payload_bytes);
}

/// Appends the pong to a ping.
pub(in crate::shard) fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write_frame(out, Opcode::Pong, payload);
}

/// Appends a close frame, with a code or without.
pub(in crate::shard) fn write_close(out: &mut Vec<u8>, code: Option<u16>) {
    match code {
        Some(code) => write_frame(out, Opcode::Close, &code.to_be_bytes()),
        None => write_frame(out, Opcode::Close, &[]),
    }
}

/// Returns the bytes of a message's frame.
pub(in crate::shard) const fn framed_bytes(payload: usize) -> usize {
    match payload {
        0..=125 => 2 + payload,
        126..=0xffff => 4 + payload,
        _ => HEADER_BYTES_MAX + payload,
    }
}

fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(framed_bytes(payload.len()));
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize) {
    out.push(0x80 | opcode.number());
    match payload_bytes {
        short @ 0..=125 => out.push(u8::try_from(short).unwrap_or_default()),
        long @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&u16::try_from(long).unwrap_or_default().to_be_bytes());
        }
        longest => {
            out.push(127);
            out.extend_from_slice(&u64::try_from(longest).unwrap_or_default().to_be_bytes());
        }
    }
}
