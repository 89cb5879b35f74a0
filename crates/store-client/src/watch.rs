//! A watch that outlives connections and nodes.
//!
//! Owns the position (the first revision not yet delivered) and goes on from there on the next
//! endpoint: nothing is lost, nothing comes twice, no revision is torn. Never skips over
//! compacted history; it reports it and ends.

use std::time::Duration;

use store_api::etcdserverpb::watch_client::WatchClient;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use store_api::mvccpb::Event;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::client::{Client, no_answer};
use crate::error::{ClientError, Tried, read_elsewhere, reason};
use crate::kv::ANSWER_MAX;

/// The first pause after every endpoint failed; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two rounds over the endpoints.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Requests that wait to be sent; only the create request ever does.
const REQUESTS_MAX: usize = 4;

/// Events of whole revisions, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchBatch {
    /// Everything up to this revision that the watch asked for has now been delivered.
    pub revision: i64,
    /// The events; empty on a progress notice.
    pub events: Vec<Event>,
}

/// Why a watch has nothing more to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The next revision is compacted. Read the keys anew, then watch from that read's revision.
    #[error(
        "required revision has been compacted: history begins at revision {compact_revision}; \
         read the keys again and watch from there"
    )]
    Compacted {
        /// The oldest revision that the store still has.
        compact_revision: i64,
    },
    /// The store ended the watch.
    #[error("the store ended the watch: {reason}")]
    Canceled {
        /// The store's own words.
        reason: String,
    },
    /// For the time of the client's deadline no endpoint took the watch. The position is kept:
    /// ask again to go on.
    #[error(transparent)]
    Unavailable(ClientError),
}

/// A watch in progress. Ends when dropped.
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    request: WatchCreateRequest,
    live: Option<Live>,
    /// Where the next connection is tried, counted on from the preferred endpoint.
    turn: usize,
}

/// One stream on one endpoint.
#[derive(Debug)]
struct Live {
    answers: Streaming<WatchResponse>,
    /// Kept so that the stream is not half closed.
    _requests: mpsc::Sender<WatchRequest>,
    /// Something came after the watch was created.
    answered: bool,
    /// Events of a response that comes in fragments.
    pieces: Vec<Event>,
}

/// Why an endpoint did not take a watch.
enum OpenFault {
    /// Another one may.
    Elsewhere(Tried),
    /// The store's final word.
    Final(String),
}

impl Client {
    /// Watches what the request names, beginning at its `start_revision` (0: from the moment that
    /// the first endpoint takes the watch). Connects in [`Watcher::next`]. A `watch_id` is ignored:
    /// every watcher has a stream of its own.
    pub fn watch(&self, request: WatchCreateRequest) -> Watcher {
        let request = WatchCreateRequest {
            watch_id: 0,
            ..request
        };
        Watcher {
            client: self.clone(),
            request,
            live: None,
            turn: 0,
        }
    }
}

impl Watcher {
    /// The first revision that was not delivered yet; 0 until a watch from "now" is under way.
    pub fn next_revision(&self) -> i64 {
        self.request.start_revision
    }

    /// Waits for the next events or progress notice. Cancel safe: dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// [`WatchError`]; after `Unavailable` it can be called again.
    pub async fn next(&mut self) -> Result<WatchBatch, WatchError> {
        loop {
            if self.live.is_none() {
                self.connect().await?;
            }
            let Some(live) = &mut self.live else { continue };
            // A lost stream is no error: the position is known, so go on elsewhere.
            let Ok(Some(answer)) = live.answers.message().await else {
                let said_nothing = !live.answered;
                self.live = None;
                if said_nothing {
                    // An endpoint that takes every watch and drops it must not be asked in a spin.
                    sleep(PAUSE_MIN).await;
                }
                continue;
            };
            live.answered = true;
            if let Some(batch) = self.take(answer)? {
                return Ok(batch);
            }
        }
    }

