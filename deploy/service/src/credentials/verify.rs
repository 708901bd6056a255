//! rustls' verifiers over [`Trust`]. They check the whole chain by our rules, never by rustls' own.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use muster_pki::{CertificateDer, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::ServerName;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::error::PeerRefused;
use super::provider::provider;
use super::trust::Trust;

/// Judges client certificates of full handshakes.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    /// Whom it lets in.
    pub(super) trust: Arc<Trust>,
    /// Whether a certificate must be shown.
    pub(super) wants: Wants,
}

/// How many certificates a client has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    One,
    /// What is shown is judged all the same.
    OneOrNone,
}

/// Takes every certificate whose key the client has: of QUIC, where the error of a handshake is a mere text. Who is let in is
/// judged right after it, as of a resumed one.
#[derive(Debug)]
pub(super) struct JudgedLater;

/// Judges server certificates of full handshakes.
#[derive(Debug)]
pub(super) struct ServerVerifier(pub(super) Arc<Trust>);

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A client has one certificate for us; hints would tell strangers the names of our CAs.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.wants == Wants::One
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.trust.admit(&chain(end_entity, intermediates), None, now) {
            Ok(_peer) => Ok(ClientCertVerified::assertion()),
            Err(refused) => Err(refusal(refused)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for JudgedLater {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = server_name.to_str();
        match self.0.admit(&chain(end_entity, intermediates), Some(&name), now) {
            Ok(_peer) => Ok(ServerCertVerified::assertion()),
            Err(refused) => Err(refusal(refused)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What was wrong with a server's certificate in a handshake, for whoever gets its error as a text.
#[derive(Debug, Default)]
pub(super) struct RefusedInHandshake(Mutex<Option<PeerRefused>>);

impl RefusedInHandshake {
    pub(super) fn take(&self) -> Option<PeerRefused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A [`ServerVerifier`] that keeps its refusal, too.
#[derive(Debug)]
pub(super) struct Remembering {
    judge: ServerVerifier,
    refused: Arc<RefusedInHandshake>,
}

impl Remembering {
    pub(super) fn new(trust: Arc<Trust>, refused: Arc<RefusedInHandshake>) -> Self {
        Self { judge: ServerVerifier(trust), refused }
    }
}

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).inspect_err(
            |error| {
                *self.refused.0.lock().unwrap_or_else(PoisonError::into_inner) =
                    PeerRefused::of(error).cloned();
            },
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

fn chain<'a>(
    end_entity: &CertificateDer<'a>,
    intermediates: &[CertificateDer<'a>],
) -> Vec<CertificateDer<'a>> {
    std::iter::once(end_entity).chain(intermediates).cloned().collect()
}

/// Keeps the whole text for our own logs; the peer only learns `certificate_unknown`.
fn refusal(refused: PeerRefused) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Told(refused)))))
}

/// A refusal on its way through rustls, which prints the `Debug` form of errors that are not its own.
#[derive(thiserror::Error)]
#[error(transparent)]
struct Told(PeerRefused);

impl fmt::Debug for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl PeerRefused {
    /// Finds the refusal inside the error of a handshake: a `rustls::Error`, or the `io::Error` around one.
    #[must_use]
    pub fn of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let inner = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        let tls = match inner {
            Some(inner) => inner.downcast_ref::<Error>(),
            None => error.downcast_ref::<Error>(),
        };
        let Some(Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) = tls else {
            return None;
        };
        other.downcast_ref::<Told>().map(|told| &told.0)
    }
}
