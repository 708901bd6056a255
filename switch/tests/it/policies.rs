//! Client policies on their way: imported by an operator, told to sessions, fetched and followed by devices.

use std::time::Duration;

use muster_pki::{Facts, Role, UnixTime};
use muster_proto::ids::Digest;
use muster_proto::operator::v1::{
    ClientPolicy, GetClientRequest, GetPolicyRequest, ImportPolicyRequest, ListPoliciesRequest,
};
use muster_proto::session::client::ClientEvent;
use muster_proto::session::v1::DocumentKind;
use muster_proto_grpc::operator::v1::client_service_client::ClientServiceClient;
use muster_proto_grpc::operator::v1::policy_service_client::PolicyServiceClient;
use muster_signing::envelope::{self, Anchors, ContentType, Signer};
use muster_signing::policy::Policy;
use muster_switch::{Grant, GrantRole, StartError};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client::Client;
use crate::operators::connect_as;
use crate::pki::Ends;
use crate::world::{Switch, World};

#[tokio::test]
async fn k3_a_policy_reaches_the_device_that_it_is_for_and_the_operator_sees_who_follows_it() {
    let world = World::new();
    let switch = world.start().await;
    let operator = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;
    let (mut device, mut other) =
        (device(&world, &switch, "w701.acme.local").await, device(&world, &switch, "w702.acme.local").await);
    let none = check(&mut device, 0).await;

    let imported = import(&operator, policy(&world, 7, "device == \"w701.acme.local\"")).await.unwrap();
    let pushed = notice(&mut device).await;
    let others = check(&mut other, 0).await;
    let envelope = fetch(&mut device, pushed.unwrap()).await;
    let followed = check(&mut device, 7).await;

    assert_eq!((none, others, followed), (None, None, None));
    assert_eq!(pushed.unwrap().to_string(), imported.digest);
    let facts = Facts::at(UnixTime::now());
    let opened = Policy::open(&envelope, &Anchors::of(&world.pki.roots(Role::Policy)), &facts).unwrap();
    assert_eq!(opened.serial(), 7);
    assert_eq!(
        [follows(&operator, "w701.acme.local").await, follows(&operator, "w702.acme.local").await],
        [7, 0]
    );
    let shown = show(&operator, 7).await;
    assert_eq!((shown.following, shown.behind, shown.superseded), (1, 0, false));
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn k3_so_many_devices_ask_in_a_second_as_the_configuration_says_and_fewer_ask_at_once() {
    for (per_second, wanted) in [(1, 2_000), (2, 0)] {
        let mut world = World::new();
        world.config.engine.policy_asks_per_second = per_second;
        let switch = world.start().await;
        let operator = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;
        let mut devices = Vec::new();
        for name in ["w701.acme.local", "w702.acme.local"] {
            let mut device = device(&world, &switch, name).await;
            assert_eq!(check(&mut device, 0).await, None);
            devices.push(device);
        }

        import(&operator, policy(&world, 1, "")).await.unwrap();

        for device in &mut devices {
            let (digest, spread) = notice_over(device).await;
            assert_eq!((digest.is_some(), spread), (true, Duration::from_millis(wanted)), "{per_second}");
        }
        switch.stop().await.unwrap();
    }
}

#[tokio::test]
async fn k3_a_policy_survives_a_restart_and_is_told_to_who_connects_later() {
    let world = World::new();
    let switch = world.start().await;
    let operator = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;
    let mut first = device(&world, &switch, "w701.acme.local").await;
    import(&operator, policy(&world, 1, "")).await.unwrap();
    check(&mut first, 1).await;
    first.vanish();
    switch.stop().await.unwrap();

    let switch = world.start().await;
    let operator = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;
    let (mut first, mut late) =
        (device(&world, &switch, "w701.acme.local").await, device(&world, &switch, "w702.acme.local").await);
    let told = [check(&mut first, 1).await, check(&mut late, 0).await];

    let shown = show(&operator, 1).await;
    assert_eq!(told.map(|digest| digest.map(|digest| digest.to_string())), [None, Some(shown.digest)]);
    assert_eq!((shown.following, shown.behind), (1, 1));
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn k1_who_is_no_administrator_imports_no_policy_and_sees_them() {
    let mut world = World::new();
    let grant = |operator: &str, role| Grant {
        operators: vec![operator.to_owned()],
        role,
        prefixes: Vec::new(),
        kinds: Vec::new(),
    };
    world.config.grants =
        vec![grant("alice.acme.local", GrantRole::Administrator), grant("bob.acme.local", GrantRole::Issuer)];
    let switch = world.start().await;
    let alice = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;
    let bob = connect_as(&world, &switch, Role::Operator, "bob.acme.local").await;

    let denied = import(&bob, policy(&world, 1, "")).await.unwrap_err();
    import(&alice, policy(&world, 1, "")).await.unwrap();
    let lower = import(&alice, policy(&world, 1, "os == \"linux\"")).await.unwrap_err();
    let listed = PolicyServiceClient::new(bob.clone()).list_policies(ListPoliciesRequest {}).await.unwrap();
    let unknown = PolicyServiceClient::new(bob).get_policy(GetPolicyRequest { serial: 2 }).await.unwrap_err();

    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
    assert!(denied.message().contains("import a policy"), "{denied}");
    assert_eq!(lower.code(), Code::FailedPrecondition, "{lower}");
    assert_eq!(listed.into_inner().policies.len(), 1);
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn without_roots_of_administrators_policies_are_refused_with_what_to_do() {
    let mut world = World::new();
    world.config.trust.policies = None;
    let switch = world.start().await;
    let operator = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;

    let refused = import(&operator, policy(&world, 1, "")).await.unwrap_err();

    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("`[trust] policies`"), "{refused}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn the_roots_of_administrators_are_of_no_other_role() {
    let mut world = World::new();
    world.config.trust.policies = Some(world.config.trust.licences.clone());

    let refused = world.try_start().await.err().unwrap();

    assert!(matches!(refused, StartError::Credentials(_)), "{refused}");
    assert!(
        refused.to_string().contains("`trust.licences` and `trust.policies` hold the same root"),
        "{refused}"
    );
}

fn policy(world: &World, serial: u64, audience: &str) -> Vec<u8> {
    let text = format!(
        "serial = {serial}\ntenant = \"acme\"\naudience = '{audience}'\nswitch = [\"wss://switch2.test:4000/v1/session\"]\n"
    );
    let issued = world.pki.issue(Role::Policy, "policy", Ends::InAYear);
    let signer = Signer::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    envelope::sign(text.as_bytes(), ContentType::Policy, &signer, UnixTime::now()).unwrap()
}

async fn device(world: &World, switch: &Switch, name: &str) -> Client {
    let own = world.pki.issue(Role::Device, name, Ends::InAYear);
    Client::connect(switch.running.session_addr(), world.pki.tls(Some(&own), &[]), 1).await.0
}

async fn import(operator: &Channel, envelope: Vec<u8>) -> Result<ClientPolicy, Status> {
    let mut policies = PolicyServiceClient::new(operator.clone());
    let imported = policies.import_policy(ImportPolicyRequest { envelope }).await?;
    Ok(imported.into_inner().policy.unwrap())
}

async fn show(operator: &Channel, serial: u64) -> ClientPolicy {
    let mut policies = PolicyServiceClient::new(operator.clone());
    policies.get_policy(GetPolicyRequest { serial }).await.unwrap().into_inner().policy.unwrap()
}

async fn follows(operator: &Channel, device: &str) -> u64 {
    let request = GetClientRequest { device: device.to_owned() };
    let got = ClientServiceClient::new(operator.clone()).get_client(request).await.unwrap();
    got.into_inner().client.unwrap().policy_serial
}

/// Tells which policy the device follows, and waits for the answer.
async fn check(client: &mut Client, serial: u64) -> Option<Digest> {
    client.session.push_policy_check(serial).unwrap();
    notice(client).await
}

async fn notice(client: &mut Client) -> Option<Digest> {
    notice_over(client).await.0
}

/// What is told of a policy, and over how long all that were told of it are to ask.
async fn notice_over(client: &mut Client) -> (Option<Digest>, Duration) {
    client
        .until(|event| match event {
            ClientEvent::PolicyNotice { digest, spread } => Some((digest, spread)),
            _ => None,
        })
        .await
}

async fn fetch(client: &mut Client, digest: Digest) -> Vec<u8> {
    client.session.push_document_request(DocumentKind::Policy, digest).unwrap();
    client
        .until(|event| match event {
            ClientEvent::Document(document) => Some(document.envelope.to_vec()),
            _ => None,
        })
        .await
}
