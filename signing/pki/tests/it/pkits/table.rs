//! What NIST expects of each test of PKITS, and where we differ.

use std::fmt;

use self::Nist::{Invalid, Valid};
use self::Ours::{Accepted, Refused, Same};

/// One part of one test.
pub(super) struct Row {
    /// NIST's number; the parts of a test, which differ in their policy inputs, are counted behind it.
    pub(super) number: &'static str,
    /// The end of the path.
    pub(super) end_entity: &'static str,
    /// Whether the path is to be valid.
    pub(super) nist: Nist,
    /// What we make of it.
    pub(super) ours: Ours,
}

/// What NIST expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nist {
    Valid,
    Invalid,
}

/// What we say, and where it is something else, why the feature is out of scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ours {
    /// As NIST.
    Same,
    /// Refused though valid.
    Refused(&'static str),
    /// Accepted though invalid.
    Accepted(&'static str),
}

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => f.write_str("same"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Accepted(reason) => write!(f, "accepted: {reason}"),
        }
    }
}

impl Row {
    /// Returns the section's number below 4.
    pub(super) fn section(&self) -> u32 {
        self.number.split('.').nth(1).and_then(|section| section.parse().ok()).unwrap()
    }
}

const fn row(number: &'static str, end_entity: &'static str, nist: Nist, ours: Ours) -> Row {
    Row { number, end_entity, nist, ours }
}

/// DSA signatures; no TLS of today has them.
const DSA: &str = "DSA is no algorithm of ours (C16)";
/// A UTCTime of 1950; our certificates' times count from 1970 on.
const BEFORE_1970: &str = "times before 1970 are not read";
/// RFC 5280 §7.1 compares names without regard to case and superfluous spaces.
const NAMES: &str = "names are compared byte by byte, as webpki and rustls do";
/// RFC 5280 §4.1.2.8: CAs must not use them.
const UNIQUE_IDS: &str = "webpki reads no unique identifiers";
/// RFC 5280 §4.2.1.9 leaves self-issued CAs out of the path length.
const SELF_ISSUED: &str = "webpki counts self-issued CAs towards the path length";
/// Policy constraints, mappings and inhibitAnyPolicy.
const POLICIES: &str = "webpki knows no critical extension about policies";
/// A set of policies, or a flag, that the test gives to the validation; it stands in no certificate.
pub(super) const POLICY_INPUTS: &str = "needs an initial policy set or flag, which no role has";
/// Directory names, mail addresses and URIs.
const CONSTRAINTS: &str = "name constraints are held on DNS names and addresses only";
/// Of another issuer than the certificate's.
const INDIRECT: &str = "indirect CRLs are not used (R5)";
/// The complete CRL counts until its nextUpdate.
pub(super) const DELTA: &str = "delta CRLs are not used (R5)";

