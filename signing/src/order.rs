//! The content of an order: which definition, with which arguments, for whom, until when; or which instruction it stops.
//!
//! The bytes that an operator signs are kept and sent as they are. [`decode`] refuses bytes that are not what [`encode`]
//! gives for the same order, so that nothing that this version does not know can hide in them.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_pki::text::is_misleading;
use muster_proto::common::v1::{NamedValue, value::Kind};
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::limits::{ENVELOPE_BYTES_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};
pub use muster_proto::order::v1::{Audience, Order};
use prost::Message as _;

use crate::audience::{AudienceError, Expression};
use crate::definition::DefinitionName;

/// Longest window of an order (order.proto, `expires_at_ms`).
pub const WINDOW_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Most arguments of an order (order.proto, `arguments`).
pub const ARGUMENTS_MAX: usize = 64;

/// Longest tenant in bytes (order.proto, `tenant`).
pub const TENANT_BYTES_MAX: usize = 64;

/// Longest operator name in bytes (order.proto, `operator`).
pub const OPERATOR_BYTES_MAX: usize = 128;

/// Longest reason of a stop in bytes (order.proto, `reason`).
pub const REASON_BYTES_MAX: usize = 256;

/// Encodes an order: the bytes that are signed.
#[must_use]
pub fn encode(order: &Order) -> Vec<u8> {
    order.encode_to_vec()
}

/// Decodes an order and checks every field.
///
/// # Errors
/// The first field that is not as order.proto says, or bytes that this version would not write.
pub fn decode(bytes: &[u8]) -> Result<Order, OrderError> {
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(OrderError::TooLarge(bytes.len()));
    }
    let order = Order::decode(bytes).map_err(|error| OrderError::Malformed(error.to_string()))?;
    if encode(&order) != bytes {
        return Err(OrderError::NotCanonical);
    }
    check(&order)?;
    Ok(order)
}

/// Returns the instruction that a checked order stops; `None`: it is no stop.
#[must_use]
pub fn stops(order: &Order) -> Option<InstructionId> {
    InstructionId::try_from(order.stops.as_slice()).ok()
}

/// Checks every field of an order, as [`decode`] does.
///
/// # Errors
/// The first field that is not as order.proto says.
pub fn check(order: &Order) -> Result<(), OrderError> {
    text("tenant", &order.tenant, TENANT_BYTES_MAX)?;
    text("operator", &order.operator, OPERATOR_BYTES_MAX)?;
    let instruction = InstructionId::try_from(order.instruction.as_slice())
        .map_err(|error| field("instruction", error, "16 bytes"))?;
    require(instruction.is_version_7(), "instruction", instruction, "a UUID of version 7")?;
    require(order.licence_serial > 0, "licence_serial", 0, "1 or more")?;
    require(order.sequence > 0, "sequence", 0, "1 or more")?;
    check_window(order)?;
    if order.stops.is_empty() { check_issue(order) } else { check_stop(order, instruction) }
}

/// What an order has that issues a definition.
fn check_issue(order: &Order) -> Result<(), OrderError> {
    require(order.reason.is_empty(), "reason", format_args!("{:?}", order.reason), "none without `stops`")?;
    order
        .definition_name
        .parse::<DefinitionName>()
        .map_err(|error| field("definition_name", error, "a definition's name"))?;
    semver::Version::parse(&order.definition_version)
        .map_err(|error| field("definition_version", error, "a semantic version such as 1.2.0"))?;
    Digest::try_from(order.definition_digest.as_slice())
        .map_err(|error| field("definition_digest", error, "32 bytes"))?;
    check_arguments(&order.arguments)?;
    check_audience(order.audience.as_ref())
}

/// What an order has that stops an instruction: nothing that could run, and no audience by which a device could be passed over.
fn check_stop(order: &Order, own: InstructionId) -> Result<(), OrderError> {
    let stopped = InstructionId::try_from(order.stops.as_slice())
        .map_err(|error| field("stops", error, "16 bytes, or none"))?;
    require(stopped.is_version_7(), "stops", stopped, "a UUID of version 7")?;
    require(stopped != own, "stops", stopped, "another instruction than its own")?;
    let (reason, bytes_max) = (&order.reason, REASON_BYTES_MAX);
    let is_reason = reason.len() <= bytes_max && !reason.chars().any(is_misleading);
    let wanted = format_args!("at most {bytes_max} bytes without hidden characters");
    require(is_reason, "reason", format_args!("{reason:?}"), wanted)?;
    let none = "none in a stop";
    require(order.definition_name.is_empty(), "definition_name", &order.definition_name, none)?;
    require(order.definition_version.is_empty(), "definition_version", &order.definition_version, none)?;
    let digest = &order.definition_digest;
    require(digest.is_empty(), "definition_digest", format_args!("{} bytes", digest.len()), none)?;
    require(order.arguments.is_empty(), "arguments", order.arguments.len(), none)?;
    let is_for_all = order.audience == Some(Audience::default());
    require(
        is_for_all,
        "audience",
        "some of the devices, or missing",
        "an empty one: a stop is for every device",
    )
}

