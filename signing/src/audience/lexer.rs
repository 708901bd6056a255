//! Words of an expression, each with its place.

use super::error::AudienceError;

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, `in`, `has`, `true` or `false`.
    Word(String),
    Integer(i64),
    Text(String),
    /// An operator or a bracket, as it is written.
    Sign(&'static str),
    /// The end of the text.
    End,
}

impl Token {
    /// Returns how the token reads in an error.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Integer(value) => format!("`{value}`"),
            Self::Text(text) => format!("{text:?}"),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "the end".to_owned(),
        }
    }
}

/// A word and its place: offset and length in bytes.
#[derive(Debug, Clone)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) span: (usize, usize),
}

/// The longer signs come first, since the first that fits is taken.
const SIGNS: [&str; 16] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", ".", "-"];

/// Signs of other languages, and what they are called here.
const FOREIGN: [(&str, &str); 4] = [("&", "&&"), ("|", "||"), ("=", "=="), ("<>", "!=")];

/// Cuts a text into words; the last one is [`Token::End`].
pub(super) fn words(text: &str) -> Result<Vec<Spanned>, AudienceError> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        at += blank;
        let rest = text.get(at..).unwrap_or_default();
        let Some(first) = rest.chars().next() else {
            words.push(Spanned { token: Token::End, span: (text.len(), 0) });
            return Ok(words);
        };
        let (token, length) = if first.is_ascii_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            (Token::Word(rest.get(..length).unwrap_or_default().to_owned()), length)
        } else if first.is_ascii_digit()
            || (first == '-' && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            integer(text, at)?
        } else if first == '"' || first == '\'' {
            string(text, at, first)?
        } else {
            sign(text, at)?
        };
        words.push(Spanned { token, span: (at, length) });
        at += length;
    }
}

fn integer(text: &str, at: usize) -> Result<(Token, usize), AudienceError> {
    let rest = text.get(at..).unwrap_or_default();
    let is_digit = |(index, c): &(usize, char)| c.is_ascii_digit() || (*index == 0 && *c == '-');
    let length = rest.char_indices().take_while(is_digit).count();
    let after = rest.get(length..).unwrap_or_default();
    if after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
        let problem = "no whole decimal number; fractions and other notations are not supported";
        return Err(AudienceError::new(text, (at, length + 1), problem));
    }
    let value = rest.get(..length).unwrap_or_default().parse();
    let too_large = |_| AudienceError::new(text, (at, length), "the number does not fit 64 bits");
    Ok((Token::Integer(value.map_err(too_large)?), length))
}

fn string(text: &str, at: usize, quote: char) -> Result<(Token, usize), AudienceError> {
    let mut value = String::new();
    let mut characters = text.get(at..).unwrap_or_default().char_indices().skip(1);
    while let Some((offset, c)) = characters.next() {
        match c {
            c if c == quote => return Ok((Token::Text(value), offset + 1)),
            '\n' | '\r' => break,
            '\\' => {
                let escaped = characters.next().map(|(_, escaped)| escaped);
                value.push(match escaped {
                    Some(same @ ('\\' | '"' | '\'')) => same,
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('u') => code_point(characters.by_ref().take(4).map(|(_, digit)| digit))
                        .ok_or_else(|| bad_escape(text, at + offset))?,
                    Some(_) | None => return Err(bad_escape(text, at + offset)),
                });
            }
            c => value.push(c),
        }
    }
    let problem = format!("the text has no closing {quote}; write a line break as \\n");
    Err(AudienceError::new(text, (at, 1), problem))
}

fn code_point(digits: impl Iterator<Item = char>) -> Option<char> {
    let digits: String = digits.collect();
    let is_hex = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(&digits, 16).ok()).flatten().and_then(char::from_u32)
}

fn bad_escape(text: &str, at: usize) -> AudienceError {
    let problem = "unknown escape; wanted \\\\, \\\", \\', \\n, \\r, \\t or \\u and 4 hex digits";
    AudienceError::new(text, (at, 1), problem)
}

fn sign(text: &str, at: usize) -> Result<(Token, usize), AudienceError> {
    let rest = text.get(at..).unwrap_or_default();
    let foreign = FOREIGN.iter().find(|(theirs, _)| rest.starts_with(theirs));
    match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        // `<>` begins like `<`.
        Some(sign) if !rest.starts_with("<>") => Ok((Token::Sign(sign), sign.len())),
        Some(_) | None => {
            let c = rest.chars().next().unwrap_or_default();
            Err(match foreign {
                Some((theirs, ours)) => AudienceError::new(
                    text,
                    (at, theirs.len()),
                    format!("`{theirs}` is no operator; did you mean `{ours}`?"),
                ),
                None => AudienceError::new(text, (at, c.len_utf8()), format!("unexpected character {c:?}")),
            })
        }
    }
}
