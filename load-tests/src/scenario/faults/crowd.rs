//! A crowd of connections that misbehave, in a thread of its own: who measures does not wait for it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Attempts to connect under way at once: none waits for a deadline of its own.
const ATTEMPTS_AT_ONCE: usize = 64;
/// From its end to the next attempt of a member, by chance: none is told to come back so soon, and none asks.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Until every member has had its first attempt.
const GATHERING: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// What one member does, for ever.
pub(super) type Member = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the members of a crowd share.
#[derive(Debug)]
pub(super) struct Square {
    places: Arc<Semaphore>,
    gathered: AtomicU32,
    turned_away: AtomicU64,
}

/// What a member notes of itself.
#[derive(Debug)]
pub(super) struct Badge {
    square: Arc<Square>,
    is_known: AtomicBool,
}

/// A crowd; it disperses when it is dropped.
#[derive(Debug)]
pub(super) struct Crowd {
    square: Arc<Square>,
    members: u32,
    dispersed: CancellationToken,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Badge {
    /// Waits for a place among those that connect; it is free when it is dropped.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.square.places).acquire_owned().await.ok()
    }

    /// Notes that it is where it wanted to be.
    pub(super) fn gathered(&self) {
        if !self.is_known.swap(true, Ordering::Relaxed) {
            self.square.gathered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that it was turned away, or its connection ended, and waits until it tries again.
    pub(super) async fn turned_away(&self) {
        self.gathered();
        self.square.turned_away.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(rand::random_range(Duration::ZERO..PAUSE_MAX)).await;
    }
}

impl Crowd {
    /// Starts members, each made of its number and its badge, and waits until all of them are there.
    pub(super) async fn gather(members: u32, member: impl Fn(u32, Badge) -> Member) -> anyhow::Result<Self> {
        let square = Arc::new(Square {
            places: Arc::new(Semaphore::new(ATTEMPTS_AT_ONCE)),
            gathered: AtomicU32::new(0),
            turned_away: AtomicU64::new(0),
        });
        let badge = || Badge { square: Arc::clone(&square), is_known: AtomicBool::new(false) };
        let all: Vec<Member> = (0..members).map(|number| member(number, badge())).collect();
        let dispersed = CancellationToken::new();
        let until = dispersed.clone();
        let thread =
            std::thread::Builder::new().name("crowd".to_owned()).spawn(move || drive(all, &until))?;
        let crowd = Self { square, members, dispersed, thread: Some(thread) };
        let deadline = Instant::now() + GATHERING;
        loop {
            let gathered = crowd.square.gathered.load(Ordering::Relaxed);
            if gathered == members {
                return Ok(crowd);
            }
            if Instant::now() > deadline || crowd.has_ended() {
                crowd.disperse()?;
                bail!("{gathered} of {members} misbehave within {GATHERING:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How often members were turned away, or had their connections ended.
    pub(super) fn turned_away(&self) -> u64 {
        self.square.turned_away.load(Ordering::Relaxed)
    }

    /// Ends all that its members do.
    pub(super) fn disperse(mut self) -> anyhow::Result<()> {
        self.dispersed.cancel();
        let thread = self.thread.take().context("it has dispersed")?;
        let members = self.members;
        let ended =
            thread.join().map_err(|_| anyhow::anyhow!("the thread of {members} that misbehave panicked"))?;
        Ok(ended?)
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.dispersed.cancel();
    }
}

fn drive(members: Vec<Member>, dispersed: &CancellationToken) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks: JoinSet<()> = members.into_iter().collect();
        tokio::select! {
            biased;
            () = dispersed.cancelled() => {}
            // None of them ends by itself.
            _ = tasks.join_next() => {}
        }
    });
    Ok(())
}
