//! [`Shares`]: how many open connections each certificate has, so that no peer has them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_pki::Thumbprint;

/// The open connections by certificate.
#[derive(Debug)]
pub(super) struct Shares {
    held: Mutex<HashMap<Thumbprint, u32>>,
    each_max: u32,
}

/// One connection of a certificate; dropped, the certificate may have another.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    certificate: Thumbprint,
}

impl Shares {
    /// Lets each certificate have so many connections.
    pub(super) fn new(each_max: u32) -> Arc<Self> {
        Arc::new(Self { held: Mutex::new(HashMap::new()), each_max })
    }

    /// Takes one more connection of a certificate, if it may have one.
    pub(super) fn take(self: &Arc<Self>, certificate: Thumbprint) -> Option<Share> {
        let mut held = self.held();
        let count = held.get(&certificate).copied().unwrap_or_default();
        if count >= self.each_max {
            return None;
        }
        held.insert(certificate, count + 1);
        drop(held);
        Some(Share { shares: Arc::clone(self), certificate })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Thumbprint, u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held();
        match held.get(&self.certificate).copied() {
            Some(count @ 2..) => {
                held.insert(self.certificate, count - 1);
            }
            Some(_) | None => {
                held.remove(&self.certificate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_with_its_share_of_connections_leaves_room_for_others_and_gets_it_back() {
        let (first, other) = ("01".repeat(32).parse().unwrap(), "02".repeat(32).parse().unwrap());
        let shares = Shares::new(2);
        let held = [shares.take(first), shares.take(first)];

        let beyond = shares.take(first);
        let others = shares.take(other);
        drop(held);
        let again = shares.take(first);

        assert!(beyond.is_none());
        assert!(others.is_some() && again.is_some());
        drop((others, again));
        assert!(shares.held().is_empty(), "nothing is kept of a certificate that is gone");
    }
}
