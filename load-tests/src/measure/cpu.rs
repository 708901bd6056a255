//! CPU time that a process or thread has used, user and kernel together.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use crate::moment;

/// A process is quiet when it used less than this share of a core over [`LOOK`].
const QUIET_SHARE: f64 = 0.02;
/// What a heartbeat may take of a core; heartbeats never stop.
const HEARTBEAT: Duration = Duration::from_micros(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long quiet is waited for at most: what goes on beyond belongs to something else than what is measured.
const PATIENCE: Duration = Duration::from_secs(20);

/// The CPU time of a process, all of its threads, also those that ended.
///
/// The kernel's own clock of the process; `/proc/PID/stat` counts in steps of 10 ms.
///
/// # Errors
/// The process is gone.
pub fn of_process(pid: u32) -> anyhow::Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?));
    let clock = clock.with_context(|| format!("process {pid} has no CPU clock; has it ended?"))?;
    let nanos = moment::read(clock).with_context(|| format!("process {pid} has ended"))?;
    Ok(Duration::from_nanos(nanos))
}

/// The CPU time of the calling thread.
///
/// # Errors
/// Never on Linux.
pub fn of_this_thread() -> anyhow::Result<Duration> {
    Ok(Duration::from_nanos(moment::read(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
}

/// Waits until a process that has so many heartbeats a second has done what was left to do; gives its CPU time then. That has a tenth of a second in
/// it in which the process did next to nothing else.
///
/// # Errors
/// The process is gone, or it does not come to rest: no CPU time would be that of what was measured.
pub async fn until_quiet(pid: u32, heartbeats: f64) -> anyhow::Result<Duration> {
    until_quiet_within(pid, QUIET_SHARE.max(heartbeats * HEARTBEAT.as_secs_f64()), PATIENCE).await
}

async fn until_quiet_within(pid: u32, share: f64, patience: Duration) -> anyhow::Result<Duration> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut before = of_process(pid)?;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = of_process(pid)?;
        if now.saturating_sub(before) < LOOK.mul_f64(share) {
            return Ok(now);
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "process {pid} still uses more than {:.0} % of a core {patience:?} after its work: its CPU time cannot be told",
            share * 100.0
        );
        before = now;
    }
}

/// Microseconds of CPU for each of so many.
#[must_use]
pub fn micros_each(cpu: Duration, count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let count = count.max(1) as f64;
    cpu.as_secs_f64() * 1e6 / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_for_the_process_and_the_thread_and_waiting_is_not() {
        let (process, thread) = (of_process(std::process::id()).unwrap(), of_this_thread().unwrap());
        let started = std::time::Instant::now();

        let mut sum = 0_u64;
        while of_this_thread().unwrap() < thread + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        std::thread::sleep(Duration::from_millis(50));

        assert!(of_process(std::process::id()).unwrap() >= process + Duration::from_millis(19));
        let used = of_this_thread().unwrap().saturating_sub(thread);
        assert!(used + Duration::from_millis(40) < started.elapsed(), "{used:?}");
    }

    #[tokio::test]
    async fn a_process_that_never_rests_has_no_cpu_time_to_tell() {
        let busy = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        let mut busy = busy.expect("a shell");

        let told = until_quiet_within(busy.id(), QUIET_SHARE, Duration::from_millis(600)).await;

        busy.kill().unwrap();
        busy.wait().unwrap();
        let told = told.map_err(|error| error.to_string());
        assert!(matches!(&told, Err(told) if told.contains("cannot be told")), "{told:?}");
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        let told = of_process(4_190_000).unwrap_err().to_string();

        assert!(told.contains("4190000"), "{told}");
    }
}
