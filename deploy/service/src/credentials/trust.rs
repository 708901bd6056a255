//! Which roles may connect, under which roots, and who is revoked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use muster_pki::{
    Certificate, CertificateDer, DeviceId, Facts, RevocationIndex, Role, Roots, Severity, Thumbprint,
    UnixTime, Verdict, check_with, pem,
};

use super::POLICY;
use super::error::{CredentialError, PeerRefused};
use super::identity::Identity;
use crate::metrics;

/// Verdicts remembered by one set of trust; when full, all are forgotten. About 100 bytes each.
const VERDICTS_MAX: usize = 131_072;

/// Roots by role and the revocation index, as of one state of the files.
///
/// Nothing in it changes but the time, so that a verdict holds until a certificate of its path expires.
#[derive(Debug)]
pub(super) struct Trust {
    roles: Vec<(Role, Roots)>,
    revocation: RevocationIndex,
    accepted: Mutex<HashMap<Thumbprint, Accepted>>,
}

/// A verdict that need not be reached again.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    role: Role,
    not_before: UnixTime,
    not_after: UnixTime,
}

/// Someone who connected, as the certificate says.
#[derive(Clone, Debug)]
pub struct Peer {
    role: Role,
    certificate: Certificate,
    device_id: Option<DeviceId>,
}

impl Peer {
    /// Returns the role whose roots the chain verifies under.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns the certificate. A live session ends at its notAfter (spec/trust.md C9).
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Returns the identity of a [`Role::Device`]; `None` for any other role.
    #[must_use]
    pub fn device_id(&self) -> Option<&DeviceId> {
        self.device_id.as_ref()
    }

    /// Returns the name for logs and audit: first dNSName, else CN, else the subject.
    #[must_use]
    pub fn name(&self) -> &str {
        let dns_name = self.certificate.dns_names().first().map(String::as_str);
        dns_name.or_else(|| self.certificate.common_name()).unwrap_or_else(|| self.certificate.subject())
    }
}

impl Trust {
    /// Reads roots and CRLs, each with its file. CRLs of `before` stay unless a newer one replaces them.
    ///
    /// Tells every file that does not do. CRLs are looked at when all roots are good: they may be their issuers.
    pub(super) fn new(
        roots: &[(Role, PathBuf, &[u8])],
        crls: &[(PathBuf, &[u8])],
        own: Option<&Identity>,
        before: Option<&Self>,
        now: UnixTime,
    ) -> Result<Self, CredentialError> {
        let (mut roles, mut errors): (Vec<(Role, Roots)>, Vec<CredentialError>) = (Vec::new(), Vec::new());
        for (role, path, bytes) in roots {
            match Roots::from_pem(bytes, &path.display().to_string()) {
                Ok(read) => {
                    for skipped in read.skipped() {
                        tracing::warn!(file = %path.display(), skipped, "a block of the roots is left out");
                    }
                    roles.push((*role, read));
                }
                Err(error) => {
                    errors.push(error.into());
                    roles.push((*role, Roots::default()));
                }
            }
        }
        errors.extend(overlaps(roots, &roles));
        if let Some(error) = CredentialError::of_all(errors) {
            return Err(error);
        }
        let mut issuers: Vec<Certificate> =
            roles.iter().flat_map(|(_role, roots)| roots.iter().cloned()).collect();
        let own_chain = own.iter().flat_map(|own| &own.chain);
        issuers.extend(own_chain.filter_map(|der| Certificate::from_der(der).ok()));
        let mut revocation = before.map(|before| before.revocation.clone()).unwrap_or_default();
        let added = crls.iter().map(|(path, bytes)| add_crl(&mut revocation, path, bytes, &issuers, now));
        if let Some(error) = CredentialError::of_all(added.filter_map(Result::err).collect()) {
            return Err(error);
        }
        Ok(Self { roles, revocation, accepted: Mutex::default() })
    }

    /// Judges a peer; `name` is what a server must be called.
    pub(super) fn admit(
        &self,
        chain: &[CertificateDer<'_>],
        name: Option<&str>,
        now: UnixTime,
    ) -> Result<Peer, PeerRefused> {
        let judged = self.judge(chain, name, now);
        if judged.is_err() {
            ::metrics::counter!(metrics::PEERS_REFUSED_TOTAL).increment(1);
        }
        judged
    }

    /// Returns whether our own certificate stands on a CRL.
    pub(super) fn is_revoked(&self, certificate: &Certificate) -> bool {
        self.revocation.is_revoked(certificate)
    }

    fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        name: Option<&str>,
        now: UnixTime,
    ) -> Result<Peer, PeerRefused> {
        if chain.is_empty() {
            return Err(PeerRefused::NoCertificate { wanted: self.role_names() });
        }
        let key = digest(chain, name);
        if let Some(role) = self.remembered(key, now)
            && let Some(certificate) = chain.first().and_then(|der| Certificate::from_der(der).ok())
        {
            return peer(role, certificate);
        }
        let facts = Facts { now, name, intermediates: &[], revocation: Some(&self.revocation) };
        let verdicts =
            self.roles.iter().map(|(role, roots)| (*role, check_with(&POLICY, *role, chain, roots, &facts)));
        let (accepted, refused): (Vec<_>, Vec<_>) =
            verdicts.partition(|(_role, verdict)| verdict.is_accepted());
        let mut accepted = accepted.into_iter();
        match (accepted.next(), accepted.next()) {
            (Some((role, verdict)), None) => {
                self.remember(key, role, verdict.path());
                match verdict.into_result() {
                    Ok(certificate) => peer(role, certificate),
                    Err(refused) => Err(PeerRefused::Unfit { wanted: role, refused }),
                }
            }
            (Some((first, _)), Some((second, _))) => {
                let leaf = chain.first().map_or(&[][..], |der| der.as_ref());
                Err(PeerRefused::Ambiguous { thumbprint: Thumbprint::of(leaf), first, second })
            }
            (None, _) => Err(self.nearest_refusal(refused)),
        }
    }

