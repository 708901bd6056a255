//! Which roles may connect, under which roots, and who is revoked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_pki::trust_store::{Anchor, AnchorKind, TrustSettings, TrustStore};
use muster_pki::{
    Certificate, CertificateDer, DeviceId, Facts, Policy, Role, Roots, Severity, Thumbprint, Trail, TrailOf,
    UnixTime, Verdict, check_with,
};

use super::Rules;
use super::error::{CredentialError, PeerRefused};
use super::identity::expiry_warning;
use super::revocation::{Current, PathElement, Revocation};
use super::told::Shown;
use super::trust_folder::SYSTEM_STORES;
use crate::metrics;

/// Verdicts remembered by one set of trust; when full, all are forgotten. About 100 bytes each.
const VERDICTS_MAX: usize = 131_072;

/// Roots by role as of one state of their files, and the revocation index of the process.
///
/// A verdict holds until a certificate of its path or the grace of a CRL ends, or another CRL comes.
#[derive(Debug)]
pub(super) struct Trust {
    roles: Vec<(Role, Roots)>,
    /// How a client trusts servers, in place of roots.
    servers: Option<(TrustStore, TrustSettings)>,
    /// What of the files of that trust store is not in it.
    left_out: Vec<String>,
    revocation: Arc<Revocation>,
    policy: Policy,
    trail: TrailOf,
    accepted: Mutex<Memory>,
}

/// Verdicts that need not be reached again.
#[derive(Debug, Default)]
struct Memory {
    /// The state of the revocation index that they were reached by; another one ends them all.
    generation: u64,
    verdicts: HashMap<Thumbprint, Accepted>,
    /// Each way up from a leaf, once: a fleet has a handful.
    authorities: Vec<Arc<[PathElement]>>,
}

/// A verdict that need not be reached again.
#[derive(Clone, Debug)]
struct Accepted {
    role: Role,
    not_before: UnixTime,
    not_after: UnixTime,
    authorities: Arc<[PathElement]>,
}

/// Someone who connected, as the certificate says.
#[derive(Clone, Debug)]
pub struct Peer {
    role: Role,
    certificate: Certificate,
    device_id: Option<DeviceId>,
    authorities: Arc<[PathElement]>,
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

