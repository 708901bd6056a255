//! A look at DER before it is decoded: whatever a peer or a web server sends is bounded in work, not in bytes alone.

use crate::revocation::tlv::Cursor;

/// Most elements of a SET: names have one in each, envelopes as many as signers and certificates.
pub const SET_ELEMENTS_MAX: usize = 64;

/// Deepest nesting; certificates have some ten levels.
const DEPTH_MAX: usize = 32;

const CONSTRUCTED: u8 = 0x20;
const CLASS: u8 = 0xc0;
const CONTEXT: u8 = 0x80;
const SET: u8 = 0x31;

/// Returns whether `der` is nested at most 32 deep, and no SET in it has more than [`SET_ELEMENTS_MAX`] elements; one that is tagged
/// IMPLICIT looks like any constructed context tag, so these count, too.
///
/// It is linear. The decoder sorts the elements of a SET while it reads them, which takes the square of their number. Where an
/// element is no DER, those before it count: so far the decoder comes, and it tells.
#[must_use]
pub fn has_short_sets(der: &[u8]) -> bool {
    elements(der, DEPTH_MAX).is_some()
}

/// Returns the number of elements; `None` if the shape is refused.
fn elements(der: &[u8], depth: usize) -> Option<usize> {
    let mut cursor = Cursor::new(der);
    let mut count = 0;
    while !cursor.is_empty() {
        let Ok(element) = cursor.any("an element") else { break };
        count += 1;
        if element.tag & CONSTRUCTED == 0 {
            continue;
        }
        let inside = elements(element.value, depth.checked_sub(1)?)?;
        let may_be_set = element.tag == SET || element.tag & CLASS == CONTEXT;
        if may_be_set && inside > SET_ELEMENTS_MAX {
            return None;
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(tag: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        let [high, low] = length.to_be_bytes();
        let header = match value.len() {
            0..=0x7f => vec![tag, low],
            0x80..=0xff => vec![tag, 0x81, low],
            _ => vec![tag, 0x82, high, low],
        };
        [header, value.to_vec()].concat()
    }

    #[test]
    fn a_set_has_a_bound_and_a_sequence_has_none() {
        let nulls = |count: usize| [5, 0].repeat(count);
        for (tag, count, is_short) in
            [(0x31, 64, true), (0x31, 65, false), (0xa0, 65, false), (0x30, 65, true), (0x04, 65, true)]
        {
            let inside = wrapped(0x30, &wrapped(tag, &nulls(count)));
            assert_eq!(has_short_sets(&inside), is_short, "{count} in {tag:#04x}");
        }
    }

    #[test]
    fn nesting_has_a_bound_and_a_set_that_breaks_off_hides_nothing() {
        let deep = |levels: usize| (0..levels).fold(vec![5, 0], |inside, _| wrapped(0x30, &inside));

        assert!(has_short_sets(&deep(32)) && !has_short_sets(&deep(33)));
        let broken = [[5, 0].repeat(65), vec![5, 9]].concat();
        let behind = [wrapped(0x30, &[5, 9]), wrapped(0x31, &[5, 0].repeat(65))].concat();
        assert!(!has_short_sets(&wrapped(0x31, &broken)));
        assert!(!has_short_sets(&wrapped(0x30, &behind)), "an opaque element before it hides nothing either");
        assert!(has_short_sets(&[0x30, 5, 5, 0]), "what is no DER is the decoder's to tell");
    }
}
