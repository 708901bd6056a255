//! The licence that this device holds: asked for when the Switch tells of another, never exchanged for an older one.

use std::time::{Duration, Instant};

use muster_proto::ids::Digest;
use muster_signing::envelope;
use muster_signing::licence::Licence;
use muster_signing::moment;

use super::{Admission, Effect, Instructions, Now};

/// Longest pause until a licence is asked for again that does not come: little for a Switch with a fleet of them, and far below the days in
/// which a licence has to be exchanged.
const AGAIN_MAX: Duration = Duration::from_secs(3_600);

/// The licence held.
#[derive(Debug, Clone)]
pub(crate) struct HeldLicence {
    /// Its envelope.
    pub(crate) envelope: Vec<u8>,
    /// SHA-256 of the envelope.
    pub(crate) digest: Digest,
    /// Its serial.
    pub(crate) serial: u64,
    /// When a newer one should have come (`refresh_by`, G6), milliseconds since 1970; `None`: it does not say.
    pub(crate) refresh_by_ms: Option<i64>,
}

impl HeldLicence {
    /// Returns a licence that was verified before it was kept. It tells its serial itself.
    pub(crate) fn kept(envelope: Vec<u8>) -> Self {
        let content = envelope::inspect(&envelope).ok().map(|inspection| inspection.content);
        let text = content.and_then(|content| String::from_utf8(content).ok());
        let licence = text.and_then(|text| Licence::parse(&text).ok());
        let terms = licence.map(|licence| LicenceTerms::of(&licence));
        Self {
            digest: envelope::digest(&envelope),
            envelope,
            serial: terms.map_or(0, |terms| terms.serial),
            refresh_by_ms: terms.and_then(|terms| terms.refresh_by_ms),
        }
    }

    /// Returns what to tell people once a newer one should have come: this one goes on working.
    pub(crate) fn overdue(&self, now_ms: i64) -> Option<String> {
        let refresh_by_ms = self.refresh_by_ms.filter(|refresh_by_ms| now_ms > *refresh_by_ms)?;
        Some(format!(
            "licence {} should have had a successor by {} and goes on working; have the newer one imported at the Switch, \
             and look at who keeps it away",
            self.serial,
            moment::shown(u64::try_from(refresh_by_ms / 1000).unwrap_or_default())
        ))
    }
}

/// What a verified licence says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LicenceTerms {
    /// Its serial.
    pub(crate) serial: u64,
    /// When a newer one should have come, milliseconds since 1970.
    pub(crate) refresh_by_ms: Option<i64>,
}

impl LicenceTerms {
    /// Reads them.
    pub(crate) fn of(licence: &Licence) -> Self {
        let millis = |seconds: u64| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        let refresh_by_ms = licence.terms().refresh_by.map(|moment| millis(moment.as_secs()));
        Self { serial: licence.serial(), refresh_by_ms }
    }
}

/// A licence that was asked for and has not come. The request or its answer can get lost where a queue was full, and the Switch tells of a
/// licence once in a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct WantedLicence {
    digest: Digest,
    asked_at: Instant,
    /// How long after that it is asked for again.
    pause: Duration,
}

/// A licence that came and is refused: for want of a fresh CRL alone (R6 of trust.md), or for something else.
#[derive(Debug, Clone)]
pub(super) struct WaitingLicence {
    pub(super) envelope: Vec<u8>,
    pub(super) digest: Digest,
    /// What its refusal said.
    pub(super) detail: String,
}

impl<A: Admission> Instructions<A> {
    /// Returns the licence held.
    pub(crate) fn licence(&self) -> Option<&HeldLicence> {
        self.licence.as_ref()
    }

    /// Returns why a licence that came is not in use yet: it waits for a CRL.
    pub(crate) fn licence_waits(&self) -> Option<String> {
        self.licence_waiting
            .as_ref()
            .map(|waiting| format!("the Switch's licence waits for a CRL: {}", waiting.detail))
    }

    /// Returns why another licence that came is not in use.
    pub(crate) fn licence_refused(&self) -> Option<String> {
        self.licence_refused
            .as_ref()
            .map(|refused| format!("the Switch's licence is refused: {}", refused.detail))
    }

    /// The Switch told which licence it holds.
    pub(crate) fn handle_licence_notice(&mut self, digest: Digest, now: Now) {
        self.licence_superseded = false;
        let held = self.licence.as_ref().is_some_and(|licence| licence.digest == digest);
        let waits = self.licence_waiting.as_ref().is_some_and(|waiting| waiting.digest == digest);
        let is_coming = self.licence_wanted.is_some_and(|wanted| {
            wanted.digest == digest && now.instant < wanted.asked_at + self.limits.document
        });
        if held {
            self.licence_refused = None;
        } else if !waits && !is_coming {
            self.ask_licence(digest, self.limits.document, now);
        }
    }

