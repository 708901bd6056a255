//! The Background Channel as a program: what [`muster_service::program`] has to know of it.

use std::num::NonZeroUsize;

use muster_service::credentials::{Clock, CredentialError};
use muster_service::exit::{self, Ended};
use muster_service::program::{self, serve};
use muster_service::telemetry::LogConfig;

use crate::config::Config;
use crate::spool::SpoolError;
use crate::start::{self, StartError};

/// `muster-background-channel`.
#[derive(Debug)]
pub struct Program;

impl program::Program for Program {
    type Config = Config;

    const NAME: &'static str = "muster-background-channel";
    const ABOUT: &'static str =
        "The Muster Background Channel: serves resources and takes the events that clients post";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ENV_PREFIX: &'static str = "MUSTER_BACKGROUND_CHANNEL_";
    const DEFAULT_CONFIG: &'static str = "/etc/muster/background-channel.toml";

    fn log(config: &Config) -> &LogConfig {
        &config.log
    }

    fn check_files(config: &Config) -> Vec<String> {
        let errors = start::credentials(config, None, Clock::system()).err().map(CredentialError::into_each);
        errors.into_iter().flatten().map(|error| error.to_string()).collect()
    }

    fn run(config: Config) -> Result<(), Ended> {
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        serve(
            Self::NAME,
            workers,
            |shutdown| async { start::start(config, shutdown).await.map_err(|error| ended(&error)) },
            |running, _shutdown| async {
                running.wait().await.map_err(|error| Ended::new(exit::FAILURE, &error))
            },
        )
    }
}

/// Why it did not start, with the code that tells service managers whether a restart may help.
fn ended(error: &StartError) -> Ended {
    let code = match error {
        _ if error.is_disk_full() => exit::UNAVAILABLE,
        StartError::Bind(_) | StartError::Taken { .. } => exit::UNAVAILABLE,
        StartError::Credentials(_)
        | StartError::DataDir { .. }
        | StartError::Spool(SpoolError::Newer { .. }) => exit::CONFIG,
        StartError::Spool(SpoolError::Store { source, .. }) if is_damage(source) => {
            return Ended::new(exit::CONFIG, &Damaged(error));
        }
        StartError::Resources(_) | StartError::Spool(_) => exit::FAILURE,
    };
    Ended::new(code, error)
}

/// A spool that nothing can be read from.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0}; check the disk, keep a copy and restore a backup; without one, move the file and those beside it (-wal, -shm) \
     away: the spool then starts empty, and events that the Switch did not get yet are lost"
)]
struct Damaged<'a>(&'a StartError);

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::ResourceError;

    #[test]
    fn a_full_disk_may_end_by_itself_and_a_newer_spool_may_not() {
        let path = std::path::PathBuf::from("/x");
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let unavailable = [
            StartError::DataDir { path: path.clone(), source: full() },
            StartError::Resources(ResourceError::DiskFull),
            StartError::Spool(SpoolError::DiskFull { path: path.clone() }),
        ];
        let newer = StartError::Spool(SpoolError::Newer { path, got: 99, wanted: 1 });

        for error in unavailable {
            assert_eq!(ended(&error).code(), exit::UNAVAILABLE, "{error}");
        }
        assert_eq!(ended(&newer).code(), exit::CONFIG);
    }
}
