mod bounds;
mod steps;

use muster_proto::common::v1::{NamedValue, Value, value::Kind as Wire};
use proptest::prelude::*;

use super::*;

/// The example of spec/signing.md, word by word.
const EXAMPLE: &str = r#"
name    = "Acme-Security-ExpiringCertificates"
version = "1.2.0"
kind    = "question"
says    = "Which certificates under %path% expire within %days% days?"

[[parameter]]
name = "path"
type = "string"
pattern = '^/[A-Za-z0-9._/-]*$'
max_length = 200
default = "/etc/ssl"

[[parameter]]
name = "days"
type = "integer"
min = 1
max = 365
default = 30

[[step]]
query = """
SELECT path, subject, not_after FROM certificates
WHERE path GLOB :path || '/*' AND not_after < unixepoch() + :days * 86400
"""

[[result]]
name = "path"
type = "text"
max_length = 512

[[result]]
name = "subject"
type = "text"
max_length = 256

[[result]]
name = "not_after"
type = "datetime"

[aggregate]
query = "SELECT subject, count(*) AS devices FROM results GROUP BY subject"

[limits]
run_time = "10s"
rows = 1000
bytes = "256 KiB"

[time_to_live]
gather = { default = "1h", min = "1m", max = "7d" }
keep   = { default = "1d", min = "1h", max = "30d" }
"#;

const MINIMAL: &str = r#"
name = "Acme-Test-All"
version = "1.0.0"
kind = "question"
says = "Everything"

[[step]]
query = "SELECT 1 AS one"

[[result]]
name = "one"
type = "integer"
"#;

/// A parameter of each type.
const PARAMETERS: &str = r#"
[[parameter]]
name = "word"
type = "string"
pattern = 'a|bc'
max_length = 10

[[parameter]]
name = "count"
type = "integer"
min = -5
max = 5

[[parameter]]
name = "ratio"
type = "number"
min = 0
max = 1.5
default = 1

[[parameter]]
name = "all"
type = "boolean"
default = false

[[parameter]]
name = "since"
type = "datetime"
min = 2000-01-01T00:00:00Z
default = 2026-01-01T00:00:00Z

[[parameter]]
name = "by"
type = "enum"
values = ["cpu", "memory"]
default = "cpu"
"#;

#[test]
fn reads_the_example_of_the_specification() {
    let definition = Definition::parse(EXAMPLE).unwrap();

    assert_eq!(definition.name().prefix(), "Acme");
    assert_eq!(definition.version().to_string(), "1.2.0");
    assert_eq!(definition.kind(), Kind::Question);
    assert_eq!(definition.parameters().len(), 2);
    assert_eq!(definition.result()[2].kind, ColumnType::Datetime);
    assert_eq!(
        definition.limits(),
        &Limits { run_time: Duration::from_secs(10), rows: 1_000, bytes: 262_144 }
    );
    assert_eq!(definition.time_to_live().gather.max, Duration::from_secs(7 * 86_400));
    assert!(definition.aggregate().unwrap().contains("GROUP BY"));
    assert!(definition.is_for_platform("linux-x86_64"));
}

#[test]
fn defaults_are_those_of_the_example() {
    let (minimal, example) = (Definition::parse(MINIMAL).unwrap(), Definition::parse(EXAMPLE).unwrap());

    assert_eq!(minimal.limits(), example.limits());
    assert_eq!(minimal.time_to_live(), example.time_to_live());
    assert_eq!(minimal.sandbox(), Sandbox::Standard);
}

