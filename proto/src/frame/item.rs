//! Frames on a QUIC stream: each is one item, its length in front of it. Pure, and without a buffer of its own.
//!
//! | bytes | hold |
//! |---|---|
//! | 1–3 | the frame's length as protobuf's varint (seven bits a byte, the lowest first), in its shortest form |
//! | as many | the frame |
//!
//! The caller gives bytes as they came, and keeps what is not a whole item yet; one too large for its bound is refused by its length, before
//! any of it is kept.

use std::ops::Range;

/// Bytes of a length at most: 21 bits, which a frame of 1 MiB needs.
pub const LENGTH_BYTES_MAX: usize = 3;

/// Bits of a length in one byte; the eighth says that another byte follows.
const BITS: u32 = 7;

/// Why bytes are no item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The frame is beyond its bound.
    #[error("an item of {got} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its bytes, as far as its length tells them.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// The length has a shorter form, or more bytes than one may have.
    #[error("an item whose length is not in its shortest form of 1 to {LENGTH_BYTES_MAX} bytes")]
    Length,
}

/// Appends a frame as an item.
pub fn put(items: &mut Vec<u8>, frame: &[u8]) {
    put_length(items, frame.len());
    items.extend_from_slice(frame);
}

/// Appends the length of a frame, which goes behind it.
pub fn put_length(items: &mut Vec<u8>, frame_bytes: usize) {
    let mut left = frame_bytes;
    loop {
        let low = u8::try_from(left & 0x7f).unwrap_or_default();
        left >>= BITS;
        if left == 0 {
            items.push(low);
            break;
        }
        items.push(low | 0x80);
    }
}

/// Finds the first item of `bytes`; returns where its frame lies, which ends where the next item begins. `None`: it is not whole yet.
///
/// # Errors
/// The peer broke the protocol: see [`ItemError`].
pub fn first(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<Range<usize>>, ItemError> {
    let mut length = 0_usize;
    for (at, byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        let shift = BITS * u32::try_from(at).unwrap_or_default();
        length |= usize::from(byte & 0x7f) << shift;
        if length > frame_bytes_max {
            return Err(ItemError::TooLarge { got: length, max: frame_bytes_max });
        }
        if byte & 0x80 == 0 {
            if *byte == 0 && at > 0 {
                return Err(ItemError::Length);
            }
            let begin = at + 1;
            return Ok((bytes.len() - begin >= length).then(|| begin..begin + length));
        }
    }
    if bytes.len() >= LENGTH_BYTES_MAX { Err(ItemError::Length) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::FRAME_BYTES_MAX;

    #[test]
    fn a_length_is_in_its_shortest_form_and_within_the_bound() {
        for (bytes, max, wanted) in [
            (&[][..], 8, Ok(None)),
            (&[0], 8, Ok(Some(1..1))),
            (&[2, 7], 8, Ok(None)),
            (&[2, 7, 8, 9], 8, Ok(Some(1..3))),
            (&[9], 8, Err(ItemError::TooLarge { got: 9, max: 8 })),
            (&[0x80], 8, Ok(None)),
            (&[0x80, 0], 8, Err(ItemError::Length)),
            (&[0x81, 0x80, 0], 8, Err(ItemError::Length)),
            (&[0x80, 0x80, 0x80], FRAME_BYTES_MAX, Err(ItemError::Length)),
            (
                &[0x81, 0x80, 0x40],
                FRAME_BYTES_MAX,
                Err(ItemError::TooLarge { got: FRAME_BYTES_MAX + 1, max: FRAME_BYTES_MAX }),
            ),
            (&[0x80, 0x80, 0x40], FRAME_BYTES_MAX, Ok(None)),
        ] {
            assert_eq!(first(bytes, max), wanted, "{bytes:02x?}");
        }
    }

    #[test]
    fn the_largest_frame_has_a_length_of_three_bytes() {
        let mut items = Vec::new();

        put(&mut items, &vec![7; FRAME_BYTES_MAX]);

        assert_eq!(items[..LENGTH_BYTES_MAX], [0x80, 0x80, 0x40]);
        let whole = LENGTH_BYTES_MAX..LENGTH_BYTES_MAX + FRAME_BYTES_MAX;
        assert_eq!(first(&items, FRAME_BYTES_MAX), Ok(Some(whole)));
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..8), step in 1_usize..64) {
            let mut items = Vec::new();
            frames.iter().for_each(|frame| put(&mut items, frame));
            let (mut kept, mut found) = (Vec::new(), Vec::new());

            for piece in items.chunks(step) {
                kept.extend_from_slice(piece);
                while let Some(place) = first(&kept, 400).unwrap() {
                    let end = place.end;
                    found.push(kept[place].to_vec());
                    kept.drain(..end);
                }
            }

            prop_assert_eq!(found, frames);
            prop_assert!(kept.is_empty());
        }

        #[test]
        fn whatever_comes_is_an_item_within_its_bound_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(place)) = first(&bytes, 48) {
                prop_assert!(place.end <= bytes.len() && place.len() <= 48);
                let mut again = Vec::new();
                put(&mut again, &bytes[place.clone()]);
                prop_assert_eq!(&again[..], &bytes[..place.end]);
            }
        }
    }
}
