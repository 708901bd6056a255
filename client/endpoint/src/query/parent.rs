//! The client's side of a query: starts the helper, feeds it, reads it, ends it.
use std::future::pending;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout_at};

use super::cgroup::{Cgroup, QUERY_PROCESSES_MAX, end_groups_of};
use super::{
    Answer, HelperCommand, Query, QueryLimits, RUN_GRACE, SQL_BYTES_MAX, SandboxProfile, Summary, TakeRows,
};
use crate::action::Action;
use crate::error::QueryError;
use crate::helper::protocol::{self, Finished, RESPONSE_BYTES_MAX, Request, Response, response};
use crate::script::Script;
use crate::value::SqlValue;

/// How long a killed helper may take to be gone; the kernel ends it when it leaves a system call.
const REAP_GRACE: Duration = Duration::from_secs(2);
/// How long to wait between two looks at what is left of a control group.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a helper is started for.
#[derive(Debug, Clone)]
pub enum Work {
    /// A query.
    Query(Query),
    /// A script.
    Script(Script),
    /// A typed action.
    Action(Action),
}

/// Has a helper do something, until it is done or `stop` is over: then the helper is ended, and with it everything that came of it, and this returns
/// once nothing of that runs any more, some seconds later at most. Rows go into `rows` as they come. Needs a tokio runtime with IO and time.
///
/// # Errors
/// [`QueryError`] says what is to blame; a limit on rows or bytes is no error, but [`Summary::truncated`].
/// [`QueryError::Stopped`] if it was stopped. What `rows` took until then is no answer.
pub async fn run_until(
    command: &HelperCommand,
    work: Work,
    rows: &mut impl TakeRows,
    stop: impl Future<Output = ()>,
) -> Result<Summary, QueryError> {
    match work {
        Work::Query(query) => query_until(command, query, rows, stop).await,
        Work::Script(script) => script_until(command, script, rows, stop).await,
        Work::Action(action) => action_until(command, action, rows, stop).await,
    }
}

/// As [`run_until`], without an end from outside and with all rows in memory.
async fn run_whole(command: &HelperCommand, work: Work) -> Result<Answer, QueryError> {
    let mut rows: Vec<Vec<SqlValue>> = Vec::new();
    let Summary { columns, truncated, sandbox_missing } =
        run_until(command, work, &mut rows, pending()).await?;
    Ok(Answer { columns, rows, truncated, sandbox_missing })
}

/// Runs a query in a helper of its own.
///
/// The helper is in its own process group and, where that is possible, in its own control group; both are killed at
/// `run_time` and [`RUN_GRACE`], and when this future is dropped. Needs a tokio runtime with IO and time.
///
/// # Errors
/// [`QueryError`] says what is to blame; a limit on rows or bytes is no error, but [`Answer::truncated`].
pub async fn run(command: &HelperCommand, query: Query) -> Result<Answer, QueryError> {
    run_whole(command, Work::Query(query)).await
}

/// Runs a script, watched over by a helper of its own.
///
/// The helper ends the script and everything that came of it at `run_time`, and when this future is dropped or the client
/// dies. Needs a tokio runtime with IO and time.
///
/// # Errors
/// [`QueryError`] says what is to blame; a limit on rows or bytes is no error, but [`Answer::truncated`].
pub async fn run_script(command: &HelperCommand, script: Script) -> Result<Answer, QueryError> {
    run_whole(command, Work::Script(script)).await
}

/// Does a typed action in a helper of its own; the answer is one row, `changed` and `detail`.
///
/// The helper is killed as that of a query is: what it had begun is then done in part, but a file is there whole or not at
/// all. Needs a tokio runtime with IO and time.
///
/// # Errors
/// [`QueryError`] says what is to blame.
pub async fn run_action(command: &HelperCommand, action: Action) -> Result<Answer, QueryError> {
    run_whole(command, Work::Action(action)).await
}

async fn query_until(
    command: &HelperCommand,
    query: Query,
    rows: &mut impl TakeRows,
    stop: impl Future<Output = ()>,
) -> Result<Summary, QueryError> {
    query.check_size()?;
    let limits = query.limits;
    let deadline = Instant::now() + limits.run_time + RUN_GRACE;
    let mut helper = Helper::start(command, Ends::ByKill)?;
    if query.sandbox == SandboxProfile::Strict && !helper.missing.is_empty() {
        let missing = std::mem::take(&mut helper.missing);
        helper.end().await;
        return Err(QueryError::Sandbox { missing });
    }
    let request = Request::new(&query, std::mem::take(&mut helper.missing));
    helper.answer(&request, limits, deadline, rows, stop).await
}

