//! [`Revocations`]: who was revoked since one last asked (R3).

use std::sync::Arc;

use muster_pki::{Certificate, Serial, newly_revoked};
use tokio::sync::watch;

use super::{Current, Revocation};

/// A certificate of a peer's path, by what a CRL says of it: (issuer, serial number).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathElement {
    issuer_der: Arc<[u8]>,
    serial: Arc<[u8]>,
}

impl PathElement {
    /// Takes issuer and serial number of a certificate.
    #[must_use]
    pub fn of(certificate: &Certificate) -> Self {
        // The number is what counts, not the bytes that a careless CA wrote it with.
        let number = Serial::new(certificate.serial());
        let serial = number.as_ref().map_or_else(|| certificate.serial(), Serial::as_bytes);
        Self { issuer_der: certificate.issuer_der().into(), serial: serial.into() }
    }

    /// Returns the issuer's name in DER.
    #[must_use]
    pub fn issuer_der(&self) -> &[u8] {
        &self.issuer_der
    }

    /// Returns the serial number, as [`Serial::as_bytes`] does.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }
}

/// The changes of a [`Revocation`] as its reader sees them: changes that come faster than they are read become one.
#[derive(Debug)]
pub struct Revocations {
    revocation: Arc<Revocation>,
    changes: watch::Receiver<u64>,
    read: Arc<Current>,
}

impl Revocations {
    pub(super) fn new(revocation: Arc<Revocation>, mut changes: watch::Receiver<u64>) -> Self {
        changes.mark_unchanged();
        let read = revocation.current();
        Self { revocation, changes, read }
    }

    /// Waits for a change, and returns whom it revoked: the certificates themselves, so that everyone below a revoked CA is to be
    /// found by the CA (R8). Can be empty. `None`: there will be no more.
    ///
    /// Comparing takes time with the size of the CRLs that changed, so it is done off the runtime. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Vec<PathElement>> {
        self.changes.changed().await.ok()?;
        let (old, new) = (Arc::clone(&self.read), self.revocation.current());
        let compared = Arc::clone(&new);
        let revoked = tokio::task::spawn_blocking(move || difference(&old, &compared)).await.ok()?;
        self.read = new;
        Some(revoked)
    }
}

fn difference(old: &Current, new: &Current) -> Vec<PathElement> {
    let mut last: Option<Arc<[u8]>> = None;
    let revoked = newly_revoked(&old.index, &new.index);
    let elements = revoked.map(|revoked| {
        // They come issuer by issuer.
        let issuer_der = match &last {
            Some(issuer) if **issuer == *revoked.issuer_der => Arc::clone(issuer),
            Some(_) | None => Arc::from(revoked.issuer_der),
        };
        last = Some(Arc::clone(&issuer_der));
        PathElement { issuer_der, serial: revoked.serial.as_bytes().into() }
    });
    elements.collect()
}
