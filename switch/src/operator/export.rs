//! `ExportService`: the store's content as of one moment.

use std::ops::ControlFlow;

use muster_proto::operator::v1::{ExportRequest, ExportResponse};
use muster_proto_grpc::operator::v1::export_service_server::ExportService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::state::Api;
use crate::gate::Entry;

/// Records that wait for a slow reader; the export then pauses with its transaction open.
const EXPORT_RECORDS_MAX: usize = 64;

#[tonic::async_trait]
impl ExportService for Api {
    type ExportStream = ReceiverStream<Result<ExportResponse, Status>>;

    async fn export(&self, request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let caller = self.admit(&request, Entry::Export)?;
        tracing::info!(operator = %caller.name, "export");
        let (records, stream) = mpsc::channel(EXPORT_RECORDS_MAX);
        let reader = self.parts().engine.reader();
        // The thread ends with the export, or at the first record that nobody takes.
        self.parts().tasks.spawn_blocking(move || {
            let take = |record| match records.blocking_send(Ok(record)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            if let Err(error) = reader.export(take)
                && records.blocking_send(Err(error.into())).is_err()
            {
                tracing::debug!("an export's reader left before its error");
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
