//! [`OneDevice`]: the device that a process is, which no renewal changes (N4).

use std::fmt;
use std::sync::{Arc, OnceLock};

use muster_pki::{Certificate, DeviceId};

/// Whose certificate a device's process shows: the configured name's, else that of the first certificate that it put to use.
/// Another device's is refused from then on. Clones are of the same process.
#[derive(Clone, Debug, Default)]
pub struct OneDevice {
    named: Option<String>,
    first: Arc<OnceLock<DeviceId>>,
}

/// A certificate of another device than the one that this process is (N4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate of the device {got}, wanted one of {wanted}, {by}: {}", self.fix())]
pub struct OtherDevice {
    got: DeviceId,
    wanted: String,
    by: ToldBy,
}

/// Who says which device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ToldBy {
    Configuration,
    FirstCertificate,
}

impl OneDevice {
    /// Names the device, as `computer_name` does; case does not matter. Empty: the first certificate tells it.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { named: (!name.is_empty()).then(|| name.to_owned()), ..Self::default() }
    }

    /// Returns why the certificate is not this device's; `None`: it is, or it names no device at all, which is for C7.
    pub(super) fn other(&self, certificate: &Certificate) -> Option<OtherDevice> {
        let got = DeviceId::from_certificate(certificate).ok()?;
        let (wanted, by) = match (&self.named, self.first.get()) {
            (Some(name), _) => (name.as_str(), ToldBy::Configuration),
            (None, Some(first)) => (first.as_str(), ToldBy::FirstCertificate),
            (None, None) => return None,
        };
        let is_it = got.as_str().eq_ignore_ascii_case(wanted);
        (!is_it).then(|| OtherDevice { wanted: wanted.to_owned(), got, by })
    }

    /// Takes the device of a certificate that was put to use for this one, if nothing has told it before.
    pub(super) fn settle(&self, certificate: &Certificate) {
        if let Ok(device) = DeviceId::from_certificate(certificate) {
            self.first.get_or_init(|| device);
        }
    }
}

impl OtherDevice {
    /// Returns what it has.
    pub(super) fn got(&self) -> String {
        format!("a certificate of the device {}, and this one is {}, {}", self.got, self.wanted, self.by)
    }

    /// Returns what would put it right.
    pub(super) fn fix(&self) -> String {
        let Self { got, wanted, by } = self;
        match by {
            ToldBy::Configuration => {
                format!("get one for {wanted}, or leave computer_name out if this machine is to be {got}")
            }
            ToldBy::FirstCertificate => {
                format!("get one for {wanted}, or start the client anew if this machine is to become {got}")
            }
        }
    }
}

impl fmt::Display for ToldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "which computer_name says",
            Self::FirstCertificate => "by the certificate that it began with",
        })
    }
}
