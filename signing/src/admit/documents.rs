//! [`Documents`]: definitions and licences that were opened before.
//!
//! A fleet runs few definitions many times. That a signature is over these bytes, and what they say, never changes, so it is found out
//! once and remembered by the envelope's digest. Who is trusted changes: roots, CRLs and the clock are asked at each judgement.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use muster_pki::UnixTime;
use muster_proto::common::v1::Refusal;
use muster_proto::ids::Digest;

use super::{RefusalReason, Trust, judged, refuse, unopened};
use crate::definition::Definition;
use crate::envelope::{self, ContentType, Judged, Opened};
use crate::licence::Licence;

/// Bytes of envelopes that are remembered at most, of definitions and of licences each: some hundred definitions of a few KiB, and always
/// the last one.
const REMEMBERED_BYTES_MAX: usize = 1 << 20;

/// A document whose signatures hold. That never changes; whether those who signed it are trusted does, and is judged each time.
#[derive(Debug)]
pub struct Signed<T> {
    opened: Opened,
    content_type: ContentType,
    /// What it says; read once somebody trusts who signed it, and not before.
    says: OnceLock<Result<T, RefusalReason>>,
    read: fn(&str) -> Result<T, RefusalReason>,
}

/// What was opened before. A clone shares it.
#[derive(Debug, Clone, Default)]
pub struct Documents(Arc<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    definitions: Mutex<Latest<Definition>>,
    licences: Mutex<Latest<Licence>>,
}

