//! Tables that lead from the hash of a key to an endpoint: ketama's ring, and Maglev's.
//!
//! Owns how a table is filled, so that few keys move when endpoints come or go. A table depends on
//! the addresses and weights alone: every worker and every node makes the same one. Made when the
//! set of eligible endpoints changes, never per request.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::hash::hash;

/// The slots of a Maglev table: a prime (Envoy's default).
const MAGLEV_SLOTS: usize = 65_537;
/// So that the lightest endpoint has a whole number of points, a ring grows beyond its smallest size
/// up to this.
const RING_GROWS_TO: u64 = 65_536;

/// An endpoint of a cluster, as tables see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its place among the cluster's endpoints.
    pub(crate) index: u32,
    pub(crate) address: SocketAddr,
    /// At least 1.
    pub(crate) weight: u32,
    /// Whether it may be chosen. The others count, too: they keep their place, so that only their
    /// own keys move while they are away.
    pub(crate) eligible: bool,
}

/// A filled table. Its answers are places among the cluster's endpoints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// The points in ascending order, and whose they are.
    Ring {
        points: Box<[u64]>,
        owners: Box<[u32]>,
    },
    /// The owner of each slot.
    Maglev { owners: Box<[u32]> },
}

impl Table {
    /// Consistent hashing as in libketama (Jones, 2007): an endpoint owns points in proportion to
    /// its weight, and a key belongs to the owner of the next point. Names of points and least
    /// number of them are those of Envoy's `RingHashLoadBalancer`. Unlike there, the points of an
    /// endpoint do not depend on who else is eligible, and the number for the lightest one is a
    /// power of two: so no keys move between those that stay, but where an endpoint more or less
    /// doubles or halves that number.
    pub(crate) fn ring(entries: &[Entry], smallest: u32) -> Self {
        let total: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
        let lightest = entries.iter().map(|entry| u64::from(entry.weight)).min();
        let lightest = lightest.unwrap_or(1);
        let smallest = u64::from(smallest);
        let largest = (2 * smallest).max(RING_GROWS_TO);
        let base = (smallest * lightest)
            .div_ceil(total.max(1))
            .max(1)
            .next_power_of_two();
        let fits = u128::from(base) * u128::from(total) <= u128::from(largest * lightest);
        let count = |entry: &Entry| {
            let weight = u128::from(entry.weight);
            let points = if fits {
                (weight * u128::from(base) + u128::from(lightest) / 2) / u128::from(lightest)
            } else {
                weight * u128::from(largest) / u128::from(total)
            };
            points.max(1)
        };
        let mut ring: Vec<(u64, u32)> = Vec::new();
        let mut name = String::new();
        for entry in entries.iter().filter(|entry| entry.eligible) {
            for point in 0..count(entry) {
                name.clear();
                // Writing to a string cannot fail.
                let _ = write!(name, "{}_{point}", entry.address);
                ring.push((hash(name.as_bytes(), 0), entry.index));
            }
        }
        ring.sort_unstable();
        Self::Ring {
            points: ring.iter().map(|(point, _)| *point).collect(),
            owners: ring.iter().map(|(_, owner)| *owner).collect(),
        }
    }

    /// Maglev hashing ("Maglev: A Fast and Reliable Software Network Load Balancer", Eisenbud and
    /// others, 2016, 3.4), weighted as by Envoy. Who is not eligible gets slots as well, which are
    /// then given to the others: so only its own keys move while it is away.
    pub(crate) fn maglev(entries: &[Entry]) -> Self {
        // In the order of the addresses, so that the order of the config does not matter.
        let mut sorted = entries.to_vec();
        sorted.sort_unstable_by_key(|entry| entry.address);
        let mut slots: Vec<Option<u32>> = vec![None; MAGLEV_SLOTS];
        claim(&mut slots, &sorted);
        if sorted.iter().any(|entry| !entry.eligible) {
            let away = sorted.iter().filter(|entry| !entry.eligible);
            let away: HashSet<u32> = away.map(|entry| entry.index).collect();
            for slot in &mut slots {
                *slot = slot.filter(|owner| !away.contains(owner));
            }
            sorted.retain(|entry| entry.eligible);
            claim(&mut slots, &sorted);
        }
        Self::Maglev {
            owners: slots.into_iter().flatten().collect(),
        }
    }

    /// The endpoint that a key of this hash belongs to: a binary search on a ring, an index in
    /// Maglev. If `passes` refuses it, the owner of the next point or slot that it takes, so that
    /// the keys of one spread over the others; `None` if it takes nobody.
    pub(crate) fn find(&self, key: u64, passes: impl Fn(u32) -> bool) -> Option<u32> {
        let (owners, first) = match self {
            Self::Ring { points, owners } => {
                let next = points.partition_point(|point| *point < key);
                (owners, if next == points.len() { 0 } else { next })
            }
            Self::Maglev { owners } => (owners, slot(key)),
        };
        let (before, behind) = owners.split_at_checked(first)?;
        let mut walk = behind.iter().chain(before).copied();
        walk.find(|owner| passes(*owner))
    }
}

/// The endpoints take turns in claiming the next free slot of their own permutation; a lighter one
/// sits out turns. It ends when no slot is free, or at once if there is nobody.
fn claim(slots: &mut [Option<u32>], entries: &[Entry]) {
    struct Claim {
        next: usize,
        skip: usize,
        /// It sits out until the round times its weight reaches this.
        due: u64,
    }
    let heaviest = entries.iter().map(|entry| u64::from(entry.weight)).max();
    let Some(heaviest) = heaviest else { return };
    let begin = |entry: &Entry| {
        let name = entry.address.to_string();
        Claim {
            next: slot(hash(name.as_bytes(), 0)),
            skip: 1 + (hash(name.as_bytes(), 1) % (MAGLEV_SLOTS as u64 - 1)) as usize,
            due: 0,
        }
    };
    let mut claims: Vec<Claim> = entries.iter().map(begin).collect();
    let mut free = slots.iter().filter(|slot| slot.is_none()).count();
    let mut round = 0;
    while free > 0 {
        round += 1;
        for (entry, claim) in entries.iter().zip(&mut claims) {
            if free == 0 || round * u64::from(entry.weight) < claim.due {
                continue;
            }
            claim.due += heaviest;
            while slots[claim.next].is_some() {
                claim.next = (claim.next + claim.skip) % MAGLEV_SLOTS;
            }
            slots[claim.next] = Some(entry.index);
            free -= 1;
        }
    }
}

fn slot(key: u64) -> usize {
    (key % MAGLEV_SLOTS as u64) as usize
}
