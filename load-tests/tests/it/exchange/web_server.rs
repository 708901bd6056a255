//! A web server, of TLS on loopback, that gives files as a test wants it to.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::Place;

/// What is given for a path.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// The file.
    File(Vec<u8>),
    /// The file's length, so many of its bytes, and the end.
    CutOff(Vec<u8>, usize),
    /// No length, so many of the file's bytes, and the end.
    Short(Vec<u8>, usize),
    /// No length, and bytes without end.
    Endless,
    /// A length that is so much more than the file's, and as many bytes.
    Longer(Vec<u8>, usize),
    /// This status, and what stands there: a redirect leads there.
    Status(u16, String),
    /// The file's length, so many of its bytes, and nothing more.
    Hang(Vec<u8>, usize),
    /// Nothing at all.
    Silence,
}

/// A server; it answers as long as the test's process lives.
pub(super) struct WebServer {
    pub(super) port: u16,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) path: String,
    /// Whether whoever asked showed a certificate, which they were asked for.
    pub(super) shows_certificate: bool,
}

impl WebServer {
    /// Serves with the certificate of a place's servers.
    pub(super) fn start(place: &Place) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answers, asked) = (Arc::default(), Arc::default());
        let server = Self { port, answers: Arc::clone(&answers), asked: Arc::clone(&asked) };
        let tls = tls(place);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, answers, asked) = (Arc::clone(&tls), Arc::clone(&answers), Arc::clone(&asked));
                std::thread::spawn(move || serve(stream, tls, &answers, &asked));
            }
        });
        server
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub(super) fn gives(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// What was asked for since the last look.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// Asks everyone for a certificate of an operator, and takes those without one.
fn tls(place: &Place) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut operators = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(place.home().join("trust/operators.pem")).unwrap() {
        operators.add(root.unwrap()).unwrap();
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(operators), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let chain = CertificateDer::pem_file_iter(place.path("certs/localhost.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(place.path("certs/localhost.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

fn serve(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    answers: &Mutex<BTreeMap<String, Answer>>,
    asked: &Mutex<Vec<Asked>>,
) {
    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // Whoever does not like the certificate is gone.
        let Ok(1) = stream.read(&mut byte) else { return };
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let shows_certificate = stream.conn.peer_certificates().is_some();
    asked.lock().unwrap().push(Asked { path: path.clone(), shows_certificate });
    let answer = answers.lock().unwrap().get(&path).cloned();
    // Whoever has heard enough is gone, too.
    drop(say(&mut stream, answer.unwrap_or(Answer::Status(404, String::new()))));
}

fn say(stream: &mut StreamOwned<ServerConnection, TcpStream>, answer: Answer) -> std::io::Result<()> {
    let length = |length: usize| format!("200 OK\r\nContent-Length: {length}");
    let (head, body) = match &answer {
        Answer::File(file) => (length(file.len()), &file[..]),
        Answer::CutOff(file, sent) | Answer::Hang(file, sent) => (length(file.len()), &file[..*sent]),
        Answer::Short(file, sent) => ("200 OK".to_owned(), &file[..*sent]),
        Answer::Endless => ("200 OK".to_owned(), &[][..]),
        Answer::Longer(file, more) => (length(file.len() + more), &file[..]),
        Answer::Status(status, to) => {
            (format!("{status} So\r\nLocation: {to}\r\nContent-Length: 0"), &[][..])
        }
        Answer::Silence => (String::new(), &[][..]),
    };
    let mut byte = [0];
    if !head.is_empty() {
        stream.write_all(format!("HTTP/1.1 {head}\r\nContent-Type: text/plain\r\n\r\n").as_bytes())?;
        stream.write_all(body)?;
        stream.flush()?;
    }
    match answer {
        Answer::Hang(..) | Answer::Silence => drop(stream.read(&mut byte)),
        Answer::Endless => while stream.write_all(&[b' '; 4096]).is_ok() {},
        Answer::Longer(_, more) => stream.write_all(&vec![0; more])?,
        Answer::File(_) | Answer::CutOff(..) | Answer::Short(..) | Answer::Status(..) => {}
    }
    stream.conn.send_close_notify();
    stream.flush()
}
