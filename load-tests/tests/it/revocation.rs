//! A certificate that is revoked while its device is connected: that session ends within a second, and no other (R3).

use std::path::Path;
use std::time::{Duration, Instant};

use muster_load_tests::dev_fleet::DevFleet;
use muster_load_tests::tls::{self, Identity};
use muster_pki::authority::{Authority, Revoked};
use muster_pki::{Certificate, UnixTime};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::support::Sessions;

/// Sessions that are to stay.
const OTHERS: usize = 2_000;
/// R3: from the CRL's rename to the client's end of stream.
const PROMISED: Duration = Duration::from_secs(1);
/// How long the others are watched after that.
const WATCHED: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_revoked_session_ends_within_a_second_of_the_crl_and_two_thousand_others_stay() {
    let fleet = DevFleet::start(0).unwrap();
    let home = fleet.ready.home.clone();
    let names: Vec<String> = (0..=OTHERS).map(|number| format!("revocation-{number}")).collect();
    let identities = tls::issue_devices(&home, &names).unwrap();
    let mut sessions = Sessions::new(fleet.session_address(), &home);
    sessions.connect(&identities).await;

    let crl = crl_against(&home, &identities[7..8]);
    let (new, current) = (home.join("pki/devices/crl.new"), home.join("pki/devices/crl.pem"));
    std::fs::write(&new, crl).unwrap();
    let renamed = Instant::now();
    std::fs::rename(&new, &current).unwrap();
    let lost = sessions.next_loss(PATIENCE).await.expect("the revoked session ends");
    let took = renamed.elapsed();
    let other = sessions.next_loss(WATCHED).await;

    eprintln!("from the CRL's rename to the end of the stream: {} ms, {OTHERS} others", took.as_millis());
    assert_eq!(lost.device, identities[7].name);
    assert!(lost.problem.to_lowercase().contains("certificate"), "the close reason: {lost:?}");
    assert!(took < PROMISED, "{took:?}");
    assert_eq!(other, None, "a session of nobody's concern was lost");
    // It is refused from now on, as every handshake would be.
    assert!(sessions.try_connect(&identities[7]).await.is_err());
    sessions.tasks_come_down_to(OTHERS).await;
}

/// The devices' CA's next CRL, with these certificates on it, and the CA beside it.
pub(crate) fn crl_against(home: &Path, identities: &[Identity]) -> String {
    let read = |name: &str| std::fs::read_to_string(home.join("pki/devices").join(name)).unwrap();
    let authority = Authority::from_pem(&read("issuing.pem"), &read("issuing.key")).unwrap();
    let now = UnixTime::now();
    let next = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 86_400));
    let revoked = identities.iter().map(|identity| {
        let leaf = CertificateDer::from_pem_slice(identity.chain_pem.as_bytes()).unwrap();
        Revoked { serial_hex: Certificate::from_der(&leaf).unwrap().serial_hex(), at: now }
    });
    let crl = authority.crl(&revoked.collect::<Vec<_>>(), 1_000, now, next).unwrap();
    crl + &authority.certificate_pem()
}
