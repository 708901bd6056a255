//! [`Follower`]: judges the policies that come, from the Switch or from a file, and has the [`super::Keeper`] decide on those that hold.

use std::time::Duration;

use bytes::Bytes;
use muster_pki::{Roots, UnixTime};
use muster_proto::ids::Digest;
use muster_signing::envelope;
use muster_signing::policy::Policy;
use tokio::time::Instant;

use super::follower::Follower;
use super::keeper::{Kept, Verdict};
use super::offers::Report;
use crate::clock;
use crate::events::REASON_CHARS_MAX;
use crate::instructions::{CLOCK_OFF_MS, POLICY, shared_with_signers};
use crate::metrics as names;
use crate::store::StoreError;
use crate::value;

/// The event of a policy that was offered and is not taken.
const REFUSED: &str = "policy.refused";

/// Longest pause until a policy is judged again that waits for the clock, which somebody may set at any time.
const CLOCK_PAUSE: Duration = Duration::from_secs(60);

/// A policy that may be followed, verified or not.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(super) source: Source,
    pub(super) digest: Digest,
    pub(super) envelope: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Switch,
    File,
}

impl Follower {
    pub(super) async fn handle_document(
        &mut self,
        digest: Digest,
        envelope: Bytes,
    ) -> Result<(), StoreError> {
        if !self.offers.handle_document(digest) {
            return Ok(());
        }
        let is_asked_for = envelope::digest(&envelope) == digest;
        let offer = Offer { source: Source::Switch, digest, envelope };
        if !is_asked_for {
            let problem = "the Switch sent another policy than the one asked for, or none";
            return self.refuse(&offer, "content", problem).await;
        }
        self.judge(offer).await
    }

    pub(super) async fn handle_file(
        &mut self,
        read: Result<Option<Bytes>, String>,
    ) -> Result<(), StoreError> {
        self.unjudged.retain(|unjudged| unjudged.source != Source::File);
        let (file, problem) = match read {
            Ok(file) => (file, String::new()),
            Err(problem) => (None, problem),
        };
        if !problem.is_empty() {
            tracing::warn!(problem, "no policy is taken from the file");
        }
        self.file = file;
        self.tell_of_file(problem);
        // Until it is known whose device this is, no policy is for it.
        if self.identity.known().is_some() {
            self.judge_file().await?;
        }
        Ok(())
    }

    pub(super) async fn judge_file(&mut self) -> Result<(), StoreError> {
        let Some(envelope) = self.file.clone() else { return Ok(()) };
        let digest = envelope::digest(&envelope);
        if self.offers.has_refused(digest) {
            let next = "it was refused or tried in vain; `muster-client policy refresh --retry` has it looked at again";
            self.tell_of_file(next.to_owned());
            return Ok(());
        }
        self.tell_of_file(String::new());
        self.judge(Offer { source: Source::File, digest, envelope }).await
    }

    fn tell_of_file(&mut self, problem: String) {
        if self.file_problem != problem {
            self.file_problem = problem;
            self.show();
        }
    }

    pub(super) async fn judge(&mut self, offer: Offer) -> Result<(), StoreError> {
        self.unjudged.retain(|unjudged| unjudged.source != offer.source);
        if let Some(problem) = self.clock_problem().await? {
            self.put_off(offer, problem);
            return Ok(());
        }
        let judged = match self.trust.open_policy(&offer.envelope, UnixTime::now()) {
            // Nothing is wrong with it, so that it is not refused for good.
            Err(error) if error.lacks_only_a_crl() => {
                self.put_off(offer, error.to_string());
                return Ok(());
            }
            Err(error) => self.refuse(&offer, "signature", &error.to_string()).await,
            Ok(policy) => match self.shared_with_signers(&policy) {
                Some(shared) => self.refuse(&offer, "shared_root", &shared).await,
                None => self.handle_policy(offer, policy).await,
            },
        };
        if self.unjudged.is_empty() && !self.waits_for.is_empty() {
            self.waits_for.clear();
            self.show();
        }
        judged
    }

    /// Judges once more what could not be judged.
    pub(super) async fn judge_again(&mut self) -> Result<(), StoreError> {
        self.judges_at = None;
        for offer in std::mem::take(&mut self.unjudged) {
            self.judge(offer).await?;
        }
        Ok(())
    }

