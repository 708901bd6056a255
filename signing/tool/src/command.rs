//! The commands: files in, one document or one report out.

mod earlier;
mod exchange;
mod file;
mod licence;
mod lint;
mod out;
mod pack;
mod policy;
mod signer;
mod timestamp;
mod whole;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use muster_pki::{Certificate, RevocationIndex, Role, Roots, UnixTime, text};
use muster_signing::definition::Definition;
use muster_signing::envelope::{self, ContentType, Inspection, Signer};
use muster_signing::licence::Licence;
use muster_signing::moment;
use muster_signing::policy::Policy;
use muster_signing::timestamp::ClaimedStamp;
use serde_json::{Value, json};

use self::earlier::{Content, Signing};
use self::out::{Out, Product, Sources};
use self::signer::{lone_signer, signer, signer_for};
use self::whole::write;

use crate::cli::{
    Cli, DefinitionCommand, Document, ExchangeCommand, FileCommand, Format, Inspect, LicenceCommand, Output,
    PackCommand, PolicyCommand, SignDefinition, VerifyDefinition,
};
use crate::{
    FileKind, Licensed, ToolError, Trust, read_envelope, read_file, sign_definition, verify_definition,
};

/// What a command found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What goes to standard output.
    pub text: String,
    /// Whether the document may be used as it is.
    pub verdict: Verdict,
}

/// Whether a document may be used as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing stands against it.
    Fine,
    /// The report names a finding (`definition verify`: its prefix is not licensed).
    Finding,
}

/// Runs a command.
///
/// # Errors
/// The document is refused, or a file cannot be read or written.
pub fn run(cli: &Cli, now: UnixTime) -> anyhow::Result<Report> {
    let text = match &cli.document {
        Document::Definition(DefinitionCommand::Sign(arguments)) => sign(arguments, now)?,
        Document::Definition(DefinitionCommand::Verify(arguments)) => return verify(arguments, now),
        Document::Definition(DefinitionCommand::Inspect(arguments)) => {
            inspect(arguments, ContentType::Definition)?
        }
        Document::Definition(DefinitionCommand::Lint(arguments)) => return Ok(lint::lint(arguments)),
        Document::Definition(DefinitionCommand::Schema) => lint::SCHEMA.to_owned(),
        Document::Licence(LicenceCommand::Request(arguments)) => licence::request(arguments, now)?,
        Document::Licence(LicenceCommand::Issue(arguments)) => licence::issue(arguments, now)?,
        Document::Licence(LicenceCommand::Inspect(arguments)) => licence::inspect(arguments, now)?,
        Document::Policy(PolicyCommand::Sign(arguments)) => policy::sign(arguments, now)?,
        Document::Policy(PolicyCommand::Verify(arguments)) => policy::verify(arguments, now)?,
        Document::Policy(PolicyCommand::Inspect(arguments)) => inspect(arguments, ContentType::Policy)?,
        Document::Pack(PackCommand::Build(arguments)) => pack::build(arguments, now)?,
        Document::Pack(PackCommand::Verify(arguments)) => pack::verify(arguments, now)?,
        Document::Exchange(ExchangeCommand::Build(arguments)) => exchange::build(arguments, now)?,
        Document::File(FileCommand::Sign(arguments)) => file::sign(arguments, now)?,
        Document::File(FileCommand::Verify(arguments)) => file::verify(arguments, now)?,
        Document::Timestamp(arguments) => timestamp::stamp(arguments, now)?,
    };
    Ok(Report { text, verdict: Verdict::Fine })
}

/// The code with which clients refuse an order for such a definition (`Refusal` of common.proto).
const UNLICENSED: &str = "UNLICENSED";

/// Renders an error of [`run`]; one in a definition's text points at its line.
#[must_use]
pub fn render(error: &anyhow::Error) -> String {
    // It may quote a document, and that may be anyone's.
    let mut text = said_lines(&format!("{error:#}"));
    let tool = error.chain().find_map(|cause| cause.downcast_ref::<ToolError>());
    if let Some(ToolError::Definition(definition)) = tool {
        let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
        let mut report = String::new();
        if handler.render_report(&mut report, &**definition).is_ok() {
            // The report begins with what was just said; wanted is the place.
            let place = report.lines().skip_while(|line| !line.contains('╭'));
            place.for_each(|line| text.push_str(&said_lines(line)));
        }
    }
    text
}

fn said_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", printable(line))).collect()
}

