//! Recursive descent over the words of an expression; its depth is counted.

use std::collections::BTreeMap;

use super::error::AudienceError;
use super::lexer::{self, Spanned, Token};
use super::node::{Comparison, Literal, Node, Operand, Pattern};
use super::{DEPTH_MAX, EXPRESSION_BYTES_MAX, types};

/// Where each attribute is named first.
pub(super) type Names = BTreeMap<String, (usize, usize)>;

/// Longest name of an attribute (common.proto, `NamedValue.name`).
const NAME_BYTES_MAX: usize = 64;

/// What a text was parsed to.
pub(super) struct Parsing {
    pub(super) node: Node,
    pub(super) names: Names,
    /// The first operator that does not go with the types of what it stands between.
    pub(super) mistake: Option<AudienceError>,
}

/// Parses a whole expression.
pub(super) fn parse(text: &str) -> Result<Parsing, AudienceError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let problem = format!("{} bytes; wanted at most {EXPRESSION_BYTES_MAX}", text.len());
        return Err(AudienceError::new(text, (0, 0), problem));
    }
    let words = lexer::words(text)?;
    let mut parser = Parser { text, words, at: 0, depth: 0, names: Names::new(), mistake: None };
    let node = parser.any_of()?;
    let next = parser.peek();
    if *next == Token::End {
        return Ok(Parsing { node, names: parser.names, mistake: parser.mistake });
    }
    let is_operator = comparison(next).is_some() || *next == Token::Word("in".to_owned());
    let hint = if is_operator {
        "; an operator of comparison stands between an attribute and a literal"
    } else {
        ""
    };
    Err(parser.wanted(&format!("`&&`, `||` or the end{hint}")))
}

struct Parser<'a> {
    text: &'a str,
    words: Vec<Spanned>,
    at: usize,
    depth: usize,
    names: Names,
    mistake: Option<AudienceError>,
}

