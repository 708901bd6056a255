//! Runs a scenario until it is done or interrupted, and tells what it found.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::arguments::Outputs;
use super::{Format, print};
use crate::told::html;
use crate::told::sheet::Sheet;

/// As a shell tells SIGINT.
const INTERRUPTED: u8 = 130;

/// Runs a scenario, prints its sheet and writes its files.
pub(super) fn sheet(
    outputs: &Outputs,
    scenario: impl Future<Output = anyhow::Result<Sheet>>,
) -> anyhow::Result<ExitCode> {
    let Some(sheet) = until_interrupted(scenario)? else { return Ok(INTERRUPTED.into()) };
    match outputs.output {
        Format::Json => print(&serde_json::to_string_pretty(&sheet.json())?)?,
        Format::Table => print(&sheet.to_string())?,
    }
    if let Some(path) = &outputs.report {
        let words: Vec<String> =
            std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        write(path, &html::page(&sheet, &format!("muster-load {}", words.join(" "))))?;
    }
    if let (Some(path), Some(chart)) = (&outputs.svg, sheet.charts.first()) {
        write(path, &chart.svg())?;
    }
    Ok(if sheet.is_valid() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs to the end, or to SIGINT, SIGTERM or SIGHUP, and gives nothing then: what was started ends with it.
pub(super) fn until_interrupted<T>(
    running: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    // One thread: what it starts is killed when the thread ends that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Ok(None),
            _ = terminate.recv() => Ok(None),
            _ = hang_up.recv() => Ok(None),
            done = Box::pin(running) => done.map(Some),
        }
    });
    // A floor that is being measured needs nobody any more.
    runtime.shutdown_background();
    if matches!(done, Ok(None)) {
        // Nobody is left to tell when standard error is closed.
        drop(writeln!(std::io::stderr(), "interrupted; what was started is ended"));
    }
    done
}

/// Runs until it is interrupted, which is how it ends.
pub(super) fn until_stopped(running: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    until_interrupted(running).map(|_| ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}
