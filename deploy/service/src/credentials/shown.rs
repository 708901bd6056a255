//! The chain that a server shows, whatever it is: to be judged or shown to people, never to be trusted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_pki::{CertificateDer, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Address;
use super::provider::{VERSIONS, provider};

/// Why a server showed nothing.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {problem}")]
pub struct NothingShown {
    /// The server.
    pub address: Address,
    /// Why.
    pub problem: String,
}

/// Connects, and returns the certificates that the server shows, the leaf first. Nothing is sent but the handshake, and no
/// certificate of ours is shown.
///
/// # Errors
/// Nobody answers within `deadline`, or not in TLS.
pub async fn shown_by(
    address: &Address,
    deadline: Duration,
) -> Result<Vec<CertificateDer<'static>>, NothingShown> {
    let seen = Arc::new(Seen::default());
    let shaken = tokio::time::timeout(deadline, shake(address, Arc::clone(&seen))).await;
    let chain = std::mem::take(&mut *seen.chain.lock().unwrap_or_else(PoisonError::into_inner));
    // A server that asks for our certificate may end the handshake; what it showed before counts.
    if !chain.is_empty() {
        return Ok(chain);
    }
    let problem = match shaken {
        Ok(Ok(())) => "it showed no certificate".to_owned(),
        Ok(Err(error)) => error,
        Err(_) => format!("no TLS handshake within {deadline:?}"),
    };
    Err(NothingShown { address: address.clone(), problem })
}

async fn shake(address: &Address, seen: Arc<Seen>) -> Result<(), String> {
    let tcp = TcpStream::connect((address.host(), address.port()))
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    let name = ServerName::try_from(address.host().to_owned()).map_err(|error| error.to_string())?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(seen)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map(drop)
        .map_err(|error| format!("TLS: {error}"))
}

/// Notes what is shown and lets it pass: the caller judges it by our rules, or shows it.
#[derive(Debug, Default)]
struct Seen {
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = std::iter::once(end_entity).chain(intermediates);
        let shown = shown.map(|der| der.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(ServerCertVerified::assertion())
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
