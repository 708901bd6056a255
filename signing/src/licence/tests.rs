use super::*;
use crate::fixture::at;

#[test]
fn reads_back_what_it_wrote() {
    let licence = licence();

    assert_eq!(Licence::parse(&licence.to_text().unwrap()), Ok(licence));
}

#[test]
fn g3_compares_the_prefix_exactly() {
    let licence = licence();
    let admits = |name: &str| licence.admits(&name.parse().unwrap(), &version("2.0.0"), &thumbprint(1), None);

    assert_eq!(admits("Acme-Os-Version"), Ok(()));
    for name in ["AcmeX-Os-Version", "acme-Os-Version", "Acm-Os-Version", "Muster-Os-Version"] {
        assert!(matches!(admits(name), Err(LicenceRefusal::Prefix { .. })), "{name}");
    }
}

#[test]
fn g2_binds_a_prefix_to_each_of_its_signers_and_to_nobody_else() {
    let licence = licence();
    let admits = |signer: u8| {
        licence.admits(&"Acme-Os-Name".parse().unwrap(), &version("1.0.0"), &thumbprint(signer), Some(at(50)))
    };

    assert_eq!(admits(1), Ok(()));
    assert_eq!(admits(2), Ok(()));
    assert!(matches!(admits(3), Err(LicenceRefusal::Signer { .. })));
}

#[test]
fn g6_distrusts_a_signer_after_a_moment_and_refuses_old_versions() {
    let licence = licence();
    let name: DefinitionName = "Acme-Os-Version".parse().unwrap();

    assert_eq!(licence.admits(&name, &version("1.2.0"), &thumbprint(2), Some(at(100))), Ok(()));
    for too_late_or_unproven in [Some(at(101)), None] {
        let distrusted = licence.admits(&name, &version("1.2.0"), &thumbprint(2), too_late_or_unproven);
        assert!(matches!(distrusted, Err(LicenceRefusal::Distrusted { .. })), "{too_late_or_unproven:?}");
    }
    let old = licence.admits(&name, &version("1.1.9"), &thumbprint(1), None);
    assert!(matches!(old, Err(LicenceRefusal::Version { .. })));
}

#[test]
fn knows_its_validity_and_when_a_newer_one_is_due() {
    let licence = licence();

    assert!(!licence.is_valid_at(at(9)) && licence.is_valid_at(at(10)));
    assert!(licence.is_valid_at(at(1_000)) && !licence.is_valid_at(at(1_001)));
    assert!(!licence.is_refresh_due(at(900)) && licence.is_refresh_due(at(901)));
}

