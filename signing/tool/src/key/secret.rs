//! What opens a key: read from a file, the environment, or the terminal without showing it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use muster_pki::text::is_misleading;
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use zeroize::Zeroizing;

/// The environment variable that a password or PIN is taken from where no file is named.
pub const PASSWORD_VARIABLE: &str = "MUSTER_KEY_PASSWORD";

/// Longest password or PIN in bytes; PKCS#12 and tokens know no longer ones in practice.
pub const PASSWORD_BYTES_MAX: usize = 1024;

const TERMINAL: &str = "/dev/tty";
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];
const KILL_LINE: u8 = 0x15;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("{}: {source}; wanted a file with the password or PIN in its first line", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is none.
    #[error("{from}: {problem}; wanted one line of 1 to {PASSWORD_BYTES_MAX} bytes, in UTF-8")]
    Unfit {
        /// Where it stands.
        from: String,
        /// What is wrong with it; never the password.
        problem: &'static str,
    },
    /// Nobody to ask.
    #[error(
        "{what} is wanted, and there is no terminal to ask at; name a file with --key-password-file, or set {PASSWORD_VARIABLE}"
    )]
    NoTerminal {
        /// What is wanted, such as `the password of author.pfx`.
        what: String,
    },
    /// Whoever was asked gave it up.
    #[error("{what} was not given")]
    Cancelled {
        /// What is wanted.
        what: String,
    },
    /// The terminal does not do what it should.
    #[error("the terminal: {0}; name a file with --key-password-file instead")]
    Terminal(std::io::Error),
}

/// Returns the password of the file, else that of the environment, if there is one.
pub(super) fn given(file: Option<&Path>) -> Result<Option<Zeroizing<String>>, SecretError> {
    if let Some(path) = file {
        return from_file(path).map(Some);
    }
    match std::env::var(PASSWORD_VARIABLE) {
        Ok(text) => fit(Zeroizing::new(text), PASSWORD_VARIABLE).map(Some),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(SecretError::Unfit { from: PASSWORD_VARIABLE.to_owned(), problem: "not UTF-8" })
        }
    }
}

/// Reads the first line of a file.
pub(super) fn from_file(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    let from = path.display().to_string();
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 3));
    // With its line end, and one more to see that it is too long.
    let most = PASSWORD_BYTES_MAX as u64 + 3;
    File::open(path).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line)
        .map_err(|_| SecretError::Unfit { from: from.clone(), problem: "not UTF-8" })?;
    fit(Zeroizing::new(text.to_owned()), &from)
}

fn fit(text: Zeroizing<String>, from: &str) -> Result<Zeroizing<String>, SecretError> {
    let problem = match text.len() {
        0 => "empty",
        1..=PASSWORD_BYTES_MAX => return Ok(text),
        _ => "too long",
    };
    Err(SecretError::Unfit { from: from.to_owned(), problem })
}

/// Asks at the terminal, which shows nothing of what is typed.
pub(super) fn ask(what: &str) -> Result<Zeroizing<String>, SecretError> {
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open(TERMINAL) else {
        return Err(SecretError::NoTerminal { what: what.to_owned() });
    };
    let failed = SecretError::Terminal;
    let before = termios::tcgetattr(&terminal).map_err(|error| failed(error.into()))?;
    let silent = Silent::new(&terminal, before).map_err(failed)?;
    let asked = terminal_line(&terminal, what);
    drop(silent);
    // The line end that was typed was not shown either.
    terminal.write_all(b"\n").map_err(failed)?;
    fit(asked?, TERMINAL)
}

fn terminal_line(mut terminal: &File, what: &str) -> Result<Zeroizing<String>, SecretError> {
    // It may name a file: no control characters of its name reach the terminal.
    let shown: String = what.chars().filter(|c| !is_misleading(*c)).collect();
    write!(terminal, "Enter {shown}: ").and_then(|()| terminal.flush()).map_err(SecretError::Terminal)?;
    match line(terminal).map_err(SecretError::Terminal)? {
        Some(bytes) => {
            let text = std::str::from_utf8(&bytes)
                .map_err(|_| SecretError::Unfit { from: TERMINAL.to_owned(), problem: "not UTF-8" })?;
            Ok(Zeroizing::new(text.to_owned()))
        }
        None => Err(SecretError::Cancelled { what: what.to_owned() }),
    }
}

/// Reads what is typed up to the end of the line, byte by byte; `None`: it was interrupted.
fn line(mut typed: impl Read) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 1));
    let mut byte = [0];
    loop {
        if typed.read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte[0] {
            b'\n' | b'\r' => return Ok(Some(bytes)),
            INTERRUPT => return Ok(None),
            END if bytes.is_empty() => return Ok(None),
            END => return Ok(Some(bytes)),
            KILL_LINE => bytes.clear(),
            byte if BACKSPACE.contains(&byte) => {
                // The whole of a character, not its last byte.
                while bytes.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
            }
            // One beyond the bound is enough to refuse it.
            byte if bytes.len() <= PASSWORD_BYTES_MAX => bytes.push(byte),
            _ => {}
        }
    }
}

/// A terminal that shows nothing and sends no signals, until this is dropped: an interrupt in between must not leave it so.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File, before: Termios) -> std::io::Result<Self> {
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        // What was typed before the question is no answer to it.
        termios::tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // A terminal that went away needs no more.
        let _restored = termios::tcsetattr(self.terminal.as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_typed_line_with_its_corrections() {
        let typed = |bytes: &[u8]| line(bytes).unwrap().map(|line| String::from_utf8(line.to_vec()).unwrap());

        assert_eq!(typed(b"secret\rmore").as_deref(), Some("secret"));
        assert_eq!(typed("säx\x7f\x7fecret\n".as_bytes()).as_deref(), Some("secret"));
        assert_eq!(typed(b"wrong\x15secret\x04").as_deref(), Some("secret"));
        for given_up in [&b"sec\x03ret\n"[..], b"\x04", b"no end"] {
            assert_eq!(typed(given_up), None, "{given_up:?}");
        }
        assert_eq!(typed(&[b'x'; 5_000][..]), None);
        let long = [&[b'x'; 5_000][..], b"\n"].concat();
        assert_eq!(typed(&long).map(|line| line.len()), Some(PASSWORD_BYTES_MAX + 1));
    }

    #[test]
    fn takes_the_first_line_of_a_file_and_never_tells_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = |bytes: &[u8]| {
            let path = dir.path().join("password");
            std::fs::write(&path, bytes).unwrap();
            from_file(&path).map(|text| text.to_string()).map_err(|error| error.to_string())
        };

        assert_eq!(file(b"secret\r\nsecond\n").as_deref(), Ok("secret"));
        assert_eq!(file(b" secret ").as_deref(), Ok(" secret "));
        assert_eq!(file(&[b'x'; PASSWORD_BYTES_MAX]).map(|text| text.len()), Ok(PASSWORD_BYTES_MAX));
        for (wrong, said) in [(&b""[..], "empty"), (&[b'x'; 2_000], "too long"), (b"secret\xff", "not UTF-8")]
        {
            let error = file(wrong).unwrap_err();
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
        assert!(
            from_file(&dir.path().join("nothing")).unwrap_err().to_string().contains("nothing: No such file")
        );
    }
}
