//! What a program that calls a Switch or Background Channel needs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use muster_pki::{Certificate, CertificateDer, UnixTime};
use rustls::ClientConfig;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore as _, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Clock;
use super::error::{CredentialError, PeerRefused};
use super::files::{Material, Source};
use super::live::{Live, Reload};
use super::provider::{VERSIONS, provider};
use super::revocation::Revocation;
use super::trust::Peer;
use super::verify::{RefusedInHandshake, Remembering, ServerVerifier};
use crate::health::{Health, State};
use crate::shutdown::Shutdown;

/// Servers whose tickets are kept; a client knows a Switch or two and a Background Channel.
const SERVERS_REMEMBERED: usize = 8;

/// A client's credentials, kept current from their files.
#[derive(Debug)]
pub struct ClientCredentials {
    live: Live<ClientConfig>,
    tickets: Arc<ArcSwap<ClientSessionMemoryCache>>,
    /// Those of QUIC, whose tickets hold more.
    quic_tickets: Arc<ArcSwap<ClientSessionMemoryCache>>,
}

impl ClientCredentials {
    pub(super) fn load(source: Source, alpn: Vec<Vec<u8>>) -> Result<Arc<Self>, CredentialError> {
        let clock = source.rules.clock.clone();
        let tickets = Arc::new(ArcSwap::from_pointee(ClientSessionMemoryCache::new(SERVERS_REMEMBERED)));
        let current_tickets = Arc::clone(&tickets);
        let quic_tickets = Arc::new(ArcSwap::from_pointee(ClientSessionMemoryCache::new(SERVERS_REMEMBERED)));
        let current_quic_tickets = Arc::clone(&quic_tickets);
        let build = Box::new(move |material: &Material| {
            let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
                .with_protocol_versions(VERSIONS)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(ServerVerifier(Arc::clone(&material.trust))));
            let mut config = match &material.own {
                Some(own) => builder
                    .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.certified)))),
                None => builder.with_no_client_auth(),
            };
            config.alpn_protocols.clone_from(&alpn);
            // Those of a certificate that we showed before would have us show it again.
            let tickets = Arc::new(ClientSessionMemoryCache::new(SERVERS_REMEMBERED));
            current_tickets.store(Arc::clone(&tickets));
            current_quic_tickets.store(Arc::new(ClientSessionMemoryCache::new(SERVERS_REMEMBERED)));
            config.resumption = Resumption::store(tickets);
            // Early data can be replayed.
            config.enable_early_data = false;
            Ok(config)
        });
        Live::load(source, build).map(|live| Arc::new(Self { live, tickets, quic_tickets }))
    }

    /// Returns the configuration for the next handshake of QUIC. It leaves what is wrong with the server's certificate in the second value, since QUIC
    /// hands on a mere text.
    pub(super) fn quic(&self, alpn: &[u8]) -> (ClientConfig, Arc<RefusedInHandshake>) {
        let mut config = ClientConfig::clone(&self.live.config());
        let refused = Arc::new(RefusedInHandshake::default());
        let verifier = Remembering::new(Arc::clone(&self.live.material().trust), Arc::clone(&refused));
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        config.alpn_protocols = vec![alpn.to_vec()];
        let tickets = Arc::clone(&*self.quic_tickets.load());
        config.resumption = Resumption::store(tickets);
        (config, refused)
    }

    /// Returns the configuration for the next handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.live.config()
    }

    /// Judges the server of a finished handshake, resumed ones included; `name` is the host it was called by.
    ///
    /// # Errors
    /// Returns [`PeerRefused`] with every rule that is broken.
    pub fn check_server(
        &self,
        peer_certificates: Option<&[CertificateDer<'_>]>,
        name: &str,
        now: UnixTime,
    ) -> Result<Peer, PeerRefused> {
        self.live.material().trust.admit(peer_certificates.unwrap_or_default(), Some(name), now)
    }

    /// Forgets the tickets of a server: each brings back the chain that it showed at first, whatever it shows by now.
    pub(super) fn forget_tickets(&self, server: &ServerName<'static>) {
        let tickets = self.tickets.load();
        while tickets.take_tls13_ticket(server).is_some() {}
        tickets.remove_tls12_session(server);
        let tickets = self.quic_tickets.load();
        while tickets.take_tls13_ticket(server).is_some() {}
    }

    /// Returns our own certificate, if we have one.
    #[must_use]
    pub fn own(&self) -> Option<Certificate> {
        self.live.own()
    }

    /// Returns whether there is a store of certificates, and none in it that will do: nothing is shown to any server (S6).
    #[must_use]
    pub fn lacks_own(&self) -> bool {
        self.live.lacks_own()
    }

    /// Returns what is wrong with the credentials; `None`: nothing.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match self.state() {
            State::Degraded(problem) | State::Failed(problem) => Some(problem),
            State::Starting | State::Ready => None,
        }
    }

    /// Returns who is revoked.
    #[must_use]
    pub fn revocation(&self) -> &Arc<Revocation> {
        self.live.revocation()
    }

    /// Returns the time that servers are judged by.
    pub(super) fn clock(&self) -> &Clock {
        self.live.clock()
    }

    /// Returns a receiver of a number that rises with each swap of certificate or trust.
    pub(super) fn rechecks(&self) -> watch::Receiver<u64> {
        self.live.rechecks()
    }

    /// Returns a receiver of a number that rises with each swap.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.live.changes()
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
        self.watch_until(shutdown, shutdown.token(), health, name);
    }

    /// As [`Self::watch`], until `stop` is cancelled: other credentials take the place of these.
    pub fn watch_until(
        self: &Arc<Self>,
        shutdown: &Shutdown,
        stop: CancellationToken,
        health: &Health,
        name: &'static str,
    ) {
        let this = Arc::clone(self);
        self.live.watch(shutdown, stop, health, name, move || this.live.refresh());
    }
}
