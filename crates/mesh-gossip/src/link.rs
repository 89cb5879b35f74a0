//! The sealed UDP socket between chitchat and the network.
//!
//! Owns sealing, cutting, opening, joining and the drop counters on the way. Never decides who is
//! alive. Its only queues are the kernel's socket buffer (what overflows is lost, gossip repeats)
//! and the short one of rejects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::counters::{Counters, DropReason};
use crate::keys::{KeyId, KeyRing};
use crate::pieces::{Assembly, Joined, MESSAGE_MAX, cut};
use crate::replay::Senders;
use crate::seal::{self, BootId, DATAGRAM_MAX, Datagram, Nonce, OpenFault};
use crate::throttle::Throttle;

/// Rejects that wait to be looked at; more are dropped: one is enough to know.
const REJECTS_MAX: usize = 8;

/// A reject must answer one of so many last datagrams of ours.
const REJECT_MEMORY: u64 = 4096;

/// Answers to strangers: a burst of so many, then one each [`REJECT_EVERY`].
const REJECT_BURST: u32 = 20;
const REJECT_EVERY: Duration = Duration::from_millis(100);

/// Log lines about dropped datagrams: a few at once, then one each [`LOG_EVERY`].
const LOG_BURST: u32 = 3;
const LOG_EVERY: Duration = Duration::from_secs(10);

/// When our list of known nodes is so long, in bytes as gossiped (about 900 nodes), answering
/// others' lists would overflow chitchat's message: it subtracts the list from 65,507 without
/// looking. So such requests are dropped; chitchat's other half of the exchange still works.
const DIGEST_MAX: usize = 48 * 1024;

/// After an error of the socket itself, the wait before the next try.
const SOCKET_PAUSE: Duration = Duration::from_millis(50);

/// Pieces sent without letting other tasks run.
const PIECES_IN_A_ROW: usize = 16;

/// What outlives a restart of the engine: the socket, the keys, the nonces that are used up.
#[derive(Debug)]
pub(crate) struct Link {
    socket: UdpSocket,
    keys: KeyRing,
    boot: BootId,
    datagrams: AtomicU64,
    messages: AtomicU32,
    heard: AtomicBool,
    rejects: mpsc::Sender<SocketAddr>,
    counters: Counters,
}

impl Link {
    /// A link over `socket`. The receiver gets the senders of rejects that answer what we sent.
    pub(crate) fn new(
        socket: UdpSocket,
        keys: KeyRing,
        counters: Counters,
    ) -> (Arc<Self>, mpsc::Receiver<SocketAddr>) {
        let (rejects, rejected) = mpsc::channel(REJECTS_MAX);
        let link = Self {
            socket,
            keys,
            boot: BootId(rand::random()),
            datagrams: AtomicU64::new(0),
            messages: AtomicU32::new(0),
            heard: AtomicBool::new(false),
            rejects,
            counters,
        };
        (Arc::new(link), rejected)
    }

    /// Whether any peer with our key was ever heard of.
    pub(crate) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    async fn send(&self, to: SocketAddr, message: &[u8], datagram: &mut Vec<u8>) {
        let number = self.messages.fetch_add(1, Ordering::Relaxed);
        for (index, (header, bytes)) in cut(number, message).enumerate() {
            let counter = self.datagrams.fetch_add(1, Ordering::Relaxed) + 1;
            let nonce = Nonce {
                boot: self.boot,
                counter,
            };
            seal::seal(self.keys.sealing(), nonce, &[&header, bytes], datagram);
            match self.socket.send_to(datagram, to).await {
                Ok(sent) => {
                    self.counters.sent.inc();
                    self.counters.sent_bytes.inc_by(sent as u64);
                }
                Err(error) => {
                    tracing::debug!(%to, %error, "gossip datagram not sent");
                    self.counters.count_dropped(DropReason::Unsent, 1);
                    return;
                }
            }
            if index % PIECES_IN_A_ROW == PIECES_IN_A_ROW - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether `nonce` is of one of our last datagrams.
    fn sent_lately(&self, nonce: Nonce) -> bool {
        let sent = self.datagrams.load(Ordering::Relaxed);
        nonce.boot == self.boot
            && (sent.saturating_sub(REJECT_MEMORY) + 1..=sent).contains(&nonce.counter)
    }
}

/// Hands chitchat sockets over the one link.
pub(crate) struct SealedTransport(pub(crate) Arc<Link>);

#[async_trait]
impl Transport for SealedTransport {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(SealedSocket::new(Arc::clone(&self.0))))
    }
}

/// One life of the engine on the link.
pub(crate) struct SealedSocket {
    link: Arc<Link>,
    senders: Senders,
    assembly: Assembly,
    rejecting: Throttle,
    logging: Throttle,
    /// Whether our own list of nodes passed [`DIGEST_MAX`].
    crowded: bool,
    inbound: Box<[u8]>,
    outbound: Vec<u8>,
    message: Vec<u8>,
}

