//! Parameters: which bounds a type may have, and whether its default fits them.

use std::collections::BTreeSet;

use muster_proto::common::v1::{Value, value::Kind};
use muster_proto::limits::VALUE_BYTES_MAX;
use toml::{Spanned, Value as Toml};

use super::{check_count, fault, item_name};
use crate::definition::datetime;
use crate::definition::document;
use crate::definition::error::Fault;
use crate::definition::parameter::{Parameter, ParameterKind, Pattern};

/// Allowed values of an enum at most; more is a list that belongs into a table.
const VALUES_MAX: usize = 256;

/// Names of the types.
const TYPES: [&str; 6] = ["string", "integer", "number", "boolean", "datetime", "enum"];

pub(super) fn parameters(given: &[Spanned<document::Parameter>]) -> Result<Vec<Parameter>, Fault> {
    check_count(given, "parameters")?;
    let mut names = BTreeSet::new();
    given.iter().map(|parameter| read(parameter.get_ref(), &mut names)).collect()
}

fn read(given: &document::Parameter, names: &mut BTreeSet<String>) -> Result<Parameter, Fault> {
    let name = item_name(&given.name, names)?;
    if name.starts_with("resource_") {
        return Err(fault(
            &given.name,
            "names that begin with `resource_` belong to resources; choose another",
        ));
    }
    let kind = kind(given)?;
    let mut parameter = Parameter { name, kind, default: None, hint: given.hint.clone() };
    if let Some(place) = &given.default {
        let value = default_value(&parameter.kind, place.get_ref()).ok_or_else(|| {
            fault(place, format!("the default is of another type; wanted {}", parameter.kind))
        })?;
        parameter
            .check(&value)
            .map_err(|error| fault(place, format!("the default does not fit: {error}")))?;
        parameter.default = Some(value);
    }
    Ok(parameter)
}

fn kind(given: &document::Parameter) -> Result<ParameterKind, Fault> {
    let name = given.kind.get_ref().as_str();
    let is = |names: &[&str]| names.contains(&name);
    if !is(&TYPES) {
        let wanted = TYPES.join(", ");
        return Err(fault(&given.kind, format!("no type is called {name:?}; wanted one of {wanted}")));
    }
    refuse_unless(is(&["string"]), given.pattern.as_ref(), "pattern", "string")?;
    refuse_unless(is(&["string"]), given.max_length.as_ref(), "max_length", "string")?;
    refuse_unless(is(&["enum"]), given.values.as_ref(), "values", "enum")?;
    let ranged = is(&["integer", "number", "datetime"]);
    refuse_unless(ranged, given.min.as_ref(), "min", "integer, number or datetime")?;
    refuse_unless(ranged, given.max.as_ref(), "max", "integer, number or datetime")?;
    match name {
        "string" => string(given),
        "integer" => range(given, Toml::as_integer).map(|(min, max)| ParameterKind::Integer { min, max }),
        "number" => range(given, number).map(|(min, max)| ParameterKind::Number { min, max }),
        "datetime" => range(given, moment).map(|(min, max)| ParameterKind::Datetime { min, max }),
        "enum" => values(given).map(|values| ParameterKind::Enum { values }),
        _ => Ok(ParameterKind::Boolean),
    }
}

fn string(given: &document::Parameter) -> Result<ParameterKind, Fault> {
    let pattern = match &given.pattern {
        Some(text) => Some(
            Pattern::new(text.get_ref())
                .map_err(|error| fault(text, format!("no regular expression: {error}")))?,
        ),
        None => None,
    };
    let max_length = match &given.max_length {
        Some(length) => usize::try_from(*length.get_ref())
            .ok()
            .filter(|length| (1..=VALUE_BYTES_MAX).contains(length))
            .ok_or_else(|| fault(length, format!("wanted 1 to {VALUE_BYTES_MAX} bytes")))?,
        None => VALUE_BYTES_MAX,
    };
    Ok(ParameterKind::String { pattern, max_length })
}

fn values(given: &document::Parameter) -> Result<Vec<String>, Fault> {
    let Some(place) = &given.values else {
        return Err(fault(&given.kind, "an enum without `values`; list what it may be"));
    };
    let values = place.get_ref();
    let unique: BTreeSet<&String> = values.iter().collect();
    let is_valid = |value: &String| !value.is_empty() && value.len() <= 1_024 && !value.contains('\0');
    if values.is_empty()
        || values.len() > VALUES_MAX
        || unique.len() != values.len()
        || !values.iter().all(is_valid)
    {
        return Err(fault(place, format!("wanted 1 to {VALUES_MAX} different texts of 1 to 1024 bytes")));
    }
    Ok(values.clone())
}

fn range<T: PartialOrd>(
    given: &document::Parameter,
    read: impl Fn(&Toml) -> Option<T>,
) -> Result<(Option<T>, Option<T>), Fault> {
    let bound = |place: Option<&Spanned<Toml>>| {
        let Some(place) = place else { return Ok(None) };
        let kind = given.kind.get_ref();
        read(place.get_ref())
            .map(Some)
            .ok_or_else(|| fault(place, format!("a bound of another type; wanted {kind}")))
    };
    let (min, max) = (bound(given.min.as_ref())?, bound(given.max.as_ref())?);
    match (&min, &max, &given.max) {
        (Some(least), Some(greatest), Some(place)) if least > greatest => {
            Err(fault(place, "max is less than min"))
        }
        _ => Ok((min, max)),
    }
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

fn refuse_unless<T>(
    is_allowed: bool,
    place: Option<&Spanned<T>>,
    key: &str,
    types: &str,
) -> Result<(), Fault> {
    match place {
        Some(place) if !is_allowed => Err(fault(
            place,
            format!("`{key}` is for parameters of type {types}; remove it or change the type"),
        )),
        Some(_) | None => Ok(()),
    }
}
