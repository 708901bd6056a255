//! Who tells the faults: a thread of its own, so that a reader of standard output who is slow holds up no clock but that of the connection whose
//! fault it is.

use std::io::Write as _;

use anyhow::Context as _;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// Lines that wait.
const LINES_MAX: usize = 4_096;

const CLOSED: &str = "standard output is closed";

/// Tells lines of JSON.
#[derive(Debug, Clone)]
pub(super) struct Teller(mpsc::Sender<Line>);

/// A line, and who waits until it is written.
type Line = (Value, oneshot::Sender<()>);

impl Teller {
    /// Starts; it ends with the last of its copies, or when standard output is closed.
    pub(super) fn start() -> Self {
        let (sender, mut lines) = mpsc::channel::<Line>(LINES_MAX);
        std::thread::spawn(move || {
            let mut out = std::io::stdout();
            while let Some((line, written)) = lines.blocking_recv() {
                // One line, whole, at once: a pipe's reader sees it when it happens.
                if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                    return;
                }
                // Who told it may have gone; then nobody waits.
                written.send(()).ok();
            }
        });
        Self(sender)
    }

    /// Tells one, and waits until it is written: a fault is told before anybody can notice it.
    pub(super) async fn tell(&self, line: Value) -> anyhow::Result<()> {
        let (written, is_written) = oneshot::channel();
        self.0.send((line, written)).await.ok().context(CLOSED)?;
        is_written.await.context(CLOSED)
    }

    /// Waits until nobody hears any more.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}
