//! A store that was brought back from a copy: what it had taken on, and what was issued before, may have run.
//!
//! A journal that is a copy has forgotten what started after the copy was made, so nothing of a restart starts before the
//! first Welcome of this process has been judged ([`muster_proto::numbers`]). Without a Switch it waits.
//!
//! What cannot be told: a start whose device had sent no number since the copy was made leaves no trace at the Switch, and
//! a machine brought back with its memory goes on with what it held until the next Welcome. Orders are told apart by when
//! their ids were made: one that was dated ahead, past the time of the restore, counts as issued after it, which is why an
//! operator's command signs no id of the future.

use super::slots::Waiting;
use super::{Admission, Instructions, Now, Refused, outcome};
use crate::store::Entry;
use muster_proto::common::v1::Refusal;
use muster_proto::numbers::Standing;

/// An instruction that was taken on before a restart, with its definition if the store has it.
pub(super) type Held = (Entry, Option<Vec<u8>>);

/// Whether something may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// No Welcome of this process was judged.
    UntilJudged,
    /// One was.
    Released,
}

impl<A: Admission> Instructions<A> {
    /// Takes back an instruction that was taken on before a restart and never started, as far as this store knows.
    pub(crate) fn handle_recovered(&mut self, entry: Entry, definition: Option<Vec<u8>>) {
        self.held.push((entry, definition));
    }

    /// A Welcome was judged; the store has then been brought back last at `restored_at_ms`, which may be earlier than a Switch
    /// that lied had said. If it is news that it was, the journal has ended everything that was open, and all of it is let
    /// go here.
    pub(crate) fn handle_judged(&mut self, standing: Standing, restored_at_ms: i64, now: Now) {
        // A session that ended meanwhile may have kept the news itself.
        let is_news = standing == Standing::Copy || restored_at_ms > self.memory.restored_at_ms;
        self.memory.restored_at_ms = restored_at_ms;
        if is_news {
            self.held.clear();
            self.arriving.clear();
            self.waiting.clear();
            self.fetching.clear();
            self.running.clear();
        }
        self.hold = Hold::Released;
        for (entry, definition) in std::mem::take(&mut self.held) {
            match definition {
                Some(definition) => self.waiting.push_back(Waiting::new(entry, definition, None)),
                None => {
                    let detail =
                        "its definition is no longer in this device's store; issue it again".to_owned();
                    let refused = Refused::new(Refusal::WrongDefinition, detail);
                    self.end(outcome::refused(entry.instruction, &refused, now.wall_ms));
                }
            }
        }
        self.advance(now);
    }

    pub(super) fn may_start(&self) -> bool {
        self.hold == Hold::Released && !self.is_stopping
    }
}
