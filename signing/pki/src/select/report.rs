//! [`Report`]: every certificate of the store, and why it was chosen or lost.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::candidate::{Candidate, Unread};
use super::fitness::Unfit;
use super::pin::PinRecord;
use super::preference::Step;
use crate::instant;
use crate::text::is_misleading;
use crate::thumbprint::Thumbprint;

/// Most certificates that a report writes out; a store of thousands would fill the log.
pub const ROWS_SHOWN_MAX: usize = 50;

/// Everything that a choice was made of, in store order.
///
/// `{}` writes one line for a log, `{:#}` a table for people. Text that comes from certificates is escaped. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report(Arc<Body>);

#[derive(Debug, PartialEq, Eq)]
struct Body {
    rows: Vec<Row>,
    unread: Vec<Unread>,
    pin: Option<PinRecord>,
}

/// One certificate of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    candidate: Candidate,
    standing: Standing,
}

/// What became of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It was chosen.
    Chosen(Why),
    /// It could have been, but another was better.
    Outranked(Why),
    /// It may not be chosen; all reasons.
    Unfit(Vec<Unfit>),
}

/// What decided between certificates that are all fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No other was fit (S2).
    OnlyOne,
    /// The first step that differs: of the chosen one from the next best, of a losing one from the chosen one (S1, S7).
    Preferred(Step),
    /// The pinned thumbprint is the chosen one's (S5).
    Pinned,
    /// The chosen one renewed this certificate (N2).
    Successor {
        /// Thumbprint of the certificate before it.
        of: Thumbprint,
    },
    /// The chosen one was chosen before, and stays (S4).
    Kept,
}

impl Why {
    /// Returns the rule behind it.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::OnlyOne => "S2",
            Self::Preferred(step) => step.rule(),
            Self::Pinned => "S5",
            Self::Successor { .. } => "N2",
            Self::Kept => "S4",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.rule())?;
        match self {
            Self::OnlyOne => f.write_str("the only candidate"),
            Self::Preferred(step) => step.fmt(f),
            Self::Pinned => f.write_str("the pinned thumbprint"),
            Self::Successor { of } => write!(f, "successor of {of}"),
            Self::Kept => f.write_str("chosen before"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen(why) => write!(f, "chosen: {why}"),
            Self::Outranked(why) => write!(f, "lost: {why}"),
            Self::Unfit(reasons) => {
                f.write_str("unfit")?;
                reasons.iter().enumerate().try_for_each(|(index, reason)| {
                    write!(f, "{} {reason}", if index == 0 { ":" } else { ";" })
                })
            }
        }
    }
}

impl Row {
    /// Returns the certificate with what belongs to it.
    #[must_use]
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// Returns what became of it.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    fn is_chosen(&self) -> bool {
        matches!(self.standing, Standing::Chosen(_))
    }

    /// Returns the cells of its line in the table.
    fn cells(&self, index: usize) -> [String; 7] {
        let certificate = self.candidate.certificate();
        [
            (index + 1).to_string(),
            shown(self.candidate.source()),
            shown(certificate.subject()),
            shown(certificate.issuer()),
            instant::text(certificate.not_after()),
            certificate.thumbprint().to_string(),
            shown(&self.standing.to_string()),
        ]
    }
}

impl Report {
    pub(super) fn new(rows: Vec<(Candidate, Standing)>, unread: &[Unread], pin: Option<PinRecord>) -> Self {
        let rows = rows.into_iter().map(|(candidate, standing)| Row { candidate, standing }).collect();
        Self(Arc::new(Body { rows, unread: unread.to_vec(), pin }))
    }

    /// Returns the certificates in store order.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.0.rows
    }

    /// Returns the files of the store that could not be read.
    #[must_use]
    pub fn unread(&self) -> &[Unread] {
        &self.0.unread
    }

    /// Returns what became of the pinned thumbprint, if one is configured (S5, N2).
    #[must_use]
    pub fn pin(&self) -> Option<&PinRecord> {
        self.0.pin.as_ref()
    }

    /// Returns the rows that are written out, with their index: the first ones, and the chosen one wherever it stands.
    fn shown(&self) -> Vec<(usize, &Row)> {
        let rows = self.0.rows.iter().enumerate();
        rows.filter(|(index, row)| *index < ROWS_SHOWN_MAX || row.is_chosen()).collect()
    }

    fn write_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(pin) = &self.0.pin {
            write!(f, "{}", shown(&pin.to_string()))?;
            separator = " | ";
        }
        for (index, row) in self.shown() {
            let [number, source, subject, issuer, until, thumbprint, standing] = row.cells(index);
            write!(f, "{separator}{number} {source} ({subject}, issuer {issuer}, until {until}, ")?;
            write!(f, "thumbprint {thumbprint}) {standing}")?;
            separator = " | ";
        }
        for line in self.tail() {
            write!(f, "{separator}{line}")?;
            separator = " | ";
        }
        if separator.is_empty() { f.write_str("the store is empty") } else { Ok(()) }
    }

    fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["#", "SOURCE", "SUBJECT", "ISSUER", "VALID UNTIL", "THUMBPRINT", "RESULT"];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(self.shown().into_iter().map(|(index, row)| row.cells(index)));
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                let cells = lines.iter().filter_map(|line| line.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for line in &lines {
            let padded: Vec<String> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(text, "{}", padded.join("  ").trim_end())?;
        }
        for line in self.tail() {
            writeln!(text, "{line}")?;
        }
        if let Some(pin) = &self.0.pin {
            writeln!(text, "{}", shown(&pin.to_string()))?;
        }
        f.write_str(text.trim_end())
    }

    /// Returns what follows the rows: those left out, and the files that could not be read.
    fn tail(&self) -> Vec<String> {
        let left_out = self.0.rows.len().saturating_sub(self.shown().len());
        let more = (left_out > 0).then(|| format!("and {left_out} more"));
        let unread = self.0.unread.iter().take(ROWS_SHOWN_MAX);
        let unread =
            unread.map(|file| format!("not read: {}: {}", shown(&file.source), shown(&file.problem)));
        more.into_iter().chain(unread).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { self.write_table(f) } else { self.write_line(f) }
    }
}

/// Escapes what could forge a line of a log or a terminal: control characters, those that turn the direction of text, and those that look like nothing.
pub(super) fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_misleading(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_certificates_forges_no_line() {
        assert_eq!(shown("CN=a\nerror: b\u{202e}c ä"), "CN=a\\u{a}error: b\\u{202e}c ä");
    }

    #[test]
    fn an_empty_store_says_so() {
        let report = Report::new(Vec::new(), &[], None);

        assert_eq!(report.to_string(), "the store is empty");
    }
}
