//! The bench of a run: the cores, the Switch, peers beside it, and the floors at its start and end.

use anyhow::Context as _;

use super::Common;
use super::subject::Subject;
use crate::measure::cores::{self, Cores};
use crate::measure::handshake_floor::{self, Kind as Handshake};
use crate::measure::spread::Spread;
use crate::measure::tcp_floor;
use crate::report::{Progress, allow_descriptors, sessions_a_process};
use crate::server::own::OwnSwitch;
use crate::server::{Place, running};
use crate::simulated::OnOrder;
use crate::tls::{Resume, Suite};
use crate::told::machine::Machine;
use crate::told::sheet::Sheet;
use crate::worker::protocol::{Kind, Setup};

/// What a run has.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) cores: Cores,
    pub(crate) place: Place,
    /// Where it was started for this run.
    pub(crate) own: Option<OwnSwitch>,
    suite: Suite,
    tolerance: f64,
}

/// How the devices of a scenario behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behaviour {
    pub(crate) resume: Resume,
    pub(crate) on_order: OnOrder,
    pub(crate) returns: bool,
    pub(crate) slow_one_in: u32,
    pub(crate) keeps_promises: bool,
}

/// Which floor a scenario is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floor {
    FullHandshake,
    ResumedHandshake,
    TcpWrite,
}

impl Default for Behaviour {
    /// Full handshakes; messages are noted; a lost session is a failure.
    fn default() -> Self {
        Self {
            resume: Resume::Never,
            on_order: OnOrder::Note,
            returns: false,
            slow_one_in: 0,
            keeps_promises: false,
        }
    }
}

impl Bench {
    /// Finds the Switch, or starts one, and puts this process on a core beside it.
    pub(crate) async fn open(common: &Common) -> anyhow::Result<Self> {
        let cores = Cores::split()?;
        allow_descriptors(sessions_a_process()?)?;
        let (own, place) = match &common.home {
            Some(home) => (None, running::find(home, common.typed.clone()).await?),
            None => {
                let _starting = Progress::new("starting a Switch", 1);
                let own = OwnSwitch::start(cores.server).await?;
                let place = own.place();
                (Some(own), place)
            }
        };
        // The floors' threads pin themselves; a Switch that runs already stays where it is.
        if !cores.load.is_empty() {
            cores::pin_to(&cores.load)?;
        }
        let Common { suite, tolerance, .. } = *common;
        Ok(Self { cores, place, own, suite, tolerance })
    }

    /// An empty sheet for this machine.
    pub(crate) fn sheet(&self, scenario: &'static str) -> Sheet {
        Sheet::new(scenario, Machine::this(&self.cores, self.own.is_some()))
    }

    /// The Switch and those peers, each with a fleet that is not connected yet.
    pub(crate) async fn subjects(
        &self,
        common: &Common,
        behaviour: Behaviour,
    ) -> anyhow::Result<Vec<Subject>> {
        let mut subjects = vec![self.switch(common, behaviour).await?];
        for kind in &common.peers {
            subjects.push(self.peer(*kind, common, behaviour).await?);
        }
        Ok(subjects)
    }

    /// The Switch with a fleet.
    pub(crate) async fn switch(&self, common: &Common, behaviour: Behaviour) -> anyhow::Result<Subject> {
        let setup = self.setup(Kind::Muster, self.place.sessions.clone(), behaviour);
        Subject::switch(&self.place, setup, (common.sessions, common.workers), &self.cores).await
    }

    async fn peer(&self, kind: Kind, common: &Common, behaviour: Behaviour) -> anyhow::Result<Subject> {
        let setup = self.setup(kind, String::new(), behaviour);
        Subject::peer(setup, (common.sessions, common.workers), &self.cores).await
    }

    fn setup(&self, kind: Kind, address: String, behaviour: Behaviour) -> Setup {
        let Behaviour { resume, on_order, returns, slow_one_in, keeps_promises } = behaviour;
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
        }
    }

    /// Measures a floor: microseconds of CPU, on the server's core.
    pub(crate) async fn floor(&self, floor: Floor) -> anyhow::Result<Spread> {
        let (home, suite, cores) = (self.place.home.clone(), self.suite, self.cores.clone());
        let measuring = tokio::task::spawn_blocking(move || match floor {
            Floor::FullHandshake => handshake_floor::measure(&home, suite, Handshake::Full, cores.server),
            Floor::ResumedHandshake => {
                handshake_floor::measure(&home, suite, Handshake::Resumed, cores.server)
            }
            Floor::TcpWrite => tcp_floor::measure(&cores),
        });
        measuring.await.context("the floor")?
    }

    /// Why a run counts for nothing whose floor was different at its start and its end.
    pub(crate) fn unsteady(&self, what: &str, floors: &[f64]) -> Option<String> {
        let (first, last) = (floors.first()?, floors.last()?);
        let differs = (first - last).abs() / first.min(*last).max(f64::MIN_POSITIVE);
        (differs > self.tolerance).then(|| {
            format!(
                "the floor of {what} was {first:.1} µs at the start and {last:.1} µs at the end, {:.0} % apart where {:.0} % are \
                 allowed: the machine was busy with something else; run it again, or allow more with --tolerance",
                differs * 100.0,
                self.tolerance * 100.0
            )
        })
    }

    /// Ends the Switch, if it is this run's own.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        self.own.map_or(Ok(()), |mut own| own.kill())
    }
}
