//! [`Standing`]: whether those who signed a document that is held are still to be trusted.
//!
//! An import judges them by the day of the import. Certificates end, CRLs and roots are exchanged, and clients judge again before each run
//! (G8 of signing.md): what they would refuse is not issued here. That a signature is over these bytes never changes, so it is verified once,
//! when somebody asks first; who made it is judged by the roots, CRLs and clock of the moment, as `muster_signing::admit` does for a client.

use std::sync::{Mutex, OnceLock, PoisonError};

use muster_pki::{Role, Roots};
use muster_signing::admit::{RefusalReason, Signed};
use muster_signing::definition::Definition;
use muster_signing::licence::Licence;

use super::clock::unix_time;
use super::core::Held;
use super::shared::learn;
use super::trust::Trust;

/// How long a judgement holds while neither roots nor CRLs change and the signer's own certificate does not end: one above it may. A
/// judgement takes some tenths of a millisecond.
const JUDGED_FOR_MS: i64 = 60_000;

/// A document whose signers are judged for as long as it is held.
pub(crate) trait Signable: Sized {
    /// Its signers' role.
    const ROLE: Role;

    /// What helps where its signers do not count.
    const REMEDY: &'static str;

    /// Returns the roots of its signers.
    fn roots(trust: &Trust) -> &Roots;

    /// Verifies its signature.
    fn open(envelope: &[u8]) -> Result<Signed<Self>, RefusalReason>;

    /// Returns what it is called, for the log.
    fn called(&self) -> String;
}

/// What was last found of those who signed a document.
#[derive(Debug)]
pub(crate) struct Standing<T> {
    /// Made when it is judged first.
    signed: OnceLock<Result<Signed<T>, RefusalReason>>,
    last: Mutex<Option<Judgement>>,
}

/// By what documents are judged.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    /// Roots and CRLs.
    pub(crate) trust: &'a Trust,
    /// Another one for each change of them.
    pub(crate) number: u64,
    /// Milliseconds since 1970.
    pub(crate) now_ms: i64,
}

#[derive(Debug)]
struct Judgement {
    number: u64,
    at_ms: i64,
    until_ms: i64,
    /// When the first of its signers' certificates ends that has not ended yet.
    ends_ms: Option<i64>,
    refusal: Option<RefusalReason>,
}

impl Signable for Definition {
    const ROLE: Role = Role::Author;
    const REMEDY: &'static str = "have the same text signed with a certificate that counts, and import that";

    fn roots(trust: &Trust) -> &Roots {
        &trust.authors
    }

    fn open(envelope: &[u8]) -> Result<Signed<Self>, RefusalReason> {
        Signed::definition(envelope)
    }

    fn called(&self) -> String {
        format!("definition {} {}", self.name(), self.version())
    }
}

impl Signable for Licence {
    const ROLE: Role = Role::Licensor;
    const REMEDY: &'static str = "import a licence of a higher serial whose signer counts";

    fn roots(trust: &Trust) -> &Roots {
        &trust.licences
    }

    fn open(envelope: &[u8]) -> Result<Signed<Self>, RefusalReason> {
        Signed::licence(envelope)
    }

    fn called(&self) -> String {
        format!("licence {}", self.serial())
    }
}

impl<T> Standing<T> {
    /// Returns why clients would refuse what these people signed, as far as that was looked at; `None`: they would not.
    pub(crate) fn refusal(&self) -> Option<RefusalReason> {
        self.last().as_ref().and_then(|last| last.refusal.clone())
    }

    /// Returns when its signer's certificate ends, milliseconds since 1970; `None`: it has ended, or nobody has looked yet.
    pub(crate) fn ends_ms(&self) -> Option<i64> {
        self.last().as_ref().and_then(|last| last.ends_ms)
    }

    /// Returns whether that is nothing.
    pub(crate) fn is_sound(&self) -> bool {
        self.last().as_ref().is_none_or(|last| last.refusal.is_none())
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Judgement>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Standing<T> {
    fn default() -> Self {
        Self { signed: OnceLock::new(), last: Mutex::default() }
    }
}

impl<T: Signable> Held<T> {
    /// Judges its signers anew, where that is due.
    pub(crate) fn judge(&self, bench: &Bench<'_>) {
        if self.standing.last().as_ref().is_some_and(|last| last.holds(bench)) {
            return;
        }
        let judgement = self.judgement(bench);
        let refusal = judgement.refusal.clone();
        let before = self.standing.last().replace(judgement).and_then(|last| last.refusal);
        let what = self.document.called();
        match (before, refusal) {
            (Some(before), Some(now)) if before.refusal == now.refusal => {}
            (_, Some(now)) => {
                tracing::warn!(
                    what,
                    code = now.refusal.name(),
                    detail = now.detail,
                    "clients would refuse it"
                );
            }
            (Some(_), None) => tracing::info!(what, "its signers count again"),
            (None, None) => {}
        }
    }

    fn judgement(&self, bench: &Bench<'_>) -> Judgement {
        let signed = self.standing.signed.get_or_init(|| {
            // From where their CRLs come is known of what was imported since the start alone.
            if let Some(sources) = &bench.trust.sources {
                learn(sources, &self.envelope, T::ROLE, bench.trust, T::roots(bench.trust));
            }
            T::open(&self.envelope)
        });
        let now = unix_time(bench.now_ms);
        let judged = signed.as_ref().map_err(Clone::clone);
        let judged = judged.and_then(|signed| signed.judge(&bench.trust.of_documents(), now));
        let until_ms = bench.now_ms.saturating_add(JUDGED_FOR_MS);
        let (ends_ms, refusal) = match judged {
            Ok(judged) => {
                let ends = judged.signers.iter().map(|signer| last_ms(signer.not_after().as_secs()));
                // With a timestamp it goes on after that.
                (ends.filter(|end| *end >= bench.now_ms).min(), None)
            }
            // A list that does not come takes nothing out of use that was accepted while it did: what that means is the
            // clients' own `revocation.mode` to say.
            Err(reason) if reason.lacks_only_a_crl => (None, None),
            Err(reason) => {
                let detail = format!("{}; {}", reason.detail, T::REMEDY);
                (None, Some(RefusalReason { detail, ..reason }))
            }
        };
        let until_ms = ends_ms.map_or(until_ms, |ends_ms| ends_ms.min(until_ms));
        Judgement { number: bench.number, at_ms: bench.now_ms, until_ms, ends_ms, refusal }
    }
}

impl Judgement {
    /// Returns whether it need not be made anew. A clock that was set back asks for that, too.
    fn holds(&self, bench: &Bench<'_>) -> bool {
        self.number == bench.number && (self.at_ms..=self.until_ms).contains(&bench.now_ms)
    }
}

/// The last millisecond of a second.
fn last_ms(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000).saturating_add(999)).unwrap_or(i64::MAX)
}