impl Parser<'_> {
    fn any_of(&mut self) -> Result<Node, AudienceError> {
        let mut nodes = vec![self.all_of()?];
        while self.takes("||") {
            nodes.push(self.all_of()?);
        }
        Ok(alone(nodes).unwrap_or_else(Node::Or))
    }

    fn all_of(&mut self) -> Result<Node, AudienceError> {
        let mut nodes = vec![self.condition()?];
        while self.takes("&&") {
            nodes.push(self.condition()?);
        }
        Ok(alone(nodes).unwrap_or_else(Node::And))
    }

    fn condition(&mut self) -> Result<Node, AudienceError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.problem(format!("nested deeper than {DEPTH_MAX}")));
        }
        let node = if self.takes("!") {
            Node::Not(Box::new(self.condition_after_not()?))
        } else if self.takes("(") {
            let node = self.any_of()?;
            self.expect(")")?;
            node
        } else {
            self.simple()?
        };
        self.depth -= 1;
        Ok(node)
    }

    /// `!os == "linux"` means `(!os) == "linux"` in CEL, which nobody means.
    fn condition_after_not(&mut self) -> Result<Node, AudienceError> {
        let node = self.condition()?;
        if matches!(node, Node::Compare { .. } | Node::In { .. }) && !self.follows(")") {
            return Err(self.previous("`!` before a comparison; put the comparison in parentheses"));
        }
        Ok(node)
    }

    fn simple(&mut self) -> Result<Node, AudienceError> {
        let start = self.at;
        let left = self.operand()?;
        if let Some(operator) = comparison(self.peek()) {
            self.at += 1;
            let right = self.operand()?;
            self.mistaken(start, types::comparison(&left, operator, &right));
            return Ok(Node::Compare { left, operator, right });
        }
        let attribute = match left {
            Operand::Attribute(attribute) => attribute,
            Operand::Literal(_) if *self.peek() == Token::Word("in".to_owned()) => {
                return Err(self.problem(
                    "`in` stands between an attribute and a list, such as os in [\"linux\"]; a part of a text is found by os.matches(\"lin\")"
                        .to_owned(),
                ));
            }
            Operand::Literal(Literal::Boolean(value)) => return Ok(Node::Constant(value)),
            Operand::Literal(literal) => {
                self.at = start;
                return Err(
                    self.problem(format!("{literal} is no condition; wanted one such as os == \"linux\""))
                );
            }
        };
        if attribute == "has" && self.takes("(") {
            let name = self.name()?;
            self.expect(")")?;
            self.remember(&name, start + 2);
            return Ok(Node::Has(name));
        }
        if *self.peek() == Token::Sign("(") {
            return self.call(&attribute, start);
        }
        self.remember(&attribute, start);
        if *self.peek() == Token::Word("in".to_owned()) {
            self.at += 1;
            return Ok(Node::In { list: self.list(&attribute)?, attribute });
        }
        self.mistaken(start, types::condition(&attribute));
        Ok(Node::Attribute(attribute))
    }

    /// `attribute.function("text")`.
    fn call(&mut self, path: &str, start: usize) -> Result<Node, AudienceError> {
        let (attribute, function) = path.rsplit_once('.').unwrap_or(("", path));
        let is_known = ["startsWith", "matches"].contains(&function);
        if attribute.is_empty() || !is_known {
            self.at -= 1;
            return Err(self.problem(format!(
                "no function `{function}`; wanted attribute.startsWith(\"text\"), attribute.matches(\"pattern\") or has(attribute)"
            )));
        }
        self.remember(attribute, start);
        self.expect("(")?;
        let place = self.at;
        let Token::Text(argument) = self.peek().clone() else {
            return Err(self.wanted("a text between quotes"));
        };
        self.at += 1;
        self.expect(")")?;
        self.mistaken(start, types::text_function(attribute, function));
        let attribute = attribute.to_owned();
        if function == "startsWith" {
            return Ok(Node::StartsWith { attribute, prefix: argument });
        }
        match Pattern::new(&argument) {
            Ok(pattern) => Ok(Node::Matches { attribute, pattern }),
            Err(error) => {
                self.at = place;
                Err(self.problem(format!("no regular expression: {error}")))
            }
        }
    }

    fn list(&mut self, attribute: &str) -> Result<Vec<Literal>, AudienceError> {
        self.expect("[")?;
        let mut list = Vec::new();
        while !self.takes("]") {
            if !list.is_empty() {
                self.expect(",")?;
            }
            match self.operand()? {
                Operand::Literal(literal) => {
                    self.mistaken(self.at - 1, types::member(attribute, &literal));
                    list.push(literal);
                }
                Operand::Attribute(_) => {
                    return Err(self.previous("an attribute in a list; wanted literals only"));
                }
            }
        }
        Ok(list)
    }

    fn operand(&mut self) -> Result<Operand, AudienceError> {
        let literal = match self.peek() {
            Token::Integer(value) => Literal::Integer(*value),
            Token::Text(text) => Literal::Text(text.clone()),
            Token::Word(word) if word == "true" || word == "false" => Literal::Boolean(word == "true"),
            Token::Word(_) => {
                let start = self.at;
                let name = self.name()?;
                if *self.peek() != Token::Sign("(") {
                    self.remember(&name, start);
                }
                return Ok(Operand::Attribute(name));
            }
            Token::Sign(_) | Token::End => return Err(self.wanted("an attribute or a literal")),
        };
        self.at += 1;
        Ok(Operand::Literal(literal))
    }

    /// A name with dots, such as `tag.site`.
    fn name(&mut self) -> Result<String, AudienceError> {
        let mut name = String::new();
        loop {
            match self.peek() {
                Token::Word(word) if !["in", "true", "false"].contains(&word.as_str()) => name.push_str(word),
                Token::Word(_) | Token::Integer(_) | Token::Text(_) | Token::Sign(_) | Token::End => {
                    return Err(self.wanted("an attribute's name"));
                }
            }
            self.at += 1;
            if name.len() > NAME_BYTES_MAX {
                return Err(self.previous(&format!("a name of more than {NAME_BYTES_MAX} bytes")));
            }
            if !self.takes(".") {
                return Ok(name);
            }
            name.push('.');
        }
    }

    fn remember(&mut self, name: &str, word: usize) {
        let offset = self.words.get(word).map_or(0, |word| word.span.0);
        self.names.entry(name.to_owned()).or_insert((offset, name.len()));
    }

    /// Notes the first mistake of types, from the word where it begins up to the last one that was read.
    fn mistaken(&mut self, from: usize, problem: Option<String>) {
        if let (None, Some(problem)) = (&self.mistake, problem) {
            let begin = self.words.get(from).map_or(0, |word| word.span.0);
            let last = self.words.get(self.at.saturating_sub(1));
            let end = last.map_or(begin, |word| word.span.0 + word.span.1);
            self.mistake = Some(AudienceError::new(self.text, (begin, end.saturating_sub(begin)), problem));
        }
    }

    fn peek(&self) -> &Token {
        self.words.get(self.at).map_or(&Token::End, |word| &word.token)
    }

    fn follows(&self, sign: &'static str) -> bool {
        self.at > 0 && self.words.get(self.at - 1).is_some_and(|word| word.token == Token::Sign(sign))
    }

    fn takes(&mut self, sign: &'static str) -> bool {
        let is_next = *self.peek() == Token::Sign(sign);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), AudienceError> {
        if self.takes(sign) { Ok(()) } else { Err(self.wanted(&format!("`{sign}`"))) }
    }

    fn wanted(&self, what: &str) -> AudienceError {
        self.problem(format!("{} found; wanted {what}", self.peek().describe()))
    }

    fn problem(&self, problem: String) -> AudienceError {
        let span = self.words.get(self.at).map_or((self.text.len(), 0), |word| word.span);
        AudienceError::new(self.text, span, problem)
    }

    fn previous(&self, problem: &str) -> AudienceError {
        let span = self.words.get(self.at.saturating_sub(1)).map_or((0, 0), |word| word.span);
        AudienceError::new(self.text, span, problem)
    }
}

/// Returns the one node, or all of them.
fn alone(mut nodes: Vec<Node>) -> Result<Node, Vec<Node>> {
    if nodes.len() > 1 {
        return Err(nodes);
    }
    nodes.pop().ok_or(nodes)
}

fn comparison(token: &Token) -> Option<Comparison> {
    let Token::Sign(sign) = token else { return None };
    match *sign {
        "==" => Some(Comparison::Equal),
        "!=" => Some(Comparison::NotEqual),
        "<" => Some(Comparison::Less),
        "<=" => Some(Comparison::LessOrEqual),
        ">" => Some(Comparison::Greater),
        ">=" => Some(Comparison::GreaterOrEqual),
        _ => None,
    }
}
