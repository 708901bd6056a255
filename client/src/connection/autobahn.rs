//! The client's WebSocket with nothing behind it but an echo, which is what the Autobahn test suite talks to.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::websocket::settings;

/// The largest messages of the suite have 16 MiB.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Runs every case that the suite's server has, and has it write its reports. Returns how many there were.
///
/// # Errors
/// The server cannot be reached, or does not say how many cases it has. How a case ends is the server's to judge.
pub async fn run(server: &str, agent: &str) -> Result<u32, Error> {
    let mut count = 0;
    let mut told = open(server, "/getCaseCount").await?;
    while let Some(Ok(message)) = told.next().await {
        if let Message::Text(text) = message {
            count = text.trim().parse().map_err(|_| Error::Utf8(text.to_string()))?;
        }
    }
    for case in 1..=count {
        let mut socket = open(server, &format!("/runCase?case={case}&agent={agent}")).await?;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                break;
            }
        }
    }
    let mut reports = open(server, &format!("/updateReports?agent={agent}")).await?;
    while let Some(Ok(_)) = reports.next().await {}
    Ok(count)
}

async fn open(server: &str, path: &str) -> Result<tokio_tungstenite::WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(server).await?;
    let config = Some(settings(MESSAGE_BYTES_MAX));
    let (socket, _) =
        tokio_tungstenite::client_async_with_config(format!("ws://{server}{path}"), stream, config).await?;
    Ok(socket)
}
