//! A full disk under the Background Channel: it refuses what it cannot keep, and goes on.

use std::path::{Path, PathBuf};

use http::{Method, StatusCode};
use muster_pki::Role;
use muster_proto::session::v1::{Event, EventBatch};
use muster_service::shutdown::Shutdown;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use prost::Message as _;

use crate::world::World;

/// A tmpfs, unmounted with the test.
struct Small(PathBuf);

impl Small {
    /// Mounts one. Where that is not allowed the test fails, unless `MUSTER_TEST_MAY_SKIP` names it.
    #[expect(clippy::print_stderr, reason = "a skip is loud")]
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = mount(Some("muster-it"), path, Some("tmpfs"), MsFlags::empty(), Some("size=2m"));
        let Err(error) = mounted else { return Some(Self(path.to_owned())) };
        let may_skip = std::env::var("MUSTER_TEST_MAY_SKIP").unwrap_or_default();
        assert!(
            may_skip.split(',').any(|one| one.trim() == "mount"),
            "needs mount: {error}; run it as root with CAP_SYS_ADMIN, or skip such tests with MUSTER_TEST_MAY_SKIP=mount"
        );
        eprintln!("SKIPPED, since MUSTER_TEST_MAY_SKIP names mount");
        None
    }

    /// Takes every byte that is left.
    fn fill(&self) {
        let filled = std::fs::write(self.0.join("filler"), vec![1; 4 << 20]);
        assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // What stays mounted ends with the machine; a test that fails already says why.
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_events_and_resources_and_ends_nothing() {
    let world = World::new().await;
    let Some(small) = Small::mount(&world.config.data_dir) else { return };
    let channel = world.start().await;
    let device = world.caller(&channel, Role::Device, "w701.acme.local");
    let operator = world.caller(&channel, Role::Operator, "alice.acme.local");
    let post = async |sequences: std::ops::Range<u64>| {
        let event = |sequence| Event { sequence, name: "test.happened".to_owned(), ..Event::default() };
        let batch = EventBatch { outbox_id: vec![7; 16], events: sequences.map(event).collect() };
        device.call(Method::POST, "/events", batch.encode_to_vec()).await
    };
    let content = vec![7; 100_000];
    let address = format!("/resources/{}", blake3::hash(&content).to_hex());
    let put = format!("{address}?name=tool.bin");
    let before = operator.call(Method::PUT, &put, content.clone()).await;

    small.fill();
    // More than any page that was left in the log.
    let refused = post(1..1_000).await;
    let again = post(1..1_000).await;
    let other = vec![8; 100_000];
    let other_put = format!("/resources/{}?name=other.bin", blake3::hash(&other).to_hex());
    let refused_put = operator.call(Method::PUT, &other_put, other).await;
    let served = device.get(&address, &[]).await;
    small.free();
    let taken = post(1..1_000).await;
    channel.stop().await.unwrap();

    assert_eq!(before.status, StatusCode::CREATED);
    for refused in [refused, again] {
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.body).contains("full"), "{refused:?}");
        assert!(refused.headers.contains_key("retry-after"));
    }
    assert_eq!(refused_put.status, StatusCode::INSUFFICIENT_STORAGE, "{refused_put:?}");
    assert_eq!((served.status, served.body.len()), (StatusCode::OK, content.len()));
    assert_eq!(taken.status, StatusCode::OK, "{taken:?}");
}

#[tokio::test]
async fn a_full_disk_refuses_the_start_and_says_so_and_room_lets_it() {
    let world = World::new().await;
    let Some(small) = Small::mount(&world.config.data_dir) else { return };
    small.fill();

    for _ in 0..2 {
        let error =
            muster_background_channel::start(world.config.clone(), Shutdown::new()).await.err().unwrap();
        assert!(error.is_disk_full(), "{error:?}");
        assert!(
            error.to_string().contains("the disk") && error.to_string().contains("free space"),
            "{error}"
        );
    }

    small.free();
    world.start().await.stop().await.unwrap();
    // With a spool that is there already.
    small.fill();
    let error = muster_background_channel::start(world.config.clone(), Shutdown::new()).await.err().unwrap();
    assert!(error.is_disk_full(), "{error:?}");
    small.free();
}
