//! The layers that shut the helper in. Each function says which layers it could not apply, as `layer: reason`: the
//! layer's name first, since a result takes the first 64 bytes.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads, sock_filter,
};

use super::calls::REFUSED;
#[cfg(target_arch = "x86_64")]
use super::calls::REFUSED_X86_64;
use crate::query::SandboxProfile;

/// Address space: SQLite's heap of 256 MiB four times, for the tables' own copies and the program's mappings.
const ADDRESS_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Open files: three streams, one file for each level of a folder walk, and room.
const FILES_MAX: u64 = 256;
/// Processor time beyond the wall-clock limit; SQLite's own deadline is looked at long before.
const PROCESSOR_GRACE: Duration = Duration::from_secs(2);
/// `nobody` and `nogroup`, the kernel's overflow user and group.
pub(super) const NOBODY: u32 = 65_534;

/// What `Strict` may read besides resources: the sources of the tables.
pub(super) const SYSTEM_FOLDERS: &[&str] = &[
    "/proc",
    "/sys",
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/run",
    "/boot",
    "/opt",
    "/var/lib/dpkg",
];

/// Sets the resource limits and gives up new rights.
pub(super) fn limit(run_time: Duration) -> Vec<String> {
    let seconds = (run_time + PROCESSOR_GRACE).as_secs().saturating_add(1);
    let limits = [
        (Resource::RLIMIT_AS, ADDRESS_BYTES_MAX),
        (Resource::RLIMIT_CPU, seconds),
        (Resource::RLIMIT_NOFILE, FILES_MAX),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
    ];
    let mut missing: Vec<String> = limits
        .iter()
        .filter_map(|(resource, value)| {
            Some(format!("rlimits: {resource:?}: {}", setrlimit(*resource, *value, *value).err()?))
        })
        .collect();
    missing.extend(set_no_new_privs().err().map(|error| format!("no_new_privs: {error}")));
    missing
}

/// Becomes `nobody`, if it is root; another user already is without rights.
pub(super) fn drop_user() -> Vec<String> {
    if !geteuid().is_root() {
        return Vec::new();
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let dropped = setgroups(&[])
        .and_then(|()| setresgid(group, group, group))
        .and_then(|()| setresuid(user, user, user));
    dropped.err().map(|error| format!("uid: {error}")).into_iter().collect()
}

/// Says that the helper stays root.
pub(super) fn kept_user() -> Vec<String> {
    let kept = || "uid: stays root, to see other users' processes".to_owned();
    geteuid().is_root().then(kept).into_iter().collect()
}

/// Lets files be read only, by Landlock.
pub(super) fn close_files(profile: SandboxProfile, readable: &[PathBuf]) -> Vec<String> {
    let folders: Vec<&Path> = match profile {
        SandboxProfile::Standard => vec![Path::new("/")],
        SandboxProfile::Strict => {
            SYSTEM_FOLDERS.iter().map(Path::new).chain(readable.iter().map(PathBuf::as_path)).collect()
        }
    };
    match restrict(&folders) {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Vec::new(),
        Ok(RulesetStatus::NotEnforced) => vec!["landlock: not in this kernel, or not switched on".to_owned()],
        Err(error) => vec![format!("landlock: {error}")],
    }
}

/// Landlock's first version is demanded (Linux 5.13); what later ones add is taken where the kernel has it.
fn restrict(folders: &[&Path]) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .create()?
        .add_rules(path_beneath_rules(folders, read))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Refuses the system calls that a query has no use for, with EPERM, in all threads.
pub(super) fn close_calls() -> Vec<String> {
    let applied = filter()
        .map_err(|error| error.to_string())
        .and_then(|program| apply_filter_all_threads(&program).map_err(|error| error.to_string()));
    applied.err().map(|error| format!("seccomp: {error}")).into_iter().collect()
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend(REFUSED_X86_64.iter().map(|call| (*call, Vec::new())));
    rules.insert(libc::SYS_openat, writing(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, writing(1)?);
    let own = u64::from(std::process::id());
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?;
        rules.insert(call, vec![SeccompRule::new(vec![other])?]);
    }
    let refuse = SeccompAction::Errno(Errno::EPERM as u32);
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?.try_into()?;
    #[cfg(target_arch = "x86_64")]
    let program = without_x32(program);
    Ok(program)
}

/// The bit that marks a call of the x32 interface.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Refuses the whole x32 interface before anything else is looked at: it has numbers of its own for `execve`, `ptrace`,
/// `sendmsg` and others, and nothing here is made for it.
#[cfg(target_arch = "x86_64")]
pub(super) fn without_x32(program: BpfProgram) -> BpfProgram {
    let instruction = |code: u32, jf: u8, k: u32| {
        // Codes of classic BPF have 16 bits.
        sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf, k }
    };
    // The call's number is the first field of `seccomp_data`.
    let mut whole = vec![
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, X32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32),
    ];
    whole.extend(program);
    whole
}