/// Returns the audience's expression, if it has one.
///
/// # Errors
/// The expression does not parse.
pub fn expression(audience: &Audience) -> Result<Option<Expression>, AudienceError> {
    if audience.expression.is_empty() { Ok(None) } else { Expression::parse(&audience.expression).map(Some) }
}

/// Why bytes are no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// More bytes than an envelope may have.
    #[error("an order of {0} bytes; wanted at most {ENVELOPE_BYTES_MAX}")]
    TooLarge(usize),
    /// No protobuf message `muster.order.v1.Order`.
    #[error("no order: {0}")]
    Malformed(String),
    /// A field that this version does not know, or another encoding than the one order of fields.
    #[error(
        "the order has fields that this version does not know, or is not in canonical form; prepare it with a Switch of the same version"
    )]
    NotCanonical,
    /// A field out of its bounds.
    #[error("the order's {field} is {got}; wanted {wanted}")]
    Field {
        /// The field as order.proto names it.
        field: &'static str,
        /// What stands there.
        got: String,
        /// What may stand there.
        wanted: String,
    },
}

fn check_arguments(arguments: &[NamedValue]) -> Result<(), OrderError> {
    require(arguments.len() <= ARGUMENTS_MAX, "arguments", arguments.len(), "at most 64")?;
    let mut names = BTreeSet::new();
    for argument in arguments {
        let name = &argument.name;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let is_valid = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_name);
        require(
            is_valid,
            "arguments",
            format_args!("{name:?}"),
            "names of 1 to 64 letters, digits, `_`, `.`, `-`",
        )?;
        require(names.insert(name), "arguments", format_args!("`{name}` twice"), "each name once")?;
        let is_valid = match argument.value.as_ref().and_then(|value| value.kind.as_ref()) {
            Some(Kind::Integer(_)) => true,
            Some(Kind::Real(number)) => number.is_finite(),
            Some(Kind::Text(text)) => text.len() <= VALUE_BYTES_MAX,
            Some(Kind::Blob(blob)) => blob.len() <= VALUE_BYTES_MAX,
            None => false,
        };
        require(
            is_valid,
            "arguments",
            format_args!("`{name}` without a usable value"),
            "a finite number, or at most 64 KiB",
        )?;
    }
    Ok(())
}

fn check_window(order: &Order) -> Result<(), OrderError> {
    require(order.not_before_ms >= 0, "not_before_ms", order.not_before_ms, "a time since 1970")?;
    let length =
        order.expires_at_ms.checked_sub(order.not_before_ms).and_then(|length| u64::try_from(length).ok());
    let is_valid = length.is_some_and(|length| length > 0 && Duration::from_millis(length) <= WINDOW_MAX);
    let wanted = "after not_before_ms, by at most 7 days";
    require(is_valid, "expires_at_ms", order.expires_at_ms, wanted)
}

fn check_audience(audience: Option<&Audience>) -> Result<(), OrderError> {
    let Some(audience) = audience else { return require(false, "audience", "missing", "an audience") };
    expression(audience).map_err(|error| field("audience", error, "an expression that parses, or none"))?;
    match audience.members_root.len() {
        0 => {
            require(audience.members_count == 0, "members_count", audience.members_count, "0 without a root")
        }
        32 => require(audience.members_count > 0, "members_count", 0, "1 or more under a root"),
        other => require(false, "members_root", format_args!("{other} bytes"), "32 bytes, or none"),
    }
}

fn text(name: &'static str, value: &str, bytes_max: usize) -> Result<(), OrderError> {
    let is_valid = !value.is_empty() && value.len() <= bytes_max && !value.chars().any(is_misleading);
    require(
        is_valid,
        name,
        format_args!("{value:?}"),
        format_args!("1 to {bytes_max} bytes without hidden characters"),
    )
}

fn require(
    is_valid: bool,
    name: &'static str,
    got: impl ToString,
    wanted: impl ToString,
) -> Result<(), OrderError> {
    if is_valid { Ok(()) } else { Err(field(name, got, wanted)) }
}

