//! The floor of a broadcast: writing as many bytes as a message has to each of 4,000 loopback TCP connections, with no TLS and
//! no protocol; and that of a burst: several messages in one write.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use super::cores::{self, Cores};
use super::cpu;
use super::spread::Spread;

/// Connections that are written to in turn: more than a processor's caches hold.
const CONNECTIONS: usize = 4_000;
/// What a WebSocket header (4) and a record of TLS 1.3 (5 of header, 1 of type, 16 of tag) add to a message.
const WRAPPING_BYTES: usize = 26;
/// Writes to all of them; the median counts.
const ROUNDS: usize = 5;
/// Before the rounds that count.
const WARM_UP: usize = 1;
/// Until the readers have what was written.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is written to each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Write {
    /// Of one message, before it is wrapped.
    pub message_bytes: usize,
    /// In one write.
    pub messages: u32,
}

impl Write {
    fn bytes(self) -> usize {
        (self.message_bytes + WRAPPING_BYTES) * usize::try_from(self.messages).unwrap_or(1)
    }
}

/// Measures microseconds of CPU for one message: the median of five rounds, on the server's core, the readers on another.
///
/// # Errors
/// The machine gives no sockets, or a reader does not get what was written.
pub fn measure(cores: &Cores, write: Write) -> anyhow::Result<Spread> {
    let (server, load) = (cores.server, cores.load.clone());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let received = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let counted = Arc::clone(&received);
        let reader = scope.spawn(move || read_all(address, &load, &counted, stopped));
        let writer = scope.spawn(|| write_rounds(&listener, server, write, &received));
        let written = writer.join().map_err(|_| anyhow::anyhow!("the writer of the TCP floor ended"))?;
        drop(stop);
        let read = reader.join().map_err(|_| anyhow::anyhow!("the reader of the TCP floor ended"))?;
        // Without a reader the writer waits in vain: the reader's reason is the first.
        read?;
        written
    })
}

fn write_rounds(
    listener: &TcpListener,
    core: Option<usize>,
    write: Write,
    received: &AtomicU64,
) -> anyhow::Result<Spread> {
    if let Some(core) = core {
        cores::pin(core)?;
    }
    let mut streams = Vec::with_capacity(CONNECTIONS);
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + PATIENCE;
    while streams.len() < CONNECTIONS {
        match listener.accept() {
            Ok((stream, _)) => streams.push(accepted(stream)?),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if Instant::now() > deadline {
                    bail!("{} of {CONNECTIONS} connections of the TCP floor in time", streams.len());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error).context("the TCP floor's connections"),
        }
    }
    let written = vec![3_u8; write.bytes()];
    let mut rounds = Vec::with_capacity(ROUNDS);
    for number in 0..WARM_UP + ROUNDS {
        let before = cpu::of_this_thread()?;
        for stream in &mut streams {
            stream.write_all(&written)?;
        }
        let used = cpu::of_this_thread()?.saturating_sub(before);
        if number >= WARM_UP {
            rounds.push(cpu::micros_each(used, CONNECTIONS as u64 * u64::from(write.messages)));
        }
        let expected = ((number + 1) * CONNECTIONS * written.len()) as u64;
        let deadline = Instant::now() + PATIENCE;
        while received.load(Ordering::Relaxed) < expected {
            if Instant::now() > deadline {
                bail!("the readers of the TCP floor did not get what was written within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Spread::of(&rounds).context("no round of the TCP floor")
}

fn accepted(stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    // An empty buffer takes the whole message, so no write waits.
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn read_all(
    address: SocketAddr,
    cores: &[usize],
    received: &Arc<AtomicU64>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    if !cores.is_empty() {
        cores::pin_to(cores)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut readers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpSocket::new_v4()?.connect(address).await?;
            let received = Arc::clone(received);
            readers.spawn(async move {
                let mut buffer = [0_u8; 4_096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    received.fetch_add(count as u64, Ordering::Relaxed);
                }
            });
        }
        // The writer has ended, well or not.
        drop(stopped.await);
        Ok(())
    })
}
