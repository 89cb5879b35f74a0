//! A cluster's algorithm and its state, one per worker.
//!
//! Owns the choice. Never shares state between workers: each has its own balancer and seed.

use std::time::Duration;

use proxy_config::compiled::{Balance, Cluster, SlowStart};
use rand::{Rng, RngExt};

use crate::Eligible;
use crate::eligible::Level;
use crate::hosts::{Host, Hosts};
use crate::schedule::{ORDINARY, Schedule};
use crate::slow_start::{WHOLE, factor};
use crate::table::Table;

/// Chooses endpoints of one cluster.
#[derive(Debug)]
pub struct Balancer {
    balance: Balance,
    slow_start: Option<SlowStart>,
    /// Of its fair share of the requests in flight, an endpoint takes no more than so many percent.
    bound: Option<u32>,
    seed: u64,
    /// By the number of the level.
    schedules: Vec<Schedule>,
}

/// What is known of endpoints right now, by their places in the cluster. A function from the place
/// to the number of requests will do, where time plays no part.
pub trait Load {
    /// How many requests it is busy with.
    fn active(&self, index: usize) -> u32;

    /// The estimate of its time to the response head, in seconds ([`Ewma`](crate::Ewma)).
    fn response_time(&self, _index: usize) -> f64 {
        1.0
    }

    /// How long it has been eligible.
    fn age(&self, _index: usize) -> Duration {
        Duration::MAX
    }

    /// The age of the youngest.
    fn youngest(&self) -> Duration {
        Duration::MAX
    }
}

impl<F: Fn(usize) -> u32> Load for F {
    fn active(&self, index: usize) -> u32 {
        self(index)
    }
}

/// What a request asks of the choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// The hash of what the request is known by, for balancers that hash.
    pub key: Option<u64>,
    /// Where earlier tries of it went: chosen only if nothing else is left.
    pub avoid: &'a [usize],
}

impl Balancer {
    /// A balancer for `cluster`. Different seeds keep the workers of a node from choosing the same
    /// endpoints at the same time; the same seed chooses alike.
    pub fn new(cluster: &Cluster, seed: u64) -> Self {
        Self {
            balance: cluster.balance,
            slow_start: cluster.slow_start,
            bound: cluster.hash_balance_factor,
            seed,
            schedules: Vec::new(),
        }
    }

    /// The index, among the cluster's endpoints, of the one that gets the next request; `None` if
    /// none is eligible. `eligible` must be of the cluster that the balancer was made for.
    ///
    /// - *Round robin* takes turns, in proportion to the weights and evenly spread.
    /// - *Random* draws in proportion to the weights.
    /// - *Least request* draws two distinct endpoints and takes the less busy one ("The power of
    ///   two choices", Mitzenmacher, 2001). If weights differ, or one is in slow start, it takes
    ///   turns instead, each endpoint waiting (active + 1)/weight until its next one, so that an
    ///   idle cluster still shares by weight: both as Envoy does.
    /// - *Peak EWMA* draws two, in proportion to the weights, and takes the one with the lower
    ///   product of response time and busyness ("Beyond Round Robin", Buoyant, 2016).
    /// - *Ring hash*, *Maglev* and *IP hash* look the key up in the table of the eligible; without a
    ///   key they draw one at random (Envoy's rule). Where loads are bounded, an endpoint that has
    ///   its share is passed over, and the next one in the table gets the request ("Consistent
    ///   Hashing with Bounded Loads", Mirrokni, Thorup and Zadimoghaddam, 2018).
    ///
    /// The cost is constant, or logarithmic in the number of endpoints where weights differ, turns
    /// are taken or a ring is searched; linear only with `avoid` and bounded loads.
    pub fn pick(
        &mut self,
        eligible: &Eligible,
        load: &impl Load,
        rng: &mut (impl Rng + ?Sized),
        ask: Ask<'_>,
    ) -> Option<usize> {
        let key = ask.key.filter(|_| self.balance.is_hashing());
        let (number, level) = eligible.level(key, ask.avoid, rng)?;
        let turns = match self.balance {
            Balance::RoundRobin => true,
            Balance::LeastRequest => !level.hosts.is_uniform() || self.is_ramping(load),
            _ => false,
        };
        if turns {
            return self.take_turn((number, level), load, ask.avoid);
        }
        if let Some(table) = &level.table {
            let key = key.unwrap_or_else(|| rng.random());
            let bound = self
                .bound
                .map(|percent| Bound::new(percent, &level.hosts, load));
            let is_full = |index| {
                bound
                    .as_ref()
                    .is_some_and(|bound| bound.is_reached(index, load))
            };
            return look_up(table, &level.hosts, (key, ask.avoid), is_full);
        }
        let rest;
        let hosts = if ask.avoid.is_empty() {
            &level.hosts
        } else {
            rest = level.hosts.without(ask.avoid);
            &rest
        };
        match self.balance {
            Balance::LeastRequest => lesser(hosts, rng, |host| load.active(host.index)),
            Balance::PeakEwma => {
                let mean = hosts.mean_weight();
                lesser(hosts, rng, |host| cost(load, host, mean))
            }
            _ => hosts.draw(rng).map(|host| host.index),
        }
    }

