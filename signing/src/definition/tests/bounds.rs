//! What an argument may be, to the edge: each type's bounds, each bound alone, and none.

use super::*;

fn with(parameters: &str) -> Result<Definition, DefinitionError> {
    Definition::parse(&format!("{MINIMAL}{parameters}"))
}

fn parameter(rest: &str) -> String {
    format!("\n[[parameter]]\nname = \"it\"\n{rest}\n")
}

/// Whether an argument fits a parameter that is said in these lines.
fn takes(rest: &str, kind: Wire) -> bool {
    let definition = with(&parameter(rest)).unwrap_or_else(|error| panic!("{rest}: {error}"));
    definition.bind(&[named("it", kind)]).is_ok()
}

#[test]
fn a_text_is_as_long_as_it_may_be_and_has_no_nul() {
    let text = |text: &str| Wire::Text(text.to_owned());
    for (rest, most) in [("type = \"string\"\nmax_length = 10", 10), ("type = \"string\"", 65_536)] {
        assert!(takes(rest, text("")) && takes(rest, text(&"x".repeat(most))), "{rest}");
        assert!(!takes(rest, text(&"x".repeat(most + 1))), "{rest}");
        assert!(!takes(rest, text("a\0b")), "{rest}");
    }
    let both = "type = \"string\"\npattern = 'a+'\nmax_length = 3";
    assert!(takes(both, text("aaa")) && !takes(both, text("aaaa")) && !takes(both, text("b")));
    // Bytes count, not characters.
    assert!(!takes("type = \"string\"\nmax_length = 3", text("\u{e4}\u{e4}")));
}

#[test]
fn both_ends_of_a_range_belong_to_it_and_either_may_be_left_out() {
    for (rest, least, greatest) in [
        ("min = -5\nmax = 5", Some(-5), Some(5)),
        ("min = -5", Some(-5), None),
        ("max = 5", None, Some(5)),
        ("min = 5\nmax = 5", Some(5), Some(5)),
        ("", None, None),
    ] {
        for kind in ["integer", "datetime", "number"] {
            let rest = format!("type = \"{kind}\"\n{rest}");
            let value = |number: i64| {
                if kind == "number" { Wire::Real(number as f64) } else { Wire::Integer(number) }
            };
            for number in [-6, -5, 0, 5, 6, 1_000_000, -1_000_000] {
                let fits = least.is_none_or(|least| least <= number)
                    && greatest.is_none_or(|greatest| number <= greatest);
                assert_eq!(takes(&rest, value(number)), fits, "{rest}: {number}");
            }
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!takes(&format!("type = \"number\"\n{rest}"), Wire::Real(number)), "{rest}: {number}");
        }
    }
    assert!(with(&parameter("type = \"integer\"\nmin = 6\nmax = 5")).is_err());
}

#[test]
fn a_value_of_another_type_never_fits() {
    let values = [Wire::Integer(1), Wire::Real(1.0), Wire::Text("1".to_owned()), Wire::Blob(b"1".to_vec())];
    for (kind, fitting) in [
        ("type = \"integer\"", 0),
        ("type = \"datetime\"", 0),
        ("type = \"boolean\"", 0),
        ("type = \"number\"", 1),
        ("type = \"string\"", 2),
        ("type = \"enum\"\nvalues = [\"1\"]", 2),
    ] {
        for (index, value) in values.iter().enumerate() {
            assert_eq!(takes(kind, value.clone()), index == fitting, "{kind}: {value:?}");
        }
    }
    let boolean = |number| takes("type = \"boolean\"", Wire::Integer(number));
    assert!(boolean(0) && boolean(1) && !boolean(2) && !boolean(-1));
}

#[test]
fn the_values_of_an_enum_are_1_to_256_different_texts() {
    let of = |values: &[String]| with(&parameter(&format!("type = \"enum\"\nvalues = {values:?}"))).is_ok();
    let texts = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();

    assert!(of(&texts(1)) && of(&texts(256)) && of(&["x".repeat(1_024)]));
    assert!(!of(&[]) && !of(&texts(257)) && !of(&["x".repeat(1_025)]));
    assert!(!of(&["a".to_owned(), "a".to_owned()]) && !of(&["a".to_owned(), String::new()]));
    assert!(with(&parameter("type = \"enum\"\nvalues = [\"a\\u0000\"]")).is_err());
    assert!(with(&parameter("type = \"enum\"")).is_err());
}

#[test]
fn a_max_length_is_1_to_64_kib_and_a_pattern_is_bounded() {
    let of = |length: u32| with(&parameter(&format!("type = \"string\"\nmax_length = {length}"))).is_ok();

    assert!(of(1) && of(65_536) && !of(0) && !of(65_537));
    assert!(with(&parameter("type = \"string\"\npattern = '[a-z]{1,100}'")).is_ok());
    assert!(with(&parameter("type = \"string\"\npattern = '(?:[a-z]{100}){1000}'")).is_err());
}

