//! The devices' machines: their processes, their sessions, and what they run.

use muster_client::simulation::{Device, Dies, Note, Ran, Stopped};
use muster_load_tests::history::Promise;
use muster_proto::ids::{InstructionId, OutboxId};
use muster_proto::session::v1::{Lane, SequenceRange};

use super::link::{Link, Way};
use super::switch_side::after_ms;
use super::world::{Step, World};

impl World {
    /// Starts the process of a device.
    pub(super) fn start_device(&mut self, device: usize) -> Result<(), String> {
        if self.devices[device].live.is_some() {
            return Ok(());
        }
        let at = self.moment(device);
        let dies = self.plan_death(30);
        let (folder, name) = (&self.devices[device].folder, &self.organisation.names[device].1);
        let started = Device::start(folder, &self.organisation.trust, name, dies, at);
        self.devices[device].generation += 1;
        self.note(|world| format!("d{device:02} starts, the {}. time", world.devices[device].generation));
        match started {
            Ok(live) => {
                self.devices[device].live = Some(live);
                self.connect_later(device, 0);
                self.device_moved(device, Ok(()))
            }
            Err(stopped) => self.device_stopped(device, stopped),
        }
    }

    /// Ends the process of a device where it is.
    pub(super) fn kill_device(&mut self, device: usize) {
        let side = &mut self.devices[device];
        if side.live.take().is_none() {
            return;
        }
        side.works_at = None;
        let link = side.link.take();
        self.totals.device_restarts += 1;
        if let Some(link) = link {
            self.leave_link(link, Way::ToSwitch);
        }
        let after = if self.is_calm { 100 } else { self.rng.between(10, 20_000) };
        self.schedule(after, Step::DeviceStarts(device));
    }

    fn plan_death(&mut self, percent: u64) -> Option<Dies> {
        if self.is_calm || !self.rng.chance(percent) {
            return None;
        }
        let writes = self.rng.between(1, 30);
        Some(if self.rng.chance(50) { Dies::Before(writes) } else { Dies::After(writes) })
    }

    /// Has a device die at one of its next writes.
    pub(super) fn doom_device(&mut self, device: usize) {
        let dies = self.plan_death(100);
        if let Some(live) = &mut self.devices[device].live {
            live.set_dies(dies);
        }
    }

    pub(super) fn device_connects(&mut self, device: usize, generation: u32) -> Result<(), String> {
        let side = &self.devices[device];
        if side.generation != generation || side.link.is_some() || side.live.is_none() {
            return Ok(());
        }
        let (at, now) = (self.moment(device), self.instant());
        let name = self.organisation.names[device].0.clone();
        let ping = std::time::Duration::from_secs(self.rng.between(54, 66));
        let slot = self.switch.live.as_mut().and_then(|switch| switch.accept(name, ping, now));
        let Some(slot) = slot else {
            self.connect_later(device, 0);
            return Ok(());
        };
        self.links_made += 1;
        let link = self.links_made;
        self.links.insert(link, Link::new(device, slot, &mut self.rng));
        self.devices[device].link = Some(link);
        self.note(|_| format!("d{device:02} connects, link {link}"));
        let connected = self.devices[device].live.as_mut().map_or(Ok(()), |live| live.connect(at));
        self.device_moved(device, connected)
    }

    pub(super) fn arrived_at_device(&mut self, link: u64, frame: &[u8]) -> Result<(), String> {
        let Some(held) = self.links.get(&link).filter(|held| held.carries && held.device_open) else {
            self.totals.lost_frames += 1;
            return Ok(());
        };
        let device = held.device;
        let at = self.moment(device);
        let received = self.devices[device].live.as_mut().map_or(Ok(()), |live| live.receive(frame, at));
        self.work_soon(device);
        self.device_moved(device, received)
    }

    pub(super) fn closed_at_device(&mut self, link: u64) -> Result<(), String> {
        let Some(held) = self.links.get_mut(&link).filter(|held| held.device_open) else { return Ok(()) };
        held.device_open = false;
        held.carries = false;
        let device = held.device;
        self.forget_link(link);
        self.devices[device].link = None;
        if let Some(live) = &mut self.devices[device].live {
            live.lost();
        }
        self.work_soon(device);
        self.device_moved(device, Ok(()))
    }

