//! Licences that follow others, and what they take away (G6).

use crate::commands::{DEFINITION, home, muster_sign, refuse, succeed};

const RENEW: &str = "licence issue --renew licence.cms --home . --valid 30d --key licensor.key --cert licensor.pem --out new.cms";

#[test]
fn g6_a_renewed_licence_says_what_the_former_said_and_what_is_added() {
    let home = home();
    let issued = succeed(
        home.path(),
        &format!(
            "{RENEW} --feature console --minimum-version Acme-Os-Version=1.1.0 --prefix Other=policy.pem -o json"
        ),
    );
    std::fs::rename(home.path().join("new.cms"), home.path().join("licence.cms")).unwrap();
    let again = succeed(home.path(), &format!("{RENEW} --minimum-version Acme-Os-Version=1.2.0 -o json"));

    let former = succeed(home.path(), "licence inspect licence.cms -o json");
    assert_eq!((&issued["serial"], &again["serial"]), (&4.into(), &5.into()));
    assert_eq!((&again["licensee"], &again["tenant"]), (&"Acme".into(), &"acme".into()));
    assert_eq!(again["prefixes"], former["prefixes"]);
    assert_eq!(again["prefixes"].as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(again["features"], serde_json::json!(["console"]));
    assert_eq!(issued["minimum_versions"], serde_json::json!({ "Acme-Os-Version": "1.1.0" }));
    assert_eq!(again["minimum_versions"], serde_json::json!({ "Acme-Os-Version": "1.2.0" }));
}

#[test]
fn g6_what_a_distrusted_signer_or_an_old_version_is_refused_by_the_licence_that_says_so() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();
    succeed(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms");
    let judged = || {
        let output = muster_sign(home.path(), "definition verify a.cms --home . -o json");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report["reason"].as_str().unwrap_or_default().to_owned())
    };
    let take = |what: &str| {
        succeed(home.path(), &format!("{RENEW} {what}"));
        std::fs::rename(home.path().join("new.cms"), home.path().join("licence.cms")).unwrap();
    };
    assert_eq!(judged().0, Some(0));

    let former = std::fs::read(home.path().join("licence.cms")).unwrap();
    take("--minimum-version Acme-Os-Version=1.0.1");
    let (old, by_version) = judged();
    std::fs::write(home.path().join("licence.cms"), former).unwrap();
    take("--minimum-version Acme-Os-Version=1.0.0");
    assert_eq!(judged().0, Some(0));
    take("--distrust author.pem=2026-11-01T08:00:00Z");
    let (stolen, by_signer) = judged();
    // It goes on: whoever renews the licence next need not remember.
    take("");

    assert_eq!((old, stolen, judged().0), (Some(1), Some(1), Some(1)));
    assert!(by_version.contains("1.0.1"), "{by_version}");
    assert!(
        by_signer.contains("counts with a timestamp up to 2026-11-01T08:00:00Z, found none"),
        "{by_signer}"
    );
    let shown = muster_sign(home.path(), "licence inspect licence.cms");
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("after: 2026-11-01T08:00:00Z"), "{shown}");
    assert!(!shown.contains("not_after: 1"), "moments are for people: {shown}");
}

#[test]
fn g6_a_distrust_that_is_to_come_is_warned_of_and_no_renewal_moves_one_later() {
    let home = home();
    let issued = |what: &str| succeed(home.path(), &format!("{RENEW} {what} -o json"));
    let to_come = |report: &serde_json::Value| report["warnings"].to_string().contains("still to come");
    let past = issued("--distrust author.pem=2026-11-01T08:00:00Z");
    std::fs::rename(home.path().join("new.cms"), home.path().join("licence.cms")).unwrap();

    let later = refuse(home.path(), &format!("{RENEW} --distrust author.pem=2026-11-01T08:00:01Z"));
    let twice = "--distrust policy.pem=2026-10-01 --distrust policy.pem=2026-11-01";
    let twice = refuse(home.path(), &format!("{RENEW} {twice}"));
    let same = issued("--distrust author.pem=2026-11-01T08:00:00Z");
    let earlier = issued("--distrust author.pem=2026-10-31");
    let future = issued("--distrust policy.pem=2999-01-01T00:00:00Z");

    assert!(later.contains("the former licence distrusts it from 2026-11-01T08:00:00Z on"), "{later}");
    assert!(twice.contains("given twice"), "{twice}");
    assert_eq!(same["distrusted"], past["distrusted"]);
    assert_ne!(earlier["distrusted"], past["distrusted"]);
    assert_eq!([&past, &same, &earlier, &future].map(to_come), [false, false, false, true]);
}

