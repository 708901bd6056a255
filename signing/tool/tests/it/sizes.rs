//! Files that are too large, or have no end: each is refused by its bound, in a process that could not hold it.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::commands::{DEFINITION, home, succeed};

/// Address space of a run, in KiB: far above what any command needs, far below the files.
const MEMORY_KIB: u32 = 1 << 20;

/// Every option and argument that names a file which is read whole, in the place of `LARGE`.
const COMMANDS: &[&str] = &[
    "definition sign LARGE --key author.key --cert author.pem --out out",
    "definition sign a.toml --key LARGE --cert author.pem --out out",
    "definition sign a.toml --key author.key --cert LARGE --out out",
    "definition sign a.toml --key author.key --cert author.pem --key-password-file LARGE --out out",
    "definition verify LARGE --home .",
    "definition verify a.cms --home . --crl LARGE",
    "definition inspect LARGE",
    "definition lint LARGE",
    "licence request --prefix Acme --key LARGE --out out",
    "licence issue --request LARGE --serial 4 --valid 9d --key licensor.key --cert licensor.pem --out out",
    "licence issue --renew LARGE --home . --valid 9d --key licensor.key --cert licensor.pem --out out",
    "licence issue --renew licence.cms --home . --prefix A=LARGE --valid 9d --key licensor.key --cert licensor.pem --out out",
    "licence issue --renew licence.cms --home . --distrust LARGE=1800000000 --valid 9d --key licensor.key --cert licensor.pem --out out",
    "licence issue --renew licence.cms --home . --withdraw-signer LARGE --valid 9d --key licensor.key --cert licensor.pem --out out",
    "licence inspect LARGE",
    "policy sign LARGE --key policy.key --cert policy.pem --out out",
    "policy verify LARGE --home .",
    "policy inspect LARGE",
    "timestamp LARGE --roots trust/authors.pem --request out",
    "timestamp a.cms --roots LARGE --request out",
    "timestamp a.cms --roots trust/authors.pem --request LARGE --answer licence.cms",
    "timestamp a.cms --roots trust/authors.pem --request a.tsq --answer LARGE",
    "file sign a.toml --key author.key --cert author.pem --timestamp http://127.0.0.1:1/ --timestamp-roots LARGE --out out",
    "file verify a.toml --signature LARGE --roots trust/authors.pem",
    "file verify a.toml --roots LARGE",
    "file verify a.toml --roots trust/authors.pem --timestamp-roots LARGE",
    "file verify a.toml --roots trust/authors.pem --crl LARGE",
    "pack build LARGE.cms --name Acme-A-B --version 1.0.0 --says a --key author.key --cert author.pem --out out",
    "pack verify a.toml --roots LARGE",
    "exchange build a.toml --roots LARGE --out out",
];

#[test]
fn a_file_above_the_bound_of_its_kind_is_refused_before_it_is_read_whatever_names_it() {
    let home = home();
    let at = |file: &str| home.path().join(file);
    std::fs::write(at("a.toml"), DEFINITION).unwrap();
    succeed(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms");
    succeed(home.path(), "file sign a.toml --key author.key --cert author.pem");
    succeed(home.path(), "timestamp a.cms --roots trust/authors.pem --request a.tsq");
    for file in ["sparse", "sparse.cms"] {
        File::create(at(file)).unwrap().set_len(100 << 30).unwrap();
    }
    for command in COMMANDS {
        let (code, said) = run(home.path(), &command.replace("LARGE", "sparse"));

        assert_eq!(code, Some(1), "{command}: {said}");
        // A password is a first line, and its file is not read beyond the longest.
        let is_password = command.contains("--key-password-file");
        let words: &[&str] = if is_password {
            &["sparse: too long; wanted one line"]
        } else {
            &["sparse", "107374182400 bytes; wanted ", " of at most "]
        };
        for words in words {
            assert!(said.contains(words), "{command}: {words}: {said}");
        }
        assert!(!at("out").exists(), "{command}");
    }
}

#[test]
fn a_file_without_an_end_is_read_up_to_the_bound_of_its_kind() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();
    succeed(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms");
    succeed(home.path(), "file sign a.toml --key author.key --cert author.pem");
    succeed(home.path(), "timestamp a.cms --roots trust/authors.pem --request a.tsq");
    for command in COMMANDS.iter().filter(|command| !command.contains("LARGE.cms")) {
        let (code, said) = run(home.path(), &command.replace("LARGE", "/dev/zero"));

        assert_eq!(code, Some(1), "{command}: {said}");
        let words = ["more than ", "not a regular file", "too long"];
        assert!(
            said.contains("/dev/zero: ") && words.iter().any(|it| said.contains(it)),
            "{command}: {said}"
        );
        assert!(!home.path().join("out").exists(), "{command}");
    }
}

/// Runs a command in little memory: its exit code, and all that it said.
fn run(dir: &Path, arguments: &str) -> (Option<i32>, String) {
    let limited = format!("ulimit -v {MEMORY_KIB} && exec \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_muster-sign")])
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .env_remove("MUSTER_HOME")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}
