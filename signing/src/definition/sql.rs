//! SQL as far as an author can be advised without a database: its words, the names that it binds, its columns.
//!
//! This is a reader of words, not a parser: whether SQLite takes a query over the device's tables is for the client's
//! own check to say (`muster ask` has it).

/// What a word of SQL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// A keyword or a name without quotes.
    Plain,
    /// A number.
    Number,
    /// `'text'`.
    Text,
    /// A name in `"`, `` ` `` or `[ ]`.
    Quoted,
    /// `:days`, `?1`, `@x`, `$y`.
    Parameter,
    /// Any other character.
    Sign,
    /// A text, name or comment that nothing ends.
    Unclosed,
}

/// A word of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) word: Word,
    /// As it is written, with its quotes.
    pub(super) text: &'a str,
}

impl Token<'_> {
    /// Whether it is this keyword, in any case.
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.word == Word::Plain && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Whether it is one of these keywords.
    pub(super) fn is_one_of(&self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.is(keyword))
    }

    /// Whether it is this sign.
    pub(super) fn is_sign(&self, sign: &str) -> bool {
        self.word == Word::Sign && self.text == sign
    }
}

/// Returns the parameters of a SQL text in their order, with their sign: `:days`, `?1`, `@x`, `$y`.
///
/// Texts, quoted names and comments are skipped as SQLite's tokenizer does, so that `':x'` is no parameter.
pub(super) fn parameters(sql: &str) -> Vec<&str> {
    let is_parameter = |token: &Token<'_>| token.word == Word::Parameter;
    tokens(sql).into_iter().filter(is_parameter).map(|token| token.text).collect()
}

/// Returns the words of a SQL text, without blanks and comments.
pub(super) fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (word, length) = next(rest, first);
        let (text, after) = rest.split_at_checked(length.max(1)).unwrap_or((rest, ""));
        if let Some(word) = word {
            found.push(Token { word, text });
        }
        rest = after;
    }
    found
}

/// Returns what `rest` begins with (nothing: a blank or a comment), and its length in bytes.
fn next(rest: &str, first: char) -> (Option<Word>, usize) {
    let while_in = |is_part: fn(char) -> bool| {
        let from = first.len_utf8();
        from + rest.get(from..).map_or(0, |name| name.find(|c| !is_part(c)).unwrap_or(name.len()))
    };
    let closed = |word, end: Option<usize>| {
        end.map_or((Some(Word::Unclosed), rest.len()), |length| (Some(word), length))
    };
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    match first {
        '\'' => closed(Word::Text, quoted(rest, b'\'')),
        '"' | '`' => closed(Word::Quoted, quoted(rest, if first == '"' { b'"' } else { b'`' })),
        '[' => closed(Word::Quoted, rest.find(']').map(|end| end + 1)),
        '-' if rest.starts_with("--") => (None, rest.find('\n').unwrap_or(rest.len())),
        // SQLite lets the end of the text end a comment.
        '/' if rest.starts_with("/*") => {
            (None, rest.get(2..).and_then(|body| body.find("*/")).map_or(rest.len(), |end| end + 4))
        }
        ':' | '@' | '$' | '?' => (Some(Word::Parameter), while_in(is_name)),
        _ if first.is_ascii_digit() => {
            (Some(Word::Number), while_in(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_'))
        }
        _ if is_name(first) => (Some(Word::Plain), while_in(is_name)),
        _ if first.is_whitespace() => (None, first.len_utf8()),
        _ => (Some(Word::Sign), first.len_utf8()),
    }
}

/// Returns the length of a quoted text; a doubled quote stands for one.
fn quoted(text: &str, quote: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut index = 1;
    while let Some(byte) = bytes.get(index) {
        index += 1;
        if *byte == quote {
            if bytes.get(index) != Some(&quote) {
                return Some(index);
            }
            index += 1;
        }
    }
    None
}

/// Why a text is no one SELECT, as far as its words tell. What is told here, SQLite refuses, or the client's authorizer; of EXPLAIN the columns
/// are those of SQLite's version and nobody's answer.
pub(super) fn not_one_select(tokens: &[Token<'_>]) -> Option<String> {
    if let Some(open) = tokens.iter().find(|token| token.word == Word::Unclosed) {
        let begin: String = open.text.chars().take(20).collect();
        return Some(format!("nothing ends {begin:?}"));
    }
    let mut depth = 0_usize;
    for token in tokens {
        if token.is_sign("(") {
            depth += 1;
        } else if token.is_sign(")") {
            let Some(less) = depth.checked_sub(1) else { return Some("a `)` without its `(`".to_owned()) };
            depth = less;
        }
    }
    if depth > 0 {
        return Some("a `(` without its `)`".to_owned());
    }
    let statement = without_end(tokens);
    if statement.iter().any(|token| token.is_sign(";")) {
        return Some("more than one statement".to_owned());
    }
    match statement.first() {
        Some(first) if first.is_one_of(&["SELECT", "VALUES"]) => None,
        Some(first) if first.is("WITH") => {
            changes(statement).map(|verb| format!("{} behind its WITH", verb.text.to_ascii_uppercase()))
        }
        Some(first) => Some(format!("it begins with {:?}", first.text.chars().take(20).collect::<String>())),
        None => Some("no words at all".to_owned()),
    }
}

/// Returns what a statement with a WITH does, if that is a change. `replace` alone may be the name of what stands in the WITH.
fn changes<'a, 'b>(statement: &'b [Token<'a>]) -> Option<&'b Token<'a>> {
    let mut depth = 0_usize;
    for (at, token) in statement.iter().enumerate() {
        let is_into = |next: &Token<'_>| next.is("INTO");
        if token.is_sign("(") {
            depth += 1;
        } else if token.is_sign(")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && token.is_one_of(&["SELECT", "VALUES"]) {
            return None;
        } else if depth == 0
            && (token.is_one_of(&["DELETE", "INSERT", "UPDATE"])
                || token.is("REPLACE") && statement.get(at + 1).is_some_and(is_into))
        {
            return Some(token);
        }
    }
    None
}

fn without_end<'a, 'b>(tokens: &'b [Token<'a>]) -> &'b [Token<'a>] {
    let end = tokens.iter().rposition(|token| !token.is_sign(";")).map_or(0, |at| at + 1);
    tokens.get(..end).unwrap_or_default()
}

