//! The worker: reads commands, drives its devices, answers. One thread for the devices, one for standard input.

use std::collections::VecDeque;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_pki::Roots;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::protocol::{Answer, Awaited, Churn, Command, Counts, Kind, Setup};
use super::tally::Tally;
use super::unit::{self, Unit};
use crate::measure::cores;
use crate::moment::Moment;
use crate::peer::PeerDevice;
use crate::report::{allow_descriptors, sessions_a_process};
use crate::simulated::{AfterLoss, Backoff, Device, Dialled, Manners, Shared, Teller, Wish};
use crate::tls::{self, Dialler};

/// Commands that wait: a coordinator sends the next after the answer to the last.
const COMMANDS_MAX: usize = 4;
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(2);
/// How long devices may take to close their sessions.
const FAREWELL: Duration = Duration::from_secs(20);
/// Receive buffer of a slow reader, so that little is enough to fill it; the kernel doubles it.
const SLOW_BUFFER_BYTES: u32 = 4 * 1024;
/// A client of a fleet comes back with full jitter; soon, since a storm is what is measured.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) };
/// What stands in the names of those that stop reading, behind the fleet's own: who fills their buffers says it to no others.
pub(crate) const SLOW: &str = "slow";
/// Sessions from one source address, so that no limit of one source is met, and ports are found soon.
const SESSIONS_A_SOURCE: u32 = 500;

/// Runs a worker until its standard input ends.
pub(crate) fn run(core: Option<usize>) -> anyhow::Result<()> {
    // One that is frozen does not see that its standard input ends.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if let Some(core) = core {
        cores::pin(core)?;
    }
    allow_descriptors(sessions_a_process()?)?;
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    // It ends with the process: nothing can end a read of standard input.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(commands));
    // Thousands of sessions are not ended one by one: the kernel does that.
    runtime.shutdown_background();
    served
}

async fn serve(mut commands: mpsc::Receiver<String>) -> anyhow::Result<()> {
    let mut worker: Option<Worker> = None;
    loop {
        let heard = match worker.as_mut().filter(|worker| worker.churn.is_some()) {
            Some(churning) => match tokio::time::timeout(LOOK, commands.recv()).await {
                Ok(heard) => heard,
                Err(_) => {
                    churning.turn();
                    continue;
                }
            },
            None => commands.recv().await,
        };
        let Some(line) = heard else { return Ok(()) };
        let answer = match handle(&mut worker, &line, &mut commands).await {
            Ok(answer) => answer,
            Err(error) => Answer::Problem { problem: format!("{error:#}") },
        };
        let line = serde_json::to_string(&answer)?;
        // A coordinator that is gone ends it.
        writeln!(std::io::stdout(), "{line}")?;
    }
}

async fn handle(
    worker: &mut Option<Worker>,
    line: &str,
    commands: &mut mpsc::Receiver<String>,
) -> anyhow::Result<Answer> {
    let command: Command = serde_json::from_str(line).context("the command")?;
    if let Command::Setup(setup) = command {
        let made = Worker::new(setup)?;
        let counts = made.tally.counts();
        *worker = Some(made);
        return Ok(Answer::Counts(counts));
    }
    let worker = worker.as_mut().context("the first command is `setup`")?;
    tokio::select! {
        biased;
        answer = worker.handle(command) => answer,
        // Nobody waits for the answer any more.
        () = closed(commands) => bail!("standard input has ended"),
    }
}