    /// Of several roles, the one with the fewest complaints is most likely the one that was meant.
    fn nearest_refusal(&self, verdicts: Vec<(Role, Verdict)>) -> PeerRefused {
        let complaints = |verdict: &Verdict| {
            verdict.findings().iter().filter(|finding| finding.severity == Severity::Refusal).count()
        };
        // A path that verified says more than any number of findings.
        let nearest = verdicts
            .into_iter()
            .min_by_key(|(_role, verdict)| (verdict.path().is_empty(), complaints(verdict)))
            .map(|(role, verdict)| (role, verdict.into_result()));
        match nearest {
            Some((wanted, Err(refused))) => PeerRefused::Unfit { wanted, refused },
            Some((_, Ok(_))) | None => PeerRefused::NoCertificate { wanted: self.role_names() },
        }
    }

    fn role_names(&self) -> String {
        let names: Vec<&str> = self.roles.iter().map(|(role, _roots)| role.name()).collect();
        names.join(", ")
    }

    fn remembered(&self, key: Thumbprint, now: UnixTime) -> Option<Role> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let known = accepted.get(&key).copied()?;
        (known.not_before <= now && now <= known.not_after).then_some(known.role)
    }

    fn remember(&self, key: Thumbprint, role: Role, path: &[Certificate]) {
        let not_before = path.iter().map(Certificate::not_before).max();
        let not_after = path.iter().map(Certificate::not_after).min();
        let (Some(not_before), Some(not_after)) = (not_before, not_after) else { return };
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.len() >= VERDICTS_MAX {
            accepted.clear();
        }
        accepted.insert(key, Accepted { role, not_before, not_after });
    }
}

fn peer(role: Role, certificate: Certificate) -> Result<Peer, PeerRefused> {
    let device_id = match role {
        Role::Device => Some(
            DeviceId::from_certificate(&certificate)
                .map_err(|source| PeerRefused::Unnamed { thumbprint: certificate.thumbprint(), source })?,
        ),
        Role::Operator
        | Role::Switch
        | Role::Service
        | Role::Author
        | Role::OrderSigner
        | Role::Licensor
        | Role::Policy
        | Role::Timestamp => None,
    };
    Ok(Peer { role, certificate, device_id })
}

fn overlaps(files: &[(Role, PathBuf, &[u8])], roles: &[(Role, Roots)]) -> Vec<CredentialError> {
    let named: Vec<(Role, &Path, &Roots)> = files
        .iter()
        .zip(roles)
        .map(|((role, path, _bytes), (_role, roots))| (*role, path.as_path(), roots))
        .collect();
    let mut found = Vec::new();
    for (index, (first_role, first, first_roots)) in named.iter().enumerate() {
        for (second_role, second, second_roots) in named.iter().skip(index + 1) {
            if first_role == second_role {
                continue;
            }
            if let Some(thumbprint) = first_roots.overlaps(second_roots) {
                found.push(CredentialError::RootsOverlap {
                    first: first.to_path_buf(),
                    first_role: *first_role,
                    second: second.to_path_buf(),
                    second_role: *second_role,
                    thumbprint,
                });
            }
        }
    }
    found
}

fn add_crl(
    revocation: &mut RevocationIndex,
    path: &Path,
    bytes: &[u8],
    issuers: &[Certificate],
    now: UnixTime,
) -> Result<(), CredentialError> {
    let mut candidates = issuers.to_vec();
    // A CRL in DER has no certificates beside it.
    if let Ok(contents) = pem::read(bytes, &path.display().to_string()) {
        candidates.extend(contents.certificates.iter().filter_map(|der| Certificate::from_der(der).ok()));
    }
    revocation
        .add(bytes, &candidates, now)
        .map_err(|source| CredentialError::Crl { path: path.to_owned(), source })
}

/// Digests the whole chain and the name it was checked for.
fn digest(chain: &[CertificateDer<'_>], name: Option<&str>) -> Thumbprint {
    let mut text = String::new();
    for der in chain {
        text.push_str(&Thumbprint::of(der).to_string());
    }
    text.push_str(name.unwrap_or("\n"));
    Thumbprint::of(text.as_bytes())
}
