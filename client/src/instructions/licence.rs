//! The licence that this device holds: asked for when the Switch tells of another, never exchanged for an older one.

use muster_proto::ids::Digest;

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
}

impl<A: Admission> Instructions<A> {
    /// Returns the licence held.
    pub(crate) fn licence(&self) -> Option<&HeldLicence> {
        self.licence.as_ref()
    }

    /// The Switch told which licence it holds.
    pub(crate) fn handle_licence_notice(&mut self, digest: Digest) {
        let held = self.licence.as_ref().is_some_and(|licence| licence.digest == digest);
        if !held && self.licence_asked != Some(digest) {
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
        if muster_signing::envelope::digest(envelope) == digest {
            match self.admission.licence(envelope, now.wall_ms) {
                Ok(serial) if serial >= self.licence_serial => {
                    self.licence_serial = serial;
                    self.licence = Some(HeldLicence { envelope: envelope.to_vec(), digest, serial });
                    self.effects.push_back(Effect::KeepLicence { envelope: envelope.to_vec(), serial });
                }
                Ok(serial) => {
                    tracing::warn!(
                        serial,
                        held = self.licence_serial,
                        "the Switch sent an older licence; it is not taken"
                    );
                }
                Err(refused) => {
                    tracing::warn!(detail = refused.detail, "the Switch sent a licence that does not hold")
                }
            }
        } else {
            tracing::warn!(%digest, "the Switch sent another licence than the one asked for, or none");
        }
        self.judge(now);
    }
}
