//! A session after its welcome: the client's account of credits and of documents it asked for.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::ids::Digest;
use crate::limits::DOCUMENT_REQUESTS_MAX;
use crate::session::PushError;
use crate::session::v1::{Document, DocumentKind, Lane, Welcome};

/// The Switch has accepted the session.
#[derive(Debug)]
pub(super) struct Established {
    last_heard: Instant,
    idle_timeout: Duration,
    results_credit_bytes: u64,
    events_credit_bytes: u64,
    asked: BTreeSet<(DocumentKind, Digest)>,
}

impl Established {
    pub(super) fn new(welcome: &Welcome, now: Instant) -> Self {
        Self {
            last_heard: now,
            idle_timeout: Duration::from_millis(welcome.idle_timeout_ms.into()),
            results_credit_bytes: welcome.results_credit_bytes,
            events_credit_bytes: welcome.events_credit_bytes,
            asked: BTreeSet::new(),
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    pub(super) fn dead_at(&self) -> Instant {
        self.last_heard + self.idle_timeout
    }

    pub(super) fn credit(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Results => self.results_credit_bytes,
            Lane::Events => self.events_credit_bytes,
            Lane::Unspecified => 0,
        }
    }

    pub(super) fn grant(&mut self, lane: Lane, bytes: u64) {
        self.set_credit(lane, self.credit(lane).saturating_add(bytes));
    }

    pub(super) fn spend(&mut self, lane: Lane, encoded_len: usize) -> Result<(), PushError> {
        let available = self.credit(lane);
        let needed = u64::try_from(encoded_len).unwrap_or(u64::MAX);
        let left = available.checked_sub(needed).ok_or(PushError::NoCredit { needed, available })?;
        self.set_credit(lane, left);
        Ok(())
    }

    /// Notes a document as asked for, unless the Switch would ignore the request.
    pub(super) fn ask(&mut self, kind: DocumentKind, digest: Digest) -> Result<(), PushError> {
        if self.asked.len() >= DOCUMENT_REQUESTS_MAX && !self.asked.contains(&(kind, digest)) {
            return Err(PushError::TooManyRequests { max: DOCUMENT_REQUESTS_MAX });
        }
        self.asked.insert((kind, digest));
        Ok(())
    }

    pub(super) fn answered(&mut self, document: &Document) {
        if let (Ok(kind), Ok(digest)) =
            (DocumentKind::try_from(document.kind), Digest::try_from(&document.digest[..]))
        {
            self.asked.remove(&(kind, digest));
        }
    }

    fn set_credit(&mut self, lane: Lane, bytes: u64) {
        match lane {
            Lane::Results => self.results_credit_bytes = bytes,
            Lane::Events => self.events_credit_bytes = bytes,
            Lane::Unspecified => {}
        }
    }
}