/// A column of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Column {
    /// It has this name.
    Named(String),
    /// An expression without a name; its words.
    Unnamed(String),
    /// `*`, or `table.*`: as many as the table has.
    Star,
}

/// What ends the columns of a SELECT.
const ENDS: [&str; 10] =
    ["FROM", "WHERE", "GROUP", "HAVING", "WINDOW", "ORDER", "LIMIT", "UNION", "INTERSECT", "EXCEPT"];

/// Words before or at the end of an expression, which name no column.
const NO_NAMES: [&str; 22] = [
    "END", "NULL", "NOTNULL", "ISNULL", "AND", "OR", "NOT", "IS", "LIKE", "GLOB", "MATCH", "REGEXP", "IN",
    "BETWEEN", "COLLATE", "ESCAPE", "CASE", "WHEN", "THEN", "ELSE", "TRUE", "FALSE",
];

/// Returns the columns of the first SELECT of a statement that is not in parentheses; none for VALUES.
pub(super) fn columns(tokens: &[Token<'_>]) -> Option<Vec<Column>> {
    let statement = without_end(tokens);
    let depths: Vec<usize> = statement
        .iter()
        .scan(0_usize, |depth, token| {
            let here = *depth;
            if token.is_sign("(") {
                *depth += 1;
            } else if token.is_sign(")") {
                *depth = depth.saturating_sub(1);
                return Some(*depth + 1);
            }
            Some(here)
        })
        .collect();
    let outer = |at: usize| depths.get(at) == Some(&0);
    let begins = |(at, token): (usize, &Token<'_>)| outer(at) && token.is("SELECT");
    let mut from = statement.iter().enumerate().position(begins)? + 1;
    if statement.get(from).is_some_and(|token| token.is_one_of(&["DISTINCT", "ALL"])) {
        from += 1;
    }
    let is_end = |at: &usize| {
        let is_comparison = at
            .checked_sub(1)
            .and_then(|before| statement.get(before))
            .is_some_and(|before| before.is("DISTINCT"));
        outer(*at) && statement.get(*at).is_some_and(|token| token.is_one_of(&ENDS)) && !is_comparison
    };
    let to = (from..statement.len()).find(is_end).unwrap_or(statement.len());
    let mut columns = Vec::new();
    let mut begin = from;
    for at in from..=to {
        let is_border = at == to || outer(at) && statement.get(at).is_some_and(|token| token.is_sign(","));
        if is_border {
            columns.push(column(statement.get(begin..at).unwrap_or_default()));
            begin = at + 1;
        }
    }
    Some(columns)
}

fn column(tokens: &[Token<'_>]) -> Column {
    let is_name = |token: &Token<'_>| matches!(token.word, Word::Plain | Word::Quoted);
    let unnamed = || Column::Unnamed(tokens.iter().map(|token| token.text).collect::<Vec<_>>().join(" "));
    match tokens {
        [.., star] if star.is_sign("*") => Column::Star,
        [only] if is_name(only) && !only.is_one_of(&NO_NAMES) => Column::Named(bare(only)),
        [.., table, dot, name] if dot.is_sign(".") && is_name(table) && is_name(name) => {
            // `a + b.c` is an expression, `b.c` and `main.b.c` are columns.
            let is_column = tokens.len() == 3 || tokens.len() == 5 && tokens[1].is_sign(".");
            if is_column { Column::Named(bare(name)) } else { unnamed() }
        }
        [.., before, name] if is_name(name) || name.word == Word::Text => {
            let is_alias = before.is("AS")
                || !name.is_one_of(&NO_NAMES)
                    && (before.word != Word::Sign || before.is_sign(")"))
                    && !before.is_one_of(&NO_NAMES[4..]);
            if is_alias || before.is("END") { Column::Named(bare(name)) } else { unnamed() }
        }
        _ => unnamed(),
    }
}

/// A name without its quotes.
fn bare(token: &Token<'_>) -> String {
    let text = token.text;
    let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    match token.word {
        Word::Quoted | Word::Text => {
            let quote = text.get(..1).unwrap_or_default();
            if quote == "[" { inner.to_owned() } else { inner.replace(&quote.repeat(2), quote) }
        }
        Word::Plain | Word::Number | Word::Parameter | Word::Sign | Word::Unclosed => text.to_owned(),
    }
}

/// SQLite's keywords, and what it takes for a value without quotes: what stands there is no column.
#[rustfmt::skip]
const KEYWORDS: &[&str] = &[
    "ABORT", "ACTION", "ADD", "AFTER", "ALL", "ALTER", "ALWAYS", "ANALYZE", "AND", "AS", "ASC", "ATTACH", "AUTOINCREMENT", "BEFORE", "BEGIN",
    "BETWEEN", "BY", "CASCADE", "CASE", "CAST", "CHECK", "COLLATE", "COLUMN", "COMMIT", "CONFLICT", "CONSTRAINT", "CREATE", "CROSS", "CURRENT",
    "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "DATABASE", "DEFAULT", "DEFERRABLE", "DEFERRED", "DELETE", "DESC", "DETACH",
    "DISTINCT", "DO", "DROP", "EACH", "ELSE", "END", "ESCAPE", "EXCEPT", "EXCLUDE", "EXCLUSIVE", "EXISTS", "EXPLAIN", "FAIL", "FALSE",
    "FILTER", "FIRST", "FOLLOWING", "FOR", "FOREIGN", "FROM", "FULL", "GENERATED", "GLOB", "GROUP", "GROUPS", "HAVING", "IF", "IGNORE",
    "IMMEDIATE", "IN", "INDEX", "INDEXED", "INITIALLY", "INNER", "INSERT", "INSTEAD", "INTERSECT", "INTO", "IS", "ISNULL", "JOIN", "KEY",
    "LAST", "LEFT", "LIKE", "LIMIT", "MATCH", "MATERIALIZED", "NATURAL", "NO", "NOT", "NOTHING", "NOTNULL", "NULL", "NULLS", "OF", "OFFSET",
    "ON", "OR", "ORDER", "OTHERS", "OUTER", "OVER", "PARTITION", "PLAN", "PRAGMA", "PRECEDING", "PRIMARY", "QUERY", "RAISE", "RANGE",
    "RECURSIVE", "REFERENCES", "REGEXP", "REINDEX", "RELEASE", "RENAME", "REPLACE", "RESTRICT", "RETURNING", "RIGHT", "ROLLBACK", "ROW",
    "ROWS", "SAVEPOINT", "SELECT", "SET", "TABLE", "TEMP", "TEMPORARY", "THEN", "TIES", "TO", "TRANSACTION", "TRIGGER", "TRUE", "UNBOUNDED",
    "UNION", "UNIQUE", "UPDATE", "USING", "VACUUM", "VALUES", "VIEW", "VIRTUAL", "WHEN", "WHERE", "WINDOW", "WITH", "WITHOUT",
];

/// Names that a SELECT over `results` has beside the columns.
const OF_EACH_TABLE: [&str; 4] = ["results", "rowid", "oid", "_rowid_"];

/// Returns the names of a SELECT over `results`, each once, that are none of `known` and that it does not give itself, as far as its words
/// tell. In quotes, and behind WITH, anything may have been meant.
pub(super) fn unknown_names<'a>(tokens: &[Token<'a>], known: &[&str]) -> Vec<&'a str> {
    let statement = without_end(tokens);
    if statement.iter().any(|token| token.is("WITH")) {
        return Vec::new();
    }
    let before = |at: usize| at.checked_sub(1).and_then(|before| statement.get(before));
    let is_name = |token: &Token<'_>| token.word == Word::Plain && !token.is_one_of(KEYWORDS);
    let is_next = |at: usize, sign: &str| statement.get(at + 1).is_some_and(|token| token.is_sign(sign));
    // `x AS n`, `count(*) n`, `results r`, `CASE … END n`, and a window's `w AS (…)`.
    let is_given = |at: usize| {
        let ends_a_value = |token: &Token<'_>| match token.word {
            Word::Plain => is_name(token) || token.is_one_of(&["AS", "END", "NULL", "TRUE", "FALSE"]),
            Word::Number | Word::Text | Word::Quoted | Word::Parameter => true,
            Word::Sign => token.text == ")",
            Word::Unclosed => false,
        };
        let is_window = statement.get(at + 1).is_some_and(|token| token.is("AS")) && is_next(at + 1, "(");
        before(at).is_some_and(ends_a_value) || is_window
    };
    let names: Vec<usize> =
        statement.iter().enumerate().filter(|(_, token)| is_name(token)).map(|(at, _)| at).collect();
    let text = |at: usize| statement.get(at).map_or("", |token| token.text);
    let given: Vec<&str> = names.iter().filter(|at| is_given(**at)).map(|at| text(*at)).collect();
    let is_known = |name: &str| {
        known.iter().chain(&OF_EACH_TABLE).chain(&given).any(|known| known.eq_ignore_ascii_case(name))
    };
    let mut unknown: Vec<&str> = Vec::new();
    for at in names {
        let is_other = is_given(at)
            || is_next(at, "(")
            || is_next(at, ".")
            || before(at).is_some_and(|token| token.is("COLLATE"));
        if !is_other && !is_known(text(at)) && !unknown.contains(&text(at)) {
            unknown.push(text(at));
        }
    }
    unknown
}

