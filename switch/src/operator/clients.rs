//! `ClientService`: the devices, and those that were turned away.

use muster_proto::operator::v1::{
    Block, BlockClientRequest, BlockClientResponse, GetClientRequest, GetClientResponse,
    ListBlockedClientsRequest, ListBlockedClientsResponse, ListClientsRequest, ListClientsResponse,
    ListRefusedClientsRequest, ListRefusedClientsResponse, RefusedClient, RemoveClientRequest,
    RemoveClientResponse, UnblockClientRequest, UnblockClientResponse,
};
use muster_proto_grpc::operator::v1::client_service_server::ClientService;
use muster_service::credentials::Told;
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

    async fn block_client(
        &self,
        request: Request<BlockClientRequest>,
    ) -> Result<Response<BlockClientResponse>, Status> {
        let caller = self.admit(&request, Entry::BlockDevice)?;
        let BlockClientRequest { device, reason } = request.into_inner();
        let device = device_id(&device)?;
        let blocked = self.parts().engine.block(device.clone(), caller.name.clone(), reason).await?;
        let Block { reason, .. } = blocked.block.as_ref().unwrap_or(&Block::default()).clone();
        let BlockClientResponse { was_online, known, .. } = blocked;
        tracing::warn!(%device, was_online, known, reason, operator = %caller.name, "device blocked");
        Ok(Response::new(blocked))
    }

    async fn unblock_client(
        &self,
        request: Request<UnblockClientRequest>,
    ) -> Result<Response<UnblockClientResponse>, Status> {
        let caller = self.admit(&request, Entry::BlockDevice)?;
        let device = device_id(&request.get_ref().device)?;
        let unblocked = self.parts().engine.unblock(device.clone()).await?;
        tracing::warn!(%device, operator = %caller.name, "device unblocked");
        Ok(Response::new(unblocked))
    }

    async fn list_blocked_clients(
        &self,
        request: Request<ListBlockedClientsRequest>,
    ) -> Result<Response<ListBlockedClientsResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let blocked = self.parts().engine.blocked().values().cloned().collect();
        Ok(Response::new(ListBlockedClientsResponse { blocked }))
    }
}

fn refused_client(refusal: Refusal) -> RefusedClient {
    let Told { rules, findings, subject, serial, thumbprint, issuer, peer } = refusal.told;
    RefusedClient {
        rules,
        findings,
        subject,
        serial,
        thumbprint,
        issuer,
        address: refusal.address.to_string(),
        first_at_ms: refusal.first_at_ms,
        last_at_ms: refusal.last_at_ms,
        count: refusal.count,
        listener: refusal.listener.name().to_owned(),
        peer: peer.name,
        peer_subject: peer.subject,
        peer_serial: peer.serial,
        peer_thumbprint: peer.thumbprint,
    }
}
