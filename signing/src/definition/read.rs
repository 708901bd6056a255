//! From the TOML to a checked definition; every problem knows its place, and one does not hide the next.

mod action;
mod limits;
mod parameter;
mod step;

use std::collections::BTreeSet;
use std::ops::Range;

use muster_proto::common::v1::ColumnType;
use muster_proto::ids::Digest;
use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use super::document::{self, Document};
use super::error::{Fault, Faults};
use super::rule::Rule;
use super::{Content, DefinitionName, ITEMS_MAX, Resource, ResultColumn, TEXT_BYTES_MAX, hidden};
use crate::envelope::APPROVALS_MAX;

/// Longest description in bytes; it is shown on one screen.
const SAYS_BYTES_MAX: usize = 1_024;

/// Longest version in bytes: whoever issues remembers the highest of each definition.
const VERSION_BYTES_MAX: usize = 128;

/// Reads and checks a text.
pub(super) fn definition(text: &str) -> Result<Content, Fault> {
    check_text(text)?;
    let table = DeTable::parse(text).map_err(|error| of_toml(&error))?;
    let mut faults = Faults::default();
    hidden::check(table.get_ref(), text, &mut faults);
    let document = Document::deserialize(Deserializer::from(table)).map_err(|error| of_toml(&error))?;
    let content = content(&document, &mut faults);
    let unread = || Fault::new(0..0, Rule::Syntax, "no definition");
    content.ok_or_else(|| faults.into_first().unwrap_or_else(unread))
}

/// Reads no more than what a text calls itself.
pub(super) fn called(text: &str) -> Option<(DefinitionName, semver::Version)> {
    check_text(text).ok()?;
    let document::Called { name, version } = toml::from_str(text).ok()?;
    let is_short = version.len() <= VERSION_BYTES_MAX;
    Some((name.parse().ok()?, version.parse().ok().filter(|_| is_short)?))
}

/// Checks what can be told before the text is read.
pub(super) fn check_text(text: &str) -> Result<(), Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::new(0..0, Rule::TextTooLong, format!("{} bytes", text.len()))
            .wanted(format!("at most {TEXT_BYTES_MAX}"))
            .fix("leave content to a [[resource]]"));
    }
    hidden::check_raw(text)
}

/// What the TOML parser says.
pub(super) fn of_toml(error: &toml::de::Error) -> Fault {
    Fault::new(error.span().unwrap_or(0..0), Rule::Syntax, error.message()).wanted("TOML")
}

/// Checks a document; without any fault there is a content.
pub(super) fn content(document: &Document, faults: &mut Faults) -> Option<Content> {
    let name: Option<DefinitionName> = faults.take(parsed(&document.name, Rule::NameInvalid));
    let parameters = parameter::parameters(&document.parameter, faults);
    let resources = resources(&document.resource, faults);
    let steps = step::steps(document, name.as_ref(), &parameters, faults);
    let result = columns(&document.result, faults);
    faults.take(check_columns(document));
    faults.take(action::check_result(document));
    let approvals = faults.take(approvals(document));
    let version = faults.take(version(&document.version));
    let says = says(&document.says, document, faults);
    let aggregate =
        document.aggregate.as_ref().and_then(|aggregate| faults.take(not_blank(&aggregate.query)));
    if let Some(sums) = document.aggregate.as_ref().filter(|_| aggregate.is_some()) {
        faults.take(step::one_select(&sums.query));
    }
    let limits = limits::limits(document.limits.as_ref().map(Spanned::get_ref), faults);
    let time_to_live = limits::time_to_live(&document.time_to_live, faults);
    let platforms = platforms(&document.platforms, faults);
    let oldest = document.minimum_client_version.as_ref();
    let minimum_client_version = oldest.and_then(|oldest| faults.take(self::version(oldest)));
    if faults.has_error() {
        return None;
    }
    Some(Content {
        name: name?,
        version: version?,
        kind: document.kind,
        says: says?,
        parameters,
        steps,
        result,
        aggregate,
        resources,
        limits: limits?,
        time_to_live: time_to_live?,
        platforms,
        minimum_client_version,
        sandbox: document.sandbox,
        approvals: approvals?,
    })
}

