//! Whom the engine believes.

use std::sync::Arc;

use muster_pki::{RevocationIndex, Roots};
use muster_service::credentials::Revocation;

/// The roots of the roles that sign documents.
#[derive(Debug)]
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
