//! [`download`]: one GET of a file of known size, which may be larger than memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, LOCATION};
use http::{Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use muster_pki::CrlUrl;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::{GetError, asking, beside, connect, text};

/// What is held of the file at once, and of the answer's head.
const PIECE_BYTES: usize = 256 * 1024;

/// What is asked for, and how long it may take.
#[derive(Debug, Clone)]
pub struct Download {
    /// Where, by GET.
    pub url: CrlUrl,
    /// The file's bytes: an answer of more or fewer is none.
    pub size: u64,
    /// How long nothing may come: until the connection stands, until the answer begins, and between two pieces of it.
    pub silence: Duration,
    /// Bytes a second; a server that is slower on the whole is given up.
    pub rate_bytes_min: u32,
}

/// Why a file did not come whole.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No connection, or one that broke.
    #[error(transparent)]
    Get(#[from] GetError),
    /// Another answer than 200.
    #[error("status {status}; wanted 200 with the file")]
    Status {
        /// The status.
        status: StatusCode,
        /// Where a redirect leads; it is not followed.
        location: Option<String>,
    },
    /// The server says beforehand that it sends another size; nothing of it was read.
    #[error("the server would send {got} bytes; wanted {wanted}")]
    Size {
        /// What it says.
        got: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// The server sent more; what is beyond was not handed on.
    #[error("more than the {wanted} bytes that were wanted")]
    More {
        /// What was asked for.
        wanted: u64,
    },
    /// The server ended before.
    #[error("ended after {got} bytes; wanted {wanted}")]
    Fewer {
        /// What came.
        got: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// Nothing came any more.
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    /// It came too slowly.
    #[error("not whole after {0:?}")]
    Late(Duration),
    /// What came could not be kept.
    #[error("what came could not be kept: {0}")]
    Kept(io::Error),
}

/// Asks once, follows nothing, and hands each piece of the file to `keep`: never more bytes than were asked for. `https` judges the
/// server; it is given none of our certificates.
///
/// # Errors
/// The file did not come whole, or `keep` failed. What was handed on until then is of no use.
pub async fn download(
    wanted: &Download,
    https: Arc<ClientConfig>,
    mut keep: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), DownloadError> {
    let rate = u64::from(wanted.rate_bytes_min.max(1));
    let most = wanted.silence.saturating_add(Duration::from_secs(wanted.size / rate));
    timeout(most, fetch(wanted, https, &mut keep)).await.map_err(|_| DownloadError::Late(most))?
}

async fn fetch(
    wanted: &Download,
    https: Arc<ClientConfig>,
    keep: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), DownloadError> {
    let silent = |_| DownloadError::Silent(wanted.silence);
    let uri: Uri = wanted.url.as_str().parse().map_err(http::Error::from).map_err(GetError::from)?;
    let stream = timeout(wanted.silence, connect(&uri, Some(https))).await.map_err(silent)??;
    let handshake = http1::Builder::new().max_buf_size(PIECE_BYTES).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(GetError::from)?;
    let ask = asking(&uri, "application/octet-stream, */*;q=0.5")?.body(Empty::<Bytes>::new());
    let ask = ask.map_err(GetError::from)?;
    let answer = async {
        let response = timeout(wanted.silence, sender.send_request(ask)).await.map_err(silent)?;
        let response = response.map_err(GetError::from)?;
        check_head(wanted, &response)?;
        pour(wanted, response.into_body(), keep).await
    };
    beside(connection, answer).await
}

fn check_head(wanted: &Download, response: &Response<Incoming>) -> Result<(), DownloadError> {
    let (status, headers) = (response.status(), response.headers());
    if status != StatusCode::OK {
        return Err(DownloadError::Status { status, location: text(headers, &LOCATION) });
    }
    // A server need not say it; what one says that is no number, HTTP itself refuses.
    match text(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok()) {
        Some(got) if got != wanted.size => Err(DownloadError::Size { got, wanted: wanted.size }),
        Some(_) | None => Ok(()),
    }
}

async fn pour(
    wanted: &Download,
    mut body: Incoming,
    keep: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), DownloadError> {
    let mut got = 0_u64;
    loop {
        let next = timeout(wanted.silence, body.frame()).await;
        let Some(frame) = next.map_err(|_| DownloadError::Silent(wanted.silence))? else { break };
        let Ok(piece) = frame.map_err(GetError::from)?.into_data() else { continue };
        got = got.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if got > wanted.size {
            return Err(DownloadError::More { wanted: wanted.size });
        }
        keep(&piece).map_err(DownloadError::Kept)?;
    }
    if got == wanted.size { Ok(()) } else { Err(DownloadError::Fewer { got, wanted: wanted.size }) }
}

#[cfg(test)]
mod tests;