fn approvals(document: &Document) -> Result<u32, Fault> {
    match &document.approvals {
        Some(approvals) if *approvals.get_ref() > APPROVALS_MAX => {
            let found = format!("{} approvals", approvals.get_ref());
            Err(fault(approvals, Rule::ApprovalsOutOfRange, found).wanted(format!("0 to {APPROVALS_MAX}")))
        }
        Some(approvals) => Ok(*approvals.get_ref()),
        None => Ok(0),
    }
}

fn version(text: &Spanned<String>) -> Result<semver::Version, Fault> {
    if text.get_ref().len() > VERSION_BYTES_MAX {
        let found = format!("{} bytes", text.get_ref().len());
        return Err(fault(text, Rule::VersionInvalid, found).wanted(format!("at most {VERSION_BYTES_MAX}")));
    }
    let version = semver::Version::parse(text.get_ref()).map_err(|error| {
        fault(text, Rule::VersionInvalid, format!("no semantic version: {error}")).wanted("one such as 1.2.0")
    })?;
    if !version.build.is_empty() {
        let found = "build metadata (`+…`) has no order, so no version may have it";
        return Err(fault(text, Rule::VersionInvalid, found).fix("remove it"));
    }
    Ok(version)
}

fn says(says: &Spanned<String>, document: &Document, faults: &mut Faults) -> Option<String> {
    let text = faults.take(not_blank(says))?;
    if text.len() > SAYS_BYTES_MAX {
        let found = format!("{} bytes", text.len());
        let fault = fault(says, Rule::SaysTooLong, found).wanted(format!("at most {SAYS_BYTES_MAX}"));
        faults.push(fault.fix("leave the rest to hints"));
    }
    for name in said(&text) {
        if !document.parameter.iter().any(|parameter| parameter.get_ref().name.get_ref() == name) {
            let found = format!("`%{name}%` names no parameter");
            let fault = fault(says, Rule::SaysUnknownParameter, found).at(format!("%{name}%"));
            faults.push(fault.fix(format!("add a [[parameter]] called `{name}`")));
        }
    }
    Some(text)
}

/// The parameters that a description names: of the parts between percent signs, every other one, unless it reads like
/// a percentage.
pub(super) fn said(says: &str) -> impl Iterator<Item = &str> {
    says.split('%').skip(1).step_by(2).filter(|name| is_name(name))
}

fn columns(given: &[Spanned<document::Column>], faults: &mut Faults) -> Vec<ResultColumn> {
    faults.take(check_count(given, "columns"));
    let mut names = BTreeSet::new();
    let mut columns: Vec<ResultColumn> = Vec::new();
    for column in given.iter().map(Spanned::get_ref) {
        let name = faults.take(item_name(&column.name, &mut names));
        // SQL does not tell them apart, so neither could a query over the result.
        let is_twin =
            |other: &&ResultColumn| name.as_ref().is_some_and(|name| other.name.eq_ignore_ascii_case(name));
        if let Some(twin) = columns.iter().find(is_twin) {
            let found = format!("`{}` and `{}` are one name in SQL", column.name.get_ref(), twin.name);
            let fault = fault(&column.name, Rule::ItemNameRepeated, found);
            faults.push(fault.fix("give each column its own"));
        }
        let kind = faults.take(column_type(&column.kind));
        let has_length = kind.is_none_or(|kind| kind == ColumnType::Text || kind == ColumnType::Blob);
        if let Some(length) = column.max_length.as_ref().filter(|_| !has_length) {
            let found = "only columns of type text or blob have a max_length";
            faults.push(fault(length, Rule::BoundMisplaced, found).fix("remove it"));
        }
        let max_length = column.max_length.as_ref().map(|length| usize::try_from(*length.get_ref()));
        if let (Some(name), Some(kind)) = (name, kind) {
            columns.push(ResultColumn { name, kind, max_length: max_length.and_then(Result::ok) });
        }
    }
    columns
}

fn column_type(given: &Spanned<String>) -> Result<ColumnType, Fault> {
    match given.get_ref().as_str() {
        "text" => Ok(ColumnType::Text),
        "integer" => Ok(ColumnType::Integer),
        "real" => Ok(ColumnType::Real),
        "blob" => Ok(ColumnType::Blob),
        "boolean" => Ok(ColumnType::Boolean),
        "datetime" => Ok(ColumnType::Datetime),
        other => Err(fault(given, Rule::UnknownValue, format!("no column type is called {other:?}"))
            .wanted("text, integer, real, blob, boolean or datetime")),
    }
}

