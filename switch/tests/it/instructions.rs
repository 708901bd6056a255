//! An instruction's whole way, with real signatures, and what a restart does to it.

use std::time::Duration;

use muster_pki::{Role, UnixTime};
use muster_proto::common::v1::{Column, ColumnType, Row, TargetState, Value, value::Kind};
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::watch_instruction_response::Update;
use muster_proto::operator::v1::{
    AggregateResultsRequest, DeviceResult, GetClientRequest, GetInstructionRequest, ImportDefinitionRequest,
    ImportLicenceRequest, Instruction, ListEventsRequest, PrepareInstructionRequest, PrepareStopRequest,
    SubmitInstructionRequest, SubmitStopRequest, WatchInstructionRequest,
};
use muster_proto::session::client::ClientEvent;
use muster_proto::session::v1::{Event, Lane, Result as InstructionResult};
use muster_proto_grpc::operator::v1::client_service_client::ClientServiceClient;
use muster_proto_grpc::operator::v1::definition_service_client::DefinitionServiceClient;
use muster_proto_grpc::operator::v1::event_service_client::EventServiceClient;
use muster_proto_grpc::operator::v1::instruction_service_client::InstructionServiceClient;
use muster_proto_grpc::operator::v1::licence_service_client::LicenceServiceClient;
use muster_signing::envelope::{Anchors, ContentType, Signer, sign};
use muster_switch::{Grant, GrantRole};
use tonic::Code;
use tonic::transport::Channel;

use crate::client::Client;
use crate::operators::connect_as;
use crate::pki::Ends;
use crate::world::{PATIENCE, Switch, World};

pub(crate) const DEVICE: &str = "w701.acme.local";

const DEFINITION: &str = r#"
name = "Acme-Test-One"
version = "1.0.0"
kind = "question"
says = "One?"

[[step]]
query = "SELECT 1 AS one"

[[result]]
name = "one"
type = "integer"

[time_to_live]
gather = { default = "1h", min = "1m", max = "7d" }
"#;

