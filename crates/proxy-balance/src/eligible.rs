//! The endpoints that may be chosen now, in levels.
//!
//! Owns the panic rule, and what share of the requests each level gets. Made anew when config or
//! health changes, never per request.

use std::sync::Arc;

use proxy_config::compiled::{Balance, Cluster, Endpoint};
use rand::{Rng, RngExt};

use crate::fitness::Fitness;
use crate::hash::hash;
use crate::hosts::Hosts;
use crate::levels::{Census, shares};
use crate::table::{Entry, Table};

/// The endpoints of one cluster that may be chosen, as of one config and one health view. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Eligible {
    /// In the order of preference; at least one.
    levels: Arc<[Level]>,
}

/// Endpoints of one priority and nearness.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) hosts: Hosts,
    /// For balancers that hash.
    pub(crate) table: Option<Table>,
    /// Of 100 requests, those up to this one belong to this level or one before.
    upto: u32,
    panic: bool,
}

impl Eligible {
    /// The endpoints of `cluster` that are fit. If these are fewer than the cluster's panic
    /// threshold allows, all of them: what is known is then more likely to be wrong than
    /// nearly everything to be broken, and the few that are left would only be overrun. Where there
    /// are several levels, that holds for each level, and only while all levels together have too
    /// little health for the traffic (Envoy's rule).
    ///
    /// A priority is a level; where the cluster prefers `zone`, it is two: that zone's endpoints,
    /// then the others.
    pub fn new(cluster: &Cluster, fitness: &Fitness, zone: Option<&str>) -> Self {
        let all: Vec<usize> = (0..cluster.endpoints.len()).collect();
        Self::among(cluster, &all, fitness, zone)
    }

    /// As [`Eligible::new`], of the endpoints at these places alone.
    pub(crate) fn among(
        cluster: &Cluster,
        places: &[usize],
        fitness: &Fitness,
        zone: Option<&str>,
    ) -> Self {
        let rank = |endpoint: &Endpoint| {
            let far = cluster.prefer_zone && zone.is_some() && endpoint.zone.as_deref() != zone;
            (endpoint.priority, far)
        };
        let endpoints = places.iter().map(|place| &cluster.endpoints[*place]);
        let mut ranks: Vec<_> = endpoints.map(rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let members = |of: &(u32, bool)| {
            let members = places.iter().copied();
            let members = members.filter(|place| rank(&cluster.endpoints[*place]) == *of);
            members.collect::<Vec<usize>>()
        };
        let levels: Vec<Vec<usize>> = ranks.iter().map(members).collect();
        let census = levels.iter().map(|members| Census {
            all: members.len(),
            healthy: members.iter().filter(|i| fitness.is_fit(**i)).count(),
        });
        let census: Vec<Census> = census.collect();
        let mut upto = 0;
        let shared = shares(
            &census,
            cluster.overprovisioning_factor,
            cluster.panic_threshold,
        );
        let levels = levels.iter().zip(shared).map(|(members, share)| {
            upto += share.percent;
            let chosen = |index: usize| share.panic || fitness.is_fit(index);
            Level::new(cluster, members, chosen, (upto, share.panic))
        });
        Self {
            levels: levels.collect(),
        }
    }

    /// How many may be chosen.
    pub fn len(&self) -> usize {
        self.levels
            .iter()
            .map(|level| level.hosts.list().len())
            .sum()
    }

    /// Whether none may be chosen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether so few are healthy that all of a level are used.
    pub fn is_panic(&self) -> bool {
        self.levels.iter().any(|level| level.panic)
    }

    /// Their places among the cluster's endpoints, ascending in each level.
    pub fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        let hosts = self
            .levels
            .iter()
            .flat_map(|level| level.hosts.list().iter());
        hosts.map(|host| host.index)
    }

    /// The level that gets a request, and its number: by the hash of its key if it has one, so that
    /// a key stays where it is. One with endpoints not to `avoid`, if there is any.
    pub(crate) fn level(
        &self,
        key: Option<u64>,
        avoid: &[usize],
        rng: &mut (impl Rng + ?Sized),
    ) -> Option<(usize, &Level)> {
        let chosen = match (&*self.levels, key) {
            ([_], _) => 0,
            // Not the key itself, or each level would have a stretch of the ring.
            (_, Some(key)) => self.at(hash(&key.to_le_bytes(), 0) % 100),
            (_, None) => self.at(rng.random_range(0..100)),
        };
        let level = self.levels.get(chosen)?;
        if level.hosts.has_other_than(avoid) {
            return Some((chosen, level));
        }
        let mut all = self.levels.iter().enumerate();
        let other = all.find(|(_, level)| level.hosts.has_other_than(avoid));
        Some(other.unwrap_or((chosen, level)))
    }

    fn at(&self, percent: u64) -> usize {
        self.levels
            .partition_point(|level| u64::from(level.upto) <= percent)
    }
}

impl Level {
    fn new(
        cluster: &Cluster,
        members: &[usize],
        chosen: impl Fn(usize) -> bool,
        (upto, panic): (u32, bool),
    ) -> Self {
        let weight = |index: usize| cluster.endpoints[index].weight.max(1);
        let hosts = members.iter().filter(|index| chosen(**index));
        let hosts = Hosts::of(hosts.map(|index| (*index, weight(*index))));
        let entries = || -> Vec<Entry> {
            let numbered = members.iter().filter_map(|index| {
                Some(Entry {
                    index: u32::try_from(*index).ok()?,
                    address: cluster.endpoints[*index].address,
                    weight: weight(*index),
                    eligible: chosen(*index),
                })
            });
            numbered.collect()
        };
        let table = match cluster.balance {
            Balance::RingHash => Some(Table::ring(&entries(), cluster.minimum_ring_size)),
            Balance::Maglev | Balance::IpHash => Some(Table::maglev(&entries())),
            Balance::RoundRobin | Balance::Random | Balance::LeastRequest | Balance::PeakEwma => {
                None
            }
        };
        Self {
            hosts,
            table,
            upto,
            panic,
        }
    }
}