#[test]
fn a_problem_has_its_line_and_what_would_do() {
    let too_long = format!("1.2.0-{}", "a".repeat(123));
    for (from, to, line, words) in [
        ("Acme-Security-ExpiringCertificates", "Acme", 2, "Prefix-Area-Thing"),
        ("1.2.0", "1.2", 3, "semantic version"),
        ("1.2.0", "1.2.0+build", 3, "build metadata"),
        ("1.2.0", &too_long, 3, "wanted at most 128"),
        ("\"question\"", "\"query\"", 4, "unknown variant"),
        ("%days%", "%dayz%", 5, "names no parameter"),
        ("max_length = 200", "max_lenght = 200", 11, "unknown field"),
        ("pattern = '^/", "pattern = '(", 10, "no regular expression"),
        ("default = \"/etc/ssl\"", "default = \"etc\"", 12, "does not fit"),
        ("default = \"/etc/ssl\"", "default = 1", 12, "another type"),
        ("name = \"days\"", "name = \"path\"", 15, "second time"),
        ("name = \"days\"", "name = \"da ys\"", 15, "no name"),
        ("type = \"integer\"", "type = \"int\"", 16, "wanted one of string, integer"),
        ("min = 1", "min = \"1\"", 17, "another type"),
        ("min = 1", "min = 366", 18, "less than min"),
        ("min = 1", "max_length = 1", 17, "is for parameters of type string"),
        (":days *", ":dayz *", 24, "`:dayz`, which nothing binds; known: :path, :days"),
        (":days *", "?1 *", 24, "wanted :name"),
        ("SELECT path", "DELETE path", 22, "it begins with \"DELETE\"; wanted one SELECT"),
        ("BY subject\"", "BY subject; DROP TABLE results\"", 42, "more than one statement"),
        ("query = \"\"\"", "script = \"\"\"", 22, "expected struct Script"),
        ("query = \"\"\"", "query_parameter = \"\"\"", 22, "only Muster-"),
        ("type = \"datetime\"", "type = \"date\"", 39, "no column type"),
        ("name = \"not_after\"", "name = \"subject\"", 38, "second time"),
        ("name = \"not_after\"", "name = \"Subject\"", 38, "are one name in SQL"),
        ("type = \"datetime\"", "type = \"datetime\"\nmax_length = 5", 40, "text or blob"),
        ("\"10s\"", "\"10\"", 45, "no duration"),
        ("\"10s\"", "\"2h\"", 45, "1s to 1h"),
        ("rows = 1000", "rows = 0", 46, "1 to 100000"),
        ("256 KiB", "17 MiB", 47, "1 KiB to 16 MiB"),
        ("max = \"7d\"", "max = \"8d\"", 50, "at most 7d"),
        ("default = \"1h\"", "default = \"1s\"", 50, "min <= default <= max"),
        ("[limits]", "approvals = 2\n[limits]", 44, "unknown field"),
        ("[[parameter]]", "approvals = 4\n[[parameter]]", 7, "0 to 3"),
        ("Which", "Which \u{202e}", 5, "U+202E"),
    ] {
        let text = EXAMPLE.replacen(from, to, 1);
        assert_ne!(text, EXAMPLE, "{from}");

        let error = Definition::parse(&text).unwrap_err();

        assert!(error.problem().contains(words), "{to}: {error}");
        assert_eq!(error.line(), line, "{to}: {error}");
    }
}

#[test]
fn refuses_what_is_missing() {
    for (part, words) in [
        ("name = \"Acme-Test-All\"\n", "missing field `name`"),
        ("[[step]]\nquery = \"SELECT 1 AS one\"\n", "nothing to run"),
        ("[[result]]\nname = \"one\"\ntype = \"integer\"\n", "no [[result]]"),
    ] {
        let text = MINIMAL.replacen(part, "", 1);
        assert_ne!(text, MINIMAL, "{part}");

        let error = Definition::parse(&text).unwrap_err();

        assert!(error.problem().contains(words), "{error}");
    }
}

/// An action with a parameter `it`, as [`MINIMAL`].
fn acting(action: &str) -> String {
    let step = format!("action = {{ {action} }}");
    let columns = "[[result]]\nname = \"changed\"\ntype = \"boolean\"\n\n[[result]]\nname = \"detail\"\ntype = \"text\"\n";
    let parameter = "\n[[parameter]]\nname = \"it\"\ntype = \"string\"\n";
    let text = MINIMAL.replace("query = \"SELECT 1 AS one\"", &step).replace("\"question\"", "\"action\"");
    let (before, _) = text.split_once("[[result]]").unwrap();
    format!("{before}{columns}{parameter}")
}

#[test]
fn an_action_is_its_verb_and_typed_values() {
    let resource = format!("\n[[resource]]\nname = \"list\"\nsize = 5\nroot = \"{}\"\n", "ab".repeat(32));
    let step = |action: &str| Definition::parse(&(acting(action) + &resource)).unwrap().steps().to_vec();
    let it = || Operand::Parameter("it".to_owned());
    let literal = |text: &str| Operand::Literal(text.to_owned());

    for verb in ServiceVerb::ALL {
        let given = format!("do = \"service.{}\", unit = \":it\"", verb.name());
        assert_eq!(step(&given), [Step::Action(Action::Service { verb, unit: it() })]);
    }
    assert_eq!(
        step("do = \"file.put\", resource = \"list\", path = \"/etc/motd\", mode = \"0640\""),
        [Step::Action(Action::FilePut {
            resource: "list".to_owned(),
            path: literal("/etc/motd"),
            mode: 0o640
        })]
    );
    assert_eq!(
        step("do = \"file.remove\", path = \":it\""),
        [Step::Action(Action::FileRemove { path: it() })]
    );
}

