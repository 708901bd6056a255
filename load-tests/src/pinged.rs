//! A session that does nothing but measure: WebSocket pings on a schedule, each answer timed from when its ping was due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures_util::{SinkExt as _, StreamExt as _};
use muster_proto::limits::SessionLimits;
use muster_proto::session::client::{ClientEvent, ClientSession, ClientSessionConfig};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::simulated::{AfterLoss, Device, Shared};

/// Between two pings of one session.
const EVERY: Duration = Duration::from_millis(20);
/// Without a deadline of the protocol's own.
const IDLE: Duration = Duration::from_secs(60);

/// What a session that pings tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It has begun.
    Welcome,
    /// A ping was answered.
    Pong {
        /// When it was due.
        due: Instant,
        /// From then until its answer, or that to a later one.
        latency: Duration,
    },
    /// It ended, and why.
    Lost(String),
}

/// Runs one session until it is cancelled or lost.
pub async fn run(
    shared: Arc<Shared>,
    name: String,
    tls: Arc<ClientConfig>,
    heard: mpsc::Sender<Heard>,
    cancelled: CancellationToken,
) {
    if let Err(error) = Box::pin(ping(shared, name, tls, &heard, &cancelled)).await {
        // Nobody is left to tell when the measurement has ended.
        drop(heard.send(Heard::Lost(format!("{error:#}"))).await);
    }
}

async fn ping(
    shared: Arc<Shared>,
    name: String,
    tls: Arc<ClientConfig>,
    heard: &mpsc::Sender<Heard>,
    cancelled: &CancellationToken,
) -> anyhow::Result<()> {
    // It gets no orders, so nothing is told.
    let (told, _) = mpsc::channel(1);
    let device = Device::new(shared, name, AfterLoss::End, told);
    let mut socket = device.open(tls).await?;
    let config = ClientSessionConfig { limits: Arc::new(SessionLimits::default()) };
    let mut session = ClientSession::new(config, device.hello(), Instant::now());
    let mut ticks = tokio::time::interval(EVERY);
    // Each ping is due at its time, however late the last one was.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut number, mut waiting) = (0_u64, VecDeque::<(u64, Instant)>::new());
    loop {
        while let Some(event) = session.poll_event() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "what a session brings besides is not measured"
            )]
            match event {
                ClientEvent::Welcome(_) => heard.send(Heard::Welcome).await?,
                ClientEvent::GoAway { reason, detail, .. } => bail!("told to go away: {reason:?} {detail}"),
                ClientEvent::Closed { reason, .. } => bail!("the session was closed: {reason:?}"),
                _ => {}
            }
        }
        while let Some(frame) = session.poll_transmit() {
            socket.feed(Message::Binary(frame)).await?;
        }
        socket.flush().await?;
        let deadline = session.poll_timeout().unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return Ok(()),
            message = socket.next() => match message {
                Some(Ok(Message::Binary(frame))) => session.handle_message(&frame, Instant::now()),
                Some(Ok(Message::Pong(payload))) => {
                    session.handle_byte(Instant::now());
                    let answered = payload.as_ref().try_into().map(u64::from_be_bytes)?;
                    // A WebSocket may answer the latest of several pings only.
                    while let Some((_, due)) = waiting.front().copied().filter(|(sent, _)| *sent <= answered) {
                        waiting.pop_front();
                        heard.send(Heard::Pong { due, latency: due.elapsed() }).await?;
                    }
                }
                Some(Ok(Message::Close(_))) | None => bail!("the Switch closed the connection"),
                Some(Ok(_)) => session.handle_byte(Instant::now()),
                Some(Err(error)) => return Err(error.into()),
            },
            due = ticks.tick() => {
                waiting.push_back((number, due.into_std()));
                socket.feed(Message::Ping(number.to_be_bytes().to_vec().into())).await?;
                number += 1;
            }
            () = tokio::time::sleep_until(deadline.into()) => session.handle_timeout(Instant::now()),
        }
    }
}
