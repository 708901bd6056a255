//! What the members of crowds do: drip, knock, or push one another out.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_pki::Roots;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::crowd::{Badge, Member};
use crate::server::Place;
use crate::simulated::{self, AfterLoss, Backoff, Device, Dialled, Manners, OnOrder, Shared, Teller};
use crate::tls::{self, Dialler, Resume, Suite};
use crate::worker::tally::Tally;

/// Between two bytes.
const BYTE_EVERY: Duration = Duration::from_secs(1);
/// Connections from one source address, so that the bounds of one source are not what stops them.
const A_SOURCE: u32 = 100;
/// Drips of one certificate in their first frame: a device may have four sessions without a Hello.
const DRIPS_A_CERTIFICATE: u32 = 2;

/// Up to where a drip comes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// TCP.
    Hello,
    /// TLS.
    Request,
    /// A session that is not greeted yet.
    Frame,
}

/// The Switch that is misused, and certificates for it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: String,
    url: String,
    certificates: Vec<(String, Arc<ClientConfig>)>,
}

impl Stage {
    /// What it says a byte at a time, and goes on with for ever.
    fn says(self) -> (&'static [u8], u8) {
        match self {
            // A record of TLS with 508 bytes, in which a ClientHello begins.
            Self::Hello => (&[0x16, 3, 1, 1, 0xfc, 1, 0, 1, 0xf8, 3, 3], 0),
            Self::Request => (b"GET /v1/session HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ", b'a'),
            // A binary message of 512 bytes, masked.
            Self::Frame => (&[0x82, 0xfe, 2, 0, 0, 0, 0, 0], b'a'),
        }
    }

    /// How many certificates so many need.
    pub(super) fn certificates(self, members: u32) -> u32 {
        match self {
            Self::Hello => 0,
            Self::Request => 1,
            Self::Frame => members.div_ceil(DRIPS_A_CERTIFICATE),
        }
    }
}

impl Target {
    /// A Switch, and so many certificates of its devices, whose names begin so.
    pub(super) fn new(place: &Place, prefix: &str, count: u32, suite: Suite) -> anyhow::Result<Self> {
        let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
        let dialler = Dialler::new(&tls::server_roots(&place.home)?, suite)?;
        let issued = tls::issue_devices(&place.home, &names)?.into_iter().map(|identity| {
            let config = dialler.config(&identity, Resume::Never)?;
            Ok((identity.name, config))
        });
        let (address, url) = (place.sessions.clone(), format!("wss://{}/v1/session", place.sessions));
        Ok(Self { address, url, certificates: issued.collect::<anyhow::Result<_>>()? })
    }

    fn certificate(&self, number: u32) -> Option<&(String, Arc<ClientConfig>)> {
        self.certificates.get(usize::try_from(number).ok()?.checked_rem(self.certificates.len())?)
    }
}

/// One that comes up to a stage, sends a byte now and then, and comes again when it is ended.
pub(super) fn drips(target: &Arc<Target>, stage: Stage, number: u32, badge: Badge) -> Member {
    let target = Arc::clone(target);
    Box::pin(async move {
        let tls = target.certificate(number / DRIPS_A_CERTIFICATE).map(|(_, tls)| Arc::clone(tls));
        loop {
            // However it ends: the Switch's metrics tell by what.
            drop(Box::pin(drip_once(&target, stage, number, tls.clone(), &badge)).await);
            badge.turned_away().await;
        }
    })
}

async fn drip_once(
    target: &Target,
    stage: Stage,
    number: u32,
    tls: Option<Arc<ClientConfig>>,
    badge: &Badge,
) -> anyhow::Result<()> {
    let dialled = dialled(number);
    let place = badge.place().await;
    let tls = || tls.context("a certificate");
    match stage {
        Stage::Hello => {
            let mut stream = simulated::connect(&target.address, &dialled).await?;
            drop(place);
            drip(&mut stream, stage, badge).await?;
        }
        Stage::Request => {
            let mut stream = simulated::dial(&target.address, &dialled, tls()?).await?;
            drop(place);
            drip(&mut stream, stage, badge).await?;
        }
        Stage::Frame => {
            let stream = simulated::dial(&target.address, &dialled, tls()?).await?;
            let mut socket = simulated::upgrade(stream, &target.url, Some("muster.v1")).await?;
            drop(place);
            drip(socket.get_mut(), stage, badge).await?;
        }
    }
    Ok(())
}