    fn put_off(&mut self, offer: Offer, problem: String) {
        if self.waits_for != problem {
            let digest = offer.digest;
            tracing::warn!(%digest, problem, "the policy cannot be judged yet, and waits until it can be");
            self.waits_for = problem;
            self.show();
        }
        self.unjudged.push(offer);
    }

    /// Returns why no policy can be judged by the clock at present: it was set back, so that certificates count which have ended.
    async fn clock_problem(&mut self) -> Result<Option<String>, StoreError> {
        let now_ms = clock::wall_ms();
        let floor_ms = match self.store.alone(move |tables| tables.time_floor_ms(now_ms)).await {
            Ok(floor_ms) => floor_ms,
            Err(full @ StoreError::DiskFull) => {
                self.judges_at = Some(Instant::now() + CLOCK_PAUSE);
                return Ok(Some(full.to_string()));
            }
            Err(error) => return Err(error),
        };
        let behind_ms = floor_ms.saturating_sub(CLOCK_OFF_MS).saturating_sub(now_ms);
        let Some(behind) = u64::try_from(behind_ms).ok().filter(|behind| *behind > 0) else {
            return Ok(None);
        };
        self.judges_at = Some(Instant::now() + Duration::from_millis(behind).min(CLOCK_PAUSE));
        Ok(Some("this device's clock is behind what it has seen; set it".to_owned()))
    }

    /// Returns why the CAs that a policy brings cannot be those of servers: a signer has one of them.
    fn shared_with_signers(&self, policy: &Policy) -> Option<String> {
        let servers = Roots::from_certificates(policy.terms().authorities.iter().cloned()).ok()?;
        let shared = shared_with_signers(&self.installed.config.trust, POLICY, &servers)?;
        Some(format!("policy {}: {shared}", policy.serial()))
    }

    async fn handle_policy(&mut self, offer: Offer, policy: Policy) -> Result<(), StoreError> {
        let (serial, says) = (policy.serial(), policy.terms().says.clone());
        if offer.source == Source::File {
            self.tell_of_file(String::new());
        }
        let kept = Kept { envelope: offer.envelope.to_vec(), policy };
        match self.keeper.handle_policy(kept, clock::wall_ms()) {
            Verdict::Held => {}
            Verdict::NotOurs => {
                let problem = format!("policy {serial} is for others");
                return self.refuse(&offer, "not_ours", &problem).await;
            }
            Verdict::Older { highest } => {
                let problem = format!("policy {serial} is not later than {highest}, which was taken before");
                return self.refuse(&offer, "older", &problem).await;
            }
            Verdict::Adopted => {
                self.give_up_trial();
                self.keep(None).await?;
                tracing::info!(serial, says, "policy followed");
                self.show();
                self.check();
            }
            Verdict::Tried => {
                self.give_up_trial();
                self.keep(None).await?;
                tracing::info!(serial, says, "policy tried beside the one that is followed");
                self.show();
                if let Some(known) = self.identity.known() {
                    self.begin_trial(&known.device);
                }
            }
        }
        Ok(())
    }

    /// Notes that it is not taken. The operators are told, by whichever Switch is there to hear it.
    async fn refuse(&mut self, offer: &Offer, reason: &'static str, problem: &str) -> Result<(), StoreError> {
        let digest = offer.digest;
        let source = match offer.source {
            Source::Switch => {
                tracing::warn!(%digest, problem, "the Switch offers a policy that is not taken");
                "switch"
            }
            Source::File => {
                tracing::warn!(%digest, problem, "the policy in the file is not taken");
                self.tell_of_file(problem.to_owned());
                // A file stays where it was put, long after a later policy came: nobody need be told.
                if reason == "older" {
                    return Ok(());
                }
                "file"
            }
        };
        ::metrics::counter!(names::POLICIES_REFUSED, "reason" => reason).increment(1);
        if self.offers.refuse(digest) == Report::Not {
            return Ok(());
        }
        let fields = vec![
            value::text("digest", &digest.to_string()),
            value::text("source", source),
            value::text("reason", reason),
            value::text("detail", &problem.chars().take(REASON_CHARS_MAX).collect::<String>()),
        ];
        self.tell(REFUSED, fields).await
    }
}
