//! TCP proxying: a client's connection is joined to one of an upstream's.
//!
//! Owns the copying both ways, with half-close: an end in one direction is passed on, and the other
//! direction goes on. Never looks at the bytes.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use proxy_balance::{Ask, Groups};
use proxy_config::compiled::{AccessLog, Balance, Protocol, Split};
use rand::RngExt as _;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::access_log::Line;
use crate::clock::timestamp;
use crate::counters::Active;
use crate::deadline::{Progress, Timer};
use crate::flags::Flag;
use crate::http::address_key;
use crate::listener::{Serving, Slot};
use crate::passthrough::{UNRECOGNIZED_NAME, route};
use crate::proxy_protocol::Ends;
use crate::upstream::{ConnectFault, Connection, Limit, Seen, Upstream, Wanted, connect};
use crate::wire::{Amount, Reader, Stream, Writer, reset};
use crate::worker::Worker;

/// A client's connection is tried at so many endpoints at most.
const TRIES_MAX: usize = 3;
/// What is told a client that goes nowhere must be taken within this time.
const PARTING: Duration = Duration::from_secs(1);
/// After a read of this size the next one is prepared for more.
const MUCH: usize = 4 * 1024;

/// Serves a connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, slot: Rc<Slot>, stream: Stream, peer: SocketAddr) {
    let serving = slot.serving();
    let counters = serving.counters(slot.worker);
    counters.connections.increment();
    let _active = Active::count(&counters.connections_active);
    let started = Instant::now();
    let mut timer = Timer::new(started);
    let story = Story::default();
    let (mut reader, writer) = stream.split();
    let way = match &serving.listener.protocol {
        // The listener became another one; its old clients come again.
        Protocol::Http(_) | Protocol::Udp(_) => return,
        Protocol::Tcp(tcp) => Ok((&tcp.to, tcp.idle_timeout)),
        Protocol::TlsPassthrough(tls) => {
            let limit = started + worker.routing().config.defaults.head_timeout;
            let until = (&mut timer, limit);
            let (way, name) = route(tls, &mut reader, until, counters).await;
            story.server_name.replace(name);
            way.map(|to| (to, tls.idle_timeout))
        }
    };
    let ends = Ends {
        client: peer,
        local: match worker.routing().introduces {
            true => reader.local_end(serving.address),
            false => serving.address,
        },
    };
    let client = (reader, writer);
    let flag = match way {
        Ok(way) => join(&worker, (way, &ends), client, &mut timer, &story).await,
        Err(unroutable) => {
            turn_away(client, &mut timer, unroutable.is_tls).await;
            unroutable.flag
        }
    };

    let ended = Instant::now();
    counters.bytes_received.add(story.received.get());
    counters.bytes_sent.add(story.sent.get());
    counters.time.record(ended - started);
    if let Some(flag) = flag {
        counters.flags[flag.index()].increment();
    }
    if worker.routing().config.defaults.access_log == AccessLog::Json {
        let took = ended - started;
        worker.log.write(story.line(&serving, peer, flag, took));
    }
}

/// Ends a connection that goes nowhere; if it speaks TLS, it is told why.
async fn turn_away((reader, mut writer): (Reader, Writer), timer: &mut Timer, is_tls: bool) {
    let is_told = is_tls && {
        let limit = Instant::now() + PARTING;
        let told = async {
            writer.send(UNRECOGNIZED_NAME).await?;
            writer.flush().await?;
            writer.finish().await
        };
        matches!(timer.until(|| Some(limit), told).await, Ok(Ok(())))
    };
    if !is_told {
        reset(reader, writer);
    }
}

/// What is told of a connection.
#[derive(Debug, Default)]
struct Story {
    received: Cell<u64>,
    sent: Cell<u64>,
    /// The cluster and, once it is chosen, the number of the endpoint.
    upstream: RefCell<Option<(Rc<Upstream>, usize)>>,
    /// What it asked for, where TLS is passed on.
    server_name: RefCell<Option<Box<str>>>,
}

impl Story {
    fn line(self, serving: &Serving, peer: SocketAddr, flag: Option<Flag>, took: Duration) -> Line {
        let wall = SystemTime::now();
        let mut line = Line::new(&timestamp(wall.checked_sub(took).unwrap_or(wall)));
        let is_tls = matches!(serving.listener.protocol, Protocol::TlsPassthrough(_));
        line.text("listener", &serving.label);
        line.text("protocol", if is_tls { "TLS" } else { "TCP" });
        line.text("flags", flag.map_or("-", Flag::short));
        line.number("bytes_received", self.received.get());
        line.number("bytes_sent", self.sent.get());
        line.millis("duration_ms", took);
        line.text("peer", &peer.to_string());
        if let Some(name) = self.server_name.into_inner() {
            line.text("requested_server_name", &name);
        }
        if let Some((upstream, endpoint)) = self.upstream.into_inner() {
            line.text("cluster", &upstream.cluster.name.to_string());
            line.text("upstream", &upstream.endpoints[endpoint].label);
        }
        line
    }
}

