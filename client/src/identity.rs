//! [`Identity`]: whose device this is, once its certificate has told.
//!
//! A client with a store of certificates starts without one, too, and does not know its own name until one comes (S6). Nothing
//! is called and nothing is admitted before.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_endpoint::SqlValue;
use muster_pki::DeviceId;
use muster_proto::common::v1::{NamedValue, Value};
use tokio::sync::watch;

use crate::attributes;

/// Who the device is, and what it tells of itself.
#[derive(Debug)]
pub(crate) struct Known {
    /// Its name.
    pub(crate) device: DeviceId,
    attributes: BTreeMap<String, SqlValue>,
}

impl Known {
    /// Reads what belongs to a name. Blocks on the disk.
    pub(crate) fn of(device: DeviceId) -> Self {
        let attributes = attributes::collect(&device);
        Self { device, attributes }
    }

    /// Returns the attributes as a Hello has them.
    pub(crate) fn named(&self) -> Vec<NamedValue> {
        attributes::named(&self.attributes)
    }

    /// Returns the attributes as audiences are matched with them.
    pub(crate) fn values(&self) -> BTreeMap<String, Value> {
        let value = |(name, value): (&String, &SqlValue)| Some((name.clone(), attributes::wire(value)?));
        self.attributes.iter().filter_map(value).collect()
    }
}

/// Whose device this is, as far as it is known. Once it is, it stays for the life of the process.
#[derive(Debug, Clone)]
pub(crate) struct Identity(watch::Receiver<Option<Arc<Known>>>);

/// Tells whose device this is.
#[derive(Debug)]
pub(crate) struct Teller(watch::Sender<Option<Arc<Known>>>);

impl Teller {
    /// Starts with what is known.
    pub(crate) fn new(known: Option<Known>) -> Self {
        Self(watch::Sender::new(known.map(Arc::new)))
    }

    /// Tells it, once.
    pub(crate) fn tell(&self, known: Known) {
        self.0.send_if_modified(|told| {
            let is_news = told.is_none();
            told.get_or_insert_with(|| Arc::new(known));
            is_news
        });
    }

    /// Returns where it is told.
    pub(crate) fn identity(&self) -> Identity {
        Identity(self.0.subscribe())
    }
}

impl Identity {
    /// Returns what is known.
    pub(crate) fn known(&self) -> Option<Arc<Known>> {
        self.0.borrow().clone()
    }

    /// Waits until it is known; for ever where nobody will tell.
    pub(crate) async fn wait(&mut self) -> Arc<Known> {
        loop {
            if let Some(known) = self.0.borrow_and_update().clone() {
                return known;
            }
            if self.0.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn known(name: &str) -> Known {
        Known::of(name.parse().unwrap())
    }

    #[tokio::test]
    async fn s6_whoever_waits_for_the_name_is_woken_and_it_stays_what_was_told_first() {
        let teller = Teller::new(None);
        let (mut waits, later) = (teller.identity(), teller.identity());
        assert!(later.known().is_none());

        let waiting = tokio::time::timeout(Duration::from_secs(20), waits.wait());
        let telling = async {
            // Whoever waits has looked by then.
            tokio::task::yield_now().await;
            teller.tell(known("w701.acme.local"));
            teller.tell(known("w702.acme.local"));
        };
        let (told, ()) = tokio::join!(waiting, telling);

        assert_eq!(told.expect("nobody was woken").device.as_str(), "w701.acme.local");
        assert_eq!(later.known().unwrap().device.as_str(), "w701.acme.local");
    }
}