/// Opening for anything but reading, by the flags in argument `argument`.
fn writing(argument: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let flags = [
        (libc::O_ACCMODE, libc::O_WRONLY),
        (libc::O_ACCMODE, libc::O_RDWR),
        (libc::O_CREAT, libc::O_CREAT),
        (libc::O_TRUNC, libc::O_TRUNC),
    ];
    let rule = |(mask, value): (libc::c_int, libc::c_int)| {
        let unsigned = |flag: libc::c_int| u64::from(flag.unsigned_abs());
        let operator = SeccompCmpOp::MaskedEq(unsigned(mask));
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, unsigned(value))?;
        SeccompRule::new(vec![condition])
    };
    flags.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::{self, File};
    use std::net::TcpListener;
    use std::process::Command;
    use std::thread;

    /// Both layers hold for the thread that takes them on, so a test needs no process.
    fn in_a_thread(test: impl FnOnce() + Send + 'static) {
        thread::spawn(test).join().unwrap();
    }

    fn is_refused<T>(result: std::io::Result<T>) -> bool {
        result
            .err()
            .and_then(|error| error.raw_os_error())
            .is_some_and(|code| [libc::EPERM, libc::EACCES].contains(&code))
    }

    #[test]
    fn the_filter_refuses_programs_sockets_and_writing_and_lets_files_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("new");
        fs::write(folder.path().join("old"), "x").unwrap();
        let old = folder.path().join("old");

        in_a_thread(move || {
            set_no_new_privs().unwrap();
            seccompiler::apply_filter(&filter().unwrap()).unwrap();

            assert_eq!(fs::read(&old).unwrap(), b"x");
            assert!(is_refused(File::create(&place)), "create");
            assert!(is_refused(fs::OpenOptions::new().append(true).open(&old)), "append");
            assert!(is_refused(fs::remove_file(&old)), "remove");
            assert!(is_refused(fs::rename(&old, &place)), "rename");
            assert!(is_refused(fs::create_dir(&place)), "create a folder");
            assert!(is_refused(TcpListener::bind("127.0.0.1:0")), "socket");
            assert!(is_refused(Command::new("/bin/true").spawn()), "program");
            assert!(
                is_refused(nix::sys::signal::kill(nix::unistd::Pid::from_raw(1), None).map_err(Into::into)),
                "signal"
            );
        });
    }

    /// What the kernel would answer to a call by its number, with arguments of 0: the filter's own instructions, carried
    /// out here, since a call by number alone needs `unsafe`.
    fn answer(program: &[sock_filter], number: u32) -> u32 {
        let architecture = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
        let (mut at, mut held) = (0, 0_u32);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                0x20 => held = [number, architecture].get(step.k as usize / 4).copied().unwrap_or(0),
                0x54 => held &= step.k,
                0x05 => at += step.k as usize,
                0x15 => at += jump(held == step.k),
                0x25 => at += jump(held > step.k),
                0x35 => at += jump(held >= step.k),
                0x06 => return step.k,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn calls_that_came_late_or_have_another_number_are_refused_too() {
        let (allow, refuse) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32);
        let program = filter().unwrap();

        for (name, number) in [
            ("fchmodat2", 452),
            ("setxattrat", 463),
            ("removexattrat", 466),
            ("open_tree_attr", 467),
            ("file_setattr", 469),
            ("ioctl", u32::try_from(libc::SYS_ioctl).unwrap()),
            ("setrlimit", if cfg!(target_arch = "x86_64") { 160 } else { 164 }),
            ("sched_setattr", u32::try_from(libc::SYS_sched_setattr).unwrap()),
            ("sched_setparam", u32::try_from(libc::SYS_sched_setparam).unwrap()),
        ] {
            assert_eq!(answer(&program, number), refuse, "{name}");
        }
        assert_eq!(answer(&program, u32::try_from(libc::SYS_read).unwrap()), allow, "read");
        #[cfg(target_arch = "x86_64")]
        for number in 0..=547 {
            assert_eq!(answer(&program, number | X32), refuse, "x32 {number}");
        }
    }

    /// Whether this kernel lacks Landlock, which fails the test, unless `MUSTER_TEST_MAY_SKIP` names it.
    fn lacks_landlock(missing: &[String]) -> bool {
        let may_skip = std::env::var("MUSTER_TEST_MAY_SKIP").unwrap_or_default();
        let may = may_skip.split(',').any(|one| one.trim() == "landlock");
        assert!(
            missing.is_empty() || may,
            "needs landlock, has {missing:?}: use a kernel of 5.13 or later with it in CONFIG_LSM, in a container that \
             lets it through; or skip such tests with MUSTER_TEST_MAY_SKIP=landlock"
        );
        if !missing.is_empty() {
            eprintln!("SKIPPED, since MUSTER_TEST_MAY_SKIP names landlock");
        }
        !missing.is_empty()
    }

    #[test]
    fn landlock_lets_files_be_read_and_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "x").unwrap();

        in_a_thread(move || {
            set_no_new_privs().unwrap();
            if lacks_landlock(&close_files(SandboxProfile::Standard, &[])) {
                return;
            }

            assert_eq!(fs::read(&old).unwrap(), b"x");
            assert!(is_refused(File::create(&new)), "create");
            assert!(is_refused(fs::write(&old, "y")), "write");
            assert!(is_refused(fs::remove_file(&old)), "remove");
        });
    }

    #[test]
    fn strict_reads_resources_and_system_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        let (resource, other) = (folder.path().join("resource"), folder.path().join("other"));
        fs::write(&resource, "x").unwrap();
        fs::write(&other, "x").unwrap();

        in_a_thread(move || {
            set_no_new_privs().unwrap();
            if lacks_landlock(&close_files(SandboxProfile::Strict, std::slice::from_ref(&resource))) {
                return;
            }

            assert_eq!(fs::read(&resource).unwrap(), b"x");
            assert!(fs::read("/etc/passwd").is_ok());
            assert!(is_refused(fs::read(&other)));
        });
    }
}
