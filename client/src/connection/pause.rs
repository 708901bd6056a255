//! What lies between two sessions: how long the client stays away, what ends that early, and what people are told
//! (PROTOCOL.md §7).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_pki::Thumbprint;
use muster_proto::session::v1::CloseReason;
use muster_service::credentials::{ClientCredentials, DialError};
use rustls::AlertDescription;
use tokio::sync::watch;

use super::End;
use crate::backoff::Backoff;
use crate::key::DeviceIdentity;

/// A session that lasted this long counts as a success: the next pause is short again. A Switch that welcomes and then
/// drops everybody is thus not stormed.
pub(super) const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// The files of the credentials, by which people know them.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// Whether the device has a certificate at all.
    pub(crate) identity: DeviceIdentity,
    /// The device's certificate.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// The servers' roots.
    pub(crate) roots: PathBuf,
}

/// Why there is no session, as far as it decides what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// This device's certificate is not taken. It stays so until there is another one.
    OwnCertificate { problem: Problem, asked: Duration },
    /// The certificate of the Switch is not taken here.
    ServerCertificate,
    /// Another client uses the same identity.
    SharedIdentity { asked: Duration },
    /// The Switch asked for a pause.
    Asked(Duration),
    /// An HTTP answer asked for a pause. Whatever stands between may have written it, so that it counts up to the longest of our own.
    TurnedAway(Duration),
    /// Anything that may pass.
    Passing,
}

/// What is wrong with this device's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    Missing,
    Revoked,
    Expired,
    UnknownIssuer,
    Unfit,
    Denied,
}

/// What ends a pause before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Nothing: whoever asked for the pause has a reason that has nothing to do with us.
    Nothing,
    /// Another certificate of this device. A certificate that was refused can look like a connection that broke, if the
    /// alert was lost with it.
    OtherCertificate,
    /// Any change of certificate, chain, roots or revocation lists.
    OtherCredentials,
}

impl Cause {
    pub(super) fn of(end: &End) -> Self {
        match end {
            End::GoneAway { reason, reconnect_after, .. } => Self::of_reason(*reason, *reconnect_after),
            End::Closed(reason) => Self::of_reason(*reason, Duration::ZERO),
            End::Refused(alert) => {
                let problem = problem(*alert).unwrap_or(Problem::Unfit);
                Self::OwnCertificate { problem, asked: Duration::ZERO }
            }
            End::Denied(_) => Self::OwnCertificate { problem: Problem::Denied, asked: Duration::ZERO },
            End::Dial(DialError::Refused { .. }) | End::ServerRefused(_) => Self::ServerCertificate,
            End::Dial(DialError::NoCertificate { .. }) => {
                Self::OwnCertificate { problem: Problem::Missing, asked: Duration::ZERO }
            }
            End::Dial(DialError::Tls { source, .. }) => match certificate_alert(source).and_then(problem) {
                Some(problem) => Self::OwnCertificate { problem, asked: Duration::ZERO },
                None => Self::Passing,
            },
            End::TurnedAway { retry_after: Some(asked), .. } => Self::TurnedAway(*asked),
            End::Dial(DialError::Late { .. } | DialError::Tcp { .. } | DialError::Address { .. })
            | End::TurnedAway { retry_after: None, .. }
            | End::WebSocket(_)
            | End::Quic(_)
            | End::QuicSilent(_)
            | End::QuicClosed(_)
            | End::Renewed
            | End::Moved
            | End::Busy
            | End::Stopped
            | End::Store(_) => Self::Passing,
        }
    }

    fn of_reason(reason: CloseReason, asked: Duration) -> Self {
        match reason {
            CloseReason::Revoked => Self::OwnCertificate { problem: Problem::Revoked, asked },
            CloseReason::CertificateExpired => Self::OwnCertificate { problem: Problem::Expired, asked },
            CloseReason::Unfit => Self::OwnCertificate { problem: Problem::Unfit, asked },
            CloseReason::Superseded => Self::SharedIdentity { asked },
            CloseReason::Unspecified
            | CloseReason::Shutdown
            | CloseReason::ProtocolError
            | CloseReason::Idle
            | CloseReason::HelloTimeout
            | CloseReason::Version
            | CloseReason::Slow => Self::Asked(asked),
        }
    }

