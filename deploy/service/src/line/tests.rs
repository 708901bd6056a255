//! Lines against rustls' own client: over sockets, and record by record in memory.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_pki::authority::{Authority, Request};
use muster_pki::{Role, UnixTime, pem};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore,
    ServerConfig, SupportedCipherSuite,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::records::{Opened, Records, SCRATCH_BYTES};
use super::*;
use crate::credentials::provider;

const BOTH: [Keying; 2] = [Keying::Closed, Keying::Exported];

#[tokio::test]
async fn says_and_hears_what_is_longer_than_a_record_and_a_socket_takes() {
    for keying in BOTH {
        let (mut line, mut client) = connected(keying).await;
        let long: Vec<u8> = (0..16_000_000_u32).map(|at| at.to_le_bytes()[0]).collect();

        let talk = async {
            client.write_all(&long).await.unwrap();
            client.flush().await.unwrap();
            let mut back = vec![0; long.len()];
            client.read_exact(&mut back).await.unwrap();
            back
        };
        let echo = async {
            let mut heard = Vec::new();
            while heard.len() < long.len() {
                assert_eq!(line.receive(&mut heard).await.unwrap(), Came::Some);
            }
            line.send(&heard).unwrap();
            assert!(line.unsent_bytes() > 0, "a socket does not take it at once");
            line.flush().await.unwrap();
        };
        let (back, ()) = tokio::join!(talk, echo);

        assert_eq!(back, long, "{keying:?}");
    }
}

#[tokio::test]
async fn an_idle_line_owns_no_buffer_after_traffic_either() {
    let (mut line, mut client) = connected(Keying::Closed).await;

    client.write_all(&[7; 100_000]).await.unwrap();
    client.flush().await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 100_000 {
        line.receive(&mut heard).await.unwrap();
    }
    line.send(&[7; 100_000]).unwrap();
    let mut back = vec![0; 100_000];
    let (read, flushed) = tokio::join!(client.read_exact(&mut back), line.flush());
    read.unwrap();
    flushed.unwrap();

    assert_eq!((line.unsent.bytes.capacity(), line.records.kept_capacity()), (0, 0));
}

#[tokio::test]
async fn what_comes_right_behind_the_handshake_is_not_lost() {
    for keying in BOTH {
        let (server, client) = configs();
        let (near, far) = sockets().await;
        let call = async {
            let mut client = ClientConnection::new(client, name()).unwrap();
            // All in one go: the end of the handshake, and the first words.
            client.writer().write_all(b"first").unwrap();
            let mut stream = far.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            tokio::task::spawn_blocking(move || {
                while client.is_handshaking() {
                    client.complete_io(&mut stream).unwrap();
                }
                while client.wants_write() {
                    client.write_tls(&mut stream).unwrap();
                }
                (client, stream)
            })
            .await
            .unwrap()
        };
        let (accepted, _client) = tokio::join!(Line::accept(server, near, keying), call);
        let Accepted { mut line, mut early } = accepted.unwrap();

        while early.len() < 5 {
            line.receive(&mut early).await.unwrap();
        }

        assert_eq!(early, b"first");
    }
}

#[tokio::test]
async fn each_side_hears_of_the_others_end() {
    for keying in BOTH {
        let (mut line, mut client) = connected(keying).await;
        line.send(b"last").unwrap();
        line.close().await.unwrap();
        let mut heard = Vec::new();
        // A connection without a `close_notify` would be an error.
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last");

        let (mut line, mut client) = connected(keying).await;
        client.write_all(b"last").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        while line.receive(&mut heard).await.unwrap() != Came::End {}
        assert_eq!(heard, b"last");
    }
}

#[tokio::test]
async fn a_peer_that_gets_tls_wrong_is_told_and_the_socket_given_back() {
    for keying in BOTH {
        let (server, _) = configs();
        let (near, mut far) = sockets().await;
        // A record of the handshake that holds none of its messages.
        far.write_all(&[22, 3, 1, 0, 4, 99, 0, 0, 0]).await.unwrap();

        let (error, _socket) = Line::accept(server, near, keying).await.unwrap_err();

        assert!(error.get_ref().unwrap().downcast_ref::<rustls::Error>().is_some(), "{error}");
        let mut alert = [0; 7];
        far.read_exact(&mut alert).await.unwrap();
        assert_eq!((alert[0], alert[5]), (21, 2), "a fatal alert");
    }
}

