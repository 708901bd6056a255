//! A disk that fills up under a running Switch.

use muster_pki::Role;
use muster_proto::relay::v1::{RelayEventsRequest, RelayedEvent};
use muster_proto::session::v1::Event;
use muster_proto_grpc::relay::v1::event_relay_service_client::EventRelayServiceClient;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::client::Client;
use crate::operators::connect_as;
use crate::pki::Ends;
use crate::world::{PATIENCE, World};

#[tokio::test]
async fn a_disk_that_fills_up_ends_a_running_switch_as_it_refuses_a_start() {
    let mut world = World::new();
    world.config.engine.disk_reserve = 0;
    let folder = world.config.data_dir.clone();
    std::fs::create_dir_all(&folder).unwrap();
    let mounted = mount(Some("muster-it"), &folder, Some("tmpfs"), MsFlags::empty(), Some("size=4m"));
    if let Err(error) = mounted {
        let may_skip = std::env::var("MUSTER_TEST_MAY_SKIP").unwrap_or_default();
        assert!(
            may_skip.split(',').any(|name| name.trim() == "mount"),
            "needs mount: {error}; run it as root with CAP_SYS_ADMIN, or skip such tests with MUSTER_TEST_MAY_SKIP=mount"
        );
        eprintln!("SKIPPED, since MUSTER_TEST_MAY_SKIP names mount");
        return;
    }
    let switch = world.start().await;
    let service = connect_as(&world, &switch, Role::Service, "background.acme.local").await;
    let mut relay = EventRelayServiceClient::new(service);

    // Only a session makes a device known.
    let tls = world.pki.tls(Some(&world.pki.issue(Role::Device, "w701.acme.local", Ends::InAYear)), &[]);
    let (_device, _) = Client::connect(switch.running.session_addr(), tls, 7).await;
    let mut sequence = 0;
    let write = async {
        loop {
            sequence += 1;
            let event = Event { sequence, name: "test.happened".to_owned(), ..Event::default() };
            let relayed = RelayedEvent {
                device: "w701.acme.local".to_owned(),
                outbox_id: vec![7; 16],
                event: Some(event),
            };
            if relay.relay_events(RelayEventsRequest { events: vec![relayed] }).await.is_err() {
                return;
            }
        }
    };
    std::fs::write(folder.join("filler"), vec![1; 8 << 20]).unwrap_err();
    tokio::time::timeout(PATIENCE, write).await.unwrap();
    let running = switch.running;
    let ended = tokio::task::spawn_blocking(move || running.wait());
    let failure = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap_err();
    // The end may have given some of the disk back.
    std::fs::write(folder.join("filler again"), vec![1; 8 << 20]).unwrap_err();
    let refused = world.try_start().await.err();
    umount2(&folder, MntFlags::MNT_DETACH).unwrap();

    assert_eq!(failure.exit_code(), 69, "{failure}");
    assert!(failure.to_string().contains("the disk is full"), "{failure}");
    let refused = refused.expect("a start on a full disk is refused");
    assert_eq!(refused.exit_code(), 69, "{refused}");
}
