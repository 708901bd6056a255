//! What is said between the parts of Muster.
//!
//! The `.proto` files beside this crate are the wire specification; the modules [`common`], [`session`], [`order`],
//! [`operator`] and [`relay`] hold the messages generated from them. PROTOCOL.md at the repository's root tells the rest.

pub mod frame;
pub mod ids;
pub mod limits;
pub mod numbers;
pub mod pair;
pub mod seen;
pub mod state;

/// Values, rows and states.
pub mod common {
    /// Package `muster.common.v1`.
    #[allow(clippy::all, clippy::use_self, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/muster.common.v1.rs"));
    }
}

/// Frames of a session, bodies of the Background Channel, and the session's two halves.
///
/// Both halves are pure: frames, time and commands go in by `handle_*` and `push_*`, frames, deadlines and events come
/// out by `poll_*`. Start reading at [`switch`](session::switch).
pub mod session {
    mod acks;
    pub mod client;
    mod error;
    mod outbound;
    pub mod quic;
    pub mod switch;
    mod text;

    pub use error::PushError;

    /// The versions of the protocol that this crate speaks, the best first.
    pub const VERSIONS: [u32; 1] = [1];

    /// The WebSocket subprotocol of a session, and the path it is asked for at.
    pub const SUBPROTOCOL: &str = "muster.v1";

    /// The path of the WebSocket upgrade.
    pub const PATH: &str = "/v1/session";

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
