//! `muster-load faults`: what the healthy sessions notice while others are slow, gone, doubled or too many.
//!
//! The same messages are sent without the fault and under it. [`kind`] says what each fault is, [`trouble`] brings it about.

mod crowd;
mod kind;
mod members;
mod pushes;
mod trouble;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

pub(crate) use self::kind::Fault;
use self::kind::{Counter, Sign};
use self::pushes::{Pushed, push};
use self::trouble::Prepared;
use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::Subject;
use crate::report::{resident_bytes, sessions_a_process};
use crate::server::admin;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::Scale;

/// Messages before those that count.
const WARM_UP: u32 = 2;
/// Beyond its deadline, until a fault shows at the latest: who waits for room among the handshakes does so for a deadline, too.
const SHOWS_WITHIN: Duration = Duration::from_secs(30);
/// Until the Switch's metrics tell of what has happened.
const TOLD: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// What the Switch tells operators of a duplicate identity begins so.
const REPORTED: &str = "two machines with one ";

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) common: Common,
    pub(crate) fault: Fault,
    /// How many bring it about, where that is said.
    pub(crate) faulty: Option<u32>,
    /// Messages without it, and at least as many under it.
    pub(crate) messages: u32,
    /// How long the Switch waits for those who are slow or gone, where that is said.
    pub(crate) deadline: Option<Duration>,
}

/// What the Switch has counted, by what became of it.
type Counts = BTreeMap<&'static str, BTreeMap<String, u64>>;

/// What was measured.
struct Measured {
    without: Pushed,
    with: Pushed,
    /// What the Switch counted under the fault.
    counted: Counts,
    /// Its memory before, and at most so far.
    memory: (u64, u64),
    /// The share of a core that it had meanwhile, percent.
    core_share: Option<f64>,
    /// What it tells operators; nothing where that is not asked.
    reported: Option<String>,
}

impl Options {
    fn faulty(&self) -> u32 {
        self.faulty.unwrap_or_else(|| self.fault.faulty_default())
    }

    fn check(&self) -> anyhow::Result<()> {
        let (fault, faulty) = (self.fault.name(), self.faulty());
        if self.common.home.is_some() {
            bail!("faults change the bounds of the Switch, so each starts one of its own: leave --home away");
        }
        let least = self.fault.faulty_min();
        ensure!(faulty >= least, "--faulty {faulty}: {fault} wants at least {least}");
        let most = sessions_a_process()?;
        ensure!(
            self.common.sessions.saturating_add(faulty) <= most,
            "--sessions and --faulty: together at most {most}, the descriptors of a process on this machine"
        );
        let waits = self.fault.deadline(self.deadline).is_some();
        ensure!(
            self.deadline.is_none() || waits,
            "--deadline: nobody waits for one under {fault}; leave it away"
        );
        Ok(())
    }

    /// How many messages it takes at most until the fault shows.
    fn messages_max(&self) -> u32 {
        let deadline = self.fault.deadline(self.deadline).unwrap_or_default();
        self.messages.max(pushes::in_time(deadline * 3 + SHOWS_WITHIN))
    }
}

/// Runs the scenario.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Sheet> {
    options.check()?;
    let Options { common, fault, .. } = options;
    let bench = Bench::open_with(common, fault.settings(options)).await?;
    let mut sheet = bench.sheet(fault.name());
    sheet.figures.put("sessions", "healthy sessions", "", Figure::Count(common.sessions.into()));
    sheet.figures.put("faulty", fault.faulty_words(), "", Figure::Count(options.faulty().into()));
    if let Some(deadline) = fault.deadline(options.deadline) {
        let words = "  deadline of the Switch for them, the longest of one stage";
        sheet.figures.put("deadline_seconds", words, "s", Figure::Number(deadline.as_secs_f64()));
    }
    let mut subject = bench.switch(common, Behaviour::default()).await?;
    subject.connect().await?;
    let measured = measure(&bench, &mut subject, options).await?;
    let mut column = subject.column();
    measured.tell(options, &mut column);
    let dead = subject.fleet.counts().await?.lost;
    column.put("dead_sessions", "healthy sessions that died", "", Figure::Count(dead.into()));
    sheet.problems.extend(measured.problems(options));
    let series = vec![
        ("without the fault".to_owned(), measured.without.latencies.curve()),
        ("under it".to_owned(), measured.with.latencies.curve()),
    ];
    let title = "From when a message was to be sent until a healthy device has it";
    sheet.lines(title, ("ms", "% of devices"), Scale::Logarithmic, series);
    subject.close(column, &mut sheet).await?;
    bench.close(&mut sheet).await?;
    Ok(sheet)
}