    /// The device gives its session up, and nobody tells the Switch: its next one is the second that the Switch has.
    pub(super) fn abandon_link(&mut self, device: usize) -> Result<(), String> {
        let Some(link) = self.devices[device].link else { return Ok(()) };
        self.note(|_| format!("d{device:02} leaves link {link} without a word"));
        if let Some(held) = self.links.get_mut(&link) {
            held.device_open = false;
            held.carries = self.rng.chance(50);
        }
        self.devices[device].link = None;
        if let Some(live) = &mut self.devices[device].live {
            live.lost();
        }
        self.device_moved(device, Ok(()))
    }

    pub(super) fn device_works(&mut self, device: usize, generation: u32) -> Result<(), String> {
        let at = self.moment(device);
        let side = &mut self.devices[device];
        if side.generation != generation || side.works_at != Some(self.now) {
            return Ok(());
        }
        side.works_at = None;
        let Some(live) = &mut side.live else { return Ok(()) };
        let worked = live.handle_timeout(at).and_then(|()| live.work(at));
        self.device_moved(device, worked)
    }

    pub(super) fn ran(
        &mut self,
        device: usize,
        generation: u32,
        instruction: InstructionId,
        how: Ran,
    ) -> Result<(), String> {
        let at = self.moment(device);
        let side = &mut self.devices[device];
        // What runs ends with its client.
        if side.generation != generation {
            return Ok(());
        }
        let Some(live) = &mut side.live else { return Ok(()) };
        let finished = live.finish(instruction, how, at);
        self.device_moved(device, finished)
    }

    /// The device has something to report.
    pub(super) fn report(&mut self, device: usize) -> Result<(), String> {
        let at = self.moment(device);
        let Some(live) = &mut self.devices[device].live else { return Ok(()) };
        let reported = live.report("simulated.happened", at);
        let done = reported.map(|(outbox, sequence)| {
            self.truth.events.insert((device, outbox, sequence));
        });
        self.device_moved(device, done)
    }

    pub(super) fn post_acked(
        &mut self,
        device: usize,
        generation: u32,
        outbox: OutboxId,
        ranges: Vec<SequenceRange>,
    ) -> Result<(), String> {
        let side = &mut self.devices[device];
        if side.generation != generation {
            return Ok(());
        }
        let acked = side.live.as_mut().map_or(Ok(()), |live| live.posted(outbox, ranges));
        self.device_moved(device, acked)
    }

    /// Something was told to a device: what it did is noted, what it has to say goes on its way, and what is due is put on the agenda.
    pub(super) fn device_moved(&mut self, device: usize, outcome: Result<(), Stopped>) -> Result<(), String> {
        let at = self.moment(device);
        let mut outcome = outcome;
        let mut frames = Vec::new();
        if let Some(live) = &mut self.devices[device].live {
            if outcome.is_ok() {
                outcome = live.transmit(at).map(|sent| frames = sent);
            }
            let notes = live.take_notes();
            for note in notes {
                self.noted(device, note);
            }
        }
        if let Err(stopped) = outcome {
            return self.device_stopped(device, stopped);
        }
        self.send_to_switch(device, frames);
        let Some(live) = &self.devices[device].live else { return Ok(()) };
        if !live.is_connected()
            && let Some(link) = self.devices[device].link.take()
        {
            self.hang_up(link);
        }
        self.work_when_due(device);
        Ok(())
    }

    fn device_stopped(&mut self, device: usize, stopped: Stopped) -> Result<(), String> {
        match stopped {
            Stopped::Died(what, side) => {
                self.note(|_| format!("d{device:02} dies {side:?} the commit of its {what}"));
                self.totals.crash_points.insert(format!("device {side:?} {what}"));
                if self.devices[device].live.is_some() {
                    self.kill_device(device);
                } else {
                    self.totals.device_restarts += 1;
                    self.schedule(1_000, Step::DeviceStarts(device));
                }
                Ok(())
            }
            Stopped::Broken(error) => Err(format!("the store of d{device:02} broke: {error}")),
        }
    }

