//! Which operator goes with which type: CEL's overloads over what every client tells of itself.
//!
//! Only what is certain is refused. An attribute that is not one of [`super::CLIENT_ATTRIBUTES`] may have any type. A
//! client never asks this: an order that was signed means what it says, and there a condition on the wrong type is
//! neither true nor false.

use super::node::{Comparison, Literal, Operand};

/// The type of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Integer,
    Boolean,
    /// 0 or 1, which may be written as a boolean, too.
    Flag,
    /// An attribute of which only its devices know what it is.
    Any,
}

/// Attributes of [`super::CLIENT_ATTRIBUTES`] that are no texts.
const NUMBERS: [(&str, Type); 4] = [
    ("cpus", Type::Integer),
    ("memory_mb", Type::Integer),
    ("virtual", Type::Flag),
    (super::AUTHENTICATED, Type::Flag),
];

impl Type {
    pub(super) fn of_attribute(name: &str) -> Self {
        if !super::CLIENT_ATTRIBUTES.contains(&name) {
            return Self::Any;
        }
        NUMBERS.iter().find(|(number, _)| *number == name).map_or(Self::Text, |(_, kind)| *kind)
    }

    pub(super) fn of_literal(literal: &Literal) -> Self {
        match literal {
            Literal::Boolean(_) => Self::Boolean,
            Literal::Integer(_) => Self::Integer,
            Literal::Text(_) => Self::Text,
        }
    }

    fn of(operand: &Operand) -> Self {
        match operand {
            Operand::Attribute(name) => Self::of_attribute(name),
            Operand::Literal(literal) => Self::of_literal(literal),
        }
    }

    /// Returns whether values of the two types can be compared, by `==` and by `<` alike.
    fn goes_with(self, other: Self) -> bool {
        let is_number = |kind: Self| matches!(kind, Self::Integer | Self::Flag);
        let is_boolean = |kind: Self| matches!(kind, Self::Boolean | Self::Flag);
        self == Self::Any
            || other == Self::Any
            || self == other
            || (is_number(self) && is_number(other))
            || (is_boolean(self) && is_boolean(other))
    }

    fn words(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Integer => "an integer",
            Self::Boolean => "a boolean",
            Self::Flag => "0 or 1",
            Self::Any => "of any type",
        }
    }

    /// Returns a literal of the type, as an example.
    fn example(self) -> &'static str {
        match self {
            Self::Text | Self::Any => "\"…\"",
            Self::Integer => "5",
            Self::Boolean | Self::Flag => "true",
        }
    }
}

/// Returns what is wrong with a comparison, if anything is.
pub(super) fn comparison(left: &Operand, operator: Comparison, right: &Operand) -> Option<String> {
    let (one, other) = (Type::of(left), Type::of(right));
    if one.goes_with(other) {
        return None;
    }
    let found = format!("`{left}` is {}, `{right}` is {}", one.words(), other.words());
    // The attribute is what cannot be changed, so the literal is shown in its type.
    let fix = match (left, right) {
        (Operand::Attribute(name), _) => format!("wanted {name} {operator} {}", one.example()),
        (Operand::Literal(_), Operand::Attribute(name)) => {
            format!("wanted {} {operator} {name}", other.example())
        }
        (Operand::Literal(_), Operand::Literal(_)) => "wanted two of one type".to_owned(),
    };
    Some(format!("{found}, and `{operator}` compares values of one type; {fix}"))
}

/// Returns what is wrong with a literal of the list that an attribute is looked for in, if anything is.
pub(super) fn member(attribute: &str, literal: &Literal) -> Option<String> {
    let (kind, other) = (Type::of_attribute(attribute), Type::of_literal(literal));
    (!kind.goes_with(other)).then(|| {
        let (is, wanted) = (kind.words(), kind.example());
        format!("`{attribute}` is {is}, `{literal}` is {}; wanted {attribute} in [{wanted}]", other.words())
    })
}

/// Returns what is wrong with a function of texts, if anything is.
pub(super) fn text_function(attribute: &str, function: &str) -> Option<String> {
    let kind = Type::of_attribute(attribute);
    (!kind.goes_with(Type::Text)).then(|| {
        let (is, wanted) = (kind.words(), kind.example());
        format!(
            "`{attribute}` is {is}, and {function} is for texts; wanted one such as {attribute} == {wanted}"
        )
    })
}

/// Returns what is wrong with an attribute that stands alone, if anything is.
pub(super) fn condition(attribute: &str) -> Option<String> {
    let kind = Type::of_attribute(attribute);
    (!kind.goes_with(Type::Boolean)).then(|| {
        let (is, wanted) = (kind.words(), kind.example());
        format!("`{attribute}` is {is}, no condition; wanted one such as {attribute} == {wanted}")
    })
}
