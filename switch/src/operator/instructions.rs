//! `InstructionService`: prepare, submit, show, watch.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::watch_instruction_response::Update;
use muster_proto::operator::v1::{
    AggregateResultsRequest, AggregateResultsResponse, DeviceResult, GetInstructionRequest,
    GetInstructionResponse, Instruction, ListInstructionsRequest, ListInstructionsResponse,
    ListResultsRequest, ListResultsResponse, ListTargetsRequest, ListTargetsResponse, PrepareApprovalRequest,
    PrepareApprovalResponse, PrepareInstructionRequest, PrepareInstructionResponse, PrepareStopRequest,
    PrepareStopResponse, SubmitApprovalRequest, SubmitApprovalResponse, SubmitInstructionRequest,
    SubmitInstructionResponse, SubmitStopRequest, SubmitStopResponse, WatchInstructionRequest,
    WatchInstructionResponse,
};
use muster_proto_grpc::operator::v1::instruction_service_server::InstructionService;
use muster_signing::definition::Kind;
use muster_signing::order::Order;
use muster_signing::{envelope, order};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::state::{Api, instruction_id, page_size};
use crate::config::GrantKind;
use crate::engine::{Cursor, EngineError, Page, Prepare, PrepareStop, Reader};
use crate::gate::{Caller, Entry};

/// Results read at once for a watch.
const WATCH_RESULTS: u32 = 100;

/// The shortest time between two looks of a watch: progress for people, and a few reads a second for the store.
const WATCH_REST: Duration = Duration::from_millis(50);

type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchInstructionResponse, Status>> + Send>>;

