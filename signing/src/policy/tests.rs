use std::collections::BTreeSet;

use muster_pki::trust_store::PeerVerification;
use muster_proto::common::v1::value::Kind;

use super::*;
use crate::definition::Definition;
use crate::envelope::{SignError, Signer};
use crate::fixture::{NOW, Pki, at, facts};

const TEXT: &str = r#"
serial = 7
tenant = "acme"
says = "Moves the laboratory to the second Switch."
audience = 'device == "web1.acme.local"'
switch = ["wss://switch2.acme.local:4000/v1/session", "wss://switch1.acme.local:4000/v1/session"]
background_channel = "https://switch2.acme.local:4443/Background/v1"

[trust]
verify_host = "no"

[selection]
cert_issuer = "Acme Issuing"
"#;

#[test]
fn k2_a_policy_holds_addresses_trust_and_selection() {
    let policy = Policy::parse(TEXT).unwrap();
    let terms = policy.terms();

    assert_eq!((policy.serial(), terms.tenant.as_str()), (7, "acme"));
    assert_eq!(terms.switches.len(), 2);
    assert_eq!(terms.background_channel.as_deref(), Some("https://switch2.acme.local:4443/Background/v1"));
    assert_eq!(terms.trust.as_ref().unwrap().peer(), PeerVerification::Anchor);
    assert_eq!(terms.selection.as_ref().unwrap().issuer(), ["Acme Issuing"]);
    assert_eq!(terms.authorities, []);
}

#[test]
fn k1_a_policy_that_hides_something_is_refused_wherever_it_does() {
    for hidden in ["\u{202e}", "\\u202E", "\\u001b[31m", "\u{200b}", "\\U000E0041"] {
        for place in ["the laboratory", "Acme Issuing"] {
            let error = Policy::parse(&TEXT.replace(place, &format!("a{hidden}b"))).unwrap_err().to_string();

            assert!(error.contains("the hidden character U+"), "{place}, {hidden}: {error}");
        }
    }
    assert!(Policy::parse(&format!("{TEXT}# \u{202e}")).is_err());
    assert!(
        Policy::parse(&TEXT.replace("the laboratory", "a\\nb"))
            .unwrap_err()
            .to_string()
            .contains("on one line")
    );
    Policy::parse(&TEXT.replace('\n', "\r\n")).unwrap();
}

#[test]
fn k2_what_a_policy_leaves_out_stays_as_it_was_installed() {
    let policy = Policy::parse("serial = 1\ntenant = \"acme\"").unwrap();
    let terms = policy.terms();

    assert!(terms.switches.is_empty() && terms.background_channel.is_none());
    assert!(terms.trust.is_none() && terms.selection.is_none() && terms.audience.is_none());
}

#[test]
fn k2_what_is_not_listed_is_not_granted_and_a_list_that_is_left_out_grants_all() {
    let question = definition("Acme-A-Ask", "question");
    let action = definition("Acme-A-Do", "action");
    let grants = |text: &str| Policy::parse(&format!("{TEXT}{text}")).unwrap().terms().grants.clone();
    for (text, asks, acts) in [
        ("", true, true),
        ("[grants]", true, true),
        ("[grants]\nkinds = []", false, false),
        ("[grants]\nkinds = [\"question\"]", true, false),
        ("[grants]\nkinds = [\"action\"]\nactions = [\"Acme-A-Do\"]", false, true),
        ("[grants]\nactions = [\"Acme-A-Do\"]", true, true),
        ("[grants]\nactions = [\"Acme-A-Done\"]", true, false),
        ("[grants]\nactions = []", true, false),
        ("[grants]\ntables = []", true, true),
    ] {
        let grants = grants(text);
        assert_eq!((grants.admit(&question).is_ok(), grants.admit(&action).is_ok()), (asks, acts), "{text}");
    }
    let said = grants("[grants]\nkinds = [\"question\"]").admit(&action).unwrap_err().to_string();
    assert_eq!(said, "action is not granted: grants.kinds has question");
    let tables = grants("[grants]\ntables = [\"os\", \"users\"]").tables.unwrap();
    assert_eq!(tables.into_iter().collect::<Vec<_>>(), ["os", "users"]);
}

