//! `LicenceService`: the signed licence.

use muster_proto::operator::v1::{
    GetLicenceRequest, GetLicenceResponse, ImportLicenceRequest, ImportLicenceResponse,
};
use muster_proto_grpc::operator::v1::licence_service_server::LicenceService;
use tonic::{Request, Response, Status};

use super::state::Api;
use crate::engine::ImportedLicence;
use crate::gate::Entry;

#[tonic::async_trait]
impl LicenceService for Api {
    async fn import_licence(
        &self,
        request: Request<ImportLicenceRequest>,
    ) -> Result<Response<ImportLicenceResponse>, Status> {
        let caller = self.admit(&request, Entry::ImportLicence)?;
        let imported = self.parts().engine.import_licence(request.into_inner().envelope).await?;
        let ImportedLicence { serial, refused_targets } = imported;
        tracing::info!(serial, refused_targets, operator = %caller.name, "licence imported");
        Ok(Response::new(ImportLicenceResponse { serial, refused_targets }))
    }

    async fn get_licence(
        &self,
        request: Request<GetLicenceRequest>,
    ) -> Result<Response<GetLicenceResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let (envelope, problem) =
            self.read(|reader| Ok((reader.licence(), reader.licence_problem()))).await?;
        Ok(Response::new(GetLicenceResponse { envelope: envelope.unwrap_or_default().into(), problem }))
    }
}