    /// Tries endpoints, round after round, until one takes the watch or the deadline passes.
    async fn connect(&mut self) -> Result<(), WatchError> {
        let deadline = Instant::now() + self.client.options().deadline;
        let mut pause = PAUSE_MIN;
        loop {
            let order: Vec<usize> = self.client.order().collect();
            let mut tried = Vec::with_capacity(order.len());
            for _ in 0..order.len() {
                let index = order[self.turn % order.len()];
                self.turn = self.turn.wrapping_add(1);
                match self.open(index).await {
                    Ok(answer) => {
                        self.client.prefer(index);
                        // The preferred endpoint is now this one; when it fails, the one after it
                        // comes first.
                        self.turn = 1;
                        return self.begin(&answer);
                    }
                    Err(OpenFault::Elsewhere(fault)) => tried.push(fault),
                    Err(OpenFault::Final(reason)) => return Err(WatchError::Canceled { reason }),
                }
            }
            if Instant::now() + pause >= deadline {
                return Err(WatchError::Unavailable(ClientError::Unavailable { tried }));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Asks one endpoint and waits until it says that the watch is created (or refused); asks once
    /// more if it came with an old token.
    async fn open(&mut self, index: usize) -> Result<WatchResponse, OpenFault> {
        let sign_in = self.client.sign_in().clone();
        let helps = |asked: &Result<WatchResponse, OpenFault>| match asked {
            Ok(first) => first.canceled && sign_in.helps_with(&first.cancel_reason),
            Err(OpenFault::Final(reason)) => sign_in.helps_with(reason),
            Err(OpenFault::Elsewhere(_)) => false,
        };
        let asked = self.open_with(index, false).await;
        if helps(&asked) {
            return self.open_with(index, true).await;
        }
        asked
    }

    async fn open_with(&mut self, index: usize, fresh: bool) -> Result<WatchResponse, OpenFault> {
        let endpoint = self.client.endpoint(index).clone();
        let wait = self.client.options().connect_timeout;
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(self.request.clone())),
        };
        let asked = async {
            let (requests, outbound) = mpsc::channel(REQUESTS_MAX);
            requests
                .send(create)
                .await
                .map_err(|_| Status::unavailable("the stream closed"))?;
            let sign_in = self.client.sign_in();
            let messages = ReceiverStream::new(outbound);
            let by = Instant::now() + wait;
            let request = sign_in.request(&endpoint, by, fresh, messages).await?;
            let mut answers = WatchClient::new(endpoint.channel.clone())
                .max_decoding_message_size(ANSWER_MAX)
                .watch(request)
                .await?
                .into_inner();
            let first = answers.message().await?;
            let first = first.ok_or_else(|| Status::unavailable("the stream ended at once"))?;
            let live = Live {
                answers,
                _requests: requests,
                answered: false,
                pieces: Vec::new(),
            };
            Ok::<_, Status>((first, live))
        };
        match timeout(wait, asked).await {
            Ok(Ok((first, live))) => {
                self.live = Some(live);
                Ok(first)
            }
            Ok(Err(status)) if read_elsewhere(&status) => {
                Err(OpenFault::Elsewhere(endpoint.tried(reason(&status))))
            }
            Ok(Err(status)) => Err(OpenFault::Final(reason(&status))),
            Err(_elapsed) => Err(OpenFault::Elsewhere(endpoint.tried(no_answer(wait)))),
        }
    }

    /// Takes the answer to the create request: it fixes the position of a watch from "now".
    fn begin(&mut self, created: &WatchResponse) -> Result<(), WatchError> {
        self.end_if_canceled(created)?;
        if self.request.start_revision == 0 {
            self.request.start_revision = revision_of(created) + 1;
        }
        Ok(())
    }

    /// Takes a response of a running watch; answers when it completes a batch.
    fn take(&mut self, answer: WatchResponse) -> Result<Option<WatchBatch>, WatchError> {
        self.end_if_canceled(&answer)?;
        let Some(live) = &mut self.live else {
            return Ok(None);
        };
        let header_revision = revision_of(&answer);
        let next = self.request.start_revision;
        live.pieces.extend(
            answer
                .events
                .into_iter()
                .filter(|event| mod_revision(event) >= next),
        );
        if answer.fragment {
            return Ok(None);
        }
        let events = std::mem::take(&mut live.pieces);
        // The header of a response with events may be ahead of what is still to come; the header
        // of one without is a promise that everything up to it was sent.
        let revision = match events.last() {
            Some(last) => mod_revision(last),
            None => header_revision,
        };
        if revision < next {
            return Ok(None);
        }
        self.request.start_revision = revision + 1;
        Ok(Some(WatchBatch { revision, events }))
    }

    fn end_if_canceled(&mut self, answer: &WatchResponse) -> Result<(), WatchError> {
        if !answer.canceled {
            return Ok(());
        }
        self.live = None;
        Err(match answer.compact_revision {
            0 => WatchError::Canceled {
                reason: answer.cancel_reason.clone(),
            },
            compact_revision => WatchError::Compacted { compact_revision },
        })
    }
}

fn revision_of(answer: &WatchResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

fn mod_revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |row| row.mod_revision)
}
