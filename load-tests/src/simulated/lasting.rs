//! How a device goes on when a session ends, whatever it speaks.

use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use super::{AfterLoss, Manners};

/// What holds one session at a time.
pub(crate) trait Lasting {
    /// Holds one session, which was to begin at `begun`; `Ok` when cancelled, the reason of its end otherwise.
    async fn serve(
        &mut self,
        tls: Arc<ClientConfig>,
        begun: Instant,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<()>;

    /// Takes note that it is over; gives whether there was a session.
    fn handle_end(&mut self) -> bool;

    /// Tells why it is; gives whether anybody listens.
    async fn tell(&mut self, error: &anyhow::Error, had_session: bool) -> bool;

    /// How it behaves.
    fn manners(&self) -> &Manners;
}

/// Holds sessions until the device is cancelled, or loses one and does not return.
pub(crate) async fn last(
    device: &mut impl Lasting,
    tls: Arc<ClientConfig>,
    mut begun: Instant,
    cancelled: CancellationToken,
) {
    let mut failures = 0;
    loop {
        let served = device.serve(Arc::clone(&tls), begun, &cancelled).await;
        let had_session = device.handle_end();
        if had_session {
            failures = 0;
        }
        let Err(error) = served else { return };
        let is_heard = device.tell(&error, had_session).await;
        // The fleet has ended if nobody listens.
        if !is_heard || device.manners().after_loss == AfterLoss::End {
            return;
        }
        let pause = device.manners().backoff.pause(failures);
        failures += 1;
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        begun = Instant::now();
    }
}
