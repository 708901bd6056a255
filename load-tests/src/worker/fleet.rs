//! The coordinator's side: starts workers, tells all of them the same, adds up what they answer.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::future::{join_all, try_join_all};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command as Process};

use super::protocol::{Answer, Arrived, Awaited, Churn, Command, Counts, Reach, Sent, Setup};
use crate::history::Promise;
use crate::measure::cores::Cores;
use crate::moment::Moment;
use crate::report::{Latencies, Progress, sessions_a_process};

/// Sessions of one worker at most: below a hard limit of 20,000 descriptors, with room for those that close.
const SESSIONS_A_WORKER: u32 = 16_000;
/// Certificates that a worker makes between two answers, so that it hears soon when it is to end.
const PREPARED_AT_ONCE: u32 = 200;
/// Handshakes under way at once, all workers together: enough to keep a server busy, few enough that none waits for a deadline.
pub(crate) const HANDSHAKES_AT_ONCE: u32 = 64;
/// Source addresses of one worker: 500 sessions from each.
const SOURCES: u8 = 32;
/// How long a worker waits between two answers while something is waited for.
const SLICE: Duration = Duration::from_millis(200);
/// What is waited for will not come any more when nothing of it came for so long.
const STALLED: Duration = Duration::from_secs(15);
/// A worker that does not answer any more.
const SILENT: Duration = Duration::from_secs(60);

/// The workers of one fleet.
#[derive(Debug)]
pub(crate) struct Fleet {
    workers: Vec<Worker>,
    /// Those that are to have a session, and those that come when some of these go.
    devices: u32,
    name: &'static str,
    /// Sessions that may end without being told to, and attempts that may give none; more end the run.
    losses_allowed: u32,
}

#[derive(Debug)]
struct Worker {
    /// Ends with the fleet.
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// The numbers of its devices.
    from: u32,
    share: u32,
}

/// How connecting went.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) took: Duration,
    pub(crate) latencies: Latencies,
    pub(crate) full: u64,
    pub(crate) resumed: u64,
}

impl Connected {
    /// Adds those that connected after these.
    pub(crate) fn add(&mut self, other: &Self) {
        self.took += other.took;
        self.latencies.merge(&other.latencies.pairs());
        self.full += other.full;
        self.resumed += other.resumed;
    }

    /// The share of resumed handshakes.
    pub(crate) fn resumed_share(&self) -> f64 {
        share(self.resumed, self.full + self.resumed)
    }
}

/// What came of what was sent, at all devices.
#[derive(Debug)]
pub(crate) struct AllArrived {
    pub(crate) standing: Latencies,
    pub(crate) late: u64,
    pub(crate) bytes: usize,
    pub(crate) others: u64,
    pub(crate) reaches: Vec<Reach>,
}

impl Fleet {
    /// Starts as many workers as the sessions need, and has them make their devices.
    pub(crate) async fn start(
        setup: &Setup,
        size: Size,
        cores: &Cores,
        name: &'static str,
    ) -> anyhow::Result<Self> {
        let Size { sessions, spare, workers_min } = size;
        let devices = sessions + spare;
        let most = SESSIONS_A_WORKER.min(sessions_a_process()?).max(1);
        let count = devices.div_ceil(most).max(workers_min.min(sessions)).max(1);
        let mut workers = Vec::new();
        let mut from = 0;
        for number in 0..count {
            let share = (devices - from).div_ceil(count - number);
            workers.push(Worker::start(number, (from, share), setup, cores).await?);
            from += share;
        }
        let mut fleet = Self { workers, devices, name, losses_allowed: 0 };
        fleet.prepare().await?;
        Ok(fleet)
    }

