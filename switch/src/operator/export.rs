//! `ExportService`: the store's content as of one moment.

use std::ops::ControlFlow;
use std::time::Duration;

use muster_proto::operator::v1::{ExportRequest, ExportResponse};
use muster_proto_grpc::operator::v1::export_service_server::ExportService;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::state::Api;
use crate::engine::EngineError;
use crate::gate::Entry;

/// Records that wait for a slow reader; the export then pauses with its transaction open.
const EXPORT_RECORDS_MAX: usize = 64;

/// How long an export pauses at most. Its open transaction keeps the store's log from being reused, so a reader that
/// takes nothing loses its export.
const TAKE_DEADLINE: Duration = Duration::from_secs(30);

#[tonic::async_trait]
impl ExportService for Api {
    type ExportStream = ReceiverStream<Result<ExportResponse, Status>>;

    async fn export(&self, request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let caller = self.admit(&request, Entry::Export)?;
        tracing::info!(operator = %caller.name, "export");
        let (outlet, stream) = Outlet::new(EXPORT_RECORDS_MAX, TAKE_DEADLINE, self.parts().stop.clone());
        let reader = self.parts().engine.reader();
        // The thread ends with the export, or at the first record that nobody takes.
        let export = move || outlet.pour(|take| reader.export(take));
        self.parts().tasks.spawn_blocking(export);
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Where an export's records go.
#[derive(Debug)]
struct Outlet {
    records: mpsc::Sender<Result<ExportResponse, Status>>,
    take_deadline: Duration,
    stop: CancellationToken,
    runtime: Handle,
}

impl Outlet {
    /// Makes one that holds `records_max` records and one status; call it in the runtime.
    fn new(
        records_max: usize,
        take_deadline: Duration,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<Result<ExportResponse, Status>>) {
        let (records, stream) = mpsc::channel(records_max + 1);
        (Self { records, take_deadline, stop, runtime: Handle::current() }, stream)
    }

    /// Runs an export until it is over, its reader is gone or too slow, or the Switch stops. Blocks.
    fn pour(
        self,
        export: impl FnOnce(&mut dyn FnMut(ExportResponse) -> ControlFlow<()>) -> Result<(), EngineError>,
    ) {
        // A place is kept for the status, which has to reach a reader whose queue is full.
        let Ok(last) = self.records.clone().try_reserve_owned() else { return };
        let mut broken = None;
        let exported = export(&mut |record| match self.runtime.block_on(self.give(record)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => {
                broken = why;
                ControlFlow::Break(())
            }
        });
        if let Some(status) = exported.err().map(Status::from).or(broken) {
            tracing::info!(%status, "export ended early");
            last.send(Err(status));
        }
    }

    /// Waits for room for a record; without one, returns what to tell the reader if it is still there.
    async fn give(&self, record: ExportResponse) -> Result<(), Option<Status>> {
        // Room that is there needs no timer.
        let Err(full) = self.records.try_send(Ok(record)) else { return Ok(()) };
        let mpsc::error::TrySendError::Full(record) = full else { return Err(None) };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                Err(Some(Status::unavailable("the Switch stops: export again when it is back")))
            }
            sent = self.records.send_timeout(record, self.take_deadline) => sent.map_err(|error| match error {
                mpsc::error::SendTimeoutError::Closed(_) => None,
                mpsc::error::SendTimeoutError::Timeout(_) => Some(Status::deadline_exceeded(format!(
                    "nothing of the export was taken for {:?}: export again, to a faster place", self.take_deadline
                ))),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    /// Pours `count` records, as fast as they are taken, on a thread that may block; it returns how many were.
    fn pour(
        count: usize,
        deadline: Duration,
        stop: &CancellationToken,
    ) -> (mpsc::Receiver<Result<ExportResponse, Status>>, tokio::task::JoinHandle<usize>) {
        let (outlet, stream) = Outlet::new(2, deadline, stop.clone());
        let export = move || {
            let mut given = 0;
            outlet.pour(|take| {
                given = (0..count).take_while(|_| take(ExportResponse::default()).is_continue()).count();
                Ok(())
            });
            given
        };
        (stream, tokio::task::spawn_blocking(export))
    }

    #[tokio::test]
    async fn an_export_whose_reader_takes_nothing_ends_with_a_status_that_says_so() {
        let (mut stream, export) = pour(10, Duration::from_millis(50), &CancellationToken::new());

        let given = tokio::time::timeout(Duration::from_secs(20), export).await.unwrap().unwrap();
        assert_eq!(given, 2, "no record is made for nobody");

        assert!(stream.recv().await.unwrap().is_ok());
        assert!(stream.recv().await.unwrap().is_ok());
        assert_eq!(stream.recv().await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
        assert!(stream.recv().await.is_none());
    }

    #[tokio::test]
    async fn an_export_that_waits_for_its_reader_ends_when_the_switch_stops() {
        let stop = CancellationToken::new();
        let (mut stream, export) = pour(10, Duration::from_secs(600), &stop);

        stop.cancel();
        let given = tokio::time::timeout(Duration::from_secs(20), export).await.unwrap().unwrap();
        assert_eq!(given, 2, "no record is made for nobody");

        assert!(stream.recv().await.unwrap().is_ok());
        assert!(stream.recv().await.unwrap().is_ok());
        assert_eq!(stream.recv().await.unwrap().unwrap_err().code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn an_export_that_is_taken_arrives_whole() {
        let (mut stream, export) = pour(100, Duration::from_secs(20), &CancellationToken::new());

        let mut taken = 0;
        while let Some(record) = stream.recv().await {
            record.unwrap();
            taken += 1;
        }

        assert_eq!((taken, export.await.unwrap()), (100, 100));
    }
}