/// Sends a byte now and then until the other side ends it.
async fn drip(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    stage: Stage,
    badge: &Badge,
) -> std::io::Result<()> {
    let (begin, on) = stage.says();
    let mut heard = [0; 1_024];
    for byte in begin.iter().copied().chain(std::iter::repeat(on)) {
        stream.write_all(&[byte]).await?;
        stream.flush().await?;
        badge.gathered();
        let next = tokio::time::Instant::now() + BYTE_EVERY;
        while let Ok(read) = tokio::time::timeout_at(next, stream.read(&mut heard)).await {
            if read? == 0 {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A device that asks for a session, and asks again when it is refused.
pub(super) fn knocks(target: &Arc<Target>, number: u32, badge: Badge) -> Member {
    let target = Arc::clone(target);
    Box::pin(async move {
        loop {
            drop(Box::pin(knock(&target, number, &badge)).await);
            badge.turned_away().await;
        }
    })
}

async fn knock(target: &Target, number: u32, badge: &Badge) -> anyhow::Result<()> {
    let _place = badge.place().await;
    let (_, tls) = target.certificate(number).context("a certificate")?;
    let stream = simulated::dial(&target.address, &dialled(number), Arc::clone(tls)).await?;
    simulated::upgrade(stream, &target.url, Some("muster.v1")).await?;
    Ok(())
}

/// What all twins share.
pub(super) struct Twins {
    target: Arc<Target>,
    shared: Arc<Shared>,
    tally: Arc<Tally>,
}

impl Twins {
    /// For a Switch.
    pub(super) fn new(target: Arc<Target>, home: &Path) -> anyhow::Result<Self> {
        let orders = home.join("trust/orders.pem");
        let pem = std::fs::read(&orders).with_context(|| orders.display().to_string())?;
        let roots = Roots::from_pem(&pem, "trust/orders.pem")?;
        let shared = Arc::new(Shared::new(target.address.clone(), roots));
        Ok(Self { target, shared, tally: Arc::new(Tally::new(false)?) })
    }

    /// A device of which there are two: it comes back each time that the other pushed it out.
    pub(super) fn twin(&self, number: u32, badge: Badge) -> Member {
        let manners = Manners {
            after_loss: AfterLoss::End,
            backoff: Backoff { base: Duration::ZERO, cap: Duration::ZERO },
            on_order: OnOrder::Ack,
            reports_answers: false,
            farewell: false,
            slow: false,
            dialled: dialled(number),
            wishes: None,
            sabotage: None,
        };
        let certificate = self.target.certificate(number / 2).cloned();
        let (shared, teller) = (Arc::clone(&self.shared), Teller::Tally(Arc::clone(&self.tally)));
        Box::pin(async move {
            let Some((name, tls)) = certificate else { return };
            // Each has a store of its own.
            let mut device = Device::with_manners(shared, name, manners, teller);
            let never = CancellationToken::new();
            loop {
                let (place, tls) = (badge.place().await, Arc::clone(&tls));
                device = Box::pin(device.run(tls, Instant::now(), place, never.clone())).await;
                badge.turned_away().await;
            }
        })
    }
}

fn dialled(number: u32) -> Dialled {
    // Beside those of workers, which begin with 127.10.
    let source = u8::try_from(number / A_SOURCE % 250).unwrap_or_default();
    Dialled { source: Some(IpAddr::V4(Ipv4Addr::new(127, 200, source + 1, 1))), receive_buffer: None }
}
