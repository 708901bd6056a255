//! `muster-sign definition lint` and `definition schema`.

use std::path::Path;

use miette::{GraphicalReportHandler, GraphicalTheme, NamedSource, Report as Diagnostic};
use muster_signing::definition::{Definition, Finding, Severity};
use serde_json::{Value, json};

use super::{Report, Verdict, printable};
use crate::cli::{Format, LintDefinition};

/// The JSON Schema (draft 2020-12) of a definition, for editors.
pub(super) const SCHEMA: &str = include_str!("../../../definitions/definition.schema.json");

pub(super) fn lint(arguments: &LintDefinition) -> Report {
    let files: Vec<Linted> = arguments.files.iter().map(|file| Linted::of(file)).collect();
    let is_bad = |finding: &Finding| finding.severity() == Severity::Error || arguments.strict;
    let has_bad = files.iter().any(|file| file.problem.is_some() || file.findings.iter().any(is_bad));
    let text = match arguments.output.format {
        Format::Json => super::json(&files.iter().map(of_file).collect()),
        Format::Text => files.iter().map(for_people).collect(),
    };
    Report { text, verdict: if has_bad { Verdict::Finding } else { Verdict::Fine } }
}

/// One file, and what is wrong with it.
struct Linted {
    file: String,
    text: String,
    findings: Vec<Finding>,
    /// Why it is not read, or holds no authored text; the other files are looked at all the same.
    problem: Option<String>,
}

impl Linted {
    fn of(path: &Path) -> Self {
        let file = path.display().to_string();
        match super::authored(path) {
            Ok(text) => Self { file, findings: Definition::lint(&text), text, problem: None },
            Err(error) => {
                let told = format!("{error:#}");
                // The file is told before it, here as of every finding.
                let problem = told.strip_prefix(&format!("{file}: ")).unwrap_or(&told).to_owned();
                Self { file, text: String::new(), findings: Vec::new(), problem: Some(problem) }
            }
        }
    }

    /// Counts findings; a file that is not read counts as an error.
    fn count(&self, severity: Severity) -> usize {
        let unread = usize::from(self.problem.is_some() && severity == Severity::Error);
        self.findings.iter().filter(|finding| finding.severity() == severity).count() + unread
    }
}

/// The warnings of a text that can be signed, a line each.
pub(super) fn warnings(text: &str) -> Vec<String> {
    let line = |finding: &Finding| {
        let (line, column, name) = (finding.line(), finding.column(), finding.rule().name());
        format!("line {line}:{column}: {} ({name})", finding.problem())
    };
    Definition::lint(text).iter().map(line).collect()
}

fn of_file(linted: &Linted) -> Value {
    let told: Vec<Value> = linted
        .findings
        .iter()
        .map(|finding| {
            json!({
                "name": finding.rule().name(),
                "severity": finding.severity().name(),
                "line": finding.line(),
                "column": finding.column(),
                "found": finding.found(),
                "wanted": finding.wanted(),
                "fix": finding.fix(),
            })
        })
        .collect();
    json!({
        "file": linted.file,
        "problem": linted.problem,
        "errors": linted.count(Severity::Error),
        "warnings": linted.count(Severity::Warning),
        "findings": told,
    })
}

/// Each finding with its place in the text, and a line for the file.
fn for_people(linted: &Linted) -> String {
    let Linted { file, text, findings, problem } = linted;
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
    let mut said = String::new();
    if let Some(problem) = problem {
        said.push_str(&format!("{}: error: {}\n", printable(file), printable(problem)));
    }
    for finding in findings {
        let (line, column) = (finding.line(), finding.column());
        let (severity, name) = (finding.severity().name(), finding.rule().name());
        let problem = printable(finding.problem());
        said.push_str(&format!("{file}:{line}:{column}: {severity}: {problem} ({name})\n"));
        let located = Diagnostic::new(finding.clone()).with_source_code(NamedSource::new(file, text.clone()));
        let mut drawn = String::new();
        if handler.render_report(&mut drawn, located.as_ref()).is_ok() {
            // The report begins with what was just said; wanted is the place.
            let place = drawn.lines().skip_while(|line| !line.contains('╭')).skip(1);
            place.for_each(|line| said.extend([&printable(line), "\n"]));
        }
    }
    let (errors, warnings) = (linted.count(Severity::Error), linted.count(Severity::Warning));
    said + &format!("{file}: errors: {errors}, warnings: {warnings}\n")
}
