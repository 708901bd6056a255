//! A Switch's way in and its WebSocket with nothing behind them but an echo, which is what the Autobahn test suite talks to.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use muster_proto::frame::Encoded;
use muster_service::line::{Keying, Line};
use rustls::ServerConfig;
use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;

use super::upgrade;
use super::wire::{Heard, Kind, Wire, WireError};
use crate::config::SessionLimits;

/// The largest messages of the suite have 16 MiB.
const MESSAGE_BYTES_MAX: u64 = 32 << 20;

/// Sends each message back to who sent it, for as long as the process lives. Clients show no certificate, since the suite has none.
///
/// # Errors
/// The system's.
pub fn serve(listener: TcpListener, tls: Arc<ServerConfig>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let limits =
            Rc::new(SessionLimits { message_bytes_max: MESSAGE_BYTES_MAX, ..SessionLimits::default() });
        let tasks = TaskTracker::new();
        loop {
            let (stream, address) = listener.accept().await?;
            let (tls, limits) = (Arc::clone(&tls), Rc::clone(&limits));
            tasks.spawn_local(async move {
                let Ok(accepted) = Line::accept(tls, stream, Keying::Closed).await else { return };
                let upgraded = async { upgrade::read(accepted).await?.answer(None, &limits).await };
                match upgraded.await {
                    Ok(mut wire) => match echo(&mut wire).await {
                        Ok(()) => wire.hang_up(),
                        Err(WireError::Violation(_)) => wire.close().await,
                        Err(WireError::Line(error)) => tracing::debug!(%address, %error, "gone"),
                    },
                    Err(error) => tracing::debug!(%address, %error, "no WebSocket"),
                }
            });
        }
    })
}

/// Sends messages back until the client ends.
async fn echo(wire: &mut Wire) -> Result<(), WireError> {
    let mut waiting: VecDeque<(Kind, Bytes)> = VecDeque::new();
    std::future::poll_fn(|context| {
        loop {
            let _written = wire.poll_tell(context, || next(&mut waiting))?;
            let heard = wire.poll_hear(context, |kind, bytes| (kind, Bytes::copy_from_slice(bytes)));
            match heard? {
                Poll::Ready(Heard::Message(message)) => waiting.push_back(message),
                Poll::Ready(Heard::Control) => {}
                Poll::Ready(Heard::End) => return Poll::Ready(Ok(())),
                Poll::Pending if wire.is_flushed() && waiting.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    let _written = wire.poll_tell(context, || next(&mut waiting))?;
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

fn next(waiting: &mut VecDeque<(Kind, Bytes)>) -> Option<(Kind, Encoded)> {
    waiting.pop_front().map(|(kind, message)| (kind, message.into()))
}
