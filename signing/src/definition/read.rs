//! From the TOML to a checked definition; every problem knows its place.

mod limits;
mod parameter;

use std::collections::BTreeSet;
use std::ops::Range;

use muster_proto::common::v1::ColumnType;
use muster_proto::ids::Digest;
use toml::Spanned;

use super::document::{self, Document};
use super::error::Fault;
use super::parameter::{Parameter, ParameterKind};
use super::{
    Content, DefinitionName, ITEMS_MAX, PLATFORM_PREFIX, Resource, ResultColumn, Step, TEXT_BYTES_MAX, sql,
};

/// Longest description in bytes; it is shown on one screen.
const SAYS_BYTES_MAX: usize = 1_024;

/// Steps of a definition; a result has one table.
const STEPS_MAX: usize = 1;

/// Reads and checks a text.
pub(super) fn definition(text: &str) -> Result<Content, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::new(0..0, format!("{} bytes; wanted at most {TEXT_BYTES_MAX}", text.len())));
    }
    refuse_hidden_order(text)?;
    let document: Document = toml::from_str(text)
        .map_err(|error| Fault::new(error.span().unwrap_or(0..0), error.message().to_owned()))?;
    let name: DefinitionName = parsed(&document.name)?;
    let parameters = parameter::parameters(&document.parameter)?;
    let resources = resources(&document.resource)?;
    let steps = steps(&document, &name, &parameters, &resources)?;
    let result = columns(&document.result)?;
    check_columns(&document, &steps)?;
    refuse_approvals(&document)?;
    Ok(Content {
        version: version(&document.version)?,
        kind: document.kind,
        says: says(&document.says, &parameters)?,
        aggregate: document.aggregate.map(|aggregate| not_blank(&aggregate.query)).transpose()?,
        limits: limits::limits(&document.limits)?,
        time_to_live: limits::time_to_live(&document.time_to_live)?,
        platforms: platforms(&document.platforms)?,
        minimum_client_version: document.minimum_client_version.as_ref().map(version).transpose()?,
        sandbox: document.sandbox,
        name,
        parameters,
        steps,
        result,
        resources,
    })
}

/// Characters that make a text read otherwise than it is stored (Unicode UAX #9) would let a reviewer see another text
/// than the one that is signed.
fn refuse_hidden_order(text: &str) -> Result<(), Fault> {
    let is_hidden = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}');
    match text.char_indices().find(|(_, c)| is_hidden(*c)) {
        Some((at, c)) => {
            let problem = format!(
                "the invisible character U+{:04X} changes the order in which the text reads; remove it",
                u32::from(c)
            );
            Err(Fault::new(at..at + c.len_utf8(), problem))
        }
        None => Ok(()),
    }
}

/// What is signed today must not be run tomorrow with fewer signatures than its author asked for.
fn refuse_approvals(document: &Document) -> Result<(), Fault> {
    match &document.approvals {
        Some(approvals) if *approvals.get_ref() > 0 => {
            Err(fault(approvals, "required approvals are not supported by this version; remove `approvals`"))
        }
        Some(_) | None => Ok(()),
    }
}

fn version(text: &Spanned<String>) -> Result<semver::Version, Fault> {
    let version = semver::Version::parse(text.get_ref())
        .map_err(|error| fault(text, format!("no semantic version: {error}; wanted one such as 1.2.0")))?;
    if !version.build.is_empty() {
        return Err(fault(text, "build metadata (`+…`) has no order, so no version may have it; remove it"));
    }
    Ok(version)
}

fn says(says: &Spanned<String>, parameters: &[Parameter]) -> Result<String, Fault> {
    let text = not_blank(says)?;
    if text.len() > SAYS_BYTES_MAX {
        return Err(fault(says, format!("{} bytes; wanted at most {SAYS_BYTES_MAX}", text.len())));
    }
    // Of the parts between percent signs, every other one is a name, unless it reads like a percentage.
    for name in text.split('%').skip(1).step_by(2) {
        let is_known = parameters.iter().any(|parameter| parameter.name() == name);
        if is_name(name) && !is_known {
            return Err(fault(
                says,
                format!("`%{name}%` names no parameter; add a [[parameter]] called `{name}`"),
            ));
        }
    }
    Ok(text)
}

