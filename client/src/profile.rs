//! [`Profile`]: where and as whom the client connects, as it was installed or as a policy changes it (K2).

use std::path::PathBuf;
use std::sync::Arc;

use muster_pki::select::{Purpose, Selection, Wanted};
use muster_pki::trust_store::TrustSettings;
use muster_pki::{DeviceId, DeviceIdError, DeviceKey, Role};
use muster_service::credentials::{
    self, CertificateStore, ClientCredentials, CredentialError, CredentialFiles, Own, Rules, Servers,
    StoreSettings, TrustFolder,
};
use muster_signing::policy::{Policy, Terms};

use crate::config::{Config, TrustConfig};
use crate::connection::Files;
use crate::files::make_private_dir;
use crate::instructions::{POLICY, TrustError, shared_with_signers};
use crate::key::{self, DeviceIdentity};
use crate::url::{ServiceUrl, UrlError};

/// The merged trust of a policy that is tried; the usual one belongs to what is followed.
const TRIED_MERGED: &str = "cainfo-tried.pem";

/// The pinned certificate as it was last seen, in `data_dir` (N2).
const REMEMBERED: &str = "pinned.pem";

/// Where and as whom the client connects.
#[derive(Debug)]
pub(crate) struct Profile {
    /// The Switches, the preferred one first; at least one.
    pub(crate) switches: Vec<ServiceUrl>,
    /// The Background Channel.
    pub(crate) background: Option<ServiceUrl>,
    /// Own certificate, and whom the client trusts.
    pub(crate) credentials: Arc<ClientCredentials>,
    /// Where they come from, for advice.
    pub(crate) files: Files,
}

/// What profiles are made of.
#[derive(Debug)]
pub(crate) struct Installed {
    /// The configuration.
    pub(crate) config: Config,
    /// What every certificate is judged by.
    pub(crate) rules: Rules,
    /// The device's key, if it has no certificate.
    pub(crate) key: Option<Arc<DeviceKey>>,
}

/// Whether a policy is followed or only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is followed.
    Followed,
    /// It is tried beside the one that is followed, whose files it leaves alone.
    Tried,
}

/// Why a policy gives no profile here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// An address is none.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// There is no certificate, or no trust.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// It trusts a CA as one of servers that signers have, too.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The certificate that it chooses is another device's.
    #[error("it chooses a certificate of {got}, and this device is {wanted}")]
    Device {
        /// Whose it is.
        got: String,
        /// Whose it was to be.
        wanted: DeviceId,
    },
}

impl Profile {
    /// Returns the Switch at a position, counted on from the last to the first again.
    pub(crate) fn switch(&self, at: usize) -> Option<&ServiceUrl> {
        self.switches.get(at % self.switches.len().max(1))
    }
}

impl Installed {
    /// Makes a profile. Reads files; blocks on the disk.
    pub(crate) fn profile(&self, policy: Option<&Policy>, stage: Stage) -> Result<Profile, ProfileError> {
        let terms = policy.map(Policy::terms);
        let config = &self.config;
        let named = terms.map(|terms| terms.switches.as_slice()).filter(|switches| !switches.is_empty());
        let switches = match named {
            Some(named) => named.iter().map(|url| ServiceUrl::parse(url, "wss")).collect::<Result<_, _>>()?,
            None => vec![ServiceUrl::parse(&config.switch, "wss")?],
        };
        let background = terms.and_then(|terms| terms.background_channel.as_ref());
        let background = Some(background.unwrap_or(&config.background_channel)).filter(|url| !url.is_empty());
        // It takes devices with a certificate only.
        let background = background.filter(|_| self.key.is_none());
        let background = background.map(|url| ServiceUrl::parse(url, "https")).transpose()?;
        let credentials = credentials(config, terms, stage, self.rules.clone())?;
        if let Some(shared) = terms.and_then(|terms| shared(config, terms, stage)) {
            return Err(shared.into());
        }
        Ok(Profile { switches, background, credentials, files: files(config) })
    }

    /// As [`Self::profile`], for this device only.
    pub(crate) fn profile_of(
        &self,
        device: &DeviceId,
        policy: Option<&Policy>,
        stage: Stage,
    ) -> Result<Profile, ProfileError> {
        let profile = self.profile(policy, stage)?;
        if self.key.as_ref().is_some_and(|key| key.device() == device) {
            return Ok(profile);
        }
        let got = profile.credentials.own().map(|own| DeviceId::from_certificate(&own));
        let got = match got {
            Some(Ok(got)) if got == *device => return Ok(profile),
            Some(Ok(got)) => got.to_string(),
            Some(Err(error)) => name_problem(&error),
            None => "nobody, since no certificate will do".to_owned(),
        };
        Err(ProfileError::Device { got, wanted: device.clone() })
    }
}

fn name_problem(error: &DeviceIdError) -> String {
    format!("nobody ({error})")
}