fn check_columns(document: &Document) -> Result<(), Fault> {
    let is_free = document.step.iter().any(|step| step.get_ref().query_parameter.is_some());
    match (is_free, document.result.first()) {
        (true, Some(column)) => {
            let found = "the columns are those of the argument's query";
            Err(fault(column, Rule::ResultSurplus, found).fix("remove [[result]]"))
        }
        (false, None) => Err(fault(&document.name, Rule::ResultMissing, "no [[result]]")
            .fix("add one for each column of the last step's rows")),
        (true, None) | (false, Some(_)) => Ok(()),
    }
}

fn resources(given: &[Spanned<document::Resource>], faults: &mut Faults) -> Vec<Resource> {
    faults.take(check_count(given, "resources"));
    let mut names = BTreeSet::new();
    let mut resources = Vec::new();
    for resource in given.iter().map(Spanned::get_ref) {
        let name = faults.take(item_name(&resource.name, &mut names));
        let root = faults.take(parsed::<Digest>(&resource.root, Rule::DigestInvalid));
        let sha256 = resource.sha256.as_ref();
        let sha256 = sha256.and_then(|text| faults.take(parsed::<Digest>(text, Rule::DigestInvalid)));
        if let (Some(name), Some(root)) = (name, root) {
            resources.push(Resource { name, size: resource.size, root, sha256 });
        }
    }
    resources
}

fn platforms(given: &[Spanned<String>], faults: &mut Faults) -> Vec<String> {
    for wrong in given.iter().filter(|platform| !is_platform(platform.get_ref())) {
        let fault = fault(wrong, Rule::PlatformInvalid, "no platform");
        faults.push(fault.wanted("one such as \"linux\" or \"linux-x86_64\""));
    }
    given.iter().map(|platform| platform.get_ref().clone()).collect()
}

/// Whether a text can be a platform's name.
pub(super) fn is_platform(text: &str) -> bool {
    let is_valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_/".contains(&b);
    !text.is_empty() && text.bytes().all(is_valid)
}

/// Reads a name that SQL can use, once.
fn item_name(given: &Spanned<String>, names: &mut BTreeSet<String>) -> Result<String, Fault> {
    let name = given.get_ref();
    if !is_name(name) {
        return Err(fault(given, Rule::ItemNameInvalid, format!("{name:?} is no name"))
            .wanted("1 to 64 characters: a letter or `_`, then ASCII letters, digits and `_`"));
    }
    if !names.insert(name.clone()) {
        let found = format!("`{name}` stands here a second time");
        return Err(fault(given, Rule::ItemNameRepeated, found).fix("give each its own name"));
    }
    Ok(name.clone())
}

fn is_name(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn check_count<T>(items: &[Spanned<T>], what: &str) -> Result<(), Fault> {
    match items.get(ITEMS_MAX) {
        Some(further) => Err(fault(further, Rule::TooManyItems, format!("{} {what}", items.len()))
            .wanted(format!("at most {ITEMS_MAX}"))),
        None => Ok(()),
    }
}

fn not_blank(text: &Spanned<String>) -> Result<String, Fault> {
    if text.get_ref().trim().is_empty() {
        return Err(fault(text, Rule::EmptyText, "empty").fix("write something or remove the key"));
    }
    Ok(text.get_ref().clone())
}

fn parsed<T>(text: &Spanned<String>, rule: Rule) -> Result<T, Fault>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.get_ref().parse().map_err(|error: T::Err| {
        // Its errors say what was found and what was wanted in one sentence.
        let said = error.to_string();
        match said.split_once("; wanted ").or_else(|| said.split_once(", wanted ")) {
            Some((found, wanted)) => fault(text, rule, found).wanted(wanted),
            None => fault(text, rule, said),
        }
    })
}

fn fault<T>(place: &Spanned<T>, rule: Rule, found: impl Into<String>) -> Fault {
    let span: Range<usize> = place.span();
    Fault::new(span, rule, found)
}
