//! The terminal, asked for a password.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command};

use super::{accepted, lab};
use crate::authority::{P256, run};

/// How long a program may wait for the terminal, in seconds; only a broken one takes it.
const DEADLINE: &str = "60";

/// Starts `muster-sign` with a terminal of its own; returns it and the terminal's other end.
fn start(dir: &Path, key: &str) -> (Child, File) {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let (own, theirs) = (File::from(terminal.master), File::from(terminal.slave));
    let child = Command::new("timeout")
        .args([DEADLINE, "setsid", "--ctty", "--wait", env!("CARGO_BIN_EXE_muster-sign")])
        .args(["definition", "sign", "a.toml", "--out", "a.cms", "--key", key])
        .current_dir(dir)
        .env_remove("MUSTER_KEY_PASSWORD")
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs)
        .spawn()
        .unwrap();
    (child, own)
}

/// Reads the terminal until it shows something, or its program has ended; all that it showed.
fn read_until(terminal: &mut File, shown: &mut String, wanted: &str) {
    let mut bytes = [0; 256];
    while !shown.contains(wanted) {
        // Once nobody has it open any more, a terminal gives an error in the place of an end.
        match terminal.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => shown.push_str(&String::from_utf8_lossy(&bytes[..count])),
        }
    }
}

#[test]
fn g7_the_terminal_is_asked_for_a_password_and_does_not_show_it() {
    let dir = lab(P256);
    let export = "pkcs12 -export -inkey leaf.key -in chain.pem -passout pass:hidden -out leaf.pfx";
    run(dir.path(), &export.split(' ').collect::<Vec<_>>());
    let (mut child, mut terminal) = start(dir.path(), "leaf.pfx");
    let mut shown = String::new();

    read_until(&mut terminal, &mut shown, "Enter the password of leaf.pfx: ");
    terminal.write_all(b"hiddem\x7fn\r").unwrap();
    read_until(&mut terminal, &mut shown, "out: a.cms");

    assert!(child.wait().unwrap().success(), "{shown}");
    assert!(!shown.contains("hidde"), "{shown}");
    accepted(dir.path());
}

#[test]
fn g7_an_interrupt_at_the_terminal_ends_it_and_leaves_the_terminal_as_it_was() {
    let dir = lab(P256);
    let export = "pkcs12 -export -inkey leaf.key -in chain.pem -passout pass:hidden -out leaf.pfx";
    run(dir.path(), &export.split(' ').collect::<Vec<_>>());
    let (mut child, mut terminal) = start(dir.path(), "leaf.pfx");
    let mut shown = String::new();

    read_until(&mut terminal, &mut shown, "leaf.pfx: ");
    terminal.write_all(b"hid\x03").unwrap();
    read_until(&mut terminal, &mut shown, "was not given");
    let flags = nix::sys::termios::tcgetattr(&terminal).unwrap().local_flags;

    assert_eq!(child.wait().unwrap().code(), Some(1), "{shown}");
    assert!(flags.contains(nix::sys::termios::LocalFlags::ECHO), "{flags:?}");
    assert!(flags.contains(nix::sys::termios::LocalFlags::ICANON | nix::sys::termios::LocalFlags::ISIG));
    assert!(!dir.path().join("a.cms").exists());
}