    fn ask_licence(&mut self, digest: Digest, pause: Duration, now: Now) {
        self.licence_asked = Some(digest);
        self.licence_wanted = Some(WantedLicence { digest, asked_at: now.instant, pause });
        self.effects.push_back(Effect::AskLicence { digest });
    }

    /// Returns when a licence that does not come is asked for again.
    pub(super) fn licence_timeout(&self) -> Option<Instant> {
        self.licence_wanted.map(|wanted| wanted.asked_at + wanted.pause)
    }

    /// Asks again for a licence that did not come, each time after twice the pause.
    pub(super) fn handle_licence_timeout(&mut self, now: Now) {
        if let Some(wanted) = self.licence_wanted
            && self.licence_timeout().is_some_and(|at| at <= now.instant)
        {
            tracing::warn!(digest = %wanted.digest, "the Switch's licence did not come; it is asked for again");
            self.ask_licence(wanted.digest, (wanted.pause * 2).min(AGAIN_MAX), now);
        }
    }

    /// The Switch sent a licence. One that does not verify, or is older than the one held, changes nothing.
    pub(crate) fn handle_licence(&mut self, digest: Digest, envelope: &[u8], now: Now) {
        if self.licence_wanted.is_none_or(|wanted| wanted.digest != digest) {
            return;
        }
        self.licence_wanted = None;
        self.licence_asked = None;
        self.licence_superseded = envelope::digest(envelope) != digest;
        if self.licence_superseded {
            // It holds another by now, and tells of that one.
            tracing::info!(%digest, "the Switch sent another licence than the one asked for, or none");
        } else {
            self.judge_licence(digest, envelope, now);
        }
        self.judge(now);
    }

    /// What signatures are judged by may have changed: so may what it says of a licence.
    pub(crate) fn handle_refreshed(&mut self, now: Now) {
        if self.licence_refused.is_some() {
            self.judge_licence_again(now);
            self.judge(now);
        }
    }

    /// Judges the licence that came and is not in use.
    pub(super) fn judge_licence_again(&mut self, now: Now) {
        if let Some(again) = self.licence_waiting.clone().or_else(|| self.licence_refused.clone()) {
            self.judge_licence(again.digest, &again.envelope, now);
        }
    }

    /// Judges what came, or came before what it needs.
    fn judge_licence(&mut self, digest: Digest, envelope: &[u8], now: Now) {
        let before = self.licence_waiting.take().or(self.licence_refused.take()).map(|before| before.detail);
        let (detail, lacks_only_a_crl) = match self.admission.licence(envelope, now.wall_ms) {
            Ok(terms) => match self.backwards(terms.serial, envelope) {
                Some(detail) => (detail, false),
                None => return self.take_licence(digest, envelope, terms),
            },
            Err(refused) => (refused.detail, refused.lacks_only_a_crl),
        };
        if before.as_ref() != Some(&detail) {
            let again = "it is judged again when CRLs or roots change";
            tracing::warn!(detail, lacks_only_a_crl, again, "the Switch sent a licence that does not hold");
        }
        let kept = Some(WaitingLicence { envelope: envelope.to_vec(), digest, detail });
        *(if lacks_only_a_crl { &mut self.licence_waiting } else { &mut self.licence_refused }) = kept;
    }

    /// Says why a licence that verifies is not taken all the same.
    fn backwards(&self, serial: u64, envelope: &[u8]) -> Option<String> {
        let highest = self.licence_serial;
        if self
            .licence
            .as_ref()
            .is_some_and(|held| held.serial == serial && !says_the_same(&held.envelope, envelope))
        {
            // Two licences of one serial, and nothing says which is later: the Switch takes no second one, either. One that was signed again
            // is the same: by a certificate that was renewed, or with a timestamp.
            return Some(format!(
                "it has serial {serial}, as the licence that this device holds, and says something else; have one with a higher serial issued"
            ));
        }
        (serial < highest).then(|| {
            format!("it has serial {serial}, and this device has held {highest}; import the newest one at the Switch")
        })
    }

    fn take_licence(&mut self, digest: Digest, envelope: &[u8], terms: LicenceTerms) {
        let LicenceTerms { serial, refresh_by_ms } = terms;
        self.licence_serial = serial;
        let held = envelope.to_vec();
        self.licence = Some(HeldLicence { envelope: held, digest, serial, refresh_by_ms });
        self.effects.push_back(Effect::KeepLicence { envelope: envelope.to_vec(), serial });
    }
}

/// Whether the same bytes were signed in both.
fn says_the_same(one: &[u8], other: &[u8]) -> bool {
    let content = |of: &[u8]| envelope::inspect(of).map(|inspection| inspection.content);
    one == other || matches!((content(one), content(other)), (Ok(one), Ok(other)) if one == other)
}