#[tokio::test]
async fn an_end_within_the_handshake_is_an_error() {
    let (server, _) = configs();
    let (near, far) = sockets().await;
    drop(far);

    let (error, _) = Line::accept(server, near, Keying::Closed).await.unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn keys_that_the_client_renews_are_renewed_and_what_is_said_in_between_arrives() {
    let (mut records, mut client) = met();
    for round in 0..3_u8 {
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(&[round; 10]).unwrap();

        let (opened, heard, answer) = hear(&mut records, &take(&mut client));
        assert_eq!((opened, heard), (Opened::More, vec![round; 10]));
        // The client asks for other keys of ours, too, which go before what is said next.
        let mut sealed = answer;
        records.seal(&[round; 20], &mut sealed).unwrap();

        assert_eq!(give(&mut client, &sealed), [round; 20]);
    }
}

/// rustls knows how far it has read, and looks behind that; in a buffer without what it has read it would look behind the end.
#[test]
fn what_is_said_while_a_handshake_message_is_not_whole_arrives() {
    let (mut records, client) = met();
    let (mut writer, mut client) = Raw::of(client);
    // A KeyUpdate that does not ask for another (RFC 8446 §4.6.3), cut in two.
    let (_, heard, _) = hear(&mut records, &writer.record(ContentType::Handshake, &[24, 0]));
    assert!(heard.is_empty());

    let mut sealed = Vec::new();
    records.seal(b"an order", &mut sealed).unwrap();
    records.close(&mut sealed).unwrap();

    assert_eq!(client.read(&mut sealed), b"an order");
    let (opened, ..) = hear(&mut records, &writer.record(ContentType::Handshake, &[0, 1, 0]));
    assert_eq!(opened, Opened::More);
}

#[test]
fn a_message_of_the_handshake_that_goes_on_for_ever_ends_the_connection() {
    let (mut records, client) = met();
    let (mut writer, _) = Raw::of(client);
    // A certificate of 60,000 bytes, a thousand at a time: more than is kept once the handshake is over.
    let mut part = vec![11, 0, 234, 96];
    let mut records_taken = 0;
    let error = loop {
        part.resize(1000, 0);
        let mut scratch = vec![0; SCRATCH_BYTES];
        let kept = records.resume(&mut scratch);
        let record = writer.record(ContentType::Handshake, &part);
        scratch[kept..kept + record.len()].copy_from_slice(&record);
        match records.open(&mut scratch[..kept + record.len()], &mut Vec::new(), &mut Vec::new()) {
            Ok(_) => records_taken += 1,
            Err(error) => break error,
        }
        part.clear();
    };

    assert!(records_taken < 20, "{records_taken} records");
    assert!(
        matches!(
            error,
            rustls::Error::PeerSentOversizedRecord | rustls::Error::InappropriateHandshakeMessage { .. }
        ),
        "{error}"
    );
}

/// What rustls knows of the bytes that it read last is of no use once they are gone.
#[test]
fn a_connection_that_broke_says_nothing_more_and_does_not_panic() {
    let (mut records, client) = met();
    let (mut writer, _) = Raw::of(client);
    let mut received = writer.record(ContentType::Handshake, &[24, 0]);
    received.extend(writer.record(ContentType::ApplicationData, b"in between"));

    let (mut plain, mut sent) = (Vec::new(), Vec::new());
    let error = records.open(&mut received, &mut plain, &mut sent).unwrap_err();

    assert_eq!(records.close(&mut Vec::new()).unwrap_err(), error);
    assert_eq!(records.seal(b"an order", &mut Vec::new()).unwrap_err(), error);
    assert_eq!(records.open(&mut [0], &mut plain, &mut sent).unwrap_err(), error);
}

#[test]
fn what_comes_behind_the_end_is_not_kept() {
    let (mut records, mut client) = met();
    client.send_close_notify();
    let mut received = take(&mut client);
    received.resize(100_000, 0);

    let opened = records.open(&mut received, &mut Vec::new(), &mut Vec::new()).unwrap();

    assert_eq!((opened, records.kept_capacity()), (Opened::Closed, 0));
}

#[test]
fn a_record_that_comes_byte_by_byte_is_heard_when_it_is_whole() {
    let (mut records, mut client) = met();
    client.writer().write_all(b"slowly").unwrap();
    let record = take(&mut client);
    let (last, most) = record.split_last().unwrap();

    for byte in most {
        assert_eq!(hear(&mut records, &[*byte]).1, b"");
    }

    assert_eq!(hear(&mut records, &[*last]).1, b"slowly");
    assert_eq!(records.kept_capacity(), 0);
}

#[test]
fn a_changed_record_is_an_error_and_the_peer_is_told() {
    let (mut records, mut client) = met();
    client.writer().write_all(b"an answer").unwrap();
    let mut record = take(&mut client);
    *record.last_mut().unwrap() ^= 1;
    let mut alert = Vec::new();

    let error = records.open(&mut record, &mut Vec::new(), &mut alert).unwrap_err();

    assert_eq!(error, rustls::Error::DecryptError);
    let mut unread = alert.as_slice();
    client.read_tls(&mut unread).unwrap();
    let told = client.process_new_packets().unwrap_err();
    assert_eq!(told, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
}

/// The records of a client whose keys were taken out.
struct Raw {
    seal: Box<dyn rustls::crypto::cipher::MessageEncrypter>,
    sealed: u64,
}

/// What such a client reads.
struct RawReader {
    open: Box<dyn rustls::crypto::cipher::MessageDecrypter>,
    opened: u64,
}

impl Raw {
    fn of(client: ClientConnection) -> (Self, RawReader) {
        let secrets = client.dangerous_extract_secrets().unwrap();
        let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { panic!("TLS 1.3") };
        let keys = |secrets| {
            let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("another suite") };
            (key, iv)
        };
        let ((sealed, tx), (opened, rx)) = (secrets.tx, secrets.rx);
        let ((tx_key, tx_iv), (rx_key, rx_iv)) = (keys(tx), keys(rx));
        let aead = suite.aead_alg;
        (
            Self { seal: aead.encrypter(tx_key, tx_iv), sealed },
            RawReader { open: aead.decrypter(rx_key, rx_iv), opened },
        )
    }

    fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.seal.encrypt(message, self.sealed).unwrap().encode();
        self.sealed += 1;
        record
    }
}