    /// Returns what may be revoked of it: the certificate, and every CA above but the root (R8).
    #[must_use]
    pub fn path(&self) -> Vec<PathElement> {
        let leaf = PathElement::of(&self.certificate);
        std::iter::once(leaf).chain(self.authorities.iter().cloned()).collect()
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
    /// Reads roots, each with its file, and tells every file that does not do. None of `others` may hold one of them, nor one of
    /// each other's.
    pub(super) fn new(
        roots: &[(Role, PathBuf, &[u8])],
        others: &[(Role, PathBuf, &[u8])],
        servers: Option<(TrustStore, TrustSettings)>,
        rules: &Rules,
    ) -> Result<Self, CredentialError> {
        let mut errors = Vec::new();
        let roles = parse(roots, &mut errors);
        for ((_role, path, _bytes), (_, read)) in roots.iter().zip(&roles) {
            for skipped in read.skipped() {
                tracing::warn!(file = %path.display(), skipped, "a block of the roots is left out");
            }
        }
        let other_roles = parse(others, &mut errors);
        let files: Vec<_> = roots.iter().zip(&roles).chain(others.iter().zip(&other_roles)).collect();
        errors.extend(overlaps(&files));
        match CredentialError::of_all(errors) {
            Some(error) => Err(error),
            None => Ok(Self {
                roles,
                servers,
                left_out: Vec::new(),
                revocation: Arc::clone(&rules.revocation),
                policy: rules.policy,
                trail: rules.trail,
                accepted: Mutex::default(),
            }),
        }
    }

    /// Takes what the trust store was to hold and does not.
    pub(super) fn with_left_out(self, left_out: Vec<String>) -> Self {
        Self { left_out, ..self }
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

    /// Returns what of a client's trust store somebody has to look after: files and blocks that are not in it, and anchors that have
    /// ended, or are about to (N3). The system's CAs are its distributor's to look after.
    pub(super) fn ending_anchors(&self, now: UnixTime) -> Vec<String> {
        let warning = |anchor: &Anchor| {
            let what = match anchor.kind() {
                AnchorKind::Authority => "CA",
                AnchorKind::Leaf => "server certificate",
            };
            let warning = expiry_warning(what, anchor.certificate(), now)?;
            Some(format!("{}: {warning}, and merge its successor before (T8)", anchor.place()))
        };
        self.left_out.iter().cloned().chain(self.anchors().filter_map(warning)).collect()
    }

    /// Sets the metric of when the first anchor of a client's trust store ends.
    pub(super) fn record_end_of_anchors(&self, file: &Path) {
        let first = self.anchors().map(|anchor| anchor.certificate().not_after().as_secs()).min();
        let Some(first) = first else { return };
        let file = file.display().to_string();
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 seconds")]
        ::metrics::gauge!(metrics::AUTHORITIES_NOT_AFTER_SECONDS, "file" => file).set(first as f64);
    }

    fn anchors(&self) -> impl Iterator<Item = &Anchor> {
        let anchors = self.servers.iter().flat_map(|(store, _)| store.anchors());
        anchors.filter(|anchor| !SYSTEM_STORES.contains(&anchor.place()))
    }

    /// Returns whether our own certificate stands on a CRL.
    pub(super) fn is_revoked(&self, certificate: &Certificate) -> bool {
        self.revocation.current().index.is_revoked(certificate)
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
        let current = self.revocation.current();
        let key = digest(chain, name);
        if let Some(known) = self.remembered(key, current.generation, now)
            && let Some(certificate) = chain.first().and_then(|der| Certificate::from_der(der).ok())
        {
            return peer(known.role, certificate, known.authorities);
        }
        let facts = Facts {
            name,
            intermediates: &current.intermediates,
            revocation: Some(&current.index),
            ..Facts::at(now)
        };
        let verdicts = self.verdicts(chain, &facts);
        for (role, verdict) in &verdicts {
            self.revocation.learn(verdict);
            if self.trail.wants(verdict) {
                let trail = Trail::of(*role, chain, verdict);
                tracing::info!(target: "muster::trail", name, %trail, "verification");
            }
        }
        let (accepted, refused): (Vec<_>, Vec<_>) =
            verdicts.into_iter().partition(|(_role, verdict)| verdict.is_accepted());
        let mut accepted = accepted.into_iter();
        let shown = || Box::new(Shown::of_der(chain.first().map_or(&[][..], |der| der.as_ref())));
        match (accepted.next(), accepted.next()) {
            (Some((role, verdict)), None) => {
                let authorities = self.remember(key, role, verdict.path(), &current);
                match verdict.into_result() {
                    Ok(certificate) => peer(role, certificate, authorities),
                    Err(refused) => Err(PeerRefused::Unfit { certificate: shown(), wanted: role, refused }),
                }
            }
            (Some((first, _)), Some((second, _))) => {
                Err(PeerRefused::Ambiguous { certificate: shown(), first, second })
            }
            (None, _) => Err(self.nearest_refusal(shown(), refused)),
        }
    }

    fn verdicts(&self, chain: &[CertificateDer<'_>], facts: &Facts<'_>) -> Vec<(Role, Verdict)> {
        if let Some((store, settings)) = &self.servers {
            let verdict = store.check_server(&self.policy, settings, chain, facts);
            if let Some(matched) = verdict.matched() {
                tracing::debug!(name = facts.name, %matched, "server accepted");
            }
            return vec![(Role::Switch, verdict.into_verdict())];
        }
        let judge = |roots, role| check_with(&self.policy, role, chain, roots, facts);
        self.roles.iter().map(|(role, roots)| (*role, judge(roots, *role))).collect()
    }

    /// Of several roles, the one with the fewest complaints is most likely the one that was meant.
    fn nearest_refusal(&self, certificate: Box<Shown>, verdicts: Vec<(Role, Verdict)>) -> PeerRefused {
        let complaints = |verdict: &Verdict| {
            verdict.findings().iter().filter(|finding| finding.severity == Severity::Refusal).count()
        };
        // A path that verified says more than any number of findings.
        let nearest = verdicts
            .into_iter()
            .min_by_key(|(_role, verdict)| (verdict.path().is_empty(), complaints(verdict)))
            .map(|(role, verdict)| (role, verdict.into_result()));
        match nearest {
            Some((wanted, Err(refused))) => PeerRefused::Unfit { certificate, wanted, refused },
            Some((_, Ok(_))) | None => PeerRefused::NoCertificate { wanted: self.role_names() },
        }
    }

    fn role_names(&self) -> String {
        let server = self.servers.iter().map(|_| Role::Switch.name());
        let names: Vec<&str> = self.roles.iter().map(|(role, _roots)| role.name()).chain(server).collect();
        names.join(", ")
    }

    fn remembered(&self, key: Thumbprint, generation: u64, now: UnixTime) -> Option<Accepted> {
        let memory = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let known = memory.verdicts.get(&key).filter(|_| memory.generation == generation)?;
        (known.not_before <= now && now <= known.not_after).then(|| known.clone())
    }

    /// Keeps an accepted verdict as long as nothing but the time can change it, and returns what is above the leaf.
    fn remember(
        &self,
        key: Thumbprint,
        role: Role,
        path: &[Certificate],
        current: &Current,
    ) -> Arc<[PathElement]> {
        let above = path.len().saturating_sub(2);
        let authorities: Vec<PathElement> = path.iter().skip(1).take(above).map(PathElement::of).collect();
        let mut memory = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.generation < current.generation || memory.verdicts.len() >= VERDICTS_MAX {
            *memory = Memory { generation: current.generation, ..Memory::default() };
        }
        let known = memory.authorities.iter().find(|known| ***known == *authorities).cloned();
        let authorities = known.unwrap_or_else(|| {
            let new: Arc<[PathElement]> = authorities.into();
            memory.authorities.push(Arc::clone(&new));
            new
        });
        let not_before = path.iter().map(Certificate::not_before).max();
        let not_after = path.iter().map(Certificate::not_after).min();
        // From the moment on in which R6 refuses, the verdict is to be reached again.
        let refused = current.index.refuses_from(path);
        let refused = refused.map(|at| Duration::from_secs(at.as_secs().saturating_sub(1)));
        let not_after = not_after.into_iter().chain(refused.map(UnixTime::since_unix_epoch)).min();
        if let (Some(not_before), Some(not_after)) = (not_before, not_after)
            && memory.generation == current.generation
        {
            let accepted = Accepted { role, not_before, not_after, authorities: Arc::clone(&authorities) };
            memory.verdicts.insert(key, accepted);
        }
        authorities
    }
}

fn peer(role: Role, certificate: Certificate, authorities: Arc<[PathElement]>) -> Result<Peer, PeerRefused> {
    let device_id = match role {
        Role::Device => Some(DeviceId::from_certificate(&certificate).map_err(|source| {
            PeerRefused::Unnamed { certificate: Box::new(Shown::of(&certificate)), source }
        })?),
        Role::Operator
        | Role::Switch
        | Role::Service
        | Role::Author
        | Role::OrderSigner
        | Role::Licensor
        | Role::Policy
        | Role::Timestamp => None,
    };
    Ok(Peer { role, certificate, device_id, authorities })
}

/// A file of a role's roots, and what was read of it.
type Read<'a> = (&'a (Role, PathBuf, &'a [u8]), &'a (Role, Roots));

/// Reads the roots of files; one that gives none is told, and stands for no roots.
fn parse(files: &[(Role, PathBuf, &[u8])], errors: &mut Vec<CredentialError>) -> Vec<(Role, Roots)> {
    let mut read = |path: &Path, bytes: &[u8]| {
        let roots = Roots::from_pem(bytes, &path.display().to_string());
        roots.unwrap_or_else(|error| {
            errors.push(error.into());
            Roots::default()
        })
    };
    files.iter().map(|(role, path, bytes)| (*role, read(path, bytes))).collect()
}

fn overlaps(files: &[Read<'_>]) -> Vec<CredentialError> {
    let named: Vec<(Role, &Path, &Roots)> =
        files.iter().map(|((role, path, _bytes), (_role, roots))| (*role, path.as_path(), roots)).collect();
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

/// Digests the whole chain and the name it was checked for.
fn digest(chain: &[CertificateDer<'_>], name: Option<&str>) -> Thumbprint {
    let mut text = String::new();
    for der in chain {
        text.push_str(&Thumbprint::of(der).to_string());
    }
    text.push_str(name.unwrap_or("\n"));
    Thumbprint::of(text.as_bytes())
}
