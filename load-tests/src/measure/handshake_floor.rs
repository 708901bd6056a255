//! The floor of a connect: the server's half of a mutual-TLS handshake, in memory, with no socket.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::cores;
use super::cpu;
use super::spread::Spread;
use crate::tls::{self, Dialler, Identity, Resume, Suite};

/// Handshakes of a round.
const EACH: u32 = 60;
/// The median of them counts.
const ROUNDS: usize = 5;
/// As many as the Switch gives.
const TICKETS: usize = 2;

/// Which handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Certificates both ways.
    Full,
    /// By a ticket of an earlier one.
    Resumed,
}

/// Measures microseconds of CPU for the server's half of one handshake, on a core.
///
/// # Errors
/// The home has no development CA, or a handshake fails.
pub fn measure(home: &Path, suite: Suite, kind: Kind, core: Option<usize>) -> anyhow::Result<Spread> {
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            if let Some(core) = core {
                cores::pin(core)?;
            }
            let (client, server) = configs(home, suite, kind)?;
            // The first one fills lazily built tables, and gives the tickets.
            handshake(&client, &server)?;
            let mut rounds = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                let mut used = Duration::ZERO;
                for _ in 0..EACH {
                    let (took, was) = handshake(&client, &server)?;
                    let expected = match kind {
                        Kind::Full => HandshakeKind::Full,
                        Kind::Resumed => HandshakeKind::Resumed,
                    };
                    if was != Some(expected) {
                        bail!("a handshake of the floor was {was:?}, not {expected:?}");
                    }
                    used += took;
                }
                rounds.push(cpu::micros_each(used, u64::from(EACH)));
            }
            Spread::of(&rounds).context("no round of the handshake floor")
        });
        measuring.join().map_err(|_| anyhow::anyhow!("the handshake floor ended"))?
    })
}

fn configs(home: &Path, suite: Suite, kind: Kind) -> anyhow::Result<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let [identity] = &tls::issue_devices(home, &["floor".to_owned()])?[..] else { bail!("no certificate") };
    let resume = match kind {
        Kind::Full => Resume::Never,
        Kind::Resumed => Resume::Last,
    };
    let client = Dialler::new(&tls::server_roots(home)?, suite)?.config(identity, resume)?;
    let mut devices = RootCertStore::empty();
    let roots = home.join("trust/devices.pem");
    for root in CertificateDer::pem_file_iter(&roots).with_context(|| roots.display().to_string())? {
        devices.add(root?)?;
    }
    let provider = suite.provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(devices), Arc::clone(&provider)).build()?;
    let Identity { chain_pem, key_pem, .. } = tls::issue_server(home, "localhost")?;
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?)?;
    server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    server.send_tls13_tickets = TICKETS;
    Ok((client, Arc::new(server)))
}

/// One handshake, until the client has its tickets; gives the CPU time of the server's half.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> anyhow::Result<(Duration, Option<HandshakeKind>)> {
    let mut client = ClientConnection::new(Arc::clone(client), ServerName::try_from("localhost")?)?;
    let started = cpu::of_this_thread()?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    let mut used = cpu::of_this_thread()?.saturating_sub(started);
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    loop {
        to_server.clear();
        while client.wants_write() {
            client.write_tls(&mut to_server)?;
        }
        to_client.clear();
        let started = cpu::of_this_thread()?;
        let mut arrived = to_server.as_slice();
        while !arrived.is_empty() {
            server.read_tls(&mut arrived)?;
            server.process_new_packets()?;
        }
        while server.wants_write() {
            server.write_tls(&mut to_client)?;
        }
        used += cpu::of_this_thread()?.saturating_sub(started);
        if to_server.is_empty() && to_client.is_empty() {
            break;
        }
        let mut arrived = to_client.as_slice();
        while !arrived.is_empty() {
            client.read_tls(&mut arrived)?;
            client.process_new_packets()?;
        }
    }
    if server.is_handshaking() || client.is_handshaking() {
        bail!("a handshake of the floor did not end");
    }
    // Nothing is left to read: no data was sent.
    drop(client.reader().read(&mut [0; 1]));
    Ok((used, server.handshake_kind()))
}
