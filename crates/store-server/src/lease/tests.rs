//! Lease time over changing leaders, pauses and ticks that get lost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use store_mvcc::{
    Command, GrantOp, KeepAliveOp, LEASE_STEP_MAX_MS, Machine, Proposal, Response, TickResult,
};

use super::stopwatch::{Step, Stopwatch};

const NODES: usize = 3;

/// What happens in a mesh.
#[derive(Debug, Clone)]
enum Event {
    /// Time goes by, for all.
    Pass(u64),
    /// A node is elected, perhaps the same one again, and notices, or believes that it still leads
    /// in an earlier term.
    Lead { node: usize, noticed: bool },
    /// The leader looks at the clock and ticks if it wants to; what becomes of the tick.
    Tick(Fate),
    /// A client asks for a lease.
    Grant { id: i64, ttl: i64 },
    /// A client keeps one alive.
    KeepAlive { id: i64 },
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is applied, and the leader hears of it.
    Applied,
    /// Nobody ever hears of it.
    Lost,
    /// It is applied later, and the leader never knows.
    Late,
}

fn event() -> impl Strategy<Value = Event> {
    let fate = prop_oneof![6 => Just(Fate::Applied), 1 => Just(Fate::Lost), 1 => Just(Fate::Late)];
    let time = prop_oneof![3 => 0..700_u64, 1 => 0..6_000_u64];
    prop_oneof![
        8 => time.prop_map(Event::Pass),
        1 => (0..NODES, any::<bool>()).prop_map(|(node, noticed)| Event::Lead { node, noticed }),
        8 => fate.prop_map(Event::Tick),
        2 => (1..4_i64, 1..4_i64).prop_map(|(id, ttl)| Event::Grant { id, ttl }),
        2 => (1..4_i64).prop_map(|id| Event::KeepAlive { id }),
    ]
}

struct Mesh {
    start: Instant,
    now_ms: u64,
    machine: Machine,
    /// In the log, not yet applied, each with the term of its entry.
    late: Vec<(Step, u64)>,
    term: u64,
    /// The term that each node believes it leads in.
    believed: [u64; NODES],
    stopwatches: [Stopwatch; NODES],
    leader: usize,
    /// Until when each lease was promised to its owner.
    promised: HashMap<i64, u64>,
}

impl Mesh {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            now_ms: 0,
            machine: Machine::new(),
            late: Vec::new(),
            term: 1,
            believed: [1; NODES],
            stopwatches: Default::default(),
            leader: 0,
            promised: HashMap::new(),
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    /// Applies a command, after all that is before it in the log.
    fn apply(&mut self, command: Command) -> Option<Response> {
        for (step, term) in std::mem::take(&mut self.late) {
            let tick = Command::Tick(step.op.in_term(term));
            self.machine.apply(&Proposal::new(tick));
        }
        self.machine.apply(&Proposal::new(command)).result.ok()
    }

    fn age_ms(&self) -> u64 {
        self.stopwatches[self.leader].age_ms(self.now())
    }

    fn promise(&mut self, id: i64, ttl: i64) {
        let until = self.now_ms + 1_000 * u64::try_from(ttl).unwrap();
        self.promised.insert(id, until);
    }

    fn grant(&mut self, id: i64, ttl: i64) {
        let age_ms = self.age_ms();
        let granted = self.apply(Command::Grant(GrantOp { id, ttl, age_ms }));
        if granted.is_some() {
            self.promise(id, ttl);
        }
    }

    fn keep_alive(&mut self, id: i64) {
        let (ids, age_ms) = (vec![id], self.age_ms());
        let kept = self.apply(Command::KeepAlive(KeepAliveOp { ids, age_ms }));
        let Some(Response::KeepAlive(kept)) = kept else {
            panic!("{kept:?}")
        };
        if kept.ttls[0] > 0 {
            self.promise(id, kept.ttls[0]);
        }
    }

    /// As the task does it.
    fn tick(&mut self, fate: Fate) -> Option<TickResult> {
        let (now, image) = (self.now(), self.machine.image());
        let stopwatch = &mut self.stopwatches[self.leader];
        let Some(first) = image.first_lease_to_end() else {
            stopwatch.stop();
            return None;
        };
        let term = self.believed[self.leader];
        stopwatch.see(term, image.meta().lease_clock_ms, now);
        stopwatch
            .due(first.expires_at_ms)
            .filter(|due| *due <= now)?;
        let step = stopwatch.step(now)?;
        match fate {
            Fate::Lost => None,
            Fate::Late => {
                self.late.push((step, self.term));
                None
            }
            Fate::Applied => {
                let Some(Response::Tick(result)) =
                    self.apply(Command::Tick(step.op.in_term(self.term)))
                else {
                    panic!("a tick is never refused")
                };
                self.stopwatches[self.leader].stepped(step, result, now);
                Some(result)
            }
        }
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Pass(millis) => self.now_ms += millis,
            Event::Lead { node, noticed } => {
                self.term += 1;
                self.leader = node;
                if noticed {
                    self.believed[node] = self.term;
                }
            }
            Event::Tick(fate) => {
                self.tick(fate);
            }
            Event::Grant { id, ttl } => self.grant(id, ttl),
            Event::KeepAlive { id } => self.keep_alive(id),
        }
    }

    /// A lease that is gone before its time.
    fn broken_promise(&mut self) -> Option<(i64, u64)> {
        let image = self.machine.image();
        self.promised
            .retain(|id, until| image.lease(*id).is_some() || *until > self.now_ms);
        let gone = |(id, until): (&i64, &u64)| image.lease(*id).is_none().then_some((*id, *until));
        self.promised.iter().find_map(gone)
    }
}

