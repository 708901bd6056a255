//! `EventRelayService`: events that clients posted to a Background Channel.

use muster_proto::relay::v1::{RelayEventsRequest, RelayEventsResponse};
use muster_proto_grpc::relay::v1::event_relay_service_server::EventRelayService;
use tonic::{Request, Response, Status};

use super::state::Api;
use crate::gate::Entry;

#[tonic::async_trait]
impl EventRelayService for Api {
    async fn relay_events(
        &self,
        request: Request<RelayEventsRequest>,
    ) -> Result<Response<RelayEventsResponse>, Status> {
        self.admit(&request, Entry::Relay)?;
        let RelayEventsRequest { events } = request.into_inner();
        Ok(Response::new(self.parts().engine.relay(events).await?))
    }
}
