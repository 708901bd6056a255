//! What the store remembers of instructions, and the machine that goes on with it.

use std::time::Instant;

use crate::clock;
use crate::config::Config;
use crate::instructions::{DownloadWait, HeldLicence, Instructions, Limits, Memory, SignedAdmission};
use crate::store::{Entry, Store, StoreError, StoredPolicies, Tables};

/// What the store remembers of instructions.
pub(super) struct Recovered {
    licence: Option<HeldLicence>,
    licence_serial: u64,
    memory: Memory,
    intents: Vec<(Entry, Option<Vec<u8>>)>,
    certificate_wait: Option<Vec<u8>>,
}

/// Reports what was interrupted, and returns what may still start once a Welcome says that the store is no copy.
pub(super) async fn recover(store: &Store) -> Result<Recovered, StoreError> {
    let now_ms = clock::wall_ms();
    store
        .write(move |tables| {
            let mut intents = Vec::new();
            for entry in tables.recover(now_ms)? {
                let definition = tables.definition(entry.definition, now_ms)?;
                intents.push((entry, definition));
            }
            let versions = tables.versions(now_ms)?;
            let (licence, licence_serial) = licence(tables, now_ms)?;
            Ok(Recovered {
                licence,
                licence_serial,
                memory: Memory {
                    versions,
                    time_floor_ms: tables.time_floor_ms(now_ms)?,
                    restored_at_ms: tables.restored_at_ms(now_ms)?,
                },
                intents,
                certificate_wait: tables.certificate_wait(now_ms)?,
            })
        })
        .await
}

/// Returns the licence held, and the highest serial ever held. The record of that one may be damaged; the licence tells its own.
fn licence(tables: &mut Tables, now_ms: i64) -> rusqlite::Result<(Option<HeldLicence>, u64)> {
    let stored = tables.licence_serial(now_ms)?;
    let licence = tables.licence(now_ms)?.map(HeldLicence::kept);
    match &licence {
        Some(held) if held.serial > stored => {
            tracing::warn!(
                serial = held.serial,
                "the highest licence serial was lost; it is that of the licence held"
            );
            tables.keep_licence(&held.envelope, held.serial)?;
            Ok((licence.clone(), held.serial))
        }
        Some(_) | None => Ok((licence, stored)),
    }
}

/// Returns what the store remembers of policies; nothing where nobody may sign any.
pub(super) async fn policies(config: &Config, store: &Store) -> Result<StoredPolicies, StoreError> {
    if !config.trust.has_policies() {
        return Ok(StoredPolicies::default());
    }
    let now_ms = clock::wall_ms();
    store.write(move |tables| tables.policies(now_ms)).await
}

/// Makes the machine that decides what becomes of orders.
pub(super) fn machine(
    config: &Config,
    admission: SignedAdmission,
    recovered: Recovered,
) -> Instructions<SignedAdmission> {
    let limits = Limits {
        parallel: config.instructions.parallel,
        queued: config.instructions.queued,
        document: config.instructions.definition_timeout,
    };
    let period = config.resources.certificate_wait;
    let stored = recovered.certificate_wait.as_deref();
    let downloads = DownloadWait::restore(period, stored, clock::wall_ms());
    let mut machine = Instructions::new(
        admission,
        limits,
        recovered.licence,
        recovered.licence_serial,
        recovered.memory,
        Instant::now(),
    )
    .with_download_wait(downloads);
    for (entry, definition) in recovered.intents {
        machine.handle_recovered(entry, definition);
    }
    machine
}