async fn measure(bench: &Bench, subject: &mut Subject, options: &Options) -> anyhow::Result<Measured> {
    let admin = bench.place.admin.as_deref().context("the Switch has no metrics")?;
    let pid = subject.pid.context("the Switch has no process")?;
    let prepared = Prepared::new(bench, subject, options).await?;
    let warm_up = push(subject, "messages to warm up", (WARM_UP, WARM_UP), || true).await?;
    subject.quiet().await?;
    let messages = options.messages;
    let mut without = push(subject, "messages without the fault", (messages, messages), || true).await?;
    without.missed += warm_up.missed;
    subject.quiet().await?;
    let ((steady_bytes, _), before) = (resident_bytes(pid)?, counts(admin).await?);

    let trouble = prepared.begin(options).await?;
    let (cpu, begun) = (subject.cpu()?, tokio::time::Instant::now());
    let bounds = (messages, options.messages_max());
    let with = push(subject, "messages under the fault", bounds, || trouble.has_met()).await?;
    let cpu = cpu.zip(subject.cpu()?).map(|(before, after)| after.saturating_sub(before));
    let core_share = cpu.map(|used| used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0);
    let (_, peak_bytes) = resident_bytes(pid)?;
    let frozen = trouble.end()?;
    let counted = counted_since(admin, &before, options).await?;
    drop(frozen);
    let reported = match options.fault {
        Fault::DuplicateIdentity => Some(reported(subject).await?),
        Fault::Slowloris | Fault::HalfOpen | Fault::Descriptors | Fault::MemoryCap => None,
    };
    Ok(Measured { without, with, counted, memory: (steady_bytes, peak_bytes), core_share, reported })
}

/// What the Switch has counted since its start.
async fn counts(admin: &str) -> anyhow::Result<Counts> {
    let mut all = Counts::new();
    for counter in Counter::ALL {
        let name = counter.name();
        all.insert(name, admin::counted(admin, name, counter.label(), counter.among()).await?);
    }
    Ok(all)
}

