//! A Background Channel whose certificate is chosen from a folder (S7, N3).

use std::path::PathBuf;

use muster_background_channel::StartError;
use muster_pki::Role;
use muster_service::credentials::{Address, shown_by};
use muster_service::shutdown::Shutdown;

use crate::pki::A_MONTH;
use crate::world::{CHANNEL_NAME, PATIENCE, World};

#[tokio::test]
async fn s7_a_folders_certificate_is_shown_and_readiness_names_it_and_without_one_there_is_no_start() {
    let mut world = World::new().await;
    let folder = world.config.data_dir.with_extension("store");
    std::fs::create_dir(&folder).unwrap();
    let tls = &mut world.config.tls;
    tls.certificate = PathBuf::new();
    tls.key = PathBuf::new();
    tls.store.clone_from(&folder);
    tls.server_name = CHANNEL_NAME.to_owned();
    let put = |name: &str, issued: &muster_pki::authority::Issued| {
        let text = format!("{}{}", issued.chain_pem, issued.key_pem);
        std::fs::write(folder.join(format!("{name}.pem")), text).unwrap();
    };
    put("elsewhere", &world.pki.issue(Role::Switch, "elsewhere.test", A_MONTH));

    let refused = muster_background_channel::start(world.config.clone(), Shutdown::new()).await.unwrap_err();
    let mine = world.pki.issue(Role::Switch, CHANNEL_NAME, A_MONTH);
    put("mine", &mine);
    let channel = world.start().await;
    let address = Address::new("127.0.0.1", channel.running.addr().port()).unwrap();
    let shown = shown_by(&address, PATIENCE).await.unwrap();

    assert!(matches!(refused, StartError::Credentials(_)), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("the port stays closed") && text.contains("elsewhere.pem"), "{text}");
    assert_eq!(shown[0].as_ref(), mine.certificate.der());
    let ready = world.admin(&channel, "/readyz").await;
    assert!(ready.contains(&mine.certificate.thumbprint().to_string()), "{ready}");
    channel.stop().await.unwrap();
}
