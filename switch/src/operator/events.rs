//! `EventService`: the event log, read from a position on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use muster_pki::DeviceId;
use muster_proto::operator::v1::{ListEventsRequest, ListEventsResponse, LoggedEvent};
use muster_proto_grpc::operator::v1::event_service_server::EventService;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::state::{Api, device_id};
use crate::gate::Entry;

/// Events read at once: at 64 KiB at most each, some 6 MiB at worst.
const EVENTS_AT_ONCE: u32 = 100;

/// The shortest time between two reads of a stream that follows the log.
const FOLLOW_REST: Duration = Duration::from_millis(50);

type EventStream = Pin<Box<dyn Stream<Item = Result<ListEventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl EventService for Api {
    type ListEventsStream = EventStream;

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        self.admit(&request, Entry::Read)?;
        let ListEventsRequest { device, after, limit, follow } = request.into_inner();
        let device = if device.is_empty() { None } else { Some(device_id(&device)?) };
        let log = Log {
            api: self.clone(),
            changes: self.parts().engine.changes(),
            device,
            after,
            left: (limit > 0).then_some(limit),
            at_end: if follow { AtEnd::Wait } else { AtEnd::Stop },
            read: VecDeque::new(),
        };
        Ok(Response::new(Box::pin(stream::try_unfold(log, Log::next))))
    }
}

/// What a stream does when it has read the whole log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    Stop,
    Wait,
}

/// A stream's place in the log.
#[derive(Debug)]
struct Log {
    api: Api,
    changes: watch::Receiver<u64>,
    device: Option<DeviceId>,
    after: u64,
    left: Option<u32>,
    at_end: AtEnd,
    read: VecDeque<LoggedEvent>,
}

impl Log {
    async fn next(mut self) -> Result<Option<(ListEventsResponse, Self)>, Status> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            if let Some(event) = self.read.pop_front() {
                self.after = event.position;
                self.left = self.left.map(|left| left - 1);
                return Ok(Some((ListEventsResponse { event: Some(event) }, self)));
            }
            self.changes.mark_unchanged();
            let (device, after) = (self.device.clone(), self.after);
            let limit = self.left.unwrap_or(EVENTS_AT_ONCE).min(EVENTS_AT_ONCE);
            self.read =
                self.api.read(move |reader| reader.events(device.as_ref(), after, limit)).await?.into();
            if !self.read.is_empty() {
                continue;
            }
            match self.at_end {
                AtEnd::Stop => return Ok(None),
                AtEnd::Wait => self.wait().await?,
            }
        }
    }

    async fn wait(&mut self) -> Result<(), Status> {
        let stopped =
            || Status::unavailable("the Switch stops: follow again from the last position when it is back");
        tokio::select! {
            biased;
            () = self.api.parts().stop.cancelled() => return Err(stopped()),
            changed = self.changes.changed() => changed.map_err(|_| stopped())?,
        }
        tokio::time::sleep(FOLLOW_REST).await;
        Ok(())
    }
}
