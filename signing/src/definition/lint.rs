//! Everything that an author got wrong, at once, and advice beyond that.
//!
//! The errors are those that [`super::read`] finds, which [`super::Definition::parse`] refuses too; here a wrong key or
//! type does not hide what stands behind it. Warnings are in [`advice`].

mod advice;
mod shape;

use serde::Deserialize as _;
use toml::de::{DeTable, Deserializer};

use super::document::Document;
use super::error::{Faults, Finding};
use super::{hidden, read};

/// Returns the findings of a text in the order of their places.
pub(super) fn findings(text: &str) -> Vec<Finding> {
    let mut faults = Faults::default();
    look(text, &mut faults);
    faults.into_findings(text)
}

fn look(text: &str, faults: &mut Faults) {
    if faults.take(read::check_text(text)).is_none() {
        return;
    }
    let (mut table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        errors.iter().for_each(|error| faults.push(read::of_toml(error)));
        return;
    }
    hidden::check(table.get_ref(), text, faults);
    shape::check(&mut table, faults);
    match Document::deserialize(Deserializer::from(table)) {
        Ok(document) => {
            read::content(&document, faults);
            advice::give(&document, faults);
            faults.forget(shape::is_nowhere);
        }
        Err(error) => faults.push(read::of_toml(&error)),
    }
}

#[cfg(test)]
mod tests;
