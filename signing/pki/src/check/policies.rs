//! Certificate policies, as far as a CA demands one (RFC 5280 §6.1): `requireExplicitPolicy`.
//!
//! No role of ours asks for a policy, so that a path without such a CA is not looked at. Policy mappings are not evaluated:
//! where a policy is demanded, they refuse. webpki refuses all three extensions before, where they are marked critical.

use std::collections::BTreeSet;

use const_oid::AssociatedOid;
use der::Decode;
use der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::certpolicy::CertificatePolicies;
use x509_cert::ext::pkix::{InhibitAnyPolicy, PolicyConstraints, PolicyMappings};

use super::purpose::Purpose;
use crate::certificate::Certificate;
use crate::finding::{Finding, Rule};

/// anyPolicy (RFC 5280 §4.2.1.4).
const ANY_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32.0");

/// Returns what is wrong with the policies of a path, leaf first and root last.
pub(super) fn finding(purpose: Purpose, path: &[Certificate]) -> Option<Finding> {
    // What a root says of policies binds nobody: it is trusted by configuration.
    let below_root = path.get(..path.len().saturating_sub(1))?;
    let demanding = below_root.iter().rfind(|certificate| certificate.has_policy_constraints())?;
    // What cannot be read refuses as well.
    let said: Option<Vec<Said>> = below_root.iter().rev().map(Said::read).collect();
    if said.is_some_and(|said| hold(&said)) {
        return None;
    }
    let got = format!("no certificate policy that the constraints of {} allow", demanding.subject());
    let wanted = "a policy that all CAs of the path list, without policy mappings";
    let fix =
        "let the CA list the policy in every certificate, or issue from a CA without policy constraints";
    Some(Finding::refusal(purpose.rule(Rule::C2), path.first()?, got, wanted, fix))
}

/// What one certificate says of policies.
#[derive(Debug, Clone, Default)]
struct Said {
    is_self_issued: bool,
    policies: BTreeSet<ObjectIdentifier>,
    require_explicit: Option<u32>,
    inhibit_any: Option<u32>,
    has_mappings: bool,
}

/// Returns whether a policy is left at the end, or none is demanded; `path` has the root's child first and the leaf last.
fn hold(path: &[Said]) -> bool {
    // How many more certificates may go without an acceptable policy, and may say anyPolicy.
    let (mut explicit, mut any) = (u32::MAX, u32::MAX);
    // The acceptable policies; `None`: all.
    let mut acceptable: Option<BTreeSet<ObjectIdentifier>> = None;
    for (index, said) in path.iter().enumerate() {
        let is_last = index + 1 == path.len();
        let allows_any = any > 0 || (said.is_self_issued && !is_last);
        if !(allows_any && said.policies.contains(&ANY_POLICY)) {
            let common = |known: BTreeSet<_>| known.intersection(&said.policies).copied().collect();
            let own = || said.policies.iter().copied().filter(|policy| *policy != ANY_POLICY).collect();
            acceptable = Some(acceptable.map_or_else(own, common));
        }
        if said.has_mappings {
            acceptable = Some(BTreeSet::new());
        }
        if is_last || !said.is_self_issued {
            explicit = explicit.saturating_sub(1);
            any = any.saturating_sub(1);
        }
        // The leaf's own demand counts if it is for itself (RFC 5280 §6.1.5).
        let demanded = said.require_explicit.filter(|certificates| !is_last || *certificates == 0);
        explicit = explicit.min(demanded.unwrap_or(u32::MAX));
        any = any.min(said.inhibit_any.unwrap_or(u32::MAX));
    }
    explicit > 0 || acceptable.is_none_or(|policies| !policies.is_empty())
}

impl Said {
    fn read(certificate: &Certificate) -> Option<Self> {
        let parsed = x509_cert::Certificate::from_der(certificate.der()).ok()?;
        let body = &parsed.tbs_certificate;
        let policies = body.get::<CertificatePolicies>().ok()?;
        let constraints = body.get::<PolicyConstraints>().ok()?;
        let mut extensions = body.extensions.iter().flatten();
        Some(Self {
            is_self_issued: certificate.subject_der() == certificate.issuer_der(),
            policies: policies.iter().flat_map(|(_, all)| &all.0).map(|one| one.policy_identifier).collect(),
            require_explicit: constraints.and_then(|(_, constraints)| constraints.require_explicit_policy),
            inhibit_any: body.get::<InhibitAnyPolicy>().ok()?.map(|(_, certificates)| certificates.0),
            has_mappings: extensions.any(|extension| extension.extn_id == PolicyMappings::OID),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.3.4");
    const OTHER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.3.5");

    fn lists(policies: &[ObjectIdentifier]) -> Said {
        Said { policies: policies.iter().copied().collect(), ..Said::default() }
    }

    fn demands(after: u32, policies: &[ObjectIdentifier]) -> Said {
        Said { require_explicit: Some(after), ..lists(policies) }
    }

    #[test]
    fn c2_a_demanded_policy_stands_in_every_certificate() {
        assert!(hold(&[lists(&[]), lists(&[])]), "nobody demands one");
        assert!(hold(&[demands(0, &[POLICY]), lists(&[POLICY])]));
        assert!(hold(&[demands(0, &[POLICY, OTHER]), lists(&[OTHER])]));
        assert!(hold(&[demands(0, &[ANY_POLICY]), lists(&[POLICY])]));
        assert!(!hold(&[demands(0, &[POLICY]), lists(&[OTHER])]));
        assert!(!hold(&[demands(0, &[POLICY]), lists(&[])]));
        assert!(!hold(&[lists(&[]), demands(0, &[POLICY]), lists(&[POLICY])]), "the upper CA lists none");
    }

    #[test]
    fn c2_a_demand_begins_after_so_many_certificates_but_self_issued_ones() {
        let rollover = Said { is_self_issued: true, ..lists(&[]) };

        assert!(hold(&[demands(2, &[]), lists(&[])]));
        assert!(!hold(&[demands(1, &[]), lists(&[])]));
        assert!(hold(&[demands(2, &[]), rollover, lists(&[])]));
        assert!(!hold(&[demands(2, &[]), lists(&[]), lists(&[])]));
        assert!(!hold(&[lists(&[]), demands(0, &[])]), "the leaf for itself");
        assert!(hold(&[lists(&[]), demands(1, &[])]), "the leaf for nobody");
    }

    #[test]
    fn c2_any_policy_may_be_inhibited_and_mappings_are_not_evaluated() {
        let inhibits = Said { inhibit_any: Some(0), ..demands(0, &[POLICY]) };
        let maps = Said { has_mappings: true, ..demands(0, &[POLICY]) };
        let rollover = Said { is_self_issued: true, ..lists(&[ANY_POLICY]) };

        assert!(hold(&[demands(0, &[POLICY]), lists(&[ANY_POLICY])]));
        assert!(!hold(&[inhibits.clone(), lists(&[ANY_POLICY])]));
        assert!(hold(&[inhibits, rollover, lists(&[POLICY])]));
        assert!(!hold(&[maps, lists(&[POLICY])]));
    }
}
