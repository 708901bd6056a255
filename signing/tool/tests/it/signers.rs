//! What is signed, by whom, and what is told of signatures that nobody would accept.

use std::path::Path;
use std::time::Duration;

use muster_pki::authority::{Authority, Request};
use muster_pki::{Role, UnixTime};
use muster_signing::envelope::{self, ContentType, Signer};

use crate::commands::{DEFINITION, home, muster_sign, refuse, succeed};

const SIGN: &str = "definition sign a.toml --out a.cms";

#[test]
fn the_help_of_verify_tells_the_exit_code_of_an_unlicensed_definition() {
    let help = String::from_utf8(muster_sign(Path::new("."), "definition verify --help").stdout).unwrap();

    assert!(help.contains("UNLICENSED (exit code 1)"), "{help}");
}

#[test]
fn g5_a_definition_is_signed_by_an_author_of_the_home_and_nobody_else() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();

    let licensor = refuse(home.path(), &format!("{SIGN} --home . --key licensor.key --cert licensor.pem"));
    assert!(!home.path().join("a.cms").exists());
    succeed(home.path(), &format!("{SIGN} --home . --key author.key --cert author.pem"));

    let said = "expected a certificate of role author, found one of role licensor";
    assert!(licensor.contains(said), "{licensor}");
}

#[test]
fn g5_a_signer_without_the_ca_between_it_and_its_root_is_refused_by_a_home_and_warned_of_without() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();
    deep_author(home.path());

    let lone = format!("{SIGN} --key deep.key --cert deep-alone.pem");
    let refused = refuse(home.path(), &format!("{lone} --home ."));
    let warned = succeed(home.path(), &format!("{lone} -o json"));
    let nobodys = refuse(home.path(), "definition verify a.cms --home .");
    let whole = succeed(home.path(), &format!("{SIGN} --key deep.key --cert deep.pem -o json"));
    succeed(home.path(), &format!("{SIGN} --home . --key deep.key --cert deep.pem"));

    let said = "CN=between, which issued it, is none of the roots and does not come with it";
    assert!(refused.contains(said), "{refused}");
    assert!(warnings(&warned).contains("where \"CN=between\" is no root, nobody accepts the signature"));
    assert!(nobodys.contains("UNTRUSTED_SIGNER"), "{nobodys}");
    assert!(!warnings(&whole).contains("no root"), "{whole}");
}

#[test]
fn what_is_signed_already_is_told_as_such() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();
    let by = "--key author.key --cert author.pem";
    succeed(home.path(), &format!("{SIGN} {by}"));

    for command in
        [format!("definition sign a.cms --out b.cms {by}"), format!("policy sign a.cms --out b.cms {by}")]
    {
        let error = refuse(home.path(), &command);
        assert!(error.contains("a.cms: it is signed already, and holds a definition"), "{error}");
    }
    let linted = muster_sign(home.path(), "definition lint a.cms");
    assert_eq!(linted.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&linted.stdout)
            .contains("a.cms: error: it is signed already, and holds a definition")
    );
}

#[test]
fn every_document_is_written_whole_in_the_place_of_the_old_one() {
    let home = home();
    let at = |file: &str| home.path().join(file);
    std::fs::write(at("a.toml"), DEFINITION).unwrap();
    std::fs::write(at("p.toml"), "serial = 1\ntenant = \"acme\"\n").unwrap();
    let by = "--key author.key --cert author.pem --out out";
    for command in [
        format!("definition sign a.toml {by}"),
        format!("licence request --prefix Acme {by}"),
        "licence issue --licensee A --tenant a --prefix Acme=author.pem --serial 1 --valid 9d --key licensor.key --cert licensor.pem --out out".to_owned(),
        format!("policy sign p.toml {by}"),
        "timestamp licence.cms --roots trust/authors.pem --request out".to_owned(),
    ] {
        succeed(home.path(), &command);
        let old = std::fs::read(at("out")).unwrap();
        // Who opened the old one, here by another name, keeps it: it was not written into.
        std::fs::hard_link(at("out"), at("opened")).unwrap();

        succeed(home.path(), &command);

        assert_eq!(std::fs::read(at("opened")).unwrap(), old, "{command}");
        assert_ne!(std::fs::read(at("out")).unwrap(), old, "{command}");
        for file in ["opened", "out"] {
            std::fs::remove_file(at(file)).unwrap();
        }
    }
}

