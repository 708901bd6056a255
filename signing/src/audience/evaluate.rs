//! Whether an expression is true of a device.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use muster_proto::common::v1::{Value, value::Kind};

use super::node::{Comparison, Literal, Node, Operand};

/// What is known of an attribute.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    /// Its value.
    Value(Scalar<'a>),
    /// The device doesn't have it, or it has no value that can be compared.
    Missing,
    /// Someone else knows it.
    Open,
}

/// A value that can be compared.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar<'a> {
    Boolean(bool),
    Integer(i64),
    Real(f64),
    Text(&'a str),
}

/// Looks an attribute up.
pub(super) fn known<'a>(attributes: &'a BTreeMap<String, Value>, name: &str) -> Found<'a> {
    match attributes.get(name).and_then(|value| value.kind.as_ref()) {
        Some(Kind::Integer(value)) => Found::Value(Scalar::Integer(*value)),
        Some(Kind::Real(value)) => Found::Value(Scalar::Real(*value)),
        Some(Kind::Text(value)) => Found::Value(Scalar::Text(value)),
        Some(Kind::Blob(_)) | None => Found::Missing,
    }
}

/// Returns true, false, or neither. The depth of the tree is bounded by the parser.
pub(super) fn truth<'a>(node: &'a Node, look_up: &impl Fn(&str) -> Found<'a>) -> Option<bool> {
    match node {
        Node::Or(nodes) => decide(nodes, look_up, true),
        Node::And(nodes) => decide(nodes, look_up, false),
        Node::Not(node) => truth(node, look_up).map(|truth| !truth),
        Node::Compare { left, operator, right } => {
            compare(scalar(left, look_up)?, *operator, scalar(right, look_up)?)
        }
        Node::In { attribute, list } => {
            let value = value(attribute, look_up)?;
            Some(list.iter().any(|literal| is_equal(value, literal_scalar(literal))))
        }
        Node::StartsWith { attribute, prefix } => {
            text(attribute, look_up).map(|text| text.starts_with(prefix.as_str()))
        }
        Node::Matches { attribute, pattern } => text(attribute, look_up).map(|text| pattern.is_match(text)),
        Node::Has(attribute) => match look_up(attribute) {
            Found::Value(_) => Some(true),
            Found::Missing => Some(false),
            Found::Open => None,
        },
        Node::Attribute(attribute) => match value(attribute, look_up)? {
            Scalar::Boolean(value) => Some(value),
            Scalar::Integer(value) => as_boolean(value),
            Scalar::Real(_) | Scalar::Text(_) => None,
        },
        Node::Constant(value) => Some(*value),
    }
}

/// `||` is decided by a true one, `&&` by a false one, wherever it stands (CEL, "Logical Operators").
fn decide<'a>(nodes: &'a [Node], look_up: &impl Fn(&str) -> Found<'a>, decisive: bool) -> Option<bool> {
    let mut answer = Some(!decisive);
    for node in nodes {
        match truth(node, look_up) {
            Some(truth) if truth == decisive => return Some(decisive),
            Some(_) => {}
            None => answer = None,
        }
    }
    answer
}

fn compare(left: Scalar<'_>, operator: Comparison, right: Scalar<'_>) -> Option<bool> {
    match operator {
        Comparison::Equal => Some(is_equal(left, right)),
        Comparison::NotEqual => Some(!is_equal(left, right)),
        Comparison::Less => order(left, right).map(Ordering::is_lt),
        Comparison::LessOrEqual => order(left, right).map(Ordering::is_le),
        Comparison::Greater => order(left, right).map(Ordering::is_gt),
        Comparison::GreaterOrEqual => order(left, right).map(Ordering::is_ge),
    }
}

/// Values of different types are different (CEL, "Equality").
fn is_equal(left: Scalar<'_>, right: Scalar<'_>) -> bool {
    order(left, right) == Some(Ordering::Equal)
}

fn order(left: Scalar<'_>, right: Scalar<'_>) -> Option<Ordering> {
    match (left, right) {
        (Scalar::Integer(left), Scalar::Integer(right)) => Some(left.cmp(&right)),
        (Scalar::Text(left), Scalar::Text(right)) => Some(left.cmp(right)),
        (Scalar::Boolean(left), Scalar::Boolean(right)) => Some(left.cmp(&right)),
        (Scalar::Real(left), Scalar::Real(right)) => left.partial_cmp(&right),
        (Scalar::Integer(left), Scalar::Real(right)) => (left as f64).partial_cmp(&right),
        (Scalar::Real(left), Scalar::Integer(right)) => left.partial_cmp(&(right as f64)),
        (Scalar::Boolean(left), Scalar::Integer(right)) => as_boolean(right).map(|right| left.cmp(&right)),
        (Scalar::Integer(left), Scalar::Boolean(right)) => as_boolean(left).map(|left| left.cmp(&right)),
        (Scalar::Text(_) | Scalar::Real(_), Scalar::Boolean(_))
        | (Scalar::Boolean(_), Scalar::Text(_) | Scalar::Real(_))
        | (Scalar::Text(_), Scalar::Integer(_) | Scalar::Real(_))
        | (Scalar::Integer(_) | Scalar::Real(_), Scalar::Text(_)) => None,
    }
}

fn as_boolean(value: i64) -> Option<bool> {
    match value {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn scalar<'a>(operand: &'a Operand, look_up: &impl Fn(&str) -> Found<'a>) -> Option<Scalar<'a>> {
    match operand {
        Operand::Attribute(name) => value(name, look_up),
        Operand::Literal(literal) => Some(literal_scalar(literal)),
    }
}

fn literal_scalar(literal: &Literal) -> Scalar<'_> {
    match literal {
        Literal::Boolean(value) => Scalar::Boolean(*value),
        Literal::Integer(value) => Scalar::Integer(*value),
        Literal::Text(value) => Scalar::Text(value),
    }
}

fn value<'a>(name: &str, look_up: &impl Fn(&str) -> Found<'a>) -> Option<Scalar<'a>> {
    match look_up(name) {
        Found::Value(value) => Some(value),
        Found::Missing | Found::Open => None,
    }
}

fn text<'a>(name: &str, look_up: &impl Fn(&str) -> Found<'a>) -> Option<&'a str> {
    match value(name, look_up)? {
        Scalar::Text(text) => Some(text),
        Scalar::Boolean(_) | Scalar::Integer(_) | Scalar::Real(_) => None,
    }
}
