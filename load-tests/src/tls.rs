//! TLS as a stranger would set it up: rustls with the home's roots, a certificate each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use muster_pki::authority::{Authority, Request};
use muster_pki::{Role, UnixTime};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A simulated device's certificate lives this long.
const VALID: Duration = Duration::from_secs(7 * 86_400);

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name in the certificate.
    pub name: String,
    /// Leaf and issuing CA.
    pub chain_pem: String,
    /// PKCS#8.
    pub key_pem: String,
}

/// Which key exchange a session uses; the cipher is AES-128-GCM, the version TLS 1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// X25519, which every peer has.
    X25519,
    /// X25519MLKEM768, which the Switch prefers.
    Hybrid,
}

/// Whether a device comes back by a ticket of its last session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resume {
    /// Every handshake is a full one.
    Never,
    /// Where it has a ticket.
    Last,
}

/// What the devices of a fleet share of TLS: only certificate, key and tickets are a device's own.
#[derive(Debug)]
pub struct Dialler {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Suite {
    /// A provider that offers nothing else, so that every server has to take it.
    #[must_use]
    pub fn provider(self) -> Arc<CryptoProvider> {
        let group = match self {
            Self::X25519 => kx_group::X25519,
            Self::Hybrid => kx_group::X25519MLKEM768,
        };
        Arc::new(CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![group],
            ..default_provider()
        })
    }
}

impl Dialler {
    /// For servers below these roots.
    ///
    /// # Errors
    /// There are no roots.
    pub fn new(roots: &Arc<RootCertStore>, suite: Suite) -> anyhow::Result<Self> {
        let provider = suite.provider();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider)).build()?;
        Ok(Self { provider, verifier })
    }

    /// The configuration of who shows no certificate.
    ///
    /// # Errors
    /// Never for these protocol versions.
    pub fn config_without_certificate(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(Arc::clone(&self.verifier))
            .with_no_client_auth();
        Ok(Arc::new(config))
    }

    /// A device's configuration.
    ///
    /// # Errors
    /// Certificate and key do not belong together, or are no PEM.
    pub fn config(&self, identity: &Identity, resume: Resume) -> anyhow::Result<Arc<ClientConfig>> {
        let chain =
            CertificateDer::pem_slice_iter(identity.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(Arc::clone(&self.verifier))
            .with_client_auth_cert(chain, key)?;
        config.resumption = match resume {
            Resume::Never => Resumption::disabled(),
            // One server, and that one's latest tickets.
            Resume::Last => Resumption::in_memory_sessions(1),
        };
        Ok(Arc::new(config))
    }
}

/// The roots that servers of a home chain to.
///
/// # Errors
/// The file is missing or holds no certificate.
pub fn server_roots(home: &Path) -> anyhow::Result<Arc<RootCertStore>> {
    let path = home.join("trust/servers.pem");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&path).with_context(|| path.display().to_string())? {
        roots.add(certificate?)?;
    }
    Ok(Arc::new(roots))
}

/// A TLS client with this identity.
///
/// # Errors
/// Certificate and key do not belong together, or are no PEM.
pub fn client(
    roots: &Arc<RootCertStore>,
    identity: &Identity,
    alpn: &[&[u8]],
) -> anyhow::Result<Arc<ClientConfig>> {
    let chain =
        CertificateDer::pem_slice_iter(identity.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
    let provider = Arc::new(default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(roots))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // Every session of a benchmark is a full handshake, so that figures compare.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Issues device certificates with the home's development CA, each with a key of its own.
///
/// # Errors
/// The home has no development CA.
pub fn issue_devices(home: &Path, names: &[String]) -> anyhow::Result<Vec<Identity>> {
    let authority = issuing(home, "devices")?;
    // As the development CA writes it: without one they are refused (C6).
    issue_below(&authority, Role::Device, names, "http://pki.localhost/devices.crl")
}

/// Issues a server's certificate with the home's development CA, for `localhost` as peers of the Switch have it.
///
/// # Errors
/// The home has no development CA.
pub fn issue_server(home: &Path, name: &str) -> anyhow::Result<Identity> {
    let authority = issuing(home, "servers")?;
    let issued =
        issue_below(&authority, Role::Switch, &[name.to_owned()], "http://pki.localhost/servers.crl")?;
    issued.into_iter().next().context("no certificate")
}

/// A home's CA for a role's folder.
///
/// # Errors
/// The home has no development CA.
pub fn issuing(home: &Path, folder: &str) -> anyhow::Result<Authority> {
    let read = |name: &str| {
        let path = home.join("pki").join(folder).join(name);
        std::fs::read_to_string(&path)
            .with_context(|| format!("{}: is this a development home?", path.display()))
    };
    Ok(Authority::from_pem(&read("issuing.pem")?, &read("issuing.key")?)?)
}

/// Issues certificates of a role with any CA, each with a key of its own; its CRL is said to be at `crl_url`.
///
/// # Errors
/// A name cannot stand in a certificate.
pub fn issue_below(
    authority: &Authority,
    role: Role,
    names: &[String],
    crl_url: &str,
) -> anyhow::Result<Vec<Identity>> {
    issue_for(authority, role, names, crl_url, VALID)
}

/// As [`issue_below`], and valid so long from now, to the second.
///
/// # Errors
/// A name cannot stand in a certificate.
pub fn issue_for(
    authority: &Authority,
    role: Role,
    names: &[String],
    crl_url: &str,
    valid: Duration,
) -> anyhow::Result<Vec<Identity>> {
    let now = UnixTime::now().as_secs();
    let at = |seconds: u64| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    names
        .iter()
        .map(|name| {
            let request = Request {
                common_name: name.clone(),
                dns_names: vec![name.clone()],
                ip_addresses: Vec::new(),
                role,
                not_before: at(now - 3_600),
                not_after: at(now + valid.as_secs()),
                crl_url: Some(crl_url.to_owned()),
            };
            let issued = authority.issue(&request)?;
            Ok(Identity { name: name.clone(), chain_pem: issued.chain_pem, key_pem: issued.key_pem })
        })
        .collect()
}