#[test]
fn k2_the_switchs_key_counts_only_for_what_is_named_by_prefix_kind_and_name() {
    let hex = "ab".repeat(32);
    let key = |more: &str| {
        let text = format!("{TEXT}[order_key]\nthumbprints = [{hex:?}]\n{more}");
        Policy::parse(&text).map(|policy| policy.terms().order_key.clone().unwrap())
    };
    let named = "prefixes = [\"Acme\"]\nkinds = [\"question\"]\ndefinitions = [\"Acme-A-Ask\"]";
    let one = key(named).unwrap();

    assert!(one.is(&hex.parse().unwrap()) && !one.is(&"cd".repeat(32).parse().unwrap()));
    assert!(one.admit(&definition("Acme-A-Ask", "question")).is_ok());
    for other in [("Acme-A-Other", "question"), ("Acme-A-Ask", "action"), ("Acmes-A-Ask", "question")] {
        assert!(one.admit(&definition(other.0, other.1)).is_err(), "{other:?}");
    }
    for nothing in ["prefixes", "kinds", "definitions"] {
        let line = named.lines().find(|line| line.starts_with(nothing)).unwrap();
        let none = key(&named.replace(line, &format!("{nothing} = []"))).unwrap();
        let said = none.admit(&definition("Acme-A-Ask", "question")).unwrap_err().to_string();
        assert!(said.contains(&format!("order_key.{nothing} has nothing")), "{said}");
        assert!(key(&named.replace(line, "")).unwrap_err().to_string().contains(nothing));
    }
    let none = Policy::parse(&format!("{TEXT}[order_key]\nthumbprints = []\n{named}")).unwrap_err();
    assert!(none.to_string().contains("wanted 1 to 16"), "{none}");
    assert!(Policy::parse(TEXT).unwrap().terms().order_key.is_none());
}

#[test]
fn a_policy_of_a_later_version_tells_which() {
    let later = format!("minimum_client_version = \"999.1.0\"\n{TEXT}");
    for text in [later.clone(), format!("{later}\n[peer_copy]\nenabled = true")] {
        let error = Policy::parse(&text).unwrap_err().to_string();

        assert!(error.contains("wants muster 999.1.0 or later, and this is"), "{error}");
    }
    let unknown = Policy::parse(&format!("{TEXT}\n[peer_copy]\nenabled = true")).unwrap_err().to_string();
    assert!(unknown.contains("peer_copy") && !unknown.contains("wants muster"), "{unknown}");
    for enough in ["0.0.1", env!("CARGO_PKG_VERSION")] {
        assert!(Policy::parse(&format!("minimum_client_version = {enough:?}\n{TEXT}")).is_ok(), "{enough}");
    }
}

#[test]
fn k2_steps_that_are_not_listed_are_not_granted_and_limited_tables_alone_grant_queries() {
    let grants = |text: &str| Policy::parse(&format!("{TEXT}{text}")).unwrap().terms().grants.clone();
    for (text, queries, scripts, acts) in [
        ("[grants]", true, true, true),
        ("[grants]\nkinds = [\"question\", \"action\"]", true, true, true),
        ("[grants]\ntables = [\"os\"]", true, false, false),
        ("[grants]\ntables = []", true, false, false),
        ("[grants]\nsteps = []", false, false, false),
        ("[grants]\nsteps = [\"query\"]", true, false, false),
        ("[grants]\nsteps = [\"script\"]", false, true, false),
        ("[grants]\nsteps = [\"action\"]", false, false, true),
        ("[grants]\nsteps = [\"query\", \"action\"]\ntables = [\"os\"]", true, false, true),
    ] {
        let grants = grants(text);
        let runs = |step: &str| grants.admit(&stepped(step)).is_ok();
        assert_eq!((runs(QUERY), runs(SCRIPT), runs(ACTION)), (queries, scripts, acts), "{text}");
        let mixed = format!("{QUERY}[[step]]\n{SCRIPT}");
        assert_eq!(grants.admit(&stepped(&mixed)).is_ok(), queries && scripts, "{text}");
    }
    let said = grants("[grants]\nsteps = [\"query\"]").admit(&stepped(SCRIPT)).unwrap_err().to_string();
    assert_eq!(said, "script is not granted: grants.steps has query");
}

#[test]
fn k2_a_policy_that_lets_scripts_run_by_an_oversight_warns() {
    let warnings = |text: &str| Policy::parse(&format!("{TEXT}{text}")).unwrap().terms().grants.warnings();
    for silent in [
        "",
        "[grants]",
        "[grants]\ntables = [\"os\"]",
        "[grants]\ntables = [\"os\"]\nsteps = [\"query\"]",
        "[grants]\nkinds = []\nsteps = [\"script\"]",
    ] {
        assert!(warnings(silent).is_empty(), "{silent}");
    }
    assert!(warnings("[grants]\nkinds = [\"question\"]")[0].contains("steps = [\"query\"] allows SQL alone"));
    let both = warnings("[grants]\ntables = [\"os\"]\nsteps = [\"query\", \"script\"]");
    assert!(both[0].contains("grants.tables bounds queries alone"), "{both:?}");
}