#[test]
fn an_argument_that_its_action_cannot_take_is_refused_before_anything_runs() {
    for (action, good, bad) in [
        ("do = \"service.stop\", unit = \":it\"", "ssh.service", ["--root=/", "ssh*", "a; b", ""]),
        ("do = \"file.remove\", path = \":it\"", "/etc/x y", ["etc/x", "/etc/../x", "/etc/x/", "/a\nb"]),
    ] {
        let definition = Definition::parse(&acting(action)).unwrap();

        assert!(definition.bind(&[text("it", good)]).is_ok(), "{good}");
        for bad in bad {
            let error = definition.bind(&[text("it", bad)]).unwrap_err();
            assert!(matches!(&error, ArgumentError::Unfit { name, .. } if name == "it"), "{bad}: {error}");
        }
    }
}

#[test]
fn steps_are_in_the_order_of_the_text_and_at_most_eight() {
    let steps = |count: usize| {
        let further = (2..=count).map(|number| format!("\n[[step]]\nquery = \"SELECT {number} AS one\"\n"));
        MINIMAL.to_owned() + &further.collect::<String>()
    };

    let eight = Definition::parse(&steps(8)).unwrap();

    let sql = |number: usize| Step::Query { sql: format!("SELECT {number} AS one") };
    assert_eq!(eight.steps(), (1..=8).map(sql).collect::<Vec<_>>());
    assert!(Definition::parse(&steps(9)).unwrap_err().problem().contains("9 steps; wanted at most 8"));
}

#[test]
fn a_script_is_its_text_and_the_names_of_what_it_is_given() {
    let script = r#"script = { interpreter = "/bin/sh", text = 'echo "$1"', arguments = ["list", "word"] }"#;
    let beside = format!(
        "\n[[resource]]\nname = \"list\"\nsize = 5\nroot = \"{}\"\n[[parameter]]\nname = \"word\"\ntype = \"boolean\"\n",
        "ab".repeat(32)
    );
    let text = MINIMAL.replace("query = \"SELECT 1 AS one\"", script) + &beside;

    let definition = Definition::parse(&text).unwrap();

    let wanted = Script {
        interpreter: "/bin/sh".to_owned(),
        text: ScriptText::Inline("echo \"$1\"".to_owned()),
        arguments: vec![
            ScriptArgument::Resource("list".to_owned()),
            ScriptArgument::Parameter("word".to_owned()),
        ],
    };
    assert_eq!(definition.steps(), [Step::Script(wanted)]);
    // Of two things of one name, nobody could tell which a script is given.
    let twins = Definition::parse(&text.replace("\"word\"", "\"list\"")).unwrap_err();
    assert!(twins.problem().contains("`list` is a parameter and a resource"), "{twins}");
}

#[test]
fn a_resource_is_bound_by_its_name() {
    let resource = format!("\n[[resource]]\nname = \"list\"\nsize = 5\nroot = \"{}\"\n", "ab".repeat(32));
    let text = MINIMAL.replace("SELECT 1", "SELECT :resource_list") + &resource;

    let definition = Definition::parse(&text).unwrap();

    assert_eq!(definition.resources()[0].root, Digest::from([0xab; 32]));
    assert!(Definition::parse(&MINIMAL.replace("SELECT 1", "SELECT :resource_list")).is_err());
}

#[test]
fn only_the_platform_may_run_a_parameter_as_a_query() {
    let text = include_str!("../../definitions/Muster-Core-Query.toml");

    let definition = Definition::parse(text).unwrap();

    assert_eq!(definition.steps(), [Step::QueryParameter { parameter: "sql".to_owned() }]);
    assert!(definition.result().is_empty());
    assert!(Definition::parse(&text.replace("Muster-Core-Query", "Acme-Core-Query")).is_err());
    assert!(
        Definition::parse(&text.replace("query_parameter = \"sql\"", "query_parameter = \"sq\"")).is_err()
    );
}

#[test]
fn binds_arguments_and_defaults_in_the_definitions_order() {
    let definition = parametrised();

    let bound = definition.bind(&[integer("count", -5), text("word", "bc")]).unwrap();

    let kinds: Vec<Wire> = bound.into_iter().map(|named| named.value.unwrap().kind.unwrap()).collect();
    assert_eq!(
        kinds,
        [
            Wire::Text("bc".to_owned()),
            Wire::Integer(-5),
            Wire::Real(1.0),
            Wire::Integer(0),
            Wire::Integer(1_767_225_600),
            Wire::Text("cpu".to_owned()),
        ]
    );
}

