//! One worker: a thread with a runtime, listeners, pools and balancers of its own.
//!
//! Owns everything that requests touch, so that none of it needs a lock. Hears of new config and
//! members of clusters through channels; when whoever sends there is gone, it keeps serving what it has.

mod routing;

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::RuntimeMetrics;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval};

pub(crate) use routing::{Routing, Snapshot};

use crate::access_log::{AccessLog, LogQueue};
use crate::bind::{Bound, Place, Transport};
use crate::clock::WallClock;
use crate::listener::{self, Close, Slot};
use crate::udp;
use crate::upkeep::Moves;

/// So many commands may wait for a worker; whoever sends more waits.
pub(crate) const COMMANDS_MAX: usize = 16;
/// A worker looks so often for idle connections to close and log lines to hand over.
const TICK: Duration = Duration::from_millis(500);

/// An order to a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Put this in force.
    Apply(Apply),
    /// Close all listeners, let what is under way end within the limit, and stop.
    Drain {
        limit: Duration,
        done: oneshot::Sender<()>,
    },
}

/// What is to be put in force.
#[derive(Debug)]
pub(crate) struct Apply {
    pub(crate) snapshot: Arc<Snapshot>,
    /// New sockets, by where they are bound.
    pub(crate) open: Vec<(Place, Bound)>,
    /// Where sockets are to close.
    pub(crate) close: Vec<Place>,
    /// Where others are to be: what was closed there has to end.
    pub(crate) wanted: Vec<Place>,
    /// Told when it is in force here.
    pub(crate) done: oneshot::Sender<()>,
}

/// What the tasks of a worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) log: AccessLog,
    routing: RefCell<Rc<Routing>>,
    rng: RefCell<SmallRng>,
    clock: RefCell<WallClock>,
    connections: Cell<usize>,
    /// Wakes those who live long, some time after the config changed.
    pub(crate) changed: Notify,
    /// Copies of requests under way.
    pub(crate) mirrors: Cell<usize>,
    connections_max: usize,
}

/// A connection's place among those that a worker may have.
#[derive(Debug)]
pub(crate) struct Room(Rc<Worker>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

impl Worker {
    /// What is in force.
    pub(crate) fn routing(&self) -> Rc<Routing> {
        self.routing.borrow().clone()
    }

    /// The worker's source of randomness. Not to be held while waiting.
    pub(crate) fn rng(&self) -> RefMut<'_, SmallRng> {
        self.rng.borrow_mut()
    }

    /// The worker's wall clock. Not to be held while waiting.
    pub(crate) fn clock(&self) -> RefMut<'_, WallClock> {
        self.clock.borrow_mut()
    }

    /// Whether another client's connection may be accepted.
    pub(crate) fn has_room(&self) -> bool {
        self.connections.get() < self.connections_max
    }

    /// Counts a client's connection.
    pub(crate) fn enter(self: &Rc<Self>) -> Room {
        self.connections.set(self.connections.get() + 1);
        Room(self.clone())
    }
}

/// How a worker is started.
#[derive(Debug)]
pub(crate) struct WorkerStart {
    pub(crate) index: usize,
    /// Clients' connections that it may have.
    pub(crate) connections_max: usize,
    pub(crate) log: LogQueue,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Changes when members of clusters did.
    pub(crate) moved: Moves,
}

impl WorkerStart {
    /// Starts the thread, which lives until it is told to drain. What its runtime measures can be
    /// read without waking it.
    pub(crate) fn spawn(self) -> io::Result<RuntimeMetrics> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let measured = runtime.metrics();
        thread::Builder::new()
            .name(format!("worker-{}", self.index))
            .spawn(move || LocalSet::new().block_on(&runtime, self.run()))?;
        Ok(measured)
    }

    async fn run(self) {
        let Self {
            index,
            connections_max,
            log,
            mut commands,
            mut moved,
        } = self;
        let worker = Rc::new(Worker {
            index,
            log: AccessLog::new(log),
            routing: RefCell::default(),
            rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            clock: RefCell::default(),
            changed: Notify::new(),
            connections: Cell::new(0),
            mirrors: Cell::new(0),
            connections_max,
        });
        let mut listeners = Listeners::new(worker.clone());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // A closed channel leaves its branch out; the others go on.
                Some(command) = commands.recv() => match command {
                    Command::Apply(apply) => listeners.apply(apply).await,
                    Command::Drain { limit, done } => {
                        listeners.drain(limit).await;
                        worker.log.flush();
                        let _ = done.send(());
                        return;
                    }
                },
                true = moved.changed() => worker.routing().follow(moved.take().as_deref()),
                _ = tick.tick() => {
                    worker.routing().sweep(Instant::now());
                    // Not for each of many changes: there may be many to wake.
                    if std::mem::take(&mut listeners.are_changed) {
                        worker.changed.notify_waiters();
                    }
                    worker.log.flush();
                }
            }
        }
    }
}

