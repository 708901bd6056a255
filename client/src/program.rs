//! The client as a program: what [`muster_service::program`] has to know of it.

use std::num::NonZeroUsize;
use std::time::Duration;

use muster_pki::Role;
use muster_service::credentials::{CredentialError, check_roots};
use muster_service::exit::{self, Ended};
use muster_service::program::{self, serve};
use muster_service::telemetry::LogConfig;
use tokio::time::timeout;

use crate::config::Config;
use crate::instructions::{FOLDER, shared_with_signers};
use crate::profile;
use crate::running::{DRAIN_TIMEOUT, StartError, check_credentials, check_key, start};
use crate::store::StoreError;

/// Worker threads: one for the session, one for everything else; helpers are processes of their own.
const WORKERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// How long the outcome of the client is waited for after its drain.
const SETTLE: Duration = Duration::from_secs(1);

/// The drain was not enough.
#[derive(Debug, thiserror::Error)]
#[error(
    "the client did not end within {DRAIN_TIMEOUT:?}; what it ran is reported as interrupted at the next start"
)]
struct StillRunning;

/// `muster-client`.
#[derive(Debug)]
pub struct Program;

impl program::Program for Program {
    type Config = Config;

    const NAME: &'static str = "muster-client";
    const ABOUT: &'static str = "The Muster client: the agent on an endpoint";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ENV_PREFIX: &'static str = "MUSTER_CLIENT_";
    const DEFAULT_CONFIG: &'static str = "/etc/muster/client.toml";

    fn log(config: &Config) -> &LogConfig {
        &config.log
    }

    fn check_files(config: &Config) -> Vec<String> {
        let trust = &config.trust;
        let mut roots = vec![
            (Role::Author, trust.authors.clone()),
            (Role::OrderSigner, trust.orders.clone()),
            (Role::Licensor, trust.licences.clone()),
        ];
        if !trust.has_folder() {
            roots.push((Role::Switch, trust.switch.clone()));
        }
        if trust.has_policies() {
            roots.push((Role::Policy, trust.policies.clone()));
        }
        let checked = check_credentials(config);
        // A client waits for a certificate of its store (S6); whoever checks wants to know that it does.
        let lacks = checked.as_ref().ok().filter(|credentials| credentials.lacks_own());
        let missing = lacks.and_then(|credentials| credentials.problem());
        let errors = [checked.err(), check_roots(roots).err()].into_iter().flatten();
        let shared = profile::folder(trust).and_then(|folder| {
            shared_with_signers(trust, FOLDER, &folder.authorities().ok()?).map(|error| error.to_string())
        });
        let errors = errors.flat_map(CredentialError::into_each).map(|error| error.to_string());
        // Trust of before stays in use beside a file that is refused, so that it is no error of the credentials.
        let refused = profile::folder(trust).and_then(|folder| folder.rebuild(false).ok());
        let refused = refused.map(|rebuilt| rebuilt.problems).unwrap_or_default();
        let key = check_key(config).err().map(|error| error.to_string());
        errors.chain(missing).chain(refused).chain(key).chain(shared).collect()
    }

    fn run(config: Config) -> Result<(), Ended> {
        serve(
            Self::NAME,
            WORKERS,
            |shutdown| async {
                start(config, shutdown).await.map_err(|error| Ended::new(exit_code(&error), &error))
            },
            |running, shutdown| async move {
                shutdown.cancelled().await;
                let outcome = shutdown.drain(DRAIN_TIMEOUT).await;
                tracing::info!(?outcome, "stopped");
                // Everything has ended, or does not in time: a service manager would kill what waits longer.
                match timeout(SETTLE, running.wait()).await {
                    Ok(ended) => ended.map_err(|error| Ended::new(exit::FAILURE, &*error)),
                    Err(_) => Err(Ended::new(exit::FAILURE, &StillRunning)),
                }
            },
        )
    }
}

/// Tells service managers whether a restart may help.
fn exit_code(error: &StartError) -> u8 {
    match error {
        StartError::Taken { .. }
        | StartError::DiskFull { .. }
        | StartError::Store(StoreError::DiskFull | StoreError::Failing { .. }) => exit::UNAVAILABLE,
        StartError::Store(StoreError::Unwritten { .. } | StoreError::Broken(_) | StoreError::Closed) => {
            exit::FAILURE
        }
        StartError::Config(_)
        | StartError::Url(_)
        | StartError::WrongKind(_)
        | StartError::Shared(_)
        | StartError::File { .. }
        | StartError::Credentials(_)
        | StartError::Identity(_)
        | StartError::Key(_)
        | StartError::Trust(_)
        | StartError::Policy { .. }
        | StartError::Store(StoreError::Unusable { .. } | StoreError::Newer { .. }) => exit::CONFIG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_someone_has_to_put_right_is_told_from_a_full_disk() {
        let unusable = StoreError::Unusable { path: "/x".into(), cause: "malformed".to_owned() };
        let newer = StoreError::Newer { path: "/x".into(), got: 99, wanted: 1 };

        assert_eq!(exit_code(&StartError::Store(unusable)), exit::CONFIG);
        assert_eq!(exit_code(&StartError::Store(newer)), exit::CONFIG);
        assert_eq!(exit_code(&StartError::DiskFull { path: "/x".into() }), exit::UNAVAILABLE);
        assert_eq!(exit_code(&StartError::Taken { path: "/x".into() }), exit::UNAVAILABLE);
    }
}