    /// Returns how long to stay away. What was asked for is kept in any case.
    pub(super) fn pause(self, backoff: &mut Backoff) -> Duration {
        match self {
            Self::OwnCertificate { asked, .. } | Self::SharedIdentity { asked } => {
                asked.saturating_add(backoff.long_pause())
            }
            Self::Asked(asked) => backoff.next_pause_after(asked),
            Self::TurnedAway(asked) => backoff.next_pause_after_some(asked),
            Self::ServerCertificate | Self::Passing => backoff.next_pause(),
        }
    }

    /// Returns what ends the pause early.
    pub(super) fn wake(self) -> Wake {
        match self {
            Self::OwnCertificate { .. } | Self::ServerCertificate => Wake::OtherCredentials,
            Self::SharedIdentity { .. } | Self::Passing => Wake::OtherCertificate,
            Self::Asked(_) | Self::TurnedAway(_) => Wake::Nothing,
        }
    }

    /// Returns what a person has to do; `None` where time is enough.
    pub(super) fn advice(self, files: &Files) -> Option<String> {
        let Files { identity, certificate, key, roots } = files;
        let (certificate, key, roots) = (certificate.display(), key.display(), roots.display());
        let renew = match identity {
            DeviceIdentity::Certificate => format!(
                "put a new certificate into {certificate} and its key into {key}; the client connects again by itself"
            ),
            DeviceIdentity::Key => {
                "give this device a certificate (tls.identity = \"certificate\")".to_owned()
            }
        };
        match self {
            // There is no certificate that something could be wrong with.
            Self::OwnCertificate { .. } if *identity == DeviceIdentity::Key => Some(format!(
                "the device has no certificate: ask whoever runs the Switch to let such devices in \
                 (sessions.client_certificate there), or to unblock this one, or {renew}"
            )),
            Self::OwnCertificate { problem: Problem::Missing, .. } => Some(format!(
                "put a certificate with its key into {certificate}; the client connects by itself, and \
                 `muster-client cert list` says why it does not show one that is there"
            )),
            Self::OwnCertificate { problem: Problem::Revoked, .. } => {
                Some(format!("the certificate is revoked: {renew}"))
            }
            Self::OwnCertificate { problem: Problem::Expired, .. } => {
                Some(format!("the certificate has expired: {renew}"))
            }
            Self::OwnCertificate { problem: Problem::UnknownIssuer, .. } => Some(format!(
                "the Switch does not know the issuer: add the CAs between the certificate and its root to {certificate}, \
                 or add the root to the Switch's roots of devices, or {renew}"
            )),
            Self::OwnCertificate { problem: Problem::Unfit, .. } => {
                Some(format!(
                    "the log of the Switch names the rule that it breaks: where that is R6, the Switch lacks a CRL, and has to \
                     get one; otherwise {renew}"
                ))
            }
            Self::OwnCertificate { problem: Problem::Denied, .. } => Some(format!(
                "ask whoever runs the Switch to let this device in; if no certificates are asked for there \
                 (sessions.client_certificate = \"none\"), no other one helps, and this device goes by a key \
                 (tls.identity = \"key\"); if this certificate is named as what is wrong, {renew}"
            )),
            Self::ServerCertificate => {
                Some(format!("renew the certificate of the Switch, or add its root to {roots}"))
            }
            Self::SharedIdentity { .. } => Some(
                "another client took this session over with the same certificate: two machines, or two clients on \
                 one, use one identity; stop one of them"
                    .to_owned(),
            ),
            Self::Asked(_) | Self::TurnedAway(_) | Self::Passing => None,
        }
    }
}

/// Returns the alert by which a peer refused our certificate, if an error of TLS is one.
pub(super) fn certificate_alert(error: &io::Error) -> Option<AlertDescription> {
    let rustls::Error::AlertReceived(alert) = error.get_ref()?.downcast_ref()? else { return None };
    problem(*alert).map(|_| *alert)
}

/// Returns whether an alert says that the peer does not take our certificate.
pub(super) fn is_about_certificates(alert: AlertDescription) -> bool {
    problem(alert).is_some()
}

