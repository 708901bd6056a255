//! The way to the Switch's operator API: gRPC over mutual TLS with the operator's certificate.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use muster_pki::{Certificate, RevocationMode, Role};
use muster_proto_grpc::operator::v1::client_service_client::ClientServiceClient;
use muster_proto_grpc::operator::v1::definition_service_client::DefinitionServiceClient;
use muster_proto_grpc::operator::v1::event_service_client::EventServiceClient;
use muster_proto_grpc::operator::v1::export_service_client::ExportServiceClient;
use muster_proto_grpc::operator::v1::instruction_service_client::InstructionServiceClient;
use muster_proto_grpc::operator::v1::licence_service_client::LicenceServiceClient;
use muster_proto_grpc::operator::v1::policy_service_client::PolicyServiceClient;
use muster_proto_grpc::operator::v1::status_service_client::StatusServiceClient;
use muster_service::credentials::{
    self, Address, CertificateSettings, ClientCredentials, Clock, CredentialError, CredentialFiles,
    Deadlines, DialError, Outgoing, Own, Reload, RevocationFiles, RevocationSettings, Rules, Servers, dial,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status, Streaming};

use crate::exit::Failure;
use crate::home::{Context, Home};
use crate::pki_home::PkiHome;
use crate::{output, provision};

/// CRLs of the CAs of servers, in a home; it need not be there.
const SERVERS_LISTS: &str = "trust/servers.crl";

/// For TCP, for TLS, and for the first bytes.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Largest gRPC message either way: a page of results, as the Switch bounds it.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// When a server that says nothing is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From one HTTP/2 PING to the next, also while nothing is asked.
    pub(crate) ping_every: Duration,
    /// For the answer to a PING: a server that is gone without a word is known after both.
    pub(crate) pong_within: Duration,
    /// For the answer to a call, and for the next message of a stream that ends by itself. Preparing an instruction for the
    /// largest audience takes seconds.
    pub(crate) answer: Duration,
    /// For any byte of a transfer either way, the server's fsync of a large file among it.
    pub(crate) silence: Duration,
}

/// What every command has.
pub(crate) const PATIENCE: Patience = Patience {
    ping_every: Duration::from_secs(20),
    pong_within: Duration::from_secs(10),
    answer: Duration::from_secs(60),
    silence: Duration::from_secs(120),
};

/// Waits for the answer to a call, or for the beginning of a stream.
pub(crate) async fn answered<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    within(PATIENCE.answer, call).await.map(Response::into_inner)
}

/// Waits for the next message of a stream that ends by itself.
pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    within(PATIENCE.answer, stream.message()).await
}

async fn within<T>(most: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(most, call).await {
        Ok(answered) => answered,
        Err(_) => Err(Status::deadline_exceeded(format!("the Switch did not answer within {most:?}"))),
    }
}

/// A connection to one Switch's operator API.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    channel: Channel,
    name: String,
    context: Context,
}

impl Operator {
    /// Connects to the Switch of a context, and says what to do if that is not possible.
    pub(crate) async fn connect(home: &Home, context: &Context) -> Result<Self, Failure> {
        Self::connect_with(home, context, PATIENCE).await
    }

