//! How a table is laid out: words whole where the terminal has room for them, else broken, else a field a line.
//!
//! Text comes in printable, and without ends of lines.

use comfy_table::{ColumnConstraint, ContentArrangement, Table as Grid, Width, presets};

/// Between two columns.
const GAP: usize = 2;
/// A word longer than this may be broken although others are not: a hash, a path.
const WORD_MAX: usize = 40;
/// A column narrower than this cannot be read, unless all it holds is narrower.
const COLUMN_MIN: usize = 10;

/// How rows were laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A row a line, or some lines where cells are broken.
    Rows,
    /// A field a line: the terminal is too narrow for the columns.
    Fields,
}

/// Lays rows out for a terminal of `width` columns; without one, as wide as they are.
pub(crate) fn render(header: &[String], rows: &[Vec<String>], width: Option<usize>) -> (String, Form) {
    let Some(width) = width else {
        return (rows_text(header, rows, None), Form::Rows);
    };
    let columns: Vec<Needs> = header.iter().enumerate().map(|(at, name)| Needs::of(name, rows, at)).collect();
    match widths(&columns, width) {
        Some(widths) => (rows_text(header, rows, Some(&widths)), Form::Rows),
        None => (fields_text(header, rows, width), Form::Fields),
    }
}

/// The columns of the terminal on standard output, where that is one.
pub(crate) fn terminal_width() -> Option<usize> {
    Grid::new().width().map(usize::from)
}

/// What a column needs, in characters.
#[derive(Debug, Clone, Copy)]
struct Needs {
    /// To be read at all.
    least: usize,
    /// To show every word whole.
    words: usize,
    /// To show every cell on one line.
    whole: usize,
}

impl Needs {
    fn of(name: &str, rows: &[Vec<String>], at: usize) -> Self {
        let texts = || rows.iter().filter_map(|row| row.get(at)).map(String::as_str).chain([name]);
        let whole = texts().map(length).max().unwrap_or(0);
        let words = texts().map(longest_word).max().unwrap_or(0).min(WORD_MAX);
        Self { least: words.min(COLUMN_MIN), words, whole }
    }
}

/// How wide each column is, or `None` if they cannot stand side by side.
///
/// The first column says what a row is about, so its words come before those of the others.
fn widths(columns: &[Needs], width: usize) -> Option<Vec<usize>> {
    let available = width.checked_sub(GAP * columns.len().saturating_sub(1))?;
    let mut widths: Vec<usize> = columns.iter().map(|needs| needs.least).collect();
    let mut left = available.checked_sub(widths.iter().sum())?;
    if let (Some(first), Some(needs)) = (widths.first_mut(), columns.first()) {
        let more = (needs.words - needs.least).min(left);
        *first += more;
        left -= more;
    }
    let words: Vec<usize> = columns.iter().map(|needs| needs.words).collect();
    let whole: Vec<usize> = columns.iter().map(|needs| needs.whole).collect();
    for wanted in [words, whole] {
        left = grow(&mut widths, &wanted, left);
    }
    Some(widths)
}

/// Widens columns towards what they want, those that lack the least first; returns what is left. A little is given whole,
/// since a part of it would not save a line; those that lack much share.
fn grow(widths: &mut [usize], wanted: &[usize], mut left: usize) -> usize {
    let mut order: Vec<usize> = (0..widths.len()).collect();
    order.sort_by_key(|at| wanted[*at].saturating_sub(widths[*at]));
    let mut sharing = order.len();
    for at in order {
        let lack = wanted[at].saturating_sub(widths[at]);
        let share = if lack <= COLUMN_MIN { left } else { left / sharing.max(1) };
        let more = lack.min(share);
        widths[at] += more;
        left -= more;
        sharing -= 1;
    }
    left
}

fn rows_text(header: &[String], rows: &[Vec<String>], widths: Option<&[usize]>) -> String {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    grid.set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        let fitted = |(at, text): (usize, &String)| match widths.and_then(|widths| widths.get(at)) {
            Some(width) if *width < length(text) && is_moment(text) => text.replacen('T', " ", 1),
            _ => text.clone(),
        };
        grid.add_row(row.iter().enumerate().map(fitted));
    }
    let last = header.len().saturating_sub(1);
    for (at, column) in grid.column_iter_mut().enumerate() {
        let gap = if at == last { 0 } else { GAP };
        column.set_padding((0, columns(gap)));
        if let Some(width) = widths.and_then(|widths| widths.get(at)) {
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(columns(width + gap))));
        }
    }
    if widths.is_some() {
        grid.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::MAX);
    }
    grid.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Each row as lines of a field's name and value, a blank line between rows.