/// What it has counted since then, as soon as that tells of the fault, or the time for it is over.
async fn counted_since(admin: &str, before: &Counts, options: &Options) -> anyhow::Result<Counts> {
    let deadline = tokio::time::Instant::now() + TOLD;
    loop {
        // Without descriptors it may not answer at once.
        let asked = counts(admin).await.map(|after| grown(before, after));
        let is_late = tokio::time::Instant::now() > deadline;
        match asked {
            Ok(counted) if is_late || missing(&counted, options).is_empty() => return Ok(counted),
            Err(error) if is_late => return Err(error),
            Ok(_) | Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// What has grown, and by how much.
fn grown(before: &Counts, after: Counts) -> Counts {
    let since = |(name, counts): (&'static str, BTreeMap<String, u64>)| {
        let earlier = before.get(name);
        let grown = counts.into_iter().filter_map(|(label, count)| {
            let was = earlier.and_then(|earlier| earlier.get(&label)).copied().unwrap_or_default();
            (count > was).then(|| (label, count - was))
        });
        (name, grown.collect())
    };
    after.into_iter().map(since).collect()
}

fn count(counted: &Counts, sign: &Sign) -> u64 {
    counted.get(sign.counter.name()).and_then(|counts| counts.get(sign.label)).copied().unwrap_or_default()
}

/// The signs of a fault that are not to be seen.
fn missing(counted: &Counts, options: &Options) -> Vec<Sign> {
    let least = options.fault.least(options.faulty());
    options.fault.signs().iter().filter(|sign| count(counted, sign) < least).copied().collect()
}

/// What the Switch tells operators of a duplicate identity; nothing, if it does not.
async fn reported(subject: &Subject) -> anyhow::Result<String> {
    let warnings = subject.operator()?.warnings().await?;
    Ok(warnings.into_iter().find(|warning| warning.starts_with(REPORTED)).unwrap_or_default())
}

impl Measured {
    fn tell(&self, options: &Options, column: &mut Column) {
        let (without, with) = (self.without.latencies.quantiles(), self.with.latencies.quantiles());
        column.put(
            "latency_without",
            "message at healthy devices, without the fault",
            "",
            Figure::Latencies(without),
        );
        column.put("latency_with", "  under it", "", Figure::Latencies(with));
        let ratio = with.p99_ms / without.p99_ms.max(f64::MIN_POSITIVE);
        column.put(
            "p99_with_by_without",
            "  p99 under it ÷ p99 without (goal: at most 2)",
            "×",
            Figure::Number(ratio),
        );
        column.put("messages_with", "  messages under it", "", Figure::Count(self.with.messages.into()));
        for sign in options.fault.signs() {
            column.put(sign.key, sign.words, "", Figure::Count(count(&self.counted, sign)));
        }
        for (counter, key, words) in [
            (Counter::Handshakes, "handshakes", "what the Switch counted until its end: handshakes"),
            (Counter::Ended, "sessions_ended", "  sessions that ended"),
        ] {
            let counts = self.counted.get(counter.name()).into_iter().flatten();
            let told: Vec<String> = counts.map(|(label, count)| format!("{label} {count}")).collect();
            let told = if told.is_empty() { "none".to_owned() } else { told.join(", ") };
            column.put(key, words, "", Figure::Text(told));
        }
        if let Some(reported) = &self.reported {
            column.put("reported", "  and what it tells operators", "", Figure::Text(reported.clone()));
        }
        if let Some(share) = self.core_share {
            column.put(
                "core_share_percent",
                "share of a core of the Switch under it",
                "%",
                Figure::Number(share),
            );
        }
        let (steady, peak) = self.memory;
        column.put("steady_bytes", "memory of the Switch before (resident)", "bytes", Figure::Count(steady));
        column.put("peak_bytes", "  its peak so far, by the kernel", "bytes", Figure::Count(peak));
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        let by_steady = peak as f64 / steady.max(1) as f64;
        column.put("peak_by_steady", "  peak ÷ before", "×", Figure::Number(by_steady));
    }

    /// Why it counts for nothing.
    fn problems(&self, options: &Options) -> Vec<String> {
        let mut problems = Vec::new();
        let least = options.fault.least(options.faulty());
        for sign in missing(&self.counted, options) {
            problems.push(format!(
                "the fault did not take place: {}{{{}=\"{}\"}} rose by {}, at least {least} wanted",
                sign.counter.name(),
                sign.counter.label(),
                sign.label,
                count(&self.counted, &sign)
            ));
        }
        if self.reported.as_ref().is_some_and(String::is_empty) {
            problems.push("the Switch tells operators of no duplicate identity".to_owned());
        }
        for (pushed, when) in [(&self.without, "without the fault"), (&self.with, "under it")] {
            if pushed.missed > 0 {
                problems.push(format!(
                    "{} times a device that had a session did not get a message, {when}",
                    pushed.missed
                ));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> Counts {
        let counts = pairs.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect();
        Counts::from([("muster_switch_handshakes_total", counts)])
    }

    #[test]
    fn only_what_has_grown_since_is_told_and_by_how_much() {
        let (before, after) =
            (counts(&[("ok", 5), ("full", 1)]), counts(&[("ok", 5), ("full", 4), ("tls", 2)]));

        assert_eq!(grown(&before, after), counts(&[("full", 3), ("tls", 2)]));
    }
}
