//! `ClientService`: the devices, and those that were turned away.

use muster_proto::operator::v1::{
    GetClientRequest, GetClientResponse, ListClientsRequest, ListClientsResponse, ListRefusedClientsRequest,
    ListRefusedClientsResponse, RefusedClient, RemoveClientRequest, RemoveClientResponse,
};
use muster_proto_grpc::operator::v1::client_service_server::ClientService;
use tonic::{Request, Response, Status};

use super::state::{Api, device_id, page_size};
use crate::engine::{Cursor, Reader};
use crate::gate::Entry;
use crate::refusals::Refusal;

#[tonic::async_trait]
impl ClientService for Api {
    async fn list_clients(
        &self,
        request: Request<ListClientsRequest>,
    ) -> Result<Response<ListClientsResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let ListClientsRequest { audience, page_size: asked, page_token } = request.into_inner();
        let limit = page_size(asked, 1000, 10_000);
        let read = move |reader: &Reader| reader.clients(&audience, &Cursor::from_token(&page_token), limit);
        let page = self.read(read).await?;
        let next_page_token = page.next_page_token();
        Ok(Response::new(ListClientsResponse { clients: page.items, next_page_token }))
    }

    async fn list_refused_clients(
        &self,
        request: Request<ListRefusedClientsRequest>,
    ) -> Result<Response<ListRefusedClientsResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let limit = usize::try_from(page_size(request.get_ref().limit, 1_000, 1_000)).unwrap_or(usize::MAX);
        let refused = self.parts().refusals.list().into_iter().take(limit).map(refused_client).collect();
        Ok(Response::new(ListRefusedClientsResponse { refused }))
    }

    async fn get_client(
        &self,
        request: Request<GetClientRequest>,
    ) -> Result<Response<GetClientResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let device = device_id(&request.get_ref().device)?;
        let client = self.read(move |reader| reader.client(&device)).await?;
        Ok(Response::new(GetClientResponse { client: Some(client) }))
    }

    async fn remove_client(
        &self,
        request: Request<RemoveClientRequest>,
    ) -> Result<Response<RemoveClientResponse>, Status> {
        let caller = self.admit(&request, Entry::RemoveDevice)?;
        let device = device_id(&request.get_ref().device)?;
        let removed = self.parts().engine.remove(device).await?;
        let RemoveClientResponse { device, was_online, cancelled_targets } = &removed;
        tracing::info!(device, was_online, cancelled_targets, operator = %caller.name, "device removed");
        Ok(Response::new(removed))
    }
}

fn refused_client(refusal: Refusal) -> RefusedClient {
    RefusedClient {
        rules: refusal.rules,
        findings: refusal.findings,
        subject: refusal.subject,
        serial: refusal.serial,
        thumbprint: refusal.thumbprint,
        issuer: refusal.issuer,
        address: refusal.address.to_string(),
        first_at_ms: refusal.first_at_ms,
        last_at_ms: refusal.last_at_ms,
        count: refusal.count,
    }
}
