//! `DefinitionService`: the signed definitions.

use muster_proto::operator::v1::{
    GetDefinitionRequest, GetDefinitionResponse, ImportDefinitionRequest, ImportDefinitionResponse,
    ImportPackRequest, ImportPackResponse, ListDefinitionsRequest, ListDefinitionsResponse,
};
use muster_proto_grpc::operator::v1::definition_service_server::DefinitionService;
use tonic::{Request, Response, Status};

use super::state::{Api, page_size};
use crate::engine::Cursor;
use crate::gate::Entry;

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

    async fn import_pack(
        &self,
        request: Request<ImportPackRequest>,
    ) -> Result<Response<ImportPackResponse>, Status> {
        // What a pack brings is what somebody may import one by one.
        let caller = self.admit(&request, Entry::ImportDefinition)?;
        let ImportPackRequest { index, definitions } = request.into_inner();
        let imported = self.parts().engine.import_pack(index, definitions).await?;
        let ImportPackResponse { name: pack, version: pack_version, .. } = &imported;
        let new = imported.definitions.iter().filter(|one| !one.was_held);
        for definition in new.filter_map(|one| one.definition.as_ref()) {
            let (name, version) = (&definition.name, &definition.version);
            tracing::info!(name, version, pack, pack_version, operator = %caller.name, "definition imported");
        }
        tracing::info!(name = pack, version = pack_version, operator = %caller.name, "pack imported");
        Ok(Response::new(imported))
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
