//! A publisher's request for a licence, and the licence that comes of it (G6).

use std::path::Path;

use crate::commands::{home, muster_sign, refuse, succeed};

const REQUEST: &str = "licence request --prefix Acme --prefix Exchange --licensee Acme --tenant acme --key author.key --cert author.pem";
const ISSUE: &str =
    "licence issue --serial 4 --valid 30d --key licensor.key --cert licensor.pem --out new.cms";

#[test]
fn g6_a_request_becomes_a_licence_for_its_prefixes_and_its_certificate() {
    let home = home();

    let asked = succeed(home.path(), &format!("{REQUEST} --out request.cms -o json"));
    let shown = succeed(home.path(), "licence inspect request.cms -o json");
    let issued = succeed(home.path(), &format!("{ISSUE} --home . --request request.cms -o json"));

    assert_eq!(shown["publisher"], asked["publisher"]);
    assert_eq!(shown["prefixes"], serde_json::json!(["Acme", "Exchange"]));
    assert_eq!((&issued["licensee"], &issued["tenant"]), (&"Acme".into(), &"acme".into()));
    for prefix in ["Acme", "Exchange"] {
        assert_eq!(issued["prefixes"][prefix], serde_json::json!([asked["publisher"]["thumbprint"]]));
    }
    let request = std::fs::read(home.path().join("request.cms")).unwrap();
    let key =
        muster_pki::pem::private_key(&std::fs::read(home.path().join("author.key")).unwrap(), "key").unwrap();
    let scalar = &key.secret_der()[36..68];
    assert!(!request.windows(scalar.len()).any(|window| window == scalar), "a request holds no key");
}

#[test]
fn g6_a_request_and_a_named_certificate_share_a_prefix() {
    let home = home();
    succeed(home.path(), &format!("{REQUEST} --out request.cms"));

    let issued = succeed(
        home.path(),
        &format!("{ISSUE} --request request.cms --prefix Acme=policy.pem --tenant acme -o json"),
    );

    assert_eq!(issued["prefixes"]["Acme"].as_array().map(Vec::len), Some(2), "{issued}");
    assert_eq!(issued["prefixes"]["Exchange"].as_array().map(Vec::len), Some(1), "{issued}");
}

#[test]
fn g6_a_request_that_was_changed_is_refused_wherever_it_is_read() {
    let home = home();
    succeed(home.path(), &format!("{REQUEST} --out request.cms"));
    let request = std::fs::read(home.path().join("request.cms")).unwrap();
    let at = request.windows(8).position(|window| window == b"Exchange").unwrap();
    let changed = [&request[..at], b"Exchanga", &request[at + 8..]].concat();
    std::fs::write(home.path().join("changed.cms"), changed).unwrap();

    let inspected = refuse(home.path(), "licence inspect changed.cms");
    let issued = refuse(home.path(), &format!("{ISSUE} --request changed.cms"));

    for said in [inspected, issued] {
        assert!(said.contains("BAD_SIGNATURE") && said.contains("the content was changed"), "{said}");
    }
    assert!(!home.path().join("new.cms").exists());
}

#[test]
fn g6_a_request_for_another_tenant_or_from_whom_the_home_does_not_know_is_refused() {
    let home = home();
    succeed(home.path(), &format!("{REQUEST} --out request.cms"));
    let policy = REQUEST.replace("author", "policy");
    succeed(home.path(), &format!("{policy} --out stranger.cms"));
    let licensor = REQUEST.replace("author", "licensor");
    succeed(home.path(), &format!("{licensor} --out own.cms"));

    let tenant = refuse(home.path(), &format!("{ISSUE} --request request.cms --tenant other"));
    let stranger = refuse(home.path(), &format!("{ISSUE} --home . --request stranger.cms"));
    let own = refuse(home.path(), &format!("{ISSUE} --request own.cms"));
    let licence = refuse(home.path(), &format!("{ISSUE} --request licence.cms"));

    assert!(
        tenant.contains(
            "request.cms: the request is for the tenant \"acme\"; the licence would be for \"other\""
        ),
        "{tenant}"
    );
    assert!(stranger.contains("expected a certificate of role author"), "{stranger}");
    assert!(own.contains("expected a licensor's certificate, found the publisher's"), "{own}");
    assert!(licence.contains("holds a licence; wanted a licence request"), "{licence}");
}

#[test]
fn g6_what_no_licence_could_hold_is_not_asked_for() {
    let home = home();
    let out = Path::new("request.cms");

    let prefix =
        muster_sign(home.path(), &format!("{} --out request.cms", REQUEST.replace("Exchange", "Acme-")));
    let server = refuse(home.path(), &format!("{} --out request.cms", REQUEST.replace("author", "server")));
    let nameless = REQUEST.replace(" --licensee Acme", "");
    succeed(home.path(), &format!("{nameless} --out nameless.cms"));
    let licensee = refuse(home.path(), &format!("{ISSUE} --request nameless.cms"));

    assert_eq!(prefix.status.code(), Some(2), "it is told before anything is read");
    assert!(String::from_utf8_lossy(&prefix.stderr).contains("without hyphen"), "{prefix:?}");
    assert!(server.contains("not for codeSigning"), "{server}");
    assert!(licensee.contains("give --licensee"), "{licensee}");
    assert!(!home.path().join(out).exists());
}
