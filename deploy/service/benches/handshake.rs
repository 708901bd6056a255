//! What revocation costs a handshake (R7): full and resumed handshakes through memory, with an index of 100,000 entries and
//! with none, taking turns in one run. A handshake should cost no more than 1.02 times of what it costs without.
//!
//! Each pair is the same device at two servers that differ in nothing else, the first of the two in turn. A *first* handshake
//! is of a device that the server has not seen: its whole chain is judged, and every certificate of it looked up. In a
//! *further* one the verdict is remembered, and a *resumed* one has no verifier, but the check after it (R2).
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_pki::authority::{Authority, Issued, Request, Revoked};
use muster_pki::{Policy, Role, TrailOf, UnixTime};
use muster_service::credentials::{
    self, ClientCredentials, Clock, CredentialFiles, Keeping, OneDevice, Own, Revocation, RevocationFiles,
    RevocationSettings, Rules, ServerCredentials, Servers,
};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection};
use tempfile::TempDir;

const ENTRIES: u32 = 100_000;
/// Devices, each with a certificate of its own: what is looked up is not always in the processor's cache.
const DEVICES: usize = 200;
/// Each round tells one ratio, of the medians of its pairs.
const ROUNDS: usize = 15;
const GOAL: f64 = 1.02;
const DAY: u64 = 86_400;
const YEARS: Duration = Duration::from_secs(10 * 365 * DAY);

/// Which handshakes are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    First,
    Further,
    Resumed,
}

/// What one handshake took.
#[derive(Debug, Clone, Copy)]
struct Took {
    /// On both sides.
    whole: Duration,
    /// On the server's alone, with the check after it.
    server: Duration,
}

fn main() {
    let pki = Pki::new();
    let sides = [pki.rules(Some(ENTRIES)), pki.rules(None)];
    assert_eq!(sides[0].revocation.index().len(), usize::try_from(ENTRIES).unwrap());
    assert!(sides[1].revocation.index().is_empty());
    let clients = sides.each_ref().map(|rules| pki.clients(rules));
    println!(
        "{ENTRIES} entries against none; {ROUNDS} rounds of {DEVICES} pairs, ratio of each round's medians"
    );
    for kind in [Kind::First, Kind::Further, Kind::Resumed] {
        let mut rounds = Vec::new();
        let mut servers = sides.each_ref().map(|rules| pki.server(rules));
        for _ in 0..ROUNDS {
            if kind == Kind::First {
                // New ones, that remember nobody.
                servers = sides.each_ref().map(|rules| pki.server(rules));
            } else {
                drop(round(&servers, &clients, Kind::First));
            }
            rounds.push(round(&servers, &clients, kind));
        }
        tell(kind, "server", &rounds, |took| took.server);
        tell(kind, "whole", &rounds, |took| took.whole);
    }
}

/// A handshake of each device with each server.
fn round(
    servers: &[Arc<ServerCredentials>; 2],
    clients: &[Vec<Arc<ClientConfig>>; 2],
    kind: Kind,
) -> Vec<[Took; 2]> {
    let pair = |number: usize| {
        let mut took = [None; 2];
        // Neither has the warmer caches all the time.
        for turn in 0..2 {
            let side = (number + turn) % 2;
            let config = &clients[side][number];
            let config = match kind {
                Kind::First | Kind::Further => full(config),
                Kind::Resumed => {
                    let config = resuming(config);
                    assert_eq!(handshake(&servers[side], &config).1, HandshakeKind::Full);
                    config
                }
            };
            let (one, got) = handshake(&servers[side], &config);
            assert_eq!(got == HandshakeKind::Resumed, kind == Kind::Resumed, "{got:?}");
            took[side] = Some(one);
        }
        took.map(Option::unwrap)
    };
    (0..DEVICES).map(pair).collect()
}

