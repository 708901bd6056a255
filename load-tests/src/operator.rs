//! An operator as a program: the operator API over mutual TLS, and orders signed with the home's order key.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use muster_proto::common::v1::{NamedValue, Value, value::Kind};
use muster_proto::operator::v1::watch_instruction_response::Update;
use muster_proto::operator::v1::{
    GetStatusRequest, ImportDefinitionRequest, ImportLicenceRequest, Instruction, PrepareApprovalRequest,
    PrepareInstructionRequest, PrepareInstructionResponse, PrepareStopRequest, SubmitApprovalRequest,
    SubmitInstructionRequest, SubmitStopRequest, WatchInstructionRequest,
};
use muster_proto_grpc::operator::v1::client_service_client::ClientServiceClient;
use muster_proto_grpc::operator::v1::definition_service_client::DefinitionServiceClient;
use muster_proto_grpc::operator::v1::instruction_service_client::InstructionServiceClient;
use muster_proto_grpc::operator::v1::licence_service_client::LicenceServiceClient;
use muster_proto_grpc::operator::v1::status_service_client::StatusServiceClient;
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

/// Connects to the gRPC services at `localhost:PORT` with a certificate.
///
/// # Errors
/// The home has no roots of servers, or nobody answers.
pub async fn channel(home: &Path, address: &str, identity: &Identity) -> anyhow::Result<Channel> {
    let config = tls::client(&tls::server_roots(home)?, identity, &[b"h2"])?;
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
    Ok(Endpoint::from_static("http://switch.invalid").connect_with_connector(connector).await?)
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
        Ok(Self { channel: channel(home, address, &identity).await?, home: home.to_owned() })
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
        self.prepare_of("Muster-Core-Query", ("sql", sql), audience).await
    }

    /// Prepares a definition for an audience, with one argument of text.
    ///
    /// # Errors
    /// The Switch refuses it; its status is what the error wraps.
    pub async fn prepare_of(
        &self,
        definition: &str,
        (name, value): (&str, &str),
        audience: &str,
    ) -> anyhow::Result<PrepareInstructionResponse> {
        let value = Some(Value { kind: Some(Kind::Text(value.to_owned())) });
        let request = PrepareInstructionRequest {
            definition: definition.to_owned(),
            version: String::new(),
            arguments: vec![NamedValue { name: name.to_owned(), value }],
            audience: audience.to_owned(),
            gather_ms: 0,
            keep_ms: 0,
        };
        Ok(self.instructions().prepare_instruction(request).await?.into_inner())
    }

    /// Signs prepared bytes with the home's order key; gives the envelope.
    ///
    /// # Errors
    /// The key does not sign.
    pub fn sign(&self, order: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(envelope::sign(order, ContentType::Order, &self.signer()?, UnixTime::now())?)
    }

    fn signer(&self) -> anyhow::Result<Signer> {
        let certificate = read(&self.home, "operator/order.pem")?;
        let key = read(&self.home, "operator/order.key")?;
        Ok(Signer::from_pem(certificate.as_bytes(), key.as_bytes())?)
    }

    /// Stops an instruction; returns whether the Switch has a stop of it, and not an instruction that had ended before.
    ///
    /// # Errors
    /// The Switch refuses the stop, or does not answer.
    pub async fn stop(&self, instruction: &str, reason: &str) -> anyhow::Result<bool> {
        let request = PrepareStopRequest { instruction: instruction.to_owned(), reason: reason.to_owned() };
        let prepared = self.instructions().prepare_stop(request).await?.into_inner();
        if prepared.order.is_empty() {
            return Ok(prepared.instruction.is_some_and(|instruction| instruction.stop.is_some()));
        }
        let envelope = self.sign(&prepared.order)?;
        match self.instructions().submit_stop(SubmitStopRequest { envelope }).await {
            Ok(_) => Ok(true),
            // It ended between the two calls.
            Err(status) if status.code() == tonic::Code::FailedPrecondition => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    /// Approves an instruction; one that lacks no approval stays as it is.
    ///
    /// # Errors
    /// The Switch refuses the approval, or does not answer.
    pub async fn approve(&self, instruction: &str) -> anyhow::Result<()> {
        let request = PrepareApprovalRequest { instruction: instruction.to_owned() };
        let prepared = self.instructions().prepare_approval(request).await?.into_inner();
        if prepared.envelope.is_empty() {
            return Ok(());
        }
        let envelope = envelope::cosign(&prepared.envelope, &self.signer()?, UnixTime::now())?;
        self.instructions().submit_approval(SubmitApprovalRequest { envelope }).await?;
        Ok(())
    }

    /// Imports a definition.
    ///
    /// # Errors
    /// The Switch refuses it, or does not answer.
    pub async fn import_definition(&self, envelope: Vec<u8>) -> anyhow::Result<()> {
        let mut definitions = DefinitionServiceClient::new(self.channel.clone());
        definitions.import_definition(ImportDefinitionRequest { envelope }).await?;
        Ok(())
    }

    /// Imports a licence.
    ///
    /// # Errors
    /// The Switch refuses it, or does not answer.
    pub async fn import_licence(&self, envelope: Vec<u8>) -> anyhow::Result<()> {
        let mut licences = LicenceServiceClient::new(self.channel.clone());
        licences.import_licence(ImportLicenceRequest { envelope }).await?;
        Ok(())
    }

    /// The serial of the licence that is in force.
    ///
    /// # Errors
    /// The Switch does not answer.
    pub async fn licence_serial(&self) -> anyhow::Result<u64> {
        let mut status = StatusServiceClient::new(self.channel.clone());
        Ok(status.get_status(GetStatusRequest {}).await?.into_inner().licence_serial)
    }

    /// What an operator should look at, by the Switch's own words.
    ///
    /// # Errors
    /// The Switch does not answer.
    pub async fn warnings(&self) -> anyhow::Result<Vec<String>> {
        let mut status = StatusServiceClient::new(self.channel.clone());
        Ok(status.get_status(GetStatusRequest {}).await?.into_inner().warnings)
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
