//! The commands over files.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use muster_pki::authority::{Authority, Request};
use muster_pki::{Role, UnixTime};

pub(crate) const DEFINITION: &str = "name = \"Acme-Os-Version\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"Which?\"\n\n\
                          [[step]]\nquery = \"SELECT version FROM os\"\n\n[[result]]\nname = \"version\"\ntype = \"text\"\n";

#[test]
fn signs_verifies_and_shows_a_definition() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();

    let signed =
        succeed(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms -o json");
    let verified = succeed(home.path(), "definition verify a.cms --home . -o json");
    let shown = succeed(home.path(), "definition inspect a.cms -o json");
    let authored = succeed(home.path(), "definition inspect a.toml");

    assert_eq!(signed["name"], "Acme-Os-Version");
    assert_eq!(verified["licensed"], true);
    assert_eq!(verified["licence"], 3);
    assert_eq!(verified["signer"], signed["signer"]);
    assert_eq!(shown["text"], DEFINITION);
    assert_eq!(shown["digest"], signed["digest"]);
    assert!(authored.is_null());
}

#[test]
fn a_definition_that_the_licence_does_not_cover_is_a_finding_and_exits_with_1() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION.replace("Acme-", "AcmeX-")).unwrap();
    succeed(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms");

    let output = muster_sign(home.path(), "definition verify a.cms --home . -o json");
    let text = muster_sign(home.path(), "definition verify a.cms --home .");

    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), text.status.code()), (Some(1), Some(1)));
    assert_eq!((&report["licensed"], &report["finding"]), (&false.into(), &"UNLICENSED".into()));
    assert!(report["reason"].as_str().unwrap().contains("prefix AcmeX is not in licence 3"), "{report}");
    assert!(String::from_utf8(text.stdout).unwrap().contains("finding: UNLICENSED"));
}

#[test]
fn without_a_licence_a_definition_is_fine_with_a_warning() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();
    succeed(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms");
    std::fs::remove_file(home.path().join("licence.cms")).unwrap();
    // Who verifies no licence needs no roots for it.
    std::fs::remove_file(home.path().join("trust/licences.pem")).unwrap();

    let verified = succeed(home.path(), "definition verify a.cms --home . -o json");

    assert!(verified["licensed"].is_null(), "{verified}");
    assert!(verified["warning"].as_str().unwrap().contains("no licence at"), "{verified}");
    assert!(verified.get("finding").is_none(), "{verified}");
}

#[test]
fn a_bad_definition_is_refused_with_its_line() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION.replace("type = \"text\"", "type = \"txt\""))
        .unwrap();

    let error = refuse(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms");

    assert!(error.starts_with("a.toml: line 11: no column type is called \"txt\""), "{error}");
    assert!(error.contains("type = \"txt\""), "{error}");
    assert_eq!(error.matches("no column type is called").count(), 1, "{error}");
    assert!(!home.path().join("a.cms").exists());
}

#[test]
fn a_definition_with_advice_is_signed_and_the_advice_told() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();

    let sign = "definition sign a.toml --key author.key --cert author.pem --out a.cms";
    let signed = succeed(home.path(), &format!("{sign} --home . -o json"));
    let text = muster_sign(home.path(), &format!("{sign} --home ."));

    let warnings = signed["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 2, "{signed}");
    assert!(warnings[0].as_str().unwrap().starts_with("line 1:8: no limits.run_time"), "{signed}");
    assert!(warnings[1].as_str().unwrap().ends_with("(column-without-max-length)"), "{signed}");
    assert!(String::from_utf8(text.stdout).unwrap().contains("warnings:\n  - line 1:8: "));
}

#[test]
fn a_changed_or_untrusted_definition_is_refused_with_its_code() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();
    succeed(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms");
    succeed(home.path(), "definition sign a.toml --key licensor.key --cert licensor.pem --out b.cms");
    let envelope = std::fs::read(home.path().join("a.cms")).unwrap();
    let at = envelope.windows(7).position(|window| window == b"version").unwrap();
    let changed = [&envelope[..at], b"Version", &envelope[at + 7..]].concat();
    std::fs::write(home.path().join("c.cms"), changed).unwrap();

    let untrusted = refuse(home.path(), "definition verify b.cms --home .");
    let changed = refuse(home.path(), "definition verify c.cms --home .");

    assert!(untrusted.contains("UNTRUSTED_SIGNER"), "{untrusted}");
    for words in ["the signer is not trusted", "certificate refused", "no path from"] {
        assert_eq!(untrusted.matches(words).count(), 1, "{words}: {untrusted}");
    }
    assert!(changed.contains("BAD_SIGNATURE") && changed.contains("the content was changed"), "{changed}");
}

