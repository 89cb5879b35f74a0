//! The endpoints of one level that may be chosen, with tables that make a weighted draw quick.
//!
//! Owns draws at random. Made anew when config or health changes, never per request.

use std::sync::Arc;

use rand::{Rng, RngExt};

/// Endpoints that may be chosen. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// In the order of their places.
    list: Arc<[Host]>,
    total: u64,
    /// All weights are the same.
    uniform: bool,
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

impl Hosts {
    /// The endpoints of these places and weights.
    pub(crate) fn of(weighted: impl Iterator<Item = (usize, u32)>) -> Self {
        let mut total = 0;
        let list: Arc<[Host]> = weighted
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
        let uniform = list.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        Self {
            list,
            total,
            uniform,
        }
    }

    pub(crate) fn list(&self) -> &Arc<[Host]> {
        &self.list
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn is_uniform(&self) -> bool {
        self.uniform
    }

    /// The sum of the weights.
    pub(crate) fn total_weight(&self) -> u64 {
        self.total
    }

    /// The weight of the endpoint at this place, if it is one of them.
    pub(crate) fn weight(&self, index: usize) -> Option<u32> {
        let at = self.list.binary_search_by_key(&index, |host| host.index);
        at.ok().map(|at| self.list[at].weight)
    }

    /// What weights are compared with: those that have it get an even share.
    pub(crate) fn mean_weight(&self) -> f64 {
        self.total as f64 / self.list.len().max(1) as f64
    }

    /// Whether one of them is not in `avoid`.
    pub(crate) fn has_other_than(&self, avoid: &[usize]) -> bool {
        self.list.iter().any(|host| !avoid.contains(&host.index))
    }

    /// Those that are not in `avoid`; all, if every one is. The cost follows the number of
    /// endpoints, which is for retries to bear.
    pub(crate) fn without(&self, avoid: &[usize]) -> Self {
        let kept = self.list.iter().filter(|host| !avoid.contains(&host.index));
        let rest = Self::of(kept.map(|host| (host.index, host.weight)));
        if rest.is_empty() { self.clone() } else { rest }
    }

    /// One at random, in proportion to the weights.
    pub(crate) fn draw(&self, rng: &mut (impl Rng + ?Sized)) -> Option<Host> {
        if self.is_empty() {
            return None;
        }
        let place = if self.uniform {
            rng.random_range(0..self.list.len())
        } else {
            let draw = rng.random_range(0..self.total);
            self.list.partition_point(|host| host.upto <= draw)
        };
        Some(self.list[place])
    }

    /// Two at random. Where weights are the same, distinct ones, unless there is only one; where
    /// they differ, each in proportion to the weights, so that the two may be one.
    pub(crate) fn draw_two(&self, rng: &mut (impl Rng + ?Sized)) -> Option<(Host, Host)> {
        let count = self.list.len();
        if !self.uniform || count < 2 {
            return Some((self.draw(rng)?, self.draw(rng)?));
        }
        let first = rng.random_range(0..count);
        // Drawn from the others: those behind the first one have moved up by a place.
        let second = rng.random_range(0..count - 1);
        let second = if second < first { second } else { second + 1 };
        Some((self.list[first], self.list[second]))
    }
}
