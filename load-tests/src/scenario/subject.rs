//! One server under load: its process, its fleet, and how something is sent to all of the fleet.

mod pusher;

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

pub(crate) use self::pusher::{Prepared, To};
use self::pusher::{Publisher, Pusher};

use crate::measure::cores::Cores;
use crate::measure::cpu;
use crate::measure::spread::Spread;
use crate::moment::Moment;
use crate::operator::Operator;
use crate::peer::server::{Asks, PeerServer};
use crate::report::{Latencies, memory_bytes};
use crate::server::Place;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::worker::fleet::{Connected, Fleet, Size};
use crate::worker::protocol::{Awaited, Kind, Sent, Setup, Tag};

/// All of one message.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(60);
/// All sessions.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(600);
/// What a Switch does by default.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(60);
/// Between two readings of memory.
const READING: Duration = Duration::from_millis(500);
/// Memory has settled when so many readings in a row differ by no more than [`SETTLED`] or [`SETTLED_BYTES`].
const READINGS: usize = 5;
/// See [`READINGS`].
const SETTLED: f64 = 0.005;
/// See [`READINGS`].
const SETTLED_BYTES: f64 = (256 << 10) as f64;
/// Until memory has settled at the latest.
const SETTLING: Duration = Duration::from_secs(60);
/// Go collects what is idle every two minutes, and not before.
const GO_COLLECTS: Duration = Duration::from_secs(130);
/// Fewer sessions than these tell nothing of the memory of one.
pub(crate) const GROWTH_SESSIONS_MIN: u32 = 1_000;
/// The SQL of an order, which the fleet's devices do not run.
pub(crate) const QUESTION: &str = "SELECT name, version FROM os";
/// Until a server that was started again takes messages.
const RETURN: Duration = Duration::from_secs(300);
/// Between two attempts to reach one.
const LOOK: Duration = Duration::from_millis(20);

/// A server with its fleet.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// The peer's version.
    version: Option<String>,
    pub(crate) fleet: Fleet,
    pub(crate) sessions: u32,
    /// Where the process is known.
    pub(crate) pid: Option<u32>,
    place: Place,
    prefix: String,
    pusher: Pusher,
    server: Option<PeerServer>,
    /// Whether it goes on after this run, which then leaves nothing in it.
    outlasts: bool,
    /// Of each session.
    pub(crate) ping_interval: Duration,
}

/// When devices answer what is sent to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answering {
    /// When they have it.
    AtOnce,
    /// When all have it, so that what sending costs is told apart from what answers cost.
    Afterwards,
}

/// One or several messages to all.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// Of the server, for one message to one device, from its submission to the last ack, microseconds; where its process is known. The acks
    /// are not in it where they come afterwards.
    pub(crate) cpu_micros: Option<f64>,
    /// The same, for an ack that came afterwards.
    pub(crate) ack_micros: Option<f64>,
    /// The same, for what came before: the order that is prepared and signed.
    pub(crate) prepare_micros: Option<f64>,
    pub(crate) latencies: Latencies,
    /// The bytes of one message.
    pub(crate) bytes: usize,
    /// Messages that came to a device once more.
    pub(crate) repeats: u64,
}

/// How connecting went, and what it cost the server.
#[derive(Debug)]
pub(crate) struct ConnectedAt {
    pub(crate) connected: Connected,
    /// For one session, microseconds; where its process is known.
    pub(crate) cpu_micros: Option<f64>,
    pub(crate) per_second: f64,
}

impl Subject {
    /// The Switch.
    pub(crate) async fn switch(
        place: &Place,
        is_own: bool,
        setup: Setup,
        size: Size,
        cores: &Cores,
    ) -> anyhow::Result<Self> {
        let operator = Operator::connect(&place.home, &place.operator)
            .await
            .with_context(|| format!("the operator API at {}", place.operator))?;
        let fleet = Fleet::start(&setup, size, cores, "muster").await?;
        Ok(Self {
            name: "muster",
            version: None,
            fleet,
            sessions: size.sessions,
            pid: place.pid,
            place: place.clone(),
            prefix: setup.prefix,
            pusher: Pusher::Orders(operator),
            server: None,
            outlasts: !is_own,
            ping_interval: PING_INTERVAL,
        })
    }

    /// A peer, which is started and ended with this.
    pub(crate) async fn peer(setup: Setup, asks: Asks, size: Size, cores: &Cores) -> anyhow::Result<Self> {
        let name = match setup.kind {
            Kind::Nats => "nats",
            Kind::Mosquitto => "mosquitto",
            Kind::Muster => bail!("the Switch is no peer"),
        };
        let server = PeerServer::start(setup.kind, asks, &setup.home, cores.server).await?;
        let setup = Setup { address: server.address.clone(), ..setup };
        let publisher = Publisher::open(&setup).await.with_context(|| name)?;
        let fleet = Fleet::start(&setup, size, cores, name).await?;
        Ok(Self {
            name,
            version: Some(server.version.clone()),
            fleet,
            sessions: size.sessions,
            pid: Some(server.pid()),
            place: Place {
                home: setup.home,
                sessions: setup.address.clone(),
                operator: String::new(),
                admin: None,
                pid: Some(server.pid()),
            },
            prefix: setup.prefix,
            pusher: Pusher::Messages(Box::new(publisher)),
            server: Some(server),
            outlasts: false,
            ping_interval: PING_INTERVAL,
        })
    }