/// Returns what an alert says about our certificate, if it does (RFC 8446 §6.2, RFC 5246 §7.2.2).
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's list grows; every other alert is about something else"
)]
fn problem(alert: AlertDescription) -> Option<Problem> {
    match alert {
        AlertDescription::CertificateRevoked => Some(Problem::Revoked),
        AlertDescription::CertificateExpired => Some(Problem::Expired),
        AlertDescription::UnknownCA => Some(Problem::UnknownIssuer),
        AlertDescription::NoCertificate
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::CertificateRequired => Some(Problem::Unfit),
        _ => None,
    }
}

/// Tells when the credentials change.
#[derive(Debug)]
pub(super) struct CredentialWatch {
    credentials: Arc<ClientCredentials>,
    changes: watch::Receiver<u64>,
    /// Of our own certificate, as of [`Self::mark`].
    thumbprint: Option<Thumbprint>,
}

impl CredentialWatch {
    pub(super) fn new(credentials: &Arc<ClientCredentials>) -> Self {
        let credentials = Arc::clone(credentials);
        Self { changes: credentials.changes(), thumbprint: None, credentials }
    }

    /// Takes what the credentials are for known.
    pub(super) fn mark(&mut self) {
        self.changes.mark_unchanged();
        self.thumbprint = self.thumbprint_of_own();
    }

    /// Waits until the credentials differ from what they were at the mark; for ever where nothing is to end the wait.
    pub(super) async fn changed(&mut self, wake: Wake) {
        if wake == Wake::OtherCertificate {
            // A renewal during a session that then broke is no reason to hurry: a fleet whose certificates are all
            // renewed by then would come back to its Switch at once.
            self.mark();
        }
        loop {
            // The credentials hold the sender, so it is not gone.
            if wake == Wake::Nothing || self.changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            if wake == Wake::OtherCredentials || self.thumbprint_of_own() != self.thumbprint {
                return;
            }
        }
    }

    fn thumbprint_of_own(&self) -> Option<Thumbprint> {
        self.credentials.own().map(|own| own.thumbprint())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures_util::FutureExt;
    use muster_pki::authority::{Authority, Request};
    use muster_pki::{Role, UnixTime};
    use muster_service::credentials::{self, Clock, CredentialFiles, Own, Reload, Rules, Servers};
    use tempfile::TempDir;

    use super::*;

    const CAP: Duration = Duration::from_secs(60);

    #[test]
    fn a_certificate_that_is_not_taken_has_the_longest_backoff_and_names_the_files() {
        let told = |reason| End::GoneAway { reason, reconnect_after: Duration::ZERO, detail: String::new() };
        let ends = [
            told(CloseReason::Revoked),
            told(CloseReason::CertificateExpired),
            told(CloseReason::Unfit),
            End::Refused(AlertDescription::CertificateUnknown),
            End::Denied("R2".to_owned()),
            End::Dial(tls(rustls::Error::AlertReceived(AlertDescription::CertificateExpired))),
        ];
        for end in ends {
            let cause = Cause::of(&end);

            assert!(cause.pause(&mut backoff()) >= CAP, "{end}");
            assert_eq!(cause.wake(), Wake::OtherCredentials, "{end}");
            let advice = cause.advice(&files()).unwrap();
            assert!(advice.contains("/device.pem") && advice.contains("/device.key"), "{end}: {advice}");
        }
    }

    #[test]
    fn c1_a_device_without_a_certificate_is_told_nothing_of_one_that_it_had() {
        let files = Files { identity: DeviceIdentity::Key, ..files() };

        for end in [End::Denied("C1".to_owned()), End::Refused(AlertDescription::CertificateRequired)] {
            let advice = Cause::of(&end).advice(&files).unwrap();
            assert!(advice.contains("sessions.client_certificate"), "{advice}");
            assert!(!advice.contains("/device.pem"), "{advice}");
        }
    }

    #[test]
    fn a_pause_that_an_http_answer_asks_for_is_kept_up_to_our_longest_and_its_text_is_told() {
        for (asked, wanted) in [(30, Duration::from_secs(30)), (86_400, CAP)] {
            let retry_after = Some(Duration::from_secs(asked));
            let (status, text) =
                (http::StatusCode::SERVICE_UNAVAILABLE, "500 without a certificate".to_owned());
            let end = End::TurnedAway { status, retry_after, text };

            let cause = Cause::of(&end);
            let pause = cause.pause(&mut backoff());

            assert!(pause >= wanted && pause <= wanted + CAP, "{asked}: {pause:?}");
            assert_eq!((cause.wake(), cause.advice(&files())), (Wake::Nothing, None));
            let told = end.to_string();
            assert!(told.contains("503") && told.ends_with("500 without a certificate"), "{told}");
        }
    }

    #[test]
    fn c1_a_certificate_that_is_not_asked_for_is_not_simply_to_be_replaced() {
        let advice = Cause::of(&End::Denied("got neither".to_owned())).advice(&files()).unwrap();

        let none = advice.find("sessions.client_certificate = \"none\"").unwrap();
        assert!(none < advice.find("put a new certificate").unwrap(), "{advice}");
        assert!(
            advice.contains("no other one helps") && advice.contains("tls.identity = \"key\""),
            "{advice}"
        );
    }

    #[test]
    fn a_pause_that_was_asked_for_is_kept_whatever_changes() {
        let hour = Duration::from_secs(3_600);
        let end = |reason| End::GoneAway { reason, reconnect_after: hour, detail: String::new() };

        let shutdown = Cause::of(&end(CloseReason::Shutdown));

        assert!(shutdown.pause(&mut backoff()) >= hour);
        assert_eq!((shutdown.wake(), shutdown.advice(&files())), (Wake::Nothing, None));
        assert!(Cause::of(&end(CloseReason::Unfit)).pause(&mut backoff()) >= hour + CAP);
    }

    #[test]
    fn another_alert_is_no_word_about_the_certificate() {
        let end = End::Dial(tls(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure)));

        assert_eq!(Cause::of(&end), Cause::Passing);
    }

