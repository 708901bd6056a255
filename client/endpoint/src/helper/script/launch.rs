//! The process that becomes a script: it shuts itself in, says what it lacks, and is the interpreter from then on.
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::layers;
use crate::helper::protocol::{self, Failure, Launch, Launched, Request};
use crate::helper::sandbox;

/// Shuts this process in, and becomes the script; returns only if that cannot be.
pub(in crate::helper) fn launch(
    request: &Request,
    launch: &Launch,
    run_time: Duration,
    output: &mut impl Write,
) -> io::Result<()> {
    let folder = PathBuf::from(OsString::from_vec(launch.folder.clone()));
    let is_confined = request.strict || !launch.changes;
    let mut missing = request.missing.clone();
    missing.extend(layers::limit(run_time, is_confined, launch.processes_max));
    // What keeps the machine as it is, apart from what only bounds or tells.
    let mut loose = layers::no_new_privs();
    if request.strict {
        missing.extend(sandbox::drop_user());
    } else if !launch.changes {
        missing.extend(sandbox::kept_user());
    }
    // A change of user takes the signal back, so it is asked for after it.
    if set_pdeathsig(Signal::SIGKILL).is_err() {
        missing.push("parent_death_signal: refused by the kernel".to_owned());
    }
    if is_confined {
        let (open, closed) = (request.readable(), request.closed());
        let (lacks, signals) = layers::close_files(request.profile(), &open, &closed, &folder);
        loose.extend(lacks);
        loose.extend(layers::close_calls(signals));
    }
    let failure = if request.strict && !(missing.is_empty() && loose.is_empty()) {
        Some(Failure::sandbox(missing.iter().chain(&loose).cloned().collect()))
    } else if is_confined && !loose.is_empty() {
        Some(Failure::unconfined(loose.clone()))
    } else {
        None
    };
    missing.extend(loose);
    let is_refused = failure.is_some();
    protocol::write(output, &Launched { missing, failure })?;
    output.flush()?;
    if is_refused {
        return Ok(());
    }
    let interpreter = PathBuf::from(OsString::from_vec(launch.interpreter.clone()));
    let error = Command::new(&interpreter)
        .arg(format!("/proc/self/fd/{}", launch.text))
        .args(&launch.arguments)
        .exec();
    // The watching process tells the end of this beside the exit code.
    let told = format!("cannot start the interpreter {}: {error}", interpreter.display());
    io::stderr().write_all(told.as_bytes())?;
    Err(error)
}