fn sign(arguments: &SignDefinition, now: UnixTime) -> anyhow::Result<String> {
    let file = arguments.file.display();
    let sources = Sources::of("FILE", [&arguments.file]).and_signer(&arguments.signer);
    let out = Out::new("--out", &arguments.out, Product::Envelope(ContentType::Definition), &sources)?;
    let text = authored(&arguments.file)?;
    let others = [(Role::OrderSigner, "orders"), (Role::Licensor, "licences"), (Role::Policy, "policies")];
    let home = arguments.home.as_deref();
    let signer = signer_for(&arguments.signer, home, (Role::Author, "authors"), &others, now)?;
    let content = Content::Inside(ContentType::Definition, text.as_bytes());
    let signing = Signing { out: &out, content, signer: &signer, replace: arguments.replace };
    let stamps = || home.map_or(Ok(None), timestamp::roots);
    let kept = signing.earlier(stamps, now)?;
    let envelope = match &kept {
        Some(kept) => kept.envelope.clone(),
        None => sign_definition(&text, &signer, now).with_context(|| file.to_string())?,
    };
    write(&out, &envelope)?;
    let definition = Definition::parse(&text)?;
    let report = json!({ "name": definition.name().as_str(), "version": definition.version().to_string() });
    let mut report = signed_to(report, &signer, &envelope, &arguments.out);
    let warnings = lint::warnings(&text).into_iter().chain(lone_signer(&signer, home));
    warn(&mut report, warnings.chain(kept.iter().map(earlier::Kept::says)));
    Ok(show(&report, arguments.output))
}

/// Reads a text that is to be signed.
fn authored(path: &Path) -> anyhow::Result<String> {
    let file = path.display();
    let bytes = read(path, FileKind::DOCUMENT)?;
    let is_signed =
        |envelope: Vec<u8>| envelope::inspect(&envelope).ok().map(|it| it.content_type.with_article());
    if let Some(kind) = read_envelope(&bytes).ok().and_then(is_signed) {
        anyhow::bail!(
            "{file}: it is signed already, and holds {kind}; wanted the authored text (TOML), which `inspect -o json` shows as `text`"
        );
    }
    refuse_pack(path, &bytes)?;
    String::from_utf8(bytes).with_context(|| format!("{file}: not UTF-8"))
}

/// Says of an archive what reads it: no document is one.
fn refuse_pack(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    // POSIX.1-1988: where an ustar header has its name.
    anyhow::ensure!(
        bytes.get(257..262) != Some(&b"ustar"[..]),
        "{}: a pack, or another archive; `muster-sign pack verify` says what is in a pack",
        path.display()
    );
    Ok(())
}

fn verify(arguments: &VerifyDefinition, now: UnixTime) -> anyhow::Result<Report> {
    let file = arguments.file.display();
    let envelope =
        read_envelope(&read(&arguments.file, FileKind::ENVELOPE)?).with_context(|| file.to_string())?;
    let authors = roots(&arguments.home, "authors")?;
    let licence_file = arguments.home.join("licence.cms");
    let licence = match licence_file.exists() {
        true => {
            let bytes = read(&licence_file, FileKind::ENVELOPE)?;
            Some(read_envelope(&bytes).with_context(|| licence_file.display().to_string())?)
        }
        false => None,
    };
    // Who only signs may have no roots of licensors, and where there is no licence nothing but a CRL is judged by them.
    let licences = match &licence {
        None if !arguments.home.join("trust/licences.pem").exists() => Roots::default(),
        None | Some(_) => roots(&arguments.home, "licences")?,
    };
    let timestamps = timestamp::roots(&arguments.home)?;
    let mut inside_all = inside(&envelope);
    inside_all.extend(licence.iter().flat_map(|licence| inside(licence)));
    let all = [&authors, &licences].into_iter().chain(&timestamps);
    let revocation = revocation(&arguments.crl, all, inside_all, now)?;
    let trust = Trust {
        authors: &authors,
        licences: &licences,
        timestamps: timestamps.as_ref(),
        revocation: revocation.as_ref(),
        licence: licence.as_deref(),
    };
    let verified = verify_definition(&envelope, &trust, now).with_context(|| file.to_string())?;
    let (licensed, verdict) = match &verified.licensed {
        Licensed::Yes { serial } => (json!({ "licensed": true, "licence": serial }), Verdict::Fine),
        Licensed::No(reason) => {
            (json!({ "licensed": false, "finding": UNLICENSED, "reason": reason }), Verdict::Finding)
        }
        Licensed::Unknown => {
            let warning = format!(
                "no licence at {}: whether the definition may be issued is not known",
                licence_file.display()
            );
            (json!({ "licensed": null, "warning": warning }), Verdict::Fine)
        }
    };
    let mut report = json!({
        "name": verified.definition.name().as_str(),
        "version": verified.definition.version().to_string(),
        "signer": person(&verified.signer),
        "signed_at": verified.signing_time.as_secs(),
        "timestamp": verified.stamped_at.map(|moment| moment.as_secs()),
        "digest": envelope::digest(&envelope).to_string(),
    });
    merge(&mut report, licensed);
    Ok(Report { text: show(&report, arguments.output), verdict })
}

