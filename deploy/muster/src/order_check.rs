//! Holds an order that the Switch prepared against what the operator typed, before it is signed.
//!
//! The first difference refuses it: a Switch that changes what an operator asked for is broken, or lies. What of an order nobody types is
//! held by [`crate::seen`]; a stop by [`crate::stop`]; an order to approve, which somebody else has signed, by [`crate::approve`].
//! Decoding has bounded every field before ([`muster_signing::order`]).
//!
//! | field | of an order that is issued | of one that is approved | of a stop |
//! |---|---|---|---|
//! | `tenant` | what the context is for, and the Switch's licence | the same | what the context is for, if anything has told that |
//! | `instruction` | made by now (a later time would have devices start it once more); else any: a known one starts nothing | what was typed | any: a known one stops nothing else |
//! | `definition_name` | what was typed, and the definition | the definition, which is shown | none: decoding |
//! | `definition_version` | the definition, and what was typed; if nothing was, none below what this home has seen; licensed | the definition, which is shown; licensed | none: decoding |
//! | `definition_digest` | the definition, which an author signed, and the licence binds to its prefix | the same | none: decoding |
//! | `licence_serial` | the Switch's licence, and that none later was seen | not later than the Switch's licence: a newer one may have come meanwhile | any: no device asks for a licence |
//! | `arguments` | what was typed, and the definition's parameters | the parameters; they are shown | none: decoding |
//! | `audience` | its three fields | its three fields | empty: decoding |
//! | `expression` | what was typed | it is shown | none: decoding |
//! | `members_root` | that there is one: without it, whoever connects later would be in it. Its leaves only the Switch knows; each device proves its own place | the same | none: decoding |
//! | `members_count` | the number that is shown, and typed for an action | it is shown, and typed | none: decoding |
//! | `not_before_ms` | not later than now | the same | the same |
//! | `expires_at_ms` | not later than asked for | later than now; at most 7 days after the start | later than now; at most 7 days after the start |
//! | `sequence` | not far beyond the highest that was seen | the same | the same |
//! | `operator` | the name in one's own certificate | it is shown beside the names of those who signed | the name in one's own certificate |
//! | `stops` | none: such an order has no definition | none | what was typed |
//! | `reason` | none: decoding | none: decoding | what was typed |

use muster_proto::common::v1::NamedValue;
use muster_proto::ids::InstructionId;
use muster_proto::order::v1::{Audience, Order};
use muster_signing::definition::Definition;
use muster_signing::envelope;

use crate::exit::Failure;
use crate::issue::Wish;
use crate::output;

/// The Switch's clock may be this far from the operator's.
pub(crate) const CLOCK_SLACK_MS: i64 = 5 * 60 * 1000;

/// What the operator's side knows by itself.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// What was typed.
    pub(crate) wish: &'a Wish,
    /// The arguments, typed by the definition's parameters.
    pub(crate) arguments: &'a [NamedValue],
    /// The name in the operator's own certificate.
    pub(crate) operator: &'a str,
    /// The definition that came with the order; its signature is verified.
    pub(crate) definition: &'a Definition,
    /// The definition's envelope.
    pub(crate) definition_envelope: &'a [u8],
    /// How many devices the Switch says there are.
    pub(crate) targets: u64,
    /// This machine's clock, milliseconds since 1970.
    pub(crate) now_ms: i64,
}

