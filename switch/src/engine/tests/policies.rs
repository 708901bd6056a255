//! Client policies: imported once and for ever, given to whom they are for, and followed as devices say.

use std::time::Duration;

use muster_pki::Role;
use muster_proto::common::v1::NamedValue;
use muster_proto::ids::Digest;
use muster_proto::operator::v1::ClientPolicy;
use muster_proto::session::v1::DocumentKind;
use muster_signing::envelope::{self, ContentType};

use super::damage::{flip, warnings};
use super::world::*;
use crate::engine::core::POLICIES_MAX;
use crate::engine::{EngineError, ShardMessage};

const LINUX: &str = "os == \"linux\"";
const MAC: &str = "os == \"macos\"";

#[tokio::test]
async fn k1_a_serial_only_grows_and_the_same_bytes_again_change_nothing() {
    let world = World::new().await;
    let seventh = world.policy(7, "");

    let first = world.engine.import_policy(seventh.clone()).await.unwrap();
    let again = world.engine.import_policy(seventh).await.unwrap();
    let other = refused(&world, world.policy(7, LINUX)).await;
    let lower = refused(&world, world.policy(6, "")).await;
    let restarted = world.restart(|_| ());
    let after = refused(&restarted, restarted.policy(6, "")).await;

    assert_eq!((first.serial, first.audience.as_str()), (7, ""));
    assert_eq!(again, first);
    for said in [other, lower, after] {
        assert!(said.contains("the highest imported was 7") && said.contains("with 8 or more"), "{said}");
    }
    assert_eq!(serials(&restarted).await, [7]);
}

#[tokio::test]
async fn k1_a_serial_that_leaps_is_taken_for_a_slip_of_the_pen() {
    let world = World::new().await;
    let first = world.engine.import_policy(world.policy(1_800_000_000, "")).await.unwrap();

    let leap = refused(&world, world.policy(2_800_000_001, "")).await;
    let step = world.engine.import_policy(world.policy(2_800_000_000, "")).await.unwrap();

    assert!(leap.contains("slip of the pen") && leap.contains("sign it again with 1800000001"), "{leap}");
    assert_eq!((first.serial, step.serial), (1_800_000_000, 2_800_000_000));
}

#[tokio::test]
async fn k1_only_an_administrator_of_policies_signs_them_for_this_organisation() {
    let world = World::new().await;
    let text = policy_text(1, "");
    let author = Party::new(Role::Author).sign(text.as_bytes(), ContentType::Policy, world.now_ms());
    let licence = world.administrator.sign(text.as_bytes(), ContentType::Licence, world.now_ms());
    let elsewhere = text.replace(TENANT, "elsewhere");
    let elsewhere = world.administrator.sign(elsewhere.as_bytes(), ContentType::Policy, world.now_ms());
    let odd = world.administrator.sign(b"serial = 1", ContentType::Policy, world.now_ms());

    for wrong in [author, licence] {
        let refused = world.engine.import_policy(wrong).await;
        assert!(matches!(refused, Err(EngineError::PermissionDenied(_))), "{refused:?}");
    }
    let said = refused(&world, elsewhere).await;
    let odd = world.engine.import_policy(odd).await;

    assert!(said.contains("tenant `elsewhere`"), "{said}");
    assert!(matches!(odd, Err(EngineError::InvalidArgument(_))), "{odd:?}");
    assert!(serials(&world).await.is_empty());
}

#[tokio::test]
async fn without_roots_an_import_says_which_key_is_missing() {
    let world = World::without_policy_roots();

    let said = refused(&world, world.policy(1, "")).await;

    assert!(said.contains("`[trust] policies`"), "{said}");
}

