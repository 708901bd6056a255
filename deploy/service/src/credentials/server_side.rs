//! What a listener needs for its handshakes.

use std::sync::Arc;

use muster_pki::{Certificate, CertificateDer, Role, UnixTime};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Clock;
use super::error::{CredentialError, PeerRefused};
use super::files::{Material, Source};
use super::identity::Identity;
use super::live::{Live, Reload};
use super::provider::{VERSIONS, provider};
use super::revocation::Revocation;
use super::told::Shown;
use super::trust::Peer;
use super::verify::{ClientVerifier, JudgedLater, Wants};
use crate::health::{Health, State};
use crate::shutdown::Shutdown;

/// Session tickets a client gets: one to reconnect with, one for a second connection beside it.
const TICKETS: usize = 2;

/// Whether a listener asks who connects for a certificate (C1 of trust.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// It does, and nobody comes in without.
    #[default]
    Required,
    /// It does, and who shows none comes in as somebody without one. One that is shown and not good is refused as ever.
    Optional,
    /// It does not.
    None,
}

/// A server's credentials, kept current from their files.
#[derive(Debug)]
pub struct ServerCredentials {
    live: Live<ServerConfig>,
    asks: ClientCertificate,
}

impl ServerCredentials {
    pub(super) fn load(
        source: Source,
        alpn: Vec<Vec<u8>>,
        asks: ClientCertificate,
    ) -> Result<Arc<Self>, CredentialError> {
        // One ticketer for all configurations, so that a renewal does not cost every client a full handshake.
        let ticketer = Ticketer::new()?;
        let clock = source.rules.clock.clone();
        let stays_shown = source.own.store().is_none();
        let build = Box::new(move |material: &Material| {
            let Some(own) = &material.own else {
                return Err(rustls::Error::NoCertificatesPresented);
            };
            let resolver = resolver(own, stays_shown, &clock);
            let builder = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
                .with_protocol_versions(VERSIONS)?;
            let trust = Arc::clone(&material.trust);
            let builder = match asks {
                ClientCertificate::Required => {
                    builder.with_client_cert_verifier(Arc::new(ClientVerifier { trust, wants: Wants::One }))
                }
                ClientCertificate::Optional => builder
                    .with_client_cert_verifier(Arc::new(ClientVerifier { trust, wants: Wants::OneOrNone })),
                ClientCertificate::None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(resolver);
            config.alpn_protocols.clone_from(&alpn);
            configure_sessions(&mut config, &ticketer);
            Ok(config)
        });
        Live::load(source, build).map(|live| Arc::new(Self { live, asks }))
    }

    /// Returns whether who connects is asked for a certificate.
    #[must_use]
    pub fn asks(&self) -> ClientCertificate {
        self.asks
    }

    /// Returns the configuration for the next handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.live.config()
    }

