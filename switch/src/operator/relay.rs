//! `EventRelayService`: events that clients posted to a Background Channel, and whom its door turns away.

use std::net::SocketAddr;

use muster_pki::Thumbprint;
use muster_proto::relay::v1::{
    RefusedPeer, RelayEventsRequest, RelayEventsResponse, SyncDoorRequest, SyncDoorResponse,
};
use muster_proto_grpc::relay::v1::event_relay_service_server::EventRelayService;
use muster_service::credentials::{Told, ToldPeer};
use tonic::{Request, Response, Status};

use super::state::Api;
use crate::gate::Entry;
use crate::metrics::Listener;
use crate::refusals::Refusal;
use crate::wall;

/// Refusals of one call, rules and findings of one refusal, and bytes of one text (relay.proto): what is beyond is left out.
const REFUSED_MAX: usize = 100;
const FINDINGS_MAX: usize = 32;
const TEXT_BYTES_MAX: usize = 2_048;

#[tonic::async_trait]
impl EventRelayService for Api {
    async fn relay_events(
        &self,
        request: Request<RelayEventsRequest>,
    ) -> Result<Response<RelayEventsResponse>, Status> {
        self.admit(&request, Entry::Relay)?;
        let RelayEventsRequest { events } = request.into_inner();
        Ok(Response::new(self.parts().engine.relay(events).await?))
    }

    async fn sync_door(
        &self,
        request: Request<SyncDoorRequest>,
    ) -> Result<Response<SyncDoorResponse>, Status> {
        let caller = self.admit(&request, Entry::Relay)?;
        let now_ms = wall::now_ms();
        let SyncDoorRequest { refused, state: known, warnings } = request.into_inner();
        self.parts().doors.note(&caller.name, warnings.into_iter().map(fit).collect(), now_ms);
        for refusal in refused.into_iter().take(REFUSED_MAX).filter_map(|peer| refusal(peer, now_ms)) {
            self.parts().refusals.add(refusal);
        }
        let blocked: Vec<String> = self.parts().engine.blocked().keys().map(ToString::to_string).collect();
        let state = Thumbprint::of(blocked.join("\n").as_bytes()).as_bytes().to_vec();
        let unchanged = state == known;
        let blocked = if unchanged { Vec::new() } else { blocked };
        Ok(Response::new(SyncDoorResponse { blocked, state, unchanged }))
    }
}

/// Takes a refusal that a Background Channel tells of; `None` if it says nothing.
fn refusal(peer: RefusedPeer, now_ms: i64) -> Option<Refusal> {
    let cut = |texts: Vec<String>| texts.into_iter().take(FINDINGS_MAX).map(fit).collect::<Vec<_>>();
    let address: SocketAddr = peer.address.parse().ok()?;
    let told = Told {
        rules: cut(peer.rules),
        findings: cut(peer.findings),
        subject: fit(peer.subject),
        serial: fit(peer.serial),
        thumbprint: fit(peer.thumbprint),
        issuer: fit(peer.issuer),
        peer: ToldPeer {
            name: fit(peer.peer),
            subject: fit(peer.peer_subject),
            serial: fit(peer.peer_serial),
            thumbprint: fit(peer.peer_thumbprint),
        },
    };
    // A clock that is ahead must not keep its entries at the top.
    let at_ms = peer.last_at_ms.min(now_ms);
    (!told.rules.is_empty()).then_some(Refusal {
        listener: Listener::Background,
        told,
        address,
        first_at_ms: at_ms,
        last_at_ms: at_ms,
        count: peer.count.max(1),
    })
}

fn fit(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