/// Connects and copies; why it ended, unless both sides ended in good order.
async fn join(
    worker: &Worker,
    ((to, idle_timeout), ends): ((&Split, Option<Duration>), &Ends),
    (mut reader, mut writer): (Reader, Writer),
    timer: &mut Timer,
    story: &Story,
) -> Option<Flag> {
    let routing = worker.routing();
    let draw = worker.rng().random_range(0..to.total.max(1));
    let Some(upstream) = &routing.upstream(to.choose(draw)) else {
        return Some(Flag::NoCluster);
    };
    let counters = upstream.counters();
    let _active = Active::count(&counters.requests_active);
    let (mut connection, endpoint) = match open(worker, upstream, ends, timer).await {
        Ok(opened) => opened,
        Err(flag) => {
            // A reset tells the client more than an end would.
            reset(reader, writer);
            return Some(flag);
        }
    };
    story.upstream.replace(Some((upstream.clone(), endpoint)));
    let _in_use = upstream.endpoints[endpoint].enter();
    counters.requests.increment();

    let progress = Progress::new(Instant::now());
    let up = copy(
        &mut reader,
        &mut connection.writer,
        &progress,
        &story.received,
    );
    let down = copy(&mut connection.reader, &mut writer, &progress, &story.sent);
    let both = async {
        let up = async { up.await.map_err(|_| Flag::UpstreamTermination) };
        let down = async { down.await.map_err(|_| Flag::DownstreamTermination) };
        futures_util::future::try_join(up, down).await
    };
    let limit = || idle_timeout.map(|idle| progress.limit(idle));
    let ended = timer.until(limit, both).await;
    drop(connection);
    upstream.wake_one();
    match ended {
        Ok(Ok(_)) => None,
        Ok(Err(flag)) => Some(flag),
        Err(_) => Some(Flag::StreamIdleTimeout),
    }
}

/// A connection to an endpoint; after a failure, to another one.
async fn open(
    worker: &Worker,
    upstream: &Rc<Upstream>,
    ends: &Ends,
    timer: &mut Timer,
) -> Result<(Connection, usize), Flag> {
    let by_address = upstream.cluster.balance == Balance::IpHash;
    let key = by_address.then(|| address_key(ends.client.ip()));
    let mut failed: SmallVec<[usize; TRIES_MAX]> = SmallVec::new();
    loop {
        let avoid = &failed;
        let picked = upstream.pick(&mut worker.rng(), Groups::WHOLE, Ask { key, avoid });
        let Some(endpoint) = picked else {
            upstream.counters().none_healthy.increment();
            return Err(Flag::NoHealthyUpstream);
        };
        let began = Instant::now();
        match connect(
            upstream,
            endpoint,
            Wanted::Fresh(Some(ends)),
            timer,
            Limit(None),
        )
        .await
        {
            Ok(connection) => {
                upstream.answered(endpoint, 200, began);
                return Ok((connection, endpoint));
            }
            Err(ConnectFault::Overflow) => return Err(Flag::UpstreamOverflow),
            Err(_) => {
                upstream.failed(endpoint, Seen::Local, || began.elapsed());
                failed.push(endpoint);
            }
        }
        if failed.len() >= TRIES_MAX.min(upstream.endpoints.len()) {
            return Err(Flag::UpstreamConnectFailure);
        }
        upstream.counters().retries.increment();
    }
}

/// Copies one direction until it ends, and passes the end on.
async fn copy(
    from: &mut Reader,
    to: &mut Writer,
    progress: &Progress,
    copied: &Cell<u64>,
) -> io::Result<()> {
    // A connection that carries little keeps a small buffer; there may be many of them.
    let mut amount = Amount::Little;
    loop {
        // Something may have come along with the end of a handshake.
        let count = match from.buffer.len() {
            0 => from.fill(amount).await?,
            ahead => ahead,
        };
        if count == 0 {
            return to.finish().await;
        }
        progress.mark();
        to.send(&from.buffer).await?;
        to.flush().await?;
        from.buffer.clear();
        progress.mark();
        copied.set(copied.get() + count as u64);
        amount = if count >= MUCH {
            Amount::Much
        } else {
            Amount::Little
        };
        if amount == Amount::Little {
            from.shrink();
        }
    }
}
