//! The table `[revocation]` of every program.

use std::path::PathBuf;

use muster_pki::RevocationMode;
use serde::{Deserialize, Serialize};

/// How revocation is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RevocationSettings {
    /// What a missing or lapsed CRL means, for issuers that have no mode of their own (R6). Default: `grace`.
    pub mode: RevocationMode,
    /// Whether CRLs are fetched from the distribution points of configured issuers (R1). Default: true.
    pub fetch: bool,
    /// PEM roots of web servers whose https distribution points are fetched. Default: none, so that only http is fetched; a CRL is
    /// signed, and needs no TLS.
    pub https_roots: Option<PathBuf>,
    /// Issuing CAs below the roots. The roots themselves need not be named. Default: none.
    pub issuers: Vec<IssuerSettings>,
}

/// Issuing CAs: their distribution points may be fetched, and a peer's path may lead over them though it does not send them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// PEM: one or more CA certificates.
    pub certificates: PathBuf,
    /// The mode of these CAs. Default: `revocation.mode`.
    #[serde(default)]
    pub mode: Option<RevocationMode>,
    /// Where their CRLs are, besides what certificates tell. Default: none.
    #[serde(default)]
    pub urls: Vec<String>,
}

impl Default for RevocationSettings {
    fn default() -> Self {
        Self { mode: RevocationMode::default(), fetch: true, https_roots: None, issuers: Vec::new() }
    }
}
