//! Another envelope of the same order, which nobody who has a key has made: of an ECDSA signature (r, s), (r, n - s) holds as well.

/// The order of P-256's group (SEC 2, 2.4.2).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const INTEGER: u8 = 0x02;

/// Exchanges the signature of an envelope of one P-256 signer for the other one of the same key and content.
pub(super) fn with_other_signature(envelope: &[u8]) -> Vec<u8> {
    let changed = exchanged(envelope);
    assert_ne!(changed, envelope);
    changed
}

/// Goes down by the last element of each, to the `s` of the signature, which is the last of all.
fn exchanged(der: &[u8]) -> Vec<u8> {
    let (tag, content) = element(der);
    if tag == INTEGER {
        return encoded(INTEGER, &unsigned(&subtracted(content)));
    }
    let (mut last, mut at) = (0, 0);
    while at < content.len() {
        last = at;
        at += length(&content[at..]);
    }
    let (before, of) = content.split_at(last);
    encoded(tag, &[before, &exchanged(of)].concat())
}

/// `ORDER - s`.
fn subtracted(s: &[u8]) -> [u8; 32] {
    let mut padded = [0; 32];
    let digits = &s[s.iter().take_while(|byte| **byte == 0).count()..];
    padded[32 - digits.len()..].copy_from_slice(digits);
    let (mut difference, mut borrow) = ([0; 32], 0);
    for at in (0..32).rev() {
        let digit = i16::from(ORDER[at]) - i16::from(padded[at]) - borrow;
        borrow = i16::from(digit < 0);
        difference[at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    difference
}

/// A positive INTEGER's content, without leading zeros but the one that its sign needs.
fn unsigned(number: &[u8]) -> Vec<u8> {
    let digits = &number[number.iter().take_while(|byte| **byte == 0).count()..];
    let sign: &[u8] = if digits.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
    [sign, digits].concat()
}

/// Tag and content of the one element that these bytes are.
fn element(der: &[u8]) -> (u8, &[u8]) {
    let (header, content) = sizes(der);
    assert_eq!(der.len(), header + content, "one element");
    (der[0], &der[header..])
}

fn length(der: &[u8]) -> usize {
    let (header, content) = sizes(der);
    header + content
}

/// The lengths of an element's header and content.
fn sizes(der: &[u8]) -> (usize, usize) {
    match der[1] {
        short @ 0..=0x7f => (2, usize::from(short)),
        long => {
            let bytes = usize::from(long & 0x7f);
            let length = der[2..2 + bytes].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            (2 + bytes, length)
        }
    }
}

fn encoded(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
    if content.len() > 0x7f {
        der.push(0x80 | u8::try_from(digits.len()).unwrap());
        der.extend_from_slice(digits);
    } else {
        der.push(u8::try_from(content.len()).unwrap());
    }
    der.extend_from_slice(content);
    der
}
