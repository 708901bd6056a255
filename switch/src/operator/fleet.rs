//! `ClientService`, `DefinitionService`, `LicenceService`, `StatusService`.

use muster_pki::DeviceId;
use muster_proto::operator::v1::{
    GetClientRequest, GetClientResponse, GetDefinitionRequest, GetDefinitionResponse, GetLicenceRequest,
    GetLicenceResponse, GetStatusRequest, GetStatusResponse, ImportDefinitionRequest,
    ImportDefinitionResponse, ImportLicenceRequest, ImportLicenceResponse, ListClientsRequest,
    ListClientsResponse, ListDefinitionsRequest, ListDefinitionsResponse, ListRefusedClientsRequest,
    ListRefusedClientsResponse, RefusedClient, RemoveClientRequest, RemoveClientResponse,
};
use muster_proto_grpc::operator::v1::client_service_server::ClientService;
use muster_proto_grpc::operator::v1::definition_service_server::DefinitionService;
use muster_proto_grpc::operator::v1::licence_service_server::LicenceService;
use muster_proto_grpc::operator::v1::status_service_server::StatusService;
use tonic::{Request, Response, Status};

use super::state::{Api, page_size};
use crate::engine::Cursor;
use crate::gate::Entry;
use crate::refusals::Refusal;
use crate::wall;

/// How long before its end a certificate is warned of (N3 of trust.md).
const EXPIRY_WARNING_MS: i64 = 30 * 24 * 60 * 60 * 1000;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[tonic::async_trait]
impl ClientService for Api {
    async fn list_clients(
        &self,
        request: Request<ListClientsRequest>,
    ) -> Result<Response<ListClientsResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let ListClientsRequest { audience, page_size: asked, page_token } = request.into_inner();
        let limit = page_size(asked, 1000, 10_000);
        let read = move |reader: &crate::engine::Reader| {
            reader.clients(&audience, &Cursor::from_token(&page_token), limit)
        };
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

#[tonic::async_trait]
impl DefinitionService for Api {
    async fn import_definition(
        &self,
        request: Request<ImportDefinitionRequest>,
    ) -> Result<Response<ImportDefinitionResponse>, Status> {
        let caller = self.admit(&request, Entry::ImportDefinition)?;
        let definition = self.parts().engine.import_definition(request.into_inner().envelope).await?;
        tracing::info!(name = definition.name, version = definition.version, operator = %caller.name, "definition imported");
        Ok(Response::new(ImportDefinitionResponse { definition: Some(definition) }))
    }

    async fn list_definitions(
        &self,
        request: Request<ListDefinitionsRequest>,
    ) -> Result<Response<ListDefinitionsResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let ListDefinitionsRequest { page_size: asked, page_token } = request.into_inner();
        let limit = page_size(asked, 100, 1000);
        let page =
            self.read(move |reader| Ok(reader.definitions(&Cursor::from_token(&page_token), limit))).await?;
        let next_page_token = page.next_page_token();
        Ok(Response::new(ListDefinitionsResponse { definitions: page.items, next_page_token }))
    }

    async fn get_definition(
        &self,
        request: Request<GetDefinitionRequest>,
    ) -> Result<Response<GetDefinitionResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let GetDefinitionRequest { name, version } = request.into_inner();
        let (definition, envelope) = self.read(move |reader| reader.definition(&name, &version)).await?;
        Ok(Response::new(GetDefinitionResponse { definition: Some(definition), envelope: envelope.into() }))
    }
}

#[tonic::async_trait]
impl LicenceService for Api {
    async fn import_licence(
        &self,
        request: Request<ImportLicenceRequest>,
    ) -> Result<Response<ImportLicenceResponse>, Status> {
        let caller = self.admit(&request, Entry::ImportLicence)?;
        let serial = self.parts().engine.import_licence(request.into_inner().envelope).await?;
        tracing::info!(serial, operator = %caller.name, "licence imported");
        Ok(Response::new(ImportLicenceResponse { serial }))
    }

    async fn get_licence(
        &self,
        request: Request<GetLicenceRequest>,
    ) -> Result<Response<GetLicenceResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let envelope = self.read(|reader| Ok(reader.licence())).await?;
        Ok(Response::new(GetLicenceResponse { envelope: envelope.unwrap_or_default().into() }))
    }
}

#[tonic::async_trait]
impl StatusService for Api {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let engine = self.read(|reader| Ok(reader.status())).await?;
        let parts = self.parts();
        let certificate_not_after_ms = parts.credentials.own().map_or(0, |own| wall::millis(own.not_after()));
        let mut warnings = engine.warnings;
        warnings.extend(expiry_warning(certificate_not_after_ms, wall::now_ms()));
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sessions: parts.registry.sessions(),
            devices: engine.devices,
            active_instructions: engine.active_instructions,
            licence_serial: engine.licence_serial,
            licence_expires_at_ms: engine.licence_expires_at_ms,
            certificate_not_after_ms,
            warnings,
            started_at_ms: parts.started_at_ms,
            disk_free_bytes: engine.disk_free_bytes,
            tenant: parts.config.tenant.clone(),
        }))
    }
}

/// Reads a device's name as operators type it.
pub(super) fn device_id(text: &str) -> Result<DeviceId, Status> {
    text.to_ascii_lowercase()
        .parse()
        .map_err(|error: muster_pki::DeviceIdError| Status::invalid_argument(error.to_string()))
}

fn expiry_warning(not_after_ms: i64, now_ms: i64) -> Option<String> {
    let left_ms = not_after_ms - now_ms;
    (left_ms < EXPIRY_WARNING_MS).then(|| {
        let days = left_ms / DAY_MS;
        format!("the Switch's certificate expires in {days} days: replace the files of [tls]; no restart is needed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_thirty_days_before_the_certificate_ends() {
        assert_eq!(expiry_warning(40 * DAY_MS, 0), None);
        assert!(expiry_warning(12 * DAY_MS, 0).unwrap().contains("in 12 days"));
    }
}
