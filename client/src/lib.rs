//! The client: connection, verification, journal, outbox, content.