    async fn connect_with(home: &Home, context: &Context, patience: Patience) -> Result<Self, Failure> {
        let credentials = client_credentials(home, b"h2")?;
        let name = credentials.own().map(|own| own_name(&own)).unwrap_or_default();
        let address = context.switch.clone();
        // The first connection is made here, so that its error is whole; tonic would flatten it.
        let first = admitted(connect_tls(&credentials, &address).await?, "the Switch", &address).await?;
        let mut first = Some(first);
        let connector = tower::service_fn(move |_: Uri| {
            let (credentials, address) = (Arc::clone(&credentials), address.clone());
            let ready = first.take();
            async move {
                match ready {
                    Some(stream) => Ok(TokioIo::new(stream)),
                    None => connect_tls(&credentials, &address)
                        .await
                        .map(|stream| TokioIo::new(BufReader::new(stream))),
                }
            }
        });
        let endpoint = Endpoint::from_static("http://switch.invalid")
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(patience.ping_every)
            .keep_alive_timeout(patience.pong_within)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
            Failure::unreachable(format!("the Switch at {}: {error}", context.switch))
                .with_next("muster doctor")
        })?;
        Ok(Self { channel, name, context: context.clone() })
    }

    /// The context of the Switch.
    pub(crate) const fn context(&self) -> &Context {
        &self.context
    }

    /// The name in the operator's certificate, as orders carry it: first dNSName, else CN.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// An operator who already has a channel.
    #[cfg(test)]
    pub(crate) fn over(channel: Channel) -> Self {
        let context = crate::fake_switch::context();
        Self { channel, name: "alice".to_owned(), context }
    }

    /// Instructions.
    pub(crate) fn instructions(&self) -> InstructionServiceClient<Channel> {
        InstructionServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Devices.
    pub(crate) fn clients(&self) -> ClientServiceClient<Channel> {
        ClientServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Definitions.
    pub(crate) fn definitions(&self) -> DefinitionServiceClient<Channel> {
        DefinitionServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The licence.
    pub(crate) fn licence(&self) -> LicenceServiceClient<Channel> {
        LicenceServiceClient::new(self.channel.clone())
    }

    /// Client policies.
    pub(crate) fn policies(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Events.
    pub(crate) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Everything.
    pub(crate) fn export(&self) -> ExportServiceClient<Channel> {
        ExportServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// How the Switch is.
    pub(crate) fn status(&self) -> StatusServiceClient<Channel> {
        StatusServiceClient::new(self.channel.clone())
    }
}

/// The operator's certificate and the roots of the servers it talks to.
pub(crate) fn client_credentials(home: &Home, alpn: &[u8]) -> Result<Arc<ClientCredentials>, Failure> {
    let own = Own::Files(CredentialFiles::pem(home.path("operator/tls.pem"), home.path("operator/tls.key")));
    let servers = Servers::Roots(home.roots("servers"));
    let (rules, unruly) = rules(home);
    let made = credentials::client(own, servers, vec![alpn.to_vec()], Role::Operator, rules);
    let made = made.map_err(|error| unusable(home, error))?;
    match unruly {
        Some(error) => Err(Failure::usage(format!("the CRLs of servers: {error}")).with_next(
            "put CRLs of the CAs in HOME/trust/servers.pem into HOME/trust/servers.crl, or remove that file",
        )),
        None => Ok(made),
    }
}

/// Whom a list in the home revokes is refused. None is fetched, and for want of one nobody is refused: this machine may be where a
/// fleet without any is put right.
fn rules(home: &Home) -> (Rules, Option<CredentialError>) {
    let own = PkiHome::of(home).crl_files_in_trust("servers");
    let crls = std::iter::once(home.path(SERVERS_LISTS)).chain(own).filter(|file| file.exists());
    let files = RevocationFiles {
        crls: crls.collect(),
        roots: vec![home.roots("servers")],
        ..RevocationFiles::default()
    };
    let settings = RevocationSettings { mode: RevocationMode::Soft, ..RevocationSettings::default() };
    Rules::load(CertificateSettings::default(), &settings, files, Clock::system())
}

/// Files that are not there have yet to be made, as those that sign orders; files that are there may be forbidden.
fn unusable(home: &Home, error: CredentialError) -> Failure {
    let servers = home.roots("servers");
    let names_servers =
        |error: &CredentialError| matches!(error, CredentialError::Read { path, .. } if *path == servers);
    let is_missing = |error: &CredentialError| {
        let CredentialError::Read { source, .. } = error else { return false };
        source.kind() == std::io::ErrorKind::NotFound
    };
    let text = error.to_string();
    let each = error.into_each();
    let (what, next) = if each.iter().all(names_servers) {
        let next = format!("put the roots of the Switch's certificate there: {}", servers.display());
        ("the roots of servers", next)
    } else {
        ("the operator's certificate", provision::how_to_have(home, Role::Operator, "operator/tls"))
    };
    let said = format!("{what}: {text}");
    let failure = match each.iter().any(is_missing) {
        true => Failure::usage(said),
        false => Failure::denied(said),
    };
    failure.with_next(next)
}

/// Returns the certificate that the server at `HOST:PORT` shows to an operator.
pub(crate) async fn server_certificate(
    home: &Home,
    address: &str,
    alpn: &[u8],
) -> Result<Certificate, Failure> {
    let stream = connect_tls(&client_credentials(home, alpn)?, address).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let read = shown.and_then(|der| Certificate::from_der(der).ok());
    read.ok_or_else(|| Failure::unreachable(format!("{address} shows no certificate")))
}

/// Opens TLS to `HOST:PORT` and expects a certificate of a server for that host.
pub(crate) async fn connect_tls(
    credentials: &Arc<ClientCredentials>,
    address: &str,
) -> Result<Outgoing, Failure> {
    let deadlines = Deadlines { connect: CONNECT_DEADLINE, tls: CONNECT_DEADLINE };
    let dialled = match address.parse::<Address>() {
        Ok(address) => match dial(credentials, &address, deadlines).await {
            Ok(stream) => {
                read_lists_again(credentials).await;
                match stream.check() {
                    Ok(()) => Ok(stream),
                    Err(refused) => Err(DialError::Refused { address, refused: Box::new(refused) }),
                }
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    dialled.map_err(|error| {
        let said = error.to_string();
        match error {
            DialError::Address { .. } => Failure::usage(said).with_next("muster ctx list"),
            DialError::Late { .. } => Failure::unreachable(said).with_next("muster doctor"),
            DialError::Tcp { .. } => Failure::unreachable(said)
                .with_next("muster dev   (if this is a development fleet), or   muster ctx list"),
            DialError::Tls { ref source, .. } if !is_about_certificates(source) => {
                Failure::unreachable(said).with_next("muster doctor")
            }
            DialError::Tls { .. } | DialError::Refused { .. } | DialError::NoCertificate { .. } => {
                Failure::denied(said)
                    .with_next("muster pki check --role switch --ca HOME/trust/servers.pem FILE")
            }
        }
    })
}

/// Reads the lists again, whose signer may be known only now, from the server's chain: an issuing CA stands in no file of roots.
async fn read_lists_again(credentials: &ClientCredentials) {
    let revocation = Arc::clone(credentials.revocation());
    let looked = tokio::task::spawn_blocking(move || revocation.reload()).await;
    if let Ok(Reload::Kept { problems }) = looked {
        let of_home = "here, its CA is one of HOME/trust/servers.pem, or of the chain that the server shows";
        problems.iter().for_each(|problem| output::note(&format!("not in use: {problem} ({of_home})")));
    }
}

/// Waits for the first bytes of an HTTP/2 server, which speaks unasked: with TLS 1.3 the refusal of our certificate comes
/// in their place. `server` names it in errors.
pub(crate) async fn admitted(
    stream: Outgoing,
    server: &str,
    address: &str,
) -> Result<BufReader<Outgoing>, Failure> {
    let mut stream = BufReader::new(stream);
    match tokio::time::timeout(CONNECT_DEADLINE, stream.fill_buf()).await {
        Ok(Ok(bytes)) if !bytes.is_empty() => Ok(stream),
        Ok(Ok(_)) => Err(Failure::unreachable(format!(
            "{server} at {address} closed the connection after TLS; it may have as many as its `connections_max`, or of \
             this certificate as its `connections_per_certificate_max`, allows"
        ))
        .with_next("muster doctor")),
        Ok(Err(error)) if !is_about_certificates(&error) => Err(Failure::unreachable(format!(
            "the connection to {server} at {address} broke before it answered: {error}"
        ))
        .with_next("muster doctor")),
        Ok(Err(error)) => Err(Failure::denied(format!(
            "{server} at {address} refused the operator's certificate operator/tls.pem: {error}"
        ))
        .with_next(
            "the same once more, if the server may have yet to fetch the CRL of a CA that it never met; else another certificate: the server's \
             log and metrics have the rule that this one breaks, and with a development CA it is made by   muster pki issue NAME --role operator",
        )),
        Err(_) => Err(Failure::unreachable(format!("{address} did not answer within {CONNECT_DEADLINE:?}"))
            .with_next("muster doctor")),
    }
}

/// Whether TLS ended over somebody's certificate, and not because the connection broke.
pub(crate) fn is_about_certificates(error: &std::io::Error) -> bool {
    use rustls::{AlertDescription as Alert, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    // Both enums grow; what they have beyond these says nothing about a certificate.
    matches!(
        inner,
        Some(
            Error::InvalidCertificate(_)
                | Error::NoCertificatesPresented
                | Error::AlertReceived(
                    Alert::NoCertificate
                        | Alert::BadCertificate
                        | Alert::UnsupportedCertificate
                        | Alert::CertificateRevoked
                        | Alert::CertificateExpired
                        | Alert::CertificateUnknown
                        | Alert::UnknownCA
                        | Alert::AccessDenied
                        | Alert::DecryptError
                        | Alert::BadCertificateStatusResponse
                        | Alert::CertificateRequired
                )
        )
    )
}

fn own_name(certificate: &Certificate) -> String {
    let first = certificate.dns_names().first().map(String::as_str);
    first.or_else(|| certificate.common_name()).unwrap_or_else(|| certificate.subject()).to_owned()
}

#[cfg(test)]
mod tests {
    use muster_pki::UnixTime;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::exit::Exit;
    use crate::home::Secrecy;
    use crate::pki_home::Wanted;

    /// A server on this machine that treats one connection as `treat` says, and its address.
    async fn server<F: Future<Output = ()>>(
        treat: impl FnOnce(TcpStream) -> F,
    ) -> (String, impl Future<Output = ()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        (address, async move { treat(listener.accept().await.unwrap().0).await })
    }

    fn home(folder: &std::path::Path) -> Home {
        let home = Home::locate(Some(folder.to_owned())).unwrap();
        PkiHome::of(&home).create(UnixTime::now()).unwrap();
        for (role, path, name) in
            [(Role::Operator, "operator/tls", "alice"), (Role::Switch, "switch", "localhost")]
        {
            let issued = PkiHome::of(&home).issue(&Wanted::named(role, name, 30), UnixTime::now()).unwrap();
            home.write(&format!("{path}.pem"), issued.chain_pem.as_bytes(), Secrecy::Public).unwrap();
            home.write(&format!("{path}.key"), issued.key_pem.as_bytes(), Secrecy::Private).unwrap();
        }
        home
    }

    #[test]
    fn missing_roots_of_servers_are_not_told_as_the_operators_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        let missing = |path: std::path::PathBuf| CredentialError::Read {
            path,
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        };

        let servers = unusable(&home, missing(home.roots("servers")));
        let own = unusable(&home, missing(home.path("operator/tls.pem")));

        assert!(servers.to_string().starts_with("the roots of servers: "), "{servers}");
        assert!(servers.next().unwrap().contains("trust/servers.pem"), "{:?}", servers.next());
        assert!(own.to_string().starts_with("the operator's certificate: "), "{own}");
        assert_eq!((servers.exit(), own.exit()), (Exit::Usage, Exit::Usage));
    }

    #[test]
    fn a_certificate_that_is_not_there_is_a_matter_of_usage_and_one_of_another_role_of_permission() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        let exit = |home: &Home| client_credentials(home, b"h2").unwrap_err().exit();

        std::fs::copy(home.path("switch.pem"), home.path("operator/tls.pem")).unwrap();
        std::fs::copy(home.path("switch.key"), home.path("operator/tls.key")).unwrap();
        let other_role = exit(&home);
        std::fs::remove_file(home.path("operator/tls.pem")).unwrap();
        let missing = client_credentials(&home, b"h2").unwrap_err();

        assert_eq!((other_role, missing.exit()), (Exit::Denied, Exit::Usage), "{missing}");
        assert!(missing.next().unwrap().starts_with("muster pki issue NAME --role operator"), "{missing}");
    }

    fn reset(stream: &TcpStream) {
        nix::sys::socket::setsockopt(
            stream,
            nix::sys::socket::sockopt::Linger,
            &nix::libc::linger { l_onoff: 1, l_linger: 0 },
        )
        .unwrap();
    }

    #[tokio::test]
    async fn r2_a_switch_that_a_list_in_the_home_revokes_is_refused() {
        for is_downloaded in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let home = home(folder.path());
            let own = CredentialFiles::pem(home.path("switch.pem"), home.path("switch.key"));
            let roles = vec![(Role::Operator, home.roots("operators"))];
            let rules = Rules::lenient(Clock::system());
            let tls = credentials::server(own, roles, vec![b"h2".to_vec()], Role::Switch, rules).unwrap();
            let connected = async || {
                let (address, serving) = server(async |stream| {
                    drop(tokio_rustls::TlsAcceptor::from(tls.config()).accept(stream).await);
                })
                .await;
                let credentials = client_credentials(&home, b"h2").unwrap();
                tokio::join!(connect_tls(&credentials, &address), serving).0
            };

            let before = connected().await.map(drop);
            PkiHome::of(&home).revoke(Role::Switch, "localhost", UnixTime::now()).unwrap();
            if is_downloaded {
                // A CA publishes the list alone, without its certificate.
                let file = std::fs::read_to_string(home.path("pki/servers/crl.pem")).unwrap();
                let end = "-----END X509 CRL-----\n";
                let list = file.split_inclusive(end).next().unwrap();
                home.write(SERVERS_LISTS, list.as_bytes(), Secrecy::Public).unwrap();
                std::fs::remove_file(home.path("pki/servers/crl.pem")).unwrap();
            }
            let after = connected().await.unwrap_err();

            assert!(before.is_ok(), "{before:?}");
            assert!(after.to_string().contains("revoked"), "{after}");
        }
    }

    #[test]
    fn lists_of_a_homes_own_pki_are_no_matter_where_another_issues_to_servers() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        let pki = PkiHome::of(&home);
        assert_eq!(pki.crl_files_in_trust("servers").len(), 2);

        let other = std::fs::read(home.roots("operators")).unwrap();
        home.write("trust/servers.pem", &other, Secrecy::Public).unwrap();

        assert_eq!(pki.crl_files_in_trust("servers"), [] as [std::path::PathBuf; 0]);
    }

    #[tokio::test]
    async fn a_switch_that_dies_within_the_handshake_or_before_its_first_bytes_has_denied_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        let credentials = client_credentials(&home, b"h2").unwrap();
        let own = CredentialFiles::pem(home.path("switch.pem"), home.path("switch.key"));
        let roles = vec![(Role::Operator, home.roots("operators"))];
        let alpn = vec![b"h2".to_vec()];
        let tls =
            credentials::server(own, roles, alpn, Role::Switch, Rules::lenient(Clock::system())).unwrap();

        let (address, dying) = server(async |stream| {
            // The greeting has come, so TLS is under way.
            stream.readable().await.unwrap();
            reset(&stream);
        })
        .await;
        let (within, ()) = tokio::join!(connect_tls(&credentials, &address), dying);
        let (address, dying) = server(async |stream| {
            let stream = tokio_rustls::TlsAcceptor::from(tls.config()).accept(stream).await.unwrap();
            reset(stream.get_ref().0);
        })
        .await;
        let before = async {
            let stream = connect_tls(&credentials, &address).await?;
            admitted(stream, "the Switch", &address).await
        };
        let (before, ()) = tokio::join!(before, dying);

        for failure in [within.err().unwrap(), before.err().unwrap()] {
            assert_eq!(failure.exit(), Exit::Unreachable, "{failure}");
            assert!(!failure.to_string().contains("refused"), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_switch_that_falls_silent_after_the_handshake_is_unreachable() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        let own = CredentialFiles::pem(home.path("switch.pem"), home.path("switch.key"));
        let roles = vec![(Role::Operator, home.roots("operators"))];
        let alpn = vec![b"h2".to_vec()];
        let tls =
            credentials::server(own, roles, alpn, Role::Switch, Rules::lenient(Clock::system())).unwrap();
        let brief = Duration::from_millis(50);
        let patience = Patience { ping_every: brief, pong_within: brief, ..PATIENCE };
        let (address, silent) = server(async |stream| {
            let mut stream = tokio_rustls::TlsAcceptor::from(tls.config()).accept(stream).await.unwrap();
            // RFC 9113 §6.5: SETTINGS, and then not a word.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            stream.flush().await.unwrap();
            let mut unread = Vec::new();
            // It ends with the caller's connection.
            drop(stream.read_to_end(&mut unread).await);
        })
        .await;
        let context = Context { switch: address, ..crate::fake_switch::context() };
        let asking = async {
            let operator = Operator::connect_with(&home, &context, patience).await?;
            let request = muster_proto::operator::v1::GetStatusRequest {};
            Ok::<_, Failure>(operator.status().get_status(request).await?)
        };

        let (asked, ()) =
            tokio::time::timeout(Duration::from_secs(30), Box::pin(async { tokio::join!(asking, silent) }))
                .await
                .unwrap();

        assert_eq!(asked.unwrap_err().exit(), Exit::Unreachable);
    }

    #[tokio::test]
    async fn a_call_that_is_never_answered_is_given_up_as_unreachable() {
        let never = std::future::pending::<Result<Response<()>, Status>>();

        let failure = Failure::from(within(Duration::ZERO, never).await.unwrap_err());

        assert_eq!(failure.exit(), Exit::Unreachable, "{failure}");
        assert!(failure.to_string().contains("did not answer within"), "{failure}");
    }
}
