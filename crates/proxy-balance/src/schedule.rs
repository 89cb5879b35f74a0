//! Earliest deadline first: the weighted round robin.
//!
//! Owns the turns. Each host has a deadline; the earliest one is chosen and its deadline moves on
//! by a step. With steps of 1/weight, any stretch of (sum of the weights) turns has each host
//! exactly weight times, spread evenly; with steps of (active + 1)/weight, loaded hosts come later.
//! This is Envoy's scheduler (`EdfLoadBalancerBase`) with two differences: hosts begin at phases
//! that are spread out and differ from worker to worker, so that turns are smooth and the workers of
//! a node do not move in step; and a change of the eligible hosts keeps the turns of those that stay,
//! so that flapping health does not favour the first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::hosts::Host;

/// A step of weight 1, in units of virtual time. So fine that even weights near 4 G keep their
/// proportions, and coarse enough that deadlines last for 2^64 such steps.
const STEP: u128 = 1 << 64;

/// How long a host waits, if nothing speaks for a longer wait: one step.
pub(crate) const ORDINARY: u64 = 1 << 16;

/// The golden ratio's part behind the point, in 2^-64: its multiples spread evenly over a unit,
/// however many are taken (Knuth, The Art of Computer Programming, 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct Schedule {
    seed: u64,
    /// Where in its first step the host that joined last began, in 2^-64 of the step.
    phase: u64,
    /// The hosts that the turns are for.
    hosts: Arc<[Host]>,
    turns: BinaryHeap<Reverse<Turn>>,
    /// The latest known deadline of each of the cluster's endpoints, by index; 0: none yet.
    deadlines: Vec<u128>,
    /// The virtual time: the deadline that was chosen last.
    now: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    deadline: u128,
    /// The host's place among the eligible ones.
    place: usize,
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            phase: mix(seed),
            hosts: Arc::new([]),
            turns: BinaryHeap::new(),
            deadlines: Vec::new(),
            now: 0,
        }
    }

    /// The index of the host whose turn it is, of those not in `avoid` unless all are. `wait` says
    /// how long the host then waits for its next turn: [`ORDINARY`] for plain round robin.
    pub(crate) fn next(
        &mut self,
        hosts: &Arc<[Host]>,
        wait: impl Fn(usize) -> u64,
        avoid: &[usize],
    ) -> Option<usize> {
        if !Arc::ptr_eq(&self.hosts, hosts) {
            self.follow(hosts);
        }
        let mut passed_over = Vec::new();
        while let Some(Reverse(turn)) = self.turns.peek()
            && avoid.contains(&self.hosts[turn.place].index)
        {
            passed_over.extend(self.turns.pop());
        }
        if self.turns.is_empty() {
            self.turns.extend(passed_over.drain(..));
        }
        let chosen = self.take_turn(wait);
        self.turns.extend(passed_over);
        chosen
    }

    fn take_turn(&mut self, wait: impl Fn(usize) -> u64) -> Option<usize> {
        let mut top = self.turns.peek_mut()?;
        let Reverse(turn) = &mut *top;
        let host = self.hosts[turn.place];
        // A host that was passed over may be behind; it gets its turn, but no burst of them.
        self.now = self.now.max(turn.deadline);
        let wait = u128::from(wait(host.index).max(1));
        turn.deadline = self.now + step(host) * wait / u128::from(ORDINARY);
        self.deadlines[host.index] = turn.deadline;
        Some(host.index)
    }

    /// Goes on with these hosts: those that have a turn ahead keep it, the others join.
    fn follow(&mut self, hosts: &Arc<[Host]>) {
        let endpoints = hosts.iter().map(|host| host.index + 1).max().unwrap_or(0);
        self.deadlines
            .resize(endpoints.max(self.deadlines.len()), 0);
        let joins = |host: &&Host| self.deadlines[host.index] <= self.now;
        let mut joining: Vec<&Host> = hosts.iter().filter(joins).collect();
        // Hosts of one weight get consecutive phases, which are spread evenly; their order differs
        // from worker to worker, so that not everybody's retries go from one host to the same next.
        joining.sort_by_key(|host| (host.weight, mix(self.seed ^ host.index as u64)));
        for host in joining {
            self.phase = self.phase.wrapping_add(GOLDEN);
            let begin = step(*host) * u128::from(self.phase) / STEP;
            self.deadlines[host.index] = self.now + 1 + begin;
        }
        let turns = hosts.iter().enumerate().map(|(place, host)| {
            Reverse(Turn {
                deadline: self.deadlines[host.index],
                place,
            })
        });
        self.turns = turns.collect();
        self.hosts = Arc::clone(hosts);
    }
}

fn step(host: Host) -> u128 {
    STEP / u128::from(host.weight)
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every input bit moves every output bit.
fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(GOLDEN);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
