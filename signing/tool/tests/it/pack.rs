//! Packs (G9), from files and back: `tar` and `openssl cms` read ours.

use std::process::{Command, Output};
use std::time::Duration;

use muster_pki::Role;
use muster_pki::UnixTime;
use muster_pki::authority::{Authority, Overrides, Request, Revoked};

use crate::authority::{P256, Served, TimestampAuthority, run};

pub(crate) const BUILD: &str = "pack build d --name Acme-Test-Pack --version 1.0.0 --says Tests. --key author.key --cert author.pem \
                     --out a.pack";

#[test]
fn g9_a_pack_is_built_verified_and_read_by_tar_and_openssl() {
    let lab = Lab::new();

    let built = lab.succeed(BUILD);
    let verified = lab.succeed("pack verify a.pack --roots root.pem");
    let text = String::from_utf8(lab.muster_sign("pack verify a.pack --roots root.pem").stdout).unwrap();
    std::fs::create_dir(lab.path("x")).unwrap();
    let tar = Command::new("tar").args(["xvf", "../a.pack"]).current_dir(lab.path("x")).output().unwrap();
    run(
        &lab.path("x"),
        &"cms -verify -cades -inform DER -in index.cms -CAfile ../root.pem -purpose any -binary -out index.toml"
            .split(' ')
            .collect::<Vec<_>>(),
    );

    assert_eq!((&built["definitions"], &built["resources"]), (&2.into(), &1.into()));
    assert_eq!(verified["definitions"][0]["path"], "definitions/Acme-Test-A-1.0.0.cms");
    assert_eq!(verified["definitions"][1]["name"], "Acme-Test-B");
    assert_eq!(verified["definitions"][1]["signer"], built["signer"]);
    assert_eq!(verified["resources"][0]["path"], "resources/list.txt");
    assert_eq!(verified["size"], std::fs::metadata(lab.path("a.pack")).unwrap().len());
    assert_eq!(verified["sha256"], sha256sum(&lab.path("a.pack")));
    assert!(verified["root"]["subject"].as_str().unwrap().contains("authors"), "{verified}");
    let row = text.lines().find(|line| line.starts_with("definitions/Acme-Test-B-1.0.0.cms ")).unwrap();
    assert!(row.contains("  question  ") && row.contains("author"), "{text}");
    assert!(text.contains(verified["resources"][0]["root"].as_str().unwrap()), "{text}");
    assert!(tar.status.success() && tar.stderr.is_empty(), "{tar:?}");
    let names = String::from_utf8(tar.stdout).unwrap();
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        [
            "index.cms",
            "definitions/Acme-Test-A-1.0.0.cms",
            "definitions/Acme-Test-B-1.0.0.cms",
            "resources/list.txt"
        ]
    );
    let same = |packed: &str, given: &str| {
        assert_eq!(
            std::fs::read(lab.path(packed)).unwrap(),
            std::fs::read(lab.path(given)).unwrap(),
            "{given}"
        );
    };
    same("x/definitions/Acme-Test-A-1.0.0.cms", "d/first.cms");
    same("x/resources/list.txt", "d/list.txt");
    let index = std::fs::read_to_string(lab.path("x/index.toml")).unwrap();
    assert!(index.contains(verified["resources"][0]["sha256"].as_str().unwrap()), "{index}");
}