proptest! {
    #[test]
    fn no_lease_ends_early_whoever_leads_and_whatever_gets_lost(events in vec(event(), 1..120)) {
        let mut mesh = Mesh::new();
        for event in &events {
            mesh.happens(event);
            prop_assert_eq!(mesh.broken_promise(), None, "at {} ms, after {:?}", mesh.now_ms, event);
        }
    }

    #[test]
    fn lease_time_never_runs_ahead_of_real_time(events in vec(event(), 1..120)) {
        let mut mesh = Mesh::new();
        for event in &events {
            mesh.happens(event);
            prop_assert!(mesh.machine.image().meta().lease_clock_ms <= mesh.now_ms);
        }
    }

    #[test]
    fn where_nothing_goes_wrong_leases_end_on_time(
        before in 0..3_000_u64,
        ttl in 1..20_i64,
        look in 1..50_u64,
    ) {
        let mut mesh = Mesh::new();
        mesh.grant(9, 3_600);
        while mesh.now_ms < before {
            mesh.now_ms += look;
            mesh.tick(Fate::Applied);
        }
        mesh.grant(1, ttl);
        let promised = mesh.promised[&1];
        while mesh.machine.image().lease(1).is_some() {
            mesh.now_ms += look;
            mesh.tick(Fate::Applied);
            prop_assert!(mesh.now_ms < promised + 2 * look + 21, "at {} ms", mesh.now_ms);
        }
        prop_assert_eq!(mesh.broken_promise(), None);
    }
}

#[test]
fn a_new_leader_goes_on_where_the_log_stands() {
    let mut mesh = Mesh::new();
    mesh.grant(1, 10);
    let run = |mesh: &mut Mesh, millis: u64| {
        for _ in 0..millis / 100 {
            mesh.now_ms += 100;
            mesh.tick(Fate::Applied);
        }
    };
    mesh.tick(Fate::Applied);
    run(&mut mesh, 6_000);
    let clock_ms = mesh.machine.image().meta().lease_clock_ms;
    assert!(clock_ms >= 5_500, "{clock_ms}");
    // Nobody leads for long.
    mesh.now_ms += 60_000;
    mesh.happens(&Event::Lead {
        node: 1,
        noticed: true,
    });
    mesh.tick(Fate::Applied);
    let image = mesh.machine.image();
    assert_eq!(
        image.meta().lease_clock_ms,
        clock_ms,
        "that time does not count"
    );
    let left = image.lease(1).unwrap().remaining_ms(clock_ms);
    assert!(left <= 4_500, "it does not begin anew: {left}");
    run(&mut mesh, 3_900);
    assert_eq!(mesh.machine.image().lease_count(), 1);
    run(&mut mesh, 1_000);
    assert_eq!(mesh.machine.image().lease_count(), 0);
}

#[test]
fn a_leader_that_was_paused_does_not_jump() {
    let mut mesh = Mesh::new();
    mesh.grant(1, 5);
    mesh.tick(Fate::Applied);
    mesh.now_ms += 3_600_000;
    let result = mesh.tick(Fate::Applied).expect("it is due");
    assert_eq!((result.clock_ms, result.ended), (LEASE_STEP_MAX_MS, 0));
    // What was left out is lost, not put off.
    mesh.now_ms += 500;
    let result = mesh.tick(Fate::Applied).expect("it is due");
    assert_eq!(result.clock_ms, LEASE_STEP_MAX_MS + 500);
}

#[test]
fn a_tick_that_comes_late_counts_once() {
    let mut mesh = Mesh::new();
    mesh.grant(1, 60);
    mesh.tick(Fate::Applied);
    mesh.now_ms += 500;
    mesh.tick(Fate::Late);
    mesh.now_ms += 300;
    let result = mesh.tick(Fate::Applied).expect("the first is still due");
    assert_eq!((result.moved, result.clock_ms), (false, 500));
}

#[test]
fn what_one_tick_left_behind_is_due_at_once() {
    let mut mesh = Mesh::new();
    let now = mesh.now();
    mesh.stopwatches[0].see(1, 5_000, now);
    assert_eq!(mesh.stopwatches[0].due(5_000), Some(now));
    assert_eq!(mesh.stopwatches[0].due(4_000), Some(now));
    let soon = Duration::from_millis(20);
    assert_eq!(mesh.stopwatches[0].due(5_001), Some(now + soon));
    let late = Duration::from_millis(500);
    assert_eq!(mesh.stopwatches[0].due(u64::MAX), Some(now + late));
}
