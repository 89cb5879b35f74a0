//! Registered endpoints, from the newest image to the proxy: what changed, within milliseconds, and
//! nothing else.
//!
//! Owns the newest state of all registrations on this node, and its copy on disk, which serves from the
//! start until the store is as far. Never writes to the store, and never ends a registration: leases
//! do that.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{ENDPOINT_PREFIX, MeshId};
use proxy_config::compiled::{Endpoint, Origin, ResourceName};
use proxy_config::{Change, Fault, Registry};
use serde::{Deserialize, Serialize};
use store_mvcc::{Image, KeyRange};
use store_raft::Store;
use tokio::sync::watch;

use crate::last_known_good::{self, LoadError};
use crate::parts::Parts;

/// The file's name in the data directory.
const FILE: &str = "last-known-endpoints.json";
/// The first words of the file; the number is the format.
const HEADER: &str = "skein last-known-endpoints 1 ";
/// The copy on disk is at most so much older than what is served.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// How long a node that knows no endpoints yet waits for the newest before older ones have to do.
const CATCH_UP: Duration = Duration::from_secs(10);

/// What is found for each service that changed.
type Found = Vec<(Origin, Arc<[Endpoint]>)>;

/// What an image made of those before it.
#[derive(Debug, Default)]
struct Moved {
    found: Found,
    /// What cannot be read is other than before.
    faults: bool,
}

/// All registrations as this node knows them.
#[derive(Debug)]
pub(crate) struct Registrations {
    known: Mutex<Known>,
    /// Counts the changes.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    registry: Registry,
    mesh_id: Option<MeshId>,
    /// That of the image; 0: they are of none yet.
    revision: i64,
    /// What they come from is not the store as it is now: the disk, or a damaged state.
    doubtful: bool,
}

/// What the disk keeps.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Saved {
    mesh_id: Option<MeshId>,
    /// The store's.
    revision: i64,
    /// Each registration's key, value and modification revision.
    rows: Vec<(String, String, i64)>,
}

impl Registrations {
    /// What the disk holds from the last run; nothing on a new node.
    pub(crate) fn from_disk(data_dir: &Path) -> Result<Self, LoadError> {
        let saved: Saved = last_known_good::load(data_dir.join(FILE), HEADER)?.unwrap_or_default();
        let mut registry = Registry::default();
        for (key, value, mod_revision) in &saved.rows {
            registry.apply(Change {
                key: key.as_bytes(),
                value: Some(value.as_bytes()),
                mod_revision: *mod_revision,
            });
        }
        Ok(Self::of(Known {
            registry,
            mesh_id: saved.mesh_id,
            revision: saved.revision,
            doubtful: true,
        }))
    }

    /// None, for a node whose disk holds none that can be used.
    pub(crate) fn nothing() -> Self {
        Self::of(Known {
            doubtful: true,
            ..Known::default()
        })
    }

    fn of(known: Known) -> Self {
        Self {
            known: Mutex::new(known),
            changed: watch::Sender::new(0),
        }
    }

    /// Whoever panicked with it left a state that the next image makes whole: it is replaced, or each
    /// row of it.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoints of all services.
    pub(crate) fn found(&self) -> Found {
        let known = self.known();
        let services = known.registry.services();
        services.map(|name| known.found(name.clone())).collect()
    }

    /// Moves on to `image`, at the cost of what changed since the one before. What that makes of each
    /// service with a change.
    fn follow(&self, image: &Image, mesh_id: Option<MeshId>) -> Moved {
        let mut known = self.known();
        let (touched, faults) = known.follow(image);
        known.mesh_id = mesh_id;
        let found: Found = touched.into_iter().map(|name| known.found(name)).collect();
        drop(known);
        if !found.is_empty() {
            self.changed.send_modify(|count| *count += 1);
        }
        Moved { found, faults }
    }

    fn registry(&self) -> Registry {
        self.known().registry.clone()
    }

    /// Those of a service that are not used, and why.
    pub(crate) fn unused(&self, service: &ResourceName) -> Vec<String> {
        self.registry().unused(service)
    }

    /// How many can be read, and how many cannot.
    pub(crate) fn count(&self) -> (usize, usize) {
        let registry = self.registry();
        (registry.len(), registry.refused())
    }

    /// The first of what cannot be read.
    pub(crate) fn faults(&self, most: usize) -> Vec<Fault> {
        self.registry().faults().take(most).cloned().collect()
    }

    fn saved(&self) -> Saved {
        let (registry, mesh_id, revision) = {
            let known = self.known();
            (known.registry.clone(), known.mesh_id, known.revision)
        };
        Saved {
            mesh_id,
            revision,
            rows: registry.rows().collect(),
        }
    }
}