#[test]
fn g9_the_same_files_make_the_same_archive_but_for_the_indexs_signature() {
    let lab = Lab::new();
    lab.succeed(BUILD);
    let first = std::fs::read(lab.path("a.pack")).unwrap();
    let touched = std::fs::File::options().append(true).open(lab.path("d/list.txt")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    run(
        lab.dir.path(),
        &["cms", "-cmsout", "-inform", "DER", "-in", "d/first.cms", "-outform", "PEM", "-out", "first.cms"],
    );
    std::fs::create_dir(lab.path("e")).unwrap();
    std::fs::rename(lab.path("d/second.cms"), lab.path("e/0.cms")).unwrap();

    lab.succeed(&BUILD.replace("build d", "build d/list.txt first.cms e"));

    let second = std::fs::read(lab.path("a.pack")).unwrap();
    let behind = |archive: &[u8]| {
        // The index names it, too; behind it stands the archive's own header.
        let name = b"definitions/Acme-Test-A-1.0.0.cms\0";
        let at = archive.windows(name.len()).position(|window| window == name).unwrap();
        archive[at..].to_vec()
    };
    assert_ne!(first, second);
    assert_eq!(behind(&first), behind(&second));
}

#[test]
fn a_pack_that_is_taken_for_a_document_is_told_as_what_it_is() {
    let lab = Lab::new();
    lab.succeed(BUILD);

    for words in ["definition inspect a.pack", "definition lint a.pack"] {
        let output = lab.muster_sign(words);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();

        assert!(said.contains("a pack, or another archive; `muster-sign pack verify`"), "{words}: {said}");
    }
}

#[test]
fn what_does_not_belong_into_a_pack_is_told_and_nothing_is_written() {
    let lab = Lab::new();
    std::fs::write(lab.path("stray.txt"), "stray").unwrap();
    std::fs::write(lab.path("no.cms"), "no").unwrap();
    std::fs::write(lab.path(".hidden"), "a\nb\n").unwrap();
    std::fs::create_dir_all(lab.path("f/deeper")).unwrap();
    for (arguments, words) in [
        ("build d stray.txt", "resources/stray.txt: no definition of the pack names it by its root"),
        ("build d/first.cms d/second.cms", "resource list of Acme-Test-B"),
        ("build d d/first.cms", "definitions/Acme-Test-A-1.0.0.cms: there twice"),
        ("build d no.cms", "no.cms: neither PEM nor DER"),
        ("build d policy.cms", "policy.cms: a policy; wanted a definition"),
        ("build d f", "deeper: not a regular file"),
        ("build d none", "none: No such file"),
        ("build d/first.cms d/second.cms .hidden", "resources/.hidden: wanted resources/NAME"),
    ] {
        let arguments = BUILD.replace("build d", arguments);

        let error = lab.refuse(&arguments);

        assert!(error.contains(words), "{arguments}: {error}");
        assert!(!lab.path("a.pack").exists(), "{arguments}");
    }
    for (from, to, code) in
        [("Acme-Test-Pack", "Acme", 2), ("1.0.0", "one", 2), ("--key author", "--key packer", 1)]
    {
        assert_eq!(lab.muster_sign(&BUILD.replace(from, to)).status.code(), Some(code), "{to}");
    }
    let left = std::fs::read_dir(lab.dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".partial"));
    assert_eq!(left.count(), 0);
    assert_eq!(lab.muster_sign("pack build").status.code(), Some(2));
    assert_eq!(lab.muster_sign("pack verify a.pack").status.code(), Some(2));
}

#[test]
fn g5_a_pack_with_a_revoked_author_in_it_is_refused_once_the_crl_is_given() {
    let lab = Lab::new();
    lab.succeed(&BUILD.replace("author.", "packer."));
    lab.succeed("pack verify a.pack --roots root.pem");

    let error = lab.refuse("pack verify a.pack --roots root.pem --crl author.crl");

    assert!(error.contains("definitions/Acme-Test-A-1.0.0.cms: SIGNER_REVOKED"), "{error}");
    lab.succeed("pack verify a.pack --roots root.pem --crl nobody.crl");
}

#[test]
fn g9_the_index_is_stamped_in_one_go() {
    let lab = Lab::new();
    let authority = TimestampAuthority::new(P256);
    std::fs::copy(authority.path("root.pem"), lab.path("stamps.pem")).unwrap();
    let served = Served::new(authority, "application/timestamp-reply");

    let built = lab.succeed(&format!("{BUILD} --timestamp {} --timestamp-roots stamps.pem", served.url));
    let verified = lab.succeed("pack verify a.pack --roots root.pem --timestamp-roots stamps.pem");
    let unknown = lab.refuse("pack verify a.pack --roots root.pem");

    assert!(built["timestamp"].as_u64().is_some(), "{built}");
    assert_eq!(verified["timestamp"], built["timestamp"]);
    assert!(unknown.contains("no roots of timestamp authorities"), "{unknown}");
}

