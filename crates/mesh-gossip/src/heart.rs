//! The one task that drives the engine and turns what it knows into peers.
//!
//! Owns the rhythm: what this node says, whom it calls besides chitchat's own rounds, when its view
//! is frozen because it was late itself, and the restart of an engine that died. Never does crypto
//! or parsing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rand::seq::IndexedRandom;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::counters::Counters;
use crate::engine::{Engine, Event, Life};
use crate::link::Link;
use crate::mesh::{Said, WrongKey};
use crate::peers::Peers;
use crate::roster::{LEFT_KEY, Moment, Roster};
use crate::seeds::SeedAddrs;

/// A pause of this node's own of more than so many intervals is late...
const LATE_INTERVALS: u32 = 3;

/// ...and so long after it, silence of others says nothing: the detector needs two heartbeats.
const FREEZE_INTERVALS: u32 = 6;

/// News of our own are told at once to so many peers at most, who pass them on in their rounds...
const NUDGED_MAX: usize = 32;

/// ...but not more often than so many times in an interval.
const NUDGES_PER_INTERVAL: u32 = 5;

/// Silent seeds (no living peer is at their address) that a node calls in one interval; where there
/// are more, they take turns. A call to a dead address costs one datagram.
pub const SEED_CALLS_MAX: usize = 8;

/// Whoever starts at the address of a seed of living nodes sees one of them alive within so many
/// intervals, though it knows nobody: it is called within one, sees a heart beat for the second
/// time within another, and three are to spare for datagrams that are lost and a busy machine. Each
/// further [`SEED_CALLS_MAX`] silent seeds make it one more.
pub const HEARD_WITHIN_INTERVALS: u32 = 5;

/// A reject counts when so many intervals later still nobody with our key was heard.
const REJECT_INTERVALS: u32 = 3;

/// A leaving node says so in so many rounds, of which [`NUDGES_PER_INTERVAL`] fit an interval.
const LEAVE_ROUNDS: u32 = 3;

/// The heart's ends of the channels to [`Mesh`](crate::Mesh).
pub(crate) struct Channels {
    pub(crate) said: watch::Receiver<Said>,
    pub(crate) leave: watch::Receiver<bool>,
    pub(crate) rejected: mpsc::Receiver<SocketAddr>,
    pub(crate) seeds: watch::Receiver<SeedAddrs>,
    pub(crate) peers: watch::Sender<Arc<Peers>>,
    pub(crate) wrong_key: watch::Sender<Option<WrongKey>>,
}

/// The running part of a mesh.
pub(crate) struct Heart {
    link: Arc<Link>,
    life: Life,
    counters: Counters,
    channels: Channels,
    roster: Roster,
    /// The seed that was called last.
    last_called: Option<SocketAddr>,
    last_awake: Instant,
    frozen_until: Option<Instant>,
    last_nudge: Option<Instant>,
    nudge_due: bool,
    reject: Option<(WrongKey, Instant)>,
}

impl Heart {
    pub(crate) fn new(link: Arc<Link>, life: Life, counters: Counters, channels: Channels) -> Self {
        Self {
            link,
            life,
            counters,
            channels,
            roster: Roster::new(life.node, life.interval),
            last_called: None,
            last_awake: Instant::now(),
            frozen_until: None,
            last_nudge: None,
            nudge_due: false,
            reject: None,
        }
    }

    /// Beats until the mesh is left.
    pub(crate) async fn run(mut self) {
        let mut engine = self.start_engine().await;
        let mut tick = tokio::time::interval(self.life.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let nudge = self.next_nudge();
            tokio::select! {
                _ = tick.tick() => self.call_seeds(&engine),
                () = at(nudge) => self.nudge(&engine),
                Ok(()) = self.channels.said.changed() => {
                    let values = Arc::clone(&self.channels.said.borrow_and_update().values);
                    engine.say(&values).await;
                    self.nudge_due = true;
                }
                Some(from) = self.channels.rejected.recv() => self.note_reject(from),
                Ok(()) = self.channels.leave.changed() => break,
                event = engine.event() => match event {
                    Event::News => {}
                    Event::Ended(fault) => engine = self.restart(&fault).await,
                },
            }
            self.note_lateness();
            self.settle_reject();
            self.show_peers(&engine).await;
        }
        self.leave(engine).await;
    }

    async fn start_engine(&mut self) -> Engine {
        let values = Arc::clone(&self.channels.said.borrow_and_update().values);
        Engine::start(&self.link, self.life, &values).await
    }

    async fn restart(&mut self, fault: &str) -> Engine {
        tracing::error!(%fault, "the gossip engine stopped; starting it again");
        self.counters.restarts.inc();
        // An engine that dies at once must not be restarted in a hot loop.
        tokio::time::sleep(self.life.interval).await;
        self.life.generation += 1;
        self.start_engine().await
    }

