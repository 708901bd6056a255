//! What a successor is: the certificate that renewed another (N2).

use std::collections::BTreeSet;

use super::name::{has_same_issuer, has_same_subject};
use crate::certificate::Certificate;

/// Returns whether `newer` is a successor of `older`: same subject, issuer and Extended Key Usage, and a later notAfter.
pub(super) fn is_successor(newer: &Certificate, older: &Certificate) -> bool {
    newer.not_after() > older.not_after()
        && has_same_subject(newer, older)
        && has_same_issuer(newer, older)
        && usages(newer) == usages(older)
}

/// Purposes as a set: a CA may write them in another order.
fn usages(certificate: &Certificate) -> Option<BTreeSet<&crate::usage::ExtendedKeyUsage>> {
    certificate.extended_key_usages().map(|usages| usages.iter().collect())
}