    #[tokio::test]
    async fn a_renewal_during_the_session_ends_a_pause_that_is_about_certificates_only() {
        let folder = TempDir::new().unwrap();
        let root = Authority::root("Root", Duration::from_secs(86_400), UnixTime::now()).unwrap();
        std::fs::write(folder.path().join("servers.pem"), root.certificate_pem()).unwrap();
        write_device(&root, folder.path());
        let files = CredentialFiles::pem(folder.path().join("device.pem"), folder.path().join("device.key"));
        let (own, servers) = (Own::Files(files), Servers::Roots(folder.path().join("servers.pem")));
        let rules = Rules::lenient(Clock::system());
        let credentials = credentials::client(own, servers, Vec::new(), Role::Device, rules).unwrap();
        for (wake, is_awake) in
            [(Wake::Nothing, false), (Wake::OtherCertificate, false), (Wake::OtherCredentials, true)]
        {
            let mut watch = CredentialWatch::new(&credentials);
            watch.mark();

            write_device(&root, folder.path());
            assert_eq!(credentials.reload(), Reload::Swapped);

            assert_eq!(watch.changed(wake).now_or_never().is_some(), is_awake, "{wake:?}");
        }
    }

    fn write_device(root: &Authority, folder: &Path) {
        let now = UnixTime::now().as_secs();
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let request = Request {
            common_name: "w701".to_owned(),
            dns_names: vec!["w701".to_owned()],
            ip_addresses: Vec::new(),
            role: Role::Device,
            not_before: at(now - 100),
            not_after: at(now + 3_600),
            crl_url: Some("http://localhost/crl".to_owned()),
        };
        let device = root.issue(&request).unwrap();
        std::fs::write(folder.join("device.pem"), &device.chain_pem).unwrap();
        std::fs::write(folder.join("device.key"), &device.key_pem).unwrap();
    }

    fn tls(error: rustls::Error) -> DialError {
        DialError::Tls { address: "localhost:1".parse().unwrap(), source: io::Error::other(error) }
    }

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(10), CAP, 1)
    }

    fn files() -> Files {
        Files {
            identity: DeviceIdentity::Certificate,
            certificate: "/device.pem".into(),
            key: "/device.key".into(),
            roots: "/servers.pem".into(),
        }
    }
}