#[test]
fn refuses_arguments_that_do_not_fit_the_signed_parameter() {
    let real = |name, number| named(name, Wire::Real(number));
    for (wrong, words) in [
        (text("word", "abc"), "matches a|bc as a whole"),
        (text("word", "a\nbc"), "matches a|bc as a whole"),
        (text("word", "a'; DROP TABLE x --"), "matches a|bc as a whole"),
        (integer("word", 1), "parameter `word` is 1"),
        (integer("count", 6), "from -5 to 5"),
        (text("count", "1"), "an integer"),
        (real("ratio", f64::NAN), "a number"),
        (real("ratio", 1.6), "from 0 to 1.5"),
        (integer("all", 2), "true or false"),
        (integer("since", 0), "2000-01-01T00:00:00Z"),
        (text("by", "disk"), "one of cpu, memory"),
        (text("bye", "cpu"), "did you mean `by`"),
        (text("unheard", "cpu"), "it has word, count"),
        (NamedValue { name: "by".to_owned(), value: None }, "is nothing"),
        (named("word", Wire::Blob(vec![1])), "a blob of 1 bytes"),
    ] {
        let mut arguments = vec![text("word", "a"), integer("count", 0)];
        arguments.retain(|argument| argument.name != wrong.name);
        arguments.push(wrong);

        let error = parametrised().bind(&arguments).unwrap_err().to_string();

        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn refuses_a_missing_argument_and_one_given_twice() {
    let missing = parametrised().bind(&[text("word", "a")]).unwrap_err();
    let twice = parametrised().bind(&[text("word", "a"), text("word", "a")]).unwrap_err();

    assert!(matches!(missing, ArgumentError::Missing { ref name, .. } if name == "count"), "{missing}");
    assert_eq!(twice, ArgumentError::Repeated("word".to_owned()));
}

#[test]
fn reads_what_a_person_typed() {
    let definition = parametrised();
    for (name, typed, wanted) in [
        ("word", "bc", Wire::Text("bc".to_owned())),
        ("count", "-3", Wire::Integer(-3)),
        ("ratio", "0.5", Wire::Real(0.5)),
        ("ratio", "1", Wire::Real(1.0)),
        ("all", "yes", Wire::Integer(1)),
        ("since", "2026-01-31", Wire::Integer(1_769_817_600)),
        ("by", "memory", Wire::Text("memory".to_owned())),
    ] {
        let named = definition.parse_argument(name, typed).unwrap();

        assert_eq!(named, self::named(name, wanted));
    }
    for (name, typed) in
        [("count", "3.5"), ("count", "x"), ("all", "maybe"), ("ratio", "NaN"), ("since", "soon"), ("x", "1")]
    {
        assert!(definition.parse_argument(name, typed).is_err(), "{name}={typed}");
    }
}

#[test]
fn a_pattern_cannot_escape_from_its_anchors() {
    let escaping = PARAMETERS.replace("'a|bc'", "'a)|(b'");

    assert!(Definition::parse(&(MINIMAL.to_owned() + &escaping)).is_err());
}

#[test]
fn the_platforms_definitions_hold() {
    for text in [
        include_str!("../../definitions/Muster-Certificates-Expiring.toml"),
        include_str!("../../definitions/Muster-Core-Query.toml"),
        include_str!("../../definitions/Muster-Disk-Full.toml"),
        include_str!("../../definitions/Muster-File-Hash.toml"),
        include_str!("../../definitions/Muster-Os-Version.toml"),
        include_str!("../../definitions/Muster-Package-Version.toml"),
        include_str!("../../definitions/Muster-Port-Listeners.toml"),
        include_str!("../../definitions/Muster-Process-Top.toml"),
        include_str!("../../definitions/Muster-Service-Restart.toml"),
        include_str!("../../definitions/Muster-Service-State.toml"),
    ] {
        let definition = Definition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));

        assert_eq!(definition.name().prefix(), PLATFORM_PREFIX);
    }
}

proptest! {
    #[test]
    fn any_text_is_a_definition_or_an_error(from in 0..EXAMPLE.len(), length in 0..40_usize, with in ".{0,20}") {
        let (Some(before), Some(after)) = (EXAMPLE.get(..from), EXAMPLE.get((from + length).min(EXAMPLE.len())..)) else {
            return Ok(());
        };
        drop(Definition::parse(&format!("{before}{with}{after}")));
    }
}

fn parametrised() -> Definition {
    Definition::parse(&(MINIMAL.to_owned() + PARAMETERS)).unwrap()
}

fn named(name: &str, kind: Wire) -> NamedValue {
    NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(kind) }) }
}

fn integer(name: &str, value: i64) -> NamedValue {
    named(name, Wire::Integer(value))
}

fn text(name: &str, value: &str) -> NamedValue {
    named(name, Wire::Text(value.to_owned()))
}