#[test]
fn a_key_for_servers_signs_nothing() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();

    let error = refuse(home.path(), "definition sign a.toml --key server.key --cert server.pem --out a.cms");

    assert!(error.contains("not for codeSigning"), "{error}");
}

#[test]
fn a_licence_is_signed_by_a_licensor_and_nobody_else() {
    let home = home();
    let issue = "licence issue --licensee Acme --tenant acme --serial 4 --valid 30d --out l.cms";

    let publisher =
        refuse(home.path(), &format!("{issue} --prefix Acme=author.pem --key author.key --cert author.pem"));
    let author = refuse(
        home.path(),
        &format!("{issue} --home . --prefix Acme=licensor.pem --key author.key --cert author.pem"),
    );
    let server = refuse(
        home.path(),
        &format!("{issue} --home . --prefix Acme=author.pem --key server.key --cert server.pem"),
    );

    assert!(
        publisher
            .contains("expected a licensor's certificate, found the publisher's that --prefix Acme names"),
        "{publisher}"
    );
    assert!(author.contains("expected a certificate of role licensor, found one of role author"), "{author}");
    assert!(
        server.contains("expected a certificate of role licensor, found certificate refused: G5"),
        "{server}"
    );
    assert!(!home.path().join("l.cms").exists());
    succeed(
        home.path(),
        &format!("{issue} --home . --prefix Acme=author.pem --key licensor.key --cert licensor.pem"),
    );
}

#[test]
fn an_armoured_envelope_is_read() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();
    succeed(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms");
    let armour = "cms -cmsout -inform DER -in a.cms -outform PEM -out a.pem";
    let armoured = Command::new("openssl").args(armour.split(' ')).current_dir(home.path()).status().unwrap();
    assert!(armoured.success());

    let verified = succeed(home.path(), "definition verify a.pem --home . -o json");

    assert_eq!(verified["licensed"], true);
}

#[test]
fn shows_a_licence_and_refuses_to_show_it_as_a_definition() {
    let home = home();

    let shown = succeed(home.path(), "licence inspect licence.cms -o json");
    let error = refuse(home.path(), "definition inspect licence.cms");

    assert_eq!(shown["tenant"], "acme");
    assert_eq!(shown["prefixes"]["Acme"].as_array().unwrap().len(), 1);
    assert!(error.contains("a licence; wanted a definition"), "{error}");
}

const POLICY: &str = "serial = 7\ntenant = \"acme\"\nsays = \"Moves the laboratory.\"\naudience = 'os == \"linux\"'\n\
                      switch = [\"wss://switch2.acme.test:4000/v1/session\"]\n";

#[test]
fn signs_verifies_and_shows_a_policy() {
    let home = home();
    std::fs::write(home.path().join("p.toml"), POLICY).unwrap();

    let signed = succeed(
        home.path(),
        "policy sign p.toml --home . --key policy.key --cert policy.pem --out p.cms -o json",
    );
    let verified = succeed(home.path(), "policy verify p.cms --home . -o json");
    let shown = succeed(home.path(), "policy inspect p.cms -o json");

    assert_eq!((&signed["serial"], &signed["out"]), (&7.into(), &"p.cms".into()));
    assert_eq!((&verified["serial"], &verified["audience"]), (&7.into(), &"os == \"linux\"".into()));
    assert_eq!((&verified["signer"], &verified["digest"]), (&signed["signer"], &signed["digest"]));
    assert_eq!(shown["text"], POLICY);
}

#[test]
fn k2_a_list_of_grants_that_is_left_out_reads_all_and_an_empty_one_none_and_an_unknown_table_is_warned_of() {
    let home = home();
    let policy = format!("{POLICY}[grants]\ntables = [\"os\", \"nosuchtable\"]\nactions = []\n");
    std::fs::write(home.path().join("p.toml"), policy).unwrap();

    let sign = "policy sign p.toml --key policy.key --cert policy.pem --out p.cms";
    let signed = String::from_utf8(muster_sign(home.path(), sign).stdout).unwrap();
    let shown = String::from_utf8(muster_sign(home.path(), "policy inspect p.cms").stdout).unwrap();
    let json = succeed(home.path(), "policy verify p.cms --home . -o json");

    for text in [&signed, &shown] {
        assert!(text.contains("  kinds: all (the list is left out)\n"), "{text}");
        assert!(text.contains("  actions: none (the list is empty)\n"), "{text}");
        assert!(
            text.contains("grants.tables has \"nosuchtable\", which no client of this version has"),
            "{text}"
        );
        assert!(!text.contains("has \"os\""), "{text}");
    }
    assert!(
        json["grants"]["kinds"].is_null() && json["grants"]["actions"] == serde_json::json!([]),
        "{json}"
    );
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1), "{json}");
}

