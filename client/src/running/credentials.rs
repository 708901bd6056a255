//! The device's certificate, and whom the client trusts, as they were installed.

use std::path::PathBuf;
use std::sync::Arc;

use muster_pki::DeviceId;
use muster_service::credentials::{ClientCredentials, Clock, CredentialError, RevocationFiles, Rules};
use muster_service::health::State;

use super::error::StartError;
use crate::config::Config;
use crate::profile;

/// Reads what every certificate is judged by; `kept` is the folder of what revocation remembers over restarts.
pub(super) fn rules(config: &Config, kept: Option<PathBuf>) -> (Rules, Option<CredentialError>) {
    let (tls, trust) = (&config.tls, &config.trust);
    let servers = profile::folder(trust);
    if let Some(folder) = &servers {
        // Lists are judged by the CAs in it, so it is there before them. What is wrong with it is told where servers are judged.
        drop(folder.rebuild(false));
    }
    let mut roots = vec![trust.authors.clone(), trust.orders.clone(), trust.licences.clone()];
    if servers.is_none() {
        roots.push(trust.switch.clone());
    }
    if trust.has_policies() {
        roots.push(trust.policies.clone());
    }
    let own = (!tls.has_store()).then(|| tls.certificate.clone());
    let files = RevocationFiles { crls: config.crls.clone(), roots, own, servers, kept };
    Rules::load(config.certificates, &config.revocation, files, Clock::system())
}

/// Reads what the client shows and whom it trusts, only to tell what is wrong with it.
pub(crate) fn check(config: &Config) -> Result<Arc<ClientCredentials>, CredentialError> {
    let (rules, unruly) = rules(config, None);
    match (profile::credentials(config, None, profile::Stage::Followed, rules), unruly) {
        (Ok(made), None) => Ok(made),
        (made, unruly) => Err(CredentialError::Several([made.err(), unruly].into_iter().flatten().collect())),
    }
}

/// Returns whose certificate it is; the configuration may not name somebody else.
pub(super) fn device(config: &Config, credentials: &ClientCredentials) -> Result<DeviceId, StartError> {
    let Some(own) = credentials.own() else {
        let problem = match credentials.state() {
            State::Degraded(problem) => problem,
            State::Starting | State::Ready | State::Failed(_) => "there is none".to_owned(),
        };
        return Err(StartError::Identity(problem));
    };
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
