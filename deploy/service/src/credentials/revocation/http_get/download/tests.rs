use muster_pki::authority::{Authority, Request};
use muster_pki::{Role, UnixTime, pem};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::credentials::{Clock, provider, web_client};

const FILE: &[u8] = b"0123456789";
const DAY: Duration = Duration::from_secs(86_400);

/// What a server sends for the one request that it takes: a head, a piece, and what follows.
#[derive(Clone, Copy)]
struct Answer {
    head: &'static str,
    body: &'static [u8],
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    /// Ends the connection as TLS has it.
    End,
    /// Cuts the connection off.
    Cut,
    /// Keeps the connection, and says nothing more.
    Hang,
    /// Sends the piece again and again.
    Again,
    /// Sends a byte now and then.
    Drip,
}

/// A server of TLS whose root stands in a file.
struct Server {
    folder: TempDir,
    tls: TlsAcceptor,
}

impl Server {
    fn new() -> Self {
        let now = UnixTime::now();
        let folder = TempDir::new().unwrap();
        let root = Authority::root("web", 10 * DAY, now).unwrap();
        std::fs::write(folder.path().join("web.pem"), root.certificate_pem()).unwrap();
        let own = root
            .issue(&Request {
                common_name: "localhost".to_owned(),
                dns_names: vec!["localhost".to_owned()],
                ip_addresses: Vec::new(),
                role: Role::Switch,
                not_before: now,
                not_after: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + DAY),
                crl_url: None,
            })
            .unwrap();
        let chain = pem::certificates(own.chain_pem.as_bytes(), "chain").unwrap();
        let key = pem::private_key(own.key_pem.as_bytes(), "key").unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self { folder, tls: TlsAcceptor::from(Arc::new(config)) }
    }

    /// Downloads from a server that answers so; returns what was kept, too.
    async fn download(&self, answer: Answer) -> (Result<(), DownloadError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/a.pack", listener.local_addr().unwrap().port());
        let tls = self.tls.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = tls.accept(stream).await else { return };
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            let head = format!("HTTP/1.1 {}\r\n\r\n", answer.head);
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(answer.body).await.unwrap();
            stream.flush().await.unwrap();
            match answer.then {
                Then::End => drop(stream.shutdown().await),
                Then::Cut => {}
                Then::Hang => std::future::pending().await,
                Then::Again => while stream.write_all(answer.body).await.is_ok() {},
                Then::Drip => {
                    while stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(600)).await;
                    }
                }
            }
        });
        let wanted = Download {
            url: url.parse().unwrap(),
            size: FILE.len() as u64,
            silence: Duration::from_secs(2),
            rate_bytes_min: 5,
        };
        let https = web_client(Some(&self.folder.path().join("web.pem")), &Clock::system()).unwrap();
        let mut kept = Vec::new();
        let downloaded = download(&wanted, https, |piece| {
            kept.extend_from_slice(piece);
            Ok(())
        });
        let downloaded = timeout(Duration::from_secs(30), downloaded).await.expect("an end of its own");
        (downloaded, kept)
    }
}

fn answer(head: &'static str, body: &'static [u8], then: Then) -> Answer {
    Answer { head, body, then }
}