#[tonic::async_trait]
impl InstructionService for Api {
    async fn prepare_instruction(
        &self,
        request: Request<PrepareInstructionRequest>,
    ) -> Result<Response<PrepareInstructionResponse>, Status> {
        let definition = request.get_ref().definition.clone();
        let caller = self.admit(&request, Entry::Issue { definition: &definition, kind: None })?;
        let asked = request.into_inner();
        let prepare = Prepare {
            definition: asked.definition,
            version: asked.version,
            arguments: asked.arguments,
            audience: asked.audience,
            gather_ms: asked.gather_ms,
            keep_ms: asked.keep_ms,
            operator: caller.name.clone(),
        };
        // Nobody gets an order that they may not sign for, or fills the room of those that wait with such.
        let may = |kind| {
            let kind = match kind {
                Kind::Question => GrantKind::Question,
                Kind::Action => GrantKind::Action,
            };
            let entry = Entry::Issue { definition: &definition, kind: Some(kind) };
            self.parts().gate.admit(Some(&caller), entry).map(|_| ()).map_err(Status::from)
        };
        let prepared = self.parts().engine.prepare(prepare, may).await?;
        Ok(Response::new(PrepareInstructionResponse {
            order: prepared.order,
            definition: prepared.definition.into(),
            targets: prepared.targets,
            online: prepared.online,
            sample: prepared.sample.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn submit_instruction(
        &self,
        request: Request<SubmitInstructionRequest>,
    ) -> Result<Response<SubmitInstructionResponse>, Status> {
        // Prefix and kind were decided when the order was prepared; the engine takes only the bytes that it prepared for
        // this operator.
        let caller = self.admit(&request, Entry::Submit)?;
        let SubmitInstructionRequest { envelope, idempotency_key } = request.into_inner();
        let instruction = self.parts().engine.submit(envelope, idempotency_key, &caller.name).await?;
        tracing::info!(%instruction, operator = %caller.name, "instruction accepted");
        Ok(Response::new(SubmitInstructionResponse { instruction: instruction.to_string() }))
    }

    async fn prepare_approval(
        &self,
        request: Request<PrepareApprovalRequest>,
    ) -> Result<Response<PrepareApprovalResponse>, Status> {
        let id = instruction_id(&request.get_ref().instruction)?;
        self.admit_by_definition(&request, id, approving).await?;
        let (instruction, definition, envelope) = self.read(move |reader| reader.to_approve(id)).await?;
        Ok(Response::new(PrepareApprovalResponse {
            envelope: envelope.into(),
            definition: definition.into(),
            instruction: Some(instruction),
        }))
    }

    async fn submit_approval(
        &self,
        request: Request<SubmitApprovalRequest>,
    ) -> Result<Response<SubmitApprovalResponse>, Status> {
        // Before anything is spent on the envelope; whether it may approve this one is asked of what is in it.
        self.admit(&request, Entry::Submit)?;
        let id = claimed(&request.get_ref().envelope, |order| {
            InstructionId::try_from(&order.instruction[..])
                .map_err(|error| Status::invalid_argument(error.to_string()))
        })?;
        let (_, caller) = self.admit_by_definition(&request, id, approving).await?;
        let SubmitApprovalRequest { envelope } = request.into_inner();
        let instruction = self.parts().engine.approve(envelope, &caller.name).await?;
        Ok(Response::new(SubmitApprovalResponse { instruction: instruction.to_string() }))
    }

    async fn prepare_stop(
        &self,
        request: Request<PrepareStopRequest>,
    ) -> Result<Response<PrepareStopResponse>, Status> {
        let id = instruction_id(&request.get_ref().instruction)?;
        let (instruction, caller) = self.admit_by_definition(&request, id, stopping).await?;
        let PrepareStopRequest { reason, .. } = request.into_inner();
        let prepare = PrepareStop { instruction: id, reason, operator: caller.name };
        let order = self.parts().engine.prepare_stop(prepare).await?.unwrap_or_default();
        Ok(Response::new(PrepareStopResponse { order, instruction: Some(instruction) }))
    }

    async fn submit_stop(
        &self,
        request: Request<SubmitStopRequest>,
    ) -> Result<Response<SubmitStopResponse>, Status> {
        // Before anything is spent on the envelope; whether it may stop this one is asked of what is in it.
        self.admit(&request, Entry::Submit)?;
        let id = claimed(&request.get_ref().envelope, |order| {
            let nothing = "the order stops nothing; submit it with SubmitInstruction";
            order::stops(order).ok_or_else(|| Status::invalid_argument(nothing))
        })?;
        let (_, caller) = self.admit_by_definition(&request, id, stopping).await?;
        let SubmitStopRequest { envelope } = request.into_inner();
        let instruction = self.parts().engine.submit_stop(envelope, &caller.name).await?;
        tracing::info!(%instruction, operator = %caller.name, "instruction stopped");
        Ok(Response::new(SubmitStopResponse { instruction: instruction.to_string() }))
    }

    async fn get_instruction(
        &self,
        request: Request<GetInstructionRequest>,
    ) -> Result<Response<GetInstructionResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let id = instruction_id(&request.get_ref().instruction)?;
        let instruction = self.read(move |reader| reader.instruction(id)).await?;
        Ok(Response::new(GetInstructionResponse { instruction: Some(instruction) }))
    }

    async fn list_instructions(
        &self,
        request: Request<ListInstructionsRequest>,
    ) -> Result<Response<ListInstructionsResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let ListInstructionsRequest { page_size: asked, page_token } = request.into_inner();
        let limit = page_size(asked, 50, 1000);
        let page =
            self.read(move |reader| reader.instructions(&Cursor::from_token(&page_token), limit)).await?;
        let next_page_token = page.next_page_token();
        Ok(Response::new(ListInstructionsResponse { instructions: page.items, next_page_token }))
    }

    type WatchInstructionStream = WatchStream;

    async fn watch_instruction(
        &self,
        request: Request<WatchInstructionRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        self.admit(&request, Entry::Read)?;
        let id = instruction_id(&request.get_ref().instruction)?;
        let watch = Watch {
            api: self.clone(),
            id,
            changes: self.parts().engine.changes(),
            cursor: Cursor::default(),
            updates: VecDeque::new(),
            shown: None,
            phase: Phase::Look,
        };
        // The first look is made here, so that an unknown instruction is an error of the call.
        let watch = watch.look().await?;
        let updates = stream::try_unfold(watch, Watch::next);
        Ok(Response::new(Box::pin(updates)))
    }

    async fn list_results(
        &self,
        request: Request<ListResultsRequest>,
    ) -> Result<Response<ListResultsResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let ListResultsRequest { instruction, page_size: asked, page_token } = request.into_inner();
        let id = instruction_id(&instruction)?;
        let limit = page_size(asked, 100, 1000);
        let page =
            self.read(move |reader| reader.results(id, &Cursor::from_token(&page_token), limit)).await?;
        let next_page_token = page.next_page_token();
        Ok(Response::new(ListResultsResponse { results: page.items, next_page_token }))
    }

    async fn aggregate_results(
        &self,
        request: Request<AggregateResultsRequest>,
    ) -> Result<Response<AggregateResultsResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let AggregateResultsRequest { instruction, query } = request.into_inner();
        let id = instruction_id(&instruction)?;
        let stop = self.parts().stop.child_token();
        // Dropped with the call: whoever goes away takes the work along.
        let _guard = stop.clone().drop_guard();
        let answer = self.read(move |reader| reader.aggregate(id, &query, &stop)).await?;
        Ok(Response::new(answer))
    }

    async fn list_targets(
        &self,
        request: Request<ListTargetsRequest>,
    ) -> Result<Response<ListTargetsResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let state = Some(request.get_ref().state()).filter(|state| *state != TargetState::Unspecified);
        let ListTargetsRequest { instruction, page_size: asked, page_token, .. } = request.into_inner();
        let id = instruction_id(&instruction)?;
        let limit = page_size(asked, 1000, 10_000);
        let page = self
            .read(move |reader| reader.targets(id, state, &Cursor::from_token(&page_token), limit))
            .await?;
        let next_page_token = page.next_page_token();
        Ok(Response::new(ListTargetsResponse { targets: page.items, next_page_token }))
    }
}

