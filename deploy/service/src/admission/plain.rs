//! The answer to plain text: what this port speaks, in words that a browser and `curl` show.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::farewell;

/// How long a peer has to take the answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// What of the peer's request is read.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// The length is that of the last line.
const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 72\r\nconnection: close\r\n\r\n\
    this port speaks TLS with certificates on both sides, and no plain HTTP\n";

/// Tells the peer that this port speaks TLS.
pub(super) async fn answer(stream: &mut TcpStream) {
    let told = async {
        stream.write_all(ANSWER).await?;
        farewell::drain(stream, REQUEST_BYTES_MAX).await
    };
    // However it ends, the connection is over.
    drop(tokio::time::timeout(ANSWER_DEADLINE, told).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_length_that_it_names() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();

        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{} bytes", body.len());
        assert!(body.ends_with('\n') && body.lines().count() == 1);
    }
}