#[test]
fn refuses_terms_that_do_not_hold_together() {
    let text = licence().to_text().unwrap();
    for (from, to, words) in [
        ("serial = 7", "serial = 0", "serial is 0"),
        ("tenant = \"acme\"", "tenant = \"\"", "tenant"),
        ("name = \"Acme\"", "name = \"Ac-me\"", "prefix"),
        ("1970-01-01T00:16:40Z", "1970-01-01T00:00:10Z", "not_after"),
        ("1970-01-01T00:16:40Z", "12:00:00", "no moment"),
        (
            "1970-01-01T00:15:00Z",
            "1970-01-01T00:16:41Z",
            "wanted a moment of its validity, 1970-01-01T00:00:10Z to 1970",
        ),
        ("1970-01-01T00:15:00Z", "1970-01-01T00:00:09Z", "refresh_by is 1970-01-01T00:00:09Z"),
        ("1.2.0", "one", "minimum version"),
        ("serial = 7", "serial = 7\nserail = 8", "unknown field"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");

        let error = Licence::parse(&changed).unwrap_err().to_string();

        assert!(error.contains(words), "{to}: {error}");
    }
}

#[test]
fn a_licences_text_is_bounded_to_the_byte() {
    let text = licence().to_text().unwrap();
    let of = |bytes: usize| Licence::parse(&format!("{text}#{}", " ".repeat(bytes - text.len() - 1)));

    assert_eq!(of(196_608), Ok(licence()));
    assert!(of(196_609).unwrap_err().to_string().contains("196609 bytes; wanted at most 196608"));
}

#[test]
fn a_licence_says_whom_it_is_for_in_words_that_fit_a_line() {
    assert_eq!((licence().licensee(), licence().tenant(), licence().serial()), ("Acme Ltd", "acme", 7));
    let with = |change: &dyn Fn(&mut Terms)| {
        let mut terms = licence().terms().clone();
        change(&mut terms);
        Licence::new(terms).map(drop).map_err(|error| error.to_string())
    };
    for (bytes, fits) in [(0, false), (1, true), (256, true), (257, false)] {
        let verdict = with(&|terms| terms.licensee = "a".repeat(bytes));
        assert_eq!(verdict.is_ok(), fits, "{bytes}: {verdict:?}");
    }
    for (bytes, fits) in [(0, false), (1, true), (64, true), (65, false)] {
        let verdict = with(&|terms| terms.tenant = "a".repeat(bytes));
        assert_eq!(verdict.is_ok(), fits, "{bytes}: {verdict:?}");
    }
    assert!(with(&|terms| terms.licensee = "a\nb".to_owned()).is_err());
    assert!(with(&|terms| terms.tenant = "a\nb".to_owned()).is_err());
    let nobody = with(&|terms| drop(terms.prefixes.insert("Empty".to_owned(), BTreeSet::new())));
    assert!(nobody.unwrap_err().contains("prefix Empty has no signer"));
    let refresh = |seconds| with(&|terms: &mut Terms| terms.refresh_by = Some(at(seconds)));
    assert_eq!((refresh(10), refresh(1_000)), (Ok(()), Ok(())));
    let shortest = |terms: &mut Terms| (terms.not_after, terms.refresh_by) = (at(11), None);
    assert_eq!(with(&shortest), Ok(()));
}

#[test]
fn g6_build_metadata_of_a_minimum_version_is_not_issued_and_of_a_licence_that_has_it_orders_nothing() {
    let mut terms = licence().terms().clone();
    terms.minimum_versions.insert("Acme-Os-Version".parse().unwrap(), version("1.2.0+x"));
    let text = licence().to_text().unwrap().replace("\"1.2.0\"", "\"1.2.0+x\"");

    let refused = Licence::new(terms).unwrap_err().to_string();
    let read = Licence::parse(&text).unwrap();

    assert!(refused.contains("minimum version 1.2.0+x of Acme-Os-Version"), "{refused}");
    assert_eq!(read, licence());
}

#[test]
fn g6_a_prefix_stands_in_a_licence_once() {
    let text = licence().to_text().unwrap();
    let twice = format!("{text}\n[[prefix]]\nname = \"Acme\"\nsigners = [\"{}\"]\n", "ab".repeat(32));

    assert!(Licence::parse(&twice).unwrap_err().to_string().contains("prefix Acme stands there twice"));
}

#[test]
fn g6_a_distrusted_signer_and_a_minimum_version_stand_in_a_licence_once() {
    let text = licence().to_text().unwrap();
    let signer = thumbprint(2);
    let later = format!("{text}\n[[distrusted]]\nsigner = \"{signer}\"\nafter = 2030-01-01T00:00:00Z\n");
    let lower = format!("{text}\n[[minimum]]\nname = \"Acme-Os-Version\"\nversion = \"0.1.0\"\n");
    let other =
        lower.replace("\"Acme-Os-Version\"\nversion = \"0.1.0\"", "\"Acme-Os-Name\"\nversion = \"0.1.0\"");

    let said = |text: &str| Licence::parse(text).unwrap_err().to_string();
    assert!(
        said(&later).contains(&format!("distrusted signer {signer} stands there twice")),
        "{}",
        said(&later)
    );
    assert!(said(&lower).contains("minimum of Acme-Os-Version stands there twice"), "{}", said(&lower));
    assert_eq!(Licence::parse(&other).unwrap().terms().minimum_versions.len(), 2);
}

#[test]
fn a_licence_without_refresh_by_is_never_due() {
    let forever = Licence::new(Terms { refresh_by: None, ..licence().terms().clone() }).unwrap();

    assert!(!forever.is_refresh_due(at(999_999)));
}

fn licence() -> Licence {
    Licence::new(Terms {
        serial: 7,
        licensee: "Acme Ltd".to_owned(),
        tenant: "acme".to_owned(),
        not_before: at(10),
        not_after: at(1_000),
        refresh_by: Some(at(900)),
        features: ["console".to_owned()].into(),
        prefixes: [("Acme".to_owned(), [thumbprint(1), thumbprint(2)].into())].into(),
        minimum_versions: [("Acme-Os-Version".parse().unwrap(), version("1.2.0"))].into(),
        distrusted: [(thumbprint(2), at(100))].into(),
    })
    .unwrap()
}

fn version(text: &str) -> semver::Version {
    text.parse().unwrap()
}

fn thumbprint(number: u8) -> Thumbprint {
    Thumbprint::from_bytes([number; 32])
}