#[tokio::test]
async fn a_question_is_asked_and_answered() {
    let world = World::new();
    let switch = world.start().await;
    let operator = operator(&world, &switch).await;
    publish(&world, &operator).await;
    let mut client = device(&world, &switch).await;

    let instruction = ask(&world, &operator).await;
    let ordered = receive_order(&world, &mut client).await;
    answer(&mut client, ordered, 1).await;
    let (results, last) = watch(&operator, &instruction).await;

    assert_eq!(ordered.to_string(), instruction);
    assert!(last.complete);
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].device, DEVICE);
    assert_eq!(results[0].state(), TargetState::Answered);
    assert_eq!(results[0].rows, [row(1)]);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_restarted_switch_hands_the_order_over_again() {
    let world = World::new();
    let switch = world.start().await;
    let operator = operator(&world, &switch).await;
    publish(&world, &operator).await;
    let mut client = device(&world, &switch).await;
    let instruction = ask(&world, &operator).await;
    let first = receive_order(&world, &mut client).await;
    client.vanish();
    switch.stop().await.unwrap();

    let switch = world.start().await;
    let mut client = device(&world, &switch).await;
    let second = receive_order(&world, &mut client).await;
    answer(&mut client, second, 1).await;
    let operator = self::operator(&world, &switch).await;
    let (results, last) = watch(&operator, &instruction).await;

    assert_eq!(first, second);
    assert!(last.complete);
    assert_eq!(results.len(), 1);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_device_that_was_away_gets_what_is_due() {
    let world = World::new();
    let switch = world.start().await;
    let operator = operator(&world, &switch).await;
    publish(&world, &operator).await;
    device(&world, &switch).await.vanish();
    until_offline(&operator).await;

    let instruction = ask(&world, &operator).await;
    let mut client = device(&world, &switch).await;
    let ordered = receive_order(&world, &mut client).await;

    assert_eq!(ordered.to_string(), instruction);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_written_order_counts_as_sent() {
    let world = World::new();
    let switch = world.start().await;
    let operator = operator(&world, &switch).await;
    publish(&world, &operator).await;
    let mut client = device(&world, &switch).await;

    let instruction = ask(&world, &operator).await;
    receive_order(&world, &mut client).await;

    let request = WatchInstructionRequest { instruction };
    let mut updates =
        InstructionServiceClient::new(operator).watch_instruction(request).await.unwrap().into_inner();
    let seen = async {
        while let Some(update) = updates.message().await.unwrap() {
            if let Some(Update::Instruction(instruction)) = update.update
                && instruction
                    .states
                    .iter()
                    .any(|count| count.state() == TargetState::Sent && count.count == 1)
            {
                return;
            }
        }
        panic!("the watch ended before the order counted as sent");
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
    drop(updates);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn events_are_acked_and_read_by_who_follows_the_log() {
    let world = World::new();
    let switch = world.start().await;
    let operator = operator(&world, &switch).await;
    let request = ListEventsRequest { device: DEVICE.to_owned(), after: 0, limit: 1, follow: true };
    let mut log = EventServiceClient::new(operator).list_events(request).await.unwrap().into_inner();
    let mut client = device(&world, &switch).await;

    let event =
        Event { sequence: 1, occurred_at_ms: 1, name: "client.started".to_owned(), fields: Vec::new() };
    client.session.push_event(event.clone()).unwrap();
    acked(&mut client, Lane::Events).await;
    let logged =
        tokio::time::timeout(PATIENCE, log.message()).await.unwrap().unwrap().unwrap().event.unwrap();

    assert_eq!(logged.device, DEVICE);
    assert_eq!(logged.event, Some(event));
    assert_eq!(log.message().await.unwrap(), None, "the limit ends the stream");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_mistake_is_told_with_what_would_fix_it() {
    let world = World::new();
    let switch = world.start().await;
    let operator = operator(&world, &switch).await;
    publish(&world, &operator).await;
    device(&world, &switch).await.vanish();
    let mut instructions = InstructionServiceClient::new(operator);

    let audience = PrepareInstructionRequest {
        definition: "Acme-Test-One".to_owned(),
        audience: "oss == 'linux'".to_owned(),
        ..PrepareInstructionRequest::default()
    };
    let audience = instructions.prepare_instruction(audience).await.unwrap_err();
    let unknown = GetInstructionRequest { instruction: "018f4f9a-7a3c-7000-8000-000000000001".to_owned() };
    let unknown = instructions.get_instruction(unknown).await.unwrap_err();
    let unread = GetInstructionRequest { instruction: "that one".to_owned() };
    let unread = instructions.get_instruction(unread).await.unwrap_err();

    assert_eq!(audience.code(), Code::InvalidArgument);
    assert!(audience.message().contains("`os`"), "{audience}");
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(unread.code(), Code::InvalidArgument);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn an_order_that_was_prepared_before_a_restart_is_denied_to_nobody_and_can_be_prepared_again() {
    let world = World::new();
    let switch = world.start().await;
    let alice = operator(&world, &switch).await;
    publish(&world, &alice).await;
    device(&world, &switch).await.vanish();
    let prepared =
        InstructionServiceClient::new(alice).prepare_instruction(question()).await.unwrap().into_inner();
    let forgotten = SubmitInstructionRequest {
        envelope: signed(&world, &prepared.order, ContentType::Order, Role::OrderSigner),
        idempotency_key: "test".to_owned(),
    };
    switch.stop().await.unwrap();

    let switch = world.start().await;
    let alice = operator(&world, &switch).await;
    let refused =
        InstructionServiceClient::new(alice.clone()).submit_instruction(forgotten).await.unwrap_err();
    // Under the key of the first.
    let again = ask(&world, &alice).await;

    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    assert!(refused.message().contains("prepare it again"), "{refused}");
    assert!(!again.is_empty());
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn an_order_of_another_operator_is_not_taken() {
    let world = World::new();
    let switch = world.start().await;
    let alice = operator(&world, &switch).await;
    publish(&world, &alice).await;
    device(&world, &switch).await.vanish();
    let bob = connect_as(&world, &switch, Role::Operator, "bob.acme.local").await;
    let prepared =
        InstructionServiceClient::new(alice).prepare_instruction(question()).await.unwrap().into_inner();

    let stolen = SubmitInstructionRequest {
        envelope: signed(&world, &prepared.order, ContentType::Order, Role::OrderSigner),
        idempotency_key: "stolen".to_owned(),
    };
    let refused = InstructionServiceClient::new(bob).submit_instruction(stolen).await.unwrap_err();

    assert_eq!(refused.code(), Code::PermissionDenied);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_is_for_who_may_issue_and_comes_first_to_who_comes_back() {
    let mut world = World::new();
    let grant = |operator: &str, role, prefix: &str| Grant {
        operators: vec![operator.to_owned()],
        role,
        prefixes: vec![prefix.to_owned()],
        kinds: Vec::new(),
    };
    world.config.grants = vec![
        grant("alice.acme.local", GrantRole::Administrator, "Acme"),
        grant("bob.acme.local", GrantRole::Viewer, "Acme"),
        grant("carol.acme.local", GrantRole::Issuer, "Other"),
    ];
    let switch = world.start().await;
    let alice = operator(&world, &switch).await;
    publish(&world, &alice).await;
    device(&world, &switch).await.vanish();
    until_offline(&alice).await;
    let instruction = ask(&world, &alice).await;
    let prepare = PrepareStopRequest { instruction: instruction.clone(), reason: "wrong fleet".to_owned() };
    let mut own = InstructionServiceClient::new(alice);
    let prepared = own.prepare_stop(prepare.clone()).await.unwrap().into_inner();
    let envelope = signed(&world, &prepared.order, ContentType::Order, Role::OrderSigner);

    for name in ["bob.acme.local", "carol.acme.local"] {
        let other = connect_as(&world, &switch, Role::Operator, name).await;
        let mut other = InstructionServiceClient::new(other);
        let denied = other.prepare_stop(prepare.clone()).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied, "{name}: {denied}");
        let denied = other.submit_stop(SubmitStopRequest { envelope: envelope.clone() }).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied, "{name}: {denied}");
    }
    let as_order =
        SubmitInstructionRequest { envelope: envelope.clone(), idempotency_key: "stop".to_owned() };
    assert_eq!(own.submit_instruction(as_order).await.unwrap_err().code(), Code::InvalidArgument);
    own.submit_stop(SubmitStopRequest { envelope: envelope.clone() }).await.unwrap();
    let mut client = device(&world, &switch).await;
    let first = client.until(|event| match event {
        ClientEvent::Order { envelope, proof } => Some((envelope, proof)),
        _ => None,
    });

    assert_eq!(first.await, (envelope.into(), None));
    let request = GetInstructionRequest { instruction };
    let shown = own.get_instruction(request).await.unwrap().into_inner().instruction.unwrap();
    assert_eq!(shown.states.iter().map(|count| count.state()).collect::<Vec<_>>(), [TargetState::Cancelled]);
    assert_eq!(shown.stop.unwrap().operator, "alice.acme.local");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn results_are_summed_up_for_whoever_may_read_and_no_longer_than_anybody_waits() {
    let mut world = World::new();
    let grant = |operator: &str, role| Grant {
        operators: vec![operator.to_owned()],
        role,
        prefixes: Vec::new(),
        kinds: Vec::new(),
    };
    world.config.grants =
        vec![grant("alice.acme.local", GrantRole::Administrator), grant("bob.acme.local", GrantRole::Viewer)];
    world.config.engine.aggregates_max = 1;
    world.config.engine.aggregate_deadline = Duration::from_secs(50);
    let switch = world.start().await;
    let alice = operator(&world, &switch).await;
    publish(&world, &alice).await;
    let mut client = device(&world, &switch).await;
    let instruction = ask(&world, &alice).await;
    let ordered = receive_order(&world, &mut client).await;
    answer_with(&mut client, ordered, 1, vec![row(2); 2_000]).await;
    let sum =
        |query: &str| AggregateResultsRequest { instruction: instruction.clone(), query: query.to_owned() };
    let short = || sum("SELECT device, sum(one) FROM results");
    let endless = sum("SELECT count(*) FROM results a, results b, results c, results d");
    let mut bob =
        InstructionServiceClient::new(connect_as(&world, &switch, Role::Operator, "bob.acme.local").await);

    let answer = bob.aggregate_results(short()).await.unwrap().into_inner();
    for (role, name) in [(Role::Operator, "carol.acme.local"), (Role::Service, "background.acme.local")] {
        let other = connect_as(&world, &switch, role, name).await;
        let denied = InstructionServiceClient::new(other).aggregate_results(short()).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied, "{name}: {denied}");
    }
    // The short ones below may have the one place when it comes.
    let mut waiting = Box::pin(async {
        loop {
            match bob.aggregate_results(endless.clone()).await {
                Err(status) if status.code() == Code::ResourceExhausted => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                ended => return ended,
            }
        }
    });
    let mut other = InstructionServiceClient::new(alice);
    let busy = async {
        loop {
            match other.aggregate_results(short()).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(busy) => return busy,
            }
        }
    };
    let busy = tokio::select! {
        busy = tokio::time::timeout(PATIENCE, busy) => busy.unwrap(),
        ended = &mut waiting => panic!("{ended:?}"),
    };
    drop(waiting);
    let free = async {
        while other.aggregate_results(short()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };

    tokio::time::timeout(PATIENCE, free).await.unwrap();
    assert_eq!(answer.rows[0].values[1].kind, Some(Kind::Integer(4_000)));
    assert!(!answer.partial, "{answer:?}");
    assert_eq!(busy.code(), Code::ResourceExhausted, "{busy}");
    assert!(busy.message().contains("engine.aggregates_max"), "{busy}");
    switch.stop().await.unwrap();
}

pub(crate) async fn operator(world: &World, switch: &Switch) -> Channel {
    connect_as(world, switch, Role::Operator, "alice.acme.local").await
}

/// Imports a licence and a definition.
pub(crate) async fn publish(world: &World, operator: &Channel) {
    let author = world.pki.issue(Role::Author, "Acme author", Ends::InAYear);
    let definition = sign_with(&author, DEFINITION.as_bytes(), ContentType::Definition);
    let licence = format!(
        "serial = 1\nlicensee = \"Acme\"\ntenant = \"acme\"\nnot_before = 2020-01-01T00:00:00Z\n\
         not_after = 2099-01-01T00:00:00Z\n\n[[prefix]]\nname = \"Acme\"\nsigners = [\"{}\"]\n",
        author.certificate.thumbprint()
    );
    let envelope = signed(world, licence.as_bytes(), ContentType::Licence, Role::Licensor);
    LicenceServiceClient::new(operator.clone())
        .import_licence(ImportLicenceRequest { envelope })
        .await
        .unwrap();
    let request = ImportDefinitionRequest { envelope: definition };
    let imported =
        DefinitionServiceClient::new(operator.clone()).import_definition(request).await.unwrap().into_inner();
    assert!(imported.definition.unwrap().licensed);
}

fn question() -> PrepareInstructionRequest {
    PrepareInstructionRequest {
        definition: "Acme-Test-One".to_owned(),
        ..PrepareInstructionRequest::default()
    }
}

/// Prepares, signs and submits the question.
pub(crate) async fn ask(world: &World, operator: &Channel) -> String {
    let mut instructions = InstructionServiceClient::new(operator.clone());
    let prepared = instructions.prepare_instruction(question()).await.unwrap().into_inner();
    assert_eq!(prepared.targets, 1);
    let request = SubmitInstructionRequest {
        envelope: signed(world, &prepared.order, ContentType::Order, Role::OrderSigner),
        idempotency_key: "test".to_owned(),
    };
    instructions.submit_instruction(request).await.unwrap().into_inner().instruction
}

async fn device(world: &World, switch: &Switch) -> Client {
    let own = world.pki.issue(Role::Device, DEVICE, Ends::InAYear);
    Client::connect(switch.running.session_addr(), world.pki.tls(Some(&own), &[]), 7).await.0
}

/// Waits for an order and verifies its signature, as a client does.
pub(crate) async fn receive_order(world: &World, client: &mut Client) -> InstructionId {
    let envelope = client
        .until(|event| match event {
            ClientEvent::Order { envelope, proof } => {
                assert!(proof.is_some(), "every order has its members' root");
                Some(envelope)
            }
            _ => None,
        })
        .await;
    let facts = muster_pki::Facts::at(UnixTime::now());
    let roots = world.pki.roots(Role::OrderSigner);
    let verified = muster_signing::envelope::verify(
        &envelope,
        ContentType::Order,
        Role::OrderSigner,
        &Anchors::of(&roots),
        &facts,
    )
    .unwrap();
    let order = muster_signing::order::decode(&verified.content).unwrap();
    InstructionId::try_from(order.instruction.as_slice()).unwrap()
}

/// Runs the question, as it were, and waits until the answer is on the Switch's disk.
async fn answer(client: &mut Client, instruction: InstructionId, sequence: u64) {
    answer_with(client, instruction, sequence, vec![row(1)]).await;
}

async fn answer_with(client: &mut Client, instruction: InstructionId, sequence: u64, rows: Vec<Row>) {
    client.session.push_progress(instruction, TargetState::Acked).unwrap();
    client.session.push_progress(instruction, TargetState::Running).unwrap();
    let column = Column { name: "one".to_owned(), r#type: ColumnType::Integer.into() };
    let result = InstructionResult {
        sequence,
        instruction: instruction.to_vec(),
        state: TargetState::Answered.into(),
        columns: vec![column],
        rows,
        last: true,
        started_at_ms: 1,
        finished_at_ms: 2,
        ..InstructionResult::default()
    };
    client.session.push_result(result).unwrap();
    acked(client, Lane::Results).await;
}

async fn acked(client: &mut Client, wanted: Lane) {
    client
        .until(|event| match event {
            ClientEvent::Acked { lane, .. } if lane == wanted => Some(()),
            _ => None,
        })
        .await;
}

/// Watches an instruction to its end.
async fn watch(operator: &Channel, instruction: &str) -> (Vec<DeviceResult>, Instruction) {
    let request = WatchInstructionRequest { instruction: instruction.to_owned() };
    let mut updates = InstructionServiceClient::new(operator.clone())
        .watch_instruction(request)
        .await
        .unwrap()
        .into_inner();
    let (mut results, mut last) = (Vec::new(), None);
    while let Some(update) = tokio::time::timeout(PATIENCE, updates.message()).await.unwrap().unwrap() {
        match update.update.unwrap() {
            Update::Instruction(instruction) => last = Some(instruction),
            Update::Result(result) => results.push(result),
        }
    }
    (results, last.unwrap())
}

async fn until_offline(operator: &Channel) {
    let mut clients = ClientServiceClient::new(operator.clone());
    let offline = async {
        loop {
            let request = GetClientRequest { device: DEVICE.to_owned() };
            if !clients.get_client(request).await.unwrap().into_inner().client.unwrap().online {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, offline).await.unwrap();
}

fn row(one: i64) -> Row {
    Row { values: vec![Value { kind: Some(Kind::Integer(one)) }] }
}

fn signed(world: &World, content: &[u8], kind: ContentType, role: Role) -> Vec<u8> {
    sign_with(&world.pki.issue(role, "signer", Ends::InAYear), content, kind)
}

fn sign_with(own: &muster_pki::authority::Issued, content: &[u8], kind: ContentType) -> Vec<u8> {
    let signer = Signer::from_pem(&own.chain_pem, &own.key_pem).unwrap();
    sign(content, kind, &signer, UnixTime::now()).unwrap()
}
