//! One worker's share of a listener: it accepts, serves, and drains when the listener closes.
//!
//! Owns the accept loop and the tasks of the connections that it accepted. Never binds a socket
//! (that is `bind`) and never speaks a protocol.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy_config::compiled::{Listener, Protocol};
use tls::Listening;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use crate::accept::prepare;
use crate::counters::ListenerCounters;
use crate::flags::Flag;
use crate::wire::Stream;
use crate::worker::Worker;
use crate::{http, tcp};

/// The first pause after the system refused a connection (out of files or memory); it doubles.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest such pause.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// After the drain time a connection gets so long to end by itself.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What is served at an address right now, the same for all workers.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) listener: Arc<Listener>,
    /// Where it is bound.
    pub(crate) address: SocketAddr,
    /// The listener's name.
    pub(crate) label: Arc<str>,
    /// Kept over config changes.
    pub(crate) counters: Arc<[ListenerCounters]>,
    /// Its certificates, if it speaks TLS.
    pub(crate) tls: Option<Arc<Listening>>,
}

impl Serving {
    /// The counters of the worker of this number.
    pub(crate) fn counters(&self, worker: usize) -> &ListenerCounters {
        &self.counters[worker]
    }
}

/// A listener in one worker.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The worker's number.
    pub(crate) worker: usize,
    /// Counted by this worker alone: the shared count would travel between the cores' caches.
    serving: RefCell<Rc<Serving>>,
    drain_began: Cell<Option<Instant>>,
    is_cut: Cell<bool>,
    /// Wakes the connections when a drain begins, and when its time is over.
    pub(crate) drain: Notify,
}

impl Slot {
    pub(crate) fn new(worker: usize, serving: Serving) -> Self {
        Self {
            worker,
            serving: RefCell::new(Rc::new(serving)),
            drain_began: Cell::new(None),
            is_cut: Cell::new(false),
            drain: Notify::new(),
        }
    }

    /// What is served right now.
    pub(crate) fn serving(&self) -> Rc<Serving> {
        self.serving.borrow().clone()
    }

    /// From the next request on, serve this.
    pub(crate) fn replace(&self, serving: Serving) {
        *self.serving.borrow_mut() = Rc::new(serving);
    }

    /// When the listener closed, if it did.
    pub(crate) fn drain_began(&self) -> Option<Instant> {
        self.drain_began.get()
    }

    /// Whether the time of its drain is over: what can end by itself does so now.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// It closed then.
    pub(crate) fn begin_drain(&self, now: Instant) {
        self.drain_began.set(Some(now));
        self.drain.notify_waiters();
    }

    /// Whether the listener closed.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain_began.get().is_some()
    }
}

/// An order to close.
#[derive(Debug)]
pub(crate) struct Close {
    /// The time for what is under way.
    pub(crate) limit: Duration,
    /// Told when the socket is closed; connections may still be draining.
    pub(crate) closed: oneshot::Sender<()>,
}

/// Accepts and serves until it is told to close, then drains.
pub(crate) async fn run(
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    socket: TcpListener,
    close: oneshot::Receiver<Close>,
) {
    let mut connections = JoinSet::new();
    let close = accept(&worker, &slot, &socket, &mut connections, close).await;
    take_queue(&worker, &slot, socket, &mut connections);
    let now = Instant::now();
    slot.begin_drain(now);
    let _ = close.closed.send(());
    let ends = now + close.limit;
    if timeout_at(ends, all_ended(&mut connections)).await.is_ok() {
        return;
    }
    // Who has a story to tell, as a client that went over to another protocol, tells it.
    slot.is_cut.set(true);
    slot.drain.notify_waiters();
    let last = Instant::now() + LAST_WORDS;
    if timeout_at(last, all_ended(&mut connections)).await.is_err() {
        tracing::info!(
            listener = &*slot.serving().label,
            connections = connections.len(),
            "the drain time is over; closing what is left"
        );
        let counters = &slot.serving().counters[slot.worker];
        counters.flags[Flag::DrainTimeout.index()].add(connections.len() as u64);
        connections.shutdown().await;
    }
}

async fn all_ended(connections: &mut JoinSet<()>) {
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

/// Accepts until there is an order to close. Without anybody who could give one it goes on.
async fn accept(
    worker: &Rc<Worker>,
    slot: &Rc<Slot>,
    socket: &TcpListener,
    connections: &mut JoinSet<()>,
    mut close: oneshot::Receiver<Close>,
) -> Close {
    let mut pause = ACCEPT_PAUSE_MIN;
    let mut orphaned = false;
    loop {
        tokio::select! {
            biased;
            order = &mut close, if !orphaned => match order {
                Ok(order) => return order,
                Err(_) => orphaned = true,
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => note(ended),
            accepted = socket.accept(), if worker.has_room() => match accepted {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    serve(worker, slot, stream, peer, connections);
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, listener = &*slot.serving().label, "cannot accept; \
                        raise the limit of open files (ulimit -n) if it is reached");
                    sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            },
            // Full: connections stay in the kernel's queue until others have ended.
            () = sleep(ACCEPT_PAUSE_MIN), if !worker.has_room() => {}
        }
    }
}

/// Errors of the one connection that was being accepted, not of accepting.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Closes the socket, but takes what the kernel accepted before: those clients are connected.
fn take_queue(
    worker: &Rc<Worker>,
    slot: &Rc<Slot>,
    socket: TcpListener,
    connections: &mut JoinSet<()>,
) {
    // The runtime's socket only looks where it was told that something is; the plain one sees what
    // came since.
    let Ok(socket) = socket.into_std() else {
        return;
    };
    while let Ok((stream, peer)) = socket.accept() {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            serve(worker, slot, stream, peer, connections);
        }
    }
}

fn serve(
    worker: &Rc<Worker>,
    slot: &Rc<Slot>,
    stream: TcpStream,
    peer: SocketAddr,
    connections: &mut JoinSet<()>,
) {
    // Small pieces of an answer must not wait for acknowledgements. If it fails, the connection is
    // gone, and the first read will tell.
    let _ = stream.set_nodelay(true);
    let (worker, slot) = (worker.clone(), slot.clone());
    let room = worker.enter();
    let serving = slot.serving();
    if serving.tls.is_some() || serving.listener.proxy_protocol.is_some() {
        connections.spawn_local(async move {
            let _room = room;
            serve_prepared(worker, slot, stream, peer).await;
        });
        return;
    }
    let stream = Stream::from(stream);
    let is_http = matches!(serving.listener.protocol, Protocol::Http(_));
    if is_http {
        connections.spawn_local(async move {
            let _room = room;
            http::serve(worker, slot, stream, peer).await;
        });
    } else {
        connections.spawn_local(async move {
            let _room = room;
            tcp::serve(worker, slot, stream, peer).await;
        });
    }
}

/// Serves a connection that begins with something else than its protocol.
async fn serve_prepared(worker: Rc<Worker>, slot: Rc<Slot>, stream: TcpStream, peer: SocketAddr) {
    let Some((stream, peer)) = prepare(&worker, &slot, stream, peer).await else {
        return;
    };
    match slot.serving().listener.protocol {
        Protocol::Http(_) => http::serve(worker, slot, stream, peer).await,
        // The socket is one of TCP; the listener became another one.
        Protocol::Udp(_) => {}
        Protocol::Tcp(_) | Protocol::TlsPassthrough(_) => {
            tcp::serve(worker, slot, stream, peer).await;
        }
    }
}

/// A connection ended. A panic there is a fault of ours and has cost that connection only.
pub(crate) fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked; that connection is lost");
    }
}
