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

const TYPED: &str = r#"name = "Acme-Test-Typed"
version = "1.0.0"
kind = "question"
says = "What is %share% of %all% since %since%?"

[[parameter]]
name = "share"
type = "number"
min = -0.5
max = 1.5

[[parameter]]
name = "all"
type = "boolean"

[[parameter]]
name = "since"
type = "datetime"

[[parameter]]
name = "any"
type = "number"
default = 0.0

[[step]]
query = "SELECT :share AS share, :all AS whole, :since AS since, :any AS other"

[[result]]
name = "share"
type = "real"

[[result]]
name = "whole"
type = "boolean"

[[result]]
name = "since"
type = "datetime"

[[result]]
name = "other"
type = "real"
"#;

#[test]
fn attack_with_numbers_booleans_and_times_that_are_none_or_out_of_range_is_refused_by_the_signed_schema() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let definition = lab.publish(&liar, TYPED);
    let order = |arguments: Vec<NamedValue>| Order { arguments, ..lab.order(&definition) };
    let good = || vec![real("share", 0.5), integer("all", 1), integer("since", 1_700_000_000)];
    let changed = |with: NamedValue| {
        let mut arguments = good();
        arguments.retain(|argument| argument.name != with.name);
        arguments.push(with);
        arguments
    };

    for (what, with) in [
        ("just above the most", real("share", 1.500_000_000_000_000_3)),
        ("just below the least", real("share", -0.500_000_000_000_000_2)),
        ("an integer for a number", integer("share", 1)),
        ("a text for a number", text("share", "0.5")),
        ("bytes for a number", named("share", Kind::Blob(0.5_f64.to_be_bytes().to_vec()))),
        ("neither true nor false", integer("all", 2)),
        ("less than false", integer("all", -1)),
        ("a real for a boolean", real("all", 1.0)),
        ("a text for a boolean", text("all", "true")),
        ("a text for a time", text("since", "2023-11-14T22:13:20Z")),
        ("a real for a time", real("since", 1_700_000_000.5)),
        ("bytes for a time", named("since", Kind::Blob(vec![0; 8]))),
    ] {
        lab.refused(&mut session, &order(changed(with)), Refusal::BadArgument, what);
    }
    // No order holds them, whatever its definition: it cannot be read, and is told of by an event.
    for (count, with) in (1..).zip([
        real("share", f64::NAN),
        real("any", f64::INFINITY),
        real("any", f64::NEG_INFINITY),
        NamedValue { name: "share".to_owned(), value: None },
        NamedValue { name: "all".to_owned(), value: Some(Value { kind: None }) },
    ]) {
        session.deliver(&lab.signed(&order(changed(with))));
        session.until("the order that cannot be read", |told| {
            let unreadable = told.events.iter().filter(|event| event.name == "order.unreadable").count();
            (unreadable == count).then_some(())
        });
    }

    assert_eq!(lab.place.starts(), 0);
    for arguments in [
        good(),
        changed(real("share", 1.5)),
        changed(real("share", -0.5)),
        changed(integer("all", 0)),
        changed(integer("since", 0)),
        changed(real("any", f64::MAX)),
    ] {
        let order = order(arguments);
        lab.runs(&mut session, &order, &lab.signed(&order));
    }
    lab.goes_on(&mut session);
}

fn real(name: &str, value: f64) -> NamedValue {
    named(name, Kind::Real(value))
}