#[test]
fn g9_a_pack_of_200_mib_is_built_and_verified_within_128_mib() {
    let lab = Lab::new();
    let list = std::fs::File::create(lab.path("d/list.txt")).unwrap();
    list.set_len(200 << 20).unwrap();
    let mut hasher = muster_signing::pack::MemberHasher::default();
    (0..200).for_each(|_| hasher.update(&vec![0; 1 << 20]));
    let digests = hasher.finish();
    lab.definition("second", "Acme-Test-B", Some((digests.size, digests.root.to_string())));
    let within = |arguments: &str| {
        let command = format!("ulimit -v 131072 && exec \"$0\" {arguments}");
        let binary = env!("CARGO_BIN_EXE_muster-sign");
        Command::new("sh").args(["-c", &command, binary]).current_dir(lab.dir.path()).output().unwrap()
    };

    let built = within(BUILD);
    let verified = within("pack verify a.pack --roots root.pem");

    assert!(built.status.success(), "{built:?}");
    assert!(verified.status.success(), "{verified:?}");
}

/// What the system's own tool says of a file.
pub(crate) fn sha256sum(file: &std::path::Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// Two signed definitions, one of which needs a file, in a folder `d`.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap() };
        let now = UnixTime::now();
        let day = Duration::from_secs(86_400);
        let root = Authority::root("authors", 365 * day, now).unwrap();
        for name in ["author", "packer"] {
            let request = Request {
                common_name: name.to_owned(),
                dns_names: Vec::new(),
                ip_addresses: Vec::new(),
                role: Role::Author,
                not_before: now,
                not_after: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + day),
                crl_url: None,
            };
            let issued = root.issue_with(&request, &Overrides::default()).unwrap();
            if name == "author" {
                let revoked = [Revoked { serial_hex: issued.certificate.serial_hex(), at: now }];
                let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + day);
                std::fs::write(lab.path("author.crl"), root.crl(&revoked, 1, now, later).unwrap()).unwrap();
                std::fs::write(lab.path("nobody.crl"), root.crl(&[], 1, now, later).unwrap()).unwrap();
            }
            std::fs::write(lab.path(&format!("{name}.pem")), issued.chain_pem).unwrap();
            std::fs::write(lab.path(&format!("{name}.key")), issued.key_pem).unwrap();
        }
        std::fs::write(lab.path("root.pem"), root.certificate_pem()).unwrap();
        std::fs::write(lab.path("root.key"), root.key_pem()).unwrap();
        std::fs::create_dir(lab.path("d")).unwrap();
        std::fs::write(lab.path("d/list.txt"), "a\nb\n").unwrap();
        let digests = muster_signing::pack::Digests::of(b"a\nb\n");
        lab.definition("first", "Acme-Test-A", None);
        lab.definition("second", "Acme-Test-B", Some((digests.size, digests.root.to_string())));
        std::fs::write(lab.path("p.toml"), "serial = 1\ntenant = \"acme\"\nsays = \"p\"\n").unwrap();
        lab.succeed("policy sign p.toml --key author.key --cert author.pem --out policy.cms");
        lab
    }

    /// Signs a definition; with the size and root of a resource, where it needs one.
    fn definition(&self, file: &str, name: &str, resource: Option<(u64, String)>) {
        let (query, resource) = match resource {
            Some((size, root)) => (
                "SELECT :resource_list AS v",
                format!("\n[[resource]]\nname = \"list\"\nsize = {size}\nroot = \"{root}\"\n"),
            ),
            None => ("SELECT 1 AS v", String::new()),
        };
        let text = format!(
            "name = \"{name}\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"?\"\n\n[[step]]\nquery = \"{query}\"\n\n\
             [[result]]\nname = \"v\"\ntype = \"text\"\nmax_length = 64\n{resource}"
        );
        std::fs::write(self.path("d.toml"), text).unwrap();
        self.succeed(&format!(
            "definition sign d.toml --key author.key --cert author.pem --out d/{file}.cms"
        ));
    }

    pub(crate) fn path(&self, file: &str) -> std::path::PathBuf {
        self.dir.path().join(file)
    }

    pub(crate) fn succeed(&self, arguments: &str) -> serde_json::Value {
        let output = self.muster_sign(&format!("{arguments} -o json"));
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn refuse(&self, arguments: &str) -> String {
        let output = self.muster_sign(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn muster_sign(&self, arguments: &str) -> Output {
        crate::commands::muster_sign(self.dir.path(), arguments)
    }
}
