//! The tasks beside the machine: each is of an instruction or the reading of roots, also when it breaks.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use muster_proto::ids::InstructionId;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::rows::Collected;
use super::run::StepError;
use super::{Plan, RefreshJob};
use crate::content::Content;

/// A task that ended.
#[derive(Debug)]
pub(crate) enum Done {
    /// The resources, by parameter name.
    Fetched(InstructionId, Result<Vec<(String, PathBuf)>, FetchFailure>),
    /// The rows of the last step.
    Ran(InstructionId, Result<Collected, StepError>),
    /// The task of an instruction panicked.
    Broke(InstructionId, String),
    /// What ran of an instruction was ended, with its helper.
    Ended(InstructionId),
    /// A download that nobody wants any more was given up.
    GivenUp,
    /// Roots were read again.
    Refreshed,
}

/// Why resources are not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FetchFailure {
    /// This device has no certificate to show, and nobody was asked: the download waits for one (S6).
    NoCertificate,
    /// They cannot be had; says why.
    Failed(String),
}

/// Whose a task is, and what ends it.
#[derive(Debug)]
enum Owner {
    Fetch(InstructionId, AbortHandle),
    Run(InstructionId, CancellationToken),
    Refresh(AbortHandle),
}

/// Downloads and runs, and the reading of roots. Dropping it ends all of them.
#[derive(Debug, Default)]
pub(crate) struct Work {
    tasks: JoinSet<Done>,
    owners: HashMap<Id, Owner>,
}

impl Work {
    /// Starts to get what an instruction needs.
    pub(super) fn fetch(
        &mut self,
        instruction: InstructionId,
        task: impl Future<Output = Done> + Send + 'static,
    ) {
        let task = self.tasks.spawn(task);
        self.owners.insert(task.id(), Owner::Fetch(instruction, task));
    }

    /// Starts to run an instruction. The task ends what it runs when `stop` comes, and then itself.
    pub(super) fn run(
        &mut self,
        instruction: InstructionId,
        stop: CancellationToken,
        task: impl Future<Output = Done> + Send + 'static,
    ) {
        let stopped = stop.clone();
        let task = async move {
            tokio::select! {
                biased;
                done = task => done,
                // Its own bounds are shorter. Dropped, it ends as well, and nobody sees when.
                () = over(&stopped) => Done::Ended(instruction),
            }
        };
        self.owners.insert(self.tasks.spawn(task).id(), Owner::Run(instruction, stop));
    }

    /// Gives up the downloads of instructions that are not wanted: they would go on until their windows end.
    pub(super) fn keep_fetching(&self, is_wanted: impl Fn(InstructionId) -> bool) {
        for owner in self.owners.values() {
            if let Owner::Fetch(instruction, task) = owner
                && !is_wanted(*instruction)
            {
                task.abort();
            }
        }
    }

    /// Ends what runs of an instruction; that nothing of it runs any more is told by [`Done::Ended`].
    pub(super) fn end_run(&self, instruction: InstructionId) {
        for owner in self.owners.values() {
            if let Owner::Run(of, stop) = owner
                && *of == instruction
            {
                stop.cancel();
            }
        }
    }

    /// Starts to read roots, on a thread that may block.
    pub(super) fn refresh(&mut self, job: RefreshJob) {
        let task = move || {
            job();
            Done::Refreshed
        };
        let task = self.tasks.spawn_blocking(task);
        self.owners.insert(task.id(), Owner::Refresh(task));
    }

    /// Returns whether a reading has not ended yet, be its end told or not.
    pub(super) fn is_refreshing(&self) -> bool {
        self.owners.values().any(|owner| matches!(owner, Owner::Refresh(task) if !task.is_finished()))
    }

    /// Waits for the next task that ends; `None` if there is none. Nothing is lost when the wait is given up.
    pub(super) async fn next(&mut self) -> Option<Done> {
        match self.tasks.join_next_with_id().await? {
            Ok((id, done)) => {
                self.owners.remove(&id);
                Some(done)
            }
            Err(error) if error.is_cancelled() => Some(match self.owners.remove(&error.id()) {
                Some(Owner::Run(instruction, _)) => Done::Ended(instruction),
                Some(Owner::Fetch(..) | Owner::Refresh(_)) | None => Done::GivenUp,
            }),
            Err(error) => {
                tracing::error!(%error, "a task broke");
                let detail = "the client's task for it broke; report it, and issue the instruction again";
                match self.owners.remove(&error.id())? {
                    Owner::Fetch(instruction, _) | Owner::Run(instruction, _) => {
                        Some(Done::Broke(instruction, detail.to_owned()))
                    }
                    Owner::Refresh(_) => Some(Done::Refreshed),
                }
            }
        }
    }
}

/// Longer than a helper and all that came of it may take to end.
const END_MAX: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });

/// Waits until a task should have ended that was stopped.
async fn over(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(END_MAX).await;
}

/// Gets every resource of an instruction within what is left of its window.
pub(super) async fn fetch(
    content: &Content,
    plan: &Plan,
    left: Duration,
) -> Result<Vec<(String, PathBuf)>, FetchFailure> {
    let deadline = Instant::now() + left.min(WINDOW_MAX);
    let mut paths = Vec::new();
    for resource in &plan.resources {
        match content.fetch(resource, deadline).await {
            Ok(path) => paths.push((format!("resource_{}", resource.name), path)),
            Err(error) if error.lacks_certificate() => return Err(FetchFailure::NoCertificate),
            Err(error) => return Err(FetchFailure::Failed(format!("resource {:?}: {error}", resource.name))),
        }
    }
    Ok(paths)
}

