//! The operator API: gRPC over TLS, for operators and for other services.
//!
//! Every method begins with the gate. What is read comes from the engine's reader, on threads that may block; what is
//! followed (watches, event streams) is read again from its cursor whenever the engine has committed.

mod clients;
mod connection;
mod definitions;
mod errors;
mod events;
mod export;
mod instructions;
mod licence;
mod policies;
mod relay;
mod state;
mod status;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use muster_proto_grpc::FILE_DESCRIPTOR_SET;
use muster_proto_grpc::operator::v1::client_service_server::ClientServiceServer;
use muster_proto_grpc::operator::v1::definition_service_server::DefinitionServiceServer;
use muster_proto_grpc::operator::v1::event_service_server::EventServiceServer;
use muster_proto_grpc::operator::v1::export_service_server::ExportServiceServer;
use muster_proto_grpc::operator::v1::instruction_service_server::InstructionServiceServer;
use muster_proto_grpc::operator::v1::licence_service_server::LicenceServiceServer;
use muster_proto_grpc::operator::v1::policy_service_server::PolicyServiceServer;
use muster_proto_grpc::operator::v1::status_service_server::StatusServiceServer;
use muster_proto_grpc::relay::v1::event_relay_service_server::EventRelayServiceServer;
use muster_service::credentials::ServerCredentials;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;

use crate::config::OperatorLimits;
use crate::wall::Wall;

pub(crate) use self::state::{Api, ApiParts};

/// How often a peer is asked for a sign of life: one that vanished without a word must not keep its connection and calls.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long a peer may take to give one.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the operator API ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The listener could not be used.
    #[error("operator listener: {0}")]
    Listener(#[from] io::Error),
    /// The server ended.
    #[error("operator API: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors of the services do not load.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `stop`; then calls in progress may end, for as long as the caller waits.
///
/// # Errors
/// The listener or server ended without being told to.
pub(crate) async fn serve(
    listener: TcpListener,
    credentials: Arc<ServerCredentials>,
    wall: Wall,
    api: Api,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let limits = api.limits().clone();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let tasks = TaskTracker::new();
    let refusals = Arc::clone(&api.parts().refusals);
    let connections =
        connection::accept(listener, credentials, wall, &limits, refusals, stop.clone(), &tasks);
    let routes = routes(&api, &limits).await?;
    let header_bytes_max = u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX);
    let served = Server::builder()
        .max_concurrent_streams(limits.streams_max)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(header_bytes_max)
        .timeout(limits.call_deadline)
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled())
        .await;
    tasks.close();
    tasks.wait().await;
    Ok(served?)
}

async fn routes(api: &Api, limits: &OperatorLimits) -> Result<tonic::service::Routes, ServeError> {
    let bytes = usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX);
    /// Adds a service with the bounds of its messages.
    macro_rules! add {
        ($routes:ident, $($server:ident),+) => {
            $($routes.add_service(
                $server::new(api.clone()).max_decoding_message_size(bytes).max_encoding_message_size(bytes),
            );)+
        };
    }
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<InstructionServiceServer<Api>>().await;
    reporter.set_serving::<EventRelayServiceServer<Api>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let mut routes = RoutesBuilder::default();
    add!(
        routes,
        InstructionServiceServer,
        ClientServiceServer,
        DefinitionServiceServer,
        LicenceServiceServer,
        PolicyServiceServer
    );
    add!(routes, EventServiceServer, ExportServiceServer, StatusServiceServer, EventRelayServiceServer);
    routes.add_service(health);
    routes.add_service(reflection);
    Ok(routes.routes())
}
