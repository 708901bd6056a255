//! Documents that the instructions want and the session has no room to ask for yet.

use std::collections::VecDeque;

use muster_proto::ids::Digest;
use muster_proto::session::client::ClientSession;
use muster_proto::session::v1::DocumentKind;

/// As many as orders may wait for a definition (`instructions.queued` at most), and one licence.
const ASKS_MAX: usize = 4_097;

/// What is still to be asked for, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    waiting: VecDeque<(DocumentKind, Digest)>,
}

impl Asks {
    /// A document is wanted. Beyond the bound it is left out: who wants it asks once more.
    pub(crate) fn push(&mut self, kind: DocumentKind, digest: Digest) {
        if self.waiting.len() < ASKS_MAX && !self.waiting.contains(&(kind, digest)) {
            self.waiting.push_back((kind, digest));
        }
    }

    /// Asks for as many as the session takes; returns how many that were.
    pub(crate) fn send(&mut self, session: &mut ClientSession) -> usize {
        let mut sent = 0;
        while let Some(&(kind, digest)) = self.waiting.front() {
            match session.push_document_request(kind, digest) {
                Ok(()) => sent += 1,
                // It is asked for after the next document, or when something was written.
                Err(error) if error.is_transient() => break,
                Err(error) => tracing::debug!(%error, %digest, "not asked for"),
            }
            self.waiting.pop_front();
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use muster_proto::ids::Epoch;
    use muster_proto::limits::DOCUMENT_REQUESTS_MAX;
    use muster_proto::session::client::ClientSessionConfig;
    use muster_proto::session::switch::{SwitchEvent, SwitchSession, SwitchSessionConfig, WelcomeArgs};
    use muster_proto::session::v1::{Document, Hello};

    use super::*;

    #[test]
    fn what_one_session_has_no_room_for_is_asked_for_after_the_next_document() {
        let (mut client, mut switch) = established();
        let mut asks = Asks::default();
        for number in 0..20 {
            asks.push(DocumentKind::Definition, Digest::from([number; 32]));
        }

        assert_eq!(asks.send(&mut client), DOCUMENT_REQUESTS_MAX);
        assert_eq!(asks.send(&mut client), 0);
        let first = Document {
            kind: DocumentKind::Definition.into(),
            digest: vec![0; 32],
            envelope: Vec::new().into(),
        };
        deliver(&mut client, &mut switch);
        switch.push_document(first).unwrap();
        deliver(&mut client, &mut switch);

        assert_eq!(asks.send(&mut client), 1);
        deliver(&mut client, &mut switch);
        let mut asked = Vec::new();
        while let Some(event) = switch.poll_event() {
            if let SwitchEvent::DocumentRequest { digest, .. } = event {
                asked.push(digest);
            }
        }
        assert_eq!(asked.last(), Some(&Digest::from([16; 32])));
    }

    fn established() -> (ClientSession, SwitchSession) {
        let now = Instant::now();
        let hello = Hello {
            outbox_id: vec![1; 16],
            versions: vec![1],
            client_version: "1.0.0".to_owned(),
            ..Hello::default()
        };
        let mut client = ClientSession::new(ClientSessionConfig::default(), hello, now);
        let mut switch = SwitchSession::new(SwitchSessionConfig::default(), now);
        deliver(&mut client, &mut switch);
        assert!(matches!(switch.poll_event(), Some(SwitchEvent::Hello(_))));
        let welcome = WelcomeArgs {
            epoch: Epoch(1),
            time_ms: 1,
            licence_digest: None,
            highest_sequence: 0,
            highest_by_session: None,
            stops_due: 0,
        };
        switch.push_welcome(welcome, now);
        deliver(&mut client, &mut switch);
        assert!(client.is_established());
        (client, switch)
    }

    fn deliver(client: &mut ClientSession, switch: &mut SwitchSession) {
        let now = Instant::now();
        while let Some(bytes) = client.poll_transmit() {
            switch.handle_message(&bytes, now);
        }
        while let Some(bytes) = switch.poll_transmit() {
            client.handle_message(&bytes, now);
        }
    }
}
