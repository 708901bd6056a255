//! The layers that shut a script in. Each function says which layers it could not apply, as `layer: reason`.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::getuid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

#[cfg(target_arch = "x86_64")]
use super::calls::NEEDED_X86_64;
use super::calls::{NAMESPACES, NEEDED, NOTICES, REQUESTS, SIGNALS};
use super::tree::threads_of;
#[cfg(target_arch = "x86_64")]
use crate::helper::calls::REFUSED_X86_64;
use crate::helper::calls::{REFUSED, SETRLIMIT};
use crate::helper::sandbox::SYSTEM_FOLDERS;
use crate::query::SandboxProfile;

/// Address space of one process: interpreters map more than they use, which the control group counts.
const ADDRESS_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Open files of one process.
const FILES_MAX: u64 = 1_024;
/// A file in the folder of its own, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Processor time of one process beyond the wall-clock limit.
const PROCESSOR_GRACE: Duration = Duration::from_secs(2);

/// What is written to only to be lost, and where programs expect that they may.
const SINKS: [&str; 2] = ["/dev/null", "/dev/full"];

/// Sets the resource limits; `processes_max` 0: no limit of processes.
pub(super) fn limit(run_time: Duration, is_confined: bool, processes_max: u32) -> Vec<String> {
    let seconds = (run_time + PROCESSOR_GRACE).as_secs().saturating_add(1);
    let mut limits = vec![
        (Resource::RLIMIT_AS, ADDRESS_BYTES_MAX),
        (Resource::RLIMIT_CPU, seconds),
        (Resource::RLIMIT_NOFILE, FILES_MAX),
        (Resource::RLIMIT_CORE, 0),
    ];
    if is_confined {
        limits.push((Resource::RLIMIT_FSIZE, FILE_BYTES_MAX));
    }
    // It counts all that a user has, and holds for every user but root.
    if processes_max > 0 && !getuid().is_root() {
        let others = threads_of(getuid().as_raw());
        limits.push((Resource::RLIMIT_NPROC, others.saturating_add(processes_max.into())));
    }
    let set = |(resource, value): &(Resource, u64)| {
        Some(format!("rlimits: {resource:?}: {}", setrlimit(*resource, *value, *value).err()?))
    };
    limits.iter().filter_map(set).collect()
}

/// Gives up new rights.
pub(super) fn no_new_privs() -> Vec<String> {
    set_no_new_privs().err().map(|error| format!("no_new_privs: {error}")).into_iter().collect()
}

/// Who keeps a script's signals within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signals {
    /// Landlock, since Linux 6.12.
    Scoped,
    /// Nobody, so that it may send none.
    Refused,
}

/// Devices that a script may read. Of others, opening alone may do something: a watchdog begins to count, a terminal or a pipe loses what
/// was meant for another.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random"];

/// What no script of a question reads: devices, and where Muster keeps its own by default, its keys among it.
const CLOSED: [&str; 2] = ["/dev", "/var/lib/muster"];