/// Reads what the client shows and whom it trusts.
pub(crate) fn credentials(
    config: &Config,
    terms: Option<&Terms>,
    stage: Stage,
    rules: Rules,
) -> Result<Arc<ClientCredentials>, CredentialError> {
    let own = own(config, terms, stage);
    let servers = servers(config, terms, stage)?;
    let folder = match &servers {
        Servers::Folder(folder) => Some(folder.clone()),
        Servers::Roots(_) => None,
    };
    if let (Stage::Tried, Some(folder)) = (stage, &folder) {
        // Of another policy that was tried before; its CAs are none of this one's.
        drop(std::fs::remove_file(folder.merged_file()));
    }
    let revocation = Arc::clone(&rules.revocation);
    let made = credentials::client(own, servers, vec![b"http/1.1".to_vec()], Role::Device, rules)?;
    // Its files are there, and what is in them was read.
    match stage {
        Stage::Followed => revocation.trust_servers(folder),
        Stage::Tried => revocation.try_servers(folder),
    }
    Ok(made)
}

/// Returns the store of certificates, if there is one, with the selection of a policy.
pub(crate) fn store(config: &Config, terms: Option<&Terms>, stage: Stage) -> Option<CertificateStore> {
    let tls = &config.tls;
    if !tls.has_store() {
        return None;
    }
    // It was validated with the configuration.
    let installed = || Selection::try_from(tls.selection.clone()).unwrap_or_default();
    Some(CertificateStore::new(StoreSettings {
        folder: tls.store.clone(),
        password_file: tls.password_file.clone(),
        selection: terms.and_then(|terms| terms.selection.clone()).unwrap_or_else(installed),
        wanted: Wanted::Client(Purpose::Switch),
        remembered: (stage == Stage::Followed).then(|| config.data_dir.join(REMEMBERED)),
    }))
}

fn own(config: &Config, terms: Option<&Terms>, stage: Stage) -> Own {
    if config.tls.identity == DeviceIdentity::Key {
        return Own::None;
    }
    match store(config, terms, stage) {
        Some(store) => Own::Store(Arc::new(store)),
        None => Own::Files(CredentialFiles {
            certificate: config.tls.certificate.clone(),
            key: config.tls.key.clone(),
            password_file: config.tls.password_file.clone(),
        }),
    }
}

/// Returns the folder of trust files that was installed, if there is one.
pub(crate) fn folder(trust: &TrustConfig) -> Option<TrustFolder> {
    // They were validated with the configuration.
    let settings = TrustSettings::try_from(&trust.verification).unwrap_or_default();
    trust.has_folder().then(|| TrustFolder::new(trust.folder.clone(), settings))
}

fn servers(config: &Config, terms: Option<&Terms>, stage: Stage) -> Result<Servers, CredentialError> {
    let installed = folder(&config.trust);
    let terms = terms.filter(|terms| terms.trust.is_some() || !terms.authorities.is_empty());
    let Some(terms) = terms else {
        return Ok(match installed {
            Some(folder) => Servers::Folder(folder),
            None => Servers::Roots(config.trust.switch.clone()),
        });
    };
    let folder = match installed {
        Some(folder) => {
            let settings = terms.trust.clone().unwrap_or_else(|| folder.settings().clone());
            TrustFolder::new(config.trust.folder.clone(), settings)
        }
        None => {
            let path = absolute(config.data_dir.join("trust"))?;
            make_private_dir(&path).map_err(|source| CredentialError::Read { path: path.clone(), source })?;
            TrustFolder::new(path, terms.trust.clone().unwrap_or_default())
                .with_roots(config.trust.switch.clone())
        }
    };
    let folder = folder.with_authorities(&format!("policy {}", terms.serial), terms.authorities.clone());
    Ok(Servers::Folder(match stage {
        Stage::Followed => folder,
        Stage::Tried => folder.merged_into(TRIED_MERGED),
    }))
}

/// Returns which CA of a policy, or of the files that it names, is a signer's root as well.
fn shared(config: &Config, terms: &Terms, stage: Stage) -> Option<TrustError> {
    match servers(config, Some(terms), stage).ok()? {
        Servers::Folder(folder) => shared_with_signers(&config.trust, POLICY, &folder.authorities().ok()?),
        Servers::Roots(_) => None,
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, CredentialError> {
    std::path::absolute(&path).map_err(|source| CredentialError::Read { path, source })
}

fn files(config: &Config) -> Files {
    let tls = &config.tls;
    let (certificate, key) = if tls.identity == DeviceIdentity::Key {
        (PathBuf::new(), key::path(&config.data_dir))
    } else if tls.has_store() {
        (tls.store.clone(), tls.store.clone())
    } else {
        (tls.certificate.clone(), tls.key.clone())
    };
    let roots = if config.trust.has_folder() {
        config.trust.folder.join(muster_pki::trust_store::SERVER_FILE)
    } else {
        config.trust.switch.clone()
    };
    Files { identity: tls.identity, certificate, key, roots }
}