impl Known {
    fn found(&self, service: ResourceName) -> (Origin, Arc<[Endpoint]>) {
        let endpoints = self.registry.endpoints(&service);
        (Origin::Service(service), endpoints)
    }

    /// The services whose registrations changed, and whether what cannot be read did.
    fn follow(&mut self, image: &Image) -> (BTreeSet<ResourceName>, bool) {
        let mut faults = false;
        let behind = !self.doubtful && self.revision > 0 && self.revision <= image.revision();
        let changes = image.changes_since(self.revision + 1);
        let touched = match changes {
            Ok(changes) if behind => {
                let mut touched = BTreeSet::new();
                for row in changes.flat_map(|changes| changes.rows.iter().map(|one| &one.row)) {
                    if row.key.starts_with(ENDPOINT_PREFIX.as_bytes()) {
                        let value = (!row.is_tombstone()).then_some(&row.value[..]);
                        let was_faulty = self.registry.fault(&row.key).is_some();
                        touched.extend(self.apply(&row.key, value, row.mod_revision));
                        faults |= was_faulty || self.registry.fault(&row.key).is_some();
                    }
                }
                touched
            }
            _ => {
                faults = true;
                self.read_all(image)
            }
        };
        self.doubtful = false;
        self.revision = image.revision();
        (touched, faults)
    }

    fn read_all(&mut self, image: &Image) -> BTreeSet<ResourceName> {
        let before = std::mem::take(&mut self.registry);
        for row in image.live(&KeyRange::prefix(ENDPOINT_PREFIX)) {
            self.apply(&row.key, Some(&row.value), row.mod_revision);
        }
        let services = before.services().chain(self.registry.services());
        services.cloned().collect()
    }

    fn apply(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        mod_revision: i64,
    ) -> Option<ResourceName> {
        let touched = self.registry.apply(Change {
            key,
            value,
            mod_revision,
        });
        if let Some(fault) = self.registry.fault(key) {
            tracing::warn!(%fault, "a registered endpoint is not used");
        }
        touched
    }
}

/// Follows the store's images for as long as this node runs.
pub(crate) async fn follow(parts: Arc<Parts>) {
    let store = parts.opened().await;
    as_far_as_disk(&parts, &store).await;
    let mut images = store.images();
    let mut soundness = store.soundness();
    let mut heals = soundness.borrow().heals;
    loop {
        let image = images.borrow_and_update().clone();
        if parts.stopping.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        // What is in force stands, as without a store.
        if soundness.borrow().damage.is_some() {
            let healed = soundness.wait_for(|known| known.damage.is_none());
            if healed.await.is_err() {
                return std::future::pending().await;
            }
            continue;
        }
        // What came from the damaged state is looked at again.
        if std::mem::replace(&mut heals, soundness.borrow().heals) != heals {
            parts.registrations.known().doubtful = true;
        }
        let moved = parts.registrations.follow(&image, parts.data.mesh());
        if !moved.found.is_empty() {
            parts.proxy.set_found(moved.found);
        }
        if moved.faults {
            parts.publish();
        }
        if images.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Waits until the store is as far as what the disk held: a log that is still being replayed tells of
/// endpoints of the past.
async fn as_far_as_disk(parts: &Parts, store: &Store) {
    let (mesh_id, revision) = {
        let known = parts.registrations.known();
        (known.mesh_id, known.revision)
    };
    let mut images = store.images();
    let is_known = revision > 0 && mesh_id == parts.data.mesh();
    let reached = images.wait_for(|image| is_known && image.revision() >= revision);
    tokio::select! {
        _ = reached => {}
        () = store.caught_up() => {}
        () = tokio::time::sleep(CATCH_UP), if !is_known => {
            tracing::warn!("this node is far behind; it serves the endpoints that it has so far");
        }
    }
}

/// Keeps the copy on disk up to date, for as long as this node runs.
pub(crate) async fn save(parts: Arc<Parts>) {
    let mut changed = parts.registrations.changed.subscribe();
    loop {
        if changed.changed().await.is_err() {
            return std::future::pending().await;
        }
        let saving = Arc::clone(&parts);
        let saved = tokio::task::spawn_blocking(move || {
            let path = saving.options.data_dir.join(FILE);
            last_known_good::save(&path, HEADER, &saving.registrations.saved())
        });
        match saved.await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                tracing::error!(%fault, "cannot save the registered endpoints; a restart would begin with older ones");
                changed.mark_changed();
            }
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
        tokio::time::sleep(SAVE_EVERY).await;
    }
}

#[cfg(test)]
mod tests;