fn tell(kind: Kind, what: &str, rounds: &[Vec<[Took; 2]>], of: impl Fn(&Took) -> Duration) {
    let side = |round: &[[Took; 2]], side: usize| {
        median(round.iter().map(|pair| of(&pair[side]).as_secs_f64() * 1e6).collect())
    };
    let mut ratios: Vec<f64> = rounds.iter().map(|round| side(round, 0) / side(round, 1)).collect();
    ratios.sort_by(f64::total_cmp);
    let of_all = |number| median(rounds.iter().map(|round| side(round, number)).collect());
    let ratio = median(ratios.clone());
    println!(
        "{:<8} {what:<7} with {:8.1} µs   without {:8.1} µs   ratio {ratio:.4} ({:.4} to {:.4}, middle half {:.4} to {:.4}){}",
        format!("{kind:?}").to_lowercase(),
        of_all(0),
        of_all(1),
        ratios[0],
        ratios[ratios.len() - 1],
        ratios[ratios.len() / 4],
        ratios[ratios.len() * 3 / 4],
        if ratio <= GOAL { "" } else { "   ABOVE THE GOAL" }
    );
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn full(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// A configuration that remembers tickets, and has none yet.
fn resuming(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.resumption = Resumption::in_memory_sessions(1);
    Arc::new(config)
}

/// A handshake through memory, with the server's check of the peer after it; tickets are taken.
fn handshake(credentials: &ServerCredentials, config: &Arc<ClientConfig>) -> (Took, HandshakeKind) {
    let begun = Instant::now();
    let mut on_server = Duration::ZERO;
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let started = Instant::now();
    let mut server = ServerConnection::new(credentials.config()).unwrap();
    on_server += started.elapsed();
    let mut wire = Vec::with_capacity(16 * 1024);
    while client.wants_write() || server.wants_write() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let started = Instant::now();
        let mut read = wire.as_slice();
        while !read.is_empty() {
            server.read_tls(&mut read).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut answer = Vec::with_capacity(16 * 1024);
        while server.wants_write() {
            server.write_tls(&mut answer).unwrap();
        }
        on_server += started.elapsed();
        let mut read = answer.as_slice();
        while !read.is_empty() {
            client.read_tls(&mut read).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let started = Instant::now();
    let peer = credentials.check_peer(server.peer_certificates(), credentials.clock().now()).unwrap();
    on_server += started.elapsed();
    assert_eq!(peer.role(), Role::Device);
    (Took { whole: begun.elapsed(), server: on_server }, server.handshake_kind().unwrap())
}

/// A PKI in a folder.
struct Pki {
    folder: TempDir,
    devices: Vec<CredentialFiles>,
}

impl Pki {
    fn new() -> Self {
        let now = UnixTime::now();
        let root = |name| Authority::root(name, YEARS, now).unwrap();
        let (device_root, server_root) = (root("Device Root"), root("Server Root"));
        let issuing = device_root.issue_authority("Device CA", YEARS, now).unwrap();
        let mut pki = Self { folder: TempDir::new().unwrap(), devices: Vec::new() };
        pki.write("devices.pem", &device_root.certificate_pem());
        pki.write("servers.pem", &server_root.certificate_pem());
        pki.write_pair("server", &issue(&server_root, "localhost", Role::Switch));
        let entry = |number: u32| Revoked { serial_hex: format!("{:032x}", serial(number)), at: now };
        let next = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 30 * DAY));
        let list = issuing.crl(&(0..ENTRIES).map(entry).collect::<Vec<_>>(), 1, now, next).unwrap();
        pki.write("devices.crl", &(list + &issuing.certificate_pem()));
        pki.write("device-root.crl", &device_root.crl(&[], 1, now, next).unwrap());
        pki.write("server-root.crl", &server_root.crl(&[], 1, now, next).unwrap());
        let names = (0..DEVICES).map(|number| format!("device-{number}"));
        pki.devices =
            names.map(|name| pki.write_pair(&name, &issue(&issuing, &name, Role::Device))).collect();
        pki
    }

    /// Rules with the lists, or without any revocation.
    fn rules(&self, entries: Option<u32>) -> Rules {
        let clock = Clock::system();
        let files = RevocationFiles {
            crls: ["devices.crl", "device-root.crl", "server-root.crl"].map(|name| self.path(name)).to_vec(),
            roots: ["devices.pem", "servers.pem"].map(|name| self.path(name)).to_vec(),
            own: None,
            servers: None,
            kept: Keeping::Nothing,
        };
        let settings = RevocationSettings { fetch: false, ..RevocationSettings::default() };
        let revocation = match entries {
            Some(_) => Revocation::load(files, settings, clock.clone()).unwrap(),
            None => Revocation::none(clock.clone()),
        };
        Rules {
            revocation,
            policy: Policy::default(),
            trail: TrailOf::Off,
            clock,
            device: OneDevice::default(),
            roles: Vec::new(),
        }
    }

    fn server(&self, rules: &Rules) -> Arc<ServerCredentials> {
        let files = CredentialFiles::pem(self.path("server.pem"), self.path("server.key"));
        let roles = vec![(Role::Device, self.path("devices.pem"))];
        credentials::server(files, roles, vec![b"muster/1".to_vec()], Role::Switch, rules.clone()).unwrap()
    }

    fn clients(&self, rules: &Rules) -> Vec<Arc<ClientConfig>> {
        let client = |files: &CredentialFiles| -> Arc<ClientCredentials> {
            let servers = Servers::Roots(self.path("servers.pem"));
            let alpn = vec![b"muster/1".to_vec()];
            // Each is a device of its own.
            let each = Rules { device: OneDevice::default(), ..rules.clone() };
            credentials::client(Own::Files(files.clone()), servers, alpn, Role::Device, each).unwrap()
        };
        self.devices.iter().map(|files| client(files).config()).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn write_pair(&self, name: &str, issued: &Issued) -> CredentialFiles {
        self.write(&format!("{name}.pem"), &issued.chain_pem);
        self.write(&format!("{name}.key"), &issued.key_pem);
        CredentialFiles::pem(self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }
}

fn issue(authority: &Authority, name: &str, role: Role) -> Issued {
    let now = UnixTime::now().as_secs();
    let at = |seconds: u64| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let request = Request {
        common_name: name.to_owned(),
        dns_names: vec![name.to_owned()],
        ip_addresses: Vec::new(),
        role,
        not_before: at(now - 3_600),
        not_after: at(now + 30 * DAY),
        crl_url: Some("http://pki.localhost/devices.crl".to_owned()),
    };
    authority.issue(&request).unwrap()
}

/// A number of 127 bits as CAs make them at random, always the same for one entry.
fn serial(number: u32) -> u128 {
    let mixed = (u128::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    mixed & (u128::MAX >> 1) | (1 << 120)
}
