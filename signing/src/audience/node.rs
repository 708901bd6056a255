//! [`Node`]: the tree of an expression, which prints back to an expression.

use std::fmt;

use muster_pki::text::is_misleading;
use regex_lite::Regex;

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// True if one of them is; two or more.
    Or(Vec<Self>),
    /// True if all of them are; two or more.
    And(Vec<Self>),
    /// True if it is false.
    Not(Box<Self>),
    /// Two operands compared.
    Compare {
        /// Left of the operator.
        left: Operand,
        /// The operator.
        operator: Comparison,
        /// Right of the operator.
        right: Operand,
    },
    /// The attribute equals one of the list.
    In {
        /// The attribute's name.
        attribute: String,
        /// What it may equal.
        list: Vec<Literal>,
    },
    /// The attribute's text begins with this.
    StartsWith {
        /// The attribute's name.
        attribute: String,
        /// The beginning.
        prefix: String,
    },
    /// The pattern is found in the attribute's text.
    Matches {
        /// The attribute's name.
        attribute: String,
        /// The regular expression.
        pattern: Pattern,
    },
    /// The device has the attribute.
    Has(String),
    /// The attribute is true, which is 1.
    Attribute(String),
    /// `true` or `false`.
    Constant(bool),
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// The value of an attribute.
    Attribute(String),
    /// A literal.
    Literal(Literal),
}

/// A literal value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// `true` or `false`.
    Boolean(bool),
    /// An integer of 64 bits.
    Integer(i64),
    /// A text.
    Text(String),
}

/// An operator that compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A compiled regular expression, known by its text.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

/// Memory of one compiled pattern at most, in bytes; an expression is evaluated for every device of the fleet.
const PATTERN_BYTES_MAX: usize = 64 * 1024;

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, regex_lite::Error> {
        regex_lite::RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build().map(Self)
    }

    /// Returns the pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns whether it is found anywhere in `text`.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Display for Node {
    /// Writes an expression that parses to this very tree.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Or(nodes) => write_joined(f, nodes, " || "),
            Self::And(nodes) => write_joined(f, nodes, " && "),
            Self::Not(node) => write!(f, "!{}", Inner(node)),
            Self::Compare { left, operator, right } => write!(f, "{left} {operator} {right}"),
            Self::In { attribute, list } => {
                write!(f, "{attribute} in [")?;
                for (index, literal) in list.iter().enumerate() {
                    write!(f, "{}{literal}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::StartsWith { attribute, prefix } => write!(f, "{attribute}.startsWith({})", Quoted(prefix)),
            Self::Matches { attribute, pattern } => {
                write!(f, "{attribute}.matches({})", Quoted(pattern.as_str()))
            }
            Self::Has(attribute) => write!(f, "has({attribute})"),
            Self::Attribute(attribute) => f.write_str(attribute),
            Self::Constant(constant) => write!(f, "{constant}"),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(name) => f.write_str(name),
            Self::Literal(literal) => write!(f, "{literal}"),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{}", Quoted(value)),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

fn write_joined(f: &mut fmt::Formatter<'_>, nodes: &[Node], operator: &str) -> fmt::Result {
    for (index, node) in nodes.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { operator })?;
        // `&&` binds tighter than `||`, but a printed pair of parentheses is easier to read than that rule.
        match node {
            Node::Or(_) | Node::And(_) => write!(f, "({node})")?,
            Node::Not(_)
            | Node::Compare { .. }
            | Node::In { .. }
            | Node::StartsWith { .. }
            | Node::Matches { .. }
            | Node::Has(_)
            | Node::Attribute(_)
            | Node::Constant(_) => write!(f, "{node}")?,
        }
    }
    Ok(())
}

/// What follows `!`: everything with an operator of its own is in parentheses.
struct Inner<'a>(&'a Node);

impl fmt::Display for Inner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            node @ (Node::Or(_) | Node::And(_) | Node::Compare { .. } | Node::In { .. }) => {
                write!(f, "({node})")
            }
            node @ (Node::Not(_)
            | Node::StartsWith { .. }
            | Node::Matches { .. }
            | Node::Has(_)
            | Node::Attribute(_)
            | Node::Constant(_)) => write!(f, "{node}"),
        }
    }
}

/// A text between double quotes, with the escapes that the lexer reads.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                // Beyond the first 65,536 characters the language has no escape: whoever shows an expression makes it printable.
                c if is_misleading(c) && u32::from(c) <= 0xffff => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}
