//! Which core the server has, and which ones those have that load it.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

/// The cores of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cores {
    /// The server's; none on a machine with one core, where nothing is pinned.
    pub server: Option<usize>,
    /// Those of workers and of this program.
    pub load: Vec<usize>,
}

impl Cores {
    /// Splits what this process may use: the first core for the server, the others for the load.
    ///
    /// # Errors
    /// The kernel does not say what may be used.
    pub fn split() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let cores: Vec<usize> =
            (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect();
        Ok(Self::of(&cores))
    }

    fn of(cores: &[usize]) -> Self {
        match cores {
            [] | [_] => Self { server: None, load: Vec::new() },
            [server, load @ ..] => Self { server: Some(*server), load: load.to_vec() },
        }
    }

    /// The core of the n-th worker.
    #[must_use]
    pub fn of_worker(&self, number: usize) -> Option<usize> {
        self.load.get(number.checked_rem(self.load.len())?).copied()
    }
}

/// Has the calling thread, and what it starts, run on one core.
///
/// # Errors
/// The core is not there, or not allowed.
pub fn pin(core: usize) -> anyhow::Result<()> {
    pin_to(&[core])
}

/// Has the calling thread, and what it starts, run on these cores.
///
/// # Errors
/// A core is not there, or not allowed.
pub fn pin_to(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|error| {
        anyhow::anyhow!("cores {cores:?}: {error}; `nproc` and `taskset -p $$` tell which may be used")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_has_a_core_of_its_own_where_there_are_two() {
        assert_eq!(Cores::of(&[3]), Cores { server: None, load: vec![] });
        let cores = Cores::of(&[0, 1, 2]);

        assert_eq!(cores.server, Some(0));
        assert_eq!([0, 1, 2].map(|worker| cores.of_worker(worker)), [Some(1), Some(2), Some(1)]);
        assert_eq!(Cores::of(&[]).of_worker(1), None);
    }
}
