//! Operators that keep asking while something dies, and see each of their questions through afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use muster_load_tests::operator::Operator;
use muster_proto::operator::v1::Instruction;
use tokio_util::sync::CancellationToken;

use crate::support::PATIENCE;

/// Questions of one operator until the fsync must have come: each question makes several.
const ASKS_MAX: usize = 60;
/// Between two attempts to reach a Switch that starts.
const AGAIN: Duration = Duration::from_millis(50);

/// How far a question had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Its audience was being resolved.
    Preparing,
    /// The signed order was on its way: accepted or not, the operator was not told.
    Submitting,
    /// The operator knew that it was accepted.
    Answering,
    /// Every target was accounted for.
    Complete,
}

/// One question of one operator.
#[derive(Debug)]
pub(super) struct Ask {
    /// Its idempotency key, and the tag that its rows carry.
    pub(super) key: String,
    /// The definition that it asks, by its parameter `tag`; `None`: the platform's free question.
    definition: Option<&'static str>,
    /// How far it had come when something died.
    pub(super) phase: Phase,
    envelope: Option<Vec<u8>>,
    /// Its instruction, once the operator was told.
    pub(super) accepted: Option<String>,
}

/// Where operators connect, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) home: PathBuf,
    pub(super) address: String,
}

impl Desk {
    pub(super) fn new(home: &Path, port: u16) -> Self {
        Self { home: home.to_owned(), address: format!("localhost:{port}") }
    }

    /// Connects.
    pub(super) async fn operator(&self) -> anyhow::Result<Operator> {
        Operator::connect(&self.home, &self.address).await
    }

    /// Asks one question after the other until told to stop or until a call fails.
    pub(super) async fn ask_until(self, name: String, stop: CancellationToken) -> Vec<Ask> {
        let mut asks = Vec::new();
        let Ok(operator) = self.operator().await else { return asks };
        while !stop.is_cancelled() && asks.len() < ASKS_MAX {
            let mut ask = Ask::new(format!("{name}-{:03}", asks.len()));
            let went = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                went = ask.attempt(&operator) => went.ok(),
            };
            asks.push(ask);
            if went.is_none() {
                break;
            }
        }
        asks
    }

    /// Sees a question through, however often its calls fail.
    pub(super) async fn finish(&self, ask: &mut Ask) -> anyhow::Result<Instruction> {
        let shown = self
            .patiently(async |operator| {
                let shown = ask.attempt(operator).await?;
                ask.again(operator).await?;
                Ok(shown)
            })
            .await;
        shown.with_context(|| format!("{ask:?}"))
    }

    /// Tries something until it goes well.
    pub(super) async fn patiently<T>(
        &self,
        mut job: impl AsyncFnMut(&Operator) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let went = async {
                let operator = self.operator().await?;
                job(&operator).await
            };
            let problem = match tokio::time::timeout_at(deadline, went).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(problem)) => problem,
                Err(_) => bail!("not done after {PATIENCE:?}"),
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(problem.context(format!("after {PATIENCE:?}")));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Ask {
    pub(super) fn new(key: String) -> Self {
        Self { key, definition: None, phase: Phase::Preparing, envelope: None, accepted: None }
    }

    /// A question by a definition that has a parameter `tag`.
    pub(super) fn of(definition: &'static str, key: String) -> Self {
        Self { definition: Some(definition), ..Self::new(key) }
    }

    /// Goes on from where the question is, to its end.
    pub(super) async fn attempt(&mut self, operator: &Operator) -> anyhow::Result<Instruction> {
        let id = self.accept(operator).await?;
        let shown = operator.complete(&id).await?;
        self.phase = Phase::Complete;
        Ok(shown)
    }

    /// Goes on from where the question is until it is accepted.
    pub(super) async fn accept(&mut self, operator: &Operator) -> anyhow::Result<String> {
        let envelope = match &self.envelope {
            Some(envelope) => envelope.clone(),
            None => {
                let sql = format!("SELECT name, '{}' AS tag FROM os", self.key);
                let prepared = match self.definition {
                    Some(definition) => operator.prepare_of(definition, ("tag", &self.key), "").await?,
                    None => operator.prepare(&sql, "").await?,
                };
                operator.sign(&prepared.order)?
            }
        };
        self.envelope = Some(envelope.clone());
        let id = match &self.accepted {
            Some(id) => id.clone(),
            None => {
                self.phase = self.phase.max(Phase::Submitting);
                match operator.submit(envelope, &self.key).await {
                    Ok(id) => id,
                    Err(status) => {
                        if status.code() == tonic::Code::Aborted {
                            // What was prepared died with the Switch, before it was submitted.
                            self.envelope = None;
                        }
                        return Err(status.into());
                    }
                }
            }
        };
        self.accepted = Some(id.clone());
        self.phase = self.phase.max(Phase::Answering);
        Ok(id)
    }

    /// Submits it once more: the same envelope under the same key is the same instruction.
    async fn again(&self, operator: &Operator) -> anyhow::Result<()> {
        let envelope = self.envelope.clone().context("an envelope")?;
        let id = operator.submit(envelope, &self.key).await?;
        if Some(&id) != self.accepted.as_ref() {
            bail!("submitted again it became {id}: {self:?}");
        }
        Ok(())
    }
}
