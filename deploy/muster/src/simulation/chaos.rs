//! What goes wrong, and what people and devices do meanwhile.

use muster_switch::simulation::{Dies, First};

use super::world::{Step, World};

impl World {
    /// Something happens, and the next thing soon.
    pub(super) fn chaos(&mut self) -> Result<(), String> {
        if self.is_calm {
            return Ok(());
        }
        let after = self.rng.between(50, 1_800);
        self.schedule(after, Step::Chaos);
        let device = self.rng.place(self.devices.len());
        match self.rng.below(100) {
            0..34 => self.report(device)?,
            34..40 if self.truth.prepared.len() < 8 => self.issue(),
            34..44 => self.stop(),
            44..56 => self.cut(device),
            56..60 => self.silence(device),
            60..66 => self.abandon_link(device)?,
            66..72 => {
                self.note(|_| format!("d{device:02} is killed"));
                self.kill_device(device);
            }
            72..80 => self.doom_device(device),
            80..82 => self.kill_switch("killed"),
            82..87 => self.switch.dies_in = Some(self.rng.below(6)),
            87..88 => self.close_switch()?,
            88..98 => self.post(device)?,
            98..99 => self.jump_device(device),
            _ => self.jump_switch(),
        }
        Ok(())
    }

    /// A connection is lost with all that is on its way; each side is told at a moment of its own.
    fn cut(&mut self, device: usize) {
        let Some(link) = self.devices[device].link else { return };
        let Some(held) = self.links.get_mut(&link) else { return };
        held.carries = false;
        self.totals.cuts += 1;
        self.note(|_| format!("link {link} of d{device:02} is cut"));
        for step in [Step::ClosedAtSwitch(link), Step::ClosedAtDevice(link)] {
            let after = self.rng.below(4_000);
            self.schedule(after, step);
        }
    }

    /// A connection carries nothing any more, and nobody is told.
    fn silence(&mut self, device: usize) {
        let Some(link) = self.devices[device].link else { return };
        let Some(held) = self.links.get_mut(&link) else { return };
        held.carries = false;
        self.totals.cuts += 1;
        self.note(|_| format!("link {link} of d{device:02} goes silent"));
    }

    /// The Switch is told to stop: it sends everybody away, commits, and is started again.
    fn close_switch(&mut self) -> Result<(), String> {
        let now = self.instant();
        self.note(|_| "the Switch is told to stop".to_owned());
        let Some(switch) = &mut self.switch.live else { return Ok(()) };
        switch.send_all_away();
        self.switch_moved();
        if let Some(switch) = &mut self.switch.live {
            let (dies, first) = (Dies::Never, First::Answers);
            switch.step(dies, first, now)?;
        }
        self.switch_moved();
        self.kill_switch("stopped");
        Ok(())
    }

    /// The wall clock of a device is set, by seconds or by days.
    fn jump_device(&mut self, device: usize) {
        let skew_ms = self.jump(&[5_000, 60_000, 3_600_000, 2 * 86_400_000]);
        self.note(|_| format!("the clock of d{device:02} is off by {skew_ms} ms"));
        self.devices[device].skew_ms = skew_ms;
    }

    fn jump_switch(&mut self) {
        // What it dates a day ahead would end a day behind the rest.
        let skew_ms = self.jump(&[5_000, 60_000, 1_200_000]);
        self.note(|_| format!("the clock of the Switch is off by {skew_ms} ms"));
        self.switch.skew_ms = skew_ms;
        self.turn_hands();
        self.switch_moved();
    }

    fn jump(&mut self, sizes: &[u64]) -> i64 {
        self.totals.clock_jumps += 1;
        let most = sizes[self.rng.place(sizes.len())];
        let by = i64::try_from(self.rng.below(most)).unwrap();
        if self.rng.chance(40) {
            0
        } else if self.rng.chance(50) {
            by
        } else {
            -by
        }
    }
}