    fn is_ramping(&self, load: &impl Load) -> bool {
        let window = self.slow_start.map(|slow_start| slow_start.window);
        window.is_some_and(|window| load.youngest() < window)
    }

    fn take_turn(
        &mut self,
        (number, level): (usize, &Level),
        load: &impl Load,
        avoid: &[usize],
    ) -> Option<usize> {
        let ramping = self.slow_start.filter(|_| self.is_ramping(load));
        let by_load = self.balance == Balance::LeastRequest;
        let wait = |index: usize| {
            let busy = if by_load { load.active(index) } else { 0 };
            let steps = (u64::from(busy) + 1) * ORDINARY;
            match &ramping {
                Some(slow_start) => {
                    let factor = u64::from(factor(slow_start, load.age(index)));
                    steps * u64::from(WHOLE) / factor
                }
                None => steps,
            }
        };
        while self.schedules.len() <= number {
            self.schedules.push(Schedule::new(self.seed));
        }
        self.schedules[number].next(level.hosts.list(), wait, avoid)
    }
}

/// The busier an endpoint is for its weight, the longer its next answer takes.
fn cost(load: &impl Load, host: Host, mean_weight: f64) -> f64 {
    let queue = f64::from(load.active(host.index)) * mean_weight / f64::from(host.weight);
    load.response_time(host.index) * (1.0 + queue)
}

/// Of two at random, the one that costs less.
fn lesser<C: PartialOrd>(
    hosts: &Hosts,
    rng: &mut (impl Rng + ?Sized),
    cost: impl Fn(Host) -> C,
) -> Option<usize> {
    let (first, second) = hosts.draw_two(rng)?;
    Some(if cost(second) < cost(first) {
        second.index
    } else {
        first.index
    })
}

/// What an endpoint may be busy with at most, for its weight.
struct Bound<'a> {
    /// For all together: somewhat more than there is in flight.
    places: u64,
    hosts: &'a Hosts,
}

impl<'a> Bound<'a> {
    fn new(percent: u32, hosts: &'a Hosts, load: &impl Load) -> Self {
        let busy = |host: &Host| u64::from(load.active(host.index));
        let total: u64 = hosts.list().iter().map(busy).sum();
        Self {
            places: ((total + 1) * u64::from(percent)).div_ceil(100),
            hosts,
        }
    }

    fn is_reached(&self, index: usize, load: &impl Load) -> bool {
        let share = |weight: u32| {
            let total = u128::from(self.hosts.total_weight().max(1));
            (u128::from(self.places) * u128::from(weight)).div_ceil(total)
        };
        let weight = self.hosts.weight(index);
        weight.is_some_and(|weight| u128::from(load.active(index)) >= share(weight).max(1))
    }
}

fn look_up(
    table: &Table,
    hosts: &Hosts,
    (key, avoid): (u64, &[usize]),
    is_full: impl Fn(usize) -> bool,
) -> Option<usize> {
    let is_choice = avoid.is_empty() || !hosts.has_other_than(avoid);
    let passes = |owner: u32| is_choice || !avoid.contains(&(owner as usize));
    let owner = table
        .find(key, |owner| passes(owner) && !is_full(owner as usize))
        // Rather too much for one than nothing at all.
        .or_else(|| table.find(key, passes));
    owner.map(|owner| owner as usize)
}