/// Returns the functions that a SELECT calls and that are none of `known`, each once and as it is written, as far as its words tell.
pub(super) fn unknown_functions<'a>(tokens: &[Token<'a>], known: &[&str]) -> Vec<&'a str> {
    let mut unknown: Vec<&str> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let name = bare(token);
        let is_known = || known.iter().any(|known| known.eq_ignore_ascii_case(&name));
        let may_be_one = match token.word {
            Word::Plain => !token.is_one_of(KEYWORDS),
            Word::Quoted => true,
            Word::Number | Word::Text | Word::Parameter | Word::Sign | Word::Unclosed => false,
        };
        let is_called = may_be_one
            && tokens.get(at + 1).is_some_and(|next| next.is_sign("("))
            && !is_given_columns(tokens, at + 1)
            && !is_cast_type(tokens, at);
        if is_called && !is_known() && !unknown.contains(&token.text) {
            unknown.push(token.text);
        }
    }
    unknown
}

/// Whether the word at this place is part of the type that a CAST names, which may have a length: `CAST(x AS DECIMAL(10, 2))`.
fn is_cast_type(tokens: &[Token<'_>], at: usize) -> bool {
    let mut depth = 0_usize;
    let mut is_behind_as = false;
    for (before, token) in tokens.iter().enumerate().take(at).rev() {
        if token.is_sign(")") {
            depth += 1;
        } else if token.is_sign("(") {
            match depth.checked_sub(1) {
                Some(outer) => depth = outer,
                None => {
                    return is_behind_as
                        && before
                            .checked_sub(1)
                            .is_some_and(|it| tokens.get(it).is_some_and(|it| it.is("CAST")));
                }
            }
        }
        is_behind_as |= depth == 0 && token.is("AS");
    }
    false
}

/// Whether the parenthesis at this place holds the columns of what a WITH names: `q (a, b) AS (…)`.
fn is_given_columns(tokens: &[Token<'_>], open: usize) -> bool {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.is_sign("(") {
            depth += 1;
        } else if token.is_sign(")") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                let next = |ahead: usize| tokens.get(at + ahead);
                return next(1).is_some_and(|next| next.is("AS"))
                    && next(2)
                        .is_some_and(|next| next.is_sign("(") || next.is_one_of(&["NOT", "MATERIALIZED"]));
            }
        }
    }
    false
}