impl Api {
    /// Passes a call about an instruction through the gate, which decides by the instruction's definition.
    async fn admit_by_definition<T>(
        &self,
        request: &Request<T>,
        id: InstructionId,
        entry: fn(&str, Option<GrantKind>) -> Entry<'_>,
    ) -> Result<(Instruction, Caller), Status> {
        // What an unknown instruction is of cannot be told; whoever may not even read learns nothing of it.
        self.admit(request, Entry::Read)?;
        let instruction = self.read(move |reader| reader.instruction(id)).await?;
        let (name, version) = (instruction.definition.clone(), instruction.version.clone());
        let kind = self.read(move |reader| Ok(reader.definition(&name, &version).ok())).await?;
        let kind = kind.and_then(|(definition, _)| match definition.kind.as_str() {
            "question" => Some(GrantKind::Question),
            "action" => Some(GrantKind::Action),
            _ => None,
        });
        let caller = self.admit(request, entry(&instruction.definition, kind))?;
        Ok((instruction, caller))
    }
}

fn approving(definition: &str, kind: Option<GrantKind>) -> Entry<'_> {
    Entry::Approve { definition, kind }
}

fn stopping(definition: &str, kind: Option<GrantKind>) -> Entry<'_> {
    Entry::Stop { definition, kind }
}

/// Returns the instruction that an envelope says it is about; its signatures are not looked at.
fn claimed(
    envelope: &[u8],
    about: impl FnOnce(&Order) -> Result<InstructionId, Status>,
) -> Result<InstructionId, Status> {
    let inspection =
        envelope::inspect(envelope).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let order =
        order::decode(&inspection.content).map_err(|error| Status::invalid_argument(error.to_string()))?;
    about(&order)
}

/// What a watch does next when its results are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There may be more to read at once.
    Look,
    /// Everything committed was read: wait for a commit.
    Wait,
    /// Every target is terminal and every result was handed out.
    Done,
}

/// A watch of one instruction: a cursor over its results, and the counts last shown.
#[derive(Debug)]
struct Watch {
    api: Api,
    id: InstructionId,
    changes: watch::Receiver<u64>,
    cursor: Cursor,
    updates: VecDeque<Update>,
    shown: Option<Instruction>,
    phase: Phase,
}

impl Watch {
    /// Returns the next update, waiting for one if need be; `None` at the end.
    async fn next(mut self) -> Result<Option<(WatchInstructionResponse, Self)>, Status> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Ok(Some((WatchInstructionResponse { update: Some(update) }, self)));
            }
            match self.phase {
                Phase::Done => return Ok(None),
                Phase::Look => {}
                Phase::Wait => self.wait().await?,
            }
            self = self.look().await?;
        }
    }

    /// Waits for a commit.
    async fn wait(&mut self) -> Result<(), Status> {
        let stopped = || Status::unavailable("the Switch stops: watch again when it is back");
        tokio::select! {
            biased;
            () = self.api.parts().stop.cancelled() => return Err(stopped()),
            changed = self.changes.changed() => changed.map_err(|_| stopped())?,
        }
        tokio::time::sleep(WATCH_REST).await;
        Ok(())
    }

    /// Reads counts and results. The counts are read first: if they say that all is over, the results read after them
    /// are all there are.
    async fn look(mut self) -> Result<Self, Status> {
        self.changes.mark_unchanged();
        let (id, after) = (self.id, self.cursor.clone());
        let read = move |reader: &Reader| {
            let instruction = reader.instruction(id)?;
            // What became of the targets is shown all the same.
            let page = if instruction.results_deleted {
                Page { items: Vec::new(), cursor: after, more: false }
            } else {
                unless_deleted(reader.results(id, &after, WATCH_RESULTS), &after)?
            };
            Ok((instruction, page))
        };
        let (instruction, page) = self.api.read(read).await?;
        self.phase = match (page.more, instruction.complete) {
            (true, _) => Phase::Look,
            (false, true) => Phase::Done,
            (false, false) => Phase::Wait,
        };
        self.cursor = page.cursor;
        self.updates.extend(page.items.into_iter().map(Update::Result));
        if self.shown.as_ref() != Some(&instruction) {
            self.shown = Some(instruction.clone());
            self.updates.push_back(Update::Instruction(instruction));
        }
        Ok(self)
    }
}

/// Returns what was read of the results of an instruction that is there. Where their deletion began since it was read, that is nothing, and there
/// is more: the next look is told that they are deleted.
fn unless_deleted(
    read: Result<Page<DeviceResult>, EngineError>,
    after: &Cursor,
) -> Result<Page<DeviceResult>, EngineError> {
    if matches!(read, Err(EngineError::NotFound(_))) {
        return Ok(Page { items: Vec::new(), cursor: after.clone(), more: true });
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_looks_again_where_the_results_began_to_be_deleted_between_its_two_reads() {
        let after = Cursor::from_token("7");

        let read = unless_deleted(Err(EngineError::NotFound("are deleted".to_owned())), &after).unwrap();
        let other = unless_deleted(Err(EngineError::Damaged("a page".to_owned())), &after);

        assert_eq!((read.items.len(), read.more, read.next_page_token()), (0, true, "7".to_owned()));
        assert!(matches!(other, Err(EngineError::Damaged(_))), "{other:?}");
    }
}
