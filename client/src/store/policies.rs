//! The policy that is followed, the one that is tried, and the highest serial ever taken (K1, K3).

use muster_proto::ids::Digest;

use super::tables::Tables;

/// Bytes of a moment before the envelope of a policy that is tried.
const MOMENT_BYTES: usize = 8;

/// The record of the policy that is followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum StoredPolicy {
    /// None is followed: as installed.
    #[default]
    None,
    /// Its envelope.
    Envelope(Vec<u8>),
    /// It is gone or was damaged, though policies were kept: nobody can tell what it said.
    Lost,
}

/// What is kept of policies. Envelopes were verified before they came here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct StoredPolicies {
    /// The policy that is followed.
    pub(crate) current: StoredPolicy,
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
        let current = match self.meta("policy", now_ms)? {
            Some(value) if value.is_empty() => StoredPolicy::None,
            Some(value) => StoredPolicy::Envelope(value),
            None if self.had_policies()? => StoredPolicy::Lost,
            None => StoredPolicy::None,
        };
        let trial = present("policy_trial")?.and_then(|record| {
            let (moment, envelope) = record.split_first_chunk::<MOMENT_BYTES>()?;
            Some((i64::from_be_bytes(*moment), envelope.to_vec()))
        });
        Ok(StoredPolicies {
            current,
            trial,
            highest_serial: self.lasting_number("policy_serial", now_ms)?,
            rolled_back: present("policy_rolled_back")?.and_then(|digest| Digest::try_from(&digest[..]).ok()),
        })
    }

    /// Returns whether policies were ever kept: all their records are written together, and a damaged one is told of.
    fn had_policies(&self) -> rusqlite::Result<bool> {
        self.connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM meta WHERE name IN ('policy_trial', 'policy_serial', 'policy_rolled_back')) \
             OR EXISTS (SELECT 1 FROM damaged WHERE source = 'meta' AND key = CAST('policy' AS BLOB))",
            [],
            |row| row.get(0),
        )
    }

    /// Keeps policies that were verified.
    pub(crate) fn keep_policies(&mut self, policies: &StoredPolicies) -> rusqlite::Result<()> {
        let trial = policies.trial.as_ref().map(|(until_ms, envelope)| {
            let mut record = until_ms.to_be_bytes().to_vec();
            record.extend_from_slice(envelope);
            record
        });
        match &policies.current {
            StoredPolicy::None => self.set_meta("policy", &[])?,
            StoredPolicy::Envelope(envelope) => self.set_meta("policy", envelope)?,
            // An empty record would say that none was followed.
            StoredPolicy::Lost => {}
        }
        self.set_meta("policy_trial", trial.as_deref().unwrap_or_default())?;
        self.set_lasting_number("policy_serial", policies.highest_serial)?;
        let rolled_back = policies.rolled_back.map(|digest| digest.to_vec());
        self.set_meta("policy_rolled_back", rolled_back.as_deref().unwrap_or_default())
    }
}
