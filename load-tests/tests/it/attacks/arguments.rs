//! Arguments that an operator's key signed, and that the definition's author did not allow.

use muster_proto::common::v1::value::Kind;
use muster_proto::common::v1::{NamedValue, Refusal, Value};
use muster_proto::order::v1::Order;

use super::Lab;

const DEFINITION: &str = r#"name = "Acme-Test-Arguments"
version = "1.0.0"
kind = "question"
says = "What is %path% after %days% days, by %by%?"

[[parameter]]
name = "path"
type = "string"
pattern = '/[A-Za-z0-9._/-]*'
max_length = 32

[[parameter]]
name = "days"
type = "integer"
min = 1
max = 365
default = 30

[[parameter]]
name = "by"
type = "enum"
values = ["size", "age"]
default = "size"

[[step]]
query = "SELECT :path AS path, :days AS days, :by AS sorted"

[[result]]
name = "path"
type = "text"

[[result]]
name = "days"
type = "integer"

[[result]]
name = "sorted"
type = "text"
"#;

#[test]
fn attack_parameter_injection_with_a_valid_signature_is_refused_by_the_signed_schema() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let definition = lab.publish(&liar, DEFINITION);
    let canary = lab.place.path("canary");
    let harm = canary.display();
    let good = || text("path", "/etc/hosts");
    let order = |lab: &Lab, arguments: Vec<NamedValue>| Order { arguments, ..lab.order(&definition) };

    let hostile = [
        format!("/$(touch {harm})"),
        format!("/; touch {harm}"),
        format!("/`touch {harm}`"),
        format!("/x' || writefile('{harm}', 'x') || '"),
        "/x\ny".to_owned(),
        "/x\0".to_owned(),
        "--help".to_owned(),
        "-/x".to_owned(),
        "x".to_owned(),
        String::new(),
        "/\u{430}".to_owned(),
        " /x".to_owned(),
        "/x ".to_owned(),
        format!("/{}", "x".repeat(32)),
        "/".repeat(60_000),
    ];
    for value in &hostile {
        let what = format!("{:?}", &value[..value.len().min(40)]);
        lab.refused(&mut session, &order(&lab, vec![text("path", value)]), Refusal::BadArgument, &what);
    }
    let more = [
        ("a missing one", vec![]),
        ("below the least", vec![good(), integer("days", 0)]),
        ("above the most", vec![good(), integer("days", 366)]),
        ("the least of all", vec![good(), integer("days", i64::MIN)]),
        ("a text for a number", vec![good(), text("days", "30")]),
        ("a real for a number", vec![good(), named("days", Kind::Real(30.5))]),
        ("bytes for a text", vec![named("path", Kind::Blob(b"/etc/hosts".to_vec()))]),
        ("a number for a text", vec![integer("path", 7)]),
        ("no value of the list", vec![good(), text("by", "size; age")]),
        ("another case", vec![good(), text("by", "Size")]),
        ("an unknown one", vec![good(), text("sql", "SELECT 1")]),
        ("one like a resource's", vec![good(), text("resource_path", "/etc/shadow")]),
        ("one in another case", vec![text("Path", "/etc/hosts")]),
    ];
    for (what, arguments) in more {
        lab.refused(&mut session, &order(&lab, arguments), Refusal::BadArgument, what);
    }
    // Arguments for a definition that has no parameter.
    let none = Order { arguments: vec![good()], ..lab.order(&lab.honest) };
    lab.refused(&mut session, &none, Refusal::BadArgument, "none wanted");

    assert_eq!(lab.place.starts(), 0);
    assert!(!canary.exists());
    let allowed = order(&lab, vec![good(), integer("days", 365), text("by", "age")]);
    lab.runs(&mut session, &allowed, &lab.signed(&allowed));
    lab.goes_on(&mut session);
}

fn text(name: &str, value: &str) -> NamedValue {
    named(name, Kind::Text(value.to_owned()))
}

fn integer(name: &str, value: i64) -> NamedValue {
    named(name, Kind::Integer(value))
}

fn named(name: &str, kind: Kind) -> NamedValue {
    NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(kind) }) }
}