    /// Whether it is a peer, and not the Switch.
    pub(crate) fn is_peer(&self) -> bool {
        self.server.is_some()
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// What the names of its devices begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// An empty column, with a peer's version.
    pub(crate) fn column(&self) -> Column {
        let mut column = Column::default();
        if let Some(version) = &self.version {
            column.put("version", "version", "", Figure::Text(version.clone()));
        }
        column
    }

    /// Has all devices connect that have no session.
    pub(crate) async fn connect(&mut self) -> anyhow::Result<ConnectedAt> {
        let standing = self.fleet.counts().await?.standing;
        self.connect_more(self.sessions - standing).await
    }

    /// Has so many devices more connect.
    pub(crate) async fn connect_more(&mut self, count: u32) -> anyhow::Result<ConnectedAt> {
        let before = self.cpu()?;
        let connected = self.fleet.connect_more(count, CONNECT_DEADLINE).await?;
        let after = self.cpu_at_rest().await?;
        let per_second = f64::from(count) / connected.took.as_secs_f64();
        Ok(ConnectedAt { connected, cpu_micros: each(before, after, u64::from(count)), per_second })
    }

    /// Has all devices connect, a tenth of them first; gives what each of the others added to the server's memory, where its process is known
    /// and they are enough to tell.
    pub(crate) async fn connect_and_weigh(&mut self) -> anyhow::Result<(Connected, Option<u64>)> {
        if self.pid.is_none() || self.sessions < GROWTH_SESSIONS_MIN {
            return Ok((self.connect().await?.connected, None));
        }
        let tenth = self.sessions / 10;
        let mut connected = self.connect_more(tenth).await?.connected;
        let before = self.memory().await?;
        connected.add(&self.connect().await?.connected);
        let each = growth((tenth, before), (self.sessions, self.memory().await?))?;
        Ok((connected, Some(each)))
    }

    /// Ends all sessions, and waits until the server has done what was left to do.
    pub(crate) async fn disconnect(&mut self) -> anyhow::Result<()> {
        self.fleet.disconnect(self.sessions).await?;
        self.quiet().await
    }

    /// Sends so many messages to all devices at once, of so many bytes at a peer, and waits until all have them and have said so.
    pub(crate) async fn push(&mut self, count: u32, bytes: usize) -> anyhow::Result<Pushed> {
        self.push_to(self.sessions, count, bytes, Answering::AtOnce).await
    }

    /// The same, where so many of the devices have a session.
    pub(crate) async fn push_to(
        &mut self,
        standing: u32,
        count: u32,
        bytes: usize,
        answering: Answering,
    ) -> anyhow::Result<Pushed> {
        self.quiet().await?;
        let before = self.cpu()?;
        let prepared = self.prepare(count, To::All, standing, QUESTION).await?;
        self.fleet.clear().await?;
        self.fleet.hush(answering == Answering::Afterwards).await?;
        let begun = self.cpu_at_rest().await?;
        let answers = self.pusher.answers();
        let at = Moment::now();
        let tags = self.send(prepared, bytes).await?;
        let wanted = u64::from(standing) * u64::from(count);
        self.fleet.wait("had the message", Awaited::Arrivals, wanted, ARRIVAL_DEADLINE).await?;
        let sent_at = match answering {
            Answering::AtOnce => None,
            Answering::Afterwards => self.cpu_at_rest().await?,
        };
        self.fleet.hush(false).await?;
        self.pusher.wait_for_answers(answers + wanted, ARRIVAL_DEADLINE).await?;
        let after = self.cpu_at_rest().await?;
        let sent: Vec<Sent> = tags.into_iter().map(|tag| Sent { tag, at }).collect();
        let arrived = self.fleet.arrived(&sent).await?;
        // What comes once more may come after the last of what was waited for.
        let repeats = self.fleet.intact().await?.repeats;
        if arrived.late > 0 || arrived.standing.count() != wanted {
            bail!(
                "{}: {} of {wanted} messages came, {} came late, and {} others",
                self.name,
                arrived.standing.count(),
                arrived.late,
                arrived.others
            );
        }
        Ok(Pushed {
            cpu_micros: each(begun, sent_at.or(after), wanted),
            ack_micros: sent_at.and_then(|sent_at| each(Some(sent_at), after, wanted)),
            prepare_micros: each(before, begun, wanted),
            latencies: arrived.standing,
            bytes: arrived.bytes,
            repeats,
        })
    }

    /// Prepares and signs orders with this SQL; for a peer, makes tags.
    pub(crate) async fn prepare(
        &mut self,
        count: u32,
        to: To,
        targets: u32,
        sql: &str,
    ) -> anyhow::Result<Prepared> {
        self.pusher
            .prepare(count, &to.audience(&self.prefix), targets, sql)
            .await
            .map(|what| Prepared { what, to })
    }

    /// Sends what was prepared, all at once, of so many bytes at a peer; gives what each is known by.
    pub(crate) async fn send(&mut self, prepared: Prepared, bytes: usize) -> anyhow::Result<Vec<Tag>> {
        self.pusher.send(prepared, bytes).await
    }

    /// The operator API.
    pub(crate) fn operator(&self) -> anyhow::Result<&Operator> {
        match &self.pusher {
            Pusher::Orders(operator) => Ok(operator),
            Pusher::Messages(_) => bail!("{} has no operators", self.name),
        }
    }

    /// How many answers of devices a peer has delivered; none at the Switch, which tells of them itself.
    pub(crate) fn answers(&self) -> u64 {
        self.pusher.answers()
    }

    /// Waits until a peer has delivered so many answers.
    pub(crate) async fn wait_for_answers(&mut self, count: u64, within: Duration) -> anyhow::Result<()> {
        self.pusher.wait_for_answers(count, within).await
    }

    /// Kills the peer and starts it again; gives when it listened.
    pub(crate) async fn restart_peer(&mut self) -> anyhow::Result<Moment> {
        let server = self.server.as_mut().context("no peer")?;
        let listens_at = server.restart().await?;
        self.pid = Some(server.pid());
        Ok(listens_at)
    }

    /// Goes on with a Switch that was started again.
    pub(crate) fn follow(&mut self, place: &Place) {
        self.place = place.clone();
        self.pid = place.pid;
    }

    /// Reaches a server that starts, so that messages can be sent.
    pub(crate) async fn reconnect(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + RETURN;
        loop {
            match self.pusher.reconnect(&self.place).await {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// The CPU time of the server.
    pub(crate) fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        self.pid.map(cpu::of_process).transpose()
    }

    /// The CPU time of the server when it has done what was left to do.
    pub(crate) async fn cpu_at_rest(&self) -> anyhow::Result<Option<Duration>> {
        match self.pid {
            Some(pid) => cpu::until_quiet(pid, f64::from(self.sessions) / self.ping_interval.as_secs_f64())
                .await
                .map(Some),
            None => Ok(None),
        }
    }

    /// Waits until the server has done what was left to do.
    pub(crate) async fn quiet(&self) -> anyhow::Result<()> {
        self.cpu_at_rest().await.map(drop)
    }

    /// The PSS of the server, when it has settled.
    pub(crate) async fn memory(&self) -> anyhow::Result<u64> {
        let pid = self.pid.context("the process of the Switch is not known; give --pid")?;
        if self.name == "nats" {
            tokio::time::sleep(GO_COLLECTS).await;
        }
        let deadline = tokio::time::Instant::now() + SETTLING;
        let mut readings: Vec<f64> = Vec::new();
        loop {
            let memory = memory_bytes(pid)?;
            #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
            readings.push(memory as f64);
            let last = readings.get(readings.len().saturating_sub(READINGS)..).unwrap_or_default();
            let Some(Spread { min, max, .. }) = Spread::of(last) else { continue };
            if last.len() == READINGS && max - min <= SETTLED_BYTES.max(max * SETTLED) {
                return Ok(memory);
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "{}: memory does not settle within {SETTLING:?}: between {min:.0} and {max:.0} bytes",
                self.name
            );
            tokio::time::sleep(READING).await;
        }
    }

    /// Puts its figures into the sheet, and whatever it lost; ends the fleet, and a peer with it. What goes on has its devices removed.
    pub(crate) async fn close(mut self, column: Column, sheet: &mut Sheet) -> anyhow::Result<()> {
        if let Err(error) = self.fleet.intact().await {
            sheet.problems.push(format!("{error:#}"));
        }
        sheet.add(self.name, self.is_peer(), column);
        drop(self.fleet);
        if self.outlasts
            && let Err(error) = self.pusher.remove(&To::All.audience(&self.prefix)).await
        {
            sheet.problems.push(format!("its devices are left in the Switch: {error:#}"));
        }
        match self.server {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }
}

/// Microseconds of CPU for each of so many.
pub(crate) fn each(before: Option<Duration>, after: Option<Duration>, count: u64) -> Option<f64> {
    let used = before.zip(after).map(|(before, after)| after.saturating_sub(before))?;
    Some(cpu::micros_each(used, count))
}

/// What a session more costs, by the memory with few sessions and with many.
pub(crate) fn growth(few: (u32, u64), many: (u32, u64)) -> anyhow::Result<u64> {
    let ((few, before), (many, after)) = (few, many);
    ensure!(
        after > before && many > few,
        "memory was {before} bytes with {few} sessions and {after} with {many}: it tells nothing of a session; measure more"
    );
    Ok((after - before) / u64::from(many - few))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_costs_what_memory_grows_by_and_nothing_is_no_figure() {
        assert_eq!(growth((100, 1_000_000), (1_000, 5_500_000)).unwrap(), 5_000);
        assert!(
            growth((100, 1_000_000), (1_000, 999_999)).unwrap_err().to_string().contains("tells nothing")
        );
    }
}
