//! What is measured, a module each: CPU time, cores, the floors that figures are divided by, what waits in the kernel, and how rounds are summed up.
//!
//! Memory (PSS) and latencies are in [`crate::report`].

pub mod cores;
pub mod cpu;
pub mod handshake_floor;
pub mod spread;
pub mod tcp_floor;
pub mod unsent;
