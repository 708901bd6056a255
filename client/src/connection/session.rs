//! One session: the shell around `muster_proto`'s client half.

use std::time::{Duration, Instant};

use muster_proto::ids::Digest;
use muster_proto::numbers::Standing;
use muster_proto::session::PushError;
use muster_proto::session::client::{ClientEvent, ClientSession};
use muster_proto::session::v1::{
    DocumentKind, Event, Lane, Result as InstructionResult, SequenceRange, Welcome,
};
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use super::asks::Asks;
use super::caller::Opened;
use super::drain::LaneDrain;
use super::socket::{Heard as Said, Socket};
use super::stops::ExpectedStops;
use super::{Connection, End, Link};
use crate::config::Transport;
use crate::instructions::STOPS_WAIT;
use crate::instructions::shell::{Inbound, Outbound};
use crate::policy::Heard;
use crate::store::{QueueLane, SeenNumbers, StoreError};

/// How long a client that stops takes leave of the Switch, which notices in any case: a small part of its drain.
const LEAVE: Duration = Duration::from_secs(1);

/// Acks that are remembered while a full disk keeps what they name from being deleted; the oldest go first.
const UNDELETED_MAX: usize = 64;

impl Connection {
    /// Connects and drives one session to its end.
    pub(super) async fn session(&mut self) -> End {
        let (stop, takeover) = (self.stop.clone(), self.takeover.clone());
        let opened = if takeover.is_offered() {
            // Nothing to wait for.
            self.opened().await
        } else {
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopped,
                () = takeover.offered() => return End::Moved,
                opened = self.opened() => opened,
            }
        };
        let end = match opened {
            Ok((opened, welcome)) => {
                let transport = opened.socket.transport();
                let end = self.drive(opened, welcome).await;
                self.note_road(Some(transport), &end);
                end
            }
            Err(end) => {
                self.note_road(None, &end);
                return end;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            // The instructions take it, also while their disk is full. If they have ended, so has the client.
            _taken = self.inbox.send(Inbound::Disconnected) => {}
        }
        let parted = self.store.write(|tables| {
            tables.parted();
            Ok(())
        });
        match parted.await {
            // A full disk refused somebody else's write of the same batch. Numbers then count as offered for longer,
            // which makes a copy of the store harder to tell and does no other harm.
            Ok(()) | Err(StoreError::DiskFull) => end,
            Err(error) => End::Store(error),
        }
    }

    /// Notes what the road was good for; none: there was none.
    fn note_road(&self, transport: Option<Transport>, end: &End) {
        let Some(url) = self.profile.switch(self.at) else { return };
        match (&*self.link.borrow(), transport) {
            (Link::Up { .. }, Some(transport)) => self.caller.note_ended(url, transport, end),
            (Link::Up { .. } | Link::Down { .. }, transport) => {
                self.caller.note_unwelcomed(url, transport, end);
            }
        }
    }

    async fn drive(&mut self, opened: Opened, welcome: Option<Welcome>) -> End {
        // What was meant for an earlier session has no place in this one.
        while self.outbound.try_recv().is_ok() {}
        let appended = self.store.appended();
        let mut session = Session {
            connection: self,
            socket: opened.socket,
            protocol: opened.protocol,
            appended,
            asks: Asks::default(),
            results: LaneDrain::new(QueueLane::Results),
            events: LaneDrain::new(QueueLane::Events),
            stops: ExpectedStops::default(),
            unjudged_until: None,
            undeleted: Vec::new(),
        };
        if let Some(welcome) = welcome
            && let Err(end) = session.handle_welcome(welcome).await
        {
            return end;
        }
        session.drive().await.err().unwrap_or(End::Stopped)
    }

    /// Returns a session to be driven: one that was welcomed elsewhere, or a new connection.
    async fn opened(&mut self) -> Result<(Opened, Option<Welcome>), End> {
        if let Some(welcomed) = self.takeover.take() {
            self.profile = welcomed.profile;
            self.at = welcomed.at;
            if let Some(url) = self.profile.switch(self.at) {
                self.address.send_replace(url.to_string());
            }
            return Ok((welcomed.opened, Some(welcomed.welcome)));
        }
        let Some(url) = self.profile.switch(self.at) else {
            return Err(End::WebSocket("no Switch is named".to_owned()));
        };
        self.address.send_replace(url.to_string());
        Ok((self.caller.call(&self.profile.credentials, url).await?, None))
    }
}

