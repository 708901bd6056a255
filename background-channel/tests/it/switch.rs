//! The Switch as the relay sees it: the operator API's TLS, and a service that keeps what it is given.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use muster_pki::Role;
use muster_proto::relay::v1::{
    RefusedEvent, RefusedPeer, RelayEventsRequest, RelayEventsResponse, RelayRefusal, RelayedEvent,
    SyncDoorRequest, SyncDoorResponse,
};
use muster_proto_grpc::relay::v1::event_relay_service_server::{EventRelayService, EventRelayServiceServer};
use muster_service::credentials::{self, Clock, CredentialFiles, Rules};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use crate::pki::{A_MONTH, Pki};
use crate::world::PATIENCE;

/// Takes events until it is dropped.
pub(crate) struct Switch {
    batches: watch::Receiver<Vec<Vec<RelayedEvent>>>,
    /// Whom the Background Channel said that it turned away.
    pub(crate) refused: watch::Receiver<Vec<RefusedPeer>>,
    /// What the Background Channel said last of its own certificates.
    pub(crate) warnings: watch::Receiver<Vec<String>>,
    /// Which list the Background Channel said last that it has.
    pub(crate) state: watch::Receiver<Vec<u8>>,
    /// Whom operators block.
    pub(crate) blocked: watch::Sender<Vec<String>>,
    _tasks: JoinSet<()>,
}

impl Switch {
    pub(crate) fn serve(pki: &Pki, listener: TcpListener) -> Self {
        Self::serve_without(pki, listener, "").0
    }

    /// One that does not know a device, until the sender says that it does.
    pub(crate) fn serve_without(
        pki: &Pki,
        listener: TcpListener,
        device: &str,
    ) -> (Self, watch::Sender<String>) {
        let (certificate, key) = pki.write("switch", &pki.issue(Role::Switch, "localhost", A_MONTH));
        let credentials = credentials::server(
            CredentialFiles::pem(certificate, key),
            vec![(Role::Service, pki.roots_file(Role::Service))],
            vec![b"h2".to_vec()],
            Role::Switch,
            Rules::lenient(Clock::system()),
        )
        .unwrap();
        let (accepted, connections) = mpsc::channel(4);
        let (kept, batches) = watch::channel(Vec::new());
        let (learns, knows) = watch::channel(device.to_owned());
        let (tells, refused) = watch::channel(Vec::new());
        let (warns, warnings) = watch::channel(Vec::new());
        let (blocked, blocks) = watch::channel(Vec::new());
        let (has, state) = watch::channel(Vec::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = TlsAcceptor::from(credentials.config()).accept(stream).await else {
                    continue;
                };
                if accepted.send(Ok::<_, io::Error>(Connection(stream))).await.is_err() {
                    return;
                }
            }
        });
        let service = EventRelayServiceServer::new(Keeper {
            kept,
            unknown: knows,
            refused: tells,
            warnings: warns,
            state: has,
            blocked: blocks,
        });
        let server =
            Server::builder().add_service(service).serve_with_incoming(ReceiverStream::new(connections));
        tasks.spawn(async { server.await.unwrap() });
        (Self { batches, refused, warnings, state, blocked, _tasks: tasks }, learns)
    }

    /// Waits until `count` events have arrived; returns all that have, in their order.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<RelayedEvent> {
        let enough = |batches: &Vec<Vec<RelayedEvent>>| batches.iter().map(Vec::len).sum::<usize>() >= count;
        let batches = tokio::time::timeout(PATIENCE, self.batches.wait_for(enough)).await.unwrap().unwrap();
        batches.concat()
    }
}

struct Keeper {
    kept: watch::Sender<Vec<Vec<RelayedEvent>>>,
    /// A device of which no event is taken.
    unknown: watch::Receiver<String>,
    refused: watch::Sender<Vec<RefusedPeer>>,
    warnings: watch::Sender<Vec<String>>,
    state: watch::Sender<Vec<u8>>,
    blocked: watch::Receiver<Vec<String>>,
}

#[tonic::async_trait]
impl EventRelayService for Keeper {
    async fn relay_events(
        &self,
        request: Request<RelayEventsRequest>,
    ) -> Result<Response<RelayEventsResponse>, Status> {
        let unknown = self.unknown.borrow().clone();
        let (refused, taken): (Vec<_>, Vec<_>) =
            (0..).zip(request.into_inner().events).partition(|(_, event)| event.device == unknown);
        let accepted = u32::try_from(taken.len()).unwrap();
        let cause = RelayRefusal::UnknownDevice.into();
        let refuse = |index| RefusedEvent { index, cause, detail: String::new() };
        let refused = refused.into_iter().map(|(index, _)| refuse(index)).collect();
        let taken = taken.into_iter().map(|(_, event)| event).collect();
        self.kept.send_modify(|batches| batches.push(taken));
        Ok(Response::new(RelayEventsResponse { accepted, refused }))
    }

    async fn sync_door(
        &self,
        request: Request<SyncDoorRequest>,
    ) -> Result<Response<SyncDoorResponse>, Status> {
        let SyncDoorRequest { refused, state, warnings } = request.into_inner();
        self.warnings.send_replace(warnings);
        self.refused.send_modify(|all| all.extend(refused));
        let blocked = self.blocked.borrow().clone();
        self.state.send_replace(state.clone());
        let now = format!("state {}", blocked.join(" ")).into_bytes();
        let unchanged = now == state;
        let blocked = if unchanged { Vec::new() } else { blocked };
        Ok(Response::new(SyncDoorResponse { blocked, state: now, unchanged }))
    }
}

/// tonic takes a TLS stream of its own only.
struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