fn field(field: &'static str, got: impl ToString, wanted: impl ToString) -> OrderError {
    OrderError::Field { field, got: got.to_string(), wanted: wanted.to_string() }
}

#[cfg(test)]
mod tests {
    use muster_proto::common::v1::Value;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_back_what_it_wrote() {
        let order = order();

        assert_eq!(decode(&encode(&order)), Ok(order));
    }

    #[test]
    fn names_each_field_that_is_out_of_its_bounds() {
        check_field("tenant", |order| order.tenant.clear());
        check_field("tenant", |order| order.tenant = "a".repeat(65));
        check_field("operator", |order| order.operator = "eve\n".to_owned());
        check_field("operator", |order| order.operator = "a\u{202e}nn".to_owned());
        check_field("tenant", |order| order.tenant = "ac\u{200b}me".to_owned());
        check_field("operator", |order| order.operator = "a".repeat(129));
        check_field("instruction", |order| order.instruction = vec![0; 15]);
        check_field("instruction", |order| order.instruction = vec![0; 16]);
        check_field("definition_name", |order| order.definition_name = "acme".to_owned());
        check_field("definition_version", |order| order.definition_version = "1".to_owned());
        check_field("definition_digest", |order| order.definition_digest = vec![0; 20]);
        check_field("licence_serial", |order| order.licence_serial = 0);
        check_field("sequence", |order| order.sequence = 0);
        check_field("arguments", |order| order.arguments = vec![argument("a b")]);
        check_field("arguments", |order| order.arguments = vec![argument("a"), argument("a")]);
        check_field("arguments", |order| {
            order.arguments = vec![NamedValue { name: "a".to_owned(), value: None }]
        });
        check_field("not_before_ms", |order| order.not_before_ms = -1);
        check_field("expires_at_ms", |order| order.expires_at_ms = order.not_before_ms);
        check_field("expires_at_ms", |order| order.expires_at_ms = order.not_before_ms + 604_800_001);
        check_field("expires_at_ms", |order| order.expires_at_ms = i64::MIN);
        check_field("audience", |order| order.audience = None);
        check_field("audience", |order| order.audience = Some(audience("os ==", 0, 0)));
        check_field("members_root", |order| order.audience = Some(audience("", 31, 1)));
        check_field("members_count", |order| order.audience = Some(audience("", 32, 0)));
        check_field("members_count", |order| order.audience = Some(audience("", 0, 1)));
    }

    #[test]
    fn takes_what_is_at_the_edge_of_its_bounds() {
        check_taken(|order| order.tenant = "a".repeat(64));
        check_taken(|order| order.operator = "a".repeat(128));
        check_taken(|order| order.expires_at_ms = order.not_before_ms + 604_800_000);
        check_taken(|order| order.expires_at_ms = order.not_before_ms + 1);
        check_taken(|order| order.not_before_ms = 0);
        check_taken(|order| order.audience = Some(audience("", 0, 0)));
        check_taken(|order| order.audience = Some(audience("", 32, 1)));
        check_taken(|order| {
            order.arguments = (0..64).map(|number| argument(&format!("a{number}"))).collect()
        });
        check_taken(|order| order.arguments = vec![argument(&"a".repeat(64)), argument("_.-9Z")]);
        let reason = |bytes: usize| decode(&encode(&Order { reason: "a".repeat(bytes), ..stop() }));
        assert!(reason(0).is_ok() && reason(256).is_ok() && reason(257).is_err());
    }

