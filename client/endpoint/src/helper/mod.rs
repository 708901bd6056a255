//! The helper: a process for one query, shut in before it looks at the SQL, or for one script (`script`) or action
//! (`action`).
//!
//! It reads one request on standard input, writes its answer on standard output, and ends. It also ends when standard
//! input is closed or its parent dies, and its parent kills its process group at the deadline.
//!
//! | layer | Standard | Strict |
//! |---|---|---|
//! | `rlimits` | memory, processor time, open files; no file may be written, no core | same |
//! | `no_new_privs` | no program could raise rights | same |
//! | `uid` | kept, and reported if it is root: only root may see other processes' files | `nobody`, without groups |
//! | `landlock` | every file readable, none writable or executable | system folders and resources readable |
//! | `seccomp` | no programs, processes, sockets, mounts, tracing, or changes to files; they fail with EPERM | same |
//! | `cgroup` | one of its own with a memory and a process limit, killed as one, where cgroup v2 lets the client | same |
//! | tables | those that are granted; there are no others | same |
//! | SQL | one SELECT; the authorizer refuses all else, `ATTACH`, `PRAGMA`, `load_extension` included | same |
//!
//! A layer that can't be applied is told in [`crate::Answer::sandbox_missing`]; under `Strict` it is
//! [`crate::QueryError::Sandbox`]. Not used: a PID namespace (no process can be made that it would have to catch) and a
//! network namespace (the tables of the network would be its own, and no socket can be made).
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg, raise};
use nix::unistd::{getpgrp, getpid};

use crate::query::SandboxProfile;
use crate::tables::{Early, Machine};

mod action;
mod calls;
pub(crate) mod database;
mod execute;
pub(crate) mod protocol;
mod sandbox;
mod script;

use protocol::{Failure, Request, Response, response};

/// The helper process: reads one request on standard input, writes the answer on standard output.
///
/// Exit code 0 if an answer or an error was written, 1 if the request could not be read or the answer not written.
#[must_use]
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> io::Result<()> {
    // What follows the request is a script's, so nothing more than the request may be taken.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let request: Request = protocol::read(&mut input, protocol::REQUEST_BYTES_MAX)?
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    drop(input);
    let run_time = Duration::from_millis(request.run_time_ms);
    let deadline = Instant::now() + run_time;
    let mut output = io::stdout().lock();
    if let Some(launch) = &request.launch {
        return script::launch::launch(&request, launch, run_time, &mut output);
    }
    if let Some(script) = &request.script {
        return answer(script::execute(&request, script, deadline, &mut output), &mut output);
    }
    if let Some(action) = &request.action {
        let mut missing = request.missing.clone();
        missing.extend(script::bound(run_time));
        if end_with_input().is_err() {
            missing.push("watch: no thread for standard input".to_owned());
        }
        return answer(action::execute(&request, action, deadline, missing, &mut output), &mut output);
    }
    let strict = request.profile() == SandboxProfile::Strict;

    let mut missing: Vec<String> = request.missing.clone();
    missing.extend(sandbox::limit(run_time));
    missing.extend(if strict { sandbox::drop_user() } else { sandbox::kept_user() });
    // A change of user takes the signal back, so it is asked for after it.
    if set_pdeathsig(Signal::SIGKILL).is_err() {
        missing.push("parent_death_signal: refused by the kernel".to_owned());
    }
    let early = Early::read(&Machine::live().until(deadline), &request.sql);
    missing.extend(sandbox::close_files(request.profile(), &request.readable()));
    if end_with_input().is_err() {
        missing.push("watch: no thread for standard input".to_owned());
    }
    missing.extend(sandbox::close_calls());

    if strict && !missing.is_empty() {
        return write(&mut output, response::Message::Failure(Failure::sandbox(missing)));
    }
    let machine = Arc::new(Machine::live().until(deadline).with_early(early));
    answer(execute::execute(&request, &machine, deadline, missing, &mut output), &mut output)
}

/// Ends an answer: with what is still to be written of it, or with why there is none.
fn answer(outcome: Result<(), execute::ExecuteError>, output: &mut impl Write) -> io::Result<()> {
    match outcome {
        Ok(()) => output.flush(),
        Err(execute::ExecuteError::Output(error)) => Err(error),
        Err(execute::ExecuteError::Query(failure)) => write(output, response::Message::Failure(failure)),
    }
}

fn write(output: &mut impl Write, message: response::Message) -> io::Result<()> {
    protocol::write(output, &Response { message: Some(message) })?;
    output.flush()
}

/// Starts a thread that ends the process when the client closes standard input, which it does last.
fn end_with_input() -> io::Result<()> {
    thread::Builder::new().name("input".to_owned()).stack_size(WATCH_STACK_BYTES).spawn(|| {
        let mut byte = [0];
        // A second request is none: whatever comes, or nothing any more, the client is done with this process.
        let _ended: io::Result<usize> = io::stdin().lock().read(&mut byte);
        // With what it started, which is in its group.
        if getpgrp() == getpid() {
            let _unreachable: nix::Result<()> = killpg(getpgrp(), Signal::SIGKILL);
        }
        let _unreachable: nix::Result<()> = raise(Signal::SIGKILL);
    })?;
    Ok(())
}

/// Enough for one read and one signal.
const WATCH_STACK_BYTES: usize = 64 * 1024;
