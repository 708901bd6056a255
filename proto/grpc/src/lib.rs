//! The generated gRPC services over [`muster_proto`]'s messages.
//!
//! It holds no code of its own; servers and clients are in the modules named after their proto packages. It is never
//! below the client, which speaks no gRPC.
#![allow(clippy::allow_attributes_without_reason, reason = "tonic's generated code gives none")]

/// File descriptors of every service, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Services for operators.
pub mod operator {
    /// Package `muster.operator.v1`.
    #[allow(
        missing_docs,
        unused_qualifications,
        clippy::all,
        clippy::too_many_lines,
        clippy::wildcard_enum_match_arm,
        clippy::use_self,
        clippy::missing_errors_doc,
        reason = "generated"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/muster.operator.v1.rs"));
    }
}

/// Services for Background Channels.
pub mod relay {
    /// Package `muster.relay.v1`.
    #[allow(
        missing_docs,
        unused_qualifications,
        clippy::all,
        clippy::too_many_lines,
        clippy::wildcard_enum_match_arm,
        clippy::use_self,
        clippy::missing_errors_doc,
        reason = "generated"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/muster.relay.v1.rs"));
    }
}
