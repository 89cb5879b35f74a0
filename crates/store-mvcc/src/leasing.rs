//! What the commands of leases do to an image.
//!
//! Owns the lease clock, which only the log moves: while nobody commits a tick it stands still, so
//! no lease ends because nobody led, and a new leader goes on from where the log stands. No time
//! counts twice, as a tick names the reading that it goes on from. Never reads a clock: how much
//! time went by is in the commands, and is bounded here.

use bytes::Bytes;

use crate::edit::Edit;
use crate::{
    CommandError, GrantOp, GrantResult, Image, KeepAliveOp, KeepAliveResult, Lease, LeaseDelta,
    TickOp, TickResult,
};

/// The most milliseconds by which one command moves or outruns the lease clock. What a leader
/// measures beyond it (it was paused, say) is lost: leases then end late, never early.
pub const LEASE_STEP_MAX_MS: u64 = 1_000;

/// The longest time to live, in seconds, as in etcd. Longer ones are refused.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// The most leases that one tick ends, and the number of keys after which it ends no further one.
/// The rest is left to the next tick, so that no tick holds up the writes behind it for long.
pub const TICK_LEASES_MAX: usize = 1_000;
const TICK_KEYS: usize = 10_000;

impl GrantOp {
    /// Checks the request's form.
    pub fn check(&self) -> Result<(), CommandError> {
        if self.ttl > LEASE_TTL_MAX {
            Err(CommandError::LeaseTtlTooLarge)
        } else {
            Ok(())
        }
    }
}

impl Lease {
    /// The milliseconds that are left when the lease clock stands at `clock_ms`.
    pub fn remaining_ms(&self, clock_ms: u64) -> u64 {
        self.expires_at_ms.saturating_sub(clock_ms)
    }

    fn renewed_at(self, now_ms: u64) -> Self {
        // No lease is shorter than a second, whoever proposed it.
        let millis = u64::try_from(self.ttl).unwrap_or(0).max(1) * 1_000;
        Self {
            expires_at_ms: now_ms.saturating_add(millis),
            ..self
        }
    }
}

impl Image {
    /// The lease `id`.
    pub fn lease(&self, id: i64) -> Option<&Lease> {
        self.leases.get(id)
    }

    /// All leases, the next to end first.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.by_end()
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// The lease that ends next.
    pub fn first_lease_to_end(&self) -> Option<&Lease> {
        self.leases.first_to_end()
    }

    /// The keys that hang on the lease `id`, in order.
    pub fn lease_keys(&self, id: i64) -> impl Iterator<Item = &Bytes> {
        self.leases.keys(id)
    }

    /// What became of the leases since `older`, an earlier state of this same store.
    pub fn leases_since(&self, older: &Self) -> LeaseDelta {
        self.leases.delta_since(&older.leases)
    }

    pub(crate) fn grant(&mut self, op: &GrantOp) -> Result<GrantResult, CommandError> {
        op.check()?;
        if op.id == 0 {
            return Err(CommandError::LeaseNotFound);
        }
        if self.lease(op.id).is_some() {
            return Err(CommandError::LeaseExists);
        }
        let lease = Lease {
            expires_at_ms: 0,
            id: op.id,
            ttl: op.ttl,
        };
        self.leases.set(lease.renewed_at(self.lease_now(op.age_ms)));
        Ok(GrantResult {
            id: op.id,
            ttl: op.ttl,
        })
    }

    pub(crate) fn keep_alive(&mut self, op: &KeepAliveOp) -> KeepAliveResult {
        let now = self.lease_now(op.age_ms);
        let renew = |id: &i64| {
            let Some(&lease) = self.leases.get(*id) else {
                return 0;
            };
            let renewed = lease.renewed_at(now);
            // One with a smaller age may have been applied before.
            if renewed > lease {
                self.leases.set(renewed);
            }
            lease.ttl
        };
        KeepAliveResult {
            ttls: op.ids.iter().map(renew).collect(),
        }
    }

    pub(crate) fn revoke(&mut self, id: i64) -> Result<(), CommandError> {
        if self.lease(id).is_none() {
            return Err(CommandError::LeaseNotFound);
        }
        self.end_lease(id);
        Ok(())
    }

    pub(crate) fn tick(&mut self, op: TickOp) -> TickResult {
        let clock_ms = &mut self.meta.lease_clock_ms;
        let moved = *clock_ms == op.from_ms;
        if moved {
            *clock_ms = clock_ms.saturating_add(op.advance_ms.min(LEASE_STEP_MAX_MS));
        }
        let mut result = TickResult {
            moved,
            clock_ms: *clock_ms,
            ..TickResult::default()
        };
        let mut keys = 0;
        while let Some(id) = self.due_lease() {
            if result.ended == TICK_LEASES_MAX || keys >= TICK_KEYS {
                result.more = true;
                break;
            }
            keys += self.end_lease(id);
            result.ended += 1;
        }
        result
    }

    fn due_lease(&self) -> Option<i64> {
        let first = self.first_lease_to_end()?;
        (first.expires_at_ms <= self.meta.lease_clock_ms).then_some(first.id)
    }

    /// The time of a command whose proposer read the clock so long ago.
    fn lease_now(&self, age_ms: u64) -> u64 {
        let clock = self.meta.lease_clock_ms;
        clock.saturating_add(age_ms.min(LEASE_STEP_MAX_MS))
    }

    /// Deletes the keys of a lease, as one revision, and forgets it. Returns how many they were.
    fn end_lease(&mut self, id: i64) -> usize {
        let keys: Vec<Bytes> = self.lease_keys(id).cloned().collect();
        let mut edit = Edit::begin(self);
        keys.iter().for_each(|key| edit.bury(key.clone()));
        edit.commit();
        self.leases.remove(id);
        keys.len()
    }
}
