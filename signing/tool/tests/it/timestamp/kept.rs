//! Which timestamps are written, and which stay: one that holds is never lost, and one that proves nothing is never written.

use super::*;
use muster_sign::existing_timestamps;

const STAMP: [&str; 4] = ["timestamp", "a.cms", "--home", "."];

#[test]
fn a_timestamp_stays_unless_it_is_to_be_replaced_whichever_roots_are_named() {
    let lab = Lab::new();
    let home = lab.home();
    let at = |file: &str| home.path().join(file);
    std::fs::write(at("a.cms"), &lab.envelope).unwrap();
    let served = Served::new(lab.authority, "application/timestamp-reply");
    let first = succeed(home.path(), &[&STAMP[..], &["--url", &served.url]].concat());
    let stamped = std::fs::read(at("a.cms")).unwrap();
    let by_others = ["timestamp", "a.cms", "--roots", "trust/authors.pem"];

    let again = refuse(home.path(), &[&STAMP[..], &["--url", &served.url]].concat());
    let beside = refuse(home.path(), &[&STAMP[..], &["--url", &served.url, "--out", "b.cms"]].concat());
    let asked = refuse(home.path(), &[&STAMP[..], &["--request", "a.tsq"]].concat());
    let unknown = refuse(home.path(), &[&by_others[..], &["--url", &served.url]].concat());

    for told in [&again, &beside, &asked] {
        assert!(told.contains("has a timestamp already: of 20") && told.contains("which holds"), "{told}");
    }
    assert!(unknown.contains("which does not hold by these roots"), "{unknown}");
    for told in [again, beside, asked, unknown] {
        assert!(told.contains("CN=stamps") && told.contains("--replace"), "{told}");
    }
    assert_eq!(std::fs::read(at("a.cms")).unwrap(), stamped, "as it was");
    assert!(!at("a.tsq").exists() && !at("b.cms").exists());
    let replaced = succeed(home.path(), &[&STAMP[..], &["--url", &served.url, "--replace"]].concat());
    assert!(replaced["timestamps"][0]["at"].as_u64() >= first["timestamps"][0]["at"].as_u64(), "{replaced}");
    assert_ne!(std::fs::read(at("a.cms")).unwrap(), stamped);
}

#[test]
fn a_stamped_document_is_not_written_over_by_itself_with_a_later_timestamp() {
    let lab = Lab::new();
    let home = lab.home();
    let at = |file: &str| home.path().join(file);
    std::fs::write(at("a.cms"), &lab.envelope).unwrap();
    std::fs::write(at("none.crl"), lab.authority.list(None)).unwrap();
    std::fs::write(at("foreign.crl"), "-----BEGIN X509 CRL-----\n").unwrap();
    let served = Served::new(lab.authority, "application/timestamp-reply");
    let out = [&STAMP[..], &["--url", &served.url, "--out", "b.cms"]].concat();
    succeed(home.path(), &out);
    let stamped = std::fs::read(at("b.cms")).unwrap();

    let again = refuse(home.path(), &out);
    let listed = refuse(home.path(), &[&out[..], &["--crl", "none.crl"]].concat());
    let unread = refuse(
        home.path(),
        &["timestamp", "b.cms", "--home", ".", "--url", &served.url, "--crl", "foreign.crl"],
    );

    for told in [&again, &listed] {
        assert!(told.contains("b.cms: has a timestamp already") && told.contains("which holds"), "{told}");
    }
    assert!(unread.contains("foreign.crl"), "{unread}");
    assert_eq!(std::fs::read(at("b.cms")).unwrap(), stamped, "as it was");
    succeed(home.path(), &[&out[..], &["--replace"]].concat());
    assert_ne!(std::fs::read(at("b.cms")).unwrap(), stamped);
}

#[test]
fn the_timestamp_of_a_files_signature_stays_too() {
    let lab = Lab::new();
    let home = lab.home();
    let at = |file: &str| home.path().join(file);
    std::fs::write(at("author.pem"), &lab.author.chain_pem).unwrap();
    std::fs::write(at("author.key"), &lab.author.key_pem).unwrap();
    std::fs::write(at("FILE"), CONTENT).unwrap();
    let served = Served::new(lab.authority, "application/timestamp-reply");
    let by = ["--key", "author.key", "--cert", "author.pem", "--home", ".", "--timestamp", &served.url];
    succeed(home.path(), &[&["file", "sign", "FILE"][..], &by].concat());
    let stamped = std::fs::read(at("FILE.p7s")).unwrap();

    let told = refuse(home.path(), &["timestamp", "FILE.p7s", "--home", ".", "--url", &served.url]);

    assert!(told.contains("FILE.p7s: has a timestamp already"), "{told}");
    assert_eq!(std::fs::read(at("FILE.p7s")).unwrap(), stamped);
}

