//! [`Records`]: the TLS of a server's connection without its socket, bytes in and bytes out.
//!
//! Between records it holds the keys, and the beginning of a record whose rest has not come: whoever reads lends the room to decrypt in. That
//! makes an idle connection several times smaller than one that has buffers of its own (spec/performance.md).

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use muster_pki::CertificateDer;
use rustls::server::{ServerConnection, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{CommonState, Error, ServerConfig};

/// Bytes of one record at most: its header, and 2 KiB of overhead over 16 KiB of text, which TLS 1.2 allows (RFC 5246 §6.2.3).
const RECORD_BYTES_MAX: usize = 5 + (16 << 10) + (2 << 10);

/// Bytes kept of a handshake message whose rest has not come: the longest that rustls takes, and the headers and tags of its records.
const HANDSHAKE_BYTES_MAX: usize = (64 << 10) + 4 * 512;

/// Bytes of one read at most. What is read and not understood yet is held for a session, so this is how far one reads ahead.
pub(super) const READ_BYTES_MAX: usize = 16 << 10;

/// The room that whoever reads lends: for what is kept, and behind it for the largest read.
pub(super) const SCRATCH_BYTES: usize = HANDSHAKE_BYTES_MAX + READ_BYTES_MAX;

/// Bytes that a record has beyond its text, in any suite and version that is spoken.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Text of one record at most (RFC 8446 §5.1).
const RECORD_TEXT_BYTES: usize = 16 << 10;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keying {
    /// Its keys stay in TLS.
    Closed,
    /// It is asked for keying material (RFC 8446 §7.5), which costs it buffers of its own: rustls exports from nothing smaller.
    Exported,
}

/// What became of the bytes that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// The peer may say more.
    More,
    /// The peer has said that it is done.
    Closed,
}

/// The TLS of one connection.
pub(super) struct Records {
    tls: Tls,
    /// The beginning of a record or of a handshake message. rustls knows places in it, so it is given back as it was.
    kept: Vec<u8>,
    /// What the peer got wrong. rustls then knows places in bytes that are gone, and is not asked any more.
    broken: Option<Error>,
}

enum Tls {
    Lean(Box<UnbufferedServerConnection>),
    Exporting(Box<ServerConnection>),
}