async fn script_until(
    command: &HelperCommand,
    script: Script,
    rows: &mut impl TakeRows,
    stop: impl Future<Output = ()>,
) -> Result<Summary, QueryError> {
    if script.size() > SQL_BYTES_MAX {
        let (got, wanted) = (script.size() as u64, SQL_BYTES_MAX as u64);
        return Err(QueryError::TooLarge { what: "the script and its parameters".to_owned(), got, wanted });
    }
    let limits = script.limits;
    let deadline = Instant::now() + limits.run_time + RUN_GRACE + CLEAR_GRACE;
    let helper = Helper::start(command, Ends::ByItself)?;
    let request = Request::of_script(&script, &command.closed);
    helper.answer(&request, limits, deadline, rows, stop).await
}

async fn action_until(
    command: &HelperCommand,
    action: Action,
    rows: &mut impl TakeRows,
    stop: impl Future<Output = ()>,
) -> Result<Summary, QueryError> {
    let mut helper = Helper::start(command, Ends::ByKill)?;
    let request = Request::of_action(&action, &command.locks, std::mem::take(&mut helper.missing));
    let limits = QueryLimits { run_time: action.run_time, rows: request.rows, bytes: request.bytes };
    let deadline = Instant::now() + action.run_time + RUN_GRACE;
    helper.answer(&request, limits, deadline, rows, stop).await
}

/// How long a helper may take to end everything that came of a script, and to clear up.
const CLEAR_GRACE: Duration = Duration::from_secs(5);

/// How a helper is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// It is killed with its groups: it has made nothing that would be left.
    ByKill,
    /// Its standard input is closed, so that it ends what it watches over; it is killed only if it does not.
    ByItself,
}

/// Why a conversation ended without an answer.
enum Interruption {
    Query(QueryError),
    Pipe(std::io::Error),
}

impl From<std::io::Error> for Interruption {
    fn from(error: std::io::Error) -> Self {
        Self::Pipe(error)
    }
}

/// A running helper. Dropped, it is killed.
struct Helper {
    child: Child,
    pid: u32,
    input: Option<ChildStdin>,
    output: ChildStdout,
    group: Group,
    missing: Vec<String>,
    ends: Ends,
}

