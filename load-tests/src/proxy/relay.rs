//! Carries connections through, with the faults of their schedules; tells each fault as a JSON line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::schedule::{Direction, Faults, Schedule};
use super::teller::Teller;
use crate::report::{allow_descriptors, sessions_a_process};

/// Connections at once; further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 8_192;
/// Connections that wait in the kernel.
const BACKLOG: u32 = 4_096;
/// What one read takes at most.
const READ_BYTES: usize = 16 * 1024;
/// Bytes that are on their way in one direction: what a delay of 100 ms holds at 40 MB/s.
const ON_THE_WAY_BYTES_MAX: usize = 4 << 20;
/// Pieces of these: at least half of them are whole reads.
const ON_THE_WAY_MAX: usize = 8_192;
/// The receive buffer of whoever is read slowly, so that the sender's kernel notices soon; the kernel doubles it.
const SLOW_BUFFER_BYTES: u32 = 4 * 1024;
/// Descriptors of one connection.
const DESCRIPTORS: u32 = 2;
/// Until another attempt to accept, where there was no descriptor for one.
const AGAIN: Duration = Duration::from_millis(50);

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

/// Bytes that are on their way, and their part of the room there is.
struct OnTheWay {
    due: Instant,
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
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
    let most = sessions_a_process()?;
    allow_descriptors(most)?;
    let connections_max = usize::try_from(most / DESCRIPTORS)?.clamp(1, CONNECTIONS_MAX);
    let listener = listen(options).with_context(|| options.listen.to_string())?;
    let teller = Teller::start();
    let (here, to) = (listener.local_addr()?.to_string(), options.to.to_string());
    teller.tell(json!({ "listening": here, "to": to, "seed": options.seed })).await?;
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        while connections.len() >= connections_max {
            drop(connections.join_next().await);
        }
        while connections.try_join_next().is_some() {}
        let client = tokio::select! {
            biased;
            // Nobody hears of the faults any more.
            () = teller.closed() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(error) => {
                    // Who could not be accepted may be gone, or there is no descriptor until another connection ends.
                    teller.tell(json!({ "refused": error.to_string() })).await?;
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            },
        };
        let teller = teller.clone();
        connections.spawn(async move {
            if let Err(error) = Box::pin(carry(options, number, client, &teller)).await {
                drop(teller.tell(json!({ "connection": number, "ended": format!("{error:#}") })).await);
            }
        });
        number += 1;
    }
}

fn listen(options: Options) -> anyhow::Result<TcpListener> {
    let socket = socket(options.listen, options.faults)?;
    socket.set_reuseaddr(true)?;
    socket.bind(options.listen)?;
    Ok(socket.listen(BACKLOG)?)
}

/// A socket of either side; one that is accepted has its listener's buffers.
fn socket(address: SocketAddr, faults: Faults) -> anyhow::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if faults.slow_read.is_some() {
        socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
    }
    Ok(socket)
}

async fn carry(options: Options, connection: u64, client: TcpStream, teller: &Teller) -> anyhow::Result<()> {
    let server = socket(options.to, options.faults)?.connect(options.to).await;
    let server = server.with_context(|| options.to.to_string())?;
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
        (from_client, to_server),
        teller,
    );
    let back = one_way(
        options.faults,
        way(Direction::ToClient),
        schedule(Direction::ToClient),
        (from_server, to_client),
        teller,
    );
    let both = async { tokio::try_join!(there, back) };
    let cut = async {
        match options.faults.cut_after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = cut => {
            let after_ms = millis(began.elapsed());
            teller.tell(json!({ "connection": connection, "fault": "cut", "after_ms": after_ms })).await
        }
        both = both => both.map(drop),
    }
}

/// Carries one direction until it ends, or is half-closed.
async fn one_way(
    faults: Faults,
    way: Way,
    schedule: Schedule,
    (from, to): (OwnedReadHalf, OwnedWriteHalf),
    teller: &Teller,
) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel(ON_THE_WAY_MAX);
    let half_close = match (way.direction, faults.half_close_after) {
        (Direction::ToClient, Some(after)) => Some(way.began + after),
        (Direction::ToClient | Direction::ToServer, _) => None,
    };
    let reading = read(faults, way, schedule, from, sender, teller);
    let writing = write(way, half_close, receiver, to, teller);
    tokio::try_join!(reading, writing).map(drop)
}

async fn read(
    faults: Faults,
    way: Way,
    mut schedule: Schedule,
    mut from: OwnedReadHalf,
    sender: mpsc::Sender<OnTheWay>,
    teller: &Teller,
) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(ON_THE_WAY_BYTES_MAX));
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
                fault(teller, way, "lost", None).await?;
            }
            earliest = earliest.max(now + late);
            let (bytes, later) = rest.split_at_mut(taken);
            for place in schedule.turn(bytes) {
                fault(teller, way, "corrupt", Some(place)).await?;
            }
            let room = Arc::clone(&room).acquire_many_owned(u32::try_from(bytes.len())?).await?;
            // Where the other side has gone, or was half-closed, what comes is read and forgotten, so that who sends it does not notice.
            drop(sender.send(OnTheWay { due: earliest, bytes: bytes.to_vec(), _room: room }).await);
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
    teller: &Teller,
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
                fault(teller, way, "half_close", None).await?;
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

async fn fault(teller: &Teller, way: Way, name: &str, place: Option<u64>) -> anyhow::Result<()> {
    let mut told = json!({
        "connection": way.connection,
        "direction": way.direction,
        "fault": name,
        "after_ms": millis(way.began.elapsed()),
    });
    if let (Some(place), Value::Object(fields)) = (place, &mut told) {
        fields.insert("byte".to_owned(), json!(place));
    }
    teller.tell(told).await
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
