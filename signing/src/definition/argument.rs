//! Arguments of a definition: what a person typed, and what an order carries.

use muster_proto::common::v1::NamedValue;

use super::parameter::Parameter;
use super::{Definition, Step};

impl Definition {
    /// Returns a value for every parameter, in the definition's order: the arguments, checked, and defaults elsewhere.
    ///
    /// # Errors
    /// An argument is unknown, given twice, missing, or does not fit its signed parameter or the action that takes it.
    pub fn bind(&self, arguments: &[NamedValue]) -> Result<Vec<NamedValue>, ArgumentError> {
        for (index, argument) in arguments.iter().enumerate() {
            self.parameter(&argument.name)?;
            if arguments.iter().take(index).any(|earlier| earlier.name == argument.name) {
                return Err(ArgumentError::Repeated(argument.name.clone()));
            }
        }
        let bound: Vec<NamedValue> = self
            .parameters()
            .iter()
            .map(|parameter| bound(parameter, arguments))
            .collect::<Result<_, _>>()?;
        for step in self.steps() {
            match step {
                Step::Action(action) => action.check(&bound)?,
                Step::Query { .. } | Step::QueryParameter { .. } | Step::Script(_) => {}
            }
        }
        Ok(bound)
    }

    /// Reads one argument as a person typed it.
    ///
    /// # Errors
    /// The definition has no such parameter, or the text does not fit it.
    pub fn parse_argument(&self, name: &str, text: &str) -> Result<NamedValue, ArgumentError> {
        let value = self.parameter(name)?.parse(text)?;
        Ok(NamedValue { name: name.to_owned(), value: Some(value) })
    }

    fn parameter(&self, name: &str) -> Result<&Parameter, ArgumentError> {
        let unknown = || ArgumentError::Unknown {
            name: name.chars().take(80).collect(),
            definition: self.name().to_string(),
            fix: nearest(name, self.parameters()),
        };
        self.parameters().iter().find(|parameter| parameter.name() == name).ok_or_else(unknown)
    }
}

/// Why an argument is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// No parameter has this name.
    #[error("{definition} has no parameter {name:?}; {fix}")]
    Unknown {
        /// The argument's name.
        name: String,
        /// The definition.
        definition: String,
        /// What to do.
        fix: String,
    },
    /// A parameter without default was given no argument.
    #[error("parameter `{name}` has no default; give it {wanted}")]
    Missing {
        /// The parameter.
        name: String,
        /// What it may be.
        wanted: String,
    },
    /// Two arguments for one parameter.
    #[error("parameter `{0}` is given twice; give it once")]
    Repeated(String),
    /// The value is not what the parameter may be.
    #[error("parameter `{name}` is {got}; wanted {wanted}")]
    Unfit {
        /// The parameter.
        name: String,
        /// What was given.
        got: String,
        /// What it may be.
        wanted: String,
    },
}

fn bound(parameter: &Parameter, arguments: &[NamedValue]) -> Result<NamedValue, ArgumentError> {
    let given = arguments.iter().find(|argument| argument.name == parameter.name());
    let value = match given {
        Some(argument) => argument.value.clone().unwrap_or_default(),
        None => parameter.default().cloned().ok_or_else(|| ArgumentError::Missing {
            name: parameter.name().to_owned(),
            wanted: parameter.kind().to_string(),
        })?,
    };
    parameter.check(&value)?;
    Ok(NamedValue { name: parameter.name().to_owned(), value: Some(value) })
}

fn nearest(name: &str, parameters: &[Parameter]) -> String {
    let distance = |parameter: &&Parameter| strsim::damerau_levenshtein(name, parameter.name());
    match parameters.iter().min_by_key(distance) {
        Some(nearest) if distance(&nearest) <= 2 => format!("did you mean `{}`?", nearest.name()),
        Some(_) => {
            let names: Vec<&str> = parameters.iter().map(Parameter::name).collect();
            format!("it has {}", names.join(", "))
        }
        None => "it has none".to_owned(),
    }
}
