//! A Switch with its PKI and folders, started and stopped by tests.

use std::path::PathBuf;
use std::time::Duration;

use muster_pki::Role;
use muster_service::shutdown::Shutdown;
use muster_switch::{Config, Failure, Running, StartError};
use tempfile::TempDir;

use crate::pki::{Ends, Pki};

/// The Switch's name in its certificate.
pub(crate) const SWITCH_NAME: &str = "switch.test";

/// No wait of a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A place for Switches to run in, one after the other, on one store.
pub(crate) struct World {
    pub(crate) pki: Pki,
    pub(crate) config: Config,
    folder: TempDir,
}

/// A Switch that runs.
pub(crate) struct Switch {
    pub(crate) running: Running,
    shutdown: Shutdown,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path());
        let (certificate, key) = pki.write_server(&pki.issue(Role::Switch, SWITCH_NAME, Ends::InAYear));
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            operator_listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: folder.path().join("data"),
            tenant: "acme".to_owned(),
            shards: 2,
            ..Config::default()
        };
        config.engine.disk_reserve = 1 << 20;
        config.tls.certificate = certificate;
        config.tls.key = key;
        let trust = &mut config.trust;
        let files: [(&mut PathBuf, &str); 6] = [
            (&mut trust.devices, "devices"),
            (&mut trust.operators, "operators"),
            (&mut trust.services, "services"),
            (&mut trust.authors, "authors"),
            (&mut trust.orders, "orders"),
            (&mut trust.licences, "licences"),
        ];
        for (file, name) in files {
            *file = pki.roots_file(name);
        }
        trust.policies = Some(pki.roots_file("policies"));
        Self { pki, config, folder }
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) async fn start(&self) -> Switch {
        self.try_start().await.unwrap()
    }

    pub(crate) async fn try_start(&self) -> Result<Switch, StartError> {
        let (config, shutdown) = (self.config.clone(), Shutdown::new());
        let stop = shutdown.clone();
        let started = tokio::task::spawn_blocking(move || muster_switch::start(config, stop)).await.unwrap();
        started.map(|running| Switch { running, shutdown })
    }
}

impl Switch {
    /// Tells the Switch to stop, without waiting for it.
    pub(crate) fn trigger(&self) {
        self.shutdown.trigger();
    }

    /// Stops the Switch and waits until it has.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        self.shutdown.trigger();
        let running = self.running;
        let ended = tokio::task::spawn_blocking(move || running.wait());
        tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap()
    }
}
