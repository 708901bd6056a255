//! Whom the engine believes.

use std::sync::Arc;

use muster_pki::{RevocationIndex, Roots};
use muster_service::credentials::Revocation;
use muster_signing::admit;

/// The roots of the roles that sign documents.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    /// Roots of definitions' authors.
    pub(crate) authors: Roots,
    /// Roots of operators' order signers.
    pub(crate) orders: Roots,
    /// Roots of licensors.
    pub(crate) licences: Roots,
    /// Roots of policies' administrators; none: policies are not imported.
    pub(crate) policies: Option<Roots>,
    /// Roots of timestamp authorities; none: a document with a timestamp is refused.
    pub(crate) timestamps: Option<Roots>,
    /// Which certificates are revoked; none: revocation isn't compared.
    pub(crate) revocation: Option<RevocationIndex>,
    /// Hears from where the CRLs of signers' issuers may be fetched; none: nobody asks.
    pub(crate) sources: Option<Arc<Revocation>>,
}

impl Trust {
    /// Returns what a client judges definitions, orders and licences by.
    pub(crate) fn of_documents(&self) -> admit::Trust<'_> {
        admit::Trust {
            authors: &self.authors,
            orders: &self.orders,
            licences: &self.licences,
            timestamps: self.timestamps.as_ref(),
            revocation: self.revocation.as_ref(),
        }
    }
}