fn inspect(arguments: &Inspect, wanted: ContentType) -> anyhow::Result<String> {
    let file = arguments.file.display();
    let bytes = read(&arguments.file, FileKind::DOCUMENT)?;
    refuse_pack(&arguments.file, &bytes)?;
    // An authored text is no envelope yet, and still worth looking at.
    let is_text = !bytes.starts_with(&[0x30]) && !bytes.trim_ascii_start().starts_with(b"-----BEGIN ");
    let (mut report, content) = if is_text {
        (json!({ "signed": false }), bytes)
    } else {
        let envelope = read_envelope(&bytes).with_context(|| file.to_string())?;
        let inspection =
            envelope::inspect(&envelope).map_err(ToolError::from).with_context(|| file.to_string())?;
        anyhow::ensure!(
            inspection.content_type == wanted,
            "{file}: {}; wanted {}",
            inspection.content_type.with_article(),
            wanted.with_article()
        );
        (signatures(&inspection, &envelope), inspection.content)
    };
    let text = String::from_utf8(content).with_context(|| format!("{file}: the content is not UTF-8"))?;
    let summary = match wanted {
        ContentType::Licence => licence::summary(&Licence::parse(&text).with_context(|| file.to_string())?),
        ContentType::Policy => {
            policy::summary(&Policy::parse(&text).with_context(|| file.to_string())?, arguments.output)
        }
        ContentType::Definition
        | ContentType::Order
        | ContentType::Pack
        | ContentType::File
        | ContentType::LicenceRequest => {
            let parsed = Definition::parse(&text).map_err(ToolError::from);
            definition_summary(&parsed.with_context(|| file.to_string())?)
        }
    };
    merge(&mut report, summary);
    merge(&mut report, json!({ "text": text }));
    Ok(show(&report, arguments.output))
}

/// Adds who signed an envelope, its digest and where it went to what is told of it.
fn signed_to(mut report: Value, signer: &Signer, envelope: &[u8], out: &Path) -> Value {
    merge(
        &mut report,
        json!({
            "signer": signer.certificate().map(person),
            "digest": envelope::digest(envelope).to_string(),
            "out": out.display().to_string(),
        }),
    );
    report
}

fn roots(home: &Path, role: &str) -> anyhow::Result<Roots> {
    roots_of(&home.join("trust").join(format!("{role}.pem")))
}

fn roots_of(path: &Path) -> anyhow::Result<Roots> {
    Ok(Roots::from_pem(&read(path, FileKind::CERTIFICATES)?, &path.display().to_string())?)
}

/// Returns the certificates that an envelope and its timestamps claim: none if it is none.
fn inside(envelope: &[u8]) -> Vec<Certificate> {
    let Ok(inspection) = envelope::inspect(envelope) else { return Vec::new() };
    let stamps = inspection.stamps.into_iter().flat_map(|stamp| stamp.chain);
    inspection.certificates.into_iter().chain(stamps).collect()
}

/// Each CRL is verified once, by one of `roots` or of the certificates that the documents and their timestamps hold.
fn revocation<'a>(
    crls: &[PathBuf],
    roots: impl IntoIterator<Item = &'a Roots>,
    inside: Vec<Certificate>,
    now: UnixTime,
) -> anyhow::Result<Option<RevocationIndex>> {
    if crls.is_empty() {
        return Ok(None);
    }
    let roots = roots.into_iter().flat_map(Roots::iter).cloned();
    let issuers: Vec<Certificate> = roots.chain(inside).collect();
    let mut index = RevocationIndex::default();
    for path in crls {
        index = index
            .with_crl(&read(path, FileKind::CRL)?, &issuers, now)
            .with_context(|| path.display().to_string())?;
    }
    Ok(Some(index))
}

fn signatures(inspection: &Inspection, envelope: &[u8]) -> Value {
    let signers: Vec<Value> = inspection
        .signers
        .iter()
        .map(|(signer, at)| json!({ "signer": person(signer), "signed_at": at.as_secs() }))
        .collect();
    let stamps: Vec<Value> = inspection.stamps.iter().map(claimed).collect();
    json!({ "signed": true, "verified": false, "signatures": signers, "timestamps": stamps, "digest": envelope::digest(envelope).to_string() })
}

