//! Steps: what is run, and whether all that it names is bound.

use std::collections::BTreeSet;

use toml::Spanned;

use super::{fault, not_blank};
use crate::definition::document::{self, Document};
use crate::definition::error::{Fault, Faults};
use crate::definition::parameter::{Parameter, ParameterKind};
use crate::definition::rule::Rule;
use crate::definition::{DefinitionName, PLATFORM_PREFIX, Step, sql};

/// Steps of a definition; a result has one table.
const STEPS_MAX: usize = 1;

pub(super) fn steps(
    document: &Document,
    name: Option<&DefinitionName>,
    parameters: &[Parameter],
    faults: &mut Faults,
) -> Vec<Step> {
    if document.step.is_empty() {
        let fault = fault(&document.name, Rule::StepMissing, "nothing to run");
        faults.push(fault.fix("add a [[step]] with a query"));
    }
    if let Some(further) = document.step.get(STEPS_MAX) {
        let fault = fault(further, Rule::StepSurplus, "a second step is not supported by this version");
        faults.push(fault.fix("join the queries into one"));
    }
    let step = |given| step(given, document, name, parameters, faults);
    document.step.iter().take(STEPS_MAX).filter_map(step).collect()
}

fn step(
    given: &Spanned<document::Step>,
    document: &Document,
    name: Option<&DefinitionName>,
    parameters: &[Parameter],
    faults: &mut Faults,
) -> Option<Step> {
    let document::Step { query, query_parameter, action, script } = given.get_ref();
    for (what, other) in [("typed actions", action), ("scripts", script)] {
        if let Some(other) = other {
            let found = format!("{what} are not supported by this version");
            faults.push(fault(other, Rule::StepUnsupported, found).fix("use `query`"));
        }
    }
    match (query, query_parameter) {
        (Some(query), None) => {
            let sql = faults.take(not_blank(query))?;
            check_bound(query, &sql, document, faults);
            Some(Step::Query { sql })
        }
        (None, Some(parameter)) => {
            let read = query_from_parameter(parameter, document, name, parameters);
            faults.take(read).flatten()
        }
        (None, None) if action.is_some() || script.is_some() => None,
        (Some(_), Some(_)) | (None, None) => {
            let found = if query.is_some() { "two things in one step" } else { "an empty step" };
            faults.push(fault(given, Rule::StepAmbiguous, found).wanted("one of: query, query_parameter"));
            None
        }
    }
}

/// Gives nothing where the parameter or the name is wrong already, which is told elsewhere.
fn query_from_parameter(
    given: &Spanned<String>,
    document: &Document,
    name: Option<&DefinitionName>,
    parameters: &[Parameter],
) -> Result<Option<Step>, Fault> {
    if name.is_some_and(|name| name.prefix() != PLATFORM_PREFIX) {
        let found = format!("only {PLATFORM_PREFIX}-… definitions may run a parameter as a query");
        return Err(fault(given, Rule::QueryParameterReserved, found)
            .fix("write the query here and bind parameters as :name"));
    }
    let found = parameters.iter().find(|parameter| parameter.name() == given.get_ref());
    match found.map(Parameter::kind) {
        Some(ParameterKind::String { .. }) => {
            Ok(Some(Step::QueryParameter { parameter: given.get_ref().clone() }))
        }
        Some(other) => {
            let found = format!("the parameter is of type {}", other.name());
            Err(fault(given, Rule::QueryParameterUnknown, found).wanted("string"))
        }
        None if declared(document).any(|name| name == given.get_ref()) => Ok(None),
        None => {
            let found = format!("no parameter is called `{}`", given.get_ref());
            Err(fault(given, Rule::QueryParameterUnknown, found).wanted("the name of a [[parameter]]"))
        }
    }
}

/// A name that nothing binds would be NULL, and the query silently find nothing.
fn check_bound(place: &Spanned<String>, query: &str, document: &Document, faults: &mut Faults) {
    let mut known: Vec<String> = declared(document)
        .map(|name| format!(":{name}"))
        .chain(
            document
                .resource
                .iter()
                .map(|resource| format!(":resource_{}", resource.get_ref().name.get_ref())),
        )
        .collect();
    // A name given twice stands there once.
    let mut seen = BTreeSet::new();
    known.retain(|name| seen.insert(name.clone()));
    for found in sql::parameters(query) {
        if !found.starts_with(':') {
            let fault = fault(place, Rule::QueryUnboundName, format!("`{found}` in the query"));
            faults.push(fault.at(found).wanted(":name of a parameter"));
        } else if !known.iter().any(|name| name == found) {
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            let said = format!("the query uses `{found}`, which nothing binds; known: {known}");
            let fault = fault(place, Rule::QueryUnboundName, said);
            faults.push(fault.at(found).fix("add a [[parameter]] or a [[resource]], or mend the name"));
        }
    }
}

fn declared(document: &Document) -> impl Iterator<Item = &String> {
    document.parameter.iter().map(|parameter| parameter.get_ref().name.get_ref())
}