#[test]
fn g6_no_renewal_lowers_a_minimum_version() {
    let home = home();
    let minimum = |version: &str| format!("{RENEW} --minimum-version Acme-Os-Version={version}");
    succeed(home.path(), &minimum("1.10.0"));
    std::fs::rename(home.path().join("new.cms"), home.path().join("licence.cms")).unwrap();

    let lower = refuse(home.path(), &minimum("1.9.0"));
    let before_it = refuse(home.path(), &minimum("1.10.0-rc.1"));
    let twice =
        refuse(home.path(), &format!("{} --minimum-version Acme-Os-Version=1.11.0", minimum("1.12.0")));
    assert!(!home.path().join("new.cms").exists());
    for version in ["1.10.0", "1.10.1", "2.0.0-rc.1"] {
        let issued = succeed(home.path(), &format!("{} -o json", minimum(version)));
        assert_eq!(issued["minimum_versions"], serde_json::json!({ "Acme-Os-Version": version }));
    }
    let other = succeed(home.path(), &format!("{RENEW} --minimum-version Acme-Os-Name=0.1.0 -o json"));
    let anew = RENEW
        .replace("--renew licence.cms", "--serial 9 --licensee Acme --tenant acme --prefix Acme=author.pem");
    let anew = succeed(home.path(), &format!("{anew} --minimum-version Acme-Os-Version=1.0.0 -o json"));

    assert!(lower.contains("Acme-Os-Version=1.9.0: the former licence has 1.10.0, and"), "{lower}");
    assert!(lower.contains("leave it out, and 1.10.0 goes on, or give a later one"), "{lower}");
    assert!(before_it.contains("the former licence has 1.10.0"), "{before_it}");
    assert!(twice.contains("given twice"), "{twice}");
    assert_eq!(
        other["minimum_versions"],
        serde_json::json!({ "Acme-Os-Name": "0.1.0", "Acme-Os-Version": "1.10.0" })
    );
    assert_eq!(anew["minimum_versions"], serde_json::json!({ "Acme-Os-Version": "1.0.0" }));
}

#[test]
fn g6_only_a_licence_of_a_licensor_that_the_home_trusts_is_renewed_and_never_under_an_older_serial() {
    let home = home();
    succeed(
        home.path(),
        "licence issue --licensee Acme --tenant acme --prefix Evil=server.pem --serial 9 --valid 30d --key author.key \
         --cert author.pem --out forged.cms",
    );

    let forged = refuse(home.path(), &RENEW.replace("--renew licence.cms", "--renew forged.cms"));
    let back = refuse(home.path(), &format!("{RENEW} --serial 3"));
    let homeless = muster_sign(home.path(), &RENEW.replace("--home . ", ""));
    let neither = muster_sign(home.path(), &RENEW.replace("--renew licence.cms --home . ", ""));

    assert!(forged.contains("forged.cms") && forged.contains("UNTRUSTED"), "{forged}");
    assert!(back.contains("wanted 4 or more"), "{back}");
    assert_eq!((homeless.status.code(), neither.status.code()), (Some(2), Some(2)));
    assert!(!home.path().join("new.cms").exists());
}

#[test]
fn g6_a_newer_licence_is_due_after_a_month_or_when_the_licensor_says_and_a_long_silence_is_warned_of() {
    let home = home();
    let issue = "licence issue --licensee Acme --tenant acme --prefix Acme=author.pem --serial 4 --key licensor.key --cert licensor.pem --out l.cms";
    let due = |times: &str| {
        let issued = succeed(home.path(), &format!("{issue} {times} -o json"));
        let moment = |name: &str| issued[name].as_u64().unwrap();
        // It begins an hour before it was issued.
        let hours = (moment("refresh_by") - moment("not_before")) / 3_600 - 1;
        (hours, issued["warnings"].to_string().contains("days before any Switch or client alarms"))
    };

    assert_eq!(due("--valid 365d"), (30 * 24, false));
    assert_eq!(due("--valid 30d"), (25 * 24, false));
    assert_eq!(due("--valid 1d"), (20, false));
    assert_eq!(due("--valid 365d --refresh 14d"), (14 * 24, false));
    assert_eq!(due("--valid 365d --refresh 90d"), (90 * 24, false));
    assert_eq!(due("--valid 365d --refresh 91d"), (91 * 24, true));
    assert_eq!(due("--valid 14d --refresh 14d"), (14 * 24, false));
    let late = muster_sign(home.path(), &format!("{issue} --valid 14d --refresh 15d"));
    let beyond = muster_sign(home.path(), &format!("{issue} --valid 14d --refresh 0d"));

    assert_eq!((late.status.code(), beyond.status.code()), (Some(2), Some(2)));
    let late = String::from_utf8(late.stderr).unwrap();
    assert!(late.contains("--refresh 15d is after the licence's end; wanted at most 14d"), "{late}");
}