const QUERY: &str = "query = \"SELECT 1 AS one\"\n";
const SCRIPT: &str = "script = { interpreter = \"/bin/sh\", text = \"echo 1\" }\n";
const ACTION: &str = "action = { do = \"service.restart\", unit = \"cron.service\" }\n";
const ONE: &str = "[[result]]\nname = \"one\"\ntype = \"integer\"\n";
const CHANGED: &str = "[[result]]\nname = \"changed\"\ntype = \"boolean\"\n[[result]]\nname = \"detail\"\ntype = \"text\"\nmax_length = 99\n";

fn stepped(step: &str) -> Definition {
    let text = format!(
        "name = \"Acme-A-Do\"\nversion = \"1.0.0\"\nkind = \"action\"\nsays = \"x\"\n[[step]]\n{step}{}",
        if step.starts_with("action") { CHANGED } else { ONE },
    );
    Definition::parse(&text).unwrap()
}

fn definition(name: &str, kind: &str) -> Definition {
    let text = format!(
        "name = {name:?}\nversion = \"1.0.0\"\nkind = {kind:?}\nsays = \"x\"\n[[step]]\nquery = \"SELECT 1 AS one\"\n\
         [[result]]\nname = \"one\"\ntype = \"integer\"\n"
    );
    Definition::parse(&text).unwrap()
}

#[test]
fn t12_a_policy_can_be_for_one_device() {
    let policy = Policy::parse(TEXT).unwrap();
    let device =
        |name: &str| BTreeMap::from([("device".to_owned(), Value { kind: Some(Kind::Text(name.into())) })]);

    assert!(policy.is_for("acme", &device("web1.acme.local")));
    assert!(!policy.is_for("acme", &device("web2.acme.local")));
    assert!(!policy.is_for("other", &device("web1.acme.local")));
    assert!(!policy.is_for("acme", &BTreeMap::new()));
}

#[test]
fn c1_a_device_without_a_certificate_follows_only_a_policy_that_asks_for_such() {
    let policy =
        |audience: &str| Policy::parse(&format!("serial = 1\ntenant = \"acme\"\n{audience}")).unwrap();
    let standing =
        |flag| BTreeMap::from([("authenticated".to_owned(), Value { kind: Some(Kind::Integer(flag)) })]);

    for (audience, with, without) in [
        ("", true, false),
        ("audience = 'true'", true, false),
        ("audience = 'authenticated == false'", false, true),
        ("audience = 'has(authenticated)'", true, true),
    ] {
        assert_eq!(policy(audience).is_for("acme", &standing(1)), with, "{audience}");
        assert_eq!(policy(audience).is_for("acme", &standing(0)), without, "{audience}");
    }
}

#[test]
fn a_policy_carries_its_bundle_of_cas() {
    let (one, other) = (Pki::flat("one"), Pki::flat("other"));
    let bundle = format!("{}some words\n{}", one.root().pem(), other.root().pem());

    let policy =
        Policy::parse(&TEXT.replacen("[trust]", &format!("ca = \"\"\"\n{bundle}\"\"\"\n[trust]"), 1));

    let policy = policy.unwrap();
    let thumbprints = |certificates: &[Certificate]| -> Vec<_> {
        certificates.iter().map(Certificate::thumbprint).collect()
    };
    assert_eq!(
        thumbprints(&policy.terms().authorities),
        thumbprints(&[one.root().clone(), other.root().clone()])
    );
}

