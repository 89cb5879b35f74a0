//! UDP proxying: datagrams of one client are a session with one upstream, until it falls silent.
//!
//! Owns one worker's share of a listener: its socket, and the sessions by the addresses of clients.
//! The system gives the datagrams of a client to the same worker each time. Never looks at the bytes,
//! and never waits for room: what cannot be sent at once is lost, as on any way that is full.

mod session;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use proxy_balance::{Ask, Groups};
use proxy_config::compiled::{Balance, Protocol};
use rand::RngExt as _;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::flags::Flag;
use crate::http::address_key;
use crate::listener::{Close, Slot, note};
use crate::upstream::open_datagrams;
use crate::worker::Worker;
use session::Session;

/// The largest datagram: what a length of 16 bits can tell. None is ever cut.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// So many datagrams are taken in before others have their turn.
const BATCH: usize = 64;

thread_local! {
    /// Where datagrams arrive. They are sent on at once, so all sessions of a thread share it.
    static ARRIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; DATAGRAM_BYTES_MAX].into());
}

/// A listener in one worker.
#[derive(Debug)]
struct Front {
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    socket: UdpSocket,
    sessions: RefCell<HashMap<SocketAddr, Rc<Session>>>,
}

/// Takes in and sends on until it is told to close, then lets the sessions end.
pub(crate) async fn run(
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    socket: UdpSocket,
    mut close: oneshot::Receiver<Close>,
) {
    let front = Rc::new(Front {
        worker,
        slot,
        socket,
        sessions: RefCell::default(),
    });
    let mut tasks = JoinSet::new();
    let mut orphaned = false;
    let order = loop {
        tokio::select! {
            biased;
            order = &mut close, if !orphaned => match order {
                Ok(order) => break order,
                // Without anybody who could give an order it goes on.
                Err(_) => orphaned = true,
            },
            () = front.turn(&mut tasks) => {}
        }
    };
    let now = Instant::now();
    front.slot.begin_drain(now);
    // The address stays taken: who has a session is answered from it.
    let _ = order.closed.send(());
    let drained = async {
        while !tasks.is_empty() {
            front.turn(&mut tasks).await;
        }
    };
    if timeout_at(now + order.limit, drained).await.is_err() {
        let serving = front.slot.serving();
        let counters = serving.counters(front.slot.worker);
        counters.flags[Flag::DrainTimeout.index()].add(tasks.len() as u64);
        tasks.shutdown().await;
    }
}

impl Front {
    /// Waits for one thing and deals with it.
    async fn turn(self: &Rc<Self>, tasks: &mut JoinSet<()>) {
        tokio::select! {
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => note(ended),
            ready = self.socket.readable() => {
                if ready.is_ok() {
                    self.take_in(tasks);
                }
                // There may always be more: others have their turn.
                tokio::task::yield_now().await;
            }
        }
    }

    fn take_in(self: &Rc<Self>, tasks: &mut JoinSet<()>) {
        ARRIVED.with_borrow_mut(|room| {
            for _ in 0..BATCH {
                match self.socket.try_recv_from(room) {
                    Ok((count, client)) => self.forward(client, &room[..count], tasks),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    // What became of an earlier answer, as some systems tell; there is no session
                    // that it could be known by.
                    Err(error) => {
                        tracing::debug!(%error, "a UDP listener cannot receive");
                        return;
                    }
                }
            }
        });
    }

    /// Sends a client's datagram to its upstream; one without a session gets one.
    fn forward(self: &Rc<Self>, client: SocketAddr, datagram: &[u8], tasks: &mut JoinSet<()>) {
        let serving = self.slot.serving();
        let counters = serving.counters(self.slot.worker);
        counters.udp.received.increment();
        counters.bytes_received.add(datagram.len() as u64);
        let known = self.sessions.borrow().get(&client).cloned();
        // An endpoint that is not well loses its sessions with their next datagrams.
        if let Some(session) = known
            && session.is_usable()
            && session.send(datagram)
        {
            return;
        }
        let opened = match self.slot.is_draining() {
            true => Err(Flag::DrainTimeout),
            false => self.open(client),
        };
        match opened {
            Ok(session) => {
                session.send(datagram);
                let before = self.sessions.borrow_mut().insert(client, session.clone());
                if let Some(before) = before {
                    before.end();
                }
                let room = self.worker.enter();
                let front = self.clone();
                tasks.spawn_local(async move {
                    let _room = room;
                    session.run(&front).await;
                });
            }
            Err(flag) => {
                counters.udp.dropped.increment();
                counters.flags[flag.index()].increment();
            }
        }
    }

    /// A session for this client, with an endpoint of its own.
    fn open(&self, client: SocketAddr) -> Result<Rc<Session>, Flag> {
        let serving = self.slot.serving();
        let Protocol::Udp(listener) = &serving.listener.protocol else {
            return Err(Flag::NoRoute);
        };
        if !self.worker.has_room() {
            return Err(Flag::UpstreamOverflow);
        }
        let routing = self.worker.routing();
        let draw = self.worker.rng().random_range(0..listener.to.total.max(1));
        let upstream = routing.upstream(listener.to.choose(draw));
        let upstream = upstream.ok_or(Flag::NoCluster)?;
        let by_address = upstream.cluster.balance == Balance::IpHash;
        let key = by_address.then(|| address_key(client.ip()));
        let ask = Ask { key, avoid: &[] };
        let picked = upstream.pick(&mut self.worker.rng(), Groups::WHOLE, ask);
        let Some(endpoint) = picked else {
            upstream.counters().none_healthy.increment();
            return Err(Flag::NoHealthyUpstream);
        };
        let datagrams = open_datagrams(&upstream, endpoint)?;
        Ok(Session::new(client, (&upstream, endpoint), datagrams))
    }

    /// Sends an answer to a client; whether that could be done.
    fn answer(&self, client: SocketAddr, datagram: &[u8]) -> bool {
        // The runtime's own way would wait until it heard that there is room.
        let socket = SockRef::from(&self.socket);
        let sent = socket.send_to(datagram, &client.into());
        let serving = self.slot.serving();
        let counters = serving.counters(self.slot.worker);
        match sent.is_ok() {
            true => {
                counters.udp.sent.increment();
                counters.bytes_sent.add(datagram.len() as u64);
            }
            false => counters.udp.dropped.increment(),
        }
        sent.is_ok()
    }

    /// Forgets a session, unless its client has a newer one.
    fn forget(&self, session: &Rc<Session>) {
        let mut sessions = self.sessions.borrow_mut();
        let is_it = |known: &Rc<Session>| Rc::ptr_eq(known, session);
        if sessions.get(&session.client).is_some_and(is_it) {
            sessions.remove(&session.client);
        }
    }
}
