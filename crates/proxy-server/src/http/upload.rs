//! A request's body on its way from the client to the upstream.
//!
//! Owns the copy that a retry sends again, and where an upload stands. Reads no more than the
//! upstream takes.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;

use http::HeaderMap;
use tokio::time::Instant;

use super::ends::{FromClient, Sink};
use super::mirror::Kept;
use crate::deadline::Progress;
use crate::http1::{BodyFault, Framing, Step};

/// So much of a body is kept for a retry; a longer one is sent once only.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Why an upload stopped.
#[derive(Debug)]
pub(super) enum UploadFault {
    /// The upstream takes no more. It may have answered all the same.
    Upstream,
    /// The client went away.
    ClientGone,
    /// What the client sends is no body.
    Client(BodyFault),
}

/// Who an upload waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Client,
    Upstream,
}

/// What others may see of an upload while it goes on.
#[derive(Debug)]
pub(super) struct Standing {
    /// When the last byte was handed to an upstream for the first time.
    pub(super) finished: Cell<Option<Instant>>,
    /// Whether the upstream of this try was handed the whole request, its head included. If not,
    /// its connection cannot be used again, however well it answered.
    pub(super) delivered: Cell<bool>,
    pub(super) waiting: Cell<Waiting>,
    pub(super) progress: Progress,
    /// Bytes of body received.
    pub(super) received: Cell<u64>,
    /// Whether all that was received can be sent again.
    pub(super) kept: Cell<bool>,
    /// Whether a client that waits for it was told to go on (100 Continue).
    pub(super) invited: Cell<bool>,
}

impl Standing {
    /// The standing of a request that arrived now.
    pub(super) fn new(framing: Framing, now: Instant) -> Self {
        Self {
            finished: Cell::new((framing == Framing::Empty).then_some(now)),
            delivered: Cell::new(false),
            waiting: Cell::new(Waiting::Client),
            progress: Progress::new(now),
            received: Cell::new(0),
            kept: Cell::new(true),
            invited: Cell::new(false),
        }
    }
}

/// One request's body.
#[derive(Debug)]
pub(super) struct Upload<'a, B> {
    pub(super) body: B,
    /// What was read so far, while it can still be sent again.
    kept: Option<Vec<u8>>,
    trailers: Option<HeaderMap>,
    standing: &'a Standing,
}

impl<'a, B: FromClient> Upload<'a, B> {
    pub(super) fn new(body: B, standing: &'a Standing) -> Self {
        Self {
            body,
            kept: Some(Vec::new()),
            trailers: None,
            standing,
        }
    }

    /// Whether nothing of the body arrived yet: then a client that asked for it waits for
    /// 100 Continue.
    pub(super) fn is_untouched(&self) -> bool {
        self.body.is_untouched() && self.standing.received.get() == 0
    }

    /// All of the body, if it arrived whole and was kept.
    pub(super) fn kept(&self) -> Option<Kept> {
        let whole = self.standing.finished.get().is_some();
        let bytes = self.kept.clone().filter(|_| whole)?;
        let trailers = self.trailers.clone();
        Some(Kept { bytes, trailers })
    }

    /// Gives the body to `upstream`, behind what is pending there, from its first byte on. When all
    /// is given it watches the client, and so ends with a fault or not at all.
    pub(super) async fn run(&mut self, upstream: &mut impl Sink) -> UploadFault {
        if let Err(fault) = self.give(upstream).await {
            return fault;
        }
        if self.standing.finished.get().is_none() {
            self.standing.finished.set(Some(Instant::now()));
        }
        self.standing.delivered.set(true);
        poll_fn(|cx| self.body.poll_gone(cx)).await;
        UploadFault::ClientGone
    }

    async fn give(&mut self, upstream: &mut impl Sink) -> Result<(), UploadFault> {
        let sent_failed = |_: io::Error| UploadFault::Upstream;
        self.standing.waiting.set(Waiting::Upstream);
        if let Some(kept) = &self.kept
            && !kept.is_empty()
        {
            let last = self.body.is_over() && self.trailers.is_none();
            upstream.send(kept, last).await.map_err(sent_failed)?;
        }
        loop {
            match self.body.step() {
                Ok(Step::Data(count)) => {
                    self.standing.waiting.set(Waiting::Upstream);
                    let received = self.standing.received.get();
                    self.standing.received.set(received + count as u64);
                    self.give_data(upstream, count).await.map_err(sent_failed)?;
                    self.standing.progress.mark();
                }
                Ok(Step::More) => {
                    upstream.flush().await.map_err(sent_failed)?;
                    self.standing.waiting.set(Waiting::Client);
                    self.body.more().await.map_err(UploadFault::Client)?;
                    self.standing.progress.mark();
                }
                Ok(Step::End) => break,
                Err(fault) => return Err(UploadFault::Client(fault)),
            }
        }
        if let Some(trailers) = self.body.take_trailers() {
            self.trailers = Some(trailers);
        }
        self.standing.waiting.set(Waiting::Upstream);
        let finished = upstream.finish(self.trailers.clone()).await;
        finished.map_err(sent_failed)
    }

    /// Gives the next `count` bytes. They are kept before anything can interrupt this, so that a
    /// restart finds them once, in one place.
    async fn give_data(&mut self, upstream: &mut impl Sink, count: usize) -> io::Result<()> {
        if let Some(kept) = &mut self.kept
            && kept.len() + count <= KEPT_BYTES_MAX
        {
            let from = kept.len();
            kept.extend_from_slice(self.body.data(count));
            self.body.consume(count);
            let last = self.body.is_over();
            return upstream.send(&kept[from..], last).await;
        }
        self.kept = None;
        self.standing.kept.set(false);
        upstream.pass(&mut self.body, count).await
    }
}