#[tokio::test]
async fn t12_a_device_is_given_the_latest_policy_that_is_for_it() {
    let world = World::new().await;
    let (one, other) = (world.connect("w1.acme.local").await, world.connect("w2.acme.local").await);
    let all = import(&world, 3, "").await;
    let trial = import(&world, 4, "device == \"w1.acme.local\"").await;
    let nobody = import(&world, 5, MAC).await;

    let given = [world.check_policy(&one, 0).await, world.check_policy(&other, 0).await];
    let later = [world.check_policy(&one, 3).await, world.check_policy(&other, 3).await];
    let followed = [world.check_policy(&one, 4).await, world.check_policy(&other, u64::MAX).await];

    assert_eq!(given, [Some(trial), Some(all)]);
    assert_eq!(later, [Some(trial), None]);
    assert_eq!(followed, [None, None], "never an earlier one");
    assert!(world.engine.document(DocumentKind::Policy, nobody).is_some());
    assert!(world.engine.document(DocumentKind::Licence, nobody).is_none());
}

#[tokio::test]
async fn k3_an_import_is_told_to_the_sessions_that_it_is_news_for_and_many_ask_spread_over_a_time() {
    let mut world = World::new().await;
    let linux = world.connect("w1.acme.local").await;
    let mac = world.connect_with("m1.acme.local", outbox(), vec![text("os", "macos")]).await;
    let ahead = world.connect("w2.acme.local").await;
    world.check_policy(&ahead, 9).await;
    let gone = world.connect("w3.acme.local").await;
    world.engine.disconnected(gone.connected.number, gone.key.epoch).await.unwrap();

    let digest = import(&world, 5, LINUX).await;
    let told = next_notice(&mut world).await;
    let everyone = import(&world, 10, "").await;
    let all = next_notice(&mut world).await;

    assert_eq!(told, (digest, vec![linux.connected.number], Duration::ZERO));
    let numbers = [&linux, &mac, &ahead].map(|session| session.connected.number);
    assert_eq!(POLICY_ASKS_PER_SECOND, 2);
    assert_eq!(all, (everyone, numbers.to_vec(), Duration::from_millis(1_500)));
}

#[tokio::test]
async fn k3_what_each_device_follows_is_shown_and_survives_a_restart() {
    let world = World::new().await;
    let (one, other) = (world.connect("w1.acme.local").await, world.connect("w2.acme.local").await);
    world.connect_with("m1.acme.local", outbox(), vec![text("os", "macos")]).await;
    import(&world, 1, "").await;
    import(&world, 2, LINUX).await;
    world.check_policy(&one, 2).await;
    world.check_policy(&other, 1).await;
    let before = counts_of(&world).await;

    let world = world.killed();
    let after = counts_of(&world).await;
    let shown = |device: &str| world.engine.reader().client(&device.parse().unwrap()).unwrap().policy_serial;
    let again = world.connect("w1.acme.local").await;

    // (serial, following, behind): w2 is to go from 1 to 2, and m1 from none to 1.
    assert_eq!(before, [(2, 1, 1), (1, 1, 1)]);
    assert_eq!(after, before);
    let devices = ["w1.acme.local", "w2.acme.local", "m1.acme.local"];
    assert_eq!(devices.map(shown), [2, 1, 0]);
    assert_eq!(again.connected.policy_serial, 2);
    assert_eq!(world.check_policy(&again, 0).await.map(|_| ()), Some(()));
    assert_eq!(shown("w1.acme.local"), 0, "a device that was installed anew follows none");
    assert_eq!(counts_of(&world).await, [(2, 0, 2), (1, 1, 1)]);
    assert_eq!(warnings(&world), Vec::<String>::new());
}

#[tokio::test]
async fn a_device_that_says_something_else_of_itself_is_given_another_policy() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let all = import(&world, 1, "").await;
    let linux = import(&world, 2, LINUX).await;
    let said = |os: &str| -> Vec<NamedValue> { vec![text("os", os)] };

    let mac = world.connect_with("w1.acme.local", outbox(), said("macos")).await;
    let of_mac = world.check_policy(&mac, 0).await;
    let again = world.connect_with("w1.acme.local", outbox(), said("linux")).await;
    let of_linux = world.check_policy(&again, 0).await;

    assert_eq!((of_mac, of_linux), (Some(all), Some(linux)));
    assert_eq!(counts_of(&world).await, [(2, 0, 1), (1, 0, 0)]);
}

