//! [`Verdict`]: everything [`crate::check()`] found.

use std::fmt;

use crate::certificate::Certificate;
use crate::finding::{Finding, Rule, Severity};

/// The answer of [`crate::check()`]: all findings, never the first only (C14).
#[derive(Debug, Clone)]
#[must_use]
pub struct Verdict {
    leaf: Option<Certificate>,
    path: Vec<Certificate>,
    findings: Vec<Finding>,
}

impl Verdict {
    pub(crate) fn new(leaf: Option<Certificate>, path: Vec<Certificate>, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.rule));
        Self { leaf, path, findings }
    }

    /// Returns all findings, refusals first.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns whether there is a verified path and no finding is a refusal.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        // The path is asked for on its own: a reason that nobody turned into a finding must refuse, too.
        !self.path.is_empty() && !self.findings.iter().any(|finding| finding.severity == Severity::Refusal)
    }

    /// Returns the leaf, if it could be parsed at all.
    #[must_use]
    pub fn leaf(&self) -> Option<&Certificate> {
        self.leaf.as_ref()
    }

    /// Returns the path that was verified, leaf first and root last; empty if there was none.
    #[must_use]
    pub fn path(&self) -> &[Certificate] {
        &self.path
    }

    /// Returns the leaf if it is accepted.
    ///
    /// # Errors
    /// At least one finding is a refusal; all findings are in the error.
    pub fn into_result(self) -> Result<Certificate, Refused> {
        let accepted = self.is_accepted();
        match self.leaf {
            Some(leaf) if accepted => Ok(leaf),
            Some(_) | None => Err(Refused { findings: self.findings }),
        }
    }

    /// Returns the path if there is one and nothing is wrong with it; a missing or stale CRL is (R6 `hard`).
    pub(crate) fn into_path(self) -> Result<Vec<Certificate>, Refused> {
        let is_stale = |finding: &Finding| finding.rule == Rule::R6;
        if self.is_accepted() && !self.path.is_empty() && !self.findings.iter().any(is_stale) {
            return Ok(self.path);
        }
        let strict = |finding: Finding| {
            if is_stale(&finding) { finding.with_severity(Severity::Refusal) } else { finding }
        };
        let findings = self.findings.into_iter().map(strict).collect();
        let verdict = Self::new(self.leaf, Vec::new(), findings);
        Err(Refused { findings: verdict.findings })
    }
}

impl fmt::Display for Verdict {
    /// Writes one line, then one line for each finding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_accepted() { "accepted" } else { "refused" })?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}

/// A certificate that was refused, with everything that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    findings: Vec<Finding>,
}

impl Refused {
    /// Refuses for one finding.
    pub(crate) fn of(finding: Finding) -> Self {
        Self { findings: vec![finding] }
    }

    /// Returns all findings, refusals first; at least one is a refusal.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns whether nothing is wrong but that an issuer has no fresh CRL (R6): one that comes changes the verdict.
    #[must_use]
    pub fn lacks_only_a_crl(&self) -> bool {
        let mut refusals = self.findings.iter().filter(|finding| finding.severity == Severity::Refusal);
        refusals.all(|finding| finding.rule == Rule::R6)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("certificate refused")?;
        let refusals = self.findings.iter().filter(|finding| finding.severity == Severity::Refusal);
        for (index, finding) in refusals.enumerate() {
            write!(f, "{} {finding}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}
