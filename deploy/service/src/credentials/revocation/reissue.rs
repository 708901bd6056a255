//! [`Revocation`] takes up other issuers: their files changed, or verified chains led over CAs that nobody named.

use std::sync::PoisonError;

use muster_pki::{RevocationIndex, UnixTime};

use super::issuers::{Issuers, remembered_max};
use super::{Revocation, Writer, met};
use crate::exit::describe;

impl Revocation {
    /// Reads the files of issuers, and puts their rules into `index`. What cannot be read leaves the ones before in use.
    pub(super) fn reload_issuers(
        &self,
        writer: &mut Writer,
        index: &mut RevocationIndex,
        now: UnixTime,
    ) -> bool {
        const NAME: &str = "issuers";
        let stores = self.stores().clone();
        let paths = self.met.take();
        let max = self.settings.met_max;
        let met = met::all(writer.issuers.remembered(), &paths, remembered_max(max), now);
        match Issuers::read(&self.files, &self.settings, &stores, &met, now) {
            Ok(issuers) if issuers.is_same(&writer.issuers) => {
                writer.problems.remove(NAME);
                // Their issuer may have been taken up by another path meanwhile.
                let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
                paths.iter().for_each(|path| drop(sources.learn_path(path)));
                false
            }
            // The roots of a file that cannot be read stay in use where roles are read, and so does whom they revoked.
            Ok(issuers) if !issuers.unread().is_empty() => {
                let unread: Vec<String> =
                    issuers.unread().iter().map(|path| path.display().to_string()).collect();
                let problem =
                    format!("{}: no roots can be read; the issuers before stay in use", unread.join(", "));
                writer.problems.insert(NAME.to_owned(), problem);
                self.met.put_back(paths, max);
                false
            }
            Ok(issuers) => {
                writer.problems.remove(NAME);
                let Writer { issuers: before, dues, kept, .. } = writer;
                for gone in before.gone_from(&issuers) {
                    index.forget(gone);
                    dues.forget(gone);
                }
                tell_turnover(before, &issuers);
                issuers.set_rules(index, &self.settings, kept, now);
                // The lists of an issuer that was gone for a while went with it; those that were fetched lie on the disk.
                kept.load_again(index, &issuers.candidates(&[], now), now, dues);
                let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
                *sources = issuers.sources().with_told_of(&sources);
                paths.iter().for_each(|path| drop(sources.learn_path(path)));
                // Were their lists asked for with what is known of them, the server might say that there is nothing new.
                let came = sources.iter().filter(|(issuer, _)| !before.has(issuer));
                self.ask_anew(came.map(|(_, url)| url));
                drop(sources);
                self.told.notify_one();
                writer.issuers = issuers;
                writer.note_beyond(max);
                true
            }
            Err(error) => {
                writer.problems.insert(NAME.to_owned(), describe(&error));
                self.met.put_back(paths, max);
                false
            }
        }
    }
}

impl Writer {
    /// Notes for which issuing CA there is no room, or that there is.
    pub(super) fn note_beyond(&mut self, max: usize) {
        const NAME: &str = "issuing CAs";
        match self.issuers.beyond(max) {
            Some(problem) => drop(self.problems.insert(NAME.to_owned(), problem)),
            None => drop(self.problems.remove(NAME)),
        }
    }
}

/// Logs which CAs of chains come and go.
fn tell_turnover(before: &Issuers, issuers: &Issuers) {
    for new in issuers.met().filter(|met| !before.has(met)) {
        tracing::info!(issuer = new.subject(), "an issuing CA is taken up: its CRL counts from now on");
    }
    for gone in before.met().filter(|met| !issuers.has(met)) {
        tracing::info!(issuer = gone.subject(), "an issuing CA of chains is gone, and its CRL with it");
    }
}
