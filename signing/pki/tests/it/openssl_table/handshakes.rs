//! C10, C11: chains signed with SHA-512, checked by us on one side of a handshake and by openssl on the other.

#![expect(clippy::disallowed_types, reason = "openssl speaks over sockets")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use muster_pki::{CertificateDer, Facts, PrivateKeyDer, Role, Roots, UnixTime, check, pem};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::ServerName;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error, ProtocolVersion,
    ServerConfig, ServerConnection, SignatureScheme, Stream, SupportedProtocolVersion, version,
};

use super::lab::{Cert, Lab};
use crate::support::now;

const VERSIONS: [(&str, ProtocolVersion, &SupportedProtocolVersion); 2] = [
    ("-tls1_2", ProtocolVersion::TLSv1_2, &version::TLS12),
    ("-tls1_3", ProtocolVersion::TLSv1_3, &version::TLS13),
];

/// How long openssl may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Not P-521: over TLS 1.2 its curve must be among our groups for the key exchange, too (RFC 8422 §5.1), and is not.
#[test]
fn c10_sha_512_chains_work_over_tls_1_2_and_1_3_with_openssl_as_client_and_as_server() {
    for key in ["rsa2048", "p256", "p384"] {
        let lab = Lab::new();
        make(&lab, key);
        for (option, wanted, version) in VERSIONS {
            assert_eq!(openssl_connects(&lab, option, version), wanted, "{key} {option}");
            assert_eq!(we_connect(&lab, option, version), wanted, "{key} {option}");
        }
    }
}

/// Makes a chain for clients and one for servers, every certificate signed with SHA-512. openssl takes the machine's time
/// for its own checks, so the certificates hold for decades.
fn make(lab: &Lab, key: &str) {
    let names = ["root", "ca", "client", "server"].map(|name| format!("{key} {name}"));
    let [root, ca, client, server] = names.each_ref().map(String::as_str);
    let decades = |cert: Cert<'static>| cert.valid(-1_000_000_000, 500_000_000);
    let sha512 = ["-md", "sha512"].as_slice();
    for (name, cert) in [
        ("root", Cert { key: root, ..decades(Cert::root("")) }),
        ("ca", Cert { key: ca, ..decades(Cert::ca("", "root")) }),
        ("client", Cert { key: client, ..decades(Cert::client("ca")) }),
        ("server", Cert { key: server, ..decades(Cert::server("ca")) }),
    ] {
        lab.make(name, &cert.options(sha512));
    }
}

/// `openssl s_client` connects to us; returns the version.
fn openssl_connects(lab: &Lab, option: &str, version: &'static SupportedProtocolVersion) -> ProtocolVersion {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let mut openssl = lab.openssl(&["s_client", "-quiet", "-connect", &to, option, "-CAfile", "root.pem"]);
    openssl.args(["-verify_return_error", "-verify_hostname", "switch.acme.local"]);
    openssl.args(["-cert", "client.pem", "-cert_chain", "ca.pem", "-key", "client.signs.key"]);
    let mut openssl =
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Judge::of(lab, Role::Device)))
        .with_single_cert(chain(lab, "server"), key(lab, "server"))
        .unwrap();
    let mut connection = ServerConnection::new(Arc::new(config)).unwrap();

    let mut socket = accept(&listener, &mut openssl);
    let mut stream = Stream::new(&mut connection, &mut socket);
    // The handshake ends within; s_client prints the line only if it accepted us.
    let written = stream.write_all(b"hello\n").and_then(|()| stream.flush());
    let mut line = String::new();
    BufReader::new(openssl.stdout.take().unwrap()).read_line(&mut line).unwrap();
    drop(socket);
    drop(openssl.stdin.take());
    let output = openssl.wait_with_output().unwrap();

    assert_eq!(line, "hello\n", "{written:?}: {}", String::from_utf8_lossy(&output.stderr));
    connection.protocol_version().unwrap()
}

/// Waits for the child to connect, as long as it lives.
fn accept(listener: &TcpListener, openssl: &mut Child) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                return socket;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert!(openssl.try_wait().unwrap().is_none(), "openssl ended without connecting");
                std::thread::yield_now();
            }
        }
    }
}

/// We connect to `openssl s_server`, which wants a certificate; returns the version.
fn we_connect(lab: &Lab, option: &str, version: &'static SupportedProtocolVersion) -> ProtocolVersion {
    let mut openssl = lab.openssl(&["s_server", "-accept", "127.0.0.1:0", "-naccept", "1", option, "-rev"]);
    openssl.args(["-Verify", "3", "-verify_return_error", "-CAfile", "root.pem"]);
    openssl.args(["-cert", "server.pem", "-cert_chain", "ca.pem", "-key", "server.signs.key"]);
    let mut openssl =
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(openssl.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("ACCEPT ") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "s_server ended");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Judge::of(lab, Role::Switch)))
        .with_client_auth_cert(chain(lab, "client"), key(lab, "client"))
        .unwrap();
    let name = ServerName::try_from("switch.acme.local").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();

    let mut socket = TcpStream::connect(line["ACCEPT ".len()..].trim()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 6];
    let mut stream = Stream::new(&mut connection, &mut socket);
    // -rev answers each line backwards, once our certificate is accepted.
    let answered = stream.write_all(b"hello\n").and_then(|()| stream.read_exact(&mut answer));
    drop(socket);
    openssl.kill().unwrap();
    let output = openssl.wait_with_output().unwrap();

    assert_eq!(&answer, b"olleh\n", "{answered:?}: {}", String::from_utf8_lossy(&output.stderr));
    connection.protocol_version().unwrap()
}

fn chain(lab: &Lab, name: &str) -> Vec<CertificateDer<'static>> {
    vec![lab.der(name), lab.der("ca")]
}

fn key(lab: &Lab, name: &str) -> PrivateKeyDer<'static> {
    pem::private_key(&lab.read(&format!("{name}.signs.key")), name).unwrap()
}

/// Judges a peer by our rules alone, as the programs do.
#[derive(Debug)]
struct Judge {
    role: Role,
    roots: Roots,
}

impl Judge {
    fn of(lab: &Lab, role: Role) -> Self {
        Self { role, roots: Roots::from_certificates([lab.certificate("root")]).unwrap() }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &str,
    ) -> Result<(), Error> {
        let chain: Vec<_> = std::iter::once(leaf).chain(others).cloned().collect();
        let facts = Facts { name: Some(name), ..Facts::at(now()) };
        let verdict = check(self.role, &chain, &self.roots, &facts).into_result();
        verdict.map(drop).map_err(|refused| Error::General(refused.to_string()))
    }
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, others, "w701.acme.local").map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            leaf,
            signature,
            &default_provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            leaf,
            signature,
            &default_provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, others, &name.to_str()).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls12_signature(self, message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls13_signature(self, message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(self)
    }
}
