//! Typed actions: which there are, and what each takes.

use toml::Spanned;

use super::fault;
use super::step::{declared, unknown};
use crate::definition::action::{ACTION_COLUMNS, Action, Operand, ServiceVerb, Takes};
use crate::definition::document::{self, Document};
use crate::definition::error::{Fault, Faults};
use crate::definition::parameter::{Parameter, ParameterKind};
use crate::definition::rule::Rule;
use crate::definition::{Kind, Sandbox};

/// What `do` may be.
const CATALOGUE: &str =
    "service.start, service.stop, service.restart, service.reload, file.put or file.remove";

/// What an action is, before its values are read.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Service(ServiceVerb),
    Put,
    Remove,
}

/// The values that an action has, by their keys.
struct Values<'a>([(&'static str, Option<&'a Spanned<String>>); 4]);

pub(super) fn action(
    given: &Spanned<document::Action>,
    document: &Document,
    parameters: &[Parameter],
    faults: &mut Faults,
) -> Option<Action> {
    faults.take(surroundings(given, document));
    let document::Action { verb, unit, resource, path, mode } = given.get_ref();
    let deed = faults.take(deed(verb))?;
    let values = [("unit", unit), ("resource", resource), ("path", path), ("mode", mode)];
    let values = Values(values.map(|(key, value)| (key, value.as_ref())));
    let takes: &[&str] = match deed {
        Deed::Service(_) => &["unit"],
        Deed::Put => &["resource", "path", "mode"],
        Deed::Remove => &["path"],
    };
    values.check_keys(given, verb.get_ref(), takes, faults);
    let mut operand = |key, takes| {
        values.get(key).and_then(|given| faults.take(operand(given, takes, document, parameters)))
    };
    match deed {
        Deed::Service(verb) => Some(Action::Service { verb, unit: operand("unit", Takes::Unit)? }),
        Deed::Remove => Some(Action::FileRemove { path: operand("path", Takes::Path)? }),
        Deed::Put => {
            let path = operand("path", Takes::Path);
            let mode = values.get("mode").and_then(|given| faults.take(file_mode(given)));
            let resource = values.get("resource").and_then(|given| faults.take(known(given, document)));
            Some(Action::FilePut { resource: resource?, path: path?, mode: mode? })
        }
    }
}

/// Checks that an action can be where it stands.
fn surroundings(given: &Spanned<document::Action>, document: &Document) -> Result<(), Fault> {
    if document.kind == Kind::Question {
        let found = "an action in a question";
        return Err(fault(given, Rule::ActionInQuestion, found)
            .wanted("`kind = \"action\"`")
            .fix("people confirm how many devices an action is for"));
    }
    if document.sandbox == Sandbox::Strict {
        let found = "an action under `sandbox = \"strict\"`, where nobody may change anything";
        return Err(fault(given, Rule::ActionStrict, found).fix("remove `sandbox`"));
    }
    Ok(())
}

fn deed(given: &Spanned<String>) -> Result<Deed, Fault> {
    let word = given.get_ref().as_str();
    let service = |verb: &str| ServiceVerb::ALL.into_iter().find(|known| known.name() == verb);
    let deed = match word.split_once('.') {
        Some(("service", verb)) => service(verb).map(Deed::Service),
        Some(("file", "put")) => Some(Deed::Put),
        Some(("file", "remove")) => Some(Deed::Remove),
        Some(_) | None => None,
    };
    deed.ok_or_else(|| {
        let shown: String = word.chars().take(80).collect();
        fault(given, Rule::StepUnsupported, format!("this version has no action {shown:?}")).wanted(CATALOGUE)
    })
}