/// Waits until standard input has ended.
async fn closed(commands: &mpsc::Receiver<String>) {
    while !commands.is_closed() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Worker {
    setup: Setup,
    shared: Arc<Shared>,
    dialler: Dialler,
    tally: Arc<Tally>,
    wish: watch::Sender<Wish>,
    /// Devices without a session.
    idle: VecDeque<Unit>,
    /// Those that are to have one, longest first.
    running: VecDeque<CancellationToken>,
    tasks: JoinSet<Unit>,
    made: u32,
    /// Those that are to come and go yet.
    churn: Option<Churn>,
}

impl Worker {
    fn new(setup: Setup) -> anyhow::Result<Self> {
        let orders = setup.home.join("trust/orders.pem");
        let pem = std::fs::read(&orders).with_context(|| orders.display().to_string())?;
        let shared = Arc::new(Shared::new(setup.address.clone(), Roots::from_pem(&pem, "trust/orders.pem")?));
        let dialler = Dialler::new(&tls::server_roots(&setup.home)?, setup.suite)?;
        let tally = Arc::new(Tally::new(setup.keeps_promises)?);
        Ok(Self {
            setup,
            shared,
            dialler,
            tally,
            wish: watch::Sender::new(Wish::default()),
            idle: VecDeque::new(),
            running: VecDeque::new(),
            tasks: JoinSet::new(),
            made: 0,
            churn: None,
        })
    }

    async fn handle(&mut self, command: Command) -> anyhow::Result<Answer> {
        match command {
            Command::Setup(_) => bail!("`setup` comes once"),
            Command::Prepare { from, count } => self.prepare(from, count)?,
            Command::Connect { count, at_once } => {
                self.collect();
                self.connect(count, at_once)?;
            }
            Command::Churn(churn) => self.churn = Some(churn),
            Command::Disconnect { count } => self.disconnect(count).await?,
            Command::Await { what, count, within_ms } => {
                self.wait(what, count, Duration::from_millis(within_ms)).await;
            }
            Command::Clear => self.tally.clear()?,
            Command::Arrived { sent } => return Ok(Answer::Arrived(self.tally.latencies(&sent)?)),
            Command::Acked { since } => return Ok(Answer::Latencies { took: self.tally.acks(since)? }),
            Command::Connected => {
                let (took, full, resumed, problems) = self.tally.connecting();
                return Ok(Answer::Connected { took, full, resumed, problems });
            }
            Command::Promises => return Ok(Answer::Promises { promises: self.tally.promises() }),
            Command::Pause { paused } => self.wish.send_modify(|wish| wish.paused = paused),
            Command::ForgetTickets => {
                self.collect();
                self.idle.iter_mut().for_each(Unit::forget_tickets);
            }
            Command::Hush { hushed } => self.wish.send_modify(|wish| wish.hushed = hushed),
            Command::Report { events } => self.wish.send_modify(|wish| wish.events += events),
        }
        Ok(Answer::Counts(self.counts()))
    }

    fn counts(&self) -> Counts {
        self.tally.counts()
    }

    fn prepare(&mut self, from: u32, count: u32) -> anyhow::Result<()> {
        let names: Vec<String> = (from..from + count)
            .map(|number| {
                let prefix = &self.setup.prefix;
                let is_slow = self.is_slow(self.made + number - from);
                if is_slow { format!("{prefix}-{SLOW}-{number}") } else { format!("{prefix}-{number}") }
            })
            .collect();
        for (number, identity) in (from..).zip(tls::issue_devices(&self.setup.home, &names)?) {
            let tls = self.dialler.config(&identity, self.setup.resume)?;
            let manners = self.manners(number);
            let teller = Teller::Tally(Arc::clone(&self.tally));
            let device = match self.setup.kind {
                Kind::Muster => unit::Kind::Muster(Box::new(Device::with_manners(
                    Arc::clone(&self.shared),
                    identity.name,
                    manners,
                    teller,
                ))),
                kind @ (Kind::Nats | Kind::Mosquitto) => unit::Kind::Peer(Box::new(PeerDevice::new(
                    kind,
                    self.setup.address.clone(),
                    identity.name,
                    manners,
                    Arc::clone(&self.tally),
                ))),
            };
            self.idle.push_back(Unit { tls, device });
            self.made += 1;
        }
        self.tally.prepared(count);
        Ok(())
    }

    /// Whether a device is one of those that stop reading when that is wished.
    fn is_slow(&self, made_before: u32) -> bool {
        self.setup.slow_one_in > 0 && made_before.is_multiple_of(self.setup.slow_one_in)
    }

    fn manners(&self, number: u32) -> Manners {
        let Setup { sources, returns, on_order, sabotage, .. } = &self.setup;
        let slow = self.is_slow(self.made);
        let place = usize::try_from(self.made / SESSIONS_A_SOURCE).unwrap_or_default();
        let source = place.checked_rem(sources.len()).and_then(|place| sources.get(place)).copied();
        let after_loss = if *returns { AfterLoss::Return } else { AfterLoss::End };
        Manners {
            after_loss,
            backoff: BACKOFF,
            on_order: *on_order,
            reports_answers: false,
            farewell: true,
            slow,
            dialled: Dialled { source, receive_buffer: slow.then_some(SLOW_BUFFER_BYTES) },
            wishes: Some(self.wish.subscribe()),
            sabotage: sabotage.filter(|_| number == 0),
        }
    }

    /// Starts devices, each as soon as fewer than `at_once` are about to connect.
    fn connect(&mut self, count: u32, at_once: u32) -> anyhow::Result<()> {
        let count = usize::try_from(count)?;
        if self.idle.len() < count {
            bail!("{count} devices are to connect, {} are prepared and have no session", self.idle.len());
        }
        let at_once = Arc::new(tokio::sync::Semaphore::new(usize::try_from(at_once.max(1))?));
        for unit in self.idle.drain(..count) {
            let cancelled = CancellationToken::new();
            self.running.push_back(cancelled.clone());
            let at_once = Arc::clone(&at_once);
            self.tasks.spawn(async move {
                // Its place is given back when it has a session.
                let place = at_once.acquire_owned().await.ok();
                Box::pin(unit.run(Instant::now(), place, cancelled)).await
            });
        }
        Ok(())
    }

    /// Has those come whose moment is there, each for one that goes. Where no device is free, it comes as soon as one is, and
    /// its time counts from its moment all the same.
    fn turn(&mut self) {
        while let Some(Churn { start, every, count }) = self.churn {
            let now = Moment::now();
            if count == 0 {
                self.churn = None;
                return;
            }
            if start > now {
                return;
            }
            self.collect();
            let Some(unit) = self.idle.pop_front() else { return };
            if let Some(oldest) = self.running.pop_front() {
                oldest.cancel();
            }
            let cancelled = CancellationToken::new();
            self.running.push_back(cancelled.clone());
            let begun = Instant::now().checked_sub(now.since(start)).unwrap_or_else(Instant::now);
            self.tasks.spawn(Box::pin(unit.run(begun, None, cancelled)));
            self.churn = Some(Churn { start: start.plus(every), every, count: count - 1 });
        }
    }

    /// Takes back devices that have ended.
    fn collect(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            self.idle.extend(ended.ok());
        }
    }

    async fn disconnect(&mut self, count: u32) -> anyhow::Result<()> {
        let count = usize::try_from(count)?.min(self.running.len());
        self.running.drain(..count).for_each(|cancelled| cancelled.cancel());
        let wanted = self.running.len();
        let ending = async {
            while self.tasks.len() > wanted {
                match self.tasks.join_next().await {
                    Some(ended) => self.idle.extend(ended.ok()),
                    None => break,
                }
            }
        };
        tokio::time::timeout(FAREWELL, ending).await.context("sessions did not end in time")
    }

    async fn wait(&mut self, what: Awaited, count: u64, within: Duration) {
        let deadline = tokio::time::Instant::now() + within;
        while self.counts().of(what) < count && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
            self.turn();
        }
    }
}