/// Compares every field that decides what is run, by whom it is issued, for whom and until when.
///
/// # Errors
/// Names the first difference; nothing may be signed then.
pub(crate) fn check(order: &Order, asked: &Asked<'_>) -> Result<(), Failure> {
    let (wish, definition) = (asked.wish, asked.definition);
    let audience = order.audience.clone().unwrap_or_default();
    let digest = hex::encode(envelope::digest(asked.definition_envelope));
    let (name, version) = (definition.name().to_string(), definition.version().to_string());
    let wanted_version = if wish.version.is_empty() { &version } else { &wish.version };
    let text = |value: &dyn std::fmt::Display| value.to_string();
    let compared = [
        ("the definition", hex::encode(&order.definition_digest), digest),
        ("the definition", name, wish.definition.clone()),
        ("the version", version.clone(), wanted_version.clone()),
        ("the order's definition", order.definition_name.clone(), wish.definition.clone()),
        ("the order's version", order.definition_version.clone(), version.clone()),
        ("the audience", format!("`{}`", audience.expression), format!("`{}`", wish.audience)),
        ("the members root", rooted(&audience).to_owned(), "there".to_owned()),
        ("the number of targets", text(&audience.members_count), text(&asked.targets)),
        ("the operator", order.operator.to_lowercase(), asked.operator.to_lowercase()),
        (
            "the arguments",
            format!("{:?}", sorted(&order.arguments)),
            format!("{:?}", sorted(asked.arguments)),
        ),
    ];
    for (what, got, wanted) in compared {
        if got != wanted {
            return differs(what, &got, &wanted);
        }
    }
    check_window(order, asked)?;
    definition.bind(&order.arguments).map(drop).map_err(|error| Failure::usage(error.to_string()))
}

/// Whether an audience is one of devices that were counted.
pub(crate) fn rooted(audience: &Audience) -> &'static str {
    if audience.members_root.is_empty() { "missing" } else { "there" }
}

/// An order begins now and ends when the operator, or the definition's default, says. The Switch must not be able to put
/// a signed order aside for later.
fn check_window(order: &Order, asked: &Asked<'_>) -> Result<(), Failure> {
    let gather = asked.wish.gather.unwrap_or_else(|| asked.definition.time_to_live().gather.default);
    let gather_ms = i64::try_from(gather.as_millis()).unwrap_or(i64::MAX);
    let first = asked.now_ms.saturating_add(CLOCK_SLACK_MS);
    let last = first.saturating_add(gather_ms);
    // Devices whose stores were brought back from a copy go by it: an order dated ahead would be started once more there.
    let made_at_ms =
        InstructionId::try_from(order.instruction.as_slice()).map_or(i64::MAX, |id| id.made_at_ms());
    if made_at_ms > first {
        return differs("the time in the instruction's id", &output::moment(made_at_ms), "now");
    }
    if order.not_before_ms > first {
        return differs("the start of its window", &output::moment(order.not_before_ms), "now");
    }
    if order.expires_at_ms > last {
        return differs("the end of its window", &output::moment(order.expires_at_ms), &output::moment(last));
    }
    Ok(())
}

fn differs(what: &str, got: &str, wanted: &str) -> Result<(), Failure> {
    Err(Failure::denied(format!(
        "the Switch prepared another order than was asked for: {what} is {got}, asked was {wanted}; nothing was signed"
    ))
    .with_next("muster doctor   (is it the right Switch, and is its clock right?)"))
}