impl Records {
    /// Begins a connection.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub(super) fn new(config: Arc<ServerConfig>, keying: Keying) -> Result<Self, Error> {
        let tls = match keying {
            Keying::Closed => Tls::Lean(Box::new(UnbufferedServerConnection::new(config)?)),
            Keying::Exported => Tls::Exporting(Box::new(ServerConnection::new(config)?)),
        };
        Ok(Self { tls, kept: Vec::new(), broken: None })
    }

    /// Returns what both kinds of connection know.
    pub(super) fn state(&self) -> &CommonState {
        match &self.tls {
            Tls::Lean(tls) => tls,
            Tls::Exporting(tls) => tls,
        }
    }

    /// Returns the chain that the peer showed, or showed when the session began that this one resumes.
    pub(super) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.state().peer_certificates()
    }

    /// Returns the connection that keying material is exported from, if it was made so.
    pub(super) fn exporter(&self) -> Option<&ServerConnection> {
        match &self.tls {
            Tls::Lean(_) => None,
            Tls::Exporting(tls) => Some(tls),
        }
    }

    /// Puts what was kept at the beginning of `scratch`; what comes next goes behind it. Returns its bytes.
    pub(super) fn resume(&self, scratch: &mut [u8]) -> usize {
        let Some(head) = scratch.get_mut(..self.kept.len()) else { return 0 };
        head.copy_from_slice(&self.kept);
        head.len()
    }

    /// Takes what was kept and what came behind it. Appends the text to `plain`, and to `sent` what TLS has to say, which goes out even if
    /// there is an error: it tells the peer what is wrong.
    ///
    /// # Errors
    /// What the peer got wrong; there is nothing more to be read from it.
    pub(super) fn open(
        &mut self,
        received: &mut [u8],
        plain: &mut Vec<u8>,
        sent: &mut Vec<u8>,
    ) -> Result<Opened, Error> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let opened = self.take_in(received, plain, sent);
        if let Err(error) = &opened {
            self.broken = Some(error.clone());
            self.kept = Vec::new();
        }
        opened
    }

    fn take_in(
        &mut self,
        received: &mut [u8],
        plain: &mut Vec<u8>,
        sent: &mut Vec<u8>,
    ) -> Result<Opened, Error> {
        let (used, opened) = match &mut self.tls {
            Tls::Lean(tls) => open_lean(tls, received, plain, sent)?,
            Tls::Exporting(tls) => (received.len(), open_exporting(tls, received, plain, sent)?),
        };
        let rest = match opened {
            Opened::More => received.get(used..).unwrap_or_default(),
            // Nothing is read of what comes behind the end.
            Opened::Closed => &[],
        };
        let rest_max = if self.state().is_handshaking() { HANDSHAKE_BYTES_MAX } else { RECORD_BYTES_MAX };
        if rest.len() > rest_max {
            return Err(Error::PeerSentOversizedRecord);
        }
        if rest.is_empty() {
            self.kept = Vec::new();
        } else {
            self.kept.clear();
            self.kept.extend_from_slice(rest);
        }
        Ok(opened)
    }

    /// Appends `plain` to `sent`, in records.
    ///
    /// # Errors
    /// The connection is over, or its keys are used up.
    pub(super) fn seal(&mut self, plain: &[u8], sent: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let tls = match &mut self.tls {
            Tls::Lean(tls) => tls,
            Tls::Exporting(tls) => return seal_exporting(tls, plain, sent),
        };
        let room = plain.len() + plain.len().div_ceil(RECORD_TEXT_BYTES) * RECORD_OVERHEAD_BYTES;
        // Not without what is kept: rustls looks behind it for the next record, and would look behind the end of nothing.
        write_lean(tls, &mut self.kept, sent, |traffic, sent| {
            fill(sent, room, |room| match traffic.encrypt(plain, room) {
                Ok(bytes) => Ok(bytes),
                Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    Err(Some(required_size))
                }
                Err(EncryptError::EncryptExhausted) => Err(None),
            })
        })
    }

    /// Appends the word that nothing more will be said (RFC 8446 §6.1).
    ///
    /// # Errors
    /// The connection is over already.
    pub(super) fn close(&mut self, sent: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        match &mut self.tls {
            Tls::Lean(tls) => write_lean(tls, &mut self.kept, sent, |traffic, sent| {
                fill(sent, RECORD_OVERHEAD_BYTES, |room| match traffic.queue_close_notify(room) {
                    Ok(bytes) => Ok(bytes),
                    Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        Err(Some(required_size))
                    }
                    Err(EncryptError::EncryptExhausted) => Err(None),
                })
            }),
            Tls::Exporting(tls) => {
                tls.send_close_notify();
                take_out(tls, sent)
            }
        }
    }
}

fn open_lean(
    tls: &mut UnbufferedServerConnection,
    received: &mut [u8],
    plain: &mut Vec<u8>,
    sent: &mut Vec<u8>,
) -> Result<(usize, Opened), Error> {
    let (mut used, mut opened) = (0, Opened::More);
    loop {
        let rest = received.get_mut(used..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state } = tls.process_tls_records(rest);
        let mut is_done = false;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, sent)?,
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => opened = Opened::Closed,
            Ok(ConnectionState::Closed) => (opened, is_done) = (Opened::Closed, true),
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => is_done = true,
            // Early data is not offered; another state is one of a rustls to come.
            Ok(unknown) => {
                return Err(Error::General(format!("TLS is in a state that was not expected: {unknown:?}")));
            }
            Err(error) => {
                last_words(tls, sent)?;
                return Err(error);
            }
        }
        used += discard;
        if is_done {
            return Ok((used, opened));
        }
    }
}

