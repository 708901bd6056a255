use muster_proto::common::v1::value::Kind;
use proptest::prelude::*;

use super::*;

#[test]
fn means_what_cel_means() {
    for (text, wanted) in [
        (r#"os == "linux""#, true),
        (r#"os == "linux" && cpus >= 4"#, true),
        (r#"os == 'windows' || arch != "aarch64""#, true),
        ("!(cpus > 8)", true),
        ("cpus < 4", false),
        (r#"host in ["web-1", "web-2"]"#, true),
        ("host in []", false),
        (r#"host.startsWith("web-")"#, true),
        (r#"host.matches("b-[0-9]$")"#, true),
        (r#"host.matches("^b")"#, false),
        ("has(os)", true),
        ("has(site)", false),
        ("virtual", true),
        ("virtual == true && virtual == 1 && true == virtual", true),
        ("!virtual", false),
        ("true", true),
        ("'linux' == os", true),
        ("load == 2", true),
        ("2 == load", true),
        ("load >= 3", false),
        ("3 > load", true),
        ("3 <= load", false),
        ("load != 2", false),
        ("cpus <= 8 && cpus >= 8 && !(cpus < 8) && !(cpus > 8)", true),
        ("load.startsWith('2')", false),
        ("!load.startsWith('2')", false),
        ("load", false),
        ("cpus == true", false),
        ("0 == false && 1 == true && !(0 == true) && 2 != true", true),
        ("cpus != true", true),
        ("virtual != false && false < virtual", true),
        ("true > virtual", false),
        ("cpus", false),
        ("!cpus", false),
        ("os in ['windows', 8]", false),
        ("cpus in [true, 8]", true),
        ("load < 2", false),
        ("-5 < cpus", true),
        ("os == 1", false),
        ("os != 1", true),
        (r#""a" < "b""#, true),
        // A missing attribute decides nothing, and is never true.
        (r#"site == "x""#, false),
        (r#"site != "x""#, false),
        (r#"!(site == "x")"#, false),
        (r#"site == "x" || os == "linux""#, true),
        (r#"!(site == "x" && os == "windows")"#, true),
        ("os < 1", false),
        ("!(os < 1)", false),
        ("os", false),
        ("!os", false),
        // `&&` binds tighter than `||`.
        ("true || false && false", true),
        ("(true || false) && false", false),
    ] {
        assert_eq!(parsed(text).matches(&attributes()), wanted, "{text}");
    }
}

#[test]
fn a_member_leaves_open_what_only_the_switch_knows() {
    for (text, wanted) in [
        (r#"tag.site == "hq""#, true),
        (r#"!(tag.site == "hq")"#, true),
        ("has(tag.site)", true),
        (r#"tag.site == "hq" && os == "linux""#, true),
        (r#"tag.site == "hq" && os == "windows""#, false),
        (r#"os == "windows""#, false),
        (r#"tag.site == "hq" || os == "windows""#, true),
        ("has(domain)", false),
        ("has(tag.site) && has(os)", true),
        ("os", false),
        // What every client tells is never open, even where it is missing.
        (r#"domain == "acme""#, false),
    ] {
        assert_eq!(parsed(text).admits_member(&attributes()), wanted, "{text}");
    }
}

#[test]
fn an_error_says_where_and_what_would_do() {
    for (text, column, words) in [
        ("", 1, "wanted an attribute or a literal"),
        ("os = 'linux'", 4, "did you mean `==`"),
        ("os == ", 7, "the end found"),
        ("os == 'linux", 7, "no closing"),
        ("os == 'a' & cpus > 1", 11, "did you mean `&&`"),
        ("(os == 'a'", 11, "wanted `)`"),
        ("os == 'a' cpus", 11, "wanted `&&`, `||` or the end"),
        ("cpus > 1.5", 8, "fractions"),
        ("cpus > 99999999999999999999", 8, "64 bits"),
        ("host.endsWith('x')", 6, "no function `endsWith`"),
        ("host.matches('(')", 14, "no regular expression"),
        ("host.matches(os)", 14, "a text between quotes"),
        ("host in 'a'", 9, "wanted `[`"),
        ("host in [os]", 10, "literals only"),
        ("'linux'", 1, "no condition"),
        ("'a' in os", 5, "stands between an attribute and a list"),
        ("5 in [5]", 3, "stands between an attribute and a list"),
        ("!os == 'linux'", 8, "put the comparison in parentheses"),
        ("1 < cpus < 3", 10, "stands between"),
        ("ä == 1", 1, "unexpected character"),
        ("os == '\\q'", 8, "unknown escape"),
        ("has(os", 7, "wanted `)`"),
    ] {
        let error = Expression::parse(text).unwrap_err().to_string();

        assert!(error.starts_with(&format!("audience, column {column}: ")), "{text}: {error}");
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn an_unknown_attribute_has_its_nearest_one_named() {
    let expression = parsed(r#"cpus > 2 && osx == "linux""#);

    let error = expression.check_names(CLIENT_ATTRIBUTES).unwrap_err();

    assert_eq!(error.to_string(), "audience, column 13: unknown attribute `osx`; did you mean `os`?");
    assert_eq!(error.span(), (12, 3));
    assert_eq!(
        (expression.text(), expression.to_string().as_str()),
        (r#"cpus > 2 && osx == "linux""#, expression.text())
    );
    assert!(parsed("has(arch) && host.startsWith('a')").check_names(CLIENT_ATTRIBUTES).is_ok());
    assert_eq!(expression.names().collect::<Vec<_>>(), ["cpus", "osx"]);
}

#[test]
fn an_unknown_attribute_that_is_near_to_none_has_each_known_one_listed_once() {
    let twice = CLIENT_ATTRIBUTES.into_iter().chain(["os", "zone", "os"]);

    let error = parsed("wxyzwxyz == 1").check_names(twice).unwrap_err().to_string();

    let listed = error.split_once("known are ").unwrap().1;
    assert_eq!(
        listed,
        "arch, authenticated, cpus, device, domain, host, kernel, memory_mb, os, os_version, version, virtual, zone"
    );
}

#[test]
fn every_operator_is_held_against_the_types_of_its_operands() {
    for operator in ["==", "!=", "<", "<=", ">", ">="] {
        for (left, right, is_fit) in [
            ("os", "'linux'", true),
            ("os", "5", false),
            ("os", "true", false),
            ("5", "os", false),
            ("os", "kernel", true),
            ("os", "cpus", false),
            ("os", "virtual", false),
            ("cpus", "5", true),
            ("cpus", "'5'", false),
            ("cpus", "true", false),
            ("cpus", "memory_mb", true),
            ("virtual", "true", true),
            ("virtual", "1", true),
            ("virtual", "'yes'", false),
            ("tag.site", "5", true),
            ("tag.site", "'hq'", true),
            ("tag.site", "true", true),
            ("tag.site", "os", true),
            ("1", "2", true),
            ("1", "'a'", false),
            ("true", "1", false),
        ] {
            let text = format!("{left} {operator} {right}");

            let checked = parsed(&text).check_types();

            assert_eq!(checked.is_ok(), is_fit, "{text}: {checked:?}");
            if let Err(error) = checked {
                assert_eq!(error.span(), (0, text.len()), "{text}");
            }
        }
    }
}

#[test]
fn a_mistake_of_types_says_where_and_what_would_do() {
    for (text, span, words) in [
        (
            "arch == 'a' && os == 5",
            (15, 7),
            "`os` is a text, `5` is an integer, and `==` compares values of one type; wanted os == \"…\"",
        ),
        ("os < 5", (0, 6), "wanted os < \"…\""),
        ("5 < os", (0, 6), "wanted \"…\" < os"),
        ("'a' < 5", (0, 7), "wanted two of one type"),
        ("os in ['a', 5, 6]", (12, 1), "`os` is a text, `5` is an integer; wanted os in"),
        ("cpus in [1, 'a']", (12, 3), "wanted cpus in [5]"),
        ("virtual in [true, 0, 'x']", (21, 3), "`virtual` is 0 or 1"),
        ("cpus.startsWith('1')", (0, 20), "startsWith is for texts"),
        ("virtual.matches('1')", (0, 20), "matches is for texts"),
        ("os && true", (0, 2), "`os` is a text, no condition"),
        ("!cpus", (1, 4), "`cpus` is an integer, no condition"),
    ] {
        let error = parsed(text).check_types().unwrap_err();

        assert_eq!(error.span(), span, "{text}");
        assert!(error.to_string().contains(words), "{text}: {error}");
    }
    for text in [
        "virtual",
        "!virtual",
        "has(os)",
        "tag.x",
        "tag.x.matches('a')",
        "tag.x in [1, 'a', true]",
        "os in []",
    ] {
        assert_eq!(parsed(text).check_types(), Ok(()), "{text}");
    }
}

#[test]
fn an_expression_is_printed_with_escapes_for_what_would_mislead() {
    let printed = parsed("name == 'a\u{202e}b\u{200b}\u{7}'").node().to_string();

    assert_eq!(printed, r#"name == "a\u202eb\u200b\u0007""#);
    assert_eq!(parsed(&printed).node().to_string(), printed);
}

#[test]
fn size_and_depth_are_bounded() {
    let deep = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));

    assert!(Expression::parse(&deep(DEPTH_MAX - 1)).is_ok());
    assert!(Expression::parse(&deep(DEPTH_MAX)).is_err());
    assert!(Expression::parse(&"!".repeat(4_000)).is_err());
    assert!(Expression::parse(&"(".repeat(4_000)).is_err());
    let wide = vec!["os == 'linux'"; 200].join(" || ");
    assert!(Expression::parse(&wide).is_ok());
    assert!(Expression::parse(&" ".repeat(EXPRESSION_BYTES_MAX + 1)).is_err());
}

proptest! {
    #[test]
    fn any_text_is_an_expression_or_an_error(text in ".{0,80}") {
        if let Ok(expression) = Expression::parse(&text) {
            std::hint::black_box(expression.matches(&attributes()));
        }
    }

    #[test]
    fn any_words_are_an_expression_or_an_error(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "os", "has", "(", ")", "[", "]", ",", ".", "!", "&&", "||", "==", "<", "in", "'a'", "\"\\u00e4\"", "1", "-",
                "true", "startsWith", "matches", "\\", "'",
            ]),
            0..20,
        )
    ) {
        for separator in ["", " "] {
            if let Ok(expression) = Expression::parse(&words.join(separator)) {
                std::hint::black_box(expression.matches(&attributes()));
            }
        }
    }

    #[test]
    fn what_is_printed_parses_to_the_same_tree(node in nodes()) {
        let printed = node.to_string();

        let expression = Expression::parse(&printed)?;

        prop_assert_eq!(expression.node(), &node, "{}", printed);
    }
}

fn nodes() -> impl Strategy<Value = Node> {
    let name = || {
        "[a-z_][a-z0-9_]{0,5}(\\.[a-z_][a-z0-9]{0,3})?".prop_filter("a word of the language", |name| {
            !name.split('.').any(|part| ["in", "has", "true", "false"].contains(&part))
        })
    };
    let literal = || {
        prop_oneof![
            any::<bool>().prop_map(Literal::Boolean),
            any::<i64>().prop_map(Literal::Integer),
            any::<String>().prop_map(|text| Literal::Text(text.chars().take(8).collect())),
        ]
    };
    let operand = || prop_oneof![name().prop_map(Operand::Attribute), literal().prop_map(Operand::Literal)];
    let operator = proptest::sample::select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ]);
    let leaf = prop_oneof![
        (operand(), operator, operand()).prop_map(|(left, operator, right)| Node::Compare {
            left,
            operator,
            right
        }),
        (name(), proptest::collection::vec(literal(), 0..4))
            .prop_map(|(attribute, list)| Node::In { attribute, list }),
        (name(), "[a\"'\\\\\n\u{0}ä]{0,4}")
            .prop_map(|(attribute, prefix)| Node::StartsWith { attribute, prefix }),
        (name(), "[a-z.*\\[\\]\"]{0,4}").prop_filter_map("a pattern", |(attribute, text)| {
            Some(Node::Matches { attribute, pattern: Pattern::new(&text).ok()? })
        }),
        name().prop_map(Node::Has),
        name().prop_map(Node::Attribute),
        any::<bool>().prop_map(Node::Constant),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Node::Or),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Node::And),
            inner.prop_map(|node| Node::Not(Box::new(node))),
        ]
    })
}

fn parsed(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn attributes() -> BTreeMap<String, Value> {
    let text = |text: &str| Kind::Text(text.to_owned());
    [
        ("os", text("linux")),
        ("arch", text("x86_64")),
        ("host", text("web-1")),
        ("cpus", Kind::Integer(8)),
        ("virtual", Kind::Integer(1)),
        ("load", Kind::Real(2.0)),
    ]
    .map(|(name, kind)| (name.to_owned(), Value { kind: Some(kind) }))
    .into()
}