struct Session<'a> {
    connection: &'a mut Connection,
    socket: Socket,
    protocol: ClientSession,
    appended: watch::Receiver<u64>,
    asks: Asks,
    results: LaneDrain,
    events: LaneDrain,
    stops: ExpectedStops,
    /// The disk had no room for what the Welcome says: until then stops of what runs are heard, and the session does nothing else.
    unjudged_until: Option<Instant>,
    /// What was acked and is not deleted, since the disk had no room for that; the oldest first.
    undeleted: Vec<(QueueLane, Vec<SequenceRange>)>,
}

impl Session<'_> {
    /// Runs until the session ends; there is always a reason.
    async fn drive(&mut self) -> Result<(), End> {
        let (stop, takeover) = (self.connection.stop.clone(), self.connection.takeover.clone());
        loop {
            // Writing may take long, a stop may not.
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave(End::Stopped).await,
                () = takeover.offered() => return self.leave(End::Moved).await,
                settled = self.settle() => settled?,
            }
            let own = self.stops.poll_timeout().into_iter().chain(self.unjudged_until);
            let deadline = self.protocol.poll_timeout().into_iter().chain(own).min();
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave(End::Stopped).await,
                () = takeover.offered() => return self.leave(End::Moved).await,
                said = self.socket.hear() => self.handle_said(said?),
                Some(outbound) = self.connection.outbound.recv() => self.handle_outbound(outbound)?,
                Ok(()) = self.appended.changed() => {
                    self.results.handle_append();
                    self.events.handle_append();
                }
                () = wait_until(deadline) => self.protocol.handle_timeout(Instant::now()),
            }
        }
    }

    /// Handles and sends everything that can be by now.
    async fn settle(&mut self) -> Result<(), End> {
        self.handle_events().await?;
        if let Some(until) = self.unjudged_until {
            self.transmit().await?;
            let is_over = until <= Instant::now();
            return if is_over { self.leave(End::Store(StoreError::DiskFull)).await } else { Ok(()) };
        }
        // What waits may be much and the line slow: an order to stop is read first.
        if !self.stops.are_due(Instant::now()) {
            self.drain().await?;
        }
        self.asks.send(&mut self.protocol);
        self.transmit().await?;
        // What was written may have made room.
        while self.asks.send(&mut self.protocol) > 0 {
            self.transmit().await?;
        }
        Ok(())
    }

    /// Ends the session since the client stops, or has another one.
    async fn leave(&mut self, end: End) -> Result<(), End> {
        let limit = self.connection.caller.config.write_timeout.min(LEAVE);
        drop(timeout(limit, self.socket.close()).await);
        Err(end)
    }

    fn handle_said(&mut self, said: Said) {
        let now = Instant::now();
        match said {
            Said::Frame(frame) => {
                tracing::trace!(bytes = frame.len(), "frame in");
                self.protocol.handle_message(&frame, now);
            }
            Said::Life => self.protocol.handle_byte(now),
        }
    }

    fn handle_outbound(&mut self, outbound: Outbound) -> Result<(), End> {
        if self.unjudged_until.is_some() {
            return Ok(());
        }
        match outbound {
            Outbound::Again => return Err(End::Busy),
            Outbound::Progress(instruction, state) => {
                if let Err(error) = self.protocol.push_progress(instruction, state) {
                    // A result tells more than a progress.
                    tracing::debug!(%error, "not sent");
                }
            }
            Outbound::Ask(kind, digest) => self.asks.push(kind, digest),
            Outbound::CheckPolicy(serial) => {
                if let Err(error) = self.protocol.push_policy_check(serial) {
                    // It is told again in an hour.
                    tracing::debug!(%error, serial, "the policy is not told");
                }
            }
        }
        Ok(())
    }

    async fn handle_events(&mut self) -> Result<(), End> {
        while let Some(event) = self.protocol.poll_event() {
            if self.unjudged_until.is_some() {
                self.handle_unjudged(event).await?;
            } else {
                self.handle_event(event).await?;
            }
        }
        Ok(())
    }

    async fn handle_event(&mut self, event: ClientEvent) -> Result<(), End> {
        match event {
            ClientEvent::Welcome(welcome) => self.handle_welcome(welcome).await?,
            ClientEvent::Order { envelope, proof } => {
                self.stops.handle_order();
                self.deliver(Inbound::Order { envelope, proof }).await?;
            }
            ClientEvent::Acked { lane, ranges } => self.handle_acked(lane, ranges).await?,
            ClientEvent::Document(document) => {
                let Ok(digest) = Digest::try_from(&document.digest[..]) else { return Ok(()) };
                let kind = document.kind();
                if kind == DocumentKind::Policy {
                    self.connection.hear(Heard::Document { digest, envelope: document.envelope });
                    return Ok(());
                }
                self.deliver(Inbound::Document { kind, digest, envelope: document.envelope }).await?;
            }
            ClientEvent::LicenceNotice(digest) => self.deliver(Inbound::LicenceNotice(digest)).await?,
            ClientEvent::PolicyNotice { digest, spread } => {
                if let Some(digest) = digest {
                    self.connection.hear(Heard::Notice { digest, spread });
                }
            }
            ClientEvent::GoAway { reason, reconnect_after, detail } => {
                return Err(End::GoneAway { reason, reconnect_after, detail });
            }
            ClientEvent::Closed { reason } => {
                self.transmit().await?;
                return Err(End::Closed(reason));
            }
        }
        Ok(())
    }

    /// Handles what comes in a session whose Welcome could not be judged: its orders may be stops of what runs, and all else is for a session
    /// that can be built on.
    async fn handle_unjudged(&mut self, event: ClientEvent) -> Result<(), End> {
        match event {
            ClientEvent::Order { envelope, .. } => self.deliver(Inbound::Urgent(envelope)).await,
            ended @ (ClientEvent::GoAway { .. } | ClientEvent::Closed { .. }) => {
                self.handle_event(ended).await
            }
            ClientEvent::Welcome(_)
            | ClientEvent::Acked { .. }
            | ClientEvent::Document(_)
            | ClientEvent::LicenceNotice(_)
            | ClientEvent::PolicyNotice { .. } => Ok(()),
        }
    }

    async fn handle_welcome(&mut self, welcome: Welcome) -> Result<(), End> {
        let (epoch, switch_ms, stops_due) = (welcome.epoch, welcome.time_ms, welcome.stops_due);
        let seen = SeenNumbers { highest: welcome.highest_sequence, by_session: welcome.highest_by_session };
        let now_ms = crate::clock::wall_ms();
        let judged = self.connection.store.alone(move |tables| {
            tables.keep_epoch(epoch)?;
            let standing = tables.welcomed(seen, switch_ms, now_ms)?;
            Ok((standing, tables.outbox_id(), tables.restored_at_ms(now_ms)?))
        });
        let (standing, outbox, restored_at_ms) = match judged.await {
            Err(StoreError::DiskFull) => return self.hear_stops().await,
            judged => judged?,
        };
        match standing {
            Standing::Own => {}
            Standing::Claimed => {
                tracing::warn!(
                    highest_sequence = seen.highest,
                    %outbox,
                    "the Background Channel has handed on numbers that this store never sent: somebody made them up, or the store was \
                     brought back from a copy; it goes on under another outbox_id, and events that waited may be listed twice"
                );
                metrics::counter!(crate::metrics::OUTBOX_RENEWED).increment(1);
                return Err(End::Renewed);
            }
            Standing::Copy => {
                tracing::warn!(
                    highest_sequence = seen.by_session.unwrap_or(seen.highest),
                    %outbox,
                    "the store was brought back from a copy: the Switch has seen numbers that it never sent; it goes on under \
                     another outbox_id, events that waited in the copy may be listed twice, and instructions issued before are not run"
                );
                metrics::counter!(crate::metrics::OUTBOX_RENEWED).increment(1);
                self.deliver(Inbound::Judged { standing, restored_at_ms, switch_ms, stops_due: 0 }).await?;
                return Err(End::Renewed);
            }
        }
        self.stops = ExpectedStops::new(stops_due, Instant::now());
        self.deliver(Inbound::Judged { standing, restored_at_ms, switch_ms, stops_due }).await?;
        let transport = self.socket.transport();
        tracing::info!(epoch, %transport, "session established");
        metrics::counter!(crate::metrics::SESSIONS, "transport" => transport.name()).increment(1);
        self.connection.link.send_replace(Link::Up { epoch, since_ms: crate::clock::wall_ms(), transport });
        if let Ok(digest) = Digest::try_from(&welcome.licence_digest[..]) {
            self.deliver(Inbound::LicenceNotice(digest)).await?;
        }
        self.connection.hear(Heard::Session);
        Ok(())
    }

    /// The disk has no room for what the Welcome says, and so nothing may be built on it: neither on its epoch nor on whether the store is a
    /// copy. What runs may be what fills the disk, and the Switch may have its stop.
    async fn hear_stops(&mut self) -> Result<(), End> {
        tracing::warn!(
            "the disk of the store is full; this session hears stops of what runs, and nothing else"
        );
        self.unjudged_until = Some(Instant::now() + STOPS_WAIT);
        self.deliver(Inbound::Unjudged).await
    }

    /// Deletes what was acked. What a full disk has no room for is deleted with the next ack; what is not by the end of the session is sent
    /// again in the next one, and acked again.
    async fn handle_acked(&mut self, lane: Lane, ranges: Vec<SequenceRange>) -> Result<(), End> {
        let lane = match lane {
            Lane::Results => QueueLane::Results,
            Lane::Events => QueueLane::Events,
            Lane::Unspecified => return Ok(()),
        };
        let is_first = self.undeleted.is_empty();
        self.undeleted.push((lane, ranges));
        let acked = self.undeleted.clone();
        let deleted = self
            .connection
            .store
            .write(move |tables| acked.iter().try_for_each(|(lane, ranges)| tables.acked(*lane, ranges)));
        match deleted.await {
            Ok(()) => self.undeleted.clear(),
            Err(StoreError::DiskFull) => {
                if is_first {
                    tracing::warn!("the disk of the store is full; what was acked is deleted later");
                }
                let excess = self.undeleted.len().saturating_sub(UNDELETED_MAX);
                self.undeleted.drain(..excess);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Hands something to the instructions, which have the time of one write to take it.
    async fn deliver(&mut self, inbound: Inbound) -> Result<(), End> {
        match timeout(self.connection.caller.config.write_timeout, self.connection.inbox.send(inbound)).await
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Stopped),
            Err(_) => Err(End::Busy),
        }
    }

    /// Moves as much of the outbox into the session as there is credit for. What cannot be sent as it is and needs a write that a full disk
    /// refuses waits, and its lane with it, until something happens; the session goes on.
    async fn drain(&mut self) -> Result<(), End> {
        for drained in [self.drain_results().await, self.drain_events().await] {
            match drained {
                Err(StoreError::DiskFull) => tracing::debug!("the disk of the store is full; a lane waits"),
                drained => drained?,
            }
        }
        Ok(())
    }

    async fn drain_results(&mut self) -> Result<(), StoreError> {
        let store = &self.connection.store;
        while self.protocol.credit(Lane::Results) > 0 {
            let Some(queued) = self.results.peek(store).await? else { break };
            let (sequence, now_ms) = (queued.sequence, crate::clock::wall_ms());
            // The checksum held, so that only a broken writer can have left it.
            let Ok(result) = InstructionResult::decode(&queued.record[..]) else {
                let lane = QueueLane::Results;
                store.write(move |tables| tables.set_undecoded_aside(lane, sequence, now_ms)).await?;
                self.results.pop();
                continue;
            };
            match self.protocol.push_result(result) {
                Ok(()) => {}
                Err(PushError::Invalid(error)) => {
                    let detail = format!("it ran, but its result breaks the protocol: {error}");
                    store.write(move |tables| tables.replace_result(sequence, &detail, now_ms)).await?;
                }
                // It is sent when there is credit, or in the next session.
                Err(_) => break,
            }
            self.results.pop();
        }
        Ok(())
    }

    async fn drain_events(&mut self) -> Result<(), StoreError> {
        let store = &self.connection.store;
        while self.protocol.credit(Lane::Events) > 0 {
            let Some(queued) = self.events.peek(store).await? else { break };
            let (sequence, now_ms) = (queued.sequence, crate::clock::wall_ms());
            let Ok(event) = Event::decode(&queued.record[..]) else {
                let lane = QueueLane::Events;
                store.write(move |tables| tables.set_undecoded_aside(lane, sequence, now_ms)).await?;
                self.events.pop();
                continue;
            };
            match self.protocol.push_event(event) {
                Ok(()) => {}
                Err(PushError::Invalid(error)) => {
                    tracing::error!(%error, sequence, "an event breaks the protocol; it is dropped");
                    let range = SequenceRange { first: sequence, last: sequence };
                    store.write(move |tables| tables.acked(QueueLane::Events, &[range])).await?;
                }
                Err(_) => break,
            }
            self.events.pop();
        }
        Ok(())
    }

    async fn transmit(&mut self) -> Result<(), End> {
        let limit = self.connection.caller.config.write_timeout;
        let mut is_written = false;
        while let Some(frame) = self.protocol.poll_transmit() {
            timeout(limit, self.socket.feed(frame)).await.map_err(|_| self.socket.silent(limit))??;
            is_written = true;
        }
        if is_written {
            timeout(limit, self.socket.flush()).await.map_err(|_| self.socket.silent(limit))??;
        }
        Ok(())
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