/// The latest first.
#[derive(Debug)]
struct Latest<T>(VecDeque<(Digest, usize, Arc<Signed<T>>)>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl Documents {
    /// Opens a definition with this digest.
    pub(super) fn definition(
        &self,
        envelope: &[u8],
        digest: Digest,
    ) -> Result<Arc<Signed<Definition>>, RefusalReason> {
        remembered(&self.0.definitions, envelope, digest, Signed::definition)
    }

    /// Opens a licence with this digest.
    pub(super) fn licence(
        &self,
        envelope: &[u8],
        digest: Digest,
    ) -> Result<Arc<Signed<Licence>>, RefusalReason> {
        remembered(&self.0.licences, envelope, digest, Signed::licence)
    }

    /// Returns how many definitions are remembered.
    #[must_use]
    pub fn definitions(&self) -> usize {
        self.0.definitions.lock().unwrap_or_else(PoisonError::into_inner).0.len()
    }
}

impl Signed<Definition> {
    /// Opens a definition: its form, and every signature by the key of its certificate. Nobody is trusted by that.
    ///
    /// # Errors
    /// `BAD_SIGNATURE` or `TOO_LARGE`.
    pub fn definition(envelope: &[u8]) -> Result<Self, RefusalReason> {
        let read = |text: &str| Definition::parse(text).map_err(|error| refuse(Refusal::Unsupported, error));
        Self::open(envelope, ContentType::Definition, read)
    }
}

impl Signed<Licence> {
    /// Opens a licence, as [`Signed::definition`] does a definition.
    ///
    /// # Errors
    /// As [`Signed::definition`].
    pub fn licence(envelope: &[u8]) -> Result<Self, RefusalReason> {
        let read = |text: &str| Licence::parse(text).map_err(|error| refuse(Refusal::BadSignature, error));
        Self::open(envelope, ContentType::Licence, read)
    }
}

impl<T> Signed<T> {
    /// Judges who signed it, by the roots, CRLs and clock of now: as a client does before each run.
    ///
    /// # Errors
    /// `UNTRUSTED_SIGNER`, `SIGNER_REVOKED`, or `BAD_SIGNATURE` (a time or a timestamp that does not hold).
    pub fn judge(&self, trust: &Trust<'_>, now: UnixTime) -> Result<Judged, RefusalReason> {
        judged(&self.opened, self.content_type, trust, now)
    }
}

impl<T: Clone> Signed<T> {
    fn open(
        envelope: &[u8],
        content_type: ContentType,
        read: fn(&str) -> Result<T, RefusalReason>,
    ) -> Result<Self, RefusalReason> {
        let opened =
            envelope::open(envelope, content_type).map_err(|error| unopened(content_type, &error))?;
        Ok(Self { opened, content_type, says: OnceLock::new(), read })
    }

    /// Returns what it says; ask once those who signed it are trusted.
    pub(super) fn says(&self) -> Result<T, RefusalReason> {
        let read = || {
            let text = str::from_utf8(self.opened.content());
            let text = text.map_err(|error| refuse(Refusal::BadSignature, format!("no UTF-8: {error}")))?;
            (self.read)(text)
        };
        self.says.get_or_init(read).clone()
    }
}

/// Returns what is remembered of a digest, else opens it, with nobody kept waiting meanwhile.
fn remembered<T>(
    latest: &Mutex<Latest<T>>,
    envelope: &[u8],
    digest: Digest,
    open: impl FnOnce(&[u8]) -> Result<Signed<T>, RefusalReason>,
) -> Result<Arc<Signed<T>>, RefusalReason> {
    if let Some(found) = latest.lock().unwrap_or_else(PoisonError::into_inner).find(digest) {
        return Ok(found);
    }
    let opened = Arc::new(open(envelope)?);
    let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    latest.remember(digest, envelope.len(), Arc::clone(&opened));
    Ok(opened)
}

impl<T> Latest<T> {
    fn find(&mut self, digest: Digest) -> Option<Arc<Signed<T>>> {
        let at = self.0.iter().position(|(known, ..)| *known == digest)?;
        let found = self.0.remove(at)?;
        let signed = Arc::clone(&found.2);
        self.0.push_front(found);
        Some(signed)
    }

    fn remember(&mut self, digest: Digest, bytes: usize, signed: Arc<Signed<T>>) {
        self.0.push_front((digest, bytes, signed));
        while self.0.len() > 1
            && self.0.iter().map(|(_, bytes, _)| bytes).sum::<usize>() > REMEMBERED_BYTES_MAX
        {
            self.0.pop_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_pki::Role;

    use super::*;
    use crate::fixture::{NOW, Pki, at};

    fn signed() -> Arc<Signed<()>> {
        let signer = Pki::flat("a").signer("ann", Role::Author);
        let envelope = envelope::sign(b"x", ContentType::Definition, &signer, at(NOW)).unwrap();
        Arc::new(Signed::open(&envelope, ContentType::Definition, |_| Ok(())).unwrap())
    }

    fn digest(number: u8) -> Digest {
        Digest::from([number; 32])
    }

    #[test]
    fn what_fits_the_bytes_is_remembered_and_of_more_the_last_one_always() {
        let (signed, mut latest) = (signed(), Latest::default());
        let half = 1_048_576 / 2;

        latest.remember(digest(1), half, Arc::clone(&signed));
        latest.remember(digest(2), half, Arc::clone(&signed));
        assert_eq!(latest.0.len(), 2, "1 MiB to the byte");
        latest.remember(digest(3), 1, Arc::clone(&signed));
        assert!(latest.find(digest(1)).is_none() && latest.find(digest(2)).is_some());
        for number in [4, 5] {
            latest.remember(digest(number), 2 * 1_048_576, Arc::clone(&signed));
            assert_eq!(latest.0.len(), 1);
            assert!(latest.find(digest(number)).is_some());
        }
    }

    #[test]
    fn what_was_asked_for_last_is_forgotten_last() {
        let (signed, mut latest) = (signed(), Latest::default());
        let third = 1_048_576 / 3;
        for number in [1, 2, 3] {
            latest.remember(digest(number), third, Arc::clone(&signed));
        }

        assert!(latest.find(digest(1)).is_some() && latest.find(digest(9)).is_none());
        latest.remember(digest(4), third, signed);

        assert!(latest.find(digest(2)).is_none());
        assert!([1, 3, 4].into_iter().all(|number| latest.find(digest(number)).is_some()));
    }
}
