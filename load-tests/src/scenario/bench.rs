//! The bench of a run: the cores, the Switch, peers beside it, and the floors at its start and end.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use super::Common;
use super::subject::Subject;
use crate::measure::cores::{self, Cores};
use crate::measure::handshake_floor::{self, Kind as Handshake};
use crate::measure::spread::Spread;
use crate::measure::tcp_floor::{self, Write};
use crate::moment::Moment;
use crate::peer::server::Asks;
use crate::report::{Progress, allow_descriptors, sessions_a_process};
use crate::server::own::{OwnSwitch, Settings};
use crate::server::{Place, admin, running};
use crate::simulated::{OnOrder, Sabotage};
use crate::tls::{Resume, Suite};
use crate::told::machine::{Machine, Switch};
use crate::told::sheet::Sheet;
use crate::worker::fleet::{Fleet, Size};
use crate::worker::protocol::{Kind, Setup};

/// The metric of the Switch that has a value for each shard.
const SESSIONS: &str = "muster_switch_sessions";

/// What a run has.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) cores: Cores,
    pub(crate) place: Place,
    /// Where it was started for this run.
    own: Option<OwnSwitch>,
    suite: Suite,
    sabotage: Option<Sabotage>,
    tolerance: Option<f64>,
    /// Every floor that was measured, in order.
    floors: BTreeMap<Floor, Vec<f64>>,
}

/// How the devices of a scenario behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behaviour {
    pub(crate) resume: Resume,
    pub(crate) on_order: OnOrder,
    pub(crate) returns: bool,
    pub(crate) slow_one_in: u32,
    pub(crate) keeps_promises: bool,
    /// Devices beside the sessions, which come when others go.
    pub(crate) spare: u32,
}

/// Which floor a scenario is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Floor {
    FullHandshake,
    ResumedHandshake,
    TcpWrite(Write),
}

impl Default for Behaviour {
    /// Full handshakes; orders are acked; a lost session is a failure.
    fn default() -> Self {
        Self {
            resume: Resume::Never,
            on_order: OnOrder::Ack,
            returns: false,
            slow_one_in: 0,
            keeps_promises: false,
            spare: 0,
        }
    }
}

impl Floor {
    fn words(self) -> String {
        match self {
            Self::FullHandshake => "a full handshake".to_owned(),
            Self::ResumedHandshake => "a resumed handshake".to_owned(),
            Self::TcpWrite(Write { message_bytes, messages }) => {
                format!("a write of {messages} × {message_bytes} bytes to a socket")
            }
        }
    }
}

impl Bench {
    /// Finds the Switch, or starts one, puts this process on a core beside it, and measures how fast the machine is now.
    pub(crate) async fn open(common: &Common) -> anyhow::Result<Self> {
        Self::open_with(common, Settings::of(common.sessions, common.ping_interval)).await
    }

    /// The same, where a Switch of this run's own has settings of its own.
    pub(crate) async fn open_with(common: &Common, settings: Settings) -> anyhow::Result<Self> {
        let cores = Cores::split()?;
        let own_limit = sessions_a_process()?;
        allow_descriptors(own_limit)?;
        let (own, place) = match &common.home {
            Some(home) => (None, running::find(home, common.typed.clone()).await?),
            None => {
                if !common.peers.is_empty() {
                    check_descriptors(common.sessions, own_limit)?;
                }
                let _starting = Progress::new("starting a Switch", 1);
                let own = OwnSwitch::start(cores.server, settings).await?;
                let place = own.place();
                (Some(own), place)
            }
        };
        // The floors' threads pin themselves; a Switch that runs already stays where it is.
        if !cores.load.is_empty() {
            cores::pin_to(&cores.load)?;
        }
        let Common { suite, tolerance, sabotage, .. } = *common;
        let mut bench = Self { cores, place, own, suite, sabotage, tolerance, floors: BTreeMap::new() };
        if tolerance.is_some() {
            bench.floor(Floor::FullHandshake).await?;
        }
        Ok(bench)
    }

    /// An empty sheet for this machine.
    pub(crate) fn sheet(&self, scenario: &'static str) -> Sheet {
        let switch = Switch { pid: self.place.pid, suite: self.suite };
        Sheet::new(scenario, Machine::this(&self.cores, self.own.is_some(), &switch))
    }

    /// The Switch and those peers, each with a fleet that is not connected yet.
    pub(crate) async fn subjects(
        &self,
        common: &Common,
        behaviour: Behaviour,
    ) -> anyhow::Result<Vec<Subject>> {
        let mut subjects = vec![self.switch(common, behaviour).await?];
        for kind in &common.peers {
            let setup = self.setup(*kind, String::new(), behaviour);
            let asks = match self.sabotage {
                Some(Sabotage::OpenPeer) => Asks::Nobody,
                Some(Sabotage::EndSession | Sabotage::MissMessage | Sabotage::NoFault) | None => {
                    Asks::Everybody
                }
            };
            subjects.push(Subject::peer(setup, asks, size(common, behaviour), &self.cores).await?);
        }
        Ok(subjects)
    }

    /// The Switch with a fleet.
    pub(crate) async fn switch(&self, common: &Common, behaviour: Behaviour) -> anyhow::Result<Subject> {
        let setup = self.setup(Kind::Muster, self.place.sessions.clone(), behaviour);
        let is_own = self.own.is_some();
        Subject::switch(&self.place, is_own, setup, size(common, behaviour), &self.cores).await
    }

