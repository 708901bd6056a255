//! What the tests share: commands and what they said, waiting for conditions, processes that end with the test.

pub(crate) mod orders;
mod place;
mod process;
mod sessions;
mod small_disk;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use place::Place;
pub(crate) use process::{Service, children, kill};
pub(crate) use sessions::{Sessions, shown};
pub(crate) use small_disk::SmallDisk;
pub(crate) use systemd::Systemd;

/// Longer than anything that is waited for takes on a slow, busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(25);

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its exit code; -1 after a signal.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
    what: String,
}

impl Said {
    /// Expects this exit code.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "exit code of {}\n-- stdout\n{}\n-- stderr\n{}",
            self.what, self.out, self.err
        );
        self
    }

    /// Expects every one of these words in standard error, in any case.
    #[track_caller]
    pub(crate) fn naming(self, words: &[&str]) -> Self {
        let said = self.err.to_lowercase();
        for word in words {
            assert!(
                said.contains(&word.to_lowercase()),
                "no `{word}` in what {} said (exit {}):\n{}\n-- stdout\n{}",
                self.what,
                self.code,
                self.err,
                self.out
            );
        }
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}\n{}", self.what, self.out, self.err))
    }

    /// Standard output as lines of JSON.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// Standard output's lines.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Said {
    let what = format!("{command:?}");
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{what}: {error}"));
    Said {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
        what,
    }
}

/// Runs a program of the system, which must succeed.
#[track_caller]
pub(crate) fn system(program: &str, arguments: &[&str]) -> Said {
    run(Command::new(program).args(arguments).env("LC_ALL", "C")).with_code(0)
}

/// Runs a command of words.
#[track_caller]
pub(crate) fn with<S: AsRef<std::ffi::OsStr>>(
    mut command: Command,
    words: impl IntoIterator<Item = S>,
) -> Said {
    run(command.args(words))
}

/// Waits until a condition gives a value.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(LOOK);
    }
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Whether this machine lacks something that a test needs, which fails the test, unless `MUSTER_TEST_MAY_SKIP` names it.
#[track_caller]
pub(crate) fn lacks(name: &str, is_missing: bool, fix: &str) -> bool {
    let may_skip = std::env::var("MUSTER_TEST_MAY_SKIP").unwrap_or_default();
    let may = may_skip.split(',').any(|one| one.trim() == name);
    assert!(!is_missing || may, "needs {name}: {fix}; or skip such tests with MUSTER_TEST_MAY_SKIP={name}");
    if is_missing {
        eprintln!("SKIPPED, since MUSTER_TEST_MAY_SKIP names {name}");
    }
    is_missing
}

/// Whether the test lacks root, see [`lacks`].
#[track_caller]
pub(crate) fn lacks_root() -> bool {
    lacks("root", !nix::unistd::geteuid().is_root(), "run it as root, who may mount and give files away")
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// A built binary of the project.
pub(crate) fn binary(name: &str) -> Command {
    Command::new(muster_load_tests::dev_fleet::binary(name))
}

/// A temporary folder with a short path: sockets lie in it.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("muster-").tempdir_in("/tmp").expect("a temporary folder")
}

/// The rows of an answer in JSON, each with its device.
#[track_caller]
pub(crate) fn rows(answer: &Value) -> Vec<Value> {
    answer["rows"].as_array().unwrap_or_else(|| panic!("no rows: {answer}")).clone()
}

/// Writes a file and its folder.
#[track_caller]
pub(crate) fn write(path: &Path, text: &str) {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Signs a definition's text with the publisher's key of a home: `FOLDER/NAME.toml` becomes `FOLDER/NAME.cms`.
#[track_caller]
pub(crate) fn sign_definition(folder: &Path, name: &str, text: &str, home: &Path) -> PathBuf {
    let authored = folder.join(format!("{name}.toml"));
    let signed = authored.with_extension("cms");
    write(&authored, text);
    let mut sign = binary("muster-sign");
    sign.args(["definition", "sign"]).arg(&authored).arg("--out").arg(&signed);
    sign.arg("--key").arg(home.join("publisher/key.pem")).arg("--cert").arg(home.join("publisher/cert.pem"));
    run(&mut sign).with_code(0);
    signed
}

/// The answer to a plain HTTP request, its head included.
pub(crate) fn http(port: u16, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut answer = String::new();
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return answer };
    let asked = write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    asked.and_then(|()| stream.read_to_string(&mut answer)).expect("an answer");
    answer
}
