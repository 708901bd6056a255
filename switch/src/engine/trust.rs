//! Whom the engine believes.

use muster_pki::{RevocationIndex, Roots};

/// The roots of the roles that sign documents.
#[derive(Debug)]
pub(crate) struct Trust {
    /// Roots of definitions' authors.
    pub(crate) authors: Roots,
    /// Roots of operators' order signers.
    pub(crate) orders: Roots,
    /// Roots of licensors.
    pub(crate) licences: Roots,
    /// Which certificates are revoked; none: revocation isn't compared.
    pub(crate) revocation: Option<RevocationIndex>,
}
