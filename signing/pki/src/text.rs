//! Text of others, as people are shown it: what of it would mislead them.

/// Returns whether a character makes a text read otherwise than it is stored: a control character, one that turns the direction of
/// what follows (Unicode UAX #9), and one that looks like nothing.
///
/// Line feed and tab are control characters, too; who shows them as such asks for them first. The two variation selectors that
/// choose how a picture is drawn (U+FE0E, U+FE0F) hide nothing.
#[must_use]
pub fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns the text on one line, with U+FFFD in the place of each [misleading](is_misleading) character.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_misleading(c) { '\u{fffd}' } else { c }).collect()
}

/// Returns JSON that means the same, with an escape in the place of each [misleading](is_misleading) character but line feeds, which JSON has between
/// its texts only.
#[must_use]
pub fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || !is_misleading(c) {
            escaped.push(c);
        } else {
            // Beyond the first 65,536 characters JSON writes two halves.
            for half in c.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{half:04x}"));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_turns_or_drives_a_terminal_misleads_and_what_people_write_does_not() {
        for c in [
            '\0',
            '\n',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{200b}',
            '\u{200d}',
            '\u{2028}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{fe00}',
            '\u{e0041}',
            '\u{e0100}',
        ] {
            assert!(is_misleading(c), "{c:?}");
        }
        for c in "aä%\u{a0}é漢и\u{5d0}\u{301}\u{2764}\u{fe0f}€".chars() {
            assert!(!is_misleading(c), "{c:?}");
        }
        assert_eq!(escaped_json("[\n\"\u{202e}\u{e0041}\"]"), "[\n\"\\u202e\\udb40\\udc41\"]");
        assert_eq!(printable("a\u{1b}[2Jb\n\u{202e}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
    }
}