#[test]
fn a_parameter_says_what_it_takes_in_words() {
    for (rest, words) in [
        ("type = \"string\"\nmax_length = 9", "text of at most 9 bytes"),
        (
            "type = \"string\"\nmax_length = 9\npattern = 'a'",
            "text of at most 9 bytes that matches a as a whole",
        ),
        ("type = \"integer\"", "an integer"),
        ("type = \"integer\"\nmin = 1\nmax = 2", "an integer from 1 to 2"),
        ("type = \"integer\"\nmin = 1", "an integer, 1 or more"),
        ("type = \"integer\"\nmax = 2", "an integer, 2 or less"),
        ("type = \"number\"\nmax = 0.5", "a number, 0.5 or less"),
        ("type = \"boolean\"", "true or false"),
        (
            "type = \"datetime\"\nmin = 2000-01-01T00:00:00Z",
            "a moment such as 2026-01-31T12:00:00Z, 2000-01-01T00:00:00Z or more",
        ),
        ("type = \"enum\"\nvalues = [\"a\", \"b\"]", "one of a, b"),
    ] {
        let definition = with(&parameter(&format!("hint = \"ask\"\n{rest}"))).unwrap();
        let parameter = &definition.parameters()[0];

        assert_eq!(parameter.kind().to_string(), words);
        assert_eq!((parameter.name(), parameter.hint(), parameter.default()), ("it", Some("ask"), None));
        assert!(rest.contains(&format!("\"{}\"", parameter.kind().name())));
    }
}

#[test]
fn a_person_types_true_and_false_in_three_ways_each() {
    let definition = with(&parameter("type = \"boolean\"")).unwrap();
    for (typed, wanted) in [("true", 1), ("yes", 1), ("1", 1), ("false", 0), ("no", 0), ("0", 0)] {
        assert_eq!(definition.parse_argument("it", typed).unwrap(), integer("it", wanted));
    }
    let unfit = definition.parse_argument("it", &"x".repeat(100)).unwrap_err().to_string();
    assert_eq!(unfit, format!("parameter `it` is {:?}; wanted true or false", "x".repeat(80)));
    let none = Definition::parse(MINIMAL).unwrap().parse_argument("it", "1").unwrap_err().to_string();
    assert_eq!(none, "Acme-Test-All has no parameter \"it\"; it has none");
}

#[test]
fn an_argument_that_an_action_does_not_take_is_told_what_would_do() {
    for (action, bad, words) in [
        ("do = \"service.stop\", unit = \":it\"", "-H", "\"-H\"; wanted a unit such as ssh"),
        ("do = \"file.remove\", path = \":it\"", "x", "\"x\"; wanted an absolute path"),
    ] {
        let definition = Definition::parse(&acting(action)).unwrap();
        let error = definition.bind(&[text("it", bad)]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_definition_gives_back_what_its_text_says() {
    let resource = format!(
        "\n[[resource]]\nname = \"list\"\nsize = 5\nroot = \"{}\"\nsha256 = \"{}\"\n",
        "ab".repeat(32),
        "cd".repeat(32)
    );
    let text = MINIMAL
        .replace("says = ", "platforms = [\"linux\", \"macos\"]\nminimum_client_version = \"1.2.3\"\nsandbox = \"strict\"\napprovals = 2\nsays = ");
    let definition = Definition::parse(&(text + &resource)).unwrap();

    assert_eq!((definition.says(), definition.approvals()), ("Everything", 2));
    assert_eq!(definition.platforms(), ["linux", "macos"]);
    assert_eq!(definition.minimum_client_version().unwrap().to_string(), "1.2.3");
    assert_eq!((definition.sandbox(), definition.aggregate()), (Sandbox::Strict, None));
    assert_eq!(definition.result()[0].name, "one");
    let resource = &definition.resources()[0];
    assert_eq!((resource.name.as_str(), resource.size), ("list", 5));
    assert_eq!(resource.sha256, Some(Digest::from([0xcd; 32])));
    assert_eq!(Definition::parse(MINIMAL).unwrap().minimum_client_version(), None);
    assert_eq!([Kind::Question, Kind::Action].map(Kind::name), ["question", "action"]);
    assert_eq!(TEXT_BYTES_MAX, 196_608);
}

#[test]
fn a_platform_is_for_all_that_stand_below_it_and_not_for_its_namesakes() {
    let with = |platform: &str| {
        Definition::parse(&MINIMAL.replace("says", &format!("platforms = [{platform:?}]\nsays"))).unwrap()
    };
    for (named, platform, is_for) in [
        ("linux", "linux", true),
        ("linux", "linux-x86_64", true),
        ("linux", "linux/debian", true),
        ("linux", "linuxfoo", false),
        ("linux-x86_64", "linux", false),
        ("linux", "macos", false),
        ("linux", "", false),
    ] {
        assert_eq!(with(named).is_for_platform(platform), is_for, "{named}: {platform}");
    }
    assert!(Definition::parse(MINIMAL).unwrap().is_for_platform("anything"));
}