#[tokio::test]
async fn what_a_superseded_session_says_of_its_policy_does_not_count() {
    let world = World::new().await;
    let older = world.connect("w1.acme.local").await;
    let newer = world.connect("w1.acme.local").await;
    import(&world, 1, "").await;

    world.check_policy(&newer, 1).await;
    let late = world.check_policy(&older, 0).await;

    assert_eq!(late, None);
    assert_eq!(counts_of(&world).await, [(1, 1, 0)]);
}

#[tokio::test]
async fn a_removed_device_follows_nothing() {
    let world = World::new().await;
    let one = world.connect("w1.acme.local").await;
    world.connect("w2.acme.local").await;
    import(&world, 1, "").await;
    world.check_policy(&one, 1).await;

    for device in ["w1.acme.local", "w2.acme.local"] {
        world.engine.remove(device.parse().unwrap()).await.unwrap();
    }
    let removed = counts_of(&world).await;
    let world = world.restart(|_| ());
    let again = world.connect("w1.acme.local").await;

    assert_eq!(removed, [(1, 0, 0)]);
    assert_eq!(again.connected.policy_serial, 0);
    assert_eq!(counts_of(&world).await, [(1, 0, 1)]);
}

#[tokio::test]
async fn a_damaged_policy_is_never_served_brings_none_back_that_it_may_have_superseded_and_its_serial_stays_used()
 {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    import(&world, 1, "").await;
    let damaged = import(&world, 2, "").await;
    world.check_policy(&session, 1).await;

    let world = world.restart(|database| {
        flip(database, "policies", "position = 2");
        database.execute("UPDATE policy_followed SET serial = 2", []).unwrap();
        database.execute("UPDATE marks SET value = 0 WHERE name = 'policy_serial'", []).unwrap();
    });
    let again = world.connect("w1.acme.local").await;
    let given = world.check_policy(&again, 0).await;
    let said = refused(&world, world.policy(2, "")).await;

    assert_eq!(given, None, "the damaged one was for all: nobody is given an earlier one");
    assert!(world.engine.document(DocumentKind::Policy, damaged).is_none());
    assert!(said.contains("the highest imported was 2"), "{said}");
    assert_eq!(again.connected.policy_serial, 0, "it tells it again");
    assert_eq!(warnings(&world), ["marks", "policies", "policy_followed"]);
    let told = world.engine.reader().status().warnings;
    assert!(told.iter().any(|told| told.contains("policy 2 is damaged")), "{told:?}");
    let third = import(&world, 3, LINUX).await;
    assert_eq!(serials(&world).await, [3, 1]);
    let mac = world.connect_with("m1.acme.local", outbox(), vec![text("os", "macos")]).await;
    let given = [world.check_policy(&again, 0).await, world.check_policy(&mac, 0).await];
    assert_eq!(given, [Some(third), None], "a later one is given, and brings no earlier one back");
    let world = world.restart(|_| ());
    let mac = world.connect_with("m1.acme.local", outbox(), vec![text("os", "macos")]).await;
    assert_eq!(world.check_policy(&mac, 0).await, None, "nor does another start");
    let of_policy = |world: &World| {
        let told = world.engine.reader().status().warnings;
        told.into_iter().filter(|told| told.contains("policy 2 is damaged")).count()
    };
    assert_eq!(of_policy(&world), 1);
    import(&world, 4, "").await;
    assert_eq!(of_policy(&world), 0, "none lacks one any more");
}