    /// Calls the silent seeds, with company as without: that finds the mesh, heals a parted one, and
    /// tells of it whoever starts where a seed was, before that founds another.
    fn call_seeds(&mut self, engine: &Engine) {
        let own = self.life.address;
        let alive = self.alive_addrs();
        let seeds = Arc::clone(&self.channels.seeds.borrow());
        // No socket reaches addresses of the other family, which names resolve to as well.
        let silent: Vec<SocketAddr> = seeds
            .keys()
            .filter(|seed| seed.is_ipv4() == own.is_ipv4())
            .filter(|seed| **seed != own && !alive.contains(seed))
            .copied()
            .collect();
        for seed in turn(&silent, self.last_called) {
            engine.gossip(seed);
            self.last_called = Some(seed);
        }
    }

    fn next_nudge(&self) -> Option<Instant> {
        let spacing = self.life.interval / NUDGES_PER_INTERVAL;
        self.nudge_due.then(|| {
            self.last_nudge
                .map_or_else(Instant::now, |last| last + spacing)
        })
    }

    fn nudge(&mut self, engine: &Engine) {
        self.nudge_due = false;
        self.last_nudge = Some(Instant::now());
        for address in self.alive_addrs().sample(&mut rand::rng(), NUDGED_MAX) {
            engine.gossip(*address);
        }
    }

    fn alive_addrs(&self) -> Vec<SocketAddr> {
        let peers = self.channels.peers.borrow();
        peers
            .alive()
            .filter_map(|peer| peer.facts.identity.gossip_addr)
            .collect()
    }

    fn note_reject(&mut self, from: SocketAddr) {
        if self.link.has_heard() || self.reject.is_some() {
            return;
        }
        if let Some(seed) = self.channels.seeds.borrow().get(&from) {
            self.reject = Some((WrongKey { seed: seed.clone() }, Instant::now()));
        }
    }

    /// One seed's reject is believed only if no other seed answers soon: keys may be in rotation.
    fn settle_reject(&mut self) {
        if self.link.has_heard() {
            self.reject = None;
        } else if let Some((wrong_key, at)) = &self.reject
            && at.elapsed() >= self.life.interval * REJECT_INTERVALS
        {
            self.channels
                .wrong_key
                .send_replace(Some(wrong_key.clone()));
        }
    }

    fn note_lateness(&mut self) {
        let now = Instant::now();
        let late = now.duration_since(self.last_awake);
        self.last_awake = now;
        if late > self.life.interval * LATE_INTERVALS {
            tracing::warn!(
                ?late,
                "this node was late; its view of who is alive is kept for a while"
            );
            self.counters.freezes.inc();
            self.frozen_until = Some(now + self.life.interval * FREEZE_INTERVALS);
        }
        self.frozen_until = self.frozen_until.filter(|until| now < *until);
    }

    async fn show_peers(&mut self, engine: &Engine) {
        let moment = Moment {
            now: Instant::now(),
            wall: SystemTime::now(),
            frozen: self.frozen_until.is_some(),
            mesh_id: self.channels.said.borrow().mesh_id,
        };
        let roster = &mut self.roster;
        let peers = engine
            .look(|sightings| roster.update(sightings, moment))
            .await;
        if peers.is_same(&self.channels.peers.borrow()) {
            return;
        }
        if let Some(address) = peers
            .twin
            .filter(|_| self.channels.peers.borrow().twin.is_none())
        {
            tracing::error!(%address, "another process runs with this node's id; \
                 stop one of the two and empty its data directory");
        }
        self.counters.show_peers(&peers);
        self.channels.peers.send_replace(Arc::new(peers));
    }

    /// Says good-bye to as many as possible. Lost datagrams are made up for by repetition; who
    /// hears nothing will see this node as down.
    async fn leave(&mut self, engine: Engine) {
        let mut values = (*self.channels.said.borrow().values).clone();
        values.insert(LEFT_KEY.to_owned(), "1".to_owned());
        engine.say(&values).await;
        for _ in 0..LEAVE_ROUNDS {
            self.nudge(&engine);
            tokio::time::sleep(self.life.interval / NUDGES_PER_INTERVAL).await;
        }
        engine.stop().await;
    }
}

/// The next [`SEED_CALLS_MAX`] of `silent`, which is sorted, after `last`, and round again.
fn turn(silent: &[SocketAddr], last: Option<SocketAddr>) -> impl Iterator<Item = SocketAddr> {
    let next = silent.partition_point(|seed| Some(*seed) <= last);
    let (before, after) = silent.split_at(next);
    after.iter().chain(before).take(SEED_CALLS_MAX).copied()
}

/// Waits until `instant`; for ever without one.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_seeds_take_turns() {
        let seeds: Vec<SocketAddr> = (1..=10).map(|port| ([10, 0, 0, 1], port).into()).collect();
        let ports = |silent: &[SocketAddr], last| -> Vec<u16> {
            turn(silent, last).map(|seed| seed.port()).collect()
        };
        assert_eq!(ports(&seeds, None), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(ports(&seeds, Some(seeds[7])), [9, 10, 1, 2, 3, 4, 5, 6]);
        // The last one need not be silent any more, and nobody is called twice.
        assert_eq!(ports(&seeds[..2], Some(seeds[7])), [1, 2]);
        assert_eq!(ports(&seeds[..2], Some(seeds[0])), [2, 1]);
        assert!(ports(&[], Some(seeds[0])).is_empty());
    }
}
