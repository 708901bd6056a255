//! [`check_server_pinned`]: a server whose very certificate is trusted (T6, T7).

use super::leaf;
use super::{Facts, Policy};
use crate::certificate::Certificate;
use crate::finding::{Finding, Rule, Severity};
use crate::role::Role;
use crate::roots::Roots;
use crate::verdict::Verdict;

/// Judges a server's leaf that is itself the anchor, so that no chain is looked at.
///
/// The caller has found this very certificate in the trust store, or its fingerprint in the policy. Name, validity, key,
/// and revocation count as always. Since somebody vouched for this one certificate, it may be self-signed, also with
/// CA:TRUE (C8's exception for pins); it may lack Key Usage and Extended Key Usage, as what `openssl req -x509` makes, but
/// not have others; and who signed it with what, and where revocation would be looked up of what nobody issued, does not
/// matter.
pub fn check_server_pinned(policy: &Policy, leaf: &Certificate, facts: &Facts<'_>) -> Verdict {
    let findings = leaf::findings(policy, Role::Switch, leaf, &Roots::default(), facts);
    let findings = findings.into_iter().filter_map(|finding| as_pin(leaf, finding)).collect();
    Verdict::new(Some(leaf.clone()), vec![leaf.clone()], findings)
}

/// Returns what a leaf's finding means for a pin.
fn as_pin(leaf: &Certificate, finding: Finding) -> Option<Finding> {
    let rule = finding.rule;
    if leaf.is_self_signed() && (rule == Rule::C8 || rule == Rule::C6) {
        return None;
    }
    let has_no_purpose = rule == Rule::C3 && leaf.extended_key_usages().is_none();
    let has_no_usage = rule == Rule::C4 && leaf.key_usage().is_none();
    if has_no_purpose || has_no_usage {
        return Some(finding.with_severity(Severity::Warning));
    }
    if rule == Rule::C16 && !leaf.key().is_weak() {
        return Some(finding.with_severity(Severity::Info)); // The signature, on which nothing rests.
    }
    Some(finding)
}
