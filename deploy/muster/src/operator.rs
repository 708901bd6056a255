//! The way to the Switch's operator API: gRPC over mutual TLS with the operator's certificate.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use muster_pki::{Certificate, Role};
use muster_proto_grpc::operator::v1::client_service_client::ClientServiceClient;
use muster_proto_grpc::operator::v1::definition_service_client::DefinitionServiceClient;
use muster_proto_grpc::operator::v1::event_service_client::EventServiceClient;
use muster_proto_grpc::operator::v1::export_service_client::ExportServiceClient;
use muster_proto_grpc::operator::v1::instruction_service_client::InstructionServiceClient;
use muster_proto_grpc::operator::v1::licence_service_client::LicenceServiceClient;
use muster_proto_grpc::operator::v1::status_service_client::StatusServiceClient;
use muster_service::credentials::{self, ClientCredentials, Clock, CredentialFiles};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::exit::Failure;
use crate::home::{Context, Home};

/// TCP and TLS to the Switch together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Largest gRPC message either way: a page of results, as the Switch bounds it.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A connection to one Switch's operator API.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    channel: Channel,
    name: String,
}

impl Operator {
    /// Connects to the Switch of a context, and says what to do if that is not possible.
    pub(crate) async fn connect(home: &Home, context: &Context) -> Result<Self, Failure> {
        let credentials = client_credentials(home, b"h2")?;
        let name = credentials.own().map(|own| own_name(&own)).unwrap_or_default();
        let address = context.switch.clone();
        let host = host_of(&address)?.to_owned();
        // The first connection is made here, so that its error is whole; tonic would flatten it.
        let first = admitted(connect_tls(&credentials, &host, &address).await?, &address).await?;
        let mut first = Some(first);
        let connector = tower::service_fn(move |_: Uri| {
            let (credentials, host, address) = (Arc::clone(&credentials), host.clone(), address.clone());
            let ready = first.take();
            async move {
                match ready {
                    Some(stream) => Ok(TokioIo::new(stream)),
                    None => connect_tls(&credentials, &host, &address)
                        .await
                        .map(|stream| TokioIo::new(BufReader::new(stream))),
                }
            }
        });
        let endpoint = Endpoint::from_static("http://switch.invalid").connect_timeout(CONNECT_DEADLINE);
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
            Failure::unreachable(format!("the Switch at {}: {error}", context.switch))
                .with_next("muster doctor")
        })?;
        Ok(Self { channel, name })
    }

    /// The name in the operator's certificate, as orders carry it: first dNSName, else CN.
    pub(crate) fn name(&self) -> &str {
        &self.name
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
    let files =
        CredentialFiles { certificate: home.path("operator/tls.pem"), key: home.path("operator/tls.key") };
    credentials::client(
        Some(files),
        home.roots("servers"),
        Vec::new(),
        vec![alpn.to_vec()],
        Role::Operator,
        Clock::system(),
    )
    .map_err(|error| {
        Failure::denied(format!("the operator's certificate: {error}")).with_next(
            "muster pki init   (a development PKI), or put operator/tls.pem and .key into the home",
        )
    })
}

/// Opens TLS to `address` and expects a certificate for `host`.
pub(crate) async fn connect_tls(
    credentials: &ClientCredentials,
    host: &str,
    address: &str,
) -> Result<TlsStream<TcpStream>, Failure> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Failure::usage(format!("`{host}` is no host name")).with_next("muster ctx list"))?;
    let connect = async {
        let stream = TcpStream::connect(address).await.map_err(|error| {
            Failure::unreachable(format!("{address}: {error}"))
                .with_next("muster dev   (if this is a development fleet), or   muster ctx list")
        })?;
        stream.set_nodelay(true).map_err(|error| Failure::unreachable(format!("{address}: {error}")))?;
        TlsConnector::from(credentials.config()).connect(name, stream).await.map_err(|error| {
            Failure::denied(format!("TLS with {address}: {error}"))
                .with_next("muster pki check --role switch --ca HOME/trust/servers.pem FILE")
        })
    };
    tokio::time::timeout(CONNECT_DEADLINE, connect)
        .await
        .map_err(|_| Failure::unreachable(format!("{address} did not answer within {CONNECT_DEADLINE:?}")))?
}

/// Waits for the server's first bytes: with TLS 1.3 the refusal of our certificate comes in their place.
async fn admitted(
    stream: TlsStream<TcpStream>,
    address: &str,
) -> Result<BufReader<TlsStream<TcpStream>>, Failure> {
    let mut stream = BufReader::new(stream);
    match tokio::time::timeout(CONNECT_DEADLINE, stream.fill_buf()).await {
        Ok(Ok(bytes)) if !bytes.is_empty() => Ok(stream),
        Ok(Ok(_)) => Err(Failure::unreachable(format!("the Switch at {address} closed the connection"))
            .with_next("muster doctor")),
        Ok(Err(error)) => Err(Failure::denied(format!(
            "the Switch at {address} refused the operator's certificate operator/tls.pem: {error}"
        ))
        .with_next("muster doctor   (the Switch's log and metrics have the rule that it breaks)")),
        Err(_) => Err(Failure::unreachable(format!("{address} did not answer within {CONNECT_DEADLINE:?}"))
            .with_next("muster doctor")),
    }
}

fn own_name(certificate: &Certificate) -> String {
    let first = certificate.dns_names().first().map(String::as_str);
    first.or_else(|| certificate.common_name()).unwrap_or_else(|| certificate.subject()).to_owned()
}

/// The host of `host:port`, without an IPv6 address's brackets.
pub(crate) fn host_of(address: &str) -> Result<&str, Failure> {
    match address.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.is_empty() => {
            Ok(host.trim_start_matches('[').trim_end_matches(']'))
        }
        _ => Err(Failure::usage(format!("`{address}` is not HOST:PORT")).with_next("muster ctx list")),
    }
}