#[tokio::test]
async fn a_file_of_the_size_that_was_wanted_comes_whole_however_the_server_frames_it() {
    let server = Server::new();
    for answer in [
        answer("200 OK\r\nContent-Length: 10", FILE, Then::Hang),
        answer("200 OK\r\nTransfer-Encoding: chunked", b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n", Then::Hang),
        answer("200 OK\r\nConnection: close", FILE, Then::End),
        // What follows the length that a server gives is none of the answer.
        answer("200 OK\r\nContent-Length: 10", b"0123456789more", Then::Again),
    ] {
        let (downloaded, kept) = server.download(answer).await;

        assert!(downloaded.is_ok(), "{}: {downloaded:?}", answer.head);
        assert_eq!(kept, FILE, "{}", answer.head);
    }
}

#[tokio::test]
async fn another_size_another_status_and_an_end_before_the_end_are_refused_and_never_more_is_kept_than_wanted()
 {
    let server = Server::new();
    for (answer, words, kept_most) in [
        (answer("200 OK\r\nContent-Length: 11", b"0123456789x", Then::End), "would send 11 bytes", 0),
        (answer("200 OK\r\nContent-Length: 9", b"012345678", Then::End), "would send 9 bytes", 0),
        (answer("200 OK\r\nContent-Length: 10", b"0123", Then::End), "HTTP", 4),
        (answer("200 OK\r\nContent-Length: 10", b"0123", Then::Cut), "HTTP", 4),
        (answer("200 OK\r\nConnection: close", b"0123", Then::End), "ended after 4 bytes; wanted 10", 4),
        (answer("200 OK\r\nConnection: close", b"0123", Then::Cut), "HTTP", 4),
        (answer("200 OK\r\nConnection: close", b"0123", Then::Again), "more than the 10 bytes", 10),
        (answer("200 OK\r\nContent-Length: ten", FILE, Then::End), "HTTP", 0),
        (answer("206 Partial\r\nContent-Length: 10", FILE, Then::End), "status 206", 0),
        (answer("404 Gone\r\nContent-Length: 10", FILE, Then::End), "status 404", 0),
        (
            answer("302 There\r\nLocation: https://other.example/\r\nContent-Length: 10", FILE, Then::End),
            "302",
            0,
        ),
    ] {
        let (downloaded, kept) = server.download(answer).await;

        let error = downloaded.expect_err(answer.head).to_string();
        assert!(error.contains(words), "{}: {error}", answer.head);
        assert!(
            kept.len() <= kept_most && FILE.starts_with(&kept[..kept.len().min(4)]),
            "{}: {kept:?}",
            answer.head
        );
    }
}

#[tokio::test]
async fn a_redirect_is_told_and_not_followed() {
    let server = Server::new();
    let head = "302 There\r\nLocation: https://other.example/a.pack\r\nContent-Length: 0";

    let (downloaded, _) = server.download(answer(head, b"", Then::End)).await;

    let Err(DownloadError::Status { status, location }) = downloaded else { panic!("{downloaded:?}") };
    assert_eq!((status.as_u16(), location.as_deref()), (302, Some("https://other.example/a.pack")));
}

#[tokio::test]
async fn a_server_that_says_nothing_or_too_little_at_a_time_is_given_up() {
    let server = Server::new();

    let (hung, _) = server.download(answer("200 OK\r\nContent-Length: 10", b"0123", Then::Hang)).await;
    let (begun, _) = server.download(answer("200 OK", b"", Then::Hang)).await;
    // Something comes all the time, and the whole of it takes longer than it may.
    let (slow, _) = server.download(answer("200 OK\r\nContent-Length: 10", b"", Then::Drip)).await;

    assert!(matches!(hung, Err(DownloadError::Silent(_))), "{hung:?}");
    assert!(matches!(begun, Err(DownloadError::Silent(_))), "{begun:?}");
    assert!(matches!(slow, Err(DownloadError::Late(_))), "{slow:?}");
}

#[tokio::test]
async fn a_server_of_another_root_gets_no_request() {
    let (server, other) = (Server::new(), Server::new());
    std::fs::copy(other.folder.path().join("web.pem"), server.folder.path().join("web.pem")).unwrap();

    let (refused, _) = server.download(answer("200 OK\r\nContent-Length: 10", FILE, Then::End)).await;

    assert!(matches!(refused, Err(DownloadError::Get(GetError::Connect(_)))), "{refused:?}");
}

#[tokio::test]
async fn what_cannot_be_kept_ends_the_download() {
    let server = Server::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/a.pack", listener.local_addr().unwrap().port());
    let tls = server.tls.clone();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789").await.unwrap();
        stream.flush().await.unwrap();
        std::future::pending::<()>().await;
    });
    let wanted =
        Download { url: url.parse().unwrap(), size: 10, silence: Duration::from_secs(20), rate_bytes_min: 5 };
    let https = web_client(Some(&server.folder.path().join("web.pem")), &Clock::system()).unwrap();

    let kept = download(&wanted, https, |_| Err(io::Error::from(io::ErrorKind::StorageFull))).await;

    assert!(matches!(kept, Err(DownloadError::Kept(_))), "{kept:?}");
}
