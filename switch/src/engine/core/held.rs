//! [`Held`]: a signed document as it was imported, whatever it is.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_pki::{Certificate, Thumbprint, UnixTime};
use muster_proto::ids::Digest;
use muster_signing::definition::{Definition, DefinitionError};
use muster_signing::envelope::{self, Verified};
use muster_signing::licence::{Licence, LicenceError};
use muster_signing::policy::{Policy, PolicyError};

use crate::engine::EngineError;
use crate::engine::error::invalid;
use crate::engine::standing::Standing;
use crate::engine::store::DocumentRecord;

/// An imported document whose signature was verified, and whose signers were trusted, when it was imported.
#[derive(Debug, Clone)]
pub(crate) struct Held<T> {
    pub(crate) envelope: Bytes,
    pub(crate) digest: Digest,
    pub(crate) text: String,
    pub(crate) document: T,
    pub(crate) signer: Thumbprint,
    pub(crate) signer_subject: String,
    pub(crate) signing_time: UnixTime,
    /// When at the latest, by a timestamp.
    pub(crate) stamped_at: Option<UnixTime>,
    pub(crate) imported_at_ms: i64,
    /// Whether those who signed it are trusted since.
    pub(crate) standing: Arc<Standing<T>>,
}

/// An imported definition.
pub(crate) type HeldDefinition = Held<Definition>;

/// The definitions of a pack that was verified.
#[derive(Debug, Clone)]
pub(crate) struct HeldPack {
    /// The pack's name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// In the order of its index.
    pub(crate) definitions: Vec<HeldDefinition>,
}

/// An imported licence.
pub(crate) type HeldLicence = Held<Licence>;

/// An imported policy.
pub(crate) type HeldPolicy = Held<Policy>;

/// What is said by a signed text.
pub(crate) trait Document: Sized {
    /// What it is, for people.
    const NAME: &'static str;

    /// Why a text is none.
    type Error: Display;

    /// Reads it.
    fn read(text: &str) -> Result<Self, Self::Error>;

    /// Tells what is wrong to whoever imports it.
    fn invalid(error: &Self::Error) -> EngineError {
        EngineError::InvalidArgument(error.to_string())
    }
}

impl Document for Definition {
    const NAME: &'static str = "definition";
    type Error = DefinitionError;

    fn read(text: &str) -> Result<Self, DefinitionError> {
        Self::parse(text)
    }

    fn invalid(error: &DefinitionError) -> EngineError {
        invalid(error)
    }
}

impl Document for Licence {
    const NAME: &'static str = "licence";
    type Error = LicenceError;

    fn read(text: &str) -> Result<Self, LicenceError> {
        Self::parse(text)
    }
}

impl Document for Policy {
    const NAME: &'static str = "policy";
    type Error = PolicyError;

    fn read(text: &str) -> Result<Self, PolicyError> {
        Self::parse(text)
    }
}

impl<T: Document> Held<T> {
    /// Makes it of an envelope that was verified, to be imported.
    pub(crate) fn verified(
        envelope: Vec<u8>,
        verified: Verified,
        signer: &Certificate,
    ) -> Result<Self, EngineError> {
        let text = String::from_utf8(verified.content)
            .map_err(|error| EngineError::InvalidArgument(format!("the {}'s text: {error}", T::NAME)))?;
        Ok(Self {
            digest: envelope::digest(&envelope),
            envelope: Bytes::from(envelope),
            document: T::read(&text).map_err(|error| T::invalid(&error))?,
            text,
            signer: signer.thumbprint(),
            signer_subject: signer.subject().to_owned(),
            signing_time: verified.signing_time,
            stamped_at: verified.stamped_at,
            imported_at_ms: 0,
            standing: Arc::default(),
        })
    }

    /// Makes it of what was stored; its signature was verified before it was.
    pub(crate) fn stored(record: DocumentRecord) -> Result<Self, Unfit> {
        let signer = record.signer_thumbprint.parse();
        let signer = signer.map_err(|_| Unfit::Damaged("signer is not a thumbprint".to_owned()))?;
        let document = match T::read(&record.text) {
            Ok(document) => document,
            Err(error) => return Err(Unfit::Refused { problem: error.to_string(), text: record.text }),
        };
        Ok(Self {
            digest: envelope::digest(&record.envelope),
            document,
            signer,
            signer_subject: record.signer,
            signing_time: UnixTime::since_unix_epoch(Duration::from_secs(record.signed_at)),
            stamped_at: record
                .stamped_at
                .map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds))),
            imported_at_ms: record.imported_at_ms,
            envelope: record.envelope,
            text: record.text,
            standing: Arc::default(),
        })
    }
}

/// Why a stored document is not held.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// The record is not what was written.
    Damaged(String),
    /// An earlier version took the text, and this one does not.
    Refused {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl<T> Held<T> {
    /// Returns what is stored of it.
    pub(super) fn record(&self) -> DocumentRecord {
        DocumentRecord {
            envelope: self.envelope.clone(),
            text: self.text.clone(),
            signer_thumbprint: self.signer.to_string(),
            signer: self.signer_subject.clone(),
            signed_at: self.signing_time.as_secs(),
            stamped_at: self.stamped_at.map(|moment| moment.as_secs()),
            imported_at_ms: self.imported_at_ms,
        }
    }
}
