//! The policy that is followed, the one that is tried, and the highest serial ever taken (K1, K3).

use muster_proto::ids::Digest;

use super::tables::Tables;

/// Bytes of a moment before the envelope of a policy that is tried.
const MOMENT_BYTES: usize = 8;

/// What is kept of policies. Envelopes were verified before they came here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct StoredPolicies {
    /// The policy that is followed.
    pub(crate) current: Option<Vec<u8>>,
    /// When the trial ends, milliseconds since 1970, and the policy that is tried.
    pub(crate) trial: Option<(i64, Vec<u8>)>,
    /// The highest serial that was ever taken; it outlives the policies' own records.
    pub(crate) highest_serial: u64,
    /// The policy of that serial, where it was tried in vain.
    pub(crate) rolled_back: Option<Digest>,
}

impl Tables {
    /// Returns what is kept of policies.
    pub(crate) fn policies(&self, now_ms: i64) -> rusqlite::Result<StoredPolicies> {
        let present = |name| -> rusqlite::Result<Option<Vec<u8>>> {
            Ok(self.meta(name, now_ms)?.filter(|value| !value.is_empty()))
        };
        let trial = present("policy_trial")?.and_then(|record| {
            let (moment, envelope) = record.split_first_chunk::<MOMENT_BYTES>()?;
            Some((i64::from_be_bytes(*moment), envelope.to_vec()))
        });
        Ok(StoredPolicies {
            current: present("policy")?,
            trial,
            highest_serial: self.meta_number("policy_serial", now_ms)?,
            rolled_back: present("policy_rolled_back")?.and_then(|digest| Digest::try_from(&digest[..]).ok()),
        })
    }

    /// Keeps policies that were verified.
    pub(crate) fn keep_policies(&mut self, policies: &StoredPolicies) -> rusqlite::Result<()> {
        let trial = policies.trial.as_ref().map(|(until_ms, envelope)| {
            let mut record = until_ms.to_be_bytes().to_vec();
            record.extend_from_slice(envelope);
            record
        });
        self.set_meta("policy", policies.current.as_deref().unwrap_or_default())?;
        self.set_meta("policy_trial", trial.as_deref().unwrap_or_default())?;
        self.set_meta("policy_serial", &policies.highest_serial.to_be_bytes())?;
        let rolled_back = policies.rolled_back.map(|digest| digest.to_vec());
        self.set_meta("policy_rolled_back", rolled_back.as_deref().unwrap_or_default())
    }
}
