//! The config resources of the store at one moment: a persistent set, cheap to clone and to
//! compare.
//!
//! Owns the step from keys and values to resources, one change at a time. Never links: a set may be
//! inconsistent, and a value in it may be unreadable.

use std::borrow::Borrow;
use std::sync::Arc;

use imbl::OrdMap;

use crate::fault::Fault;
use crate::link::changed;
use crate::parse::parse_value;
use crate::resource::{Resource, ResourceId};

/// One change of a key.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The new value; `None`: the key is deleted.
    pub value: Option<&'a [u8]>,
    /// The revision of the store that made it; 0 where there is none yet.
    pub mod_revision: i64,
}

/// A set of resources. Cloning shares everything.
#[derive(Debug, Clone, Default)]
pub struct ConfigSet {
    entries: OrdMap<ResourceId, Entry>,
    /// Keys that are none of a resource, with the fault.
    strays: OrdMap<Arc<str>, Arc<[Fault]>>,
}

/// What one key holds.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) content: Result<Arc<Resource>, Arc<[Fault]>>,
    mod_revision: i64,
}

impl PartialEq for Entry {
    /// Whether it says the same; that costs nothing where it is the very same.
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl ConfigSet {
    /// The set of these keys, values and modification revisions.
    pub fn from_pairs<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        pairs: impl IntoIterator<Item = (K, V, i64)>,
    ) -> Self {
        Self::default().replaced(pairs)
    }

    /// The set of these keys, values and modification revisions, which shares with this one what
    /// they have in common.
    #[must_use]
    pub fn replaced<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V, i64)>,
    ) -> Self {
        let mut set = Self::default();
        for (key, value, mod_revision) in pairs {
            let change = Change {
                key: key.as_ref(),
                value: Some(value.as_ref()),
                mod_revision,
            };
            set.change(change, self);
        }
        set
    }

    /// Makes these changes in their order.
    pub fn apply<'a>(&mut self, changes: impl IntoIterator<Item = Change<'a>>) {
        self.apply_knowing(changes, &Self::default());
    }

    /// As [`apply`](Self::apply), and shares with `known` what both have then.
    pub fn apply_knowing<'a>(
        &mut self,
        changes: impl IntoIterator<Item = Change<'a>>,
        known: &Self,
    ) {
        let changes = changes.into_iter();
        changes.for_each(|change| self.change(change, known));
    }

    fn change(&mut self, change: Change<'_>, known: &Self) {
        let key = String::from_utf8_lossy(change.key);
        let id = ResourceId::from_key(&key);
        let Some(value) = change.value else {
            match id {
                Some(id) => drop(self.entries.remove(&id)),
                None => drop(self.strays.remove::<str>(key.borrow())),
            }
            return;
        };
        let content = parse_value(&key, value);
        match (id, content) {
            (Some(id), content) => {
                let content = content.map(Arc::new).map_err(Into::into);
                // The same value again changes nothing, and so costs nothing later.
                let content = content.map(|new| {
                    let known = [self.resource(&id), known.resource(&id)];
                    let same = known.into_iter().flatten().find(|known| ***known == *new);
                    same.cloned().unwrap_or(new)
                });
                let mod_revision = change.mod_revision;
                self.entries.insert(
                    id,
                    Entry {
                        content,
                        mod_revision,
                    },
                );
            }
            (None, content) => {
                let faults = content.err().unwrap_or_default();
                self.strays.insert(key.as_ref().into(), faults.into());
            }
        }
    }

    /// Takes what `from` holds of a resource over, as it is.
    pub(crate) fn adopt(&mut self, id: &ResourceId, from: &Self) {
        match from.entries.get(id) {
            Some(entry) => drop(self.entries.insert(id.clone(), entry.clone())),
            None => drop(self.entries.remove(id)),
        }
    }

    /// Puts a resource in, as a write of it to the store will.
    pub fn insert(&mut self, resource: Resource) {
        let resource = Arc::new(resource);
        let id = resource.id();
        let content = Ok(self
            .resource(&id)
            .filter(|known| ***known == *resource)
            .cloned()
            .unwrap_or(resource));
        self.entries.insert(
            id,
            Entry {
                content,
                mod_revision: 0,
            },
        );
    }

    /// Takes a resource out. Whether there was one.
    pub fn remove(&mut self, id: &ResourceId) -> bool {
        self.entries.remove(id).is_some()
    }

    /// The resource; `None` where there is none or its value is unreadable.
    pub fn resource(&self, id: &ResourceId) -> Option<&Arc<Resource>> {
        self.entries.get(id)?.content.as_ref().ok()
    }

    /// The revision of the store that last wrote it.
    pub fn mod_revision(&self, id: &ResourceId) -> Option<i64> {
        self.entries.get(id).map(|entry| entry.mod_revision)
    }

    /// The readable resources, ordered by kind, namespace and name.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.entries
            .values()
            .filter_map(|entry| entry.content.as_ref().ok())
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.entries.len() + self.strays.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn entry(&self, id: &ResourceId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The faults of keys that are none of a resource.
    pub(crate) fn stray_faults(&self) -> impl Iterator<Item = &Fault> {
        self.strays.values().flat_map(|faults| faults.iter())
    }

    /// What differs from `older`. The cost follows the difference where one set came from the
    /// other.
    pub(crate) fn changed_since<'a>(
        &'a self,
        older: &'a Self,
    ) -> impl Iterator<Item = ResourceId> + 'a {
        changed(&older.entries, &self.entries)
    }

    /// Whether it says the same as `other`.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.changed_since(other).next().is_none()
            && changed(&other.strays, &self.strays).next().is_none()
    }
}

impl FromIterator<Resource> for ConfigSet {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut set = Self::default();
        resources
            .into_iter()
            .for_each(|resource| set.insert(resource));
        set
    }
}
