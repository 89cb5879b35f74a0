//! The leases of an image: when each ends, and which keys hang on it.
//!
//! Owns the three orders in which leases are looked for: by id, by end, by attached key. All are
//! persistent trees, like the rest of the image; a keep-alive changes one entry in two of them.
//! Never moves the clock and never deletes a row.

use std::mem::size_of;

use bytes::Bytes;
use imbl::ordset::DiffItem;
use imbl::{OrdMap, OrdSet};

/// What a lease costs in memory: its entry by id and by end, and the trees' slack.
const LEASE_BYTES: u64 = (2 * size_of::<Lease>() + size_of::<i64>() + 64) as u64;

/// What an attachment costs in memory: its entry (the key's bytes are the row's), and slack.
const ATTACHMENT_BYTES: u64 = (size_of::<(i64, Bytes)>() + 32) as u64;

/// A promise to keep keys until the lease clock has reached an end that its owner moves on.
///
/// Leases order by their end, then by their id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// The reading of the lease clock from which on the lease is over.
    pub expires_at_ms: u64,
    /// Its name; never 0.
    pub id: i64,
    /// The seconds that were granted: what each keep-alive gives it again.
    pub ttl: i64,
}

/// What became of an image's leases since an older image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseDelta {
    /// The leases that the older image has not, or has with another end.
    pub renewed: Vec<Lease>,
    /// The ids that only the older image has.
    pub ended: Vec<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leases {
    by_id: OrdMap<i64, Lease>,
    by_end: OrdSet<Lease>,
    /// Lease and key of every current row that has a lease.
    attached: OrdSet<(i64, Bytes)>,
}

impl Leases {
    pub(crate) fn get(&self, id: i64) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All of them, the next to end first.
    pub(crate) fn by_end(&self) -> impl Iterator<Item = &Lease> {
        self.by_end.iter()
    }

    pub(crate) fn first_to_end(&self) -> Option<&Lease> {
        self.by_end.get_min()
    }

    /// Sets a lease, in place of one of the same id.
    pub(crate) fn set(&mut self, lease: Lease) {
        if let Some(old) = self.by_id.insert(lease.id, lease) {
            self.by_end.remove(&old);
        }
        self.by_end.insert(lease);
    }

    /// Forgets a lease. Its keys must be detached before or after.
    pub(crate) fn remove(&mut self, id: i64) {
        if let Some(lease) = self.by_id.remove(&id) {
            self.by_end.remove(&lease);
        }
    }

    pub(crate) fn attach(&mut self, id: i64, key: &Bytes) {
        self.attached.insert((id, key.clone()));
    }

    pub(crate) fn detach(&mut self, id: i64, key: &Bytes) {
        self.attached.remove(&(id, key.clone()));
    }

    /// The keys that hang on a lease, in order.
    pub(crate) fn keys(&self, id: i64) -> impl Iterator<Item = &Bytes> {
        self.attached
            .range((id, Bytes::new())..)
            .take_while(move |(lease, _)| *lease == id)
            .map(|(_, key)| key)
    }

    /// A lease that keys hang on, and that does not exist.
    pub(crate) fn missing(&self) -> Option<i64> {
        let mut attached = self.attached.iter().map(|(id, _)| *id);
        attached.find(|id| !self.by_id.contains_key(id))
    }

    /// The bytes of memory that leases are counted with, the same on every node.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.by_id.len() as u64 * LEASE_BYTES + self.attached.len() as u64 * ATTACHMENT_BYTES
    }

    /// What changed since `older`. The cost follows the changes: what both share is skipped.
    pub(crate) fn delta_since(&self, older: &Self) -> LeaseDelta {
        let mut delta = LeaseDelta::default();
        for change in older.by_end.diff(&self.by_end) {
            match change {
                DiffItem::Add(lease) => delta.renewed.push(*lease),
                DiffItem::Remove(lease) if self.get(lease.id).is_none() => {
                    delta.ended.push(lease.id);
                }
                DiffItem::Remove(_) => {}
            }
        }
        delta
    }
}