/// Returns the parameters that are part of a pattern: what stands behind LIKE or GLOB, and what is joined to it.
pub(super) fn wildcard_parameters<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| token.is_one_of(&["LIKE", "GLOB"])) {
        let mut depth = 0_usize;
        for token in tokens.get(at + 1..).unwrap_or_default() {
            if token.is_sign("(") {
                depth += 1;
            } else if token.is_sign(")") && depth > 0 {
                depth -= 1;
            } else if token.word == Word::Parameter {
                found.push(token.text);
            } else if depth == 0 && !(token.is_sign("|") || token.word == Word::Text || is_function(token)) {
                break;
            }
        }
    }
    found
}

/// Whether a word may stand before a parenthesis within a pattern, such as `lower`.
fn is_function(token: &Token<'_>) -> bool {
    token.is_one_of(&["lower", "upper", "trim", "replace", "concat", "format", "printf", "substr"])
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
        for sql in ["'", "\"ä", "[", "/*", "--", ":", "ä:ä", "", " "] {
            let _ = (parameters(sql), columns(&tokens(sql)), not_one_select(&tokens(sql)));
        }
        assert_eq!(parameters("ä :ä"), [":ä"]);
    }

    #[test]
    fn finds_the_columns_that_a_query_gives() {
        for (sql, wanted) in [
            ("SELECT a, t.b, main.t.c, \"d e\", [f] FROM t", "a b c d e f"),
            ("SELECT count(*) AS n, sum(a) total, 1 + b AS 'x' FROM t", "n total x"),
            ("WITH q(z) AS (SELECT 1, 2) SELECT DISTINCT z FROM q ORDER BY z", "z"),
            ("SELECT (SELECT max(a), 1 FROM u) AS top, coalesce(a, b) AS c", "top c"),
            (
                "SELECT CASE :by WHEN 'a' THEN 1 ELSE 2 END AS x, a IS NOT DISTINCT FROM b AS same FROM t;",
                "x same",
            ),
            ("SELECT CASE a WHEN 1 THEN 2 END x FROM t UNION SELECT 1", "x"),
            ("SELECT a FROM t WHERE b IN (SELECT c, d FROM u)", "a"),
        ] {
            let named = |column: Column| match column {
                Column::Named(name) => name,
                other @ (Column::Unnamed(_) | Column::Star) => panic!("{sql}: {other:?}"),
            };
            let found: Vec<String> = columns(&tokens(sql)).unwrap().into_iter().map(named).collect();

            assert_eq!(found.join(" "), wanted, "{sql}");
        }
    }

    #[test]
    fn tells_what_has_no_name() {
        for sql in [
            "SELECT count(*) FROM t",
            "SELECT a + b.c FROM t",
            "SELECT a COLLATE NOCASE FROM t",
            "SELECT a IS NULL FROM t",
            "SELECT CASE WHEN a THEN b END FROM t",
            "SELECT 1",
            "SELECT :days",
            "SELECT NOT a FROM t",
        ] {
            let found = columns(&tokens(sql)).unwrap();

            assert!(matches!(found.as_slice(), [Column::Unnamed(_)]), "{sql}: {found:?}");
        }
        assert_eq!(columns(&tokens("SELECT t.*, * FROM t")).unwrap(), [Column::Star, Column::Star]);
        assert_eq!(columns(&tokens("VALUES (1, 2)")), None);
    }

    #[test]
    fn one_select_is_one_statement_with_all_closed() {
        for sql in [
            "SELECT ';' ;",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1)",
            "-- why\nselect 1",
            "WITH replace AS (SELECT 1 AS a), b(c) AS NOT MATERIALIZED (VALUES (2)) SELECT replace(a, 'x', 'y') FROM replace, b",
            "with a as (select 1) values (2)",
        ] {
            assert_eq!(not_one_select(&tokens(sql)), None, "{sql}");
        }
        for (sql, words) in [
            ("SELECT (1", "without its `)`"),
            ("SELECT 1)", "without its `(`"),
            ("SELECT 'a", "nothing ends"),
            ("SELECT 1; SELECT 2", "more than one statement"),
            ("DELETE FROM t", "begins with \"DELETE\""),
            ("WITH x AS (SELECT 1 AS a) DELETE FROM t", "DELETE behind its WITH"),
            ("WITH x(a) AS (SELECT 1) insert INTO t SELECT a FROM x", "INSERT behind its WITH"),
            ("WITH x AS (SELECT 1) UPDATE t SET a = (SELECT 1)", "UPDATE behind its WITH"),
            ("WITH x AS (SELECT 1) REPLACE INTO t SELECT 1", "REPLACE behind its WITH"),
            ("EXPLAIN SELECT 1 AS a", "begins with \"EXPLAIN\""),
            ("EXPLAIN QUERY PLAN SELECT 1", "begins with \"EXPLAIN\""),
            ("-- nothing", "no words"),
        ] {
            assert!(not_one_select(&tokens(sql)).unwrap().contains(words), "{sql}");
        }
    }

    #[test]
    fn finds_names_that_are_no_columns_and_that_nobody_gave() {
        for (sql, wanted) in [
            (
                "SELECT Name, count(*) AS devices FROM results GROUP BY name HAVING devices > 1 ORDER BY devices DESC NULLS LAST",
                "",
            ),
            (
                "SELECT r.name n, max(size) largest FROM results r JOIN results AS s USING (device) WHERE n LIKE 'a' GROUP BY n",
                "",
            ),
            (
                "SELECT CASE WHEN size > 0 THEN 'yes' ELSE NULL END has, CAST(size AS TEXT) FROM results GROUP BY has COLLATE nocase",
                "",
            ),
            ("SELECT name, sum(size) OVER w FROM results WINDOW w AS (PARTITION BY name ORDER BY rowid)", ""),
            ("SELECT x FROM (SELECT size x FROM results) WHERE \"anything\" IS NOT TRUE", ""),
            ("WITH q (z) AS (SELECT bytes FROM results) SELECT z FROM q", ""),
            ("SELECT nmae, count(*) FROM results GROUP BY nmae", "nmae"),
            ("SELECT results.bytes, r.name FROM results, result r WHERE host = 'a'", "bytes result host"),
            ("SELECT sum(bytes) AS size FROM results", "bytes"),
        ] {
            let found = unknown_names(&tokens(sql), &["name", "size", "device"]);

            assert_eq!(found.join(" "), wanted, "{sql}");
        }
    }

    #[test]
    fn finds_functions_that_are_none_of_the_known_and_takes_no_keyword_or_with_for_one() {
        for (sql, wanted) in [
            ("SELECT COUNT(*), \"sum\"(a) FILTER (WHERE a IN (1, 2)) OVER (ORDER BY a) FROM t", ""),
            ("SELECT CAST(a AS TEXT) FROM t WHERE EXISTS (SELECT 1) AND (a) NOT IN (SELECT (2))", ""),
            ("WITH q (z) AS (SELECT 1), r(y) AS MATERIALIZED (VALUES (2)) SELECT sum(z) FROM q, r", ""),
            ("SELECT load_extension(1), [Random] () FROM t", "load_extension [Random]"),
            ("SELECT count(cuont(a)), cuont (b), 'sleep(1)' FROM t -- no(1)", "cuont"),
            ("SELECT value FROM json_each('[1]')", "json_each"),
            ("SELECT CAST(a AS VARYING CHARACTER(9)), CAST(count(*) AS DECIMAL(10, 2)) FROM t", ""),
            ("SELECT CAST(cuont(a) AS text(1)) AS n, b AS c, nuo(d) FROM t", "cuont nuo"),
        ] {
            let found = unknown_functions(&tokens(sql), &["count", "sum"]);

            assert_eq!(found.join(" "), wanted, "{sql}");
        }
    }

    #[test]
    fn finds_what_is_used_as_a_pattern() {
        let sql = "SELECT a FROM t WHERE a GLOB :a || '/*' AND b = :b AND c LIKE lower('%' || :c) AND d = :d";

        assert_eq!(wildcard_parameters(&tokens(sql)), [":a", ":c"]);
    }
}
