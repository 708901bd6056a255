//! What is said between the parts of Muster.
//!
//! The `.proto` files beside this crate are the wire specification; the modules [`common`], [`session`], [`order`],
//! [`operator`] and [`relay`] hold the messages generated from them. PROTOCOL.md at the repository's root tells the rest.

/// Values, rows and states.
pub mod common {
    /// Package `muster.common.v1`.
    #[allow(clippy::all, clippy::use_self, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/muster.common.v1.rs"));
    }
}

/// Frames of a session and bodies of the Background Channel.
pub mod session {
    /// Package `muster.session.v1`.
    #[allow(clippy::all, clippy::use_self, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/muster.session.v1.rs"));
    }
}

/// The content of a signed order.
pub mod order {
    /// Package `muster.order.v1`.
    #[allow(clippy::all, clippy::use_self, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/muster.order.v1.rs"));
    }
}

/// The operator API.
pub mod operator {
    /// Package `muster.operator.v1`.
    #[allow(clippy::all, clippy::use_self, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/muster.operator.v1.rs"));
    }
}

/// What the Background Channel says to the Switch.
pub mod relay {
    /// Package `muster.relay.v1`.
    #[allow(clippy::all, clippy::use_self, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/muster.relay.v1.rs"));
    }
}
