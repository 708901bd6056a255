//! Simulated sessions that stand while a test turns certificates, roots and CRLs beneath them.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_load_tests::simulated::{self, AfterLoss, Shared, Told};
use muster_load_tests::tls::{self, Identity};
use muster_pki::Roots;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Handshakes under way at once.
const CONNECTING_MAX: usize = 64;
/// Longer than anything that is waited for takes on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A session that ended: whose, and what its device was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) device: String,
    pub(crate) problem: String,
}

/// Sessions with one Switch. None is opened twice: a session that is lost stays lost, and is told once.
pub(crate) struct Sessions {
    address: String,
    home: PathBuf,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    teller: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    cancelled: CancellationToken,
    /// How many sessions each device has; two overlap while one is renewed.
    standing: BTreeMap<String, usize>,
    lost: VecDeque<Loss>,
}

impl Sessions {
    /// None yet; `home` has the roots of servers and of orders.
    pub(crate) fn new(address: &str, home: &Path) -> Self {
        let orders = std::fs::read(home.join("trust/orders.pem")).unwrap();
        let orders = Roots::from_pem(&orders, "orders").unwrap();
        let (teller, told) = mpsc::channel(4_096);
        Self {
            address: address.to_owned(),
            home: home.to_owned(),
            shared: Arc::new(Shared::new(address.to_owned(), orders)),
            tasks: JoinSet::new(),
            teller,
            told,
            cancelled: CancellationToken::new(),
            standing: BTreeMap::new(),
            lost: VecDeque::new(),
        }
    }

    /// Connects all of them, each of which must have its session.
    pub(crate) async fn connect(&mut self, identities: &[Identity]) {
        let (mut begun, mut connected) = (0, 0);
        while connected < identities.len() {
            while begun < identities.len() && begun - connected < CONNECTING_MAX {
                self.begin(&identities[begun]);
                begun += 1;
            }
            match self.hear(PATIENCE).await.expect("a session in time") {
                Told::Connected { device, .. } => {
                    *self.standing.entry(device).or_default() += 1;
                    connected += 1;
                }
                Told::Failed { device, problem } => self.note_loss(device, &problem),
                other @ (Told::Ordered { .. } | Told::Acked { .. }) => panic!("{other:?}"),
            }
        }
    }

    /// Makes one handshake with a device that has no session: `Ok`, and it has one, or why it is refused.
    pub(crate) async fn try_connect(&mut self, identity: &Identity) -> Result<(), String> {
        assert_eq!(self.standing.get(&identity.name), None, "{} has a session already", identity.name);
        self.begin(identity);
        loop {
            match self.hear(PATIENCE).await.expect("an answer in time") {
                Told::Connected { device, .. } => {
                    *self.standing.entry(device).or_default() += 1;
                    return Ok(());
                }
                Told::Failed { device, problem } if device == identity.name => return Err(problem),
                Told::Failed { device, problem } => self.note_loss(device, &problem),
                other @ (Told::Ordered { .. } | Told::Acked { .. }) => panic!("{other:?}"),
            }
        }
    }

    /// The next session that is lost within that time.
    pub(crate) async fn next_loss(&mut self, patience: Duration) -> Option<Loss> {
        if let Some(lost) = self.lost.pop_front() {
            return Some(lost);
        }
        match self.hear(patience).await? {
            Told::Failed { device, problem } => self.note_loss(device, &problem),
            other @ (Told::Connected { .. } | Told::Ordered { .. } | Told::Acked { .. }) => {
                panic!("{other:?}")
            }
        }
        self.lost.pop_front()
    }

    /// All that were lost so far, and in this time to come.
    pub(crate) async fn losses(&mut self, watched: Duration) -> Vec<Loss> {
        let (mut lost, until) = (Vec::new(), Instant::now() + watched);
        while let Some(one) = self.next_loss(until.saturating_duration_since(Instant::now())).await {
            lost.push(one);
        }
        lost
    }

    /// The next so many sessions that are lost.
    pub(crate) async fn next_losses(&mut self, count: usize) -> Vec<Loss> {
        let mut lost = Vec::new();
        while lost.len() < count {
            let told = lost.len();
            let next = self.next_loss(PATIENCE).await;
            lost.push(next.unwrap_or_else(|| panic!("{told} of {count} sessions were lost")));
        }
        lost
    }

    /// How many sessions stand, by what their devices know.
    pub(crate) fn standing(&self) -> usize {
        self.standing.values().sum()
    }

    /// A device that told its loss ends at once: the others are all that is left.
    pub(crate) async fn tasks_come_down_to(&mut self, wanted: usize) {
        while self.tasks.len() > wanted {
            tokio::time::timeout(PATIENCE, self.tasks.join_next()).await.unwrap();
        }
        assert_eq!(self.tasks.len(), wanted);
    }

    /// The certificate that the Switch shows to a new handshake.
    pub(crate) async fn shown(&self, identity: &Identity) -> CertificateDer<'static> {
        shown(&self.address, &self.home, identity).await
    }

    fn begin(&mut self, identity: &Identity) {
        // The roots of servers are read for each: a test may have extended them.
        let roots = tls::server_roots(&self.home).unwrap();
        let config = tls::client(&roots, identity, &[]).unwrap();
        let (shared, name) = (Arc::clone(&self.shared), identity.name.clone());
        let (told, cancelled) = (self.teller.clone(), self.cancelled.clone());
        self.tasks.spawn(simulated::run(shared, name, config, AfterLoss::End, told, cancelled));
    }

    async fn hear(&mut self, patience: Duration) -> Option<Told> {
        // The channel stays open: a teller is ours.
        tokio::time::timeout(patience, self.told.recv()).await.ok().flatten()
    }

    fn note_loss(&mut self, device: String, problem: &str) {
        match self.standing.get_mut(&device) {
            Some(standing) if *standing > 1 => *standing -= 1,
            Some(_) => drop(self.standing.remove(&device)),
            None => panic!("{device} could not connect: {problem}"),
        }
        self.lost.push_back(Loss { device, problem: problem.to_owned() });
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}

/// The certificate that a server shows to a new handshake.
pub(crate) async fn shown(address: &str, home: &Path, identity: &Identity) -> CertificateDer<'static> {
    let roots = tls::server_roots(home).unwrap();
    let config = tls::client(&roots, identity, &[]).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}
