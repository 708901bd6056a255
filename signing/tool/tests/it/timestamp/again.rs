//! Signing once more what has a timestamp: the earlier one stays, and goes only where somebody says so.

use super::kept::refuse;
use super::*;

const DEFINITION: &str = "definition sign a.toml --key author.key --cert author.pem --home . --out out";
const FILE: &str =
    "file sign a.toml --key author.key --cert author.pem --timestamp-roots trust/timestamps.pem --out out";
const PACK: &str = "pack build b.cms --name Acme-Test-Pack --version 1.0.0 --says p --key author.key --cert author.pem --home . --out out";

#[test]
fn what_is_signed_once_more_with_the_same_key_keeps_its_earlier_timestamp() {
    let (lab, home) = signing();
    let at = |file: &str| home.path().join(file);
    std::fs::write(at("b.cms"), &lab.envelope).unwrap();
    let served = Served::new(lab.authority, "application/timestamp-reply");
    let timestamp = format!("--timestamp {}", served.url);
    for (command, stamp) in [(DEFINITION, ""), (FILE, &timestamp), (PACK, &timestamp)] {
        let first = succeed(home.path(), &words(&format!("{command} {stamp}")));
        if stamp.is_empty() {
            succeed(home.path(), &words(&format!("timestamp out --home . --url {}", served.url)));
        }
        let stamped = std::fs::read(at("out")).unwrap();

        let again = succeed(home.path(), &words(&format!("{command} {stamp}")));
        let without = succeed(home.path(), &words(command));
        assert_eq!(std::fs::read(at("out")).unwrap(), stamped, "{command}");
        let replaced = succeed(home.path(), &words(&format!("{command} --replace")));

        assert!(!first.to_string().contains("that signature stays"), "{command}: {first}");
        for report in [again, without] {
            assert!(report["warnings"].to_string().contains("that signature stays"), "{command}: {report}");
            assert_eq!((&report["signed_at"], &report["signer"]), (&first["signed_at"], &first["signer"]));
        }
        assert!(!replaced.to_string().contains("that signature stays"), "{command}: {replaced}");
        assert_ne!(std::fs::read(at("out")).unwrap(), stamped, "{command}");
        std::fs::remove_file(at("out")).unwrap();
    }
}

#[test]
fn what_another_key_signed_or_has_a_timestamp_that_nobody_knows_is_not_written_over() {
    let (lab, home) = signing();
    let at = |file: &str| home.path().join(file);
    let other = lab.issue("bob");
    std::fs::write(at("other.pem"), &other.chain_pem).unwrap();
    std::fs::write(at("other.key"), &other.key_pem).unwrap();
    let served = Served::new(lab.authority, "application/timestamp-reply");
    succeed(home.path(), &words(&format!("{FILE} --timestamp {}", served.url)));
    let stamped = std::fs::read(at("out")).unwrap();
    let by_other = FILE.replace("author.", "other.");
    for (command, told) in [
        (by_other.clone(), "CN=ann signed it"),
        (
            FILE.replace("--timestamp-roots trust/timestamps.pem", ""),
            "which no roots of timestamp authorities",
        ),
        (FILE.replace("timestamps.pem", "authors.pem"), "which does not hold by these roots"),
    ] {
        let refused = refuse(home.path(), &words(&command));

        assert!(
            refused.contains("out: the same content has a timestamp already: of 20"),
            "{command}: {refused}"
        );
        assert!(refused.contains(told) && refused.contains("--replace"), "{command}: {refused}");
        assert_eq!(std::fs::read(at("out")).unwrap(), stamped, "{command}");
    }
    succeed(home.path(), &words(&format!("{by_other} --replace")));
    assert_ne!(std::fs::read(at("out")).unwrap(), stamped);
}

