use muster_client::{StartError, start};
use muster_service::shutdown::Shutdown;

use crate::lab::{DEVICE, Lab};

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_never_share_a_folder() {
    let lab = Lab::new(1, 1);
    let first = lab.start().await;

    let second = start(lab.config(), Shutdown::new()).await;

    assert!(matches!(second, Err(StartError::Taken { .. })));
    first.stop().await;
    lab.start().await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_name_that_is_not_the_certificates_stops_the_start() {
    let lab = Lab::new(1, 1);
    let mut config = lab.config();
    config.computer_name = "w702.acme.local".to_owned();

    let error = start(config.clone(), Shutdown::new()).await.unwrap_err();
    config.computer_name = DEVICE.to_uppercase();
    let shutdown = Shutdown::new();
    let running = start(config, shutdown.clone()).await.unwrap();

    assert!(error.to_string().contains("w702.acme.local") && error.to_string().contains(DEVICE), "{error}");
    assert_eq!(running.device().unwrap().as_str(), DEVICE);
    shutdown.trigger();
    running.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_that_two_roles_share_stop_the_start() {
    let lab = Lab::new(1, 1);
    let mut config = lab.config();
    config.trust.orders = config.trust.authors.clone();

    let error = start(config, Shutdown::new()).await.unwrap_err();

    let text = error.to_string();
    assert!(text.contains("trust.authors") && text.contains("trust.orders"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_named_with_its_key() {
    let lab = Lab::new(1, 1);
    let mut config = lab.config();
    config.trust.licences = "/nowhere/licences.pem".into();

    let error = start(config, Shutdown::new()).await.unwrap_err();

    let text = error.to_string();
    assert!(text.contains("trust.licences") && text.contains("/nowhere/licences.pem"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_dir_that_is_a_file_stops_the_start_with_what_to_do() {
    let lab = Lab::new(1, 1);
    let config = lab.config();
    std::fs::write(&config.data_dir, "").unwrap();

    let error = start(config.clone(), Shutdown::new()).await.unwrap_err();

    let text = error.to_string();
    assert!(matches!(error, StartError::WrongKind(_)), "{error:?}");
    for wanted in [config.data_dir.to_str().unwrap(), "got a file", "wanted a folder", "`data_dir`"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}
