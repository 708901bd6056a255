//! Carries connections through, with the faults of their schedules; tells each fault as a JSON line.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::schedule::{Direction, Faults, Schedule};

/// Connections at once; further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 8_192;
/// What one read takes at most.
const READ_BYTES: usize = 16 * 1024;
/// Reads that are on their way in one direction, so at most 4 MiB: what a delay of 100 ms holds at 40 MB/s.
const ON_THE_WAY_MAX: usize = 256;

/// Where it listens, where it goes, what it does to what it carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) faults: Faults,
    pub(crate) seed: u64,
}

/// One direction of one connection.
#[derive(Debug, Clone, Copy)]
struct Way {
    connection: u64,
    direction: Direction,
    began: Instant,
}

/// Bytes that are on their way.
struct OnTheWay {
    due: Instant,
    bytes: Vec<u8>,
}

/// Runs the proxy until it is stopped.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    for address in [options.listen, options.to] {
        ensure!(
            address.ip().is_loopback(),
            "{address}: loopback addresses only, such as 127.0.0.1:{}; this is a tool for tests",
            address.port()
        );
    }
    let listener = TcpListener::bind(options.listen).await.with_context(|| options.listen.to_string())?;
    tell(
        &json!({ "listening": listener.local_addr()?.to_string(), "to": options.to.to_string(), "seed": options.seed }),
    )?;
    let mut connections = JoinSet::new();
    for number in 0.. {
        while connections.len() >= CONNECTIONS_MAX {
            drop(connections.join_next().await);
        }
        while connections.try_join_next().is_some() {}
        let (client, _) = listener.accept().await?;
        connections.spawn(async move {
            if let Err(error) = Box::pin(carry(options, number, client)).await {
                drop(tell(&json!({ "connection": number, "ended": format!("{error:#}") })));
            }
        });
    }
    Ok(())
}

async fn carry(options: Options, connection: u64, client: TcpStream) -> anyhow::Result<()> {
    let server = TcpStream::connect(options.to).await.with_context(|| options.to.to_string())?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let began = Instant::now();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let way = |direction| Way { connection, direction, began };
    let schedule = |direction| Schedule::new(options.faults, options.seed, connection, direction);
    let there = one_way(
        options.faults,
        way(Direction::ToServer),
        schedule(Direction::ToServer),
        from_client,
        to_server,
    );
    let back = one_way(
        options.faults,
        way(Direction::ToClient),
        schedule(Direction::ToClient),
        from_server,
        to_client,
    );
    let both = async { tokio::join!(there, back) };
    let cut = async {
        match options.faults.cut_after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = cut => tell(&json!({ "connection": connection, "fault": "cut", "after_ms": millis(began.elapsed()) })),
        (there, back) = both => there.and(back),
    }
}

/// Carries one direction until it ends, or is half-closed.
async fn one_way(
    faults: Faults,
    way: Way,
    schedule: Schedule,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel(ON_THE_WAY_MAX);
    let half_close = match (way.direction, faults.half_close_after) {
        (Direction::ToClient, Some(after)) => Some(way.began + after),
        (Direction::ToClient | Direction::ToServer, _) => None,
    };
    let reading = read(faults, way, schedule, from, sender);
    let writing = write(way, half_close, receiver, to);
    let (read, written) = tokio::join!(reading, writing);
    read.and(written)
}

async fn read(
    faults: Faults,
    way: Way,
    mut schedule: Schedule,
    mut from: OwnedReadHalf,
    sender: mpsc::Sender<OnTheWay>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let most = faults
        .slow_read
        .map_or(READ_BYTES, |rate| usize::try_from(rate).unwrap_or(READ_BYTES).clamp(1, READ_BYTES));
    // Nothing overtakes what is late.
    let mut earliest = way.began;
    loop {
        let count = from.read(buffer.get_mut(..most).unwrap_or_default()).await?;
        if count == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let mut rest = buffer.get_mut(..count).unwrap_or_default();
        while !rest.is_empty() {
            let (taken, piece, is_first) = schedule.next(rest.len());
            let (late, lost) = (piece.late, piece.lost);
            if is_first && lost {
                fault(way, "lost", None)?;
            }
            earliest = earliest.max(now + late);
            let (bytes, later) = rest.split_at_mut(taken);
            for place in schedule.turn(bytes) {
                fault(way, "corrupt", Some(place))?;
            }
            if sender.send(OnTheWay { due: earliest, bytes: bytes.to_vec() }).await.is_err() {
                // The other side has gone, or was half-closed: what comes is read and forgotten.
                return Ok(());
            }
            rest = later;
        }
        if let Some(rate) = faults.slow_read {
            let seconds = f64::from(u32::try_from(count).unwrap_or(u32::MAX))
                / f64::from(u32::try_from(rate).unwrap_or(u32::MAX));
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
    }
}

async fn write(
    way: Way,
    half_close: Option<Instant>,
    mut receiver: mpsc::Receiver<OnTheWay>,
    mut to: OwnedWriteHalf,
) -> anyhow::Result<()> {
    let closing = async {
        match half_close {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let mut closing = std::pin::pin!(closing);
    loop {
        let next = async {
            let next = receiver.recv().await?;
            tokio::time::sleep_until(next.due).await;
            Some(next)
        };
        tokio::select! {
            biased;
            () = closing.as_mut() => {
                fault(way, "half_close", None)?;
                break;
            }
            next = next => match next {
                Some(OnTheWay { bytes, .. }) => to.write_all(&bytes).await?,
                None => break,
            },
        }
    }
    Ok(to.shutdown().await?)
}

fn fault(way: Way, name: &str, place: Option<u64>) -> anyhow::Result<()> {
    let mut told = json!({
        "connection": way.connection,
        "direction": way.direction,
        "fault": name,
        "after_ms": millis(way.began.elapsed()),
    });
    if let (Some(place), Value::Object(fields)) = (place, &mut told) {
        fields.insert("byte".to_owned(), json!(place));
    }
    tell(&told)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// One line, whole, at once: a pipe's reader sees it when it happens.
fn tell(line: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
