//! `muster-sign definition lint` and `definition schema`.

use miette::{GraphicalReportHandler, GraphicalTheme, NamedSource, Report as Diagnostic};
use muster_signing::definition::{Definition, Finding, Severity};
use serde_json::{Value, json};

use super::{Report, Verdict, printable};
use crate::cli::{Format, LintDefinition};

/// The JSON Schema (draft 2020-12) of a definition, for editors.
pub(super) const SCHEMA: &str = include_str!("../../../definitions/definition.schema.json");

pub(super) fn lint(arguments: &LintDefinition) -> anyhow::Result<Report> {
    let mut files = Vec::new();
    for file in &arguments.files {
        let text = super::authored(file)?;
        files.push((file.display().to_string(), Definition::lint(&text), text));
    }
    let is_bad = |finding: &Finding| finding.severity() == Severity::Error || arguments.strict;
    let has_bad = files.iter().any(|(_, findings, _)| findings.iter().any(is_bad));
    let text = match arguments.output.format {
        Format::Json => {
            let report: Vec<Value> =
                files.iter().map(|(file, findings, _)| of_file(file, findings)).collect();
            super::json(&Value::Array(report))
        }
        Format::Text => files.iter().map(|(file, findings, text)| for_people(file, findings, text)).collect(),
    };
    Ok(Report { text, verdict: if has_bad { Verdict::Finding } else { Verdict::Fine } })
}

/// The warnings of a text that can be signed, a line each.
pub(super) fn warnings(text: &str) -> Vec<String> {
    let line = |finding: &Finding| {
        let (line, column, name) = (finding.line(), finding.column(), finding.rule().name());
        format!("line {line}:{column}: {} ({name})", finding.problem())
    };
    Definition::lint(text).iter().map(line).collect()
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity() == severity).count()
}

fn of_file(file: &str, findings: &[Finding]) -> Value {
    let told: Vec<Value> = findings
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
        "file": file,
        "errors": count(findings, Severity::Error),
        "warnings": count(findings, Severity::Warning),
        "findings": told,
    })
}

/// Each finding with its place in the text, and a line for the file.
fn for_people(file: &str, findings: &[Finding], text: &str) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
    let mut said = String::new();
    for finding in findings {
        let (line, column) = (finding.line(), finding.column());
        let (severity, name) = (finding.severity().name(), finding.rule().name());
        let problem = printable(finding.problem());
        said.push_str(&format!("{file}:{line}:{column}: {severity}: {problem} ({name})\n"));
        let located =
            Diagnostic::new(finding.clone()).with_source_code(NamedSource::new(file, text.to_owned()));
        let mut drawn = String::new();
        if handler.render_report(&mut drawn, located.as_ref()).is_ok() {
            // The report begins with what was just said; wanted is the place.
            let place = drawn.lines().skip_while(|line| !line.contains('╭')).skip(1);
            place.for_each(|line| said.extend([&printable(line), "\n"]));
        }
    }
    let (errors, warnings) = (count(findings, Severity::Error), count(findings, Severity::Warning));
    said + &format!("{file}: errors: {errors}, warnings: {warnings}\n")
}