/// The listeners of a worker.
struct Listeners {
    worker: Rc<Worker>,
    open: Vec<Open>,
    /// Closed ones whose connections are still draining.
    draining: Vec<(Place, JoinHandle<()>)>,
    /// Whether there was a change that not everybody has heard of.
    are_changed: bool,
}

struct Open {
    place: Place,
    slot: Rc<Slot>,
    close: oneshot::Sender<Close>,
    task: JoinHandle<()>,
}

impl Listeners {
    fn new(worker: Rc<Worker>) -> Self {
        Self {
            worker,
            open: Vec::new(),
            draining: Vec::new(),
            are_changed: false,
        }
    }

    async fn apply(&mut self, apply: Apply) {
        let Apply {
            snapshot,
            open,
            close,
            wanted,
            done,
        } = apply;
        let previous = self.worker.routing();
        let routing = Routing::new(&snapshot, self.worker.index, &previous);
        *self.worker.routing.borrow_mut() = Rc::new(routing);
        for known in &self.open {
            if let Some(serving) = snapshot.serving.get(&known.place) {
                known.slot.replace(serving.clone());
            }
        }
        for (place, socket) in open {
            self.open(&snapshot, place, socket);
        }
        self.draining.retain(|(_, task)| !task.is_finished());
        let limit = snapshot.config.defaults.drain_timeout;
        self.close(|place| close.contains(&place), limit).await;
        self.vacate(&wanted).await;
        self.are_changed = true;
        let _ = done.send(());
    }

    fn open(&mut self, snapshot: &Snapshot, place: Place, socket: Bound) {
        let Some(serving) = snapshot.serving.get(&place) else {
            return;
        };
        let slot = Rc::new(Slot::new(self.worker.index, serving.clone()));
        let (close, closing) = oneshot::channel();
        let (worker, share) = (self.worker.clone(), slot.clone());
        let task = match socket {
            Bound::Tcp(socket) => TcpListener::from_std(socket)
                .map(|socket| spawn_local(listener::run(worker, share, socket, closing))),
            Bound::Udp(socket) => UdpSocket::from_std(socket)
                .map(|socket| spawn_local(udp::run(worker, share, socket, closing))),
        };
        match task {
            Ok(task) => self.open.push(Open {
                place,
                slot,
                close,
                task,
            }),
            Err(error) => tracing::error!(%error, %place, "a worker cannot watch its socket"),
        }
    }

    /// Ends the sessions of closed listeners that keep others from these places.
    async fn vacate(&mut self, wanted: &[Place]) {
        let is_wanted = |place: Place| wanted.iter().any(|other| other.overlaps(place));
        for (place, task) in &mut self.draining {
            if place.transport == Transport::Udp && is_wanted(*place) {
                task.abort();
                let _ = task.await;
            }
        }
        self.draining.retain(|(_, task)| !task.is_finished());
    }

    /// Closes the sockets at these places; their connections drain on.
    async fn close(&mut self, chosen: impl Fn(Place) -> bool, limit: Duration) {
        let (closing, open) = self
            .open
            .drain(..)
            .partition(|known: &Open| chosen(known.place));
        self.open = open;
        for known in closing {
            let (closed, told) = oneshot::channel();
            if known.close.send(Close { limit, closed }).is_ok() {
                let _ = told.await;
            }
            self.draining.push((known.place, known.task));
        }
    }

    async fn drain(mut self, limit: Duration) {
        self.close(|_| true, limit).await;
        for (_, task) in self.draining {
            let _ = task.await;
        }
    }
}