/// Sections 4.1–4.16 of NIST's document.
pub(super) const TABLE: &[Row] = &[
    // 4.1 Signature verification
    row("4.1.1", "ValidCertificatePathTest1EE", Valid, Same),
    row("4.1.2", "InvalidCASignatureTest2EE", Invalid, Same),
    row("4.1.3", "InvalidEESignatureTest3EE", Invalid, Same),
    row("4.1.4", "ValidDSASignaturesTest4EE", Valid, Refused(DSA)),
    row("4.1.5", "ValidDSAParameterInheritanceTest5EE", Valid, Refused(DSA)),
    row("4.1.6", "InvalidDSASignatureTest6EE", Invalid, Same),
    // 4.2 Validity periods
    row("4.2.1", "InvalidCAnotBeforeDateTest1EE", Invalid, Same),
    row("4.2.2", "InvalidEEnotBeforeDateTest2EE", Invalid, Same),
    row("4.2.3", "Validpre2000UTCnotBeforeDateTest3EE", Valid, Refused(BEFORE_1970)),
    row("4.2.4", "ValidGeneralizedTimenotBeforeDateTest4EE", Valid, Same),
    row("4.2.5", "InvalidCAnotAfterDateTest5EE", Invalid, Same),
    row("4.2.6", "InvalidEEnotAfterDateTest6EE", Invalid, Same),
    row("4.2.7", "Invalidpre2000UTCEEnotAfterDateTest7EE", Invalid, Same),
    row("4.2.8", "ValidGeneralizedTimenotAfterDateTest8EE", Valid, Same),
    // 4.3 Name chaining
    row("4.3.1", "InvalidNameChainingTest1EE", Invalid, Same),
    row("4.3.2", "InvalidNameChainingOrderTest2EE", Invalid, Same),
    row("4.3.3", "ValidNameChainingWhitespaceTest3EE", Valid, Refused(NAMES)),
    row("4.3.4", "ValidNameChainingWhitespaceTest4EE", Valid, Refused(NAMES)),
    row("4.3.5", "ValidNameChainingCapitalizationTest5EE", Valid, Refused(NAMES)),
    row("4.3.6", "ValidNameUIDsTest6EE", Valid, Refused(UNIQUE_IDS)),
    row("4.3.7", "ValidRFC3280MandatoryAttributeTypesTest7EE", Valid, Same),
    row("4.3.8", "ValidRFC3280OptionalAttributeTypesTest8EE", Valid, Same),
    row("4.3.9", "ValidUTF8StringEncodedNamesTest9EE", Valid, Same),
    row("4.3.10", "ValidRolloverfromPrintableStringtoUTF8StringTest10EE", Valid, Refused(NAMES)),
    row("4.3.11", "ValidUTF8StringCaseInsensitiveMatchTest11EE", Valid, Refused(NAMES)),
    // 4.4 Basic revocation
    row("4.4.1", "InvalidMissingCRLTest1EE", Invalid, Same),
    row("4.4.2", "InvalidRevokedCATest2EE", Invalid, Same),
    row("4.4.3", "InvalidRevokedEETest3EE", Invalid, Same),
    row("4.4.4", "InvalidBadCRLSignatureTest4EE", Invalid, Same),
    row("4.4.5", "InvalidBadCRLIssuerNameTest5EE", Invalid, Same),
    row("4.4.6", "InvalidWrongCRLTest6EE", Invalid, Same),
    row("4.4.7", "ValidTwoCRLsTest7EE", Valid, Same),
    row("4.4.8", "InvalidUnknownCRLEntryExtensionTest8EE", Invalid, Same),
    row("4.4.9", "InvalidUnknownCRLExtensionTest9EE", Invalid, Same),
    row("4.4.10", "InvalidUnknownCRLExtensionTest10EE", Invalid, Same),
    row("4.4.11", "InvalidOldCRLnextUpdateTest11EE", Invalid, Same),
    row("4.4.12", "Invalidpre2000CRLnextUpdateTest12EE", Invalid, Same),
    row("4.4.13", "ValidGeneralizedTimeCRLnextUpdateTest13EE", Valid, Same),
    row("4.4.14", "ValidNegativeSerialNumberTest14EE", Valid, Same),
    row("4.4.15", "InvalidNegativeSerialNumberTest15EE", Invalid, Same),
    row("4.4.16", "ValidLongSerialNumberTest16EE", Valid, Same),
    row("4.4.17", "ValidLongSerialNumberTest17EE", Valid, Same),
    row("4.4.18", "InvalidLongSerialNumberTest18EE", Invalid, Same),
    row("4.4.19", "ValidSeparateCertificateandCRLKeysTest19EE", Valid, Same),
    row("4.4.20", "InvalidSeparateCertificateandCRLKeysTest20EE", Invalid, Same),
    row("4.4.21", "InvalidSeparateCertificateandCRLKeysTest21EE", Invalid, Same),
    // 4.5 Self-issued certificates
    row("4.5.1", "ValidBasicSelfIssuedOldWithNewTest1EE", Valid, Same),
    row("4.5.2", "InvalidBasicSelfIssuedOldWithNewTest2EE", Invalid, Same),
    row("4.5.3", "ValidBasicSelfIssuedNewWithOldTest3EE", Valid, Same),
    row("4.5.4", "ValidBasicSelfIssuedNewWithOldTest4EE", Valid, Same),
    row("4.5.5", "InvalidBasicSelfIssuedNewWithOldTest5EE", Invalid, Same),
    row("4.5.6", "ValidBasicSelfIssuedCRLSigningKeyTest6EE", Valid, Same),
    row("4.5.7", "InvalidBasicSelfIssuedCRLSigningKeyTest7EE", Invalid, Same),
    row("4.5.8", "InvalidBasicSelfIssuedCRLSigningKeyTest8EE", Invalid, Same),
    // 4.6 Basic constraints
    row("4.6.1", "InvalidMissingbasicConstraintsTest1EE", Invalid, Same),
    row("4.6.2", "InvalidcAFalseTest2EE", Invalid, Same),
    row("4.6.3", "InvalidcAFalseTest3EE", Invalid, Same),
    row("4.6.4", "ValidbasicConstraintsNotCriticalTest4EE", Valid, Same),
    row("4.6.5", "InvalidpathLenConstraintTest5EE", Invalid, Same),
    row("4.6.6", "InvalidpathLenConstraintTest6EE", Invalid, Same),
    row("4.6.7", "ValidpathLenConstraintTest7EE", Valid, Same),
    row("4.6.8", "ValidpathLenConstraintTest8EE", Valid, Same),
    row("4.6.9", "InvalidpathLenConstraintTest9EE", Invalid, Same),
    row("4.6.10", "InvalidpathLenConstraintTest10EE", Invalid, Same),
    row("4.6.11", "InvalidpathLenConstraintTest11EE", Invalid, Same),
    row("4.6.12", "InvalidpathLenConstraintTest12EE", Invalid, Same),
    row("4.6.13", "ValidpathLenConstraintTest13EE", Valid, Same),
    row("4.6.14", "ValidpathLenConstraintTest14EE", Valid, Same),
    row("4.6.15", "ValidSelfIssuedpathLenConstraintTest15EE", Valid, Refused(SELF_ISSUED)),
    row("4.6.16", "InvalidSelfIssuedpathLenConstraintTest16EE", Invalid, Same),
    row("4.6.17", "ValidSelfIssuedpathLenConstraintTest17EE", Valid, Refused(SELF_ISSUED)),
    // 4.7 Key usage
    row("4.7.1", "InvalidkeyUsageCriticalkeyCertSignFalseTest1EE", Invalid, Same),
    row("4.7.2", "InvalidkeyUsageNotCriticalkeyCertSignFalseTest2EE", Invalid, Same),
    row("4.7.3", "ValidkeyUsageNotCriticalTest3EE", Valid, Same),
    row("4.7.4", "InvalidkeyUsageCriticalcRLSignFalseTest4EE", Invalid, Same),
    row("4.7.5", "InvalidkeyUsageNotCriticalcRLSignFalseTest5EE", Invalid, Same),
    // 4.8 Certificate policies
    row("4.8.1.1", "ValidCertificatePathTest1EE", Valid, Same),
    row("4.8.1.2", "ValidCertificatePathTest1EE", Valid, Same),
    row("4.8.1.3", "ValidCertificatePathTest1EE", Invalid, Accepted(POLICY_INPUTS)),
    row("4.8.1.4", "ValidCertificatePathTest1EE", Valid, Same),
    row("4.8.2.1", "AllCertificatesNoPoliciesTest2EE", Valid, Same),
    row("4.8.2.2", "AllCertificatesNoPoliciesTest2EE", Invalid, Accepted(POLICY_INPUTS)),
    row("4.8.3.1", "DifferentPoliciesTest3EE", Valid, Same),
    row("4.8.3.2", "DifferentPoliciesTest3EE", Invalid, Accepted(POLICY_INPUTS)),
    row("4.8.3.3", "DifferentPoliciesTest3EE", Invalid, Accepted(POLICY_INPUTS)),
    row("4.8.4", "DifferentPoliciesTest4EE", Invalid, Same),
    row("4.8.5", "DifferentPoliciesTest5EE", Invalid, Same),
    row("4.8.6.1", "OverlappingPoliciesTest6EE", Valid, Same),
    row("4.8.6.2", "OverlappingPoliciesTest6EE", Valid, Same),
    row("4.8.6.3", "OverlappingPoliciesTest6EE", Invalid, Accepted(POLICY_INPUTS)),
    row("4.8.7", "DifferentPoliciesTest7EE", Invalid, Same),
    row("4.8.8", "DifferentPoliciesTest8EE", Invalid, Same),
    row("4.8.9", "DifferentPoliciesTest9EE", Invalid, Same),
    row("4.8.10.1", "AllCertificatesSamePoliciesTest10EE", Valid, Same),
    row("4.8.10.2", "AllCertificatesSamePoliciesTest10EE", Valid, Same),
    row("4.8.10.3", "AllCertificatesSamePoliciesTest10EE", Valid, Same),
    row("4.8.11.1", "AllCertificatesanyPolicyTest11EE", Valid, Same),
    row("4.8.11.2", "AllCertificatesanyPolicyTest11EE", Valid, Same),
    row("4.8.12", "DifferentPoliciesTest12EE", Invalid, Same),
    row("4.8.13.1", "AllCertificatesSamePoliciesTest13EE", Valid, Same),
    row("4.8.13.2", "AllCertificatesSamePoliciesTest13EE", Valid, Same),
    row("4.8.13.3", "AllCertificatesSamePoliciesTest13EE", Valid, Same),
    row("4.8.14.1", "AnyPolicyTest14EE", Valid, Same),
    row("4.8.14.2", "AnyPolicyTest14EE", Invalid, Accepted(POLICY_INPUTS)),
    row("4.8.15", "UserNoticeQualifierTest15EE", Valid, Same),
    row("4.8.16", "UserNoticeQualifierTest16EE", Valid, Same),
    row("4.8.17", "UserNoticeQualifierTest17EE", Valid, Same),
    row("4.8.18.1", "UserNoticeQualifierTest18EE", Valid, Same),
    row("4.8.18.2", "UserNoticeQualifierTest18EE", Valid, Same),
    row("4.8.19", "UserNoticeQualifierTest19EE", Valid, Same),
    row("4.8.20", "CPSPointerQualifierTest20EE", Valid, Same),
    // 4.9 Require explicit policy
    row("4.9.1", "ValidrequireExplicitPolicyTest1EE", Valid, Refused(POLICIES)),
    row("4.9.2", "ValidrequireExplicitPolicyTest2EE", Valid, Refused(POLICIES)),
    row("4.9.3", "InvalidrequireExplicitPolicyTest3EE", Invalid, Same),
    row("4.9.4", "ValidrequireExplicitPolicyTest4EE", Valid, Refused(POLICIES)),
    row("4.9.5", "InvalidrequireExplicitPolicyTest5EE", Invalid, Same),
    row("4.9.6", "ValidSelfIssuedrequireExplicitPolicyTest6EE", Valid, Refused(POLICIES)),
    row("4.9.7", "InvalidSelfIssuedrequireExplicitPolicyTest7EE", Invalid, Same),
    row("4.9.8", "InvalidSelfIssuedrequireExplicitPolicyTest8EE", Invalid, Same),
    // 4.10 Policy mappings
    row("4.10.1.1", "ValidPolicyMappingTest1EE", Valid, Refused(POLICIES)),
    row("4.10.1.2", "ValidPolicyMappingTest1EE", Invalid, Same),
    row("4.10.1.3", "ValidPolicyMappingTest1EE", Invalid, Same),
    row("4.10.2.1", "InvalidPolicyMappingTest2EE", Invalid, Same),
    row("4.10.2.2", "InvalidPolicyMappingTest2EE", Invalid, Same),
    row("4.10.3.1", "ValidPolicyMappingTest3EE", Invalid, Same),
    row("4.10.3.2", "ValidPolicyMappingTest3EE", Valid, Refused(POLICIES)),
    row("4.10.4", "InvalidPolicyMappingTest4EE", Invalid, Same),
    row("4.10.5.1", "ValidPolicyMappingTest5EE", Valid, Refused(POLICIES)),
    row("4.10.5.2", "ValidPolicyMappingTest5EE", Invalid, Same),
    row("4.10.6.1", "ValidPolicyMappingTest6EE", Valid, Refused(POLICIES)),
    row("4.10.6.2", "ValidPolicyMappingTest6EE", Invalid, Same),
    row("4.10.7", "InvalidMappingFromanyPolicyTest7EE", Invalid, Same),
    row("4.10.8", "InvalidMappingToanyPolicyTest8EE", Invalid, Same),
    row("4.10.9", "ValidPolicyMappingTest9EE", Valid, Refused(POLICIES)),
    row("4.10.10", "InvalidPolicyMappingTest10EE", Invalid, Same),
    row("4.10.11", "ValidPolicyMappingTest11EE", Valid, Refused(POLICIES)),
    row("4.10.12.1", "ValidPolicyMappingTest12EE", Valid, Refused(POLICIES)),
    row("4.10.12.2", "ValidPolicyMappingTest12EE", Valid, Refused(POLICIES)),
    row("4.10.13.1", "ValidPolicyMappingTest13EE", Valid, Refused(POLICIES)),
    row("4.10.13.2", "ValidPolicyMappingTest13EE", Valid, Refused(POLICIES)),
    row("4.10.13.3", "ValidPolicyMappingTest13EE", Invalid, Same),
    row("4.10.14", "ValidPolicyMappingTest14EE", Valid, Refused(POLICIES)),
    // 4.11 Inhibit policy mapping
    row("4.11.1", "InvalidinhibitPolicyMappingTest1EE", Invalid, Same),
    row("4.11.2", "ValidinhibitPolicyMappingTest2EE", Valid, Refused(POLICIES)),
    row("4.11.3", "InvalidinhibitPolicyMappingTest3EE", Invalid, Same),
    row("4.11.4", "ValidinhibitPolicyMappingTest4EE", Valid, Refused(POLICIES)),
    row("4.11.5", "InvalidinhibitPolicyMappingTest5EE", Invalid, Same),
    row("4.11.6", "InvalidinhibitPolicyMappingTest6EE", Invalid, Same),
    row("4.11.7", "ValidSelfIssuedinhibitPolicyMappingTest7EE", Valid, Refused(POLICIES)),
    row("4.11.8", "InvalidSelfIssuedinhibitPolicyMappingTest8EE", Invalid, Same),
    row("4.11.9", "InvalidSelfIssuedinhibitPolicyMappingTest9EE", Invalid, Same),
    row("4.11.10", "InvalidSelfIssuedinhibitPolicyMappingTest10EE", Invalid, Same),
    row("4.11.11", "InvalidSelfIssuedinhibitPolicyMappingTest11EE", Invalid, Same),
    // 4.12 Inhibit any policy
    row("4.12.1", "InvalidinhibitAnyPolicyTest1EE", Invalid, Same),
    row("4.12.2", "ValidinhibitAnyPolicyTest2EE", Valid, Refused(POLICIES)),
    row("4.12.3.1", "inhibitAnyPolicyTest3EE", Valid, Refused(POLICIES)),
    row("4.12.3.2", "inhibitAnyPolicyTest3EE", Invalid, Same),
    row("4.12.4", "InvalidinhibitAnyPolicyTest4EE", Invalid, Same),
    row("4.12.5", "InvalidinhibitAnyPolicyTest5EE", Invalid, Same),
    row("4.12.6", "InvalidinhibitAnyPolicyTest6EE", Invalid, Same),
    row("4.12.7", "ValidSelfIssuedinhibitAnyPolicyTest7EE", Valid, Refused(POLICIES)),
    row("4.12.8", "InvalidSelfIssuedinhibitAnyPolicyTest8EE", Invalid, Same),
    row("4.12.9", "ValidSelfIssuedinhibitAnyPolicyTest9EE", Valid, Refused(POLICIES)),
    row("4.12.10", "InvalidSelfIssuedinhibitAnyPolicyTest10EE", Invalid, Same),
    // 4.13 Name constraints
    row("4.13.1", "ValidDNnameConstraintsTest1EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.2", "InvalidDNnameConstraintsTest2EE", Invalid, Same),
    row("4.13.3", "InvalidDNnameConstraintsTest3EE", Invalid, Same),
    row("4.13.4", "ValidDNnameConstraintsTest4EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.5", "ValidDNnameConstraintsTest5EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.6", "ValidDNnameConstraintsTest6EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.7", "InvalidDNnameConstraintsTest7EE", Invalid, Same),
    row("4.13.8", "InvalidDNnameConstraintsTest8EE", Invalid, Same),
    row("4.13.9", "InvalidDNnameConstraintsTest9EE", Invalid, Same),
    row("4.13.10", "InvalidDNnameConstraintsTest10EE", Invalid, Same),
    row("4.13.11", "ValidDNnameConstraintsTest11EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.12", "InvalidDNnameConstraintsTest12EE", Invalid, Same),
    row("4.13.13", "InvalidDNnameConstraintsTest13EE", Invalid, Same),
    row("4.13.14", "ValidDNnameConstraintsTest14EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.15", "InvalidDNnameConstraintsTest15EE", Invalid, Same),
    row("4.13.16", "InvalidDNnameConstraintsTest16EE", Invalid, Same),
    row("4.13.17", "InvalidDNnameConstraintsTest17EE", Invalid, Same),
    row("4.13.18", "ValidDNnameConstraintsTest18EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.19", "ValidDNnameConstraintsTest19EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.20", "InvalidDNnameConstraintsTest20EE", Invalid, Same),
    row("4.13.21", "ValidRFC822nameConstraintsTest21EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.22", "InvalidRFC822nameConstraintsTest22EE", Invalid, Same),
    row("4.13.23", "ValidRFC822nameConstraintsTest23EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.24", "InvalidRFC822nameConstraintsTest24EE", Invalid, Same),
    row("4.13.25", "ValidRFC822nameConstraintsTest25EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.26", "InvalidRFC822nameConstraintsTest26EE", Invalid, Same),
    row("4.13.27", "ValidDNandRFC822nameConstraintsTest27EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.28", "InvalidDNandRFC822nameConstraintsTest28EE", Invalid, Same),
    row("4.13.29", "InvalidDNandRFC822nameConstraintsTest29EE", Invalid, Same),
    row("4.13.30", "ValidDNSnameConstraintsTest30EE", Valid, Same),
    row("4.13.31", "InvalidDNSnameConstraintsTest31EE", Invalid, Same),
    row("4.13.32", "ValidDNSnameConstraintsTest32EE", Valid, Same),
    row("4.13.33", "InvalidDNSnameConstraintsTest33EE", Invalid, Same),
    row("4.13.34", "ValidURInameConstraintsTest34EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.35", "InvalidURInameConstraintsTest35EE", Invalid, Same),
    row("4.13.36", "ValidURInameConstraintsTest36EE", Valid, Refused(CONSTRAINTS)),
    row("4.13.37", "InvalidURInameConstraintsTest37EE", Invalid, Same),
    row("4.13.38", "InvalidDNSnameConstraintsTest38EE", Invalid, Same),
    // 4.14 Distribution points
    row("4.14.1", "ValiddistributionPointTest1EE", Valid, Same),
    row("4.14.2", "InvaliddistributionPointTest2EE", Invalid, Same),
    row("4.14.3", "InvaliddistributionPointTest3EE", Invalid, Same),
    row("4.14.4", "ValiddistributionPointTest4EE", Valid, Same),
    row("4.14.5", "ValiddistributionPointTest5EE", Valid, Same),
    row("4.14.6", "InvaliddistributionPointTest6EE", Invalid, Same),
    row("4.14.7", "ValiddistributionPointTest7EE", Valid, Same),
    row("4.14.8", "InvaliddistributionPointTest8EE", Invalid, Same),
    row("4.14.9", "InvaliddistributionPointTest9EE", Invalid, Same),
    row("4.14.10", "ValidNoissuingDistributionPointTest10EE", Valid, Same),
    row("4.14.11", "InvalidonlyContainsUserCertsTest11EE", Invalid, Same),
    row("4.14.12", "InvalidonlyContainsCACertsTest12EE", Invalid, Same),
    row("4.14.13", "ValidonlyContainsCACertsTest13EE", Valid, Same),
    row("4.14.14", "InvalidonlyContainsAttributeCertsTest14EE", Invalid, Same),
    row("4.14.15", "InvalidonlySomeReasonsTest15EE", Invalid, Same),
    row("4.14.16", "InvalidonlySomeReasonsTest16EE", Invalid, Same),
    row("4.14.17", "InvalidonlySomeReasonsTest17EE", Invalid, Same),
    row("4.14.18", "ValidonlySomeReasonsTest18EE", Valid, Same),
    row("4.14.19", "ValidonlySomeReasonsTest19EE", Valid, Same),
    row("4.14.20", "InvalidonlySomeReasonsTest20EE", Invalid, Same),
    row("4.14.21", "InvalidonlySomeReasonsTest21EE", Invalid, Same),
    row("4.14.22", "ValidIDPwithindirectCRLTest22EE", Valid, Refused(INDIRECT)),
    row("4.14.23", "InvalidIDPwithindirectCRLTest23EE", Invalid, Same),
    row("4.14.24", "ValidIDPwithindirectCRLTest24EE", Valid, Refused(INDIRECT)),
    row("4.14.25", "ValidIDPwithindirectCRLTest25EE", Valid, Refused(INDIRECT)),
    row("4.14.26", "InvalidIDPwithindirectCRLTest26EE", Invalid, Same),
    row("4.14.27", "InvalidcRLIssuerTest27EE", Invalid, Same),
    row("4.14.28", "ValidcRLIssuerTest28EE", Valid, Refused(INDIRECT)),
    row("4.14.29", "ValidcRLIssuerTest29EE", Valid, Refused(INDIRECT)),
    row("4.14.30", "ValidcRLIssuerTest30EE", Valid, Refused(INDIRECT)),
    row("4.14.31", "InvalidcRLIssuerTest31EE", Invalid, Same),
    row("4.14.32", "InvalidcRLIssuerTest32EE", Invalid, Same),
    row("4.14.33", "ValidcRLIssuerTest33EE", Valid, Refused(INDIRECT)),
    row("4.14.34", "InvalidcRLIssuerTest34EE", Invalid, Same),
    row("4.14.35", "InvalidcRLIssuerTest35EE", Invalid, Same),
    // 4.15 Delta CRLs
    row("4.15.1", "InvaliddeltaCRLIndicatorNoBaseTest1EE", Invalid, Same),
    row("4.15.2", "ValiddeltaCRLTest2EE", Valid, Same),
    row("4.15.3", "InvaliddeltaCRLTest3EE", Invalid, Same),
    row("4.15.4", "InvaliddeltaCRLTest4EE", Invalid, Accepted(DELTA)),
    row("4.15.5", "ValiddeltaCRLTest5EE", Valid, Refused(DELTA)),
    row("4.15.6", "InvaliddeltaCRLTest6EE", Invalid, Same),
    row("4.15.7", "ValiddeltaCRLTest7EE", Valid, Same),
    row("4.15.8", "ValiddeltaCRLTest8EE", Valid, Same),
    row("4.15.9", "InvaliddeltaCRLTest9EE", Invalid, Same),
    row("4.15.10", "InvaliddeltaCRLTest10EE", Invalid, Same),
    // 4.16 Private extensions
    row("4.16.1", "ValidUnknownNotCriticalCertificateExtensionTest1EE", Valid, Same),
    row("4.16.2", "InvalidUnknownCriticalCertificateExtensionTest2EE", Invalid, Same),
];