/// Appends the alert that an error has left.
fn last_words(tls: &mut UnbufferedServerConnection, sent: &mut Vec<u8>) -> Result<(), Error> {
    while tls.wants_write() {
        let UnbufferedStatus { state, .. } = tls.process_tls_records(&mut []);
        let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { break };
        encode(&mut data, sent)?;
    }
    Ok(())
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, sent: &mut Vec<u8>) -> Result<(), Error> {
    fill(sent, 0, |room| match data.encode(room) {
        Ok(bytes) => Ok(bytes),
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            Err(Some(required_size))
        }
        Err(EncodeError::AlreadyEncoded) => Err(None),
    })
}

/// Brings the connection to where text may be written, and has it written.
fn write_lean(
    tls: &mut UnbufferedServerConnection,
    kept: &mut [u8],
    sent: &mut Vec<u8>,
    write: impl FnOnce(
        &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
        &mut Vec<u8>,
    ) -> Result<(), Error>,
) -> Result<(), Error> {
    loop {
        let UnbufferedStatus { state, .. } = tls.process_tls_records(kept);
        match state? {
            ConnectionState::WriteTraffic(mut traffic) => return write(&mut traffic, sent),
            ConnectionState::EncodeTlsData(mut data) => encode(&mut data, sent)?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => {}
            state @ (ConnectionState::Closed
            | ConnectionState::ReadTraffic(_)
            | ConnectionState::ReadEarlyData(_)
            | ConnectionState::BlockedHandshake
            | _) => return Err(Error::General(format!("nothing can be written where TLS is at {state:?}"))),
        }
    }
}

/// Has `write` write behind the end of `sent` into room for so many bytes, and again where it says that it needs more.
fn fill(
    sent: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Error> {
    let begin = sent.len();
    let mut room = room;
    for _ in 0..2 {
        sent.resize(begin + room, 0);
        match write(sent.get_mut(begin..).unwrap_or_default()) {
            Ok(bytes) => {
                sent.truncate(begin + bytes);
                return Ok(());
            }
            Err(Some(required)) => room = required,
            Err(None) => break,
        }
    }
    sent.truncate(begin);
    Err(Error::EncryptError)
}

fn open_exporting(
    tls: &mut ServerConnection,
    received: &[u8],
    plain: &mut Vec<u8>,
    sent: &mut Vec<u8>,
) -> Result<Opened, Error> {
    let mut unread = received;
    while !unread.is_empty() {
        tls.read_tls(&mut unread).map_err(told)?;
        let state = match tls.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                take_out(tls, sent)?;
                return Err(error);
            }
        };
        let begin = plain.len();
        plain.resize(begin + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(plain.get_mut(begin..).unwrap_or_default()).map_err(told)?;
        take_out(tls, sent)?;
        if state.peer_has_closed() {
            return Ok(Opened::Closed);
        }
    }
    Ok(Opened::More)
}

fn seal_exporting(tls: &mut ServerConnection, plain: &[u8], sent: &mut Vec<u8>) -> Result<(), Error> {
    for text in plain.chunks(RECORD_TEXT_BYTES) {
        tls.writer().write_all(text).map_err(told)?;
        take_out(tls, sent)?;
    }
    Ok(())
}

fn take_out(tls: &mut ServerConnection, sent: &mut Vec<u8>) -> Result<(), Error> {
    while tls.wants_write() {
        tls.write_tls(sent).map_err(told)?;
    }
    Ok(())
}

/// Memory gives no errors of its own: what it tells is TLS's.
fn told(error: io::Error) -> Error {
    Error::General(error.to_string())
}

#[cfg(test)]
impl Records {
    /// Returns the room that is kept between records.
    pub(super) fn kept_capacity(&self) -> usize {
        self.kept.capacity()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Records").field("kept", &self.kept.len()).finish_non_exhaustive()
    }
}