/// Returns what may be read at and below a path: all of it, or its parts without what is closed. Symbolic links are left out: Landlock
/// asks where a file is, and not by which name it was opened.
fn open_below(path: &Path, closed: &[&Path]) -> Vec<PathBuf> {
    if closed.contains(&path) {
        return Vec::new();
    }
    if !closed.iter().any(|closed| closed.starts_with(path)) {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let is_link = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
    entries.filter(|entry| !is_link(entry)).flat_map(|entry| open_below(&entry.path(), closed)).collect()
}

/// Lets files be read and run but those that are closed, and written in its folder only, by Landlock.
pub(super) fn close_files(
    profile: SandboxProfile,
    readable: &[PathBuf],
    closed: &[PathBuf],
    folder: &Path,
) -> (Vec<String>, Signals) {
    let system: &[&str] = match profile {
        SandboxProfile::Standard => &["/"],
        SandboxProfile::Strict => SYSTEM_FOLDERS,
    };
    // What is not there is read by nobody. Whoever is led there by a link reads what is behind it.
    let closed: Vec<PathBuf> = closed.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let closed: Vec<&Path> =
        CLOSED.iter().map(Path::new).chain(closed.iter().map(PathBuf::as_path)).collect();
    let system: Vec<PathBuf> =
        system.iter().flat_map(|folder| open_below(Path::new(folder), &closed)).collect();
    let devices = DEVICES.iter().map(Path::new);
    let folders: Vec<&Path> = system.iter().chain(readable).map(PathBuf::as_path).chain(devices).collect();
    let scoped = restrict(&folders, folder, Signals::Scoped).map(|status| (status, Signals::Scoped));
    let restricted = scoped
        .or_else(|_| restrict(&folders, folder, Signals::Refused).map(|status| (status, Signals::Refused)));
    match restricted {
        Ok((RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, signals)) => {
            (Vec::new(), signals)
        }
        Ok((RulesetStatus::NotEnforced, _)) => {
            (vec!["landlock: not in this kernel, or not switched on".to_owned()], Signals::Refused)
        }
        Err(error) => (vec![format!("landlock: {error}")], Signals::Refused),
    }
}

/// Landlock's first version is demanded (Linux 5.13); what later ones add is taken where the kernel has it.
fn restrict(folders: &[&Path], own: &Path, signals: Signals) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?;
    if signals == Signals::Scoped {
        rules = rules.scope(Scope::Signal)?;
    }
    let status = rules
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .create()?
        .add_rules(path_beneath_rules(folders, read))?
        .add_rules(path_beneath_rules(["/"], AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(SINKS, AccessFs::ReadFile | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules([own], own_access()))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// What a script may do in its folder: all but to make what would lead out of it, such as the device of a disk.
fn own_access() -> BitFlags<AccessFs> {
    AccessFs::from_all(ABI::V5)
        & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::IoctlDev)
}

/// Refuses the system calls that change what Landlock does not keep, with EPERM.
pub(super) fn close_calls(signals: Signals) -> Vec<String> {
    // Of calls with two answers, the kernel gives that of the stricter filter: an error either way.
    let applied = [unheard_of(), filter(signals)].into_iter().try_for_each(|program| {
        let program = program.map_err(|error| error.to_string())?;
        apply_filter_all_threads(&program).map_err(|error| error.to_string())
    });
    applied.err().map(|error| format!("seccomp: {error}")).into_iter().collect()
}

/// Answers as older kernels do: C libraries then make processes by `clone`, whose flags can be looked at.
fn unheard_of() -> Result<BpfProgram, BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let unknown = SeccompAction::Errno(Errno::ENOSYS as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, unknown, TargetArch::try_from(std::env::consts::ARCH)?)?
        .try_into()
}

fn filter(signals: Signals) -> Result<BpfProgram, BackendError> {
    let mut refused: Vec<i64> = REFUSED.iter().chain(SIGNALS).copied().collect();
    refused.retain(|call| !NEEDED.contains(call));
    #[cfg(target_arch = "x86_64")]
    refused.extend(REFUSED_X86_64.iter().filter(|call| !NEEDED_X86_64.contains(call)));
    if signals == Signals::Scoped {
        refused.retain(|call| !SIGNALS.contains(call));
    }
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        refused.into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, flags(0, NAMESPACES)?);
    rules.insert(libc::SYS_ioctl, vec![none_of(1, REQUESTS)?]);
    // Limits are looked at by programs and set by the client.
    rules.insert(libc::SYS_prlimit64, vec![none_of(2, &[0])?]);
    rules.insert(SETRLIMIT, Vec::new());
    rules.insert(libc::SYS_mknodat, devices(2)?);
    rules.insert(libc::SYS_fcntl, one_of(1, NOTICES)?);
    // Landlock knows of this since Linux 6.2 only.
    rules.insert(libc::SYS_openat, truncating(2)?);
    #[cfg(target_arch = "x86_64")]
    {
        rules.insert(libc::SYS_open, truncating(1)?);
        rules.insert(libc::SYS_mknod, devices(1)?);
    }
    let refuse = SeccompAction::Errno(Errno::EPERM as u32);
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?.try_into()?;
    #[cfg(target_arch = "x86_64")]
    let program = crate::helper::sandbox::without_x32(program);
    Ok(program)
}

/// Matches where one of these flags is set.
fn flags(argument: u8, flags: &[libc::c_int]) -> Result<Vec<SeccompRule>, BackendError> {
    flags.iter().map(|flag| masked(argument, *flag, *flag)).collect()
}

/// Matches where the argument is none of these.
fn none_of(argument: u8, values: &[u64]) -> Result<SeccompRule, BackendError> {
    let other =
        |value: &u64| SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, *value);
    SeccompRule::new(values.iter().map(other).collect::<Result<_, _>>()?)
}

/// Matches the making of a device.
fn devices(argument: u8) -> Result<Vec<SeccompRule>, BackendError> {
    let mode = |mode: libc::mode_t| {
        let (mask, mode) = (u64::from(libc::S_IFMT), u64::from(mode));
        let is_one =
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), mode)?;
        SeccompRule::new(vec![is_one])
    };
    Ok(vec![mode(libc::S_IFCHR)?, mode(libc::S_IFBLK)?])
}

/// Matches opening for reading that empties the file, and for neither reading nor writing, of which Landlock asks nothing.
fn truncating(argument: u8) -> Result<Vec<SeccompRule>, BackendError> {
    Ok(vec![
        masked(argument, libc::O_ACCMODE | libc::O_TRUNC, libc::O_RDONLY | libc::O_TRUNC)?,
        masked(argument, libc::O_ACCMODE, libc::O_ACCMODE)?,
    ])
}

/// Matches where the argument is one of these.
fn one_of(argument: u8, values: &[libc::c_int]) -> Result<Vec<SeccompRule>, BackendError> {
    let same = |value: &libc::c_int| {
        let value = u64::from(value.cast_unsigned());
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![condition])
    };
    values.iter().map(same).collect()
}

fn masked(argument: u8, mask: libc::c_int, value: libc::c_int) -> Result<SeccompRule, BackendError> {
    let unsigned = |flag: libc::c_int| u64::from(flag.cast_unsigned());
    let operator = SeccompCmpOp::MaskedEq(unsigned(mask));
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, unsigned(value))?;
    SeccompRule::new(vec![condition])
}
