//! Strings that do harm wherever text is pasted into a command, a query, a path or a format.

use std::collections::BTreeSet;
use std::path::Path;

/// What the canary process is called with; nobody else sleeps for so long.
pub(crate) const CANARY_SLEEP: &str = "98.7654321";

/// What strings are made of; `{c}` stands for a file that nobody may make, `{t}` for a process that nobody may start.
const FRAGMENTS: &[&str] = &[
    // Shells.
    "; touch {c}",
    "| touch {c}",
    "|| touch {c}",
    "&& touch {c}",
    "& touch {c} &",
    "`touch {c}`",
    "$(touch {c})",
    "\ntouch {c}\n",
    "\r\ntouch {c}\r\n",
    "> {c}",
    ">> {c}",
    "<(touch {c})",
    "'; touch {c}; '",
    "\"; touch {c}; \"",
    ";${IFS}touch${IFS}{c}",
    "; {t} &",
    "$({t} &)",
    "`{t} &`",
    "\n{t} &\n",
    "'$({t} &)'",
    "#",
    "!!",
    "!touch {c}",
    "{touch,{c}}",
    "()  { :;}; touch {c}",
    "\\; touch {c}",
    "\\\n touch {c}",
    "a; touch {c} #",
    // Options.
    "-rf",
    "--",
    "--help",
    "--output={c}",
    "-o{c}",
    "--to-command=touch {c}",
    "-exec touch {c} ;",
    "-c touch {c}",
    "--checkpoint-action=exec=touch {c}",
    "-",
    "--config={c}",
    // SQL.
    "'",
    "\"",
    "''",
    "' OR '1'='1",
    "\" OR \"\"=\"",
    "1 OR 1=1",
    "' OR 1=1 --",
    "'; DROP TABLE files; --",
    "';",
    "/*",
    "*/",
    "--",
    "'; ATTACH DATABASE '{c}' AS x; CREATE TABLE x.y(z); --",
    "'; VACUUM INTO '{c}'; --",
    "'||writefile('{c}','x')||'",
    "' UNION SELECT writefile('{c}','x') --",
    "SELECT writefile('{c}', 'x')",
    "ATTACH DATABASE '{c}' AS x",
    "VACUUM INTO '{c}'",
    "SELECT load_extension('{c}')",
    "SELECT * FROM fsdir('/')",
    "PRAGMA writable_schema=1",
    "SELECT edit('{c}', 'touch')",
    "SELECT 1; SELECT 2",
    "SELECT readfile('/etc/shadow')",
    "CREATE TABLE t(a)",
    "' UNION SELECT sha256, 1, 1, 1, 1, 1, 1 FROM files WHERE path='/etc/shadow' --",
    ":path",
    "?1",
    "@x",
    "$x",
    "x'00'",
    "\\'",
    "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1; END",
    "SELECT '{c}' INTO OUTFILE",
    // Patterns.
    "*",
    "?",
    "**",
    "[a-z]*",
    "[",
    "[!]",
    "[^",
    "[]",
    "%",
    "_",
    "%_%",
    "\\",
    "\\*",
    "*/*",
    "[[:alpha:]]",
    "{a,b}",
    ".*",
    "(a+)+$",
    // Paths.
    "../../../../etc/shadow",
    "/../../etc/shadow",
    "/etc/./shadow",
    "/etc//passwd",
    "/etc/passwd/",
    "/proc/self/root/etc/shadow",
    "/proc/1/environ",
    "/proc/self/mem",
    "/proc/self/fd/0",
    "/dev/zero",
    "/dev/random",
    "/dev/stdin",
    "/dev/tty",
    "/dev/mem",
    "~root/.ssh/id_rsa",
    "//etc/passwd",
    "..%2f..%2fetc",
    "..\\..\\etc",
    "file:///etc/passwd",
    "\\\\host\\share",
    ".",
    "..",
    "/",
    // Letters that look like others, or like nothing.
    "＇； ｔｏｕｃｈ {c}",
    "ʼ OR ʼ1ʼ=ʼ1",
    "／etc／shadow",
    "ｅtc",
    "раssword",
    "\u{202e}dwssap",
    "\u{200b}",
    "\u{feff}",
    "\u{2028}touch {c}",
    "e\u{301}\u{301}\u{301}",
    "\u{1f4a9}",
    "İ",
    "ß",
    "\u{e000}",
    "\u{fffd}",
    // NUL and control characters.
    "\0",
    "ssh\0.service",
    "/etc/passwd\0.txt",
    "\u{1b}[2J",
    "\u{1b}]0;x\u{7}",
    "\u{7}",
    "\u{8}",
    "\u{9b}31m",
    "\t",
    "\r",
    "\u{7f}",
    // Formats and expansions.
    "%s%s%s%n",
    "%x",
    "%99999d",
    "{0}",
    "{}",
    "{{7*7}}",
    "${jndi:ldap://127.0.0.1/a}",
    "$HOME",
    "${PATH}",
    "%PATH%",
    "$((1+1))",
    "$'\\x27'",
    "\\u0000",
    "&#39;",
    "%27",
    "<script>",
    "%i",
    "%f",
    "%%",
    "%path%",
    // Numbers and nothing.
    "",
    " ",
    "0",
    "-1",
    "9223372036854775808",
    "1e309",
    "NaN",
    "null",
    "true",
    "undefined",
    "0x41",
];

/// How a fragment is wrapped, so that some of it passes the patterns.
const WRAPPERS: &[&str] = &["{}", "/{}", "/etc/{}", "a{}", "'{}'"];

/// Returns at least 500 different strings that would make `canary` or start the canary process.
pub(crate) fn strings(canary: &Path) -> Vec<String> {
    let canary = canary.to_str().expect("a path of text");
    let mut seen = BTreeSet::new();
    let mut strings = Vec::new();
    let mut add = |text: String| {
        if seen.insert(text.clone()) {
            strings.push(text);
        }
    };
    for wrapper in WRAPPERS {
        for fragment in FRAGMENTS {
            let fragment = fragment.replace("{c}", canary).replace("{t}", &format!("sleep {CANARY_SLEEP}"));
            add(wrapper.replace("{}", &fragment));
        }
    }
    // As long as a value may be, and longer; a path of a name that no file system takes.
    for filler in ["a", "*", "/a", "'", "(", "ä", "%n", "[", "../"] {
        for length in [300, 1_023, 1_024, 4_097, 65_536] {
            let text: String = filler
                .chars()
                .cycle()
                .take(length / filler.chars().next().map_or(1, char::len_utf8))
                .collect();
            add(text.clone());
            add(format!("/{text}"));
        }
    }
    strings
}