    /// Returns what QUIC shakes hands by beside `tls`, a configuration of [`Self::config`]: the same certificate, TLS 1.3 alone, and nobody judged in
    /// the handshake, whose errors are mere texts there. Call [`Self::check_peer`] after it, as after every one.
    ///
    /// # Errors
    /// The provider has no TLS 1.3.
    pub(crate) fn quic(&self, tls: &ServerConfig, alpn: &[u8]) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_details(provider(), Arc::new(self.clock().clone()))
            .with_protocol_versions(&[&TLS13])?;
        let builder = match self.asks {
            ClientCertificate::Required | ClientCertificate::Optional => {
                builder.with_client_cert_verifier(Arc::new(JudgedLater))
            }
            ClientCertificate::None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&tls.cert_resolver));
        config.alpn_protocols = vec![alpn.to_vec()];
        configure_sessions(&mut config, &tls.ticketer);
        Ok(config)
    }

    /// Judges the peer of a finished handshake, by the files as they are at present.
    ///
    /// Call it after **every** handshake with `connection.peer_certificates()`: a resumed one has not passed
    /// the verifier (spec/trust.md R2). A chain that was accepted a moment ago costs a hash.
    ///
    /// # Errors
    /// Returns [`PeerRefused`] with every rule that is broken.
    pub fn check_peer(
        &self,
        peer_certificates: Option<&[CertificateDer<'_>]>,
        now: UnixTime,
    ) -> Result<Peer, PeerRefused> {
        self.live.material().trust.admit(peer_certificates.unwrap_or_default(), None, now)
    }

    /// Judges the peer of a finished handshake, which must be one of `roles`.
    ///
    /// # Errors
    /// Returns [`PeerRefused`] as [`Self::check_peer`], and [`PeerRefused::WrongRole`].
    pub fn check_peer_role(
        &self,
        peer_certificates: Option<&[CertificateDer<'_>]>,
        roles: &[Role],
        now: UnixTime,
    ) -> Result<Peer, PeerRefused> {
        let peer = self.check_peer(peer_certificates, now)?;
        if roles.contains(&peer.role()) {
            return Ok(peer);
        }
        let wanted: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        Err(PeerRefused::WrongRole {
            certificate: Box::new(Shown::of(peer.certificate())),
            got: peer.role(),
            wanted: wanted.join(" or "),
        })
    }

    /// Returns our own certificate.
    #[must_use]
    pub fn own(&self) -> Option<Certificate> {
        self.live.own()
    }

    /// Returns a receiver of a number that rises when certificate or roots were swapped. Look at all live sessions again when it
    /// does; those whose certificate a new CRL revokes are told by [`super::Revocation::revocations`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.live.changes()
    }

    /// Returns a receiver of a number that rises with each swap and each new CRL: for listeners with few connections, which look
    /// at all of them again (spec/trust.md R3).
    #[must_use]
    pub fn rechecks(&self) -> watch::Receiver<u64> {
        self.live.rechecks()
    }

    /// Returns who is revoked.
    #[must_use]
    pub fn revocation(&self) -> &Arc<Revocation> {
        self.live.revocation()
    }

    /// Returns the time that peers are judged by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.live.clock()
    }

    /// Reads the files again and puts them to use if they changed and are valid. Blocks on the disk.
    pub fn reload(&self) -> Reload {
        self.live.reload()
    }

    /// Returns how the credentials are: degraded by refused files, or by a certificate of ours that ends soon.
    #[must_use]
    pub fn state(&self) -> State {
        self.live.state()
    }

    /// Follows the files in a task of `shutdown`; component `name` of `health` says how they are.
    pub fn watch(self: &Arc<Self>, shutdown: &Shutdown, health: &Health, name: &'static str) {
        let this = Arc::clone(self);
        self.live.watch(shutdown, shutdown.token(), health, name, move || this.live.refresh());
        let (this, token) = (Arc::clone(self), shutdown.token());
        let mut changes = self.revocation().changes();
        shutdown.spawn("revocation changes", async move {
            while let Some(Ok(())) = token.run_until_cancelled(changes.changed()).await {
                this.live.recheck();
            }
        });
    }
}

/// Named files are shown as they are; one that was chosen only while it is valid (S7).
fn resolver(own: &Identity, stays_shown: bool, clock: &Clock) -> Arc<dyn ResolvesServerCert> {
    let certified = Arc::clone(&own.certified);
    if stays_shown {
        return Arc::new(SingleCertAndKey::from(certified));
    }
    Arc::new(WhileValid { certified, not_after: own.certificate.not_after(), clock: clock.clone() })
}

/// Shows a certificate until it ends: from then on the port is closed (S7).
#[derive(Debug)]
struct WhileValid {
    certified: Arc<CertifiedKey>,
    not_after: UnixTime,
    clock: Clock,
}

impl ResolvesServerCert for WhileValid {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (self.clock.now() <= self.not_after).then(|| Arc::clone(&self.certified))
    }
}

fn configure_sessions(config: &mut ServerConfig, ticketer: &Arc<dyn ProducesTickets>) {
    config.ignore_client_order = true;
    config.ticketer = Arc::clone(ticketer);
    config.send_tls13_tickets = TICKETS;
    // Tickets alone: a cache of sessions would grow with the fleet.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Early data can be replayed.
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
}
