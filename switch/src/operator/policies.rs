//! `PolicyService`: the signed client policies.

use muster_proto::operator::v1::{
    GetPolicyRequest, GetPolicyResponse, ImportPolicyRequest, ImportPolicyResponse, ListPoliciesRequest,
    ListPoliciesResponse,
};
use muster_proto_grpc::operator::v1::policy_service_server::PolicyService;
use tonic::{Request, Response, Status};

use super::state::Api;
use crate::gate::Entry;

#[tonic::async_trait]
impl PolicyService for Api {
    async fn import_policy(
        &self,
        request: Request<ImportPolicyRequest>,
    ) -> Result<Response<ImportPolicyResponse>, Status> {
        let caller = self.admit(&request, Entry::ImportPolicy)?;
        let policy = self.parts().engine.import_policy(request.into_inner().envelope).await?;
        tracing::info!(serial = policy.serial, audience = policy.audience, operator = %caller.name, "policy imported");
        Ok(Response::new(ImportPolicyResponse { policy: Some(policy) }))
    }

    async fn list_policies(
        &self,
        request: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let policies = self.parts().engine.policies().await?;
        Ok(Response::new(ListPoliciesResponse { policies }))
    }

    async fn get_policy(
        &self,
        request: Request<GetPolicyRequest>,
    ) -> Result<Response<GetPolicyResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let (policy, envelope) = self.parts().engine.policy(request.get_ref().serial).await?;
        Ok(Response::new(GetPolicyResponse { policy: Some(policy), envelope: envelope.into() }))
    }
}
