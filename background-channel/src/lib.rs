//! The Background Channel: resources by BLAKE3 root, event spool and relay.
