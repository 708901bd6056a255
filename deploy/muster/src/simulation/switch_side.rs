//! The Switch's machine: its process, and what its sessions send.

use std::time::{Duration, Instant};

use muster_load_tests::history::Promise;
use muster_proto::limits::SessionLimits;
use muster_switch::simulation::{Answer, Ask, Dies, First, Switch};

use super::link::Way;
use super::organisation::{DEFINITION, TENANT, VERSION};
use super::world::{Caller, Step, World};

impl World {
    /// Starts the process.
    pub(super) fn start_switch(&mut self) -> Result<(), String> {
        if self.switch.live.is_some() {
            return Ok(());
        }
        self.turn_hands();
        self.switch.generation += 1;
        let opened = Switch::open(
            &self.switch.folder,
            TENANT,
            &self.organisation.signers,
            &self.switch.hands,
            SessionLimits::default(),
        );
        self.switch.live = Some(opened.map_err(|error| format!("the Switch does not start: {error}"))?);
        self.note(|world| format!("the Switch starts, the {}. time", world.switch.generation));
        self.switch_moved();
        Ok(())
    }

    /// Has the Switch take the documents, before anything goes wrong.
    pub(super) fn import(&mut self) -> Result<(), String> {
        let (licence, definition) = (self.organisation.licence.clone(), self.organisation.definition.clone());
        for ask in [Ask::ImportLicence(licence), Ask::ImportDefinition(definition)] {
            let now = self.instant();
            let Some(switch) = &mut self.switch.live else { return Err("no Switch".to_owned()) };
            switch.ask(ask);
            switch.step(Dies::Never, First::Answers, now)?;
            match switch.take_answers().pop() {
                Some((_, Answer::Imported)) => {}
                other => return Err(format!("a document is not taken: {other:?}")),
            }
        }
        let (name, version) = (DEFINITION.to_owned(), VERSION.to_owned());
        self.promises.push(Promise::DefinitionImported { name, version });
        Ok(())
    }

