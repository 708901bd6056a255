//! A certificate that is revoked while its device is connected: that session ends within a second, and no other (R3).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_load_tests::dev_fleet::DevFleet;
use muster_load_tests::simulated::{self, AfterLoss, Shared, Told};
use muster_load_tests::tls::{self, Identity};
use muster_pki::authority::{Authority, Revoked};
use muster_pki::{Certificate, Roots, UnixTime};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Sessions that are to stay.
const OTHERS: usize = 2_000;
/// Handshakes under way at once.
const CONNECTING_MAX: usize = 64;
/// R3: from the CRL's rename to the client's end of stream.
const PROMISED: Duration = Duration::from_secs(1);
/// How long the others are watched after that.
const WATCHED: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_revoked_session_ends_within_a_second_of_the_crl_and_two_thousand_others_stay() {
    let fleet = DevFleet::start(0).unwrap();
    let home = fleet.ready.home.clone();
    let names: Vec<String> = (0..=OTHERS).map(|number| format!("revocation-{number}")).collect();
    let identities = tls::issue_devices(&home, &names).unwrap();
    let mut sessions = Sessions::connect(&fleet, &identities).await;

    let crl = crl_against(&home, &identities[7]);
    let (new, current) = (home.join("pki/devices/crl.new"), home.join("pki/devices/crl.pem"));
    std::fs::write(&new, crl).unwrap();
    let renamed = Instant::now();
    std::fs::rename(&new, &current).unwrap();
    let (device, problem) = sessions.next_loss(PATIENCE).await.expect("the revoked session ends");
    let took = renamed.elapsed();
    let other = sessions.next_loss(WATCHED).await;

    eprintln!("from the CRL's rename to the end of the stream: {} ms, {OTHERS} others", took.as_millis());
    assert_eq!(device, identities[7].name);
    assert!(problem.to_lowercase().contains("certificate"), "the close reason: {problem}");
    assert!(took < PROMISED, "{took:?}");
    assert_eq!(other, None, "a session of nobody's concern was lost");
    // It is refused from now on, as every handshake would be.
    assert!(sessions.connect_one(&identities[7]).await.is_err());
    sessions.tasks_come_down_to(OTHERS).await;
}

struct Sessions {
    shared: Arc<Shared>,
    roots: Arc<rustls::RootCertStore>,
    tasks: JoinSet<()>,
    teller: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    cancelled: CancellationToken,
}

impl Sessions {
    async fn connect(fleet: &DevFleet, identities: &[Identity]) -> Self {
        let address = fleet.ready.switch.trim_start_matches("wss://").split('/').next().unwrap().to_owned();
        let orders = std::fs::read(fleet.ready.home.join("trust/orders.pem")).unwrap();
        let orders = Roots::from_pem(&orders, "orders").unwrap();
        let (teller, told) = mpsc::channel(4_096);
        let mut this = Self {
            shared: Arc::new(Shared::new(address, orders)),
            roots: tls::server_roots(&fleet.ready.home).unwrap(),
            tasks: JoinSet::new(),
            teller,
            told,
            cancelled: CancellationToken::new(),
        };
        let (mut begun, mut connected) = (0, 0);
        while connected < identities.len() {
            while begun < identities.len() && begun - connected < CONNECTING_MAX {
                this.begin(&identities[begun]);
                begun += 1;
            }
            match tokio::time::timeout(PATIENCE, this.told.recv()).await.unwrap().unwrap() {
                Told::Connected { .. } => connected += 1,
                other @ (Told::Ordered { .. } | Told::Acked { .. } | Told::Failed { .. }) => {
                    panic!("{other:?}")
                }
            }
        }
        this
    }

    fn begin(&mut self, identity: &Identity) {
        let config = tls::client(&self.roots, identity, &[]).unwrap();
        let (shared, name) = (Arc::clone(&self.shared), identity.name.clone());
        let (told, cancelled) = (self.teller.clone(), self.cancelled.clone());
        self.tasks.spawn(simulated::run(shared, name, config, AfterLoss::End, told, cancelled));
    }

    async fn connect_one(&mut self, identity: &Identity) -> Result<(), String> {
        self.begin(identity);
        match tokio::time::timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap() {
            Told::Failed { problem, .. } => Err(problem),
            Told::Connected { .. } | Told::Ordered { .. } | Told::Acked { .. } => Ok(()),
        }
    }

    /// The next session that is lost, and what its device was told.
    async fn next_loss(&mut self, patience: Duration) -> Option<(String, String)> {
        match tokio::time::timeout(patience, self.told.recv()).await.ok()?.unwrap() {
            Told::Failed { device, problem } => Some((device, problem)),
            other @ (Told::Connected { .. } | Told::Ordered { .. } | Told::Acked { .. }) => {
                panic!("{other:?}")
            }
        }
    }

    /// A device that told its loss ends at once: the others are all that is left.
    async fn tasks_come_down_to(&mut self, wanted: usize) {
        while self.tasks.len() > wanted {
            tokio::time::timeout(PATIENCE, self.tasks.join_next()).await.unwrap();
        }
        assert_eq!(self.tasks.len(), wanted);
    }
}

/// The devices' CA's next CRL, with one certificate on it, and the CA beside it.
fn crl_against(home: &Path, identity: &Identity) -> String {
    let read = |name: &str| std::fs::read_to_string(home.join("pki/devices").join(name)).unwrap();
    let authority = Authority::from_pem(&read("issuing.pem"), &read("issuing.key")).unwrap();
    let leaf = CertificateDer::from_pem_slice(identity.chain_pem.as_bytes()).unwrap();
    let now = UnixTime::now();
    let next = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 86_400));
    let serial_hex = Certificate::from_der(&leaf).unwrap().serial_hex();
    let crl = authority.crl(&[Revoked { serial_hex, at: now }], 1_000, now, next).unwrap();
    crl + &authority.certificate_pem()
}