    #[test]
    fn an_argument_is_a_finite_number_or_64_kib_under_a_name() {
        let of = |name: &str, kind: Kind| {
            let argument = NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(kind) }) };
            check_arguments(&[argument]).is_ok()
        };

        assert!(of("a", Kind::Real(-0.5)) && of("a", Kind::Integer(i64::MIN)));
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!of("a", Kind::Real(number)), "{number}");
        }
        for (bytes, fits) in [(0, true), (65_536, true), (65_537, false)] {
            assert_eq!(of("a", Kind::Text("x".repeat(bytes))), fits, "{bytes}");
            assert_eq!(of("a", Kind::Blob(vec![0; bytes])), fits, "{bytes}");
        }
        for name in ["", "a b", "\u{e4}", "a\0", &"a".repeat(65)] {
            assert!(!of(name, Kind::Integer(1)), "{name:?}");
        }
        let many: Vec<_> = (0..65).map(|number| argument(&format!("a{number}"))).collect();
        assert!(check_arguments(&many).is_err());
    }

    #[test]
    fn an_order_larger_than_an_envelope_is_refused_before_it_is_read() {
        assert_eq!(decode(&vec![0; 262_145]), Err(OrderError::TooLarge(262_145)));
        assert!(matches!(decode(&vec![0; 262_144]), Err(OrderError::Malformed(_))));
    }

    #[test]
    fn a_stop_is_an_order_that_names_what_it_ends_and_has_nothing_to_run() {
        let read = decode(&encode(&stop())).unwrap();
        assert_eq!((stops(&read).map(|id| id.to_vec()), read), (Some(order().instruction), stop()));
        assert_eq!(stops(&order()), None);

        type Lie = (&'static str, fn(&mut Order));
        let lies: [Lie; 14] = [
            ("reason", |stop| stop.reason = "a\u{202e}b".to_owned()),
            ("stops", |stop| stop.stops.truncate(15)),
            ("stops", |stop| stop.stops = vec![0; 16]),
            ("stops", |stop| stop.stops.clone_from(&stop.instruction)),
            ("reason", |stop| stop.reason = "a".repeat(257)),
            ("reason", |stop| stop.reason = "a\nb".to_owned()),
            ("definition_name", |stop| stop.definition_name = "Acme-Os-Version".to_owned()),
            ("definition_version", |stop| stop.definition_version = "1.0.0".to_owned()),
            ("definition_digest", |stop| stop.definition_digest = vec![7; 32]),
            ("arguments", |stop| stop.arguments = vec![argument("days")]),
            ("audience", |stop| stop.audience = None),
            ("audience", |stop| stop.audience = Some(audience("os == 'linux'", 0, 0))),
            ("audience", |stop| stop.audience = Some(audience("", 32, 1))),
            ("tenant", |stop| stop.tenant.clear()),
        ];
        for (wanted, lie) in lies {
            let mut changed = stop();
            lie(&mut changed);
            match decode(&encode(&changed)) {
                Err(OrderError::Field { field, .. }) => assert_eq!(field, wanted),
                other => panic!("{wanted}: {other:?}"),
            }
        }
        check_field("reason", |order| order.reason = "none is stopped".to_owned());
    }

    #[test]
    fn refuses_a_field_that_it_does_not_know() {
        let mut bytes = encode(&order());
        bytes.extend_from_slice(&[0xf8, 0x06, 0x01]);

        assert_eq!(decode(&bytes), Err(OrderError::NotCanonical));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_order_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(&bytes));
        }
    }

    fn check_taken(change: impl FnOnce(&mut Order)) {
        let mut changed = order();
        change(&mut changed);

        assert_eq!(decode(&encode(&changed)), Ok(changed));
    }

    fn check_field(wanted: &str, change: impl FnOnce(&mut Order)) {
        let mut changed = order();
        change(&mut changed);

        match decode(&encode(&changed)) {
            Err(OrderError::Field { field, .. }) => assert_eq!(field, wanted),
            other => panic!("{wanted}: {other:?}"),
        }
    }

    fn order() -> Order {
        let mut instruction = vec![0x11; 16];
        instruction[6] = 0x70;
        instruction[8] = 0x80;
        Order {
            tenant: "acme".to_owned(),
            instruction,
            definition_name: "Acme-Os-Version".to_owned(),
            definition_version: "1.0.0".to_owned(),
            definition_digest: vec![7; 32],
            licence_serial: 1,
            arguments: vec![argument("days")],
            audience: Some(audience("os == 'linux'", 32, 3)),
            not_before_ms: 1_000,
            expires_at_ms: 61_000,
            sequence: 9,
            operator: "ann".to_owned(),
            ..Order::default()
        }
    }

    fn stop() -> Order {
        let stops = order().instruction;
        let mut instruction = stops.clone();
        instruction[0] ^= 1;
        Order {
            tenant: "acme".to_owned(),
            instruction,
            licence_serial: 1,
            audience: Some(Audience::default()),
            not_before_ms: 1_000,
            expires_at_ms: 61_000,
            sequence: 10,
            operator: "ann".to_owned(),
            stops,
            reason: "wrong fleet".to_owned(),
            ..Order::default()
        }
    }

    fn argument(name: &str) -> NamedValue {
        NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(Kind::Integer(1)) }) }
    }

    fn audience(expression: &str, root_bytes: usize, count: u64) -> Audience {
        Audience {
            expression: expression.to_owned(),
            members_root: vec![1; root_bytes],
            members_count: count,
        }
    }
}
