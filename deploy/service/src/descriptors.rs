//! File descriptors: how many a process may have, and threads that have tables of their own.
//!
//! The limit (`RLIMIT_NOFILE`, `LimitNOFILE` of systemd) is one of a table, and threads share one unless they part. Where an administrator
//! cannot raise it, a thread with its own table has as many for itself.

use std::io;
use std::os::fd::RawFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

/// Signals that are a thread's own doing (signal(7)): blocked, they end the process without a word of whoever handles them, such as of a stack
/// that is full.
const OWN_DOING: [Signal; 7] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Raises the limit of open descriptors as far as it may be, which is beyond what programs that use `select` can bear and ours do not; returns it.
///
/// # Errors
/// The system's.
pub fn raise_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Gives the calling thread, and those that it starts, a table of their own: a copy, without `others`, which other threads alone use.
///
/// What the thread shares with others must be open before, and stay open: a waker of another thread's runtime that is made later has a
/// number that is another file's in this table. For the same reason no signal is handled on this thread any more but those of its own doing.
///
/// # Errors
/// The system's; the thread has the table that it had.
pub fn part(others: &[RawFd]) -> io::Result<()> {
    let mut others_doing = SigSet::all();
    OWN_DOING.into_iter().for_each(|signal| others_doing.remove(signal));
    others_doing.thread_block()?;
    unshare(CloneFlags::CLONE_FILES)?;
    for other in others {
        nix::unistd::close(*other)?;
    }
    Ok(())
}

/// Closes a descriptor of the calling thread's table that a thread that parted has in its own, and the only one that uses it.
///
/// # Errors
/// The system's.
pub fn close(number: RawFd) -> io::Result<()> {
    Ok(nix::unistd::close(number)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd as _, IntoRawFd};

    use super::*;

    #[test]
    fn a_thread_that_parted_has_descriptors_that_no_other_has() {
        let shared = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = shared.local_addr().unwrap();
        let others = [std::fs::File::open("/dev/null").unwrap(), std::fs::File::open("/dev/null").unwrap()];
        let numbers: Vec<RawFd> = others.iter().map(|other| other.as_raw_fd()).collect();
        // Whatever looks at the table opens a file of its own, perhaps with the number of one that was closed.
        let is_null = |thread: &str, number: &RawFd| {
            let named = std::fs::read_link(format!("/proc/{thread}/fd/{number}"));
            named.is_ok_and(|name| name == std::path::Path::new("/dev/null"))
        };
        let mine = numbers.clone();

        let parted = std::thread::spawn(move || {
            part(&mine).unwrap();
            let left = mine.iter().any(|number| is_null("thread-self", number));
            // What was open before is the same file still.
            let mut client = TcpStream::connect(address).unwrap();
            let (mut server, _) = shared.accept().unwrap();
            client.write_all(b"x").unwrap();
            let mut read = [0];
            server.read_exact(&mut read).unwrap();
            (left, read, [client, server])
        });
        let (left, read, theirs) = parted.join().unwrap();

        assert!(!left, "closed there");
        assert!(numbers.iter().all(|number| is_null("self", number)), "closed here, too");
        assert_eq!(&read, b"x");
        // They were closed with their table; the numbers may be other files' here.
        for number in theirs.map(IntoRawFd::into_raw_fd) {
            let named = std::fs::read_link(format!("/proc/self/fd/{number}"));
            assert!(!named.is_ok_and(|name| name.to_string_lossy().starts_with("socket:")), "{number}");
        }
    }

    #[test]
    fn a_thread_that_parted_handles_its_own_doing_and_no_signal_of_others() {
        let blocked = std::thread::spawn(|| {
            part(&[]).unwrap();
            SigSet::thread_get_mask().unwrap()
        });
        let blocked = blocked.join().unwrap();

        assert!(
            [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].iter().all(|other| blocked.contains(*other))
        );
        assert!(OWN_DOING.iter().all(|own| !blocked.contains(*own)), "{blocked:?}");
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be() {
        let limit = raise_limit().unwrap();

        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
    }
}