fn claimed(stamp: &ClaimedStamp) -> Value {
    json!({ "at": stamp.at.map(|moment| moment.as_secs()), "authority": stamp.chain.first().map(person) })
}

fn definition_summary(definition: &Definition) -> Value {
    let parameters: Vec<Value> = definition
        .parameters()
        .iter()
        .map(|parameter| {
            json!({
                "name": parameter.name(),
                "type": parameter.kind().name(),
                "wanted": parameter.kind().to_string(),
                "has_default": parameter.default().is_some(),
                "hint": parameter.hint(),
            })
        })
        .collect();
    json!({
        "name": definition.name().as_str(),
        "version": definition.version().to_string(),
        "kind": definition.kind().name(),
        "says": definition.says(),
        "parameters": parameters,
        "columns": definition.result().iter().map(|column| column.name.clone()).collect::<Vec<_>>(),
    })
}

fn person(certificate: &Certificate) -> Value {
    json!({ "subject": certificate.subject(), "thumbprint": certificate.thumbprint().to_string() })
}

fn merge(report: &mut Value, more: Value) {
    if let (Value::Object(report), Value::Object(more)) = (report, more) {
        report.extend(more);
    }
}

/// Adds warnings to those that a report has.
fn warn(report: &mut Value, more: impl IntoIterator<Item = String>) {
    let more: Vec<Value> = more.into_iter().map(Value::String).collect();
    match report.get_mut("warnings") {
        Some(Value::Array(warnings)) => warnings.extend(more),
        Some(_) | None if more.is_empty() => {}
        Some(_) | None => merge(report, json!({ "warnings": more })),
    }
}

/// Writes a report: JSON, or a line for each entry.
fn show(report: &Value, output: Output) -> String {
    match output.format {
        Format::Json => json(report),
        Format::Text => {
            let mut text = String::new();
            lines(&mut text, report, 0);
            text
        }
    }
}

/// JSON spells what would mislead a person as escapes: a program reads the same.
fn json(report: &Value) -> String {
    format!("{}\n", text::escaped_json(&format!("{report:#}")))
}

/// What is a moment in every report: Unix seconds for programs, RFC 3339 for people.
const MOMENTS: [&str; 8] =
    ["signed_at", "timestamp", "made_at", "not_before", "not_after", "refresh_by", "at", "after"];

fn lines(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(entries) => entries.iter().map(|(name, value)| (format!("{name}:"), value)).collect(),
        Value::Array(items) => items.iter().map(|value| ("-".to_owned(), value)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (name, value) in entries {
        let line = match value {
            Value::Object(_) | Value::Array(_) => String::new(),
            Value::String(value) if value.contains('\n') => value
                .lines()
                .fold(String::new(), |body, line| format!("{body}\n{indent}  | {}", printable(line))),
            Value::String(value) => format!(" {}", printable(value)),
            Value::Null => " none".to_owned(),
            Value::Bool(value) => format!(" {value}"),
            Value::Number(value) if MOMENTS.contains(&name.trim_end_matches(':')) => {
                format!(" {}", value.as_u64().map_or_else(|| value.to_string(), moment::shown))
            }
            Value::Number(value) => format!(" {value}"),
        };
        text.push_str(&format!("{indent}{name}{line}\n"));
        lines(text, value, depth + 1);
    }
}

/// A document may come from anyone: what of it would mislead a person or drive the terminal does not reach it.
fn printable(text: &str) -> String {
    let parts: Vec<String> = text.split('\t').map(text::printable).collect();
    parts.join("\t")
}

fn random() -> anyhow::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).context("no random bytes from the system")?;
    Ok(bytes)
}

fn read(path: &Path, kind: FileKind) -> anyhow::Result<Vec<u8>> {
    Ok(read_file(path, kind)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_nothing_that_misleads_and_its_json_means_the_same() {
        let report = json!({ "subject": "CN=a\u{202e}b\u{200b}\u{1b}[31m", "text": "one\n\ttwo\u{2066}" });
        let of = |format| show(&report, Output { format });

        let (text, json) = (of(Format::Text), of(Format::Json));

        for said in [&text, &json] {
            assert!(!said.chars().any(|c| text::is_misleading(c) && !matches!(c, '\n' | '\t')), "{said:?}");
        }
        assert!(text.contains("CN=a\u{fffd}b\u{fffd}\u{fffd}[31m") && text.contains("| \ttwo"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), report);
    }
}