    /// Ends the process where it is; what it had not committed is gone.
    pub(super) fn kill_switch(&mut self, why: &str) {
        let Some(dead) = self.switch.live.take() else { return };
        self.totals.repeats += dead.came();
        drop(dead);
        self.note(|_| format!("the Switch dies: {why}"));
        self.totals.switch_restarts += 1;
        self.switch.engine_at = None;
        self.switch.dies_in = None;
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.leave_link(link, Way::ToDevice);
        }
        for caller in std::mem::take(&mut self.calls).into_values() {
            if let Caller::Job(job) = caller {
                self.ask_again(job);
            }
        }
        let after = if self.is_calm { 100 } else { self.rng.between(50, 15_000) };
        self.schedule(after, Step::SwitchStarts);
    }

    /// The process of one side is gone: the other is told by its system, or by nobody.
    pub(super) fn leave_link(&mut self, link: u64, way: Way) {
        let (is_told, arrives) = (self.rng.chance(60), self.rng.chance(50));
        let after = self.rng.below(2_000);
        let Some(held) = self.links.get_mut(&link) else { return };
        let (own, other) = match way {
            Way::ToDevice => (&mut held.switch_open, held.device_open),
            Way::ToSwitch => (&mut held.device_open, held.switch_open),
        };
        if !std::mem::replace(own, false) {
            return;
        }
        // What was sent before may still come.
        held.carries &= arrives;
        if other && is_told {
            self.schedule(
                after,
                match way {
                    Way::ToDevice => Step::ClosedAtDevice(link),
                    Way::ToSwitch => Step::ClosedAtSwitch(link),
                },
            );
        }
        self.forget_link(link);
    }

    /// A connection that both sides have left is none.
    pub(super) fn forget_link(&mut self, link: u64) {
        if self.links.get(&link).is_some_and(|held| !held.device_open && !held.switch_open) {
            self.links.remove(&link);
        }
    }

    pub(super) fn arrived_at_switch(&mut self, link: u64, frame: &[u8]) {
        let now = self.instant();
        let Some(held) = self.links.get(&link).filter(|held| held.carries && held.switch_open) else {
            self.totals.lost_frames += 1;
            return;
        };
        if let Some(switch) = &mut self.switch.live {
            switch.receive(held.slot, frame, now);
        }
        self.switch_moved();
    }

    pub(super) fn closed_at_switch(&mut self, link: u64) {
        let Some(held) = self.links.get_mut(&link).filter(|held| held.switch_open) else { return };
        held.switch_open = false;
        held.carries = false;
        if let Some(switch) = &mut self.switch.live {
            switch.lost(held.slot);
        }
        self.forget_link(link);
        self.switch_moved();
    }

    pub(super) fn session_due(&mut self, link: u64) {
        let (at, now) = (self.now, self.instant());
        let Some(held) = self.links.get_mut(&link).filter(|held| held.switch_open) else { return };
        if held.due_at != Some(at) {
            return;
        }
        held.due_at = None;
        if let Some(switch) = &mut self.switch.live {
            switch.handle_timeout(held.slot, now);
        }
        self.switch_moved();
    }

    /// Lets the engine carry out a batch, in whose middle it may die.
    pub(super) fn engine(&mut self, generation: u32) -> Result<(), String> {
        if self.switch.generation != generation || self.switch.engine_at != Some(self.now) {
            return Ok(());
        }
        self.switch.engine_at = None;
        let dies = self.dies_now();
        let first = if self.rng.chance(50) { First::Answers } else { First::Messages };
        let now = self.instant();
        let Some(switch) = &mut self.switch.live else { return Ok(()) };
        let lives = switch.step(dies, first, now).map_err(|error| format!("the Switch's store: {error}"))?;
        if lives {
            self.switch_moved();
        } else {
            self.totals.crash_points.insert(format!("Switch {dies:?}"));
            self.kill_switch(&format!("{dies:?}"));
        }
        Ok(())
    }

    fn dies_now(&mut self) -> Dies {
        let Some(left) = &mut self.switch.dies_in else { return Dies::Never };
        if *left > 0 {
            *left -= 1;
            return Dies::Never;
        }
        if self.rng.chance(50) { Dies::BeforeCommit } else { Dies::AfterCommit }
    }

    /// Something was told to the Switch: what it has to say goes on its way, and what is due is put on the agenda.
    pub(super) fn switch_moved(&mut self) {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.flush_switch(link);
        }
        let Some(switch) = &mut self.switch.live else { return };
        let answers = switch.take_answers();
        for (call, answer) in answers {
            self.answered(call, answer);
        }
        let Some(switch) = &self.switch.live else { return };
        let due = switch.until_due().map(|due| u64::try_from(due.as_millis()).unwrap());
        // The time of day may go on faster than time passes, when a clock that jumped is believed: it is looked at now and then.
        let after = if switch.has_work() { 0 } else { due.unwrap_or(u64::MAX).clamp(100, 10_000) };
        let after = if after == 0 { self.rng.below(4) } else { after };
        let at = self.now + after;
        if self.switch.engine_at.is_none_or(|set| at < set) {
            self.switch.engine_at = Some(at);
            let generation = self.switch.generation;
            self.schedule(after, Step::Engine(generation));
        }
    }

    fn flush_switch(&mut self, link: u64) {
        let begins = self.organisation.begins;
        let Some(held) = self.links.get_mut(&link).filter(|held| held.switch_open) else { return };
        let Some(switch) = &mut self.switch.live else { return };
        let (frames, ends) = switch.transmit(held.slot);
        let mut sent = Vec::new();
        for frame in frames {
            if held.carries {
                let at = held.arrival(Way::ToDevice, self.now, &mut self.rng);
                sent.push((at - self.now, Step::ToDevice(link, frame)));
            } else {
                self.totals.lost_frames += 1;
            }
        }
        if ends {
            held.switch_open = false;
            switch.lost(held.slot);
            if held.carries {
                let at = held.arrival(Way::ToDevice, self.now, &mut self.rng);
                sent.push((at - self.now, Step::ClosedAtDevice(link)));
            }
        } else if let Some(due) = switch.poll_timeout(held.slot) {
            let at = after_ms(due, begins).max(self.now + 1);
            if held.due_at.is_none_or(|set| at < set || set < self.now) {
                held.due_at = Some(at);
                sent.push((at - self.now, Step::SessionDue(link)));
            }
        }
        for (after, step) in sent {
            self.schedule(after, step);
        }
        self.forget_link(link);
    }

    /// Asks the Switch, if there is one; returns the number of the call.
    pub(super) fn ask(&mut self, ask: Ask, caller: Caller) -> bool {
        let Some(switch) = &mut self.switch.live else { return false };
        let call = switch.ask(ask);
        self.calls.insert(call, caller);
        self.switch_moved();
        true
    }

    fn answered(&mut self, call: u64, answer: Answer) {
        match self.calls.remove(&call) {
            Some(Caller::Job(job)) => self.job_answered(job, answer),
            Some(Caller::Relay) => self.relayed(answer),
            None => {}
        }
    }
}

/// Returns how many virtual milliseconds after the beginning a moment is, rounded up.
pub(super) fn after_ms(at: Instant, begins: Instant) -> u64 {
    let after = at.saturating_duration_since(begins);
    u64::try_from(after.as_nanos().div_ceil(Duration::from_millis(1).as_nanos())).unwrap()
}
