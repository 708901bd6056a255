//! What every thread may look at: what is committed and small, replaced as a whole after each commit.

mod catalogue;
mod outdated;
mod verify;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use muster_pki::{DeviceId, UnixTime};
use muster_proto::ids::InstructionId;
use tokio::sync::watch;

use super::clock::{Clock, millis};
use super::core::{Ahead, BlockedDevices, HeldDefinition, Twinned};
use super::damage::Damage;
use super::metrics;
use super::reader::EngineStatus;
use super::standing::Bench;
use super::trust::Trust;
pub(crate) use catalogue::Catalogue;
pub(crate) use verify::{
    learn, verify_approval, verify_definition, verify_licence, verify_order, verify_pack, verify_policy,
    verify_stop,
};

/// What the engine shows of itself.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) damage: Arc<Damage>,
    data_dir: PathBuf,
    disk_reserve_bytes: u64,
    /// Damaged instructions, and why.
    set_aside: Vec<(InstructionId, String)>,
    /// And how often they were exchanged.
    trust: RwLock<(u64, Arc<Trust>)>,
    /// All documents are judged by one thread at a time: who waits for it finds it done.
    judging: Mutex<()>,
    catalogue: RwLock<Arc<Catalogue>>,
    blocked: RwLock<Arc<BlockedDevices>>,
    attributes: RwLock<Arc<BTreeSet<String>>>,
    sessions: DashMap<DeviceId, SocketAddr>,
    active: AtomicU64,
    devices: AtomicU64,
    ahead: RwLock<Option<Ahead>>,
    twinned: RwLock<Option<Twinned>>,
    changes: watch::Sender<u64>,
}