fn steps(
    document: &Document,
    name: &DefinitionName,
    parameters: &[Parameter],
    resources: &[Resource],
) -> Result<Vec<Step>, Fault> {
    if document.step.is_empty() {
        return Err(fault(&document.name, "nothing to run; add a [[step]] with a query"));
    }
    if let Some(further) = document.step.get(STEPS_MAX) {
        return Err(fault(
            further,
            "a second step is not supported by this version; join the queries into one",
        ));
    }
    document.step.iter().map(|given| step(given, name, parameters, resources)).collect()
}

fn step(
    given: &Spanned<document::Step>,
    name: &DefinitionName,
    parameters: &[Parameter],
    resources: &[Resource],
) -> Result<Step, Fault> {
    let document::Step { query, query_parameter, action, script } = given.get_ref();
    if let Some(other) = action.as_ref().or(script.as_ref()) {
        let what = if action.is_some() { "typed actions" } else { "scripts" };
        return Err(fault(other, format!("{what} are not supported by this version; use `query`")));
    }
    match (query, query_parameter) {
        (Some(query), None) => {
            let sql = not_blank(query)?;
            check_bound(query, &sql, parameters, resources)?;
            Ok(Step::Query { sql })
        }
        (None, Some(parameter)) => query_from_parameter(parameter, name, parameters),
        (Some(_), Some(_)) | (None, None) => Err(fault(given, "a step has one of: query, query_parameter")),
    }
}

fn query_from_parameter(
    given: &Spanned<String>,
    name: &DefinitionName,
    parameters: &[Parameter],
) -> Result<Step, Fault> {
    if name.prefix() != PLATFORM_PREFIX {
        let problem = format!(
            "only {PLATFORM_PREFIX}-… definitions may run a parameter as a query; write the query here and bind parameters as :name"
        );
        return Err(fault(given, problem));
    }
    let found = parameters.iter().find(|parameter| parameter.name() == given.get_ref());
    match found.map(Parameter::kind) {
        Some(ParameterKind::String { .. }) => Ok(Step::QueryParameter { parameter: given.get_ref().clone() }),
        Some(other) => Err(fault(given, format!("the parameter is of type {}; wanted string", other.name()))),
        None => Err(fault(given, format!("no parameter is called `{}`", given.get_ref()))),
    }
}

/// A name that nothing binds would be NULL, and the query silently find nothing.
fn check_bound(
    place: &Spanned<String>,
    query: &str,
    parameters: &[Parameter],
    resources: &[Resource],
) -> Result<(), Fault> {
    for found in sql::parameters(query) {
        let Some(name) = found.strip_prefix(':') else {
            return Err(fault(place, format!("`{found}` in the query; wanted :name of a parameter")));
        };
        let is_resource = |name: &str| resources.iter().any(|resource| resource.name == name);
        let is_known = parameters.iter().any(|parameter| parameter.name() == name)
            || name.strip_prefix("resource_").is_some_and(is_resource);
        if !is_known {
            let names = parameters.iter().map(|parameter| format!(":{}", parameter.name()));
            let resources = resources.iter().map(|resource| format!(":resource_{}", resource.name));
            let known: Vec<String> = names.chain(resources).collect();
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            return Err(fault(
                place,
                format!("the query uses `{found}`, which nothing binds; known: {known}"),
            ));
        }
    }
    Ok(())
}

fn columns(given: &[Spanned<document::Column>]) -> Result<Vec<ResultColumn>, Fault> {
    check_count(given, "columns")?;
    let mut names = BTreeSet::new();
    let mut columns: Vec<ResultColumn> = Vec::new();
    for column in given.iter().map(Spanned::get_ref) {
        let name = item_name(&column.name, &mut names)?;
        // SQL does not tell them apart, so neither could a query over the result.
        if let Some(twin) = columns.iter().find(|other| other.name.eq_ignore_ascii_case(&name)) {
            let problem =
                format!("`{name}` and `{}` are one name in SQL; give each column its own", twin.name);
            return Err(fault(&column.name, problem));
        }
        let kind = column_type(&column.kind)?;
        let has_length = kind == ColumnType::Text || kind == ColumnType::Blob;
        if let Some(length) = column.max_length.as_ref().filter(|_| !has_length) {
            return Err(fault(length, "only columns of type text or blob have a max_length; remove it"));
        }
        let max_length = column.max_length.as_ref().map(|length| usize::try_from(*length.get_ref()));
        columns.push(ResultColumn { name, kind, max_length: max_length.and_then(Result::ok) });
    }
    Ok(columns)
}