#[tokio::test]
async fn a_damaged_policy_is_told_of_until_later_ones_are_for_all_whom_it_may_have_been_for() {
    const WITHOUT: &str = "authenticated == false";
    /// The policies before the damaged one,
    type Before = &'static [&'static str];
    /// and those after it, with whether it is still told of.
    type After = &'static [(&'static str, bool)];
    let courses: [(Before, After); 3] = [
        (&[""], &[(LINUX, true), ("", false)]),
        (&["", WITHOUT], &[("", true), (WITHOUT, false)]),
        (&[WITHOUT], &[(WITHOUT, true), ("", false)]),
    ];
    for (before, after) in courses {
        let world = World::new().await;
        let mut serial = 0;
        for audience in before.iter().chain(&[""]) {
            serial += 1;
            import(&world, serial, audience).await;
        }
        let world = world.restart(|database| flip(database, "policies", &format!("position = {serial}")));
        for (audience, is_told) in after {
            serial += 1;
            import(&world, serial, audience).await;
            let told = world.engine.reader().status().warnings;
            let found = told.iter().any(|told| told.contains("is damaged on the Switch's disk"));
            assert_eq!(found, *is_told, "{before:?}, {serial}: {told:?}");
        }
    }
}

#[tokio::test]
async fn a_policy_that_is_gone_from_the_disk_brings_none_back_either() {
    let world = World::new().await;
    import(&world, 1, "").await;
    import(&world, 2, "").await;

    let world = world.restart(|database| {
        database.execute("DELETE FROM policies WHERE position = 2", []).unwrap();
    });
    let session = world.connect("w1.acme.local").await;

    assert_eq!(world.check_policy(&session, 0).await, None);
}

#[tokio::test]
async fn so_many_policies_are_held_and_only_one_that_nobody_is_given_makes_room() {
    let world = World::new().await;
    let most = u64::try_from(POLICIES_MAX).unwrap();
    for serial in 1..=most {
        import(&world, serial, LINUX).await;
    }

    let said = refused(&world, world.policy(most + 1, LINUX)).await;
    import(&world, most + 1, "").await;
    import(&world, most + 2, MAC).await;
    let world = world.restart(|_| ());
    let held = serials(&world).await;

    assert!(said.contains("64 policies are held") && said.contains("without an audience"), "{said}");
    assert_eq!((held.len(), held.first(), held.last()), (POLICIES_MAX, Some(&(most + 2)), Some(&3)));
    let superseded = world.engine.policies().await.unwrap().into_iter().filter(|policy| policy.superseded);
    assert_eq!(superseded.count(), POLICIES_MAX - 2);
}

#[tokio::test]
async fn an_import_leaves_the_reserve_of_the_disk_alone() {
    let world = World::new().await.with_disk_reserve(u64::MAX / 2);

    let refused = world.engine.import_policy(world.policy(1, "")).await;

    assert!(matches!(refused, Err(EngineError::ResourceExhausted(_))), "{refused:?}");
}

async fn import(world: &World, serial: u64, audience: &str) -> Digest {
    let policy = world.policy(serial, audience);
    let digest = envelope::digest(&policy);
    assert_eq!(world.engine.import_policy(policy).await.unwrap().serial, serial);
    digest
}

/// Imports what must not be taken as things are; returns what was said.
async fn refused(world: &World, policy: Vec<u8>) -> String {
    match world.engine.import_policy(policy).await {
        Err(EngineError::FailedPrecondition(said)) => said,
        other => panic!("{other:?}"),
    }
}

async fn serials(world: &World) -> Vec<u64> {
    world.engine.policies().await.unwrap().iter().map(|policy| policy.serial).collect()
}

/// Serial, who follows it and who is behind.
async fn counts_of(world: &World) -> Vec<(u64, u64, u64)> {
    let counts = |policy: &ClientPolicy| (policy.serial, policy.following, policy.behind);
    world.engine.policies().await.unwrap().iter().map(counts).collect()
}

async fn next_notice(world: &mut World) -> (Digest, Vec<u32>, Duration) {
    let notice = world.next(|message| match message {
        ShardMessage::PolicyNotice { digest, targets, spread } => {
            Some((digest, targets.iter().collect(), spread))
        }
        ShardMessage::Order { .. }
        | ShardMessage::Ack { .. }
        | ShardMessage::Close { .. }
        | ShardMessage::LicenceNotice { .. } => None,
    });
    tokio::time::timeout(Duration::from_secs(20), notice).await.unwrap()
}
