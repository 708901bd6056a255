//! Signing once more what was signed and stamped before: no new signature has so early a timestamp.
//!
//! A script that runs again keeps the earlier signature, as if it had just made it. What cannot be known to be as good is not written over
//! either: the user says so with `--replace`. Another content is another document, which `--out` replaces as it always does.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use muster_pki::{Certificate, Roots, UnixTime};
use muster_signing::envelope::{
    self, ContentDigest, ContentType, Detached, ENVELOPE_BYTES_MAX, Inspection, Signer,
};
use muster_signing::moment;
use muster_signing::pack::INDEX_PATH;

use super::out::Out;
use super::read;
use super::timestamp::{claimed_in_words, in_words};
use crate::{FileKind, existing_timestamps, read_envelope};

/// A tar header has a block of its own (POSIX.1-1988).
const HEADER_BYTES: usize = 512;

/// Where a tar header has the size of its member, in octal digits.
const SIZE_AT: std::ops::Range<usize> = 124..135;

/// What is to be signed, and by whom.
pub(super) struct Signing<'a> {
    /// Where the signature goes.
    pub(super) out: &'a Out,
    /// What an envelope that is there has to be over.
    pub(super) content: Content<'a>,
    /// Who signs.
    pub(super) signer: &'a Signer,
    /// Whether an earlier signature goes all the same.
    pub(super) replace: bool,
}

/// What is signed.
pub(super) enum Content<'a> {
    /// It is in the envelope.
    Inside(ContentType, &'a [u8]),
    /// It is a file beside it; given what hashes it as the earlier signer did.
    Beside(&'a dyn Fn(&Detached) -> anyhow::Result<ContentDigest>),
}

/// An earlier signature, which is as good as a new one and has a timestamp.
pub(super) struct Kept {
    /// Its envelope (DER).
    pub(super) envelope: Vec<u8>,
    /// When it was made, by its signer's own clock.
    pub(super) signed_at: Option<UnixTime>,
    /// The moment of its timestamp.
    pub(super) stamped_at: Option<UnixTime>,
}

impl Signing<'_> {
    /// Returns the signature that stays; `None`: a new one is made. `roots` are those of timestamp authorities, if any are known.
    ///
    /// # Errors
    /// There is an earlier timestamp over the same content, and nobody can tell whether it can stay: another signed, or it does not hold.
    pub(super) fn earlier(
        &self,
        roots: impl FnOnce() -> anyhow::Result<Option<Roots>>,
        now: UnixTime,
    ) -> anyhow::Result<Option<Kept>> {
        if self.replace {
            return Ok(None);
        }
        let Some(envelope) = self.stamped()? else { return Ok(None) };
        let name = self.out.path().display();
        let inspection = envelope::inspect(&envelope)?;
        let claimed = inspection.stamps.iter().map(claimed_in_words);
        let (told, holds) = match roots()? {
            Some(roots) => {
                let existing = existing_timestamps(&envelope, &roots, None, now)?;
                (
                    existing.iter().map(in_words).collect::<Vec<_>>(),
                    existing.iter().all(|it| it.problem.is_none()),
                )
            }
            None => {
                let unknown = |claimed| {
                    format!("{claimed}, which no roots of timestamp authorities were given to judge")
                };
                (claimed.map(unknown).collect(), false)
            }
        };
        if let Some(why) = self.unlike(&inspection).or_else(|| (!holds).then(String::new)) {
            anyhow::bail!(
                "{name}: the same content has a timestamp already: {}{why}; a later signature in its place proves less; give --replace to have \
                 that all the same",
                told.join("; ")
            );
        }
        Ok(Some(Kept {
            signed_at: inspection.signers.first().map(|(_, at)| *at),
            stamped_at: inspection.stamps.first().and_then(|stamp| stamp.at),
            envelope,
        }))
    }

    /// Says in what another signature than the one that would be made now differs; `None`: it is as good.
    fn unlike(&self, earlier: &Inspection) -> Option<String> {
        let own = self.signer.certificate();
        let other = earlier.signers.iter().map(|(signer, _)| signer).find(|signer| Some(*signer) != own);
        let other = other.map(|other| {
            let (subject, thumbprint) = (other.subject(), other.thumbprint());
            format!("; {subject} signed it, with the certificate {thumbprint}, which is not the one that would sign now")
        });
        let is_inside = |above: &&Certificate| above.is_self_signed() || earlier.certificates.contains(above);
        let missing = self.signer.chain().iter().find(|above| !is_inside(above));
        other.or_else(|| {
            missing.map(|above| {
                format!("; {} is not in that signature, and would be in a new one", above.subject())
            })
        })
    }

    /// Returns the envelope that is there, where it is over the same content and has a timestamp.
    fn stamped(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(envelope) = self.there() else { return Ok(None) };
        let has_stamp = envelope::inspect(&envelope).is_ok_and(|it| !it.stamps.is_empty());
        Ok((has_stamp && self.is_over(&envelope)?).then_some(envelope))
    }

    fn there(&self) -> Option<Vec<u8>> {
        let path = self.out.path();
        match self.content {
            Content::Inside(ContentType::Pack, _) => index_of(path),
            Content::Inside(..) | Content::Beside(_) => {
                read_envelope(&read(path, FileKind::ENVELOPE).ok()?).ok()
            }
        }
    }

    /// Returns whether an envelope's signature holds, and is over the content.
    fn is_over(&self, envelope: &[u8]) -> anyhow::Result<bool> {
        match self.content {
            Content::Inside(kind, content) => {
                Ok(envelope::open(envelope, kind).is_ok_and(|opened| opened.content() == content))
            }
            Content::Beside(digest) => match Detached::read(envelope) {
                Ok(detached) => Ok(detached.is_over(&digest(&detached)?)),
                Err(_) => Ok(false),
            },
        }
    }

    /// Warns of a timestamp that goes with its signature, where it makes nothing last longer.
    pub(super) fn gone(&self) -> anyhow::Result<Option<String>> {
        let Some(envelope) = self.stamped()? else { return Ok(None) };
        let inspection = envelope::inspect(&envelope)?;
        let told: Vec<String> = inspection.stamps.iter().map(claimed_in_words).collect();
        Ok(Some(format!(
            "the signature in the place of which this one is had a timestamp, which is gone with it: {}",
            told.join("; ")
        )))
    }
}

impl Kept {
    /// Says that nothing was signed.
    pub(super) fn says(&self) -> String {
        let at = self.stamped_at.map_or_else(|| "no moment".to_owned(), |at| moment::shown(at.as_secs()));
        format!(
            "it was signed before with the same certificate, and has a timestamp of {at}, which holds: that signature stays, since a later one \
             proves less; give --replace to sign anew all the same"
        )
    }
}

/// Returns the index of a pack, as its file begins with it.
fn index_of(path: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|it| it.is_file()))?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).ok()?;
    header.strip_prefix(INDEX_PATH.as_bytes()).filter(|rest| rest.first() == Some(&0))?;
    let digits = std::str::from_utf8(header.get(SIZE_AT)?).ok()?;
    let size = usize::from_str_radix(digits, 8).ok().filter(|size| *size <= ENVELOPE_BYTES_MAX)?;
    let mut envelope = vec![0; size];
    file.read_exact(&mut envelope).ok()?;
    Some(envelope)
}
