//! The licence that this device holds: asked for when the Switch tells of another, never exchanged for an older one.

use muster_proto::ids::Digest;
use muster_signing::envelope;
use muster_signing::licence::Licence;
use muster_signing::moment;

use super::{Admission, Effect, Instructions, Now};

/// The licence held.
#[derive(Debug, Clone)]
pub(crate) struct HeldLicence {
    /// Its envelope.
    pub(crate) envelope: Vec<u8>,
    /// SHA-256 of the envelope.
    pub(crate) digest: Digest,
    /// Its serial.
    pub(crate) serial: u64,
    /// When a newer one should have come (`refresh_by`, G6), milliseconds since 1970; `None`: it does not say.
    pub(crate) refresh_by_ms: Option<i64>,
}

impl HeldLicence {
    /// Returns a licence that was verified before it was kept.
    pub(crate) fn kept(envelope: Vec<u8>, serial: u64) -> Self {
        let content = envelope::inspect(&envelope).ok().map(|inspection| inspection.content);
        let text = content.and_then(|content| String::from_utf8(content).ok());
        let licence = text.and_then(|text| Licence::parse(&text).ok());
        Self {
            digest: envelope::digest(&envelope),
            envelope,
            serial,
            refresh_by_ms: licence.and_then(|licence| LicenceTerms::of(&licence).refresh_by_ms),
        }
    }

    /// Returns what to tell people once a newer one should have come: this one goes on working.
    pub(crate) fn overdue(&self, now_ms: i64) -> Option<String> {
        let refresh_by_ms = self.refresh_by_ms.filter(|refresh_by_ms| now_ms > *refresh_by_ms)?;
        Some(format!(
            "licence {} should have had a successor by {} and goes on working; have the newer one imported at the Switch, \
             and look at who keeps it away",
            self.serial,
            moment::shown(u64::try_from(refresh_by_ms / 1000).unwrap_or_default())
        ))
    }
}

/// What a verified licence says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LicenceTerms {
    /// Its serial.
    pub(crate) serial: u64,
    /// When a newer one should have come, milliseconds since 1970.
    pub(crate) refresh_by_ms: Option<i64>,
}

impl LicenceTerms {
    /// Reads them.
    pub(crate) fn of(licence: &Licence) -> Self {
        let millis = |seconds: u64| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        let refresh_by_ms = licence.terms().refresh_by.map(|moment| millis(moment.as_secs()));
        Self { serial: licence.serial(), refresh_by_ms }
    }
}

/// A licence that came, and is refused for want of a fresh CRL alone (R6 of trust.md).
#[derive(Debug)]
pub(super) struct WaitingLicence {
    pub(super) envelope: Vec<u8>,
    pub(super) digest: Digest,
    /// What its refusal said.
    pub(super) detail: String,
}

impl<A: Admission> Instructions<A> {
    /// Returns the licence held.
    pub(crate) fn licence(&self) -> Option<&HeldLicence> {
        self.licence.as_ref()
    }

    /// Returns why a licence that came is not in use yet: it waits for a CRL.
    pub(crate) fn licence_waits(&self) -> Option<String> {
        self.licence_waiting
            .as_ref()
            .map(|waiting| format!("the Switch's licence waits for a CRL: {}", waiting.detail))
    }

    /// The Switch told which licence it holds.
    pub(crate) fn handle_licence_notice(&mut self, digest: Digest) {
        let held = self.licence.as_ref().is_some_and(|licence| licence.digest == digest);
        let waits = self.licence_waiting.as_ref().is_some_and(|waiting| waiting.digest == digest);
        if !held && !waits && self.licence_asked != Some(digest) {
            self.licence_asked = Some(digest);
            self.effects.push_back(Effect::AskLicence { digest });
        }
    }

    /// The Switch sent a licence. One that does not verify, or is older than the one held, changes nothing.
    pub(crate) fn handle_licence(&mut self, digest: Digest, envelope: &[u8], now: Now) {
        if self.licence_asked != Some(digest) {
            return;
        }
        self.licence_asked = None;
        self.judge_licence(digest, envelope, now);
        self.judge(now);
    }

    /// Judges what came, or came before the CRL that it needs.
    pub(super) fn judge_licence(&mut self, digest: Digest, envelope: &[u8], now: Now) {
        let waited = self.licence_waiting.take().map(|waiting| waiting.detail);
        if envelope::digest(envelope) == digest {
            match self.admission.licence(envelope, now.wall_ms) {
                Ok(LicenceTerms { serial, refresh_by_ms }) if serial >= self.licence_serial => {
                    self.licence_serial = serial;
                    let held = envelope.to_vec();
                    self.licence = Some(HeldLicence { envelope: held, digest, serial, refresh_by_ms });
                    self.effects.push_back(Effect::KeepLicence { envelope: envelope.to_vec(), serial });
                }
                Ok(older) => {
                    tracing::warn!(
                        serial = older.serial,
                        held = self.licence_serial,
                        "the Switch sent an older licence; it is not taken"
                    );
                }
                Err(refused) if refused.lacks_only_a_crl => {
                    let detail = refused.detail;
                    if waited.as_ref() != Some(&detail) {
                        tracing::warn!(
                            detail,
                            "the licence waits for a CRL, and is judged again when one comes"
                        );
                    }
                    self.licence_waiting =
                        Some(WaitingLicence { envelope: envelope.to_vec(), digest, detail });
                }
                Err(refused) => {
                    tracing::warn!(detail = refused.detail, "the Switch sent a licence that does not hold")
                }
            }
        } else {
            tracing::warn!(%digest, "the Switch sent another licence than the one asked for, or none");
        }
    }
}
