//! What of a process is well and what is not, by component.
//!
//! Each part of a program takes a [`Component`] and says how it is; `/healthz` and `/readyz` of
//! [`crate::admin`] read the registry. It decides nothing: a failed component ends no process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use muster_pki::Certificate;
use serde::Serialize;

use crate::metrics;

/// The components of one process. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Health {
    components: Arc<Mutex<BTreeMap<&'static str, State>>>,
    certificates: Arc<Mutex<BTreeMap<&'static str, CertificateInUse>>>,
}

/// A certificate of ours that is shown to peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateInUse {
    subject: String,
    issuer: String,
    thumbprint: String,
    not_after: String,
}

impl CertificateInUse {
    /// Takes what names a certificate, and until when it is valid.
    #[must_use]
    pub fn of(certificate: &Certificate) -> Self {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(certificate.not_after().as_secs());
        Self {
            subject: certificate.subject().to_owned(),
            issuer: certificate.issuer().to_owned(),
            thumbprint: certificate.thumbprint().to_string(),
            not_after: humantime::format_rfc3339_seconds(end).to_string(),
        }
    }
}

impl Health {
    /// Makes a registry without components, which counts as ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers `name` as [`State::Starting`], or returns the handle of a component that exists.
    #[must_use]
    pub fn component(&self, name: &'static str) -> Component {
        let component = Component { health: self.clone(), name };
        let known = self.lock().contains_key(name);
        if !known {
            component.set(State::Starting);
        }
        component
    }

    /// Returns every component's state, by name.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Snapshot { components: self.lock().clone(), certificates }
    }

    /// Shows which certificate component `name` uses (N3); `None`: none at present.
    pub fn show_certificate(&self, name: &'static str, certificate: Option<CertificateInUse>) {
        let mut shown = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        match certificate {
            Some(certificate) => shown.insert(name, certificate),
            None => shown.remove(name),
        };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, State>> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One part of a process, which says how it is.
#[derive(Clone, Debug)]
pub struct Component {
    health: Health,
    name: &'static str,
}

impl Component {
    /// Replaces the component's state.
    pub fn set(&self, state: State) {
        ::metrics::gauge!(metrics::HEALTH_STATE, "component" => self.name).set(state.as_metric());
        self.health.lock().insert(self.name, state);
    }

    /// Returns the component's state.
    #[must_use]
    pub fn state(&self) -> State {
        self.health.lock().get(self.name).cloned().unwrap_or(State::Starting)
    }
}

/// How a component is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "reason", rename_all = "lowercase")]
pub enum State {
    /// Not yet able to serve.
    Starting,
    /// As it should be.
    Ready,
    /// Serving, but someone should look: says why.
    Degraded(String),
    /// Not serving: says why.
    Failed(String),
}

impl State {
    fn as_metric(&self) -> f64 {
        match self {
            Self::Ready => 0.0,
            Self::Starting => 1.0,
            Self::Degraded(_) => 2.0,
            Self::Failed(_) => 3.0,
        }
    }
}

/// Every component's state at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    components: BTreeMap<&'static str, State>,
    /// By the component that shows them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    certificates: BTreeMap<&'static str, CertificateInUse>,
}

impl Snapshot {
    /// Returns the components by name.
    #[must_use]
    pub fn components(&self) -> &BTreeMap<&'static str, State> {
        &self.components
    }

    /// Returns whether no component failed: the process need not be restarted.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.components.values().any(|state| matches!(state, State::Failed(_)))
    }

    /// Returns whether every component serves, degraded ones included.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.components.values().all(|state| matches!(state, State::Ready | State::Degraded(_)))
    }
}

#[cfg(test)]
mod tests {
    use muster_pki::UnixTime;

    use super::*;

    #[test]
    fn is_ready_when_every_component_serves() {
        let health = Health::new();
        let store = health.component("store");
        assert!(!health.snapshot().is_ready());

        store.set(State::Degraded("disk nearly full".into()));

        assert!(health.snapshot().is_ready());
        assert!(health.snapshot().is_alive());
    }

    #[test]
    fn is_not_alive_when_a_component_failed() {
        let health = Health::new();

        health.component("store").set(State::Failed("fsync".into()));

        assert!(!health.snapshot().is_alive());
        assert!(!health.snapshot().is_ready());
    }

    #[test]
    fn n3_the_certificate_in_use_is_shown_with_its_end_until_there_is_none() {
        let (start, year) =
            (UnixTime::since_unix_epoch(Duration::from_secs(0)), Duration::from_secs(31_536_000));
        let authority = muster_pki::authority::Authority::root("Servers", year, start).unwrap();
        let health = Health::new();
        let shown = |health: &Health| serde_json::to_string(&health.snapshot()).unwrap();
        health.show_certificate("server", Some(CertificateInUse::of(authority.certificate())));

        let with = shown(&health);
        health.show_certificate("server", None);

        let thumbprint = authority.certificate().thumbprint().to_string();
        for part in ["CN=Servers", thumbprint.as_str(), r#""not_after":"1971-01-01T00:00:00Z""#] {
            assert!(with.contains(part), "{part}: {with}");
        }
        assert_eq!(shown(&health), r#"{"components":{}}"#);
    }

    #[test]
    fn asking_for_a_component_again_keeps_its_state() {
        let health = Health::new();
        health.component("store").set(State::Ready);

        let again = health.component("store");

        assert_eq!(again.state(), State::Ready);
    }
}
