//! The alarm over a licence that should have had a successor (`refresh_by`, G6): whoever keeps the newer one away cannot keep it silent.

use super::Admission;
use super::shell::Shell;
use crate::clock;
use crate::events::LICENCE_OVERDUE;
use crate::store::{StoreError, event_record};
use crate::value;

/// What was told since the start.
#[derive(Debug, Default)]
pub(crate) struct LicenceAlarm {
    /// The serial of the licence that was told of in an event; none is 0.
    serial: u64,
}

impl<A: Admission> Shell<A> {
    /// Tells of a licence that should have had a successor, in the log and in an event once a start, and of one that waits; returns
    /// what the status says as long as it stands.
    pub(super) async fn tell_licence(&mut self) -> Result<String, StoreError> {
        let now_ms = clock::wall_ms();
        let overdue = self.machine.licence().and_then(|licence| Some((licence, licence.overdue(now_ms)?)));
        let overdue = overdue.map(|(licence, problem)| (licence.serial, licence.refresh_by_ms, problem));
        metrics::gauge!(crate::metrics::LICENCE_OVERDUE).set(if overdue.is_some() { 1.0 } else { 0.0 });
        if let Some((serial, refresh_by_ms, problem)) = &overdue
            && self.alarm.serial != *serial
        {
            tracing::warn!(problem, "the licence");
            let fields = vec![
                value::integer("serial", i64::try_from(*serial).unwrap_or(i64::MAX)),
                value::integer("refresh_by_ms", refresh_by_ms.unwrap_or_default()),
            ];
            let event = event_record(now_ms, LICENCE_OVERDUE, fields);
            match self.store.write(move |tables| tables.append_event(event, now_ms)).await {
                // There is the log and the status; the disk has its own alarm.
                Ok(_) | Err(StoreError::DiskFull) => self.alarm.serial = *serial,
                Err(error) => return Err(error),
            }
        }
        let waits = self.machine.licence_waits();
        let refused = self.machine.licence_refused();
        let told: Vec<String> =
            waits.into_iter().chain(refused).chain(overdue.map(|(_, _, problem)| problem)).collect();
        Ok(told.join("; "))
    }
}
