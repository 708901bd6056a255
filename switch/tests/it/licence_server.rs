//! A web server of licences that answers as a test wants it to, and the licences.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_pki::{Role, UnixTime, pem};
use muster_signing::envelope::{ContentType, Signer, sign};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::pki::Ends;
use crate::world::World;

/// What the server says to who asks.
#[derive(Clone)]
pub(crate) enum Answer {
    /// This document, or 304 to who has it.
    Document(Vec<u8>),
    /// This status, without a document.
    Status(u16),
    /// A document without end.
    Endless,
    /// Nothing at all.
    Silence,
    /// Ask there.
    Elsewhere(String),
}

/// A server on loopback, which ends with it.
pub(crate) struct LicenceServer {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
    _serving: JoinSet<()>,
}

impl LicenceServer {
    /// Serves over http, or with `tls` over https.
    pub(crate) async fn new(answer: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(Mutex::new(Vec::new())));
        let (answers, questions) = (Arc::clone(&answer), Arc::clone(&asked));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answers, questions, tls) = (Arc::clone(&answers), Arc::clone(&questions), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, &answers, &questions).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &answers, &questions).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, answer, asked, _serving: serving }
    }

    /// Where its licence is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/acme.cms", self.address)
    }

    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The heads of all questions, each with the status that it got.
    pub(crate) fn asked(&self) -> Vec<(String, u16)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &Mutex<Answer>,
    asked: &Mutex<Vec<(String, u16)>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let answer = answer.lock().unwrap().clone();
    let (status, headers, body) = match &answer {
        Answer::Document(document) => {
            let etag = format!("\"{}\"", muster_signing::envelope::digest(document));
            let has_it = head.contains(&format!("if-none-match: {etag}"));
            let (status, body) = if has_it { (304, Vec::new()) } else { (200, document.clone()) };
            (status, format!("ETag: {etag}\r\nContent-Length: {}\r\n", body.len()), body)
        }
        Answer::Status(status) => (*status, "Content-Length: 0\r\n".to_owned(), Vec::new()),
        Answer::Elsewhere(location) => {
            (302, format!("Location: {location}\r\nContent-Length: 0\r\n"), Vec::new())
        }
        Answer::Endless => (200, String::new(), Vec::new()),
        Answer::Silence => (0, String::new(), Vec::new()),
    };
    asked.lock().unwrap().push((head, status));
    if status == 0 {
        // Until whoever asked has had enough.
        let _its_end = stream.read_u8().await;
        return;
    }
    let written = stream.write_all(format!("HTTP/1.1 {status} So\r\n{headers}\r\n").as_bytes()).await;
    if written.is_err() || stream.write_all(&body).await.is_err() {
        return;
    }
    if matches!(answer, Answer::Endless) {
        while stream.write_all(&[0; 4096]).await.is_ok() {}
    }
    let _flushed = stream.shutdown().await;
}

/// A signed licence of the world's tenant.
pub(crate) fn licence(world: &World, serial: u64) -> Vec<u8> {
    licence_saying(world, serial, "")
}

/// A signed licence with another line.
pub(crate) fn licence_saying(world: &World, serial: u64, line: &str) -> Vec<u8> {
    licence_until(world, serial, "2099-01-01T00:00:00Z", line)
}

/// A signed licence that ends then.
pub(crate) fn licence_until(world: &World, serial: u64, not_after: &str, line: &str) -> Vec<u8> {
    let text = format!(
        "serial = {serial}\nlicensee = \"Acme\"\ntenant = \"acme\"\nnot_before = 2020-01-01T00:00:00Z\n\
         not_after = {not_after}\n{line}\n"
    );
    signed_by(world, Role::Licensor, &text)
}

/// A text in a licence's envelope, signed by somebody of a role.
pub(crate) fn signed_by(world: &World, role: Role, text: &str) -> Vec<u8> {
    let own = world.pki.issue(role, "signer", Ends::InAYear);
    let signer = Signer::from_pem(&own.chain_pem, &own.key_pem).unwrap();
    sign(text.as_bytes(), ContentType::Licence, &signer, UnixTime::now()).unwrap()
}

/// Lets an https server show a certificate for `localhost`, which the roots of servers vouch for.
pub(crate) fn https(world: &World) -> TlsAcceptor {
    let own = world.pki.issue(Role::Switch, "localhost", Ends::InAYear);
    let chain = pem::certificates(own.chain_pem.as_bytes(), "chain").unwrap();
    let key = pem::private_key(own.key_pem.as_bytes(), "key").unwrap();
    let config = rustls::ServerConfig::builder_with_provider(muster_service::credentials::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A world whose Switch asks there, as often as it may.
pub(crate) fn world_asking(url: String) -> World {
    let mut world = World::new();
    ask_at(&mut world, url);
    world
}

/// Has the Switch ask there, as often as it may.
pub(crate) fn ask_at(world: &mut World, url: String) {
    world.config.licence_url = Some(url);
    let refresh = &mut world.config.licence_refresh;
    refresh.every = Duration::from_secs(1);
    refresh.retry_min = Duration::from_secs(1);
    refresh.start_spread = Duration::ZERO;
    refresh.timeout = Duration::from_secs(2);
}
