//! The tasks beside the machine: each is of an instruction or the reading of roots and lists, also when it breaks.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use muster_endpoint::Answer;
use muster_proto::ids::InstructionId;
use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

use super::run::StepError;
use super::{Plan, RefreshJob};
use crate::content::Content;

/// A task that ended.
#[derive(Debug)]
pub(crate) enum Done {
    /// The resources, by parameter name.
    Fetched(InstructionId, Result<Vec<(String, PathBuf)>, String>),
    /// The rows of the last step.
    Ran(InstructionId, Result<Answer, StepError>),
    /// The task of an instruction panicked.
    Broke(InstructionId, String),
    /// Roots and revocation lists were read again.
    Refreshed,
}

/// Whose a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Instruction(InstructionId),
    Refresh,
}

/// Downloads and runs, and the reading of roots and revocation lists.
#[derive(Debug, Default)]
pub(crate) struct Work {
    tasks: JoinSet<Done>,
    owners: HashMap<Id, Owner>,
}

impl Work {
    /// Starts a task of an instruction.
    pub(super) fn spawn(
        &mut self,
        instruction: InstructionId,
        task: impl Future<Output = Done> + Send + 'static,
    ) {
        let id = self.tasks.spawn(task).id();
        self.owners.insert(id, Owner::Instruction(instruction));
    }

    /// Starts to read roots and revocation lists, on a thread that may block.
    pub(super) fn refresh(&mut self, job: RefreshJob) {
        let task = move || {
            job();
            Done::Refreshed
        };
        let id = self.tasks.spawn_blocking(task).id();
        self.owners.insert(id, Owner::Refresh);
    }

    /// Returns whether a reading has not ended yet.
    pub(super) fn is_refreshing(&self) -> bool {
        self.owners.values().any(|owner| *owner == Owner::Refresh)
    }

    /// Waits for the next task that ends; `None` if there is none. Nothing is lost when the wait is given up.
    pub(super) async fn next(&mut self) -> Option<Done> {
        match self.tasks.join_next_with_id().await? {
            Ok((id, done)) => {
                self.owners.remove(&id);
                Some(done)
            }
            Err(error) => {
                tracing::error!(%error, "a task broke");
                let detail = "the client's task for it broke; report it, and issue the instruction again";
                match self.owners.remove(&error.id())? {
                    Owner::Instruction(instruction) => Some(Done::Broke(instruction, detail.to_owned())),
                    Owner::Refresh => Some(Done::Refreshed),
                }
            }
        }
    }
}

/// Gets every resource of an instruction within what is left of its window.
pub(super) async fn fetch(
    content: &Content,
    plan: &Plan,
    left: Duration,
) -> Result<Vec<(String, PathBuf)>, String> {
    let all = async {
        let mut paths = Vec::new();
        for resource in &plan.resources {
            match content.fetch(resource).await {
                Ok(path) => paths.push((format!("resource_{}", resource.name), path)),
                Err(error) => return Err(format!("resource {:?}: {error}", resource.name)),
            }
        }
        Ok(paths)
    };
    let late = |_| Err("its window ended before its resources were here; issue it again".to_owned());
    timeout(left, all).await.unwrap_or_else(late)
}

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
        work.spawn(id(7), async { panic!("as the test wants it") });

        let done = work.next().await;

        assert!(matches!(done, Some(Done::Broke(instruction, _)) if instruction == id(7)), "{done:?}");
        assert!(work.next().await.is_none());
    }

    #[tokio::test]
    async fn roots_and_lists_are_read_apart_from_the_runtime_and_one_reading_ends_before_the_next() {
        let mut work = Work::default();
        let (sender, read_by) = std::sync::mpsc::sync_channel(1);
        work.refresh(Box::new(move || sender.send(std::thread::current().id()).unwrap()));
        assert!(work.is_refreshing());

        assert!(matches!(work.next().await, Some(Done::Refreshed)));

        assert!(!work.is_refreshing());
        assert_ne!(read_by.recv().unwrap(), std::thread::current().id());
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
        plan.resources = vec![PlanResource { name: "a".to_owned(), size: 1, root: digest("a") }];

        // Somebody else downloads the same resource and does not come to an end.
        let _held = content.lock(digest("a")).lock_owned().await;
        let late = fetch(&content, &plan, Duration::from_millis(1)).await;

        assert!(late.unwrap_err().starts_with("its window ended"));
    }
}