fn fields_text(header: &[String], rows: &[Vec<String>], width: usize) -> String {
    let name_width = header.iter().map(|name| length(name)).max().unwrap_or(0);
    let value_width = width.saturating_sub(name_width + GAP).max(COLUMN_MIN);
    let mut lines = Vec::new();
    for row in rows {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        for (name, value) in header.iter().zip(row) {
            let characters: Vec<char> = value.chars().collect();
            let mut parts = characters.chunks(value_width).map(|part| part.iter().collect::<String>());
            let first = parts.next().unwrap_or_default();
            lines.push(format!("{name:name_width$}  {first}").trim_end().to_owned());
            lines.extend(parts.map(|part| format!("{:name_width$}  {part}", "")));
        }
    }
    lines.join("\n")
}

/// A width as the table crate counts; nothing here is near its bound.
fn columns(width: usize) -> u16 {
    u16::try_from(width).unwrap_or(u16::MAX)
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn longest_word(text: &str) -> usize {
    if is_moment(text) {
        return "2026-11-21".len();
    }
    text.split(' ').map(length).max().unwrap_or(0)
}

/// A moment in RFC 3339 may be broken between its date and its time.
fn is_moment(text: &str) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:ddZ";
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, kind)| match kind {
            b'd' => byte.is_ascii_digit(),
            _ => byte == kind,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(header: &[&str], rows: &[&[&str]], width: usize) -> (String, Form) {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = rows.iter().map(|row| strings(row)).collect();
        let (text, form) = render(&strings(header), &rows, Some(width));
        for line in text.lines() {
            assert!(length(line) <= width, "{} columns: {line}", length(line));
        }
        (text, form)
    }

    #[test]
    fn words_stay_whole_where_there_is_room_for_them() {
        let id = "01a1fcf0-2f9c-7dc6-9211-d645b679f7f0";
        let states = "12 answered, 3 queued, 1 refused";
        let row = [id, "Muster-Core-Query", "2026-11-21T07:09:21Z", states];
        let short = [id, "Muster-Core-Query", "2026-11-21T07:09:21Z", "3 answered"];

        let (text, form) = rendered(&["id", "definition", "created", "states"], &[&row], 80);

        let (short, _) = rendered(&["id", "definition", "created", "states"], &[&short], 80);

        assert_eq!(form, Form::Rows);
        assert!(short.contains("3 answered"), "a little room is not divided:\n{short}");
        for word in [id, "Muster-Core-Query", "2026-11-21 ", "07:09:21Z", "answered,", "refused"] {
            assert!(text.contains(word), "{word} in\n{text}");
        }
    }

    #[test]
    fn what_fits_is_shown_as_it_is() {
        let (text, _) = rendered(&["name", "at"], &[&["a b", "2026-11-21T07:09:21Z"]], 80);

        assert_eq!(text, "NAME  AT\na b   2026-11-21T07:09:21Z");
    }

    #[test]
    fn too_many_columns_become_a_field_a_line() {
        let header: Vec<String> = (0..13).map(|n| format!("column_{n}")).collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let long = "x".repeat(200);
        let row: Vec<&str> = header.iter().map(|_| long.as_str()).collect();

        let (text, form) = rendered(&header, &[&row, &row], 80);

        assert_eq!(form, Form::Fields);
        assert_eq!(text.matches('x').count(), 2 * 13 * 200, "nothing is left out");
        assert_eq!(text.lines().filter(|line| line.is_empty()).count(), 1);
    }

    #[test]
    fn a_long_word_is_broken_and_nothing_of_it_is_lost() {
        let hash = "f".repeat(64);

        let (text, form) =
            rendered(&["name", "root", "stored"], &[&["a", &hash, "2026-11-21T07:09:21Z"]], 60);

        assert_eq!((form, text.matches('f').count()), (Form::Rows, 64));
    }

    #[test]
    fn any_width_is_kept_to_or_answered_by_fields() {
        let row = ["client-1.dev.muster", "some words of text", "2026-11-21T07:09:21Z"];
        for width in 21..90 {
            rendered(&["device", "says", "at"], &[&row], width);
        }
    }
}
