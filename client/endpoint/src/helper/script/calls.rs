//! The system calls that are refused to a script that may only read, beside those of a query's helper.
use nix::libc;

/// What a query has no use for and programs cannot do without. What they change is a matter of files, which Landlock keeps
/// to the script's own folder.
pub(super) const NEEDED: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_ioctl,
    libc::SYS_prlimit64,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_copy_file_range,
    libc::SYS_splice,
    libc::SYS_tee,
];

/// Older calls for the same that only x86-64 has.
#[cfg(target_arch = "x86_64")]
pub(super) const NEEDED_X86_64: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_creat,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_mknod,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_link,
    libc::SYS_symlink,
];

/// Signals to others, which are left to programs where Landlock keeps them within the script.
pub(super) const SIGNALS: &[i64] = &[
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
];

/// What programs ask of a descriptor that changes nothing but the descriptor.
pub(super) const REQUESTS: &[u64] = &[
    libc::TCGETS,
    libc::TIOCGWINSZ,
    libc::TIOCGPGRP,
    libc::FIONREAD,
    libc::FIONBIO,
    libc::FIOCLEX,
    libc::FIONCLEX,
];

/// What a program may not ask of a descriptor: each would have the kernel send signals to whomever it names.
pub(super) const NOTICES: &[libc::c_int] =
    &[libc::F_SETOWN, F_SETSIG, F_SETOWN_EX, libc::F_NOTIFY, libc::F_SETLEASE];

// From <asm-generic/fcntl.h>.
const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;

/// New namespaces, in which a process has rights that it has not here.
pub(super) const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
