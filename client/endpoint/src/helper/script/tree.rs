//! Who came of whom, read from `/proc`.
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// A process in its `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: i32,
    /// Its threads that run or may.
    threads: u64,
}

/// Returns what comes of a process: its children, and theirs.
pub(super) fn descendants(of: i32) -> Vec<i32> {
    let parents = processes().map(|(pid, process)| (pid, process.parent)).collect();
    below(of, &parents)
}

/// Returns how many threads a user has, which is what the kernel holds against its limit of processes.
pub(super) fn threads_of(user: u32) -> u64 {
    let is_its = |pid: i32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|found| found.uid() == user);
    processes().filter(|(pid, _)| is_its(*pid)).map(|(_, process)| process.threads).sum()
}

fn below(of: i32, parents: &HashMap<i32, i32>) -> Vec<i32> {
    let mut found = vec![of];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        at += 1;
        let children = parents.iter().filter(|(pid, its)| **its == parent && !found.contains(pid));
        let children: Vec<i32> = children.map(|(pid, _)| *pid).collect();
        found.extend(children);
    }
    found.split_off(1)
}

/// Returns every process that has not ended.
fn processes() -> impl Iterator<Item = (i32, Process)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read(entry.path().join("stat")).ok()?;
        process(&String::from_utf8_lossy(&stat)).map(|process| (pid, process))
    })
}

/// Reads a `stat`; none of one that has ended. Its name may be anything, also `) R 1`.
fn process(stat: &str) -> Option<Process> {
    let (_, after) = stat.rsplit_once(") ")?;
    let words: Vec<&str> = after.split(' ').collect();
    let parent = words.get(1)?.parse().ok()?;
    let threads = words.get(THREADS)?.parse().ok()?;
    match *words.first()? {
        "X" => None,
        // Its first thread has ended. Others may run, and start more.
        "Z" if threads <= 1 => None,
        "Z" => Some(Process { parent, threads: threads - 1 }),
        _ => Some(Process { parent, threads }),
    }
}

/// Where the number of threads stands, counted from the state (proc_pid_stat(5): 20 and 3).
const THREADS: usize = 17;

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(begin: &str, threads: u32) -> String {
        format!("{begin} 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 12345")
    }

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let wanted = Some(Process { parent: 3, threads: 2 });
        assert_eq!(process(&stat("7 (sh) S 3", 2)), wanted);
        assert_eq!(process(&stat("7 (a) R 1 b) S 3", 2)), wanted);
        assert_eq!(process(""), None);
        assert_eq!(process("7 (sh) S 3"), None);
    }

    #[test]
    fn a_process_has_ended_when_all_of_its_threads_have() {
        assert_eq!(process(&stat("7 (sh) Z 3", 1)), None);
        assert_eq!(process(&stat("7 (sh) X 3", 0)), None);
        assert_eq!(process(&stat("7 (python3) Z 3", 2)), Some(Process { parent: 3, threads: 1 }));
    }

    #[test]
    fn this_process_is_its_parents_and_its_user_has_threads() {
        let own = std::process::id().cast_signed();

        assert!(descendants(std::os::unix::process::parent_id().cast_signed()).contains(&own));
        assert!(threads_of(nix::unistd::geteuid().as_raw()) >= 1);
    }

    #[test]
    fn descendants_are_children_and_theirs_and_no_others() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 6), (1, 0)]);

        let mut found = below(2, &parents);

        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }
}