#[test]
fn after_the_end_of_its_signer_a_timestamp_is_not_replaced_by_one_that_proves_nothing() {
    let lab = Lab::new();
    let home = lab.home();
    let at = |file: &str| home.path().join(file);
    // Time enough for one timestamp.
    let end = UnixTime::now().as_secs() + 6;
    std::fs::write(at("a.cms"), lab.signed(end - 60, end, end - 6)).unwrap();
    let served = Served::new(lab.authority, "application/timestamp-reply");
    succeed(home.path(), &[&STAMP[..], &["--url", &served.url]].concat());
    let stamped = std::fs::read(at("a.cms")).unwrap();
    while UnixTime::now().as_secs() <= end {
        std::thread::sleep(Duration::from_millis(50));
    }

    let kept = refuse(home.path(), &[&STAMP[..], &["--url", &served.url]].concat());
    let forced = refuse(home.path(), &[&STAMP[..], &["--url", &served.url, "--replace"]].concat());

    assert!(kept.contains("which holds"), "{kept}");
    assert!(forced.contains("the certificate of CN=ann had ended at"), "{forced}");
    assert_eq!(std::fs::read(at("a.cms")).unwrap(), stamped);
    succeed(home.path(), &["definition", "verify", "a.cms", "--home", "."]);
}

#[test]
fn no_timestamp_is_written_by_which_its_document_would_be_refused() {
    let lab = Lab::new();
    let home = lab.home();
    let now = UnixTime::now().as_secs();
    let cases = [
        ("ended", lab.signed(now - 7_200, now - 3_600, now - 5_000), "had ended at"),
        ("early", lab.signed(now + 3_600, now + 7_200, now + 3_601), "was not valid yet"),
        ("ahead", lab.signed(now - 3_600, now + DAY, now + 1_800), "says that it was signed later, at"),
    ];
    let served = Served::new(lab.authority, "application/timestamp-reply");
    for (name, envelope, words) in cases {
        let file = format!("{name}.cms");
        std::fs::write(home.path().join(&file), &envelope).unwrap();
        for more in [&[][..], &["--replace"], &["--out", "b.cms"]] {
            let told = refuse(
                home.path(),
                &[&["timestamp", &file, "--home", ".", "--url", &served.url][..], more].concat(),
            );

            assert!(told.contains(words) && told.contains("proves nothing"), "{name}: {told}");
            assert_eq!(std::fs::read(home.path().join(&file)).unwrap(), envelope, "{name}");
            assert!(!home.path().join("b.cms").exists(), "{name}");
        }
    }
}

#[test]
fn a_signer_revoked_before_the_timestamp_gets_none_and_one_revoked_after_it_keeps_it() {
    let lab = Lab::new();
    let stamped = lab.stamp().unwrap();
    let at = stamped.stamps[0].at.as_secs();
    for (revoked_at, is_good) in [(at + 60, true), (at - 60, false)] {
        let revoked = [Revoked { serial_hex: lab.author.certificate.serial_hex(), at: seconds(revoked_at) }];
        let crl = lab.root.crl(&revoked, 1, seconds(at - 60), seconds(at + 30 * DAY)).unwrap();
        let issuers = [lab.root.certificate().clone()];
        let index =
            || RevocationIndex::default().with_crl(crl.as_bytes(), &issuers, UnixTime::now()).unwrap();
        let ask = |request: &Request| Ok::<_, ToolError>(lab.authority.answer(request.der()));

        let again = stamp_envelope(
            &lab.envelope,
            &lab.stamps,
            |_| Ok(Some(index())),
            UnixTime::now(),
            || Ok([9; 16]),
            ask,
        );
        let existing =
            existing_timestamps(&stamped.envelope, &lab.stamps, Some(&index()), UnixTime::now()).unwrap();

        assert_eq!(existing[0].problem.is_none(), is_good, "{existing:?}");
        match again {
            Ok(_) => assert!(is_good),
            Err(error) => assert!(!is_good && error.to_string().contains("CN=ann was revoked"), "{error}"),
        }
    }
}

impl Lab {
    /// A home that trusts the lab's roots.
    pub(super) fn home(&self) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("trust")).unwrap();
        std::fs::copy(self.authority.path("root.pem"), home.path().join("trust/timestamps.pem")).unwrap();
        for role in ["authors", "licences"] {
            let file = home.path().join(format!("trust/{role}.pem"));
            std::fs::write(file, self.root.certificate_pem()).unwrap();
        }
        home
    }

    /// The content, signed at a moment by someone whose certificate is valid from one to another.
    fn signed(&self, from: u64, to: u64, signed_at: u64) -> Vec<u8> {
        let wanted = Wanted {
            common_name: "ann".to_owned(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            role: Role::Author,
            not_before: seconds(from),
            not_after: seconds(to),
            crl_url: None,
        };
        let issued = self.root.issue(&wanted).unwrap();
        let signer = Signer::from_pem(&issued.chain_pem, &issued.key_pem).unwrap();
        envelope::sign(CONTENT, ContentType::Definition, &signer, seconds(signed_at)).unwrap()
    }
}

pub(super) fn refuse(dir: &Path, arguments: &[&str]) -> String {
    let output = muster_sign(dir, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}
