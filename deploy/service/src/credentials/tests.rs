mod dialling;
mod expiry;
mod fetching;
mod handshakes;
mod issuing_cas;
mod kept;
mod pki;
mod points;
mod reloading;
mod renewed;
mod revocation;
mod server_store;
mod store;
mod trust_folder;
mod urls;

use std::sync::Arc;

use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{ClientCredentials, Peer, PeerRefused, ServerCredentials};

/// How one handshake ended on both sides.
struct Met {
    /// The peer after the check that follows the handshake, or why there is none.
    server: Result<Peer, String>,
    client: Result<HandshakeKind, String>,
}

/// Runs a handshake through memory, then the server's check, then one byte each way so that tickets arrive.
async fn meet(server: &ServerCredentials, client: &ClientCredentials, name: &str) -> Met {
    meet_with(server, client.config(), name).await
}

async fn meet_with(server: &ServerCredentials, client: Arc<rustls::ClientConfig>, name: &str) -> Met {
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let serve = async {
        let stream = TlsAcceptor::from(server.config()).accept(near).await.map_err(|error| {
            PeerRefused::of(&error).map_or_else(|| error.to_string(), ToString::to_string)
        })?;
        let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        let now = server.config().time_provider.current_time().unwrap();
        let peer = server.check_peer(chain.as_deref(), now).map_err(|refused| refused.to_string())?;
        let mut stream = stream;
        stream.write_all(b"!").await.map_err(|error| error.to_string())?;
        stream.read_u8().await.map_err(|error| error.to_string())?;
        Ok(peer)
    };
    let call = async {
        let mut stream =
            TlsConnector::from(client).connect(name, far).await.map_err(|error| error.to_string())?;
        stream.read_u8().await.map_err(|error| error.to_string())?;
        stream.write_all(b"!").await.map_err(|error| error.to_string())?;
        Ok(stream.get_ref().1.handshake_kind().unwrap())
    };
    let (server, client) = tokio::join!(serve, call);
    Met { server, client }
}
