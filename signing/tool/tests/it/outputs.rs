//! What a command writes takes the place of nothing but an older one of its kind.

use std::collections::BTreeMap;
use std::path::Path;

use crate::commands::{DEFINITION, home, refuse, succeed};
use crate::pack::Lab;

const BUILD: &str =
    "pack build d --name Acme-Test-Pack --version 1.0.0 --says p --key author.key --cert author.pem";

#[test]
fn no_command_writes_over_what_it_reads_under_any_name() {
    let home = home();
    let at = |file: &str| home.path().join(file);
    std::fs::write(at("a.toml"), DEFINITION).unwrap();
    std::fs::write(at("p.toml"), "serial = 1\ntenant = \"acme\"\n").unwrap();
    std::fs::write(at("password"), "secret\n").unwrap();
    std::os::unix::fs::symlink("author.key", at("link")).unwrap();
    std::fs::hard_link(at("author.key"), at("hard")).unwrap();
    succeed(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms");
    succeed(home.path(), "licence request --prefix Acme --key author.key --cert author.pem --out r.cms");
    succeed(home.path(), "timestamp a.cms --roots trust/authors.pem --request a.tsq");
    let sign = "definition sign a.toml --key author.key --cert author.pem --key-password-file password --out";
    let policy = "policy sign p.toml --key policy.key --cert policy.pem --out";
    let request = "licence request --prefix A --key author.key --cert author.pem --out";
    let issue = "licence issue --renew licence.cms --home . --request r.cms --prefix Acme=author.pem \
                 --distrust policy.pem=1800000000 --withdraw-signer server.pem --valid 9d --key licensor.key --cert licensor.pem --out";
    let ask = "timestamp a.cms --roots trust/authors.pem --request";
    let stamp = "timestamp a.cms --roots trust/authors.pem --request a.tsq --answer licence.cms --out";
    let file = "file sign a.toml --key author.key --cert author.pem --timestamp http://127.0.0.1:1/ \
                --timestamp-roots trust/authors.pem --out";
    let before = contents(home.path());
    for (command, out, argument) in [
        (sign, "a.toml", "FILE"),
        (sign, "author.key", "--key"),
        (sign, "trust/../author.key", "--key"),
        (sign, "link", "--key"),
        (sign, "hard", "--key"),
        (sign, "author.pem", "--cert"),
        (sign, "password", "--key-password-file"),
        (policy, "p.toml", "FILE"),
        (policy, "policy.key", "--key"),
        (request, "author.key", "--key"),
        (issue, "licensor.key", "--key"),
        (issue, "licence.cms", "--renew"),
        (issue, "r.cms", "--request"),
        (issue, "author.pem", "--prefix"),
        (issue, "policy.pem", "--distrust"),
        (issue, "server.pem", "--withdraw-signer"),
        (ask, "a.cms", "FILE"),
        (ask, "trust/authors.pem", "--roots"),
        (stamp, "a.tsq", "--request"),
        (stamp, "licence.cms", "--answer"),
        (file, "a.toml", "FILE"),
        (file, "author.key", "--key"),
        (file, "trust/authors.pem", "--timestamp-roots"),
    ] {
        let told = refuse(home.path(), &format!("{command} {out}"));

        assert!(told.contains(&format!(" {out}: names the file of {argument};")), "{command} {out}: {told}");
        assert_eq!(contents(home.path()), before, "{command} {out}");
    }
}

#[test]
fn a_pack_and_a_list_are_not_written_over_what_goes_into_them() {
    let lab = Lab::new();
    lab.succeed(&format!("{BUILD} --out a.pack"));
    let before = contents(&lab.path(""));
    for (command, words) in [
        (format!("{BUILD} --out author.key"), "--out author.key: names the file of --key;"),
        (format!("{BUILD} --out d/first.cms"), "--out d/first.cms: names the file of a member;"),
        (format!("{BUILD} --out d/list.txt"), "--out d/list.txt: names the file of a member;"),
        ("exchange build a.pack --roots root.pem --out a.pack".to_owned(), "names the file of a pack;"),
        ("exchange build a.pack --roots root.pem --out root.pem".to_owned(), "names the file of --roots;"),
    ] {
        let told = lab.refuse(&command);

        assert!(told.contains(words), "{command}: {told}");
        assert_eq!(contents(&lab.path("")), before, "{command}");
    }
    // An older one of its kind is what `--out` is for.
    lab.succeed(&format!("{BUILD} --out a.pack"));
}

#[test]
fn what_somebody_else_has_there_stays() {
    let home = home();
    let at = |file: &str| home.path().join(file);
    std::fs::write(at("a.toml"), DEFINITION).unwrap();
    std::fs::write(at("empty"), "").unwrap();
    let sign = "definition sign a.toml --key author.key --cert author.pem --out";
    let before = contents(home.path());
    for (out, words) in [
        ("policy.key", "it is no definition"),
        ("licence.cms", "it is no definition"),
        ("trust/authors.pem", "it is no definition"),
    ] {
        let told = refuse(home.path(), &format!("{sign} {out}"));

        assert!(told.contains(words) && told.contains("remove it"), "{out}: {told}");
        assert_eq!(contents(home.path()), before, "{out}");
    }
    for out in ["new.cms", "new.cms", "empty", "/dev/null"] {
        succeed(home.path(), &format!("{sign} {out}"));
    }
}

/// All files below a folder, with what is in them.
fn contents(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}