#[test]
fn what_is_no_policy_says_what_would_do() {
    for (from, to, words) in [
        ("serial = 7", "serial = 0", "serial is 0; wanted 1 or more"),
        ("serial = 7", "serial = -1", "serial"),
        ("tenant = \"acme\"", "tenant = \"\"", "wanted 1 to 64 bytes"),
        ("says = \"", "says = \"\\u0007", "the hidden character U+0007"),
        ("wss://switch2", "ws://switch2", "wanted wss://HOST"),
        ("https://switch2", "http://switch2", "wanted https://HOST"),
        ("wss://switch2.acme.local:4000/v1/session", "wss://", "wanted wss://HOST"),
        ("device ==", "divice ==", "divice"),
        ("device ==", "device =", "audience"),
        ("verify_host = \"no\"", "verify_peer = \"no\"", "pinned fingerprint"),
        ("verify_host = \"no\"", "ca_file = \"ca.pem\"", "no absolute path"),
        ("cert_issuer", "cert_isuer", "cert_isuer"),
        ("[trust]", "grants = 1\n[trust]", "grants"),
        ("[trust]", "[grants]\nrows = 1\n[trust]", "rows"),
        (
            "[trust]",
            "[grants]\ntables = [\"a b\"]\n[trust]",
            "grants.tables has \"a b\"; wanted names of tables",
        ),
        ("[trust]", "[grants]\nkinds = [\"questions\"]\n[trust]", "wanted question, action"),
        ("[trust]", "[grants]\nactions = [\"Acme\"]\n[trust]", "Prefix-Area-Thing"),
        ("[trust]", "[grants]\nsteps = [\"sql\"]\n[trust]", "wanted query, script, action"),
        ("[trust]", "enrolment = {}\n[trust]", "enrolment"),
        ("[trust]", "ca = \"no PEM\"\n[trust]", "ca: "),
    ] {
        let text = TEXT.replacen(from, to, 1);
        assert_ne!(text, TEXT, "{from}");

        let error = Policy::parse(&text).unwrap_err().to_string();

        assert!(error.contains(words), "{from} -> {to}: {error}");
    }
    let many = TEXT.replacen("switch = [", &format!("switch = [{}", "\"wss://a\",".repeat(SWITCHES_MAX)), 1);
    assert!(Policy::parse(&many).unwrap_err().to_string().contains("at most 16"));
    assert!(Policy::parse(&"#".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().to_string().contains("bytes"));
}

#[test]
fn what_a_policy_lists_is_bounded_to_the_byte_and_to_the_item() {
    let padded = |bytes: usize| Policy::parse(&format!("{TEXT}#{}", " ".repeat(bytes - TEXT.len() - 1)));
    assert!(padded(196_608).is_ok());
    assert!(padded(196_609).unwrap_err().to_string().contains("196609 bytes; wanted at most 196608"));

    let terms = Policy::parse(TEXT).unwrap().terms().clone();
    let with = |change: &dyn Fn(&mut Terms)| {
        let mut terms = terms.clone();
        change(&mut terms);
        Policy::new(terms).map(drop).map_err(|error| error.to_string())
    };
    let url = |bytes: usize| format!("wss://{}", "a".repeat(bytes - 6));
    for (count, fits) in [(0, true), (16, true), (17, false)] {
        let verdict = with(&|terms| terms.switches = vec![url(7); count]);
        assert_eq!(verdict.is_ok(), fits, "{count}: {verdict:?}");
    }
    for (bytes, fits) in [(7, true), (2_048, true), (2_049, false)] {
        let verdict = with(&|terms| terms.switches = vec![url(bytes)]);
        assert_eq!(verdict.is_ok(), fits, "{bytes}: {verdict:?}");
    }
    assert!(with(&|terms| terms.switches = vec!["wss://a b".to_owned()]).is_err());
    for (bytes, fits) in [(1, true), (64, true), (65, false)] {
        let verdict = with(&|terms| terms.tenant = "a".repeat(bytes));
        assert_eq!(verdict.is_ok(), fits, "{bytes}: {verdict:?}");
    }
    assert!(with(&|terms| terms.says = "a".repeat(1_024)).is_ok());
    assert!(with(&|terms| terms.says = "a".repeat(1_025)).is_err());
}

#[test]
fn k2_what_is_granted_is_named_as_it_can_be() {
    let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let long = "a".repeat(64);
    let tables = |names: &[&str]| Grants { tables: list(names), ..Grants::default() };

    assert!(tables(&["os", &long]).check().is_ok());
    for name in ["", "a b", "\u{e4}", &format!("{long}a")] {
        assert!(tables(&[name]).check().is_err(), "{name:?}");
    }
    let many = |count: usize| Grants {
        tables: Some((0..count).map(|number| number.to_string()).collect()),
        ..Grants::default()
    };
    assert!(many(1_024).check().is_ok());
    assert!(many(1_025).check().unwrap_err().to_string().contains("1025 names; wanted at most 1024"));
    assert!(Grants { kinds: list(&["question", "action"]), ..Grants::default() }.check().is_ok());
}

#[test]
fn a_table_that_no_client_has_is_warned_of_and_a_long_list_is_told_in_part() {
    let tables = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let grants = Grants { tables: Some(tables(&["os", "oss"])), ..Grants::default() };

    let warnings = grants.warnings();

    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("grants.tables has \"oss\", which no client"), "{warnings:?}");
    assert!(warnings[0].contains("there are certificates, cpu"), "{warnings:?}");
    assert!(Grants::default().warnings().is_empty());
    let told = |count: usize| {
        let has = (10..10 + count).map(|number| number.to_string()).collect();
        NotGranted { name: "os".to_owned(), list: "grants.tables", has }.to_string()
    };
    assert_eq!(told(0), "os is not granted: grants.tables has nothing");
    assert_eq!(told(2), "os is not granted: grants.tables has 10, 11");
    assert!(told(16).ends_with(", 24, 25") && told(17).ends_with(", 25, …"), "{}", told(17));
}

