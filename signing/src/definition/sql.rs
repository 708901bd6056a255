//! The names that a SQL text binds.

/// Returns the parameters of a SQL text in their order, with their sign: `:days`, `?1`, `@x`, `$y`.
///
/// Texts, quoted names and comments are skipped as SQLite's tokenizer does, so that `':x'` is no parameter.
pub(super) fn parameters(sql: &str) -> Vec<&str> {
    let bytes = sql.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let mut found = Vec::new();
    let mut index = 0;
    while index < bytes.len() {
        let rest = sql.get(index..).unwrap_or_default();
        let length = match at(index) {
            quote @ (b'\'' | b'"' | b'`') => quoted(bytes.get(index..).unwrap_or_default(), quote),
            b'[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            b'-' if at(index + 1) == b'-' => rest.find('\n').unwrap_or(rest.len()),
            b'/' if at(index + 1) == b'*' => {
                rest.get(2..).and_then(|body| body.find("*/")).map_or(rest.len(), |end| end + 4)
            }
            b':' | b'@' | b'$' | b'?' => {
                let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                let length =
                    1 + rest.get(1..).map_or(0, |name| name.find(|c| !is_name(c)).unwrap_or(name.len()));
                found.extend(rest.get(..length));
                length
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        index += length;
    }
    found
}

/// Returns the length of a quoted text; a doubled quote stands for one.
fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut index = 1;
    while let Some(byte) = bytes.get(index) {
        index += 1;
        if *byte == quote {
            if bytes.get(index) != Some(&quote) {
                return index;
            }
            index += 1;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_parameters_outside_texts_names_and_comments() {
        let sql = "SELECT ':a', \":b\", [:c], `:d` -- :e\n/* :f */ FROM t WHERE x = :days AND y GLOB :path||'it''s :g' AND z = ?1";

        assert_eq!(parameters(sql), [":days", ":path", "?1"]);
    }

    #[test]
    fn an_unclosed_text_ends_with_the_text() {
        for sql in ["'", "\"ä", "[", "/*", "--", ":", "ä:ä"] {
            let _ = parameters(sql);
        }
        assert_eq!(parameters("ä:ä"), [":ä"]);
    }
}