#[test]
fn a_licence_request_is_not_stamped_and_who_stamps_in_vain_is_warned() {
    let home = home();
    succeed(home.path(), "licence request --prefix Acme --key author.key --cert author.pem --out r.cms");
    let request = std::fs::read(home.path().join("r.cms")).unwrap();

    let refused = refuse(home.path(), "timestamp r.cms --roots trust/authors.pem --request a.tsq");
    let licence =
        succeed(home.path(), "timestamp licence.cms --roots trust/authors.pem --request a.tsq -o json");

    assert!(refused.contains("a licence request, which has no timestamp"), "{refused}");
    assert_eq!(std::fs::read(home.path().join("r.cms")).unwrap(), request);
    let said = "the signature of a licence ends with its signer's certificate all the same";
    assert!(warnings(&licence).contains(said), "{licence}");
}

#[test]
fn g6_a_licence_that_outlasts_its_licensor_is_warned_of() {
    let home = home();
    let issue = "licence issue --home . --licensee A --tenant a --prefix Acme=author.pem --serial 4 --key licensor.key --cert licensor.pem \
                 --out l.cms -o json";

    let long = succeed(home.path(), &format!("{issue} --valid 2d"));
    let root = Authority::root("licences", Duration::from_secs(365 * 86_400), UnixTime::now()).unwrap();
    let now = UnixTime::now().as_secs();
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let issued = root.issue(&Request {
        common_name: "licensor".to_owned(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        role: Role::Licensor,
        not_before: at(now),
        not_after: at(now + 3 * 86_400),
        crl_url: None,
    });
    let issued = issued.unwrap();
    std::fs::write(home.path().join("trust/licences.pem"), root.certificate_pem()).unwrap();
    std::fs::write(home.path().join("licensor.pem"), issued.chain_pem).unwrap();
    std::fs::write(home.path().join("licensor.key"), issued.key_pem).unwrap();
    let short = succeed(home.path(), &format!("{issue} --valid 2d"));

    assert!(warnings(&long).contains("\"CN=licensor\" ends at 20"), "{long}");
    assert!(warnings(&long).contains("every client refuses it from then on"), "{long}");
    assert!(short["warnings"].is_null(), "{short}");
}

#[test]
fn g9_a_pack_holds_no_definition_whose_signature_does_not_hold_or_whose_signer_nobody_accepts() {
    let home = home();
    let at = |file: &str| home.path().join(file);
    std::fs::write(at("a.toml"), DEFINITION).unwrap();
    succeed(home.path(), &format!("{SIGN} --key author.key --cert author.pem"));
    let good = std::fs::read(at("a.cms")).unwrap();
    let place = good.windows(6).position(|window| window == b"Which?").unwrap();
    let mut changed = good;
    changed[place] = b'w';
    let server =
        Signer::from_pem(std::fs::read(at("server.pem")).unwrap(), std::fs::read(at("server.key")).unwrap());
    let by_server =
        envelope::sign(DEFINITION.as_bytes(), ContentType::Definition, &server.unwrap(), UnixTime::now())
            .unwrap();

    for (bytes, said) in [(changed, "BAD_SIGNATURE"), (by_server, "it is not for codeSigning")] {
        std::fs::write(at("a.cms"), bytes).unwrap();

        let error = refuse(
            home.path(),
            "pack build a.cms --name Acme-Test-Pack --version 1.0.0 --says p --key author.key --cert author.pem --out a.pack",
        );

        assert!(error.starts_with("a.cms: ") && error.contains(said), "{error}");
        assert!(!at("a.pack").exists());
    }
}

fn warnings(report: &serde_json::Value) -> String {
    report["warnings"].to_string().replace("\\\"", "\"")
}

/// An author below a CA below the root of authors: `deep.pem` with that CA, `deep-alone.pem` without.
fn deep_author(home: &Path) {
    let now = UnixTime::now();
    let day = Duration::from_secs(86_400);
    let root = Authority::root("deep", 365 * day, now).unwrap();
    let between = root.issue_authority("between", 365 * day, now).unwrap();
    let issued = between.issue(&Request {
        common_name: "deep".to_owned(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        role: Role::Author,
        not_before: now,
        not_after: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + day),
        crl_url: None,
    });
    let issued = issued.unwrap();
    std::fs::write(home.join("trust/authors.pem"), root.certificate_pem()).unwrap();
    std::fs::write(home.join("deep-alone.pem"), issued.certificate.pem()).unwrap();
    std::fs::write(home.join("deep.pem"), issued.chain_pem).unwrap();
    std::fs::write(home.join("deep.key"), issued.key_pem).unwrap();
}