impl RawReader {
    /// Returns the text of the first record.
    fn read(&mut self, records: &mut [u8]) -> Vec<u8> {
        let length = usize::from(u16::from_be_bytes([records[3], records[4]]));
        let payload = &mut records[5..5 + length];
        let message = rustls::crypto::cipher::InboundOpaqueMessage::new(
            ContentType::ApplicationData,
            ProtocolVersion::TLSv1_2,
            payload,
        );
        let text = self.open.decrypt(message, self.opened).unwrap().payload.to_vec();
        self.opened += 1;
        text
    }
}

/// A server's records and a client that have shaken hands.
fn met() -> (Records, ClientConnection) {
    let (server, client) = configs();
    let mut records = Records::new(server, Keying::Closed).unwrap();
    let mut client = ClientConnection::new(client, name()).unwrap();
    while client.is_handshaking() || records.state().is_handshaking() {
        let (_, _, answer) = hear(&mut records, &take(&mut client));
        give(&mut client, &answer);
    }
    (records, client)
}

fn hear(records: &mut Records, came: &[u8]) -> (Opened, Vec<u8>, Vec<u8>) {
    let mut scratch = vec![0; SCRATCH_BYTES];
    let kept = records.resume(&mut scratch);
    scratch[kept..kept + came.len()].copy_from_slice(came);
    let (mut plain, mut sent) = (Vec::new(), Vec::new());
    let opened = records.open(&mut scratch[..kept + came.len()], &mut plain, &mut sent).unwrap();
    (opened, plain, sent)
}

fn take(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn give(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        let state = client.process_new_packets().unwrap();
        let begin = heard.len();
        heard.resize(begin + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut heard[begin..]).unwrap();
    }
    heard
}

async fn connected(keying: Keying) -> (Line, TlsStream<TcpStream>) {
    let (server, client) = configs();
    let (near, far) = sockets().await;
    let connect = TlsConnector::from(client).connect(name(), far);
    let (accepted, client) = tokio::join!(Line::accept(server, near, keying), connect);
    (accepted.unwrap().line, client.unwrap())
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().unwrap()));
    (near.unwrap().0, far.unwrap())
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// A server, and a client that accepts it.
pub(crate) fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let now = UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    let day = Duration::from_secs(24 * 60 * 60);
    let root = Authority::root("Root", 30 * day, now).unwrap();
    let request = Request {
        common_name: "localhost".to_owned(),
        dns_names: vec!["localhost".to_owned()],
        ip_addresses: Vec::new(),
        role: Role::Switch,
        not_before: now,
        not_after: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + day),
        crl_url: None,
    };
    let issued = root.issue(&request).unwrap();
    let chain = pem::certificates(issued.chain_pem.as_bytes(), "chain").unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    for root in pem::certificates(root.certificate_pem().as_bytes(), "root").unwrap() {
        roots.add(root).unwrap();
    }
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (Arc::new(server), Arc::new(client))
}
