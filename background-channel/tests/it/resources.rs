//! Resources: who may put, list and get them, and how they come back.

use bao_tree::io::outboard::PreOrderMemOutboard;
use http::{Method, StatusCode};
use muster_background_channel::{BLOCK_SIZE, ResourceInfo, StartError};
use muster_pki::Role;
use muster_service::shutdown::Shutdown;

use crate::world::World;

/// Content of several groups, the last one cut.
fn content() -> Vec<u8> {
    (0_u32..100_003).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
}

fn path_of(content: &[u8]) -> String {
    format!("/resources/{}", blake3::hash(content).to_hex())
}

#[tokio::test]
async fn an_operator_puts_and_a_device_gets_whole_and_by_range() {
    let world = World::new().await;
    let channel = world.start().await;
    let operator = world.caller(&channel, Role::Operator, "alice.acme.local");
    let device = world.caller(&channel, Role::Device, "w701.acme.local");
    let (content, path) = (content(), path_of(&content()));

    let put = operator.call(Method::PUT, &format!("{path}?name=setup.bin"), content.clone()).await;
    let whole = device.get(&path, &[]).await;
    let part = device.get(&path, &[("range", "bytes=1000-50999")]).await;
    let tail = device.get(&path, &[("range", "bytes=-3")]).await;
    let beyond = device.get(&path, &[("range", "bytes=100003-")]).await;

    assert_eq!(put.status, StatusCode::CREATED);
    assert_eq!((whole.status, &whole.body[..]), (StatusCode::OK, &content[..]));
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &content[1_000..51_000]));
    assert_eq!(part.headers["content-range"], "bytes 1000-50999/100003");
    assert_eq!((tail.status, &tail.body[..]), (StatusCode::PARTIAL_CONTENT, &content[100_000..]));
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn head_tells_the_size_and_obao_is_the_tree_that_a_client_verifies_with() {
    let world = World::new().await;
    let channel = world.start().await;
    let operator = world.caller(&channel, Role::Operator, "alice.acme.local");
    let device = world.caller(&channel, Role::Device, "w701.acme.local");
    let (content, path) = (content(), path_of(&content()));
    operator.call(Method::PUT, &format!("{path}?name=setup.bin"), content.clone()).await;

    let head = device.call(Method::HEAD, &path, "").await;
    let tree = device.get(&format!("{path}.obao"), &[]).await;

    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.headers["content-length"], "100003");
    assert_eq!(head.headers["accept-ranges"], "bytes");
    let wanted = PreOrderMemOutboard::create(&content, BLOCK_SIZE);
    assert_eq!(wanted.root, blake3::hash(&content));
    assert_eq!(tree.status, StatusCode::OK);
    assert_eq!(tree.body[..8], 100_003_u64.to_le_bytes());
    assert_eq!(&tree.body[8..], &wanted.data[..]);
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn an_operator_lists_what_is_there_and_it_survives_a_restart() {
    let world = World::new().await;
    let channel = world.start().await;
    let operator = world.caller(&channel, Role::Operator, "alice.acme.local");
    operator.call(Method::PUT, &format!("{}?name=setup.bin", path_of(&content())), content()).await;
    channel.stop().await.unwrap();
    let channel = world.start().await;
    let operator = world.caller(&channel, Role::Operator, "alice.acme.local");

    let listed = operator.get("/resources", &[]).await;

    let listed: Vec<ResourceInfo> = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].size), ("setup.bin", 100_003));
    assert_eq!(listed[0].root, blake3::hash(&content()).to_hex().as_str());
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn content_of_another_root_is_refused_and_not_kept() {
    let world = World::new().await;
    let channel = world.start().await;
    let operator = world.caller(&channel, Role::Operator, "alice.acme.local");
    let path = path_of(b"what the address says");

    let put = operator.call(Method::PUT, &format!("{path}?name=setup.bin"), "something else").await;
    let got = operator.get(&path, &[]).await;

    assert_eq!(put.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(put.body.starts_with(b"the content's root is "), "{:?}", put.body);
    assert_eq!(got.status, StatusCode::NOT_FOUND);
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn a_device_neither_puts_nor_lists() {
    let world = World::new().await;
    let channel = world.start().await;
    let device = world.caller(&channel, Role::Device, "w701.acme.local");
    let path = path_of(b"anything");

    let put = device.call(Method::PUT, &format!("{path}?name=setup.bin"), "anything").await;
    let list = device.get("/resources", &[]).await;
    let got = device.get(&path, &[]).await;

    assert_eq!((put.status, list.status), (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN));
    assert!(put.body.starts_with(b"this needs an operator's certificate"), "{:?}", put.body);
    assert_eq!(got.status, StatusCode::NOT_FOUND, "nothing was kept");
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_background_channel_on_a_folder_is_refused_and_leaves_its_uploads_alone() {
    let world = World::new().await;
    let channel = world.start().await;
    let upload = world.config.data_dir.join("resources/tmp-upload");
    std::fs::write(&upload, b"half").unwrap();

    let second = muster_background_channel::start(world.config.clone(), Shutdown::new()).await;

    let error = second.err().unwrap();
    assert!(matches!(error, StartError::Taken { .. }), "{error}");
    assert!(upload.exists());
    channel.stop().await.unwrap();
    world.start().await.stop().await.unwrap();
}
