//! `muster-load check`

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use muster_pki::text::escaped_json;

use super::{Format, print};
use crate::checked::Checked;
use crate::history::{History, Promise};

/// Checks an export, and prints what is wrong with it.
pub(super) fn run(export: &Path, promises: Option<&Path>, output: Format) -> anyhow::Result<ExitCode> {
    let text = if export.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("standard input")?
    } else {
        std::fs::read_to_string(export).with_context(|| export.display().to_string())?
    };
    let promises = promises.map_or(Ok(Vec::new()), read_promises)?;
    if text.trim().is_empty() {
        anyhow::bail!("{}: empty; an export has one JSON object a line", export.display());
    }
    let checked = Checked::new(&History::read(&text), &promises);
    match output {
        Format::Json => print(&escaped_json(&serde_json::to_string_pretty(&checked)?))?,
        Format::Table => print(&checked.to_string())?,
    }
    Ok(if checked.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_promises(path: &Path) -> anyhow::Result<Vec<Promise>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(index, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}: line {}", path.display(), index + 1))
    };
    lines.map(read).collect()
}