    /// Freezes all workers: their devices say nothing any more, and none of their connections ends. Nothing can be asked of them from here
    /// on; they end with the fleet.
    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        for worker in &self.workers {
            let pid = worker.child.id().context("a worker has ended")?;
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGSTOP)?;
        }
        Ok(())
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Lets so many sessions end without being told to.
    pub(crate) fn allow_losses(&mut self, count: u32) {
        self.losses_allowed = count;
    }

    async fn prepare(&mut self) -> anyhow::Result<()> {
        let mut progress = Progress::new("issuing certificates", self.devices);
        loop {
            let mut counts = Counts::default();
            let commands = self.workers.iter_mut().map(Worker::prepare);
            for made in try_join_all(commands).await? {
                counts.add(&made);
            }
            progress.show(counts.prepared);
            if counts.prepared >= self.devices {
                return Ok(());
            }
        }
    }

    /// Has so many more connect, spread over the workers, as fast as it goes.
    pub(crate) async fn connect_more(&mut self, count: u32, within: Duration) -> anyhow::Result<Connected> {
        let each = self.standing().await?;
        let standing: u32 = each.iter().sum();
        self.tell(&Command::Clear).await?;
        let workers = u32::try_from(self.workers.len())?;
        let left: Vec<u32> = self
            .workers
            .iter()
            .zip(each)
            .map(|(worker, standing)| worker.share.saturating_sub(standing))
            .collect();
        let shares = divided(count, &left);
        let at_once = HANDSHAKES_AT_ONCE.div_ceil(workers);
        let started = Moment::now();
        self.each(|number| Command::Connect {
            count: shares.get(number).copied().unwrap_or_default(),
            at_once,
        })
        .await?;
        let counts = self.wait("connected", Awaited::Standing, u64::from(standing + count), within).await?;
        let took = counts.last_connected.since(started);
        let (connected, _) = self.connecting().await?;
        Ok(Connected { took, ..connected })
    }

    /// Has sessions come and go at a rate, each at its moment from now on; does not wait for them. Gives the first moment.
    pub(crate) async fn churn(&mut self, count: u32, per_second: u32) -> anyhow::Result<Moment> {
        let workers = u32::try_from(self.workers.len())?;
        let shares = self.shares(count);
        let step = Duration::from_secs(1) / per_second.max(1);
        // Soon, so that every worker has heard of it.
        let start = Moment::now().plus(Duration::from_millis(200));
        self.each(|number| {
            let share = shares.get(number).copied().unwrap_or_default();
            let place = u32::try_from(number).unwrap_or_default();
            Command::Churn(Churn { start: start.plus(step * place), every: step * workers, count: share })
        })
        .await?;
        Ok(start)
    }

    /// How connecting went since the last clearing, and what went wrong since the beginning.
    pub(crate) async fn connecting(&mut self) -> anyhow::Result<(Connected, Vec<String>)> {
        let mut all = Connected { took: Duration::ZERO, latencies: Latencies::new()?, full: 0, resumed: 0 };
        let mut all_problems = Vec::new();
        for answer in self.each(|_| Command::Connected).await? {
            let Answer::Connected { took, full, resumed, problems } = answer else {
                bail!("a worker answered something else");
            };
            all.latencies.merge(&took);
            all.full += full;
            all.resumed += resumed;
            all_problems.extend(problems);
        }
        Ok((all, all_problems))
    }

    /// Refuses a fleet of which more was lost than may be; gives what its workers count.
    pub(crate) async fn intact(&mut self) -> anyhow::Result<Counts> {
        let counts = self.counts().await?;
        if counts.lost + counts.failed > self.losses_allowed {
            let (_, problems) = self.connecting().await?;
            bail!(
                "{}: {} sessions were lost and {} attempts gave none:\n{}",
                self.name,
                counts.lost,
                counts.failed,
                problems.join("\n")
            );
        }
        Ok(counts)
    }

    /// Ends so many sessions, those that stand longest.
    pub(crate) async fn disconnect(&mut self, count: u32) -> anyhow::Result<()> {
        let shares = divided(count, &self.standing().await?);
        self.each(|number| Command::Disconnect { count: shares.get(number).copied().unwrap_or_default() })
            .await
            .map(drop)
    }

    /// Waits until a number is reached, with progress; fails when time is up, nothing comes any more, or sessions are lost.
    pub(crate) async fn wait(
        &mut self,
        verb: &'static str,
        what: Awaited,
        count: u64,
        within: Duration,
    ) -> anyhow::Result<Counts> {
        let deadline = Instant::now() + within;
        let (mut best, mut stalled_at) = (0, Instant::now() + STALLED);
        let mut progress = Progress::new(verb, u32::try_from(count).unwrap_or(u32::MAX));
        let shares = self.shares_of(count);
        loop {
            let answers = self
                .each(|number| Command::Await {
                    what,
                    count: shares.get(number).copied().unwrap_or_default(),
                    within_ms: u64::try_from(SLICE.as_millis()).unwrap_or(1),
                })
                .await?;
            let counts = sum(&answers)?;
            let reached = counts.of(what);
            progress.show(u32::try_from(reached).unwrap_or(u32::MAX));
            if counts.lost + counts.failed > self.losses_allowed {
                drop(progress);
                return self.intact().await;
            }
            if reached >= count {
                return Ok(counts);
            }
            let now = Instant::now();
            if reached > best {
                (best, stalled_at) = (reached, now + STALLED);
            }
            if now > deadline {
                bail!("{}: {reached} of {count} {verb} within {within:?}", self.name);
            }
            if now > stalled_at {
                bail!("{}: {reached} of {count} {verb}, and no other for {STALLED:?}", self.name);
            }
        }
    }

    /// What the workers count.
    pub(crate) async fn counts(&mut self) -> anyhow::Result<Counts> {
        self.tell(&Command::Await { what: Awaited::Standing, count: 0, within_ms: 0 }).await
    }

    /// How many devices of each worker have a session.
    async fn standing(&mut self) -> anyhow::Result<Vec<u32>> {
        let answers =
            self.each(|_| Command::Await { what: Awaited::Standing, count: 0, within_ms: 0 }).await?;
        answers.iter().map(|answer| sum(std::slice::from_ref(answer)).map(|counts| counts.standing)).collect()
    }

    /// Forgets what came, and what was acked.
    pub(crate) async fn clear(&mut self) -> anyhow::Result<()> {
        self.tell(&Command::Clear).await.map(drop)
    }

    /// What came of what was sent.
    pub(crate) async fn arrived(&mut self, sent: &[Sent]) -> anyhow::Result<AllArrived> {
        let mut all = AllArrived {
            standing: Latencies::new()?,
            late: 0,
            bytes: 0,
            others: 0,
            reaches: vec![Reach::default(); sent.len()],
        };
        for answer in self.each(|_| Command::Arrived { sent: sent.to_vec() }).await? {
            let Answer::Arrived(Arrived { standing, late, bytes, others, reaches }) = answer else {
                bail!("a worker answered something else");
            };
            all.standing.merge(&standing);
            all.late += late;
            all.bytes = all.bytes.max(bytes);
            all.others += others;
            all.reaches.iter_mut().zip(reaches).for_each(|(all, reach)| all.add(reach));
        }
        Ok(all)
    }

    /// When acks came, since a moment.
    pub(crate) async fn acked(&mut self, since: Moment) -> anyhow::Result<Latencies> {
        let mut all = Latencies::new()?;
        for answer in self.each(|_| Command::Acked { since }).await? {
            let Answer::Latencies { took } = answer else { bail!("a worker answered something else") };
            all.merge(&took);
        }
        Ok(all)
    }

    /// What devices were promised since the last time.
    pub(crate) async fn promises(&mut self) -> anyhow::Result<Vec<Promise>> {
        let mut all = Vec::new();
        for answer in self.each(|_| Command::Promises).await? {
            let Answer::Promises { promises } = answer else { bail!("a worker answered something else") };
            all.extend(promises);
        }
        Ok(all)
    }

    /// How many devices are slow readers, where one in so many of each worker is.
    pub(crate) fn one_in(&self, slow_one_in: u32) -> u64 {
        self.workers.iter().map(|worker| u64::from(worker.share.div_ceil(slow_one_in))).sum()
    }

    /// Has slow readers stop reading, or go on.
    pub(crate) async fn pause(&mut self, paused: bool) -> anyhow::Result<()> {
        self.tell(&Command::Pause { paused }).await.map(drop)
    }

    /// Has devices keep their answers to what comes, or say all that they kept.
    pub(crate) async fn hush(&mut self, hushed: bool) -> anyhow::Result<()> {
        self.tell(&Command::Hush { hushed }).await.map(drop)
    }

    /// Has each device report so many events more.
    pub(crate) async fn report(&mut self, events: u32) -> anyhow::Result<()> {
        self.tell(&Command::Report { events }).await.map(drop)
    }

    /// Has devices without a session forget their tickets.
    pub(crate) async fn forget_tickets(&mut self) -> anyhow::Result<()> {
        self.tell(&Command::ForgetTickets).await.map(drop)
    }

    async fn tell(&mut self, command: &Command) -> anyhow::Result<Counts> {
        sum(&self.each(|_| command.clone()).await?)
    }

    async fn each(&mut self, command: impl Fn(usize) -> Command) -> anyhow::Result<Vec<Answer>> {
        let name = self.name;
        let asked = self.workers.iter_mut().enumerate().map(|(number, worker)| {
            let command = command(number);
            async move { worker.ask(&command).await.with_context(|| format!("{name}'s worker {number}")) }
        });
        // Every answer is taken, whoever has a problem: an answer that was left would be taken for that to the next command.
        join_all(asked).await.into_iter().collect()
    }

    /// A number, divided as the devices are.
    fn shares_of(&self, count: u64) -> Vec<u64> {
        let devices = u64::from(self.devices.max(1));
        self.workers.iter().map(|worker| count * u64::from(worker.share) / devices).collect()
    }

    /// A number of devices, divided evenly.
    fn shares(&self, count: u32) -> Vec<u32> {
        let workers = u32::try_from(self.workers.len()).unwrap_or(1);
        let mut left = count;
        (0..workers)
            .map(|number| {
                let share = left.div_ceil(workers - number);
                left -= share;
                share
            })
            .collect()
    }
}

