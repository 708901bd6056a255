//! What lies in the tables' records, and the checksum beside each.

use muster_proto::operator::v1::StateCount;
use prost::Message;

/// Checks and writes the CRC32C of one row: over the table's name, its key columns and its record, each with its
/// length, so that no two rows have the same bytes under the sum.
pub(crate) fn checksum(table: &str, keys: &[&[u8]], record: &[u8]) -> u32 {
    let part = |crc: u32, bytes: &[u8]| {
        let crc = crc32c::crc32c_append(crc, &u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        crc32c::crc32c_append(crc, bytes)
    };
    let crc = part(0, table.as_bytes());
    part(keys.iter().fold(crc, |crc, key| part(crc, key)), record)
}

/// Decodes a record if its checksum holds; else says what is wrong.
pub(crate) fn checked<M: Message + Default>(
    table: &str,
    keys: &[&[u8]],
    record: &[u8],
    crc: i64,
) -> Result<M, String> {
    verify(table, keys, record, crc)?;
    M::decode(record).map_err(|error| format!("not a record: {error}"))
}

/// Compares a row's checksum.
pub(crate) fn verify(table: &str, keys: &[&[u8]], record: &[u8], crc: i64) -> Result<(), String> {
    let wanted = i64::from(checksum(table, keys, record));
    if crc == wanted { Ok(()) } else { Err(format!("checksum {crc:08x}, wanted {wanted:08x}")) }
}

/// An accepted instruction.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InstructionRecord {
    /// The signed order.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) envelope: bytes::Bytes,
    /// The signed bytes in it, a `muster.order.v1.Order`.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) order: Vec<u8>,
    /// When it was accepted, milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub(crate) created_at_ms: i64,
    /// Until when a target that was reached before the end may answer, milliseconds since 1970.
    #[prost(int64, tag = "4")]
    pub(crate) grace_until_ms: i64,
    /// The targets, a roaring bitmap of device numbers.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) targets: Vec<u8>,
    /// How many approvals its definition asks for.
    #[prost(uint32, tag = "6")]
    pub(crate) approvals_wanted: u32,
    /// How many it had when it was accepted: people beside one who signed it.
    #[prost(uint32, tag = "7")]
    pub(crate) approvals: u32,
}

/// The approvals of an instruction that came after it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ApprovalsRecord {
    /// The order with all signatures: what devices get once there are enough.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) envelope: bytes::Bytes,
    /// How many there are with those that came with the order.
    #[prost(uint32, tag = "2")]
    pub(crate) approvals: u32,
    /// Who gave those that came after it, oldest first.
    #[prost(message, repeated, tag = "3")]
    pub(crate) given: Vec<muster_proto::operator::v1::Approval>,
}

/// An accepted stop.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StopRecord {
    /// The signed stop.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) envelope: bytes::Bytes,
    /// The signed bytes in it, a `muster.order.v1.Order`.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) order: Vec<u8>,
    /// When it was accepted, milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub(crate) created_at_ms: i64,
    /// The targets that had brought no result then, a roaring bitmap of device numbers.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) owed: Vec<u8>,
}

/// By which call an instruction was submitted.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SubmissionRecord {
    #[prost(string, tag = "1")]
    pub(crate) operator: String,
    #[prost(string, tag = "2")]
    pub(crate) idempotency_key: String,
    /// SHA-256 of the envelope.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) envelope_digest: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) id: Vec<u8>,
}

/// How many targets are in which state, as the transitions add up to.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CountsRecord {
    #[prost(message, repeated, tag = "1")]
    pub(crate) states: Vec<StateCount>,
}

/// Devices that entered a state together.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TransitionRecord {
    /// The commit, ascending over the whole store.
    #[prost(uint64, tag = "1")]
    pub(crate) batch: u64,
    #[prost(enumeration = "muster_proto::common::v1::TargetState", tag = "2")]
    pub(crate) state: i32,
    #[prost(string, tag = "3")]
    pub(crate) cause: String,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "4")]
    pub(crate) at_ms: i64,
    /// A roaring bitmap of device numbers.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) devices: Vec<u8>,
}

/// An imported definition or licence.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DocumentRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) envelope: bytes::Bytes,
    /// The signed text in it.
    #[prost(string, tag = "2")]
    pub(crate) text: String,
    /// SHA-256 of the signer's certificate, hex.
    #[prost(string, tag = "3")]
    pub(crate) signer_thumbprint: String,
    /// The signer's subject.
    #[prost(string, tag = "4")]
    pub(crate) signer: String,
    /// Seconds since 1970.
    #[prost(uint64, tag = "5")]
    pub(crate) signed_at: u64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "6")]
    pub(crate) imported_at_ms: i64,
    /// When a timestamp proves that it was signed, in seconds since 1970; none: it has none.
    #[prost(uint64, optional, tag = "7")]
    pub(crate) stamped_at: Option<u64>,
}
