//! The endpoints that may be chosen now.
//!
//! Owns the panic rule and the tables that make a weighted draw quick. Made anew when config or
//! health changes, never per request.

use std::sync::Arc;

use mesh_health::{Health, HealthView};
use proxy_config::compiled::{Cluster, Endpoint};
use rand::{Rng, RngExt};

/// The endpoints of one cluster that may be chosen, as of one config and one health view. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Eligible {
    hosts: Arc<[Host]>,
    /// The sum of the weights.
    total: u64,
    /// All weights are the same.
    uniform: bool,
    panic: bool,
}

/// One endpoint that may be chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    /// Its place among the cluster's endpoints.
    pub(crate) index: usize,
    /// Its weight; at least 1.
    pub(crate) weight: u32,
    /// The sum of the weights up to and with this one.
    upto: u64,
}

impl Eligible {
    /// The endpoints of `cluster` that are not unhealthy. If these are fewer than the cluster's
    /// panic threshold allows, all of them: the health view is then more likely to be wrong than
    /// nearly everything to be broken, and the few that are left would only be overrun.
    pub fn new(cluster: &Cluster, view: &HealthView) -> Self {
        let known = view.clusters.get(&cluster.key);
        let fit = |endpoint: &Endpoint| {
            let health = known.and_then(|endpoints| endpoints.get(&endpoint.address));
            health.copied().unwrap_or_default() != Health::Unhealthy
        };
        let endpoints = &cluster.endpoints;
        let healthy = endpoints.iter().filter(|endpoint| fit(endpoint)).count();
        let panic = healthy * 100 < endpoints.len() * usize::from(cluster.panic_threshold);
        let chosen = endpoints
            .iter()
            .enumerate()
            .filter(|(_, endpoint)| panic || fit(endpoint));
        let weighted = chosen.map(|(index, endpoint)| (index, endpoint.weight));
        Self {
            panic,
            ..Self::of(weighted)
        }
    }

    fn of(weighted: impl Iterator<Item = (usize, u32)>) -> Self {
        let mut total = 0;
        let hosts: Arc<[Host]> = weighted
            .map(|(index, weight)| {
                let weight = weight.max(1);
                total += u64::from(weight);
                Host {
                    index,
                    weight,
                    upto: total,
                }
            })
            .collect();
        let uniform = hosts
            .windows(2)
            .all(|pair| pair[0].weight == pair[1].weight);
        Self {
            hosts,
            total,
            uniform,
            panic: false,
        }
    }

    /// How many may be chosen.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether none may be chosen.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Whether so few are healthy that all are used.
    pub fn is_panic(&self) -> bool {
        self.panic
    }

    /// Their places among the cluster's endpoints, ascending.
    pub fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.hosts.iter().map(|host| host.index)
    }

    pub(crate) fn hosts(&self) -> &Arc<[Host]> {
        &self.hosts
    }

    pub(crate) fn is_uniform(&self) -> bool {
        self.uniform
    }

    /// Those that are not in `avoid`; all, if every one is. The cost follows the number of
    /// endpoints, which is for retries to bear.
    pub(crate) fn without(&self, avoid: &[usize]) -> Self {
        let kept = self
            .hosts
            .iter()
            .filter(|host| !avoid.contains(&host.index));
        let rest = Self::of(kept.map(|host| (host.index, host.weight)));
        if rest.is_empty() { self.clone() } else { rest }
    }

    /// One at random, in proportion to the weights.
    pub(crate) fn draw(&self, rng: &mut (impl Rng + ?Sized)) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let place = if self.uniform {
            rng.random_range(0..self.hosts.len())
        } else {
            let draw = rng.random_range(0..self.total);
            self.hosts.partition_point(|host| host.upto <= draw)
        };
        Some(self.hosts[place].index)
    }

    /// Two distinct ones at random, each pair and order as likely as any other, whatever the
    /// weights; the same one twice if there is only one.
    pub(crate) fn draw_two(&self, rng: &mut (impl Rng + ?Sized)) -> Option<(usize, usize)> {
        let count = self.hosts.len();
        if count < 2 {
            return self.hosts.first().map(|only| (only.index, only.index));
        }
        let first = rng.random_range(0..count);
        // Drawn from the others: those behind the first one have moved up by a place.
        let second = rng.random_range(0..count - 1);
        let second = if second < first { second } else { second + 1 };
        Some((self.hosts[first].index, self.hosts[second].index))
    }
}
