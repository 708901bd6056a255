//! A Switch for tests, which says what it is told to say.

use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use muster_proto::operator::v1 as api;
use muster_proto_grpc::operator::v1::instruction_service_server::{
    InstructionService, InstructionServiceServer,
};
use muster_proto_grpc::operator::v1::licence_service_server::{LicenceService, LicenceServiceServer};
use tokio::sync::mpsc;
use tonic::codegen::{BoxStream, tokio_stream};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status};

use api::SubmitInstructionRequest;

use crate::home::Context;
use crate::operator::Operator;

/// The instruction of every order that it takes.
pub(crate) const ID: &str = "0197a6c8-0000-7000-8000-000000000001";

/// What a Switch does with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Manner {
    /// It takes it in.
    #[default]
    Answers,
    /// It takes it in, and nobody hears of it.
    Hangs,
    /// It has none that waits.
    Forgot,
}

/// A Switch that tells what it was asked, an order's envelope and key, or the id that is watched; and says what stands here.
#[derive(Clone, Default)]
pub(crate) struct FakeSwitch {
    pub(crate) manner: Manner,
    pub(crate) asked: Option<mpsc::Sender<[Vec<u8>; 2]>>,
    pub(crate) issue: Said<api::PrepareInstructionResponse>,
    pub(crate) approval: Said<api::PrepareApprovalResponse>,
    pub(crate) stop: Said<api::PrepareStopResponse>,
    pub(crate) licence: Said<api::GetLicenceResponse>,
    /// The stops that came.
    pub(crate) stops: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// The context of it.
pub(crate) fn context() -> Context {
    Context {
        name: "test".to_owned(),
        switch: "switch.invalid:1".to_owned(),
        background_channel: String::new(),
        admin: String::new(),
        tenant: String::new(),
    }
}

/// What it answers; nothing: it does not know the call.
pub(crate) type Said<T> = Arc<Mutex<Option<T>>>;

fn answer<T: Clone>(said: &Said<T>) -> Result<Response<T>, Status> {
    let said = said.lock().unwrap().clone();
    said.map(Response::new).ok_or_else(|| Status::unimplemented("nothing to say"))
}

impl FakeSwitch {
    async fn tell(&self, asked: [Vec<u8>; 2]) {
        if let Some(tell) = &self.asked {
            tell.send(asked).await.unwrap();
        }
    }

    /// Serves it for as long as an operator does something.
    pub(crate) async fn serve<T>(&self, job: impl AsyncFnOnce(Operator) -> T) -> T {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Server::builder()
            .add_service(InstructionServiceServer::new(self.clone()))
            .add_service(LicenceServiceServer::new(self.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        let connector = tower::service_fn(move |_: Uri| async move {
            tokio::net::TcpStream::connect(address).await.map(TokioIo::new)
        });
        let job = async {
            let endpoint = Endpoint::from_static("http://switch.invalid");
            job(Operator::over(endpoint.connect_with_connector(connector).await.unwrap())).await
        };
        tokio::select! {
            done = job => done,
            served = serving => panic!("{served:?}"),
        }
    }
}

#[tonic::async_trait]
impl LicenceService for FakeSwitch {
    async fn import_licence(
        &self,
        _: Request<api::ImportLicenceRequest>,
    ) -> Result<Response<api::ImportLicenceResponse>, Status> {
        Err(Status::unimplemented("import"))
    }

    async fn get_licence(
        &self,
        _: Request<api::GetLicenceRequest>,
    ) -> Result<Response<api::GetLicenceResponse>, Status> {
        answer(&self.licence)
    }
}

#[tonic::async_trait]
impl InstructionService for FakeSwitch {
    type WatchInstructionStream = BoxStream<api::WatchInstructionResponse>;

    async fn submit_instruction(
        &self,
        request: Request<SubmitInstructionRequest>,
    ) -> Result<Response<api::SubmitInstructionResponse>, Status> {
        let SubmitInstructionRequest { envelope, idempotency_key } = request.into_inner();
        self.tell([envelope, idempotency_key.into_bytes()]).await;
        if self.manner == Manner::Hangs {
            std::future::pending::<()>().await;
        }
        if self.manner == Manner::Forgot {
            return Err(Status::aborted("order is not one that waits here; prepare it again"));
        }
        Ok(Response::new(api::SubmitInstructionResponse { instruction: ID.to_owned() }))
    }

    async fn watch_instruction(
        &self,
        request: Request<api::WatchInstructionRequest>,
    ) -> Result<Response<Self::WatchInstructionStream>, Status> {
        self.tell([request.into_inner().instruction.into_bytes(), Vec::new()]).await;
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }

    async fn prepare_instruction(
        &self,
        _: Request<api::PrepareInstructionRequest>,
    ) -> Result<Response<api::PrepareInstructionResponse>, Status> {
        answer(&self.issue)
    }

    async fn prepare_approval(
        &self,
        _: Request<api::PrepareApprovalRequest>,
    ) -> Result<Response<api::PrepareApprovalResponse>, Status> {
        answer(&self.approval)
    }

    async fn submit_approval(
        &self,
        _: Request<api::SubmitApprovalRequest>,
    ) -> Result<Response<api::SubmitApprovalResponse>, Status> {
        Err(Status::unimplemented("submit approval"))
    }

    async fn prepare_stop(
        &self,
        _: Request<api::PrepareStopRequest>,
    ) -> Result<Response<api::PrepareStopResponse>, Status> {
        answer(&self.stop)
    }

    async fn submit_stop(
        &self,
        request: Request<api::SubmitStopRequest>,
    ) -> Result<Response<api::SubmitStopResponse>, Status> {
        self.stops.lock().unwrap().push(request.into_inner().envelope);
        Ok(Response::new(api::SubmitStopResponse::default()))
    }

    async fn get_instruction(
        &self,
        _: Request<api::GetInstructionRequest>,
    ) -> Result<Response<api::GetInstructionResponse>, Status> {
        Err(Status::unimplemented("get"))
    }

    async fn list_instructions(
        &self,
        _: Request<api::ListInstructionsRequest>,
    ) -> Result<Response<api::ListInstructionsResponse>, Status> {
        Err(Status::unimplemented("list"))
    }

    async fn list_results(
        &self,
        _: Request<api::ListResultsRequest>,
    ) -> Result<Response<api::ListResultsResponse>, Status> {
        Err(Status::unimplemented("results"))
    }

    async fn aggregate_results(
        &self,
        _: Request<api::AggregateResultsRequest>,
    ) -> Result<Response<api::AggregateResultsResponse>, Status> {
        Err(Status::unimplemented("aggregate"))
    }

    async fn list_targets(
        &self,
        _: Request<api::ListTargetsRequest>,
    ) -> Result<Response<api::ListTargetsResponse>, Status> {
        Err(Status::unimplemented("targets"))
    }
}