#[async_trait]
impl Socket for SealedSocket {
    /// Never fails: a datagram may be lost anyway.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.message.clear();
        message.serialize(&mut self.message);
        let length = self.message.len();
        if matches!(message, ChitchatMessage::Syn { .. }) {
            self.crowded = length > DIGEST_MAX;
        }
        if length > MESSAGE_MAX {
            self.drop_one(DropReason::Oversized, to);
            return Ok(());
        }
        self.link.send(to, &self.message, &mut self.outbound).await;
        Ok(())
    }

    /// Never fails, and may be cancelled at its only waits, before anything was taken.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            match self.link.socket.recv_from(&mut self.inbound).await {
                Ok((length, from)) => {
                    if let Some(message) = self.accept(length, from, Instant::now()) {
                        return Ok((from, message));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "gossip socket failed; trying on");
                    tokio::time::sleep(SOCKET_PAUSE).await;
                }
            }
        }
    }
}

impl SealedSocket {
    fn new(link: Arc<Link>) -> Self {
        let now = Instant::now();
        Self {
            link,
            senders: Senders::default(),
            assembly: Assembly::default(),
            rejecting: Throttle::new(REJECT_BURST, REJECT_EVERY, now),
            logging: Throttle::new(LOG_BURST, LOG_EVERY, now),
            crowded: false,
            // One byte more than a datagram of ours, so that a longer one is seen to be longer.
            inbound: vec![0; DATAGRAM_MAX + 1].into(),
            outbound: Vec::with_capacity(DATAGRAM_MAX),
            message: Vec::new(),
        }
    }

    /// Takes the datagram of `length` bytes in `inbound`; the message that it completes, if any.
    fn accept(&mut self, length: usize, from: SocketAddr, now: Instant) -> Option<ChitchatMessage> {
        self.link.counters.received.inc();
        self.link.counters.received_bytes.inc_by(length as u64);
        let expired = self.assembly.expire(now);
        if expired > 0 {
            self.link
                .counters
                .count_dropped(DropReason::Incomplete, expired);
        }
        match seal::recognize(&self.inbound[..length]) {
            Some(Datagram::Sealed { key, nonce }) => match self.unseal(length, key, nonce, now) {
                Ok(message) => return message,
                Err(reason) => {
                    if reason == DropReason::UnknownKey && self.rejecting.pass(now).is_some() {
                        self.reject(nonce, from);
                    }
                    self.drop_one(reason, from);
                }
            },
            Some(Datagram::Reject(nonce)) if self.link.sent_lately(nonce) => {
                // A full queue holds the same news already.
                let _ = self.link.rejects.try_send(from);
            }
            Some(Datagram::Reject(_)) => self.drop_one(DropReason::StrayReject, from),
            None => self.drop_one(DropReason::Malformed, from),
        }
        None
    }

    fn unseal(
        &mut self,
        length: usize,
        key: KeyId,
        nonce: Nonce,
        now: Instant,
    ) -> Result<Option<ChitchatMessage>, DropReason> {
        if nonce.boot == self.link.boot {
            return Err(DropReason::Own);
        }
        let piece = seal::open(&self.link.keys, key, nonce, &mut self.inbound[..length]).map_err(
            |fault| match fault {
                OpenFault::UnknownKey => DropReason::UnknownKey,
                OpenFault::Forged => DropReason::Forged,
            },
        )?;
        if !self.senders.admit(nonce, now) {
            return Err(DropReason::Replayed);
        }
        self.link.heard.store(true, Ordering::Relaxed);
        let whole = match self.assembly.add(nonce.boot, piece, now) {
            Joined::Whole(whole) => whole,
            Joined::Waiting => return Ok(None),
            Joined::Misfit => return Err(DropReason::Misfit),
        };
        let message =
            ChitchatMessage::deserialize(&mut &whole[..]).map_err(|_| DropReason::Undecodable)?;
        if self.crowded && matches!(message, ChitchatMessage::Syn { .. }) {
            return Err(DropReason::Crowded);
        }
        Ok(Some(message))
    }

    fn reject(&self, nonce: Nonce, to: SocketAddr) {
        // Not waited for: a stranger must not hold up the mesh.
        if self
            .link
            .socket
            .try_send_to(&seal::reject(nonce), to)
            .is_ok()
        {
            self.link.counters.rejects.inc();
        }
    }

    fn drop_one(&mut self, reason: DropReason, peer: SocketAddr) {
        self.link.counters.count_dropped(reason, 1);
        // A node that finds itself in its own seed list is no news.
        if reason != DropReason::Own
            && let Some(unlogged) = self.logging.pass(Instant::now())
        {
            tracing::warn!(?reason, %peer, unlogged, "gossip datagram dropped");
        }
    }
}
