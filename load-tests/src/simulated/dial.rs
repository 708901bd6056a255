//! From a source address to a WebSocket: TCP, mutual TLS, upgrade.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Read buffer of a session; the default would hold 128 KiB for each of thousands.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Where a connection comes from, and what its socket is like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dialled {
    /// The address it comes from; the system's choice if there is none.
    pub(crate) source: Option<IpAddr>,
    /// The socket's receive buffer, where the system's default is too large to stand for a slow reader.
    pub(crate) receive_buffer: Option<u32>,
}

/// Connects with TLS.
pub(crate) async fn dial(
    address: &str,
    dialled: &Dialled,
    tls: Arc<ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = connect(address, dialled).await?;
    Ok(TlsConnector::from(tls).connect(ServerName::try_from("localhost")?, stream).await?)
}

/// Connects without TLS.
pub(crate) async fn connect(address: &str, dialled: &Dialled) -> anyhow::Result<TcpStream> {
    let stream = match (dialled.source, dialled.receive_buffer) {
        (None, None) => TcpStream::connect(address).await?,
        (source, receive_buffer) => {
            let to = tokio::net::lookup_host(address).await?.find(SocketAddr::is_ipv4);
            let to = to.with_context(|| format!("{address}: no IPv4 address, which --sessions needs"))?;
            let socket = TcpSocket::new_v4()?;
            if let Some(bytes) = receive_buffer {
                socket.set_recv_buffer_size(bytes)?;
            }
            if let Some(source) = source {
                // The port is chosen at the connect, so that each target has all ports of each source.
                setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
                socket.bind(SocketAddr::new(source, 0))?;
            }
            socket.connect(to).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Upgrades to a WebSocket.
pub(crate) async fn upgrade(
    stream: TlsStream<TcpStream>,
    url: &str,
    subprotocol: Option<&'static str>,
) -> anyhow::Result<WebSocketStream<TlsStream<TcpStream>>> {
    let mut request = url.into_client_request()?;
    if let Some(subprotocol) = subprotocol {
        request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse()?);
    }
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
    let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
    Ok(socket)
}
