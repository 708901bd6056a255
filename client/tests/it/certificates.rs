use muster_proto::session::v1::CloseReason;

use crate::lab::{DEVICE, Lab};
use crate::switch::FakeSwitch;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_certificate_is_refused_stays_away_until_it_has_another_and_comes_at_once() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;

    // The ordinary pause of the lab is 10 ms; the longest is a minute and more, longer than a test waits.
    for reason in [CloseReason::Revoked, CloseReason::CertificateExpired, CloseReason::Unfit] {
        client.wait_for(|status| status.connected).await;
        session.close(reason).await;
        let told = |text: &str| text.contains(reason.name()) && text.contains("device.pem");
        client.wait_for(|status| told(&status.disconnected_because)).await;

        let renewed = lab.renew_device();
        session = switch.accept(&lab).await;

        assert_eq!(session.thumbprint(), renewed, "it came back with the old certificate after {reason:?}");
    }
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_tls_refuses_is_waited_for_as_well() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let switch = FakeSwitch::listen().await;
        let mut lab = Lab::new(switch.port(), 1);
        lab.replace_root_of_devices();
        let client = lab.start().await;

        switch.refuse(&lab, version).await;
        let told = |text: &str| text.contains("does not know the issuer") && text.contains("device.pem");
        client.wait_for(|status| told(&status.disconnected_because)).await;
        let renewed = lab.renew_device();
        let session = switch.accept(&lab).await;

        assert_eq!(session.thumbprint(), renewed, "{version:?}");
        client.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_a_running_client_shows_no_other_devices_certificate_says_so_and_takes_its_own_renewed_one() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let session = switch.accept(&lab).await;
    let own = session.thumbprint();

    lab.put_certificate_of("w702.acme.local");
    client.wait_for(|status| status.credentials_problem.contains("w702.acme.local")).await;
    drop(session);
    let session = switch.accept(&lab).await;
    let shown = session.thumbprint();
    let renewed = lab.renew_device();
    client.wait_for(|status| !status.credentials_problem.contains("w702.acme.local")).await;
    drop(session);
    let session = switch.accept(&lab).await;

    assert_eq!(shown, own, "it came as another device");
    assert_eq!(session.thumbprint(), renewed);
    assert_eq!(client.running.device().unwrap().as_str(), DEVICE);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_of_a_certificate_near_its_end_and_of_new_files_that_are_refused() {
    let lab = Lab::new(1, 1);
    // The certificates of the lab are valid for an hour.
    let client = lab.start().await;
    client.wait_for(|status| status.credentials_problem.contains("expires in 0 days; renew it")).await;

    lab.replace("servers.pem", "no certificate at all");
    client.wait_for(|status| status.credentials_problem.contains("servers.pem")).await;

    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_a_session_ends_when_the_certificate_of_its_switch_is_revoked_and_when_its_root_goes() {
    for is_revoked in [true, false] {
        let switch = FakeSwitch::listen().await;
        let mut lab = Lab::new(switch.port(), 1);
        let client = lab.start().await;
        let session = switch.accept(&lab).await;
        client.wait_for(|status| status.connected).await;

        if is_revoked {
            lab.revoke_server();
        } else {
            let other = lab.move_servers_to_another_ca();
            lab.replace("servers.pem", &other);
        }

        let told = "the certificate of the Switch is no longer accepted";
        client.wait_for(|status| status.disconnected_because.contains(told)).await;
        drop(session);
        client.stop().await;
    }
}
