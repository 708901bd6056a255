//! What becomes of orders that do not leave, or leave slowly.

use std::sync::Arc;

use muster_pki::Role;
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::GetInstructionRequest;
use muster_proto_grpc::operator::v1::instruction_service_client::InstructionServiceClient;
use rustls::ClientConfig;

use crate::client::{Client, hello};
use crate::instructions::{DEVICE, ask, operator, publish, receive_order};
use crate::pki::Ends;
use crate::quic_client::dial_quic;
use crate::strangers::until_counted;
use crate::world::World;

#[tokio::test]
async fn an_order_that_a_session_did_not_take_stays_queued_and_comes_with_the_next() {
    let world = World::new();
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let alice = operator(&world, &switch).await;
    publish(&world, &alice).await;
    let tls = device(&world);
    let mut client = Client::over_quic(dial_quic(address, &tls).await.unwrap(), hello(7));
    client.until_welcome().await;

    client.quic().stop_reading();
    // What comes later by the same socket is answered: the Switch has read the word by then.
    drop(dial_quic(address, &tls).await.unwrap());
    let instruction = ask(&world, &alice).await;
    until_counted(&switch, "muster_switch_sessions_ended_total{reason=\"peer\"}", 1).await;
    let request = GetInstructionRequest { instruction: instruction.clone() };
    let shown = InstructionServiceClient::new(alice).get_instruction(request).await.unwrap().into_inner();
    let states: Vec<_> = shown.instruction.unwrap().states.iter().map(|count| count.state()).collect();

    assert_eq!(states, [TargetState::Queued]);
    let mut client = Client::over_quic(dial_quic(address, &tls).await.unwrap(), hello(7));
    client.until_welcome().await;
    assert_eq!(receive_order(&world, &mut client).await.to_string(), instruction);
    switch.stop().await.unwrap();
}

fn device(world: &World) -> Arc<ClientConfig> {
    world.pki.tls(Some(&world.pki.issue(Role::Device, DEVICE, Ends::InAYear)), &[])
}