impl<'a> Values<'a> {
    fn get(&self, key: &str) -> Option<&'a Spanned<String>> {
        self.0.iter().find(|(known, _)| *known == key).and_then(|(_, value)| *value)
    }

    fn check_keys(&self, given: &Spanned<document::Action>, verb: &str, takes: &[&str], faults: &mut Faults) {
        for (key, value) in &self.0 {
            match (takes.contains(key), value) {
                (true, None) => {
                    let fault = fault(given, Rule::MissingKey, format!("no `{key}` of `{verb}`"));
                    faults.push(fault.wanted("a text in quotes").fix(format!("add `{key} = …`")));
                }
                (false, Some(surplus)) => {
                    let found = format!("`{verb}` has no `{key}`");
                    let fault = fault(surplus, Rule::UnknownKey, found);
                    faults.push(fault.wanted(takes.join(", ")).fix("remove it"));
                }
                (true, Some(_)) | (false, None) => {}
            }
        }
    }
}

fn operand(
    given: &Spanned<String>,
    takes: Takes,
    document: &Document,
    parameters: &[Parameter],
) -> Result<Operand, Fault> {
    let text = given.get_ref();
    let Some(name) = text.strip_prefix(':') else {
        if takes.fits(text) {
            return Ok(Operand::Literal(text.clone()));
        }
        let shown: String = text.chars().take(80).collect();
        return Err(fault(given, Rule::ActionValueInvalid, format!("{shown:?}")).wanted(takes.wanted()));
    };
    match parameters.iter().find(|parameter| parameter.name() == name).map(Parameter::kind) {
        Some(ParameterKind::String { .. } | ParameterKind::Enum { .. }) => {
            Ok(Operand::Parameter(name.to_owned()))
        }
        Some(other) => {
            let found = format!("the parameter is of type {}", other.name());
            Err(fault(given, Rule::ActionValueInvalid, found).wanted("string or enum"))
        }
        // What is wrong with the parameter itself is told there.
        None if declared(document).any(|declared| declared == name) => {
            Ok(Operand::Parameter(name.to_owned()))
        }
        None => {
            let shown: String = name.chars().take(80).collect();
            Err(unknown(given, format!("no parameter is called `{shown}`"), "the name of a [[parameter]]"))
        }
    }
}

/// Rights beyond these (setuid, setgid, sticky) are no content's to bring.
fn file_mode(given: &Spanned<String>) -> Result<u32, Fault> {
    let text = given.get_ref();
    let is_octal = text.len() == 4 && text.starts_with('0');
    u32::from_str_radix(text, 8).ok().filter(|_| is_octal).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        fault(given, Rule::ActionValueInvalid, format!("{shown:?}"))
            .wanted("a mode such as \"0644\", up to \"0777\"")
    })
}

fn known(given: &Spanned<String>, document: &Document) -> Result<String, Fault> {
    let name = given.get_ref();
    let mut names = document.resource.iter().map(|resource| resource.get_ref().name.get_ref());
    if names.any(|known| known == name) {
        return Ok(name.clone());
    }
    let shown: String = name.chars().take(80).collect();
    Err(unknown(given, format!("no resource is called `{shown}`"), "the name of a [[resource]]"))
}

/// Checks that the result can be that of an action, if the last step is one: a machine would be changed, and the answer be
/// `failed`.
pub(super) fn check_result(document: &Document) -> Result<(), Fault> {
    let Some(last) = document.step.last().and_then(|step| step.get_ref().action.as_ref()) else {
        return Ok(());
    };
    let columns = document.result.iter().map(Spanned::get_ref);
    let declared = columns.map(|column| (column.name.get_ref().as_str(), column.kind.get_ref().as_str()));
    if document.result.is_empty() || declared.eq([("changed", "boolean"), ("detail", "text")]) {
        return Ok(());
    }
    let place = document.result.first().map_or(last.span(), Spanned::span);
    Err(Fault::new(place, Rule::ActionResult, "other columns than those of an action").wanted(format!(
        "`{}` of type boolean, then `{}` of type text",
        ACTION_COLUMNS[0].0, ACTION_COLUMNS[1].0
    )))
}