fn sorted(arguments: &[NamedValue]) -> Vec<NamedValue> {
    let mut sorted = arguments.to_vec();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_proto::common::v1::{Value, value::Kind};

    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const MINUTE: i64 = 60_000;
    const ENVELOPE: &[u8] = b"the definition's envelope";

    fn definition(version: &str) -> Definition {
        let text = include_str!("../../../signing/definitions/Muster-Port-Listeners.toml");
        assert!(text.contains("version = \"1.0.0\""));
        Definition::parse(&text.replace("version = \"1.0.0\"", &format!("version = \"{version}\""))).unwrap()
    }

    fn port(number: i64) -> NamedValue {
        NamedValue { name: "port".to_owned(), value: Some(Value { kind: Some(Kind::Integer(number)) }) }
    }

    fn order() -> Order {
        Order {
            tenant: "acme".to_owned(),
            definition_name: "Muster-Port-Listeners".to_owned(),
            definition_version: "1.0.0".to_owned(),
            definition_digest: envelope::digest(ENVELOPE).to_vec(),
            arguments: vec![port(22)],
            audience: Some(Audience {
                expression: "cpus > 2".to_owned(),
                members_root: vec![7; 32],
                members_count: 3,
            }),
            instruction: id(NOW),
            not_before_ms: NOW - MINUTE,
            expires_at_ms: NOW + 10 * MINUTE,
            operator: "jane".to_owned(),
            ..Order::default()
        }
    }

    /// A UUID of version 7 that was made at that time.
    fn id(made_at_ms: i64) -> Vec<u8> {
        let mut id = made_at_ms.to_be_bytes()[2..].to_vec();
        id.extend([0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        id
    }

    /// What is said of an order that came with the definition in one version, where one was typed, or none.
    fn verdict(order: &Order, came: &str, typed: &str) -> Result<(), String> {
        let definition = definition(came);
        let wish = Wish {
            definition: "Muster-Port-Listeners".to_owned(),
            version: typed.to_owned(),
            arguments: Vec::new(),
            audience: "cpus > 2".to_owned(),
            gather: Some(Duration::from_secs(600)),
            keep: None,
        };
        let arguments = [port(22)];
        let asked = Asked {
            wish: &wish,
            arguments: &arguments,
            operator: "jane",
            definition: &definition,
            definition_envelope: ENVELOPE,
            targets: 3,
            now_ms: NOW,
        };
        check(order, &asked).map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_was_asked_for_may_be_signed() {
        for typed in ["", "1.0.0"] {
            assert_eq!(verdict(&order(), "1.0.0", typed), Ok(()));
        }
    }

    #[test]
    fn a_switch_that_changes_anything_gets_no_signature() {
        type Lie = (&'static str, fn(&mut Order));
        let lies: [Lie; 12] = [
            ("the definition", |order| order.definition_digest[0] ^= 1),
            ("the order's definition", |order| order.definition_name = "Muster-Process-Top".to_owned()),
            ("the order's version", |order| order.definition_version = "2.0.0".to_owned()),
            ("the audience", |order| order.audience.as_mut().unwrap().expression.clear()),
            ("the members root", |order| order.audience.as_mut().unwrap().members_root.clear()),
            ("the number of targets", |order| order.audience.as_mut().unwrap().members_count = 4),
            ("the operator", |order| order.operator = "eve".to_owned()),
            ("the arguments", |order| order.arguments = vec![port(23)]),
            ("the time in the instruction's id", |order| order.instruction = id(NOW + 24 * 60 * MINUTE)),
            ("the time in the instruction's id", |order| order.instruction.clear()),
            ("the start of its window", |order| order.not_before_ms = NOW + 24 * 60 * MINUTE),
            ("the end of its window", |order| order.expires_at_ms = NOW + 60 * MINUTE),
        ];
        for (what, lie) in lies {
            for typed in ["", "1.0.0"] {
                let mut order = order();
                lie(&mut order);

                let refused = verdict(&order, "1.0.0", typed).unwrap_err();

                assert!(
                    refused.contains(what) && refused.contains("nothing was signed"),
                    "{what}: {refused}"
                );
            }
        }
    }

    #[test]
    fn a_version_that_was_typed_is_the_one_that_is_issued_whole_with_its_definition() {
        for other in ["0.9.0", "1.1.0"] {
            let order = Order { definition_version: other.to_owned(), ..order() };

            let refused = verdict(&order, other, "1.0.0").unwrap_err();

            for said in ["the version", other, "1.0.0", "nothing was signed"] {
                assert!(refused.contains(said), "{said}: {refused}");
            }
            assert_eq!(verdict(&order, other, ""), Ok(()), "what the home has seen holds it, in seen.rs");
        }
    }

    #[test]
    fn every_field_of_an_order_has_a_row_that_says_what_holds_it() {
        let proto = include_str!("../../../proto/muster/order/v1/order.proto");
        let table = include_str!("order_check.rs");
        let fields: Vec<&str> = proto
            .lines()
            .filter_map(|line| line.split("//").next()?.trim().strip_suffix(';')?.rsplit_once(" = "))
            .filter_map(|(declared, number)| number.parse::<u32>().ok().and(declared.rsplit(' ').next()))
            .collect();

        assert_eq!(fields.len(), 17, "{fields:?}");
        for field in fields {
            assert!(table.contains(&format!("//! | `{field}` |")), "no row for {field}");
        }
    }
}