#[test]
fn k2_the_switchs_key_is_named_by_1_to_16_thumbprints_and_by_names_that_can_be() {
    let key = |thumbprints: usize, prefix: &str, kind: &str, definition: &str| {
        let thumbprints: Vec<String> = (0..thumbprints).map(|number| format!("{number:064x}")).collect();
        let text = format!(
            "{TEXT}[order_key]\nthumbprints = {thumbprints:?}\nprefixes = [{prefix:?}]\nkinds = [{kind:?}]\n\
             definitions = [{definition:?}]"
        );
        Policy::parse(&text).map(drop).map_err(|error| error.to_string())
    };

    assert_eq!(key(1, "Acme", "question", "Acme-A-Ask"), Ok(()));
    assert_eq!(key(16, "Acme", "action", "Acme-A-Ask"), Ok(()));
    for (refused, words) in [
        (key(0, "Acme", "question", "Acme-A-Ask"), "wanted 1 to 16"),
        (key(17, "Acme", "question", "Acme-A-Ask"), "wanted 1 to 16"),
        (key(1, "Ac-me", "question", "Acme-A-Ask"), "wanted prefixes"),
        (key(1, "Acme", "questions", "Acme-A-Ask"), "wanted question, action"),
        (key(1, "Acme", "question", "Acme"), "wanted names of definitions"),
    ] {
        assert!(refused.clone().unwrap_err().contains(words), "{refused:?}");
    }
}

#[test]
fn k1_a_policy_whose_signers_ca_has_no_crl_is_told_apart() {
    let administrators = Pki::flat("policies");
    let signer = administrators.signer("administrator", Role::Policy);
    let mut hard = muster_pki::RevocationIndex::default();
    hard.set_rule_of_others(muster_pki::RevocationMode::Hard, None);
    let facts = Facts { revocation: Some(&hard), ..facts() };
    let open = |content: &[u8], roots: &muster_pki::Roots| {
        let envelope = envelope::sign(content, ContentType::Policy, &signer, at(NOW)).unwrap();
        Policy::open(&envelope, &Anchors::of(roots), &facts).unwrap_err()
    };

    assert!(open(TEXT.as_bytes(), &administrators.roots()).lacks_only_a_crl());
    assert!(!open(TEXT.as_bytes(), &Pki::flat("policies").roots()).lacks_only_a_crl());
    assert!(!OpenError::Policy(PolicyError::new("no policy")).lacks_only_a_crl());
}

#[test]
fn k1_only_a_policy_administrator_makes_a_policy() -> Result<(), SignError> {
    let (administrators, others) = (Pki::deep("policies"), Pki::deep("orders"));
    let signer = administrators.signer("administrator", Role::Policy);
    let sign = |signer: &Signer, content_type| envelope::sign(TEXT.as_bytes(), content_type, signer, at(NOW));
    let open = |envelope: &[u8]| Policy::open(envelope, &Anchors::of(&administrators.roots()), &facts());

    assert_eq!(open(&sign(&signer, ContentType::Policy)?).unwrap().serial(), 7);
    // Of another root, as an operator's or the Switch's own key is.
    let foreign = sign(&others.signer("operator", Role::OrderSigner), ContentType::Policy)?;
    assert!(matches!(open(&foreign), Err(OpenError::Envelope(_))));
    // Signed as something else by the right key.
    let licence = sign(&signer, ContentType::Licence)?;
    assert!(matches!(open(&licence), Err(OpenError::Envelope(_))));
    // One bit of the text is another.
    let mut changed = sign(&signer, ContentType::Policy)?;
    let at = changed.windows(7).position(|window| window == b"switch2").unwrap();
    changed[at + 6] = b'3';
    assert!(matches!(open(&changed), Err(OpenError::Envelope(_))));
    Ok(())
}

#[test]
fn what_is_signed_but_no_policy_is_told_apart() -> Result<(), SignError> {
    let administrators = Pki::flat("policies");
    let signer = administrators.signer("administrator", Role::Policy);
    for content in [&b"\xff\xfe"[..], b"serial = 1"] {
        let envelope = envelope::sign(content, ContentType::Policy, &signer, at(NOW))?;

        let opened = Policy::open(&envelope, &Anchors::of(&administrators.roots()), &facts());

        assert!(matches!(opened, Err(OpenError::Policy(_))), "{content:?}");
    }
    Ok(())
}
