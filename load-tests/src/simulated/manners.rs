//! How a simulated device behaves: what it does with an order, when its session ends, and what is wished of it meanwhile.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{AfterLoss, Dialled};

/// What a device does with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnOrder {
    /// It acks and answers.
    Answer,
    /// It acks, as a client does once the order is in its journal.
    Ack,
}

/// What the first device of a fleet does wrong, or the run itself, so that it can be seen that a run which should fail does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sabotage {
    /// Its session ends with its first message.
    EndSession,
    /// Its first message is as if it had never come.
    MissMessage,
    /// None of its own: peers are told to let in who shows no certificate.
    OpenPeer,
    /// None of its own: the fault of `faults` is not brought about.
    NoFault,
}

/// What is wished of all devices of a fleet from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wish {
    /// Slow readers read nothing.
    pub(crate) paused: bool,
    /// Nobody answers a message until this is over; then all do.
    pub(crate) hushed: bool,
    /// How many events each is to have reported since it was made.
    pub(crate) events: u32,
}

/// Where a device hears what is wished; none, where nothing is.
pub(crate) type Wishes = Option<watch::Receiver<Wish>>;

/// How long a device waits before it comes back: full jitter, twice as long after each failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// The longest first pause.
    pub(crate) base: Duration,
    /// The longest pause.
    pub(crate) cap: Duration,
}

/// How a device behaves.
#[derive(Debug, Clone)]
pub(crate) struct Manners {
    pub(crate) after_loss: AfterLoss,
    pub(crate) backoff: Backoff,
    pub(crate) on_order: OnOrder,
    /// Whether it reports an event for each answer.
    pub(crate) reports_answers: bool,
    /// Whether it closes its WebSocket when it is cancelled.
    pub(crate) farewell: bool,
    /// Whether it stops reading when that is wished.
    pub(crate) slow: bool,
    pub(crate) dialled: Dialled,
    pub(crate) wishes: Wishes,
    /// What it does wrong with its first message, if it has not done it yet.
    pub(crate) sabotage: Option<Sabotage>,
}

impl Manners {
    /// Of the fleets that are held in this process: they answer, and come back soon.
    pub(crate) fn of(after_loss: AfterLoss) -> Self {
        let soon = Duration::from_millis(60);
        Self {
            after_loss,
            backoff: Backoff { base: soon, cap: soon },
            on_order: OnOrder::Answer,
            reports_answers: after_loss == AfterLoss::Return,
            farewell: false,
            slow: false,
            dialled: Dialled::default(),
            wishes: None,
            sabotage: None,
        }
    }

    /// Whether it leaves what comes unread.
    pub(crate) fn is_paused(&self) -> bool {
        self.slow && self.wishes.as_ref().is_some_and(|wishes| wishes.borrow().paused)
    }

    /// Whether it keeps its answers for later.
    pub(crate) fn is_hushed(&self) -> bool {
        self.wishes.as_ref().is_some_and(|wishes| wishes.borrow().hushed)
    }

    /// Whether the message that came counts; an error where it is to end the session.
    pub(crate) fn counts_message(&mut self) -> anyhow::Result<bool> {
        match self.sabotage.take() {
            Some(Sabotage::EndSession) => anyhow::bail!("it ended its session itself, as --sabotage says"),
            Some(Sabotage::MissMessage) => Ok(false),
            Some(Sabotage::OpenPeer | Sabotage::NoFault) | None => Ok(true),
        }
    }

    /// How many events it is to have reported.
    pub(crate) fn events(&self) -> u32 {
        self.wishes.as_ref().map_or(0, |wishes| wishes.borrow().events)
    }
}

impl Backoff {
    /// The least pause, so that nobody comes back in a loop.
    const LEAST: Duration = Duration::from_millis(10);

    /// A pause after so many failures in a row.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        let longest = self.base.saturating_mul(1 << failures.min(16)).min(self.cap).max(Self::LEAST);
        rand::random_range(Self::LEAST..=longest)
    }
}

/// Waits until something else is wished; for ever where nobody can wish anything.
pub(crate) async fn changed(wishes: &mut Wishes) {
    if let Some(receiver) = wishes {
        if receiver.changed().await.is_ok() {
            return;
        }
        *wishes = None;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_cap_and_are_never_nothing() {
        let backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) };

        for failures in 0..40 {
            let longest = Duration::from_millis(100 << failures.min(10)).min(backoff.cap);
            let pause = backoff.pause(failures);
            assert!((Duration::from_millis(10)..=longest).contains(&pause), "{failures}: {pause:?}");
        }
    }
}