/// What [`Shared`] is made of.
#[derive(Debug)]
pub(crate) struct SharedParts {
    pub(crate) clock: Clock,
    pub(crate) damage: Arc<Damage>,
    pub(crate) data_dir: PathBuf,
    pub(crate) disk_reserve_bytes: u64,
    pub(crate) set_aside: Vec<(InstructionId, String)>,
    pub(crate) trust: Arc<Trust>,
}

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Self {
        Self {
            clock: parts.clock,
            damage: parts.damage,
            data_dir: parts.data_dir,
            disk_reserve_bytes: parts.disk_reserve_bytes,
            set_aside: parts.set_aside,
            trust: RwLock::new((0, parts.trust)),
            judging: Mutex::default(),
            catalogue: RwLock::default(),
            blocked: RwLock::default(),
            attributes: RwLock::default(),
            sessions: DashMap::new(),
            active: AtomicU64::new(0),
            devices: AtomicU64::new(0),
            ahead: RwLock::default(),
            twinned: RwLock::default(),
            changes: watch::Sender::new(0),
        }
    }

    pub(crate) fn trust(&self) -> Arc<Trust> {
        self.numbered_trust().1
    }

    fn numbered_trust(&self) -> (u64, Arc<Trust>) {
        let trust = self.trust.read().unwrap_or_else(PoisonError::into_inner);
        (trust.0, Arc::clone(&trust.1))
    }

    pub(crate) fn set_trust(&self, trust: Arc<Trust>) {
        let mut held = self.trust.write().unwrap_or_else(PoisonError::into_inner);
        *held = (held.0.wrapping_add(1), trust);
    }

    /// Judges anew who signed the licence and the definitions that are held, where that is due: a look at each, and once a minute or after a
    /// change of roots or CRLs some tenths of a millisecond. Not for the writer's thread.
    pub(crate) fn judge_documents(&self) {
        let _turn = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        self.judge(|_| true);
    }

    /// As [`Self::judge_documents`], of the licence and a few definitions, without a wait for all.
    pub(crate) fn judge(&self, is_asked: impl Fn(&HeldDefinition) -> bool) {
        let (number, trust) = self.numbered_trust();
        let bench = Bench { trust: &trust, number, now_ms: self.clock.now_ms() };
        let catalogue = self.catalogue();
        catalogue.licence.iter().for_each(|licence| licence.judge(&bench));
        catalogue.envelopes().filter(|held| is_asked(held)).for_each(|held| held.judge(&bench));
    }

    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_catalogue(&self, catalogue: Arc<Catalogue>) {
        *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = catalogue;
    }

    /// Returns who is blocked.
    pub(crate) fn blocked(&self) -> Arc<BlockedDevices> {
        Arc::clone(&self.blocked.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_blocked(&self, blocked: Arc<BlockedDevices>) {
        metrics::blocked(blocked.len());
        *self.blocked.write().unwrap_or_else(PoisonError::into_inner) = blocked;
    }

    /// Returns the names by which an audience may tell devices apart.
    pub(crate) fn attributes(&self) -> Arc<BTreeSet<String>> {
        Arc::clone(&self.attributes.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_attributes(&self, names: BTreeSet<String>) {
        *self.attributes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    /// Notes that a session began (with its address) or ended.
    pub(crate) fn set_presence(&self, device: DeviceId, address: Option<SocketAddr>) {
        match address {
            Some(address) => self.sessions.insert(device, address),
            None => self.sessions.remove(&device).map(|(_, address)| address),
        };
    }

    /// Returns where the device's session is from; `None` if it has none.
    /// Notes that the session at an address goes on from another; nothing if the device has another one by now.
    pub(crate) fn moved(&self, device: &DeviceId, from: SocketAddr, to: SocketAddr) {
        if let Some(mut held) = self.sessions.get_mut(device)
            && *held == from
        {
            *held = to;
        }
    }

    pub(crate) fn address(&self, device: &DeviceId) -> Option<SocketAddr> {
        self.sessions.get(device).map(|held| *held.value())
    }

    pub(crate) fn online_count(&self) -> u64 {
        u64::try_from(self.sessions.len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn set_sizes(&self, active: usize, devices: usize) {
        self.active.store(u64::try_from(active).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.devices.store(u64::try_from(devices).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Notes which devices remember more than the store.
    pub(crate) fn set_ahead(&self, ahead: Ahead) {
        *self.ahead.write().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
    }

    /// Notes which devices several machines are at once.
    pub(crate) fn set_twinned(&self, twinned: Twinned) {
        *self.twinned.write().unwrap_or_else(PoisonError::into_inner) = Some(twinned);
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells who waits that something was committed.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|commits| *commits += 1);
    }

    /// Returns why an instruction was set aside; `None` if it wasn't.
    pub(crate) fn why_set_aside(&self, id: InstructionId) -> Option<&str> {
        self.set_aside.iter().find(|(damaged, _)| *damaged == id).map(|(_, why)| why.as_str())
    }

    /// Returns the free bytes where the store lies; 0 if nobody can tell.
    pub(crate) fn disk_free_bytes(&self) -> u64 {
        let Ok(disk) = nix::sys::statvfs::statvfs(&self.data_dir) else { return 0 };
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        metrics::disk_free(free);
        free
    }

    pub(crate) fn status(&self) -> EngineStatus {
        self.judge_documents();
        let catalogue = self.catalogue();
        let mut warnings = self.damage.warnings();
        for (id, why) in &self.set_aside {
            warnings.push(format!(
                "instruction {id} was set aside: {why}; its results are kept, issue it again for those who are missing"
            ));
        }
        let licence_lost = catalogue.licence_lost();
        if catalogue.licence.is_none() && licence_lost.is_none() {
            warnings.push("there is no licence, so nothing can be issued; import one".to_owned());
        }
        warnings.extend(catalogue.lacks_policy().then(|| policy_lost(catalogue.policy_lost())));
        let licence = catalogue.licence.as_ref();
        if licence.is_some_and(|licence| licence.document.is_refresh_due(self.clock.unix_time())) {
            warnings.push("the licence should have had a successor by now (refresh_by); it goes on working: import the newer one, or look at licence_url".to_owned());
        }
        let licence_problem = licence.and_then(|licence| licence.refusal(self.clock.now_ms()));
        let licence_problem =
            licence_problem.map(|reason| reason.to_string()).or(licence_lost).unwrap_or_default();
        if !licence_problem.is_empty() {
            warnings.push(format!("nothing can be issued under the licence: {licence_problem}"));
        }
        warnings.extend(catalogue.outdated());
        warnings.extend(catalogue.fallen());
        let older_copy = self.ahead.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(Ahead::says);
        warnings.extend(older_copy.clone());
        let twinned = self.twinned.read().unwrap_or_else(PoisonError::into_inner);
        warnings.extend(twinned.as_ref().and_then(|twinned| twinned.says(self.clock.now_ms())));
        let moment = |at: UnixTime| millis(Duration::from_secs(at.as_secs()));
        let terms = licence.map(|held| held.document.terms());
        EngineStatus {
            devices: self.devices.load(Ordering::Relaxed),
            online: self.online_count(),
            active_instructions: self.active.load(Ordering::Relaxed),
            licence_serial: licence.map_or(0, |held| held.document.serial()),
            licence_expires_at_ms: licence.map_or(0, |held| held.ends_ms()),
            licence_refresh_by_ms: terms.and_then(|terms| terms.refresh_by).map_or(0, moment),
            licence_problem,
            disk_free_bytes: self.disk_free_bytes(),
            disk_reserve_bytes: self.disk_reserve_bytes,
            data_dir: self.data_dir.clone(),
            older_copy,
            warnings,
        }
    }
}

/// Says that policies are kept back, since a damaged one may have taken their place.
fn policy_lost(serial: u64) -> String {
    format!(
        "policy {serial} is damaged on the Switch's disk, and may have been for all devices: none before it is given to any; sign what it said, \
         and what is needed of those before it, with a higher serial, and import that"
    )
}
