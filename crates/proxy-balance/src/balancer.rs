//! A cluster's algorithm and its state, one per worker.
//!
//! Owns the choice. Never shares state between workers: each has its own balancer and seed.

use proxy_config::compiled::{Balance, Cluster};
use rand::Rng;

use crate::Eligible;
use crate::schedule::Schedule;

/// Chooses endpoints of one cluster.
#[derive(Debug)]
pub struct Balancer {
    balance: Balance,
    schedule: Schedule,
}

impl Balancer {
    /// A balancer for `cluster`. Different seeds keep the workers of a node from choosing the same
    /// endpoints at the same time; the same seed chooses alike.
    pub fn new(cluster: &Cluster, seed: u64) -> Self {
        Self {
            balance: cluster.balance,
            schedule: Schedule::new(seed),
        }
    }

    /// The index, among the cluster's endpoints, of the one that gets the next request; `None` if
    /// none is eligible. `active` tells how many requests an endpoint is busy with. Those in
    /// `avoid` (where earlier tries of the same request went) are chosen only if nothing else is
    /// left. `eligible` must be of the cluster that the balancer was made for.
    ///
    /// - *Round robin* takes turns, in proportion to the weights and evenly spread.
    /// - *Random* draws in proportion to the weights.
    /// - *Least request* draws two distinct endpoints and takes the less busy one ("The power of
    ///   two choices", Mitzenmacher, 2001). If weights differ, it takes turns instead, each endpoint
    ///   waiting (active + 1)/weight until its next one, so that an idle cluster still shares by
    ///   weight: both as Envoy does.
    ///
    /// The cost is constant, or logarithmic in the number of endpoints where weights differ or turns
    /// are taken; linear only with `avoid`.
    pub fn pick(
        &mut self,
        eligible: &Eligible,
        active: impl Fn(usize) -> u32,
        rng: &mut (impl Rng + ?Sized),
        avoid: &[usize],
    ) -> Option<usize> {
        match self.balance {
            Balance::RoundRobin => self.schedule.next(eligible, |_| 1, avoid),
            Balance::LeastRequest if !eligible.is_uniform() => {
                let load = |index| active(index).saturating_add(1);
                self.schedule.next(eligible, load, avoid)
            }
            Balance::LeastRequest if avoid.is_empty() => less_busy(eligible, active, rng),
            Balance::LeastRequest => less_busy(&eligible.without(avoid), active, rng),
            Balance::Random if avoid.is_empty() => eligible.draw(rng),
            Balance::Random => eligible.without(avoid).draw(rng),
        }
    }
}

fn less_busy(
    eligible: &Eligible,
    active: impl Fn(usize) -> u32,
    rng: &mut (impl Rng + ?Sized),
) -> Option<usize> {
    let (first, second) = eligible.draw_two(rng)?;
    Some(if active(second) < active(first) {
        second
    } else {
        first
    })
}
