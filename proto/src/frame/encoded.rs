//! [`Encoded`]: a frame's bytes in two pieces, of which many sessions share one.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::encode;
use crate::session::v1::frame::Body;
use crate::session::v1::{Document, Frame, InclusionProof};

/// The field of `Frame` that holds a `Document`.
const DOCUMENT_FIELD: u32 = 11;

/// The field of `Document` that holds the envelope, its last.
const ENVELOPE_FIELD: u32 = 3;

/// A frame's bytes: the one piece, and the other behind it. What is long in one that goes to a whole fleet, an order or a document, is held once,
/// and beside it only what is one session's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    head: Bytes,
    tail: Bytes,
}

impl Encoded {
    /// Returns its bytes' number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Returns whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns its pieces, in their order.
    #[must_use]
    pub fn into_pieces(self) -> [Bytes; 2] {
        [self.head, self.tail]
    }

    /// Returns its bytes in one piece, which are copied where there are two.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.tail.is_empty() {
            return self.head;
        }
        let mut bytes = BytesMut::with_capacity(self.len());
        bytes.put_slice(&self.head);
        bytes.put_slice(&self.tail);
        bytes.freeze()
    }
}

impl From<Bytes> for Encoded {
    fn from(head: Bytes) -> Self {
        Self { head, tail: Bytes::new() }
    }
}

/// Puts a session's inclusion proof behind the shared bytes of an order's frame.
///
/// Protobuf fields may come in any order, so the result is the frame with `proof` set; the order is encoded once for all.
#[must_use]
pub fn with_proof(order_frame: &Bytes, proof: &InclusionProof) -> Encoded {
    let tail = encode(&Frame { proof: Some(proof.clone()), body: None });
    Encoded { head: order_frame.clone(), tail }
}

/// Encodes a document's frame, whose envelope stays where it lies.
#[must_use]
pub fn with_envelope(document: Document) -> Encoded {
    if document.envelope.is_empty() {
        return encode(&Frame { proof: None, body: Some(Body::Document(document)) }).into();
    }
    let Document { kind, digest, envelope: tail } = document;
    let mut inner = Document { kind, digest, envelope: Bytes::new() }.encode_to_vec();
    encode_key(ENVELOPE_FIELD, WireType::LengthDelimited, &mut inner);
    encode_varint(wide(tail.len()), &mut inner);
    let mut head = BytesMut::new();
    encode_key(DOCUMENT_FIELD, WireType::LengthDelimited, &mut head);
    encode_varint(wide(inner.len() + tail.len()), &mut head);
    head.put_slice(&inner);
    Encoded { head: head.freeze(), tail }
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::v1::DocumentKind;

    #[test]
    fn a_document_in_two_pieces_is_the_frame_that_it_is_in_one() {
        for bytes in [0, 1, 127, 128, 300, 20_000, 256 << 10] {
            let document = Document {
                kind: DocumentKind::Definition.into(),
                digest: vec![7; 32],
                envelope: Bytes::from(vec![9; bytes]),
            };
            let whole = encode(&Frame { proof: None, body: Some(Body::Document(document.clone())) });

            let pieces = with_envelope(document);

            assert_eq!(pieces.len(), whole.len());
            assert_eq!(pieces.into_bytes(), whole, "{bytes}");
        }
    }
}
