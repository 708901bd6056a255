//! The device's certificate, and whom the client trusts, as they were installed.

use std::sync::Arc;

use muster_pki::{DeviceId, DeviceKey};
use muster_service::credentials::{
    ClientCredentials, Clock, CredentialError, Keeping, OneDevice, POLL_INTERVAL, RevocationFiles, Rules,
};
use tokio_util::sync::CancellationToken;

use super::error::StartError;
use crate::config::Config;
use crate::identity::{Known, Teller};
use crate::key::{self, DeviceIdentity, KeyError};
use crate::profile;
use crate::store::StoreError;

/// The folder of what revocation remembers over restarts, in the client's.
const REVOCATION: &str = "revocation";

/// Returns what certificates are judged by in a running client.
pub(super) fn rules(config: &Config) -> (Rules, Option<CredentialError>) {
    rules_by(config, Keeping::In(config.data_dir.join(REVOCATION)))
}

/// Returns what certificates are judged by in a command beside it: it sees what the client fetched, and changes nothing.
pub(crate) fn rules_of_command(config: &Config) -> (Rules, Option<CredentialError>) {
    rules_by(config, Keeping::OfAnother(config.data_dir.join(REVOCATION)))
}

fn rules_by(config: &Config, kept: Keeping) -> (Rules, Option<CredentialError>) {
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
    roots.extend(
        [&trust.policies, &trust.switch_orders, &trust.timestamps]
            .into_iter()
            .filter(|file| !file.as_os_str().is_empty())
            .cloned(),
    );
    let own =
        (!tls.has_store() && tls.identity == DeviceIdentity::Certificate).then(|| tls.certificate.clone());
    let files = RevocationFiles { crls: config.crls.clone(), roots, own, servers, kept };
    let (rules, unruly) = Rules::load(config.certificates, &config.revocation, files, Clock::system());
    (Rules { device: OneDevice::named(&config.computer_name), ..rules }, unruly)
}

/// Returns the key of a device that has no certificate; the first start makes it.
pub(super) fn key(config: &Config) -> Result<Option<Arc<DeviceKey>>, KeyError> {
    match config.tls.identity {
        DeviceIdentity::Certificate => Ok(None),
        DeviceIdentity::Key => {
            tracing::info!(
                "this device has no certificate: it is unauthenticated, gets no action, and calls no Background Channel"
            );
            key::read_or_make(&config.data_dir).map(|key| Some(Arc::new(key)))
        }
    }
}

/// Reads the key, only to tell what is wrong with it; one that is not there yet is made at the first start.
pub(crate) fn check_key(config: &Config) -> Result<(), KeyError> {
    match config.tls.identity {
        DeviceIdentity::Certificate => Ok(()),
        DeviceIdentity::Key => key::read(&config.data_dir).map(drop),
    }
}

/// Reads what the client shows and whom it trusts, only to tell what is wrong with it.
pub(crate) fn check(config: &Config) -> Result<Arc<ClientCredentials>, CredentialError> {
    let (rules, unruly) = rules_of_command(config);
    match (profile::credentials(config, None, profile::Stage::Followed, rules), unruly) {
        (Ok(made), None) => Ok(made),
        (made, unruly) => Err(CredentialError::Several([made.err(), unruly].into_iter().flatten().collect())),
    }
}

/// Returns whose certificate or key it is, `None` while there is none.
pub(super) fn device(
    credentials: &ClientCredentials,
    key: Option<&DeviceKey>,
) -> Result<Option<DeviceId>, StartError> {
    if let Some(key) = key {
        return Ok(Some(key.device().clone()));
    }
    let Some(own) = credentials.own() else { return Ok(None) };
    let device = DeviceId::from_certificate(&own).map_err(|error| StartError::Identity(error.to_string()))?;
    Ok(Some(device))
}

/// Waits until a certificate tells whose device this is, and tells it.
#[derive(Debug)]
pub(super) struct Identifying {
    pub(super) credentials: Arc<ClientCredentials>,
    pub(super) teller: Teller,
    pub(super) stop: CancellationToken,
}

impl Identifying {
    /// Runs until it is told, or the client stops.
    pub(super) async fn run(self) -> Result<(), StoreError> {
        let mut changes = self.credentials.changes();
        loop {
            match device(&self.credentials, None) {
                Ok(Some(device)) => {
                    tracing::info!(%device, "a certificate has come, and tells whose device this is");
                    return self.tell(device).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "a certificate has come that this client does not show")
                }
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                _ = changes.changed() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    async fn tell(self, device: DeviceId) -> Result<(), StoreError> {
        // What a device tells of itself is read from files.
        match tokio::task::spawn_blocking(move || Known::of(device)).await {
            Ok(known) => self.teller.tell(known),
            Err(error) => tracing::error!(%error, "this device's attributes could not be read"),
        }
        Ok(())
    }
}