/// How many devices a fleet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) sessions: u32,
    /// Devices beside them, which come when others go.
    pub(crate) spare: u32,
    /// Workers at least; more where the devices need them.
    pub(crate) workers_min: u32,
}

/// Divides a number by how much room there is in each place, never more than that.
fn divided(count: u32, room: &[u32]) -> Vec<u32> {
    let (mut left, mut all) = (u64::from(count), room.iter().copied().map(u64::from).sum::<u64>());
    let share = |room: &u32| {
        let share = (left * u64::from(*room)).div_ceil(all.max(1)).min((*room).into());
        left -= share.min(left);
        all -= u64::from(*room);
        u32::try_from(share).unwrap_or(*room)
    };
    room.iter().map(share).collect()
}

/// A part of a whole, from 0 to 1.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let share = part as f64 / whole.max(1) as f64;
    share
}

impl Worker {
    async fn start(
        number: u32,
        (from, share): (u32, u32),
        setup: &Setup,
        cores: &Cores,
    ) -> anyhow::Result<Self> {
        let mut process = Process::new(std::env::current_exe()?);
        process.arg("worker");
        if let Some(core) = cores.of_worker(usize::try_from(number)?) {
            process.args(["--core", &core.to_string()]);
        }
        let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let commands = child.stdin.take().context("a worker without standard input")?;
        let answers =
            BufReader::new(child.stdout.take().context("a worker without standard output")?).lines();
        let mut worker = Self { child, commands, answers, from, share };
        let place = u8::try_from(10 + number).context("too many workers")?;
        let sources = (1..=SOURCES).map(|source| IpAddr::V4(Ipv4Addr::new(127, place, source, 1))).collect();
        worker.counts(&Command::Setup(Setup { sources, ..setup.clone() })).await?;
        Ok(worker)
    }

