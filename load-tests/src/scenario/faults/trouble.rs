//! A fault from its preparation to its end, whatever brings it about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Options;
use super::crowd::Crowd;
use super::kind::Fault;
use super::members::{self, Stage, Target, Twins};
use crate::scenario::bench::Bench;
use crate::scenario::subject::{CONNECT_DEADLINE, Subject};
use crate::simulated::Sabotage;
use crate::worker::fleet::{Fleet, Size};

/// From the moment at which a session is dead until the Switch has ended it: it waits two seconds for a farewell.
const ENDING: Duration = Duration::from_secs(3);

/// What is made before anything is measured.
pub(super) enum Prepared {
    Drips(Vec<(Stage, u32, Arc<Target>)>),
    Knocks(Arc<Target>),
    Twins(Twins),
    Doomed(Fleet),
}

/// A fault that goes on.
pub(super) struct Trouble {
    began: Instant,
    what: Kind,
}

enum Kind {
    Crowds(Vec<Crowd>),
    Frozen { fleet: Fleet, found_within: Duration },
}

impl Prepared {
    /// Makes what brings a fault about: certificates, and sessions that are to vanish.
    pub(super) async fn new(bench: &Bench, subject: &Subject, options: &Options) -> anyhow::Result<Self> {
        let (place, suite, faulty) = (&bench.place, options.common.suite, options.faulty());
        // In the audience of each message, as they would be.
        let named = |what: &str| format!("{}-{what}", subject.prefix());
        let target = |what: &str, count: u32| Target::new(place, &named(what), count, suite).map(Arc::new);
        Ok(match options.fault {
            Fault::Slowloris => {
                let third = faulty / 3;
                // Who is to come furthest comes first: those in their hello may take all the room that there is for handshakes.
                let shares =
                    [(Stage::Frame, third), (Stage::Request, third), (Stage::Hello, faulty - 2 * third)];
                let drips = shares.map(|(stage, count)| -> anyhow::Result<_> {
                    Ok((stage, count, target("slow", stage.certificates(count))?))
                });
                Self::Drips(drips.into_iter().collect::<anyhow::Result<_>>()?)
            }
            Fault::Descriptors => Self::Drips(vec![(Stage::Hello, faulty, target("slow", 0)?)]),
            Fault::MemoryCap => Self::Knocks(target("more", faulty)?),
            Fault::DuplicateIdentity => {
                Self::Twins(Twins::new(target("twin", faulty.div_ceil(2))?, &place.home)?)
            }
            Fault::HalfOpen => {
                let size = Size { sessions: faulty, spare: 0, workers_min: 1 };
                let mut fleet = bench.fleet(named("gone"), size).await?;
                fleet.connect_more(faulty, CONNECT_DEADLINE).await?;
                Self::Doomed(fleet)
            }
        })
    }

    /// Has the fault begin; returns when all of it is there.
    pub(super) async fn begin(self, options: &Options) -> anyhow::Result<Trouble> {
        let faulty = options.faulty();
        if options.common.sabotage == Some(Sabotage::NoFault) {
            return Ok(Trouble { began: Instant::now(), what: Kind::Crowds(Vec::new()) });
        }
        let what = match self {
            Self::Drips(stages) => {
                let mut crowds = Vec::new();
                for (stage, count, target) in stages {
                    let drips = |number, badge| members::drips(&target, stage, number, badge);
                    let crowd = Crowd::gather(count, drips).await;
                    crowds.push(crowd.with_context(|| format!("{stage:?}"))?);
                }
                Kind::Crowds(crowds)
            }
            Self::Knocks(target) => {
                let knocks = |number, badge| members::knocks(&target, number, badge);
                Kind::Crowds(vec![Crowd::gather(faulty, knocks).await?])
            }
            Self::Twins(twins) => {
                Kind::Crowds(vec![Crowd::gather(faulty, |number, badge| twins.twin(number, badge)).await?])
            }
            Self::Doomed(fleet) => {
                fleet.freeze()?;
                let dead_after = options.fault.deadline(options.deadline).unwrap_or_default();
                Kind::Frozen { fleet, found_within: dead_after + ENDING }
            }
        };
        Ok(Trouble { began: Instant::now(), what })
    }
}

impl Trouble {
    /// Whether the Switch has had to do with all of it, as far as that shows from here.
    pub(super) fn has_met(&self) -> bool {
        match &self.what {
            Kind::Crowds(crowds) => crowds.iter().all(|crowd| crowd.turned_away() > 0),
            Kind::Frozen { found_within, .. } => self.began.elapsed() > *found_within,
        }
    }

    /// Ends it. Who is frozen stays so until the Switch has been asked what it found.
    pub(super) fn end(self) -> anyhow::Result<Option<Fleet>> {
        match self.what {
            Kind::Crowds(crowds) => {
                crowds.into_iter().try_for_each(Crowd::disperse)?;
                Ok(None)
            }
            Kind::Frozen { fleet, .. } => Ok(Some(fleet)),
        }
    }
}