#[test]
fn g6_a_renewed_licence_lacks_the_prefixes_and_signers_that_are_withdrawn() {
    let home = home();
    let thumbprint = |issued: &serde_json::Value, prefix: &str| issued["prefixes"][prefix][0].clone();
    let both = "--prefix Other=policy.pem --prefix Third=author.pem,policy.pem";
    let former = succeed(home.path(), &format!("{RENEW} {both} -o json"));
    let (author, policy) = (thumbprint(&former, "Acme"), thumbprint(&former, "Other"));
    std::fs::rename(home.path().join("new.cms"), home.path().join("licence.cms")).unwrap();
    let renewed = |what: &str| succeed(home.path(), &format!("{RENEW} {what} -o json"))["prefixes"].clone();

    let less = renewed("--withdraw-prefix Other");
    let fewer = renewed("--withdraw-prefix Other --withdraw-signer policy.pem");
    let by_name = format!("--withdraw-prefix Other --withdraw-signer {}", policy.as_str().unwrap());
    let others = renewed("--withdraw-prefix Third --prefix Third=policy.pem");

    assert_eq!(less.as_object().unwrap().keys().collect::<Vec<_>>(), ["Acme", "Third"]);
    assert_eq!(less["Third"].as_array().map(Vec::len), Some(2));
    assert_eq!(fewer, serde_json::json!({ "Acme": [author], "Third": [author] }));
    assert_eq!(renewed(&by_name), fewer);
    assert_eq!(others["Third"], serde_json::json!([policy]));
}

#[test]
fn g6_what_is_withdrawn_in_vain_or_leaves_a_prefix_to_nobody_is_told_and_nothing_is_issued() {
    let home = home();
    let nowhere = "ab".repeat(32);

    let prefix = refuse(home.path(), &format!("{RENEW} --withdraw-prefix acme"));
    let signer = refuse(home.path(), &format!("{RENEW} --withdraw-signer policy.pem"));
    let unknown = refuse(home.path(), &format!("{RENEW} --withdraw-signer {nowhere}"));
    let nobody = refuse(home.path(), &format!("{RENEW} --withdraw-signer author.pem"));
    let file = refuse(home.path(), &format!("{RENEW} --withdraw-signer author.key"));
    let fresh = RENEW.replace("--renew licence.cms", "--serial 4 --licensee Acme --tenant acme");
    let without = muster_sign(home.path(), &format!("{fresh} --withdraw-prefix Acme"));

    assert!(
        prefix.contains("--withdraw-prefix acme: the former licence does not have it; it has: Acme"),
        "{prefix}"
    );
    assert!(signer.contains("no prefix of the former licence has this signer"), "{signer}");
    assert!(unknown.contains(&nowhere), "{unknown}");
    assert!(
        nobody.contains("prefix Acme has no signer left") && nobody.contains("--withdraw-prefix Acme"),
        "{nobody}"
    );
    assert!(file.contains("--withdraw-signer author.key"), "{file}");
    assert_eq!(without.status.code(), Some(2));
    assert!(!home.path().join("new.cms").exists());
}

#[test]
fn g6_a_definition_of_a_withdrawn_signer_is_not_licensed() {
    let home = home();
    std::fs::write(home.path().join("a.toml"), DEFINITION).unwrap();
    succeed(home.path(), "definition sign a.toml --key author.key --cert author.pem --out a.cms");
    succeed(home.path(), &format!("{RENEW} --prefix Acme=policy.pem --withdraw-signer author.pem"));
    std::fs::rename(home.path().join("new.cms"), home.path().join("licence.cms")).unwrap();

    let judged = muster_sign(home.path(), "definition verify a.cms --home .");

    let said = String::from_utf8(judged.stdout).unwrap();
    assert_eq!(judged.status.code(), Some(1), "{said}");
    assert!(said.contains("finding: UNLICENSED") && said.contains("does not bind prefix Acme"), "{said}");
}