#[test]
fn another_content_takes_the_place_of_a_stamped_one_as_ever() {
    let (lab, home) = signing();
    let at = |file: &str| home.path().join(file);
    let served = Served::new(lab.authority, "application/timestamp-reply");
    let stamp =
        |file: &str| succeed(home.path(), &words(&format!("timestamp {file} --home . --url {}", served.url)));
    for command in [DEFINITION, FILE] {
        std::fs::write(at("a.toml"), CONTENT).unwrap();
        succeed(home.path(), &words(command));
        stamp("out");
        let text = String::from_utf8(CONTENT.to_vec()).unwrap();
        std::fs::write(at("a.toml"), text.replace("1.0.0", "1.0.1")).unwrap();

        let report = succeed(home.path(), &words(command));

        assert!(!report.to_string().contains("that signature stays"), "{report}");
        assert_eq!(envelope::inspect(&std::fs::read(at("out")).unwrap()).unwrap().stamps, []);
        std::fs::remove_file(at("out")).unwrap();
    }
}

#[test]
fn a_signature_that_lacks_a_certificate_of_its_chain_is_not_kept_for_a_whole_one() {
    let lab = Lab::new();
    let home = lab.home();
    let at = |file: &str| home.path().join(file);
    let issuing = lab.root.issue_authority("issuing", Duration::from_secs(2 * DAY), UnixTime::now()).unwrap();
    let issued = issuing.issue(&wanted("ann")).unwrap();
    let alone = issued.chain_pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned();
    std::fs::write(at("author.key"), &issued.key_pem).unwrap();
    std::fs::write(at("author.pem"), &alone).unwrap();
    std::fs::write(at("a.toml"), CONTENT).unwrap();
    let served = Served::new(lab.authority, "application/timestamp-reply");
    succeed(home.path(), &words(&format!("{FILE} --timestamp {}", served.url)));
    std::fs::write(at("author.pem"), alone + &issuing.certificate_pem()).unwrap();

    let refused = refuse(home.path(), &words(FILE));

    assert!(refused.contains("CN=issuing is not in that signature"), "{refused}");
}

#[test]
fn a_policy_that_is_signed_anew_says_that_its_timestamp_is_gone() {
    let (lab, home) = signing();
    let at = |file: &str| home.path().join(file);
    std::fs::write(at("p.toml"), "serial = 1\ntenant = \"acme\"\n").unwrap();
    let served = Served::new(lab.authority, "application/timestamp-reply");
    let sign = words("policy sign p.toml --key author.key --cert author.pem --out out");
    succeed(home.path(), &sign);
    succeed(home.path(), &words(&format!("timestamp out --home . --url {}", served.url)));

    let anew = succeed(home.path(), &sign);
    let plain = succeed(home.path(), &sign);

    assert!(anew["warnings"].to_string().contains("had a timestamp, which is gone with it: of 20"), "{anew}");
    assert!(!plain["warnings"].to_string().contains("timestamp"), "{plain}");
}

#[test]
fn an_authority_that_is_there_over_https_alone_is_wrong_usage_whatever_the_files_hold() {
    let home = tempfile::tempdir().unwrap();
    for command in [
        "timestamp none --roots none --url https://stamps.example/",
        "file sign none --key none --timestamp-roots none --timestamp https://stamps.example/",
        "pack build none --name Acme-Test-Pack --version 1.0.0 --says p --key none --out p --timestamp-roots none --timestamp ftp://stamps.example/",
    ] {
        let output = muster_sign(home.path(), &words(command));

        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}: {told}");
        for step in ["wanted http://HOST", "--request FILE.tsq", "--answer FILE.tsr"] {
            assert!(told.contains(step), "{command}: {told}");
        }
    }
}

/// A lab, and a home with its author's key and a text to sign.
fn signing() -> (Lab, tempfile::TempDir) {
    let lab = Lab::new();
    let home = lab.home();
    std::fs::write(home.path().join("author.pem"), &lab.author.chain_pem).unwrap();
    std::fs::write(home.path().join("author.key"), &lab.author.key_pem).unwrap();
    std::fs::write(home.path().join("a.toml"), CONTENT).unwrap();
    (lab, home)
}

impl Lab {
    fn issue(&self, common_name: &str) -> Issued {
        self.root.issue(&wanted(common_name)).unwrap()
    }
}

fn wanted(common_name: &str) -> Wanted {
    let now = UnixTime::now().as_secs();
    Wanted {
        common_name: common_name.to_owned(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        role: Role::Author,
        not_before: seconds(now - 60),
        not_after: seconds(now + DAY),
        crl_url: None,
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}