impl Helper {
    fn start(command: &HelperCommand, ends: Ends) -> Result<Self, QueryError> {
        let program = command.program.display().to_string();
        let spawn = |detail: String| QueryError::Spawn { program: program.clone(), detail };
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            // Nothing of the client's surroundings is a query's business.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(ends == Ends::ByKill)
            .spawn()
            .map_err(|error| spawn(error.to_string()))?;
        let pid = child.id().ok_or_else(|| spawn("ended at once".to_owned()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(spawn("without its pipes".to_owned()));
        };
        // The helper waits for its request, so it does nothing before it is in the group.
        let (cgroup, missing) = match ends {
            Ends::ByKill => match Cgroup::around(pid, pid, QUERY_PROCESSES_MAX) {
                Ok((cgroup, missing)) => (Some(cgroup), missing),
                Err(reason) => (None, vec![reason]),
            },
            // It puts the script into one, and stays outside of it to end it.
            Ends::ByItself => (None, Vec::new()),
        };
        let leader = i32::try_from(pid).ok().map(Pid::from_raw);
        Ok(Self {
            child,
            pid,
            input: Some(input),
            output,
            group: Group { leader, cgroup, ends },
            missing,
            ends,
        })
    }

    /// Has the request answered, unless that is stopped, and ends.
    async fn answer(
        mut self,
        request: &Request,
        limits: QueryLimits,
        deadline: Instant,
        rows: &mut impl TakeRows,
        stop: impl Future<Output = ()>,
    ) -> Result<Summary, QueryError> {
        let outcome = tokio::select! {
            // What is done is done.
            biased;
            outcome = timeout_at(deadline, self.converse(request, limits, rows)) => Some(outcome),
            () = stop => None,
        };
        let status = self.end().await;
        match outcome {
            Some(Ok(Ok(summary))) => Ok(summary),
            Some(Ok(Err(Interruption::Query(error)))) => Err(error),
            Some(Ok(Err(Interruption::Pipe(error)))) => Err(crashed(status, &error.to_string())),
            Some(Err(_elapsed)) => Err(QueryError::Deadline { run_time: limits.run_time }),
            None => Err(QueryError::Stopped),
        }
    }

    /// Writes the request and reads the whole answer, of which this holds a batch at a time. Standard input stays open: closed, it
    /// ends the helper.
    async fn converse(
        &mut self,
        request: &Request,
        limits: QueryLimits,
        rows: &mut impl TakeRows,
    ) -> Result<Summary, Interruption> {
        if let Some(input) = &mut self.input {
            input.write_all(&protocol::encode(request)?).await?;
            input.flush().await?;
        }
        let mut rows_left = u64::from(limits.rows);
        let mut left = u64::from(limits.bytes) + ANSWER_OVERHEAD_BYTES;
        let mut width = None;
        loop {
            let (response, size) = self.next_response().await?;
            left = left.checked_sub(size).ok_or_else(|| Interruption::Query(oversized(limits)))?;
            match response.message {
                Some(response::Message::Rows(more)) => {
                    let count = more.rows.len() as u64;
                    rows_left =
                        rows_left.checked_sub(count).ok_or_else(|| Interruption::Query(oversized(limits)))?;
                    if more.rows.iter().any(|row| row.values.len() != *width.get_or_insert(row.values.len()))
                    {
                        return Err(invalid());
                    }
                    let values = |row: protocol::Row| row.values.into_iter().map(Into::into).collect();
                    rows.take(more.rows.into_iter().map(values).collect()).await;
                }
                Some(response::Message::Finished(finished)) => return summary(finished, width),
                Some(response::Message::Failure(failure)) => {
                    return Err(Interruption::Query(failure.into_error(limits.run_time)));
                }
                None => return Err(invalid()),
            }
        }
    }

    async fn next_response(&mut self) -> Result<(Response, u64), Interruption> {
        let mut length = [0; 4];
        self.output.read_exact(&mut length).await?;
        let mut body = vec![0; protocol::body_length(length, RESPONSE_BYTES_MAX)?];
        self.output.read_exact(&mut body).await?;
        Ok((protocol::decode(&body)?, body.len() as u64))
    }

    /// Ends the helper, whatever it does, and collects how it ended.
    async fn end(mut self) -> Option<ExitStatus> {
        if self.ends == Ends::ByItself {
            drop(self.input.take());
            let ended = timeout_at(Instant::now() + CLEAR_GRACE, self.child.wait()).await;
            if let Ok(Ok(status)) = ended {
                // Waited for, its number may be another's.
                self.group.leader = None;
                end_left_by(self.pid).await;
                return Some(status);
            }
        }
        let ended = self.child.try_wait().ok().flatten();
        self.group.kill();
        drop(self.input.take());
        let status = match ended {
            Some(status) => Some(status),
            None => {
                timeout_at(Instant::now() + REAP_GRACE, self.child.wait()).await.ok().and_then(Result::ok)
            }
        };
        if self.ends == Ends::ByItself {
            end_left_by(self.pid).await;
        }
        status
    }
}

/// Ends what a helper left that ended what it watched over, or was killed before it could; at most [`REAP_GRACE`].
async fn end_left_by(pid: u32) {
    let until = Instant::now() + REAP_GRACE;
    while end_groups_of(pid) && Instant::now() < until {
        sleep(LOOK_AGAIN).await;
    }
}

/// Bytes of an answer that are no rows: each column's name, the tags of rows and batches, an error's text.
const ANSWER_OVERHEAD_BYTES: u64 = 1024 * 1024;

/// Returns what is told beside the rows, which had this many values each.
fn summary(finished: Finished, width: Option<usize>) -> Result<Summary, Interruption> {
    if width.is_some_and(|width| width != finished.columns.len()) {
        return Err(invalid());
    }
    Ok(Summary {
        columns: finished.columns.into_iter().map(Into::into).collect(),
        truncated: finished.truncated,
        sandbox_missing: finished.missing,
    })
}

/// A helper of this build does not write that.
fn invalid() -> Interruption {
    Interruption::Pipe(std::io::ErrorKind::InvalidData.into())
}

fn oversized(limits: QueryLimits) -> QueryError {
    let wanted = u64::from(limits.bytes);
    QueryError::TooLarge {
        what: "the helper's answer".to_owned(),
        got: wanted + ANSWER_OVERHEAD_BYTES,
        wanted,
    }
}

fn crashed(status: Option<ExitStatus>, pipe: &str) -> QueryError {
    let detail = match status {
        Some(status) => format!("{status} ({pipe})"),
        None => format!("not gone {REAP_GRACE:?} after it was killed ({pipe})"),
    };
    QueryError::Crashed { detail }
}

/// The processes of a helper, killed when this is dropped unless it ends by itself.
struct Group {
    /// The helper, as long as it may not have been waited for: later its number may be another's.
    leader: Option<Pid>,
    cgroup: Option<Cgroup>,
    ends: Ends,
}

impl Group {
    fn kill(&mut self) {
        if let Some(leader) = self.leader.take() {
            // An empty group is none to kill.
            let _tried: nix::Result<()> = killpg(leader, Signal::SIGKILL);
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ends == Ends::ByKill {
            self.kill();
        }
    }
}
