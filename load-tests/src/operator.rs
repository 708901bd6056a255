//! An operator as a program: the operator API over mutual TLS, and orders signed with the home's order key.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use muster_proto::common::v1::{NamedValue, Value, value::Kind};
use muster_proto::operator::v1::watch_instruction_response::Update;
use muster_proto::operator::v1::{
    Instruction, PrepareInstructionRequest, PrepareInstructionResponse, SubmitInstructionRequest,
    WatchInstructionRequest,
};
use muster_proto_grpc::operator::v1::client_service_client::ClientServiceClient;
use muster_proto_grpc::operator::v1::instruction_service_client::InstructionServiceClient;
use muster_signing::envelope::{self, ContentType, Signer};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::tls::{self, Identity};

/// A connection to the operator API.
#[derive(Debug, Clone)]
pub struct Operator {
    channel: Channel,
    home: PathBuf,
}

impl Operator {
    /// Connects to `localhost:PORT` with the home's operator certificate.
    ///
    /// # Errors
    /// The home is incomplete, or nobody answers.
    pub async fn connect(home: &Path, address: &str) -> anyhow::Result<Self> {
        let identity = Identity {
            name: "operator".to_owned(),
            chain_pem: read(home, "operator/tls.pem")?,
            key_pem: read(home, "operator/tls.key")?,
        };
        let config = tls::client(&tls::server_roots(home)?, &identity, &[b"h2"])?;
        let (address, name) = (address.to_owned(), ServerName::try_from("localhost")?);
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let (address, name, config) = (address.clone(), name.clone(), config.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let channel =
            Endpoint::from_static("http://switch.invalid").connect_with_connector(connector).await?;
        Ok(Self { channel, home: home.to_owned() })
    }

    /// Instructions.
    #[must_use]
    pub fn instructions(&self) -> InstructionServiceClient<Channel> {
        InstructionServiceClient::new(self.channel.clone()).max_decoding_message_size(4 << 20)
    }

    /// Devices.
    #[must_use]
    pub fn clients(&self) -> ClientServiceClient<Channel> {
        ClientServiceClient::new(self.channel.clone()).max_decoding_message_size(4 << 20)
    }

    /// Prepares the platform's free question for an audience.
    ///
    /// # Errors
    /// The Switch refuses it.
    pub async fn prepare(&self, sql: &str, audience: &str) -> anyhow::Result<PrepareInstructionResponse> {
        let sql = Value { kind: Some(Kind::Text(sql.to_owned())) };
        let request = PrepareInstructionRequest {
            definition: "Muster-Core-Query".to_owned(),
            version: String::new(),
            arguments: vec![NamedValue { name: "sql".to_owned(), value: Some(sql) }],
            audience: audience.to_owned(),
            gather_ms: 0,
        };
        Ok(self.instructions().prepare_instruction(request).await?.into_inner())
    }

    /// Signs prepared bytes with the home's order key; gives the envelope.
    ///
    /// # Errors
    /// The key does not sign.
    pub fn sign(&self, order: &[u8]) -> anyhow::Result<Vec<u8>> {
        let certificate = read(&self.home, "operator/order.pem")?;
        let key = read(&self.home, "operator/order.key")?;
        let signer = Signer::from_pem(certificate.as_bytes(), key.as_bytes())?;
        Ok(envelope::sign(order, ContentType::Order, &signer, UnixTime::now())?)
    }

    /// Submits a signed order; the same envelope under the same key gives the same id, however often.
    ///
    /// # Errors
    /// The Switch refuses the order, or does not answer.
    pub async fn submit(&self, envelope: Vec<u8>, idempotency_key: &str) -> Result<String, tonic::Status> {
        let request = SubmitInstructionRequest { envelope, idempotency_key: idempotency_key.to_owned() };
        let id = self.instructions().submit_instruction(request).await?.into_inner().instruction;
        if id.is_empty() {
            return Err(tonic::Status::internal("the Switch accepted an order and gave it no id"));
        }
        Ok(id)
    }

    /// Waits until every target of an instruction is accounted for.
    ///
    /// # Errors
    /// The Switch ends the watch before.
    pub async fn complete(&self, instruction: &str) -> anyhow::Result<Instruction> {
        let request = WatchInstructionRequest { instruction: instruction.to_owned() };
        let mut updates = self.instructions().watch_instruction(request).await?.into_inner();
        let mut last = None;
        while let Some(response) = updates.message().await? {
            if let Some(Update::Instruction(shown)) = response.update {
                if shown.complete {
                    return Ok(shown);
                }
                last = Some(shown);
            }
        }
        bail!("the watch ended before the instruction was complete: {last:?}")
    }
}

fn read(home: &Path, relative: &str) -> anyhow::Result<String> {
    let path = home.join(relative);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}
