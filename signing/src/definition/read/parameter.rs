//! Parameters: which bounds a type may have, and whether its default fits them.

use std::collections::BTreeSet;

use muster_proto::common::v1::{Value, value::Kind};
use muster_proto::limits::VALUE_BYTES_MAX;
use toml::{Spanned, Value as Toml};

use super::{check_count, fault, item_name};
use crate::definition::datetime;
use crate::definition::document;
use crate::definition::error::{Fault, Faults};
use crate::definition::parameter::{Parameter, ParameterKind, Pattern};
use crate::definition::rule::Rule;

/// Allowed values of an enum at most; more is a list that belongs into a table.
const VALUES_MAX: usize = 256;

/// Names of the types.
const TYPES: [&str; 6] = ["string", "integer", "number", "boolean", "datetime", "enum"];

pub(super) fn parameters(given: &[Spanned<document::Parameter>], faults: &mut Faults) -> Vec<Parameter> {
    faults.take(check_count(given, "parameters"));
    let mut names = BTreeSet::new();
    given.iter().filter_map(|parameter| read(parameter.get_ref(), &mut names, faults)).collect()
}

fn read(given: &document::Parameter, names: &mut BTreeSet<String>, faults: &mut Faults) -> Option<Parameter> {
    let name = faults.take(item_name(&given.name, names));
    if given.name.get_ref().starts_with("resource_") {
        let found = "names that begin with `resource_` belong to resources";
        faults.push(fault(&given.name, Rule::ParameterNameReserved, found).fix("choose another"));
    }
    let kind = kind(given, faults)?;
    let mut parameter = Parameter { name: name?, kind, default: None, hint: given.hint.clone() };
    if let Some(place) = &given.default {
        parameter.default = faults.take(default(&parameter, place));
    }
    Some(parameter)
}

fn default(parameter: &Parameter, place: &Spanned<Toml>) -> Result<Value, Fault> {
    let value = default_value(&parameter.kind, place.get_ref()).ok_or_else(|| {
        let found = "the default is of another type";
        fault(place, Rule::DefaultUnfit, found).wanted(parameter.kind.to_string())
    })?;
    parameter.check(&value).map_err(|error| {
        fault(place, Rule::DefaultUnfit, format!("the default does not fit: {error}"))
            .fix("mend the default or the bounds")
    })?;
    Ok(value)
}

/// Returns type and bounds, if all of it is right.
fn kind(given: &document::Parameter, faults: &mut Faults) -> Option<ParameterKind> {
    let name = given.kind.get_ref().as_str();
    let is = |names: &[&str]| names.contains(&name);
    if !is(&TYPES) {
        let fault = fault(&given.kind, Rule::UnknownValue, format!("no type is called {name:?}"));
        faults.push(fault.wanted(format!("one of {}", TYPES.join(", "))));
        return None;
    }
    let ranged = is(&["integer", "number", "datetime"]);
    for misplaced in [
        misplaced(is(&["string"]), given.pattern.as_ref(), "pattern", "string"),
        misplaced(is(&["string"]), given.max_length.as_ref(), "max_length", "string"),
        misplaced(is(&["enum"]), given.values.as_ref(), "values", "enum"),
        misplaced(ranged, given.min.as_ref(), "min", "integer, number or datetime"),
        misplaced(ranged, given.max.as_ref(), "max", "integer, number or datetime"),
    ] {
        misplaced.into_iter().for_each(|fault| faults.push(fault));
    }
    match name {
        "string" => string(given, faults),
        "integer" => {
            range(given, faults, Toml::as_integer).map(|(min, max)| ParameterKind::Integer { min, max })
        }
        "number" => range(given, faults, number).map(|(min, max)| ParameterKind::Number { min, max }),
        "datetime" => range(given, faults, moment).map(|(min, max)| ParameterKind::Datetime { min, max }),
        "enum" => faults.take(values(given)).map(|values| ParameterKind::Enum { values }),
        _ => Some(ParameterKind::Boolean),
    }
}