fn column_type(given: &Spanned<String>) -> Result<ColumnType, Fault> {
    match given.get_ref().as_str() {
        "text" => Ok(ColumnType::Text),
        "integer" => Ok(ColumnType::Integer),
        "real" => Ok(ColumnType::Real),
        "blob" => Ok(ColumnType::Blob),
        "boolean" => Ok(ColumnType::Boolean),
        "datetime" => Ok(ColumnType::Datetime),
        other => Err(fault(
            given,
            format!(
                "no column type is called {other:?}; wanted text, integer, real, blob, boolean or datetime"
            ),
        )),
    }
}

fn check_columns(document: &Document, steps: &[Step]) -> Result<(), Fault> {
    let is_free = steps.iter().any(|step| matches!(step, Step::QueryParameter { .. }));
    match (is_free, document.result.first()) {
        (true, Some(column)) => {
            Err(fault(column, "the columns are those of the argument's query; remove [[result]]"))
        }
        (false, None) => Err(fault(&document.name, "no [[result]]; add one for each column of the query")),
        (true, None) | (false, Some(_)) => Ok(()),
    }
}

fn resources(given: &[Spanned<document::Resource>]) -> Result<Vec<Resource>, Fault> {
    check_count(given, "resources")?;
    let mut names = BTreeSet::new();
    let read = |resource: &document::Resource, names: &mut BTreeSet<String>| {
        Ok(Resource {
            name: item_name(&resource.name, names)?,
            size: resource.size,
            root: parsed::<Digest>(&resource.root)?,
            sha256: resource.sha256.as_ref().map(parsed::<Digest>).transpose()?,
        })
    };
    given.iter().map(|resource| read(resource.get_ref(), &mut names)).collect()
}

fn platforms(given: &[Spanned<String>]) -> Result<Vec<String>, Fault> {
    let is_platform = |text: &str| {
        let is_valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_/".contains(&b);
        !text.is_empty() && text.bytes().all(is_valid)
    };
    match given.iter().find(|platform| !is_platform(platform.get_ref())) {
        Some(wrong) => Err(fault(wrong, "no platform; wanted one such as \"linux\" or \"linux-x86_64\"")),
        None => Ok(given.iter().map(|platform| platform.get_ref().clone()).collect()),
    }
}

/// Reads a name that SQL can use, once.
fn item_name(given: &Spanned<String>, names: &mut BTreeSet<String>) -> Result<String, Fault> {
    let name = given.get_ref();
    if !is_name(name) {
        let wanted = "wanted 1 to 64 characters: a letter or `_`, then ASCII letters, digits and `_`";
        return Err(fault(given, format!("{name:?} is no name; {wanted}")));
    }
    if !names.insert(name.clone()) {
        return Err(fault(given, format!("`{name}` stands here a second time; give each its own name")));
    }
    Ok(name.clone())
}

fn is_name(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn check_count<T>(items: &[Spanned<T>], what: &str) -> Result<(), Fault> {
    match items.get(ITEMS_MAX) {
        Some(further) => Err(fault(further, format!("{} {what}; wanted at most {ITEMS_MAX}", items.len()))),
        None => Ok(()),
    }
}

fn not_blank(text: &Spanned<String>) -> Result<String, Fault> {
    if text.get_ref().trim().is_empty() {
        return Err(fault(text, "empty; write something or remove the key"));
    }
    Ok(text.get_ref().clone())
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &Spanned<String>) -> Result<T, Fault> {
    text.get_ref().parse().map_err(|error: T::Err| fault(text, error.to_string()))
}

fn fault<T>(place: &Spanned<T>, problem: impl Into<String>) -> Fault {
    let span: Range<usize> = place.span();
    Fault::new(span, problem)
}