#[test]
fn k1_a_policy_is_signed_by_its_administrator_and_nobody_else() {
    let home = home();
    std::fs::write(home.path().join("p.toml"), POLICY).unwrap();
    let sign = "policy sign p.toml --out p.cms";

    let author = refuse(home.path(), &format!("{sign} --home . --key author.key --cert author.pem"));
    succeed(home.path(), &format!("{sign} --key author.key --cert author.pem"));
    let verified = refuse(home.path(), "policy verify p.cms --home .");
    let server = refuse(home.path(), &format!("{sign} --key server.key --cert server.pem"));

    assert!(author.contains("expected a certificate of role policy, found one of role author"), "{author}");
    assert!(verified.contains("UNTRUSTED_SIGNER"), "{verified}");
    assert!(server.contains("not for codeSigning"), "{server}");
}

#[test]
fn a_text_that_is_no_policy_is_not_signed() {
    let home = home();
    for (wrong, said) in [
        (POLICY.replace("serial = 7", "serial = 0"), "serial is 0; wanted 1 or more"),
        (POLICY.replace("os ==", "oss =="), "oss"),
        (POLICY.replace("os == \"linux\"", "cpus == \"linux\""), "audience: "),
        (POLICY.replace("tenant", "tenat"), "tenat"),
    ] {
        std::fs::write(home.path().join("p.toml"), wrong).unwrap();

        let error = refuse(home.path(), "policy sign p.toml --key policy.key --cert policy.pem --out p.cms");

        assert!(error.starts_with("p.toml: ") && error.contains(said), "{said}: {error}");
        assert!(!home.path().join("p.cms").exists());
    }
}

#[test]
fn a_policy_is_not_taken_for_a_definition_or_a_licence() {
    let home = home();
    std::fs::write(home.path().join("p.toml"), POLICY).unwrap();
    succeed(home.path(), "policy sign p.toml --key policy.key --cert policy.pem --out p.cms");

    let definition = refuse(home.path(), "definition verify p.cms --home .");
    let licence = refuse(home.path(), "licence inspect p.cms");
    let policy = refuse(home.path(), "policy verify licence.cms --home .");

    assert!(
        definition.contains("policy") && licence.contains("a policy; wanted a licence"),
        "{definition}{licence}"
    );
    assert!(policy.contains("licence"), "{policy}");
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let output = muster_sign(Path::new("."), "definition sign");

    assert_eq!(output.status.code(), Some(2));
}

/// A home with authors' and licensors' roots, a signer of each, and licence 3.
pub(crate) fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let now = UnixTime::now();
    std::fs::create_dir(home.path().join("trust")).unwrap();
    for (roots, name, role) in [
        ("authors", "author", Role::Author),
        ("licences", "licensor", Role::Licensor),
        ("policies", "policy", Role::Policy),
        ("servers", "server", Role::Switch),
    ] {
        let year = Duration::from_secs(365 * 86_400);
        let root = Authority::root(roots, year, now).unwrap();
        let request = Request {
            common_name: name.to_owned(),
            dns_names: vec![format!("{name}.acme.test")],
            ip_addresses: Vec::new(),
            role,
            not_before: now,
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 86_400)),
            crl_url: None,
        };
        let issued = root.issue(&request).unwrap();
        std::fs::write(home.path().join(format!("trust/{roots}.pem")), root.certificate_pem()).unwrap();
        std::fs::write(home.path().join(format!("{name}.pem")), issued.chain_pem).unwrap();
        std::fs::write(home.path().join(format!("{name}.key")), issued.key_pem).unwrap();
    }
    succeed(
        home.path(),
        "licence issue --licensee Acme --tenant acme --prefix Acme=author.pem --serial 3 --valid 30d --key licensor.key \
         --cert licensor.pem --out licence.cms",
    );
    home
}

/// Runs a command that must succeed; its report, where it is JSON.
pub(crate) fn succeed(dir: &Path, arguments: &str) -> serde_json::Value {
    let output = muster_sign(dir, arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Runs a command that must be refused; its standard error.
pub(crate) fn refuse(dir: &Path, arguments: &str) -> String {
    let output = muster_sign(dir, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments}");
    String::from_utf8(output.stderr).unwrap()
}

pub(crate) fn muster_sign(dir: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muster-sign"))
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .env_remove("MUSTER_HOME")
        .output()
        .unwrap()
}
