//! [`Doors`]: what Background Channels say of their own certificates (N3 of trust.md), for `muster doctor`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Background Channels that are remembered at most.
const DOORS_MAX: usize = 64;

/// Texts of one Background Channel (relay.proto).
const WARNINGS_MAX: usize = 16;

/// How long what one said is shown: it says it every few seconds.
const KEPT_MS: i64 = 10 * 60 * 1_000;

/// What was said last, by the name in the service certificate.
#[derive(Debug, Default)]
pub(crate) struct Doors(Mutex<BTreeMap<String, Said>>);

#[derive(Debug)]
struct Said {
    warnings: Vec<String>,
    at_ms: i64,
}

impl Doors {
    /// Notes what one said; what it said before is over.
    pub(crate) fn note(&self, name: &str, warnings: Vec<String>, now_ms: i64) {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.is_empty() {
            doors.remove(name);
            return;
        }
        if doors.len() >= DOORS_MAX && !doors.contains_key(name) {
            let oldest = doors.iter().min_by_key(|(_, said)| said.at_ms).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| doors.remove(&oldest));
        }
        let warnings = warnings.into_iter().take(WARNINGS_MAX).collect();
        doors.insert(name.to_owned(), Said { warnings, at_ms: now_ms });
    }

    /// Returns what was said lately, each with who said it.
    pub(crate) fn warnings(&self, now_ms: i64) -> Vec<String> {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = doors.iter().filter(|(_, said)| now_ms.saturating_sub(said.at_ms) < KEPT_MS);
        let told = lately.flat_map(|(name, said)| {
            said.warnings.iter().map(move |warning| format!("background channel {name}: {warning}"))
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_what_a_background_channel_warns_of_is_shown_until_it_says_otherwise_or_nothing_for_long() {
        let doors = Doors::default();
        let warning = || vec!["certificate CN=b1 expires in 3 days; renew it".to_owned()];

        doors.note("b1", warning(), 0);
        doors.note("b2", warning(), 5);
        doors.note("b2", Vec::new(), 6);

        let told = "background channel b1: certificate CN=b1 expires in 3 days; renew it";
        assert_eq!(doors.warnings(KEPT_MS - 1), [told]);
        assert_eq!(doors.warnings(KEPT_MS), Vec::<String>::new());
    }

    #[test]
    fn the_one_that_said_nothing_for_longest_makes_room() {
        let doors = Doors::default();
        for (at_ms, number) in (0..).zip(0..=DOORS_MAX) {
            doors.note(&format!("b{number}"), vec!["x".to_owned()], at_ms);
        }

        let told = doors.warnings(100);

        assert_eq!(told.len(), DOORS_MAX);
        assert!(!told.iter().any(|one| one.contains("b0:")), "{told:?}");
    }
}
