//! Steps: what is run, and whether all that it names is bound.

use std::collections::BTreeSet;

use toml::Spanned;

use super::{action, fault, not_blank};
use crate::definition::document::{self, Document};
use crate::definition::error::{Fault, Faults};
use crate::definition::parameter::{Parameter, ParameterKind};
use crate::definition::rule::Rule;
use crate::definition::{
    DefinitionName, ITEMS_MAX, PLATFORM_PREFIX, SCRIPT_BYTES_MAX, STEPS_MAX, Script, ScriptArgument,
    ScriptText, Step, sql,
};

/// What a step may be.
const KINDS: &str = "one of: query, query_parameter, script, action";

/// Longest path of an interpreter in bytes.
const INTERPRETER_BYTES_MAX: usize = 256;

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
        let found = format!("{} steps", document.step.len());
        let fault = fault(further, Rule::StepSurplus, found).wanted(format!("at most {STEPS_MAX}"));
        faults.push(fault.fix("join some into one"));
    }
    let is_free = |step: &&Spanned<document::Step>| step.get_ref().query_parameter.is_some();
    if let Some(free) = document.step.iter().find(is_free).filter(|_| document.step.len() > 1) {
        let fault = fault(free, Rule::StepSurplus, "a query of the argument's beside other steps");
        faults.push(fault.wanted("it alone").fix("remove the other steps"));
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
    match (query, query_parameter, script, action) {
        (Some(query), None, None, None) => {
            let sql = faults.take(not_blank(query))?;
            faults.take(one_select(query));
            check_bound(query, &sql, document, faults);
            Some(Step::Query { sql })
        }
        (None, Some(parameter), None, None) => {
            let read = query_from_parameter(parameter, document, name, parameters);
            faults.take(read).flatten()
        }
        (None, None, Some(given), None) => script_step(given, document, faults).map(Step::Script),
        (None, None, None, Some(given)) => {
            action::action(given, document, parameters, faults).map(Step::Action)
        }
        (None, None, None, None) => {
            faults.push(fault(given, Rule::StepAmbiguous, "an empty step").wanted(KINDS));
            None
        }
        (Some(_) | None, Some(_) | None, Some(_) | None, Some(_) | None) => {
            faults.push(fault(given, Rule::StepAmbiguous, "two things in one step").wanted(KINDS));
            None
        }
    }
}

fn script_step(
    given: &Spanned<document::Script>,
    document: &Document,
    faults: &mut Faults,
) -> Option<Script> {
    let document::Script { interpreter, text, resource, arguments } = given.get_ref();
    let interpreter = faults.take(self::interpreter(interpreter));
    let text = match (text, resource) {
        (Some(text), None) => faults.take(not_blank(text)).map(ScriptText::Inline),
        (None, Some(resource)) => faults.take(script_resource(resource, document)).map(ScriptText::Resource),
        (Some(_), Some(_)) | (None, None) => {
            let found = if text.is_some() { "two texts of one script" } else { "a script without a text" };
            faults.push(fault(given, Rule::StepAmbiguous, found).wanted("one of: text, resource"));
            None
        }
    };
    if let Some(further) = arguments.get(ITEMS_MAX) {
        let found = format!("{} arguments", arguments.len());
        faults.push(fault(further, Rule::TooManyItems, found).wanted(format!("at most {ITEMS_MAX}")));
    }
    let mut taken = Vec::new();
    for argument in arguments {
        taken.extend(faults.take(script_argument(argument, document)));
    }
    Some(Script { interpreter: interpreter?, text: text?, arguments: taken })
}

/// What is run may not depend on where or with which `PATH` the client was started.
fn interpreter(given: &Spanned<String>) -> Result<String, Fault> {
    let path = given.get_ref();
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte);
    let is_path = path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_part));
    if is_path && path.len() <= INTERPRETER_BYTES_MAX && path.bytes().all(is_valid) {
        return Ok(path.clone());
    }
    let shown: String = path.chars().take(80).collect();
    Err(fault(given, Rule::InterpreterInvalid, format!("{shown:?} is no interpreter"))
        .wanted("an absolute path such as /bin/sh"))
}

fn script_resource(given: &Spanned<String>, document: &Document) -> Result<String, Fault> {
    let name = given.get_ref();
    let mut resources = document.resource.iter().map(Spanned::get_ref);
    let Some(resource) = resources.find(|resource| resource.name.get_ref() == name) else {
        return Err(unknown(given, format!("no resource is called `{name}`"), "the name of a [[resource]]"));
    };
    if resource.size > SCRIPT_BYTES_MAX {
        let found = format!("a script of {} bytes", resource.size);
        return Err(fault(given, Rule::ScriptTooLarge, found)
            .wanted(format!("at most {SCRIPT_BYTES_MAX}"))
            .fix("leave what it needs to another [[resource]], and give it as an argument"));
    }
    Ok(name.clone())
}

fn script_argument(given: &Spanned<String>, document: &Document) -> Result<ScriptArgument, Fault> {
    let name = given.get_ref();
    let is_parameter = declared(document).any(|parameter| parameter == name);
    let is_resource = document.resource.iter().any(|resource| resource.get_ref().name.get_ref() == name);
    match (is_parameter, is_resource) {
        (true, false) => Ok(ScriptArgument::Parameter(name.clone())),
        (false, true) => Ok(ScriptArgument::Resource(name.clone())),
        (true, true) => {
            let found = format!("`{name}` is a parameter and a resource");
            Err(unknown(given, found, "a name of one of them").fix("give each its own name"))
        }
        (false, false) => {
            let found = format!("nothing is called `{}`", name.chars().take(80).collect::<String>());
            Err(unknown(given, found, "the name of a [[parameter]] or a [[resource]]"))
        }
    }
}

pub(super) fn unknown(given: &Spanned<String>, found: String, wanted: &str) -> Fault {
    fault(given, Rule::StepUnknownName, found).wanted(wanted)
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

/// No device runs anything else, and no Switch sums up with it.
pub(super) fn one_select(query: &Spanned<String>) -> Result<(), Fault> {
    match sql::not_one_select(&sql::tokens(query.get_ref())) {
        Some(found) => Err(fault(query, Rule::QueryNotOneSelect, found).wanted("one SELECT")),
        None => Ok(()),
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

pub(super) fn declared(document: &Document) -> impl Iterator<Item = &String> {
    document.parameter.iter().map(|parameter| parameter.get_ref().name.get_ref())
}
