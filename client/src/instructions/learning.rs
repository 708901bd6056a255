//! [`Learning`]: who signed what is judged, until it is told from where the CRLs of their issuers may be fetched (R1 of trust.md).
//!
//! Verifying a chain takes a runtime's thread too long, and who judges need not wait for it: no CRL is there any sooner.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use muster_pki::{Role, Roots};
use muster_service::shutdown::Shutdown;
use muster_signing::envelope::{self, ClaimedChain};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::live::LiveTrust;
use super::trust::SigningRoots;

/// Most chains that wait, each of a few KiB: more than one fleet has signers. Beyond that the one that waits longest goes, and is
/// noted again with the next document of its signer.
const WAITING_MAX: usize = 64;

/// Chains of signers that wait.
#[derive(Debug, Default)]
pub(super) struct Learning {
    waiting: Mutex<VecDeque<ClaimedChain>>,
    noted: Notify,
}

impl Learning {
    /// Notes the signers and timestamp authorities that a document claims. Call it before the document is judged: mode `hard`
    /// accepts nobody of whose issuer there is no CRL.
    pub(super) fn note(&self, envelope: &[u8], role: Role) {
        let Ok(inspection) = envelope::inspect(envelope) else { return };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for chain in inspection.chains(role) {
            let is_known = waiting.iter().any(|known| {
                (known.role, &known.certificates, known.signed_at)
                    == (chain.role, &chain.certificates, chain.signed_at)
            });
            if is_known {
                continue;
            }
            if waiting.len() >= WAITING_MAX {
                waiting.pop_front();
                tracing::debug!("more signers than can be looked at: where their CRLs are is learned later");
            }
            waiting.push_back(chain);
        }
        self.noted.notify_one();
    }

    fn take(&self) -> VecDeque<ClaimedChain> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LiveTrust {
    /// Learns from the signers of what is judged, in a task of `shutdown`.
    pub(crate) fn learn_signers(self: &Arc<Self>, shutdown: &Shutdown) {
        let (this, token) = (Arc::clone(self), shutdown.token());
        shutdown.spawn("signers' distribution points", async move {
            while token.run_until_cancelled(this.learning.noted.notified()).await.is_some() {
                let learning = Arc::clone(&this);
                if let Err(error) = spawn_blocking(move || learning.learn()).await {
                    tracing::warn!(%error, "distribution points of signers were not learned");
                }
            }
        });
    }

    fn learn(&self) {
        let roots = self.roots();
        for chain in self.learning.take() {
            for roots in of_role(&roots, chain.role) {
                self.revocation().learn_signer(chain.role, &chain.certificates, roots, chain.signed_at);
            }
        }
    }
}

/// Returns the roots that signers of a role are judged by.
fn of_role(roots: &SigningRoots, role: Role) -> Vec<&Roots> {
    match role {
        Role::Author => vec![&roots.authors],
        Role::OrderSigner => vec![&roots.orders, &roots.switch_orders],
        Role::Licensor => vec![&roots.licences],
        Role::Policy => vec![&roots.policies],
        Role::Timestamp => roots.timestamps.iter().collect(),
        // They sign no documents.
        Role::Device | Role::Service | Role::Operator | Role::Switch => Vec::new(),
    }
}