    /// Has it make some of the devices that it has not made yet.
    async fn prepare(&mut self) -> anyhow::Result<Counts> {
        let made = self.counts(&Command::Await { what: Awaited::Standing, count: 0, within_ms: 0 }).await?;
        let count = (self.share - made.prepared).min(PREPARED_AT_ONCE);
        if count == 0 {
            return Ok(made);
        }
        self.counts(&Command::Prepare { from: self.from + made.prepared, count }).await
    }

    async fn counts(&mut self, command: &Command) -> anyhow::Result<Counts> {
        sum(&[self.ask(command).await?])
    }

    async fn ask(&mut self, command: &Command) -> anyhow::Result<Answer> {
        let line = serde_json::to_string(command)? + "\n";
        self.commands.write_all(line.as_bytes()).await.context("it has ended")?;
        let answer = tokio::time::timeout(SILENT, self.answers.next_line()).await;
        let answer = answer.with_context(|| format!("it is silent since {SILENT:?}"))??;
        let answer = serde_json::from_str(&answer.context("it has ended")?)?;
        if let Answer::Problem { problem } = answer {
            bail!("{problem}");
        }
        Ok(answer)
    }
}

fn sum(answers: &[Answer]) -> anyhow::Result<Counts> {
    let mut all = Counts::default();
    for answer in answers {
        let Answer::Counts(counts) = answer else { bail!("a worker answered something else") };
        all.add(counts);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_divided_wholly_and_nobody_gets_more_than_there_is_room_for() {
        // Seven workers of a hundred thousand devices, a tenth of which connects first.
        let devices: Vec<u32> = (0..7).map(|worker| 14_285 + u32::from(worker < 5)).collect();
        for first in [1, 10_000, 99_999] {
            let tenth = divided(first, &devices);
            let left: Vec<u32> = devices.iter().zip(&tenth).map(|(all, some)| all - some).collect();
            let others = divided(100_000 - first, &left);

            assert_eq!((tenth.iter().sum::<u32>(), others), (first, left));
        }
        assert_eq!(divided(3, &[0, 2, 0, 9]), [0, 1, 0, 2]);
        assert_eq!(divided(0, &[]), [0_u32; 0]);
    }
}