/// Longer than any window (PROTOCOL.md, "Orders", 12), and short enough for every clock to count.
const WINDOW_MAX: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::tests::{digest, id, plan};
    use super::*;
    use crate::config::ResourcesConfig;
    use crate::instructions::PlanResource;

    #[tokio::test]
    async fn a_task_that_panics_is_told_with_its_instruction() {
        let mut work = Work::default();
        work.run(id(7), CancellationToken::new(), async { panic!("as the test wants it") });

        let done = work.next().await;

        assert!(matches!(done, Some(Done::Broke(instruction, _)) if instruction == id(7)), "{done:?}");
        assert!(work.next().await.is_none());
    }

    #[tokio::test]
    async fn roots_and_lists_are_read_apart_from_the_runtime_and_one_reading_ends_before_the_next() {
        let mut work = Work::default();
        // It ends once it was heard.
        let (sender, read_by) = std::sync::mpsc::sync_channel(0);
        work.refresh(Box::new(move || sender.send(std::thread::current().id()).unwrap()));
        assert!(work.is_refreshing());

        assert_ne!(read_by.recv().unwrap(), std::thread::current().id());
        assert!(matches!(work.next().await, Some(Done::Refreshed)));

        assert!(!work.is_refreshing());
    }

    #[tokio::test]
    async fn a_reading_that_panics_does_not_keep_the_next_one_out() {
        let mut work = Work::default();
        work.refresh(Box::new(|| panic!("as the test wants it")));

        assert!(matches!(work.next().await, Some(Done::Refreshed)));

        assert!(!work.is_refreshing());
    }

    #[tokio::test]
    async fn a_download_ends_with_the_window_of_its_instruction() {
        let folder = TempDir::new().unwrap();
        let content = Content::open(folder.path(), ResourcesConfig::default(), None).unwrap();
        let mut plan = plan("Acme-A");
        plan.resources =
            vec![PlanResource { name: "a".to_owned(), size: 1, root: digest("a"), sha256: None }];

        // Somebody else downloads the same resource and does not come to an end.
        let _held = content.lock(digest("a")).lock_owned().await;
        let late = fetch(&content, &plan, Duration::from_millis(1)).await;

        assert!(
            matches!(late.clone().unwrap_err(), FetchFailure::Failed(detail) if detail.contains("its window ended")),
            "{late:?}"
        );
    }

    #[tokio::test]
    async fn a_download_that_nobody_wants_any_more_is_given_up_and_no_other() {
        let mut work = Work::default();
        work.fetch(id(1), std::future::pending());
        work.fetch(id(2), async { Done::Fetched(id(2), Ok(Vec::new())) });
        work.run(id(3), CancellationToken::new(), async { Done::Broke(id(3), String::new()) });

        work.keep_fetching(|instruction| instruction == id(2));

        let mut ended = Vec::new();
        while let Some(done) = work.next().await {
            ended.push(match done {
                Done::Fetched(of, _) | Done::Ran(of, _) | Done::Broke(of, _) => Some(of),
                Done::GivenUp | Done::Refreshed | Done::Ended(_) => None,
            });
        }
        ended.sort();
        assert_eq!(ended, [None, Some(id(2)), Some(id(3))]);
    }

    #[tokio::test]
    async fn what_is_ended_of_an_instruction_is_told_once_it_has_ended_and_nothing_else_is_ended() {
        let mut work = Work::default();
        let (over, is_over) = tokio::sync::oneshot::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        work.run(id(1), stop, async move {
            stopped.cancelled().await;
            sleep(END_MAX / 5).await;
            over.send(()).unwrap();
            Done::Ended(id(1))
        });
        work.run(id(2), CancellationToken::new(), async { Done::Broke(id(2), String::new()) });

        work.end_run(id(1));

        let mut ended = Vec::new();
        while let Some(done) = work.next().await {
            ended.push(match done {
                Done::Ended(of) => (true, of),
                Done::Broke(of, _) => (false, of),
                done @ (Done::Fetched(..) | Done::Ran(..) | Done::GivenUp | Done::Refreshed) => {
                    panic!("{done:?}")
                }
            });
        }
        ended.sort();
        assert_eq!(ended, [(false, id(2)), (true, id(1))]);
        assert!(is_over.await.is_ok(), "it had not ended itself when its end was told");
    }

    #[tokio::test]
    async fn what_does_not_end_when_it_is_stopped_is_given_up_in_time() {
        let mut work = Work::default();
        work.run(id(1), CancellationToken::new(), std::future::pending());

        work.end_run(id(1));

        assert!(matches!(work.next().await, Some(Done::Ended(of)) if of == id(1)));
        assert!(work.next().await.is_none());
    }

    #[tokio::test]
    async fn a_download_that_waits_ends_with_the_client() {
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        let mut work = Work::default();
        work.fetch(id(1), async move {
            let _held = held;
            std::future::pending().await
        });

        drop(work);

        assert!(ended.await.is_err());
    }
}