fn string(given: &document::Parameter, faults: &mut Faults) -> Option<ParameterKind> {
    let pattern = given.pattern.as_ref().map(|text| {
        Pattern::new(text.get_ref()).map_err(|error| {
            fault(text, Rule::PatternInvalid, format!("no regular expression: {error}"))
                .wanted("one that is whole by itself, without look-around and back-references")
        })
    });
    let max_length = given.max_length.as_ref().map(|length| {
        let found = *length.get_ref();
        let fits = usize::try_from(found).ok().filter(|length| (1..=VALUE_BYTES_MAX).contains(length));
        fits.ok_or_else(|| {
            fault(length, Rule::MaxLengthOutOfRange, found.to_string())
                .wanted(format!("1 to {VALUE_BYTES_MAX} bytes"))
        })
    });
    let pattern = pattern.map(|pattern| faults.take(pattern));
    let max_length = max_length.map(|length| faults.take(length));
    match (pattern, max_length) {
        (Some(None), _) | (_, Some(None)) => None,
        (pattern, max_length) => Some(ParameterKind::String {
            pattern: pattern.flatten(),
            max_length: max_length.flatten().unwrap_or(VALUE_BYTES_MAX),
        }),
    }
}

fn values(given: &document::Parameter) -> Result<Vec<String>, Fault> {
    let Some(place) = &given.values else {
        let fault = fault(&given.kind, Rule::ValuesInvalid, "an enum without `values`");
        return Err(fault.fix("list what it may be"));
    };
    let values = place.get_ref();
    let unique: BTreeSet<&String> = values.iter().collect();
    let is_valid = |value: &String| !value.is_empty() && value.len() <= 1_024 && !value.contains('\0');
    if values.is_empty()
        || values.len() > VALUES_MAX
        || unique.len() != values.len()
        || !values.iter().all(is_valid)
    {
        let found = format!("{} texts, {} of them different", values.len(), unique.len());
        return Err(fault(place, Rule::ValuesInvalid, found)
            .wanted(format!("1 to {VALUES_MAX} different texts of 1 to 1024 bytes")));
    }
    Ok(values.clone())
}

fn range<T: PartialOrd>(
    given: &document::Parameter,
    faults: &mut Faults,
    read: impl Fn(&Toml) -> Option<T>,
) -> Option<(Option<T>, Option<T>)> {
    let mut bound = |place: Option<&Spanned<Toml>>| {
        let Some(place) = place else { return Some(None) };
        let kind = given.kind.get_ref();
        let bound = read(place.get_ref()).ok_or_else(|| {
            fault(place, Rule::BoundType, "a bound of another type")
                .wanted(format!("{kind}, as its parameter"))
        });
        faults.take(bound).map(Some)
    };
    let (min, max) = (bound(given.min.as_ref()), bound(given.max.as_ref()));
    let (min, max) = (min?, max?);
    if let (Some(least), Some(greatest), Some(place)) = (&min, &max, &given.max)
        && least > greatest
    {
        faults.push(fault(place, Rule::RangeEmpty, "max is less than min").fix("swap them"));
        return None;
    }
    Some((min, max))
}

fn default_value(kind: &ParameterKind, value: &Toml) -> Option<Value> {
    let kind = match kind {
        ParameterKind::String { .. } | ParameterKind::Enum { .. } => Kind::Text(value.as_str()?.to_owned()),
        ParameterKind::Integer { .. } => Kind::Integer(value.as_integer()?),
        ParameterKind::Number { .. } => Kind::Real(number(value)?),
        ParameterKind::Boolean => Kind::Integer(i64::from(value.as_bool()?)),
        ParameterKind::Datetime { .. } => Kind::Integer(moment(value)?),
    };
    Some(Value { kind: Some(kind) })
}

fn number(value: &Toml) -> Option<f64> {
    // An integer that a person writes as a bound fits a double, or is rounded to the next one.
    value
        .as_float()
        .filter(|number| number.is_finite())
        .or_else(|| value.as_integer().map(|number| number as f64))
}

fn moment(value: &Toml) -> Option<i64> {
    value.as_datetime().map_or_else(|| value.as_integer(), datetime::unix_seconds)
}

fn misplaced<T>(is_allowed: bool, place: Option<&Spanned<T>>, key: &str, types: &str) -> Option<Fault> {
    let place = place.filter(|_| !is_allowed)?;
    let found = format!("`{key}` is for parameters of type {types}");
    Some(fault(place, Rule::BoundMisplaced, found).fix("remove it or change the type"))
}