    fn noted(&mut self, device: usize, note: Note) {
        self.note(|world| format!("d{device:02} {}", world.told(&note)));
        match note {
            Note::Welcomed => self.totals.sessions += 1,
            Note::Renewed => {
                self.truth.broken.push(format!("d{device:02} takes its store for a copy, and there is none"));
            }
            Note::Started(instruction) => {
                self.totals.starts += 1;
                let starts = self.truth.starts.entry((device, instruction)).or_default();
                *starts += 1;
                if *starts > 1 {
                    let called = self.called(instruction);
                    self.truth.broken.push(format!("d{device:02} starts {called} a second time"));
                }
                let generation = self.devices[device].generation;
                let slowest = [50, 2_000, 30_000][self.rng.place(3)];
                let after = self.rng.below(slowest);
                let how = if self.rng.chance(85) { Ran::Answered } else { Ran::Failed };
                self.schedule(after, Step::Ran { device, generation, instruction, how });
            }
            Note::Ending(instruction) => {
                let generation = self.devices[device].generation;
                let after = self.rng.below(300);
                self.schedule(after, Step::Ran { device, generation, instruction, how: Ran::Ended });
            }
            Note::Recorded(instruction, state) => self.truth.recorded.push((device, instruction, state)),
            Note::Acked(lane, outbox, sequence, result) => {
                self.truth.recorded.extend(result.map(|(id, state)| (device, id, state)));
                let (device, outbox_id) = (self.device_name(device), outbox.to_string());
                match lane {
                    Lane::Results => {
                        self.promises.push(Promise::ResultAcked { device, outbox_id, sequence });
                    }
                    Lane::Events => self.promises.push(Promise::EventAcked { device, outbox_id, sequence }),
                    Lane::Unspecified => {}
                }
            }
            Note::Parted(_, pause) => {
                let pause = u64::try_from(pause.as_millis()).unwrap();
                self.connect_later(device, pause);
            }
        }
    }

    fn told(&self, note: &Note) -> String {
        match note {
            Note::Started(instruction) => format!("starts {}", self.called(*instruction)),
            Note::Ending(instruction) => format!("ends what runs of {}", self.called(*instruction)),
            Note::Recorded(instruction, state) => {
                format!("has the result of {}: {}", self.called(*instruction), state.name())
            }
            Note::Acked(_, _, sequence, Some((instruction, state))) => {
                format!("is acked {sequence}, {} of {}", state.name(), self.called(*instruction))
            }
            Note::Acked(_, _, sequence, None) => format!("is acked event {sequence}"),
            Note::Welcomed | Note::Renewed | Note::Parted(..) => format!("{note:?}"),
        }
    }

    pub(super) fn device_name(&self, device: usize) -> String {
        self.organisation.names[device].0.to_string()
    }

    fn send_to_switch(&mut self, device: usize, frames: Vec<bytes::Bytes>) {
        let Some(link) = self.devices[device].link else { return };
        for frame in frames {
            let Some(held) = self.links.get_mut(&link) else { return };
            if held.carries {
                let after = held.arrival(Way::ToSwitch, self.now, &mut self.rng) - self.now;
                self.schedule(after, Step::ToSwitch(link, frame));
            } else {
                self.totals.lost_frames += 1;
            }
        }
    }

    /// The device closes a connection.
    fn hang_up(&mut self, link: u64) {
        let Some(held) = self.links.get_mut(&link) else { return };
        held.device_open = false;
        if held.carries && held.switch_open {
            let after = held.arrival(Way::ToSwitch, self.now, &mut self.rng) - self.now;
            self.schedule(after, Step::ClosedAtSwitch(link));
        }
        self.forget_link(link);
    }

    fn connect_later(&mut self, device: usize, pause: u64) {
        let generation = self.devices[device].generation;
        let most = if self.is_calm { 500 } else { [100, 3_000, 40_000][self.rng.place(3)] };
        let after = pause + self.rng.below(most);
        self.schedule(after, Step::DeviceConnects(device, generation));
    }

    /// The machine of a device gets its turn a little behind its session.
    pub(super) fn work_soon(&mut self, device: usize) {
        let after = self.rng.below(6);
        self.work_after(device, after);
    }

    fn work_when_due(&mut self, device: usize) {
        let at = self.moment(device);
        let Some(live) = &self.devices[device].live else { return };
        if let Some(due) = live.poll_timeout(at) {
            let after = after_ms(due, self.organisation.begins).saturating_sub(self.now).max(20);
            self.work_after(device, after);
        }
    }

    fn work_after(&mut self, device: usize, after: u64) {
        let at = self.now + after;
        let side = &mut self.devices[device];
        if side.live.is_some() && side.works_at.is_none_or(|set| at < set) {
            side.works_at = Some(at);
            let generation = side.generation;
            self.schedule(after, Step::DeviceWorks(device, generation));
        }
    }
}
