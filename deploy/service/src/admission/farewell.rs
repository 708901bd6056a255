//! Ends a connection so that what was written last arrives.
//!
//! With TLS 1.3 a client sends its request before it can know that its certificate was refused. A socket that is closed
//! with such bytes unread is reset, and a reset throws away what the peer has not read yet, such as the alert (RFC 1122
//! §4.2.2.13). So our half is closed first, and the peer's is read until it ends, or a bound is reached.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::line::Line;

/// How long a refused peer has to take the answer. A round trip around the world takes 0.4 s.
const LINGER: Duration = Duration::from_secs(3);
/// What a refused peer may still send meanwhile: what a kernel's send buffer holds, and more.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// One read of what nobody looks at.
const LINGER_READ_BYTES: usize = 16 * 1024;

/// Ends a connection after its handshake, with a `close_notify`, so that the peer knows the end for one that was meant.
/// It takes some seconds at most.
pub async fn end(mut stream: TlsStream<TcpStream>) {
    drop(timeout(LINGER, stream.shutdown()).await);
    linger(stream.into_inner().0).await;
}

/// As [`end`].
pub async fn end_line(mut line: Line) {
    drop(timeout(LINGER, line.close()).await);
    linger(line.into_stream()).await;
}

/// Writes what the peer is to read last, and ends the connection.
pub(super) async fn say_by_line(mut line: Line, last: &[u8]) {
    // As below.
    if line.send(last).is_ok() {
        drop(timeout(LINGER, line.flush()).await);
    }
    end_line(line).await;
}

/// Writes what the peer is to read last, and ends the connection.
pub(super) async fn say(mut stream: TlsStream<TcpStream>, last: &[u8]) {
    // Who reads nothing is not told; the end has a deadline of its own.
    drop(timeout(LINGER, stream.write_all(last)).await);
    end(stream).await;
}

/// Ends a connection that has no TLS, or none any more.
pub(super) async fn linger(mut stream: TcpStream) {
    let drained = drain(&mut stream, LINGER_BYTES_MAX);
    // However it ends, the connection is over.
    drop(timeout(LINGER, drained).await);
}

/// Closes our half, and reads the peer's until it ends, or so much has come.
pub(super) async fn drain(stream: &mut TcpStream, bytes_max: usize) -> std::io::Result<()> {
    stream.shutdown().await?;
    let (mut unread, mut bytes) = (vec![0; LINGER_READ_BYTES], 0);
    while bytes < bytes_max {
        match stream.read(&mut unread).await? {
            0 => break,
            length => bytes += length,
        }
    }
    Ok(())
}
