//! What every long-running process of Muster shares.
//!
//! - [`program`]: the command line, start and end of a program: run, config check, config explain.
//! - [`config`]: TOML layers into one checked value, with errors that name file, line and key.
//! - [`telemetry`]: logs on standard error, metrics as Prometheus text.
//! - [`shutdown`]: owns the tasks and ends them in order.
//! - [`health`] and [`admin`]: what is well and what is not, over loopback HTTP.
//! - [`credentials`]: TLS configurations from watched files, judged by [`muster_pki::check`], and the way out to servers.
//! - [`admission`]: the way in of a TLS listener, and what a stranger may hold of it.
//! - [`descriptors`]: how many files a process may have open, and threads that have their own.
//! - [`mod@line`]: a TLS connection without buffers of its own, for where there are many.
//! - [`quic`]: what QUIC connections are bound by.
//! - [`wall`]: the time of day, as far as it is believed.
//! - [`listen`] and [`exit`]: sockets and exit codes whose errors say what to change.
//!
//! It holds nothing of sessions, instructions or resources. Start reading at [`credentials`].

pub mod admin;
pub mod admission;
pub mod config;
pub mod credentials;
pub mod descriptors;
pub mod exit;
pub mod health;
pub mod line;
pub mod listen;
pub mod metrics;
pub mod program;
pub mod quic;
pub mod shutdown;
pub mod telemetry;
pub mod wall;

/// Builds the multi-threaded runtime of a service: `workers` threads named after `program`.
///
/// # Errors
/// Returns the operating system's error when threads or the poller cannot be made.
pub fn runtime(
    program: &'static str,
    workers: std::num::NonZeroUsize,
) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name(program)
        .worker_threads(workers.get())
        .enable_all()
        .build()
}