    /// Another fleet with the Switch, whose devices' names begin so.
    pub(crate) async fn fleet(&self, prefix: String, size: Size) -> anyhow::Result<Fleet> {
        let setup = self.setup(Kind::Muster, self.place.sessions.clone(), Behaviour::default());
        // What goes wrong on purpose goes wrong in the first one.
        let setup = Setup { prefix, sabotage: None, ..setup };
        Fleet::start(&setup, size, &self.cores, "muster").await
    }

    fn setup(&self, kind: Kind, address: String, behaviour: Behaviour) -> Setup {
        let Behaviour { resume, on_order, returns, slow_one_in, keeps_promises, spare: _ } = behaviour;
        Setup {
            kind,
            address,
            home: self.place.home.clone(),
            prefix: format!("load-{:08x}", rand::random::<u32>()),
            sources: Vec::new(),
            suite: self.suite,
            resume,
            on_order,
            returns,
            slow_one_in,
            keeps_promises,
            sabotage: self.sabotage.filter(|_| kind == Kind::Muster),
        }
    }

    /// Measures a floor: microseconds of CPU, on the server's core.
    pub(crate) async fn floor(&mut self, floor: Floor) -> anyhow::Result<f64> {
        let (home, suite, cores) = (self.place.home.clone(), self.suite, self.cores.clone());
        let measuring = tokio::task::spawn_blocking(move || match floor {
            Floor::FullHandshake => handshake_floor::measure(&home, suite, Handshake::Full, cores.server),
            Floor::ResumedHandshake => {
                handshake_floor::measure(&home, suite, Handshake::Resumed, cores.server)
            }
            Floor::TcpWrite(write) => tcp_floor::measure(&cores, write),
        });
        let measured = measuring.await.context("the floor")??.median;
        self.floors.entry(floor).or_default().push(measured);
        Ok(measured)
    }

    /// What was measured of a floor.
    pub(crate) fn floors(&self, floor: Floor) -> &[f64] {
        self.floors.get(&floor).map(Vec::as_slice).unwrap_or_default()
    }

    /// Kills a server as a power cut would and starts it again; gives when it listened where sessions connect.
    pub(crate) async fn restart(&mut self, subject: &mut Subject) -> anyhow::Result<Moment> {
        if subject.is_peer() {
            return subject.restart_peer().await;
        }
        let own = self.own.as_mut().context("no Switch of its own")?;
        own.kill()?;
        let listens_at = own.restart().await?;
        self.place = own.place();
        subject.follow(&self.place);
        Ok(listens_at)
    }

    /// Measures every floor once more, says in the sheet where one moved, and ends the Switch, if it is this run's own.
    pub(crate) async fn close(mut self, sheet: &mut Sheet) -> anyhow::Result<()> {
        if let Some(tolerance) = self.tolerance {
            let floors: Vec<Floor> = self.floors.keys().copied().collect();
            for floor in floors {
                self.floor(floor).await?;
                sheet.problems.extend(unsteady(&floor.words(), self.floors(floor), tolerance));
            }
        }
        if let Some(admin) = &self.place.admin {
            // Each tells how many it holds. Who does not tell was measured all the same.
            sheet.machine.shards = admin::metric(admin, SESSIONS).await.unwrap_or_default().len();
        }
        self.own.map_or(Ok(()), |mut own| own.kill())
    }
}

fn size(common: &Common, behaviour: Behaviour) -> Size {
    Size { sessions: common.sessions, spare: behaviour.spare, workers_min: common.workers }
}

/// Refuses more sessions than a peer has descriptors for. The Switch takes as many tables of them as it needs.
fn check_descriptors(sessions: u32, limit: u32) -> anyhow::Result<()> {
    ensure!(
        sessions <= limit,
        "{sessions} sessions: a peer may hold {limit} on this machine, since each takes a descriptor; raise the hard limit \
         (`ulimit -Hn` as root, LimitNOFILE= in a unit), ask for fewer sessions, or leave --peer away"
    );
    Ok(())
}

/// Why a run counts for nothing whose floor moved.
fn unsteady(what: &str, floors: &[f64], tolerance: f64) -> Option<String> {
    let spread = Spread::of(floors)?;
    (spread.width() > tolerance).then(|| {
        format!(
            "the floor of {what} was between {:.1} and {:.1} µs, {:.0} % apart where {:.0} % are allowed: the machine was busy with \
             something else; run it again, or allow more with --tolerance",
            spread.min,
            spread.max,
            spread.width() * 100.0,
            tolerance * 100.0
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_that_moved_in_the_middle_is_told() {
        assert_eq!(unsteady("x", &[10.0, 11.0, 10.0], 0.15), None);
        assert_eq!(unsteady("x", &[], 0.15), None);

        let told = unsteady("x", &[10.0, 13.0, 10.0], 0.15).unwrap_or_default();

        assert!(told.contains("between 10.0 and 13.0 µs, 30 % apart where 15 %"), "{told}");
    }

    #[test]
    fn more_sessions_than_a_peer_has_descriptors_for_are_refused() {
        let refused = check_descriptors(100_000, 19_744).unwrap_err().to_string();

        assert!(refused.contains("may hold 19744") && refused.contains("ulimit -Hn"), "{refused}");
        assert!(check_descriptors(19_744, 19_744).is_ok());
    }
}
