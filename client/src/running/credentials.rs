//! The device's certificate, and whom the client trusts.

use std::path::PathBuf;
use std::sync::Arc;

use muster_pki::{DeviceId, Role};
use muster_service::credentials::{
    self, ClientCredentials, Clock, CredentialError, CredentialFiles, Own, RevocationFiles, Rules, Servers,
};

use super::error::StartError;
use crate::config::Config;

/// Reads what the client shows and whom it trusts; `kept` is the folder of what revocation remembers over restarts, `None` for a
/// mere check.
pub(crate) fn credentials(
    config: &Config,
    kept: Option<PathBuf>,
) -> Result<Arc<ClientCredentials>, CredentialError> {
    let (tls, trust) = (&config.tls, &config.trust);
    let files = RevocationFiles {
        crls: config.crls.clone(),
        roots: vec![
            trust.switch.clone(),
            trust.authors.clone(),
            trust.orders.clone(),
            trust.licences.clone(),
        ],
        own: Some(tls.certificate.clone()),
        kept,
    };
    let (rules, unruly) = Rules::load(config.certificates, &config.revocation, files, Clock::system());
    let own = Own::Files(CredentialFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        password_file: tls.password_file.clone(),
    });
    let servers = Servers::Roots(trust.switch.clone());
    let made = credentials::client(own, servers, vec![b"http/1.1".to_vec()], Role::Device, rules);
    match (made, unruly) {
        (Ok(made), None) => Ok(made),
        (made, unruly) => Err(CredentialError::Several([made.err(), unruly].into_iter().flatten().collect())),
    }
}

/// Returns whose certificate it is; the configuration may not name somebody else.
pub(super) fn device(config: &Config, credentials: &ClientCredentials) -> Result<DeviceId, StartError> {
    let own = credentials.own().ok_or_else(|| StartError::Identity("there is none".to_owned()))?;
    let device = DeviceId::from_certificate(&own).map_err(|error| StartError::Identity(error.to_string()))?;
    let name = &config.computer_name;
    if !name.is_empty() && !name.eq_ignore_ascii_case(device.as_str()) {
        let problem = format!(
            "is for {device}, but computer_name is {name:?}; leave computer_name out, or get a certificate for that name"
        );
        return Err(StartError::Identity(problem));
    }
    Ok(device)
}
