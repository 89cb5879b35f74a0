//! One watch stream: its watchers, its requests, its responses.
//!
//! Owns the order in which things are sent: requests are taken first, so that a busy watcher
//! cannot keep its client from cancelling it; then live events; then history; then progress.
//! Never runs ahead of the client: the next response is made when the last one was taken.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use store_api::errors;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use store_mvcc::{AuthError, Caller};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::Status;

use super::Shared;
use super::batch::Batch;
use super::frame::Frame;
use super::hub::AuthMark;
use super::mailbox::{Mail, Mailbox, Serial};
use super::watcher::{Delivery, Progress, Step, Watcher, watched};
use crate::answer::auth_error;
use crate::patience::Patience;

/// The most watchers on one stream. More are refused, with the advice to open another stream.
pub(crate) const STREAM_WATCHERS_MAX: usize = 50_000;
/// A watcher that takes fragments gets none with more bytes of events than this.
const FRAGMENT_BYTES: usize = 1 << 20;
/// The watch id of responses that concern no single watcher.
const NO_WATCH: i64 = -1;

pub(crate) struct Session {
    shared: Arc<Shared>,
    requests: BoxStream<'static, Result<WatchRequest, Status>>,
    /// The client may still ask for something.
    requests_open: bool,
    mailbox: Arc<Mailbox>,
    /// Ordered, so that an id is found by looking for a gap.
    watchers: BTreeMap<i64, Watcher>,
    ids: HashMap<Serial, i64>,
    /// Watchers that read history, in turn.
    behind: VecDeque<Serial>,
    /// Responses to send before anything else; one request, batch or tick at a time fills it.
    ready: VecDeque<Frame>,
    next_id: i64,
    /// The client asked for progress, and is answered when this revision is published.
    progress_asked: Option<i64>,
    progress_clock: Option<Interval>,
    /// The clock ticked, so some watchers may be due for a notice.
    progress_due: bool,
    published: watch::Receiver<i64>,
    ended: watch::Receiver<bool>,
    /// Moves when what was handed out does not go on.
    eras: watch::Receiver<u64>,
    /// Turns true when there is no leader; only for a client that wants to know.
    leaderless: Option<watch::Receiver<bool>>,
    /// Who watches.
    caller: Caller,
    /// Tells when rights may have changed.
    rights: watch::Receiver<AuthMark>,
    /// What the watchers' rights were judged by last.
    judged: AuthMark,
    /// A watcher that was asked for, and that its client has no right to as far as this node knows.
    doubted: Option<WatchCreateRequest>,
}

impl Session {
    pub(crate) fn open(
        shared: Arc<Shared>,
        requests: BoxStream<'static, Result<WatchRequest, Status>>,
        caller: Caller,
        wants_leader: bool,
    ) -> Self {
        Self {
            caller,
            rights: shared.hub.rights(),
            judged: shared.hub.auth_mark(),
            doubted: None,
            requests,
            requests_open: true,
            mailbox: Arc::default(),
            watchers: BTreeMap::new(),
            ids: HashMap::new(),
            behind: VecDeque::new(),
            ready: VecDeque::new(),
            next_id: 0,
            progress_asked: None,
            progress_clock: None,
            progress_due: false,
            published: shared.hub.published(),
            ended: shared.hub.ended(),
            eras: shared.hub.eras(),
            leaderless: wants_leader.then(|| shared.hub.leaderless()),
            shared,
        }
    }

    /// Waits for the next response.
    ///
    /// # Errors
    /// When the client's side failed, or this node or its store stops; the stream ends with it.
    pub(crate) async fn next_frame(&mut self) -> Result<Frame, Status> {
        loop {
            // Before anything is sent: what may be seen no more, is not.
            self.judge();
            if self.eras.has_changed().unwrap_or(true) {
                return Err(errors::stopped());
            }
            if let Some(frame) = self.ready.pop_front() {
                return Ok(frame);
            }
            if let Some(request) = self.doubted.take() {
                self.create_or_refuse(request).await;
                continue;
            }
            if self.requests_open
                && let Some(request) = self.requests.next().now_or_never()
            {
                self.take_request(request)?;
            } else if let Some(mail) = self.mailbox.take() {
                self.take_mail(mail);
            } else if let Some(serial) = self.behind.pop_front() {
                self.catch_up(serial);
                // A long history must not keep other streams of this thread waiting.
                tokio::task::yield_now().await;
            } else if self.tell_progress() {
                // There is something to send now.
            } else {
                self.wait().await?;
            }
        }
    }

    async fn wait(&mut self) -> Result<(), Status> {
        let clock = async {
            match &mut self.progress_clock {
                Some(clock) => {
                    clock.tick().await;
                }
                None => std::future::pending().await,
            }
        };
        // Ends with the hub, too.
        let ended = async { drop(self.ended.wait_for(|ended| *ended).await) };
        let leaderless = async {
            match &mut self.leaderless {
                Some(leaderless) => drop(leaderless.wait_for(|leaderless| *leaderless).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = self.requests.next(), if self.requests_open => self.take_request(request)?,
            () = self.mailbox.arrived() => {}
            Ok(()) = self.rights.changed() => {}
            _ = self.published.changed(), if self.progress_asked.is_some() => {}
            () = clock => {
                self.watchers.values_mut().for_each(Watcher::tick);
                self.progress_due = true;
            }
            () = ended => return Err(errors::stopped()),
            _ = self.eras.changed() => return Err(errors::stopped()),
            () = leaderless => return Err(errors::no_leader()),
        }
        Ok(())
    }

    fn take_request(
        &mut self,
        request: Option<Result<WatchRequest, Status>>,
    ) -> Result<(), Status> {
        let Some(request) = request.transpose()? else {
            // Half closed: the client only listens from now on.
            self.requests_open = false;
            return Ok(());
        };
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => match self.may_watch(&create) {
                Ok(()) => self.create(create),
                Err(_) => self.doubted = Some(create),
            },
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_asked = Some(self.shared.hub.image().revision());
            }
            // As in etcd: not worth ending the other watchers of the stream.
            None => tracing::debug!("a watch request of an unknown kind was ignored"),
        }
        Ok(())
    }

    /// Creates a watcher if its client has the right by now.
    async fn create_or_refuse(&mut self, request: WatchCreateRequest) {
        if let Some(reads) = &self.shared.reads {
            // Whatever comes of it, this node then knows what it can.
            let _ = reads.linearizable(Patience::own(&self.shared.limits)).await;
        }
        let Err(error) = self.may_watch(&request) else {
            return self.create(request);
        };
        let newest = self.shared.hub.image().revision();
        let refused = WatchResponse {
            header: Some(self.shared.headers.at(newest)),
            created: true,
            watch_id: NO_WATCH,
            canceled: true,
            cancel_reason: reason(error),
            ..WatchResponse::default()
        };
        self.ready.push_back(refused.into());
    }

    fn may_watch(&self, request: &WatchCreateRequest) -> Result<(), AuthError> {
        let range = watched(request);
        let image = self.shared.hub.image();
        image.auth().check_read(&self.caller, &range)
    }

    /// Ends the watchers whose client has lost the right to what they watch, and takes back what was
    /// about to be sent to them. To be called before each response: the image is as new as any event.
    fn judge(&mut self) {
        let mark = self.shared.hub.auth_mark();
        if mark == self.judged {
            return;
        }
        self.judged = mark;
        let image = self.shared.hub.image();
        let lost: Vec<(i64, AuthError)> = self
            .watchers
            .iter()
            .filter_map(|(id, watcher)| {
                let range = &watcher.wants.range;
                let judged = image.auth().check_read(&self.caller, range);
                Some((*id, judged.err()?))
            })
            .collect();
        for (watch_id, error) in lost {
            self.forget(watch_id);
            self.ready
                .retain(|frame| frame.head.watch_id != watch_id || frame.events.is_empty());
            let mut canceled = self.canceled(watch_id, image.revision(), 0);
            canceled.head.cancel_reason = reason(error);
            self.ready.push_back(canceled);
        }
    }

    fn create(&mut self, request: WatchCreateRequest) {
        let newest = self.shared.hub.image().revision();
        let answer = WatchResponse {
            header: Some(self.shared.headers.at(newest)),
            created: true,
            ..WatchResponse::default()
        };
        let serial = self.shared.hub.next_serial();
        let wanted = request.watch_id;
        // The id comes last: a watch that cannot be uses none up.
        let place = self.shared.hub.place();
        let created = Watcher::new(request, serial, newest, place)
            .and_then(|watcher| Ok((self.choose_id(wanted)?, watcher)));
        match created {
            Ok((watch_id, watcher)) => {
                if watcher.progress != Progress::Unwanted {
                    self.start_clock();
                }
                self.ids.insert(serial, watch_id);
                self.watchers.insert(watch_id, watcher);
                self.behind.push_back(serial);
                self.ready
                    .push_back(WatchResponse { watch_id, ..answer }.into());
            }
            Err(cancel_reason) => {
                let refused = WatchResponse {
                    watch_id: NO_WATCH,
                    canceled: true,
                    cancel_reason,
                    ..answer
                };
                self.ready.push_back(refused.into());
            }
        }
    }

    /// The id that the client wants, or the next free one if it wants 0.
    fn choose_id(&mut self, wanted: i64) -> Result<i64, String> {
        if self.watchers.len() >= STREAM_WATCHERS_MAX {
            return Err(format!(
                "skein: a stream has at most {STREAM_WATCHERS_MAX} watchers; open another stream"
            ));
        }
        if wanted != 0 {
            return match self.watchers.contains_key(&wanted) {
                true => Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned()),
                false => Ok(wanted),
            };
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    fn start_clock(&mut self) {
        let every = self.shared.limits.watch_progress_every;
        self.progress_clock.get_or_insert_with(|| {
            let mut clock = interval_at(Instant::now() + every, every);
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            clock
        });
    }

    /// Ends a watcher at its client's wish; an unknown id is no answer's worth, as in etcd.
    fn cancel(&mut self, watch_id: i64) {
        if self.forget(watch_id) {
            let newest = self.shared.hub.image().revision();
            self.ready.push_back(self.canceled(watch_id, newest, 0));
        }
    }

    fn forget(&mut self, watch_id: i64) -> bool {
        let Some(watcher) = self.watchers.remove(&watch_id) else {
            return false;
        };
        self.ids.remove(&watcher.serial);
        self.shared.hub.leave(&watcher.wants, watcher.serial);
        true
    }

    fn canceled(&self, watch_id: i64, revision: i64, compact_revision: i64) -> Frame {
        let header = Some(self.shared.headers.at(revision));
        WatchResponse {
            header,
            watch_id,
            canceled: true,
            compact_revision,
            ..Default::default()
        }
        .into()
    }

    fn take_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Events(serial, batch) => self.send(serial, &batch),
            Mail::Behind(serial, revision) => {
                // Mail for a watcher that was cancelled meanwhile has no addressee.
                if let Some(watcher) = self.watcher(serial) {
                    watcher.next = watcher.next.max(revision);
                    self.behind.push_back(serial);
                }
            }
        }
    }

    fn catch_up(&mut self, serial: Serial) {
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        let Some(watcher) = self.watcher(serial) else {
            return;
        };
        match watcher.catch_up(&shared.hub, &mailbox) {
            Ok(Step::More(batch)) => {
                self.behind.push_back(serial);
                batch.iter().for_each(|batch| self.send(serial, batch));
            }
            Ok(Step::Live(batch)) => batch.iter().for_each(|batch| self.send(serial, batch)),
            Err(compacted) => {
                let Some(&watch_id) = self.ids.get(&serial) else {
                    return;
                };
                self.forget(watch_id);
                let newest = shared.hub.image().revision();
                self.ready
                    .push_back(self.canceled(watch_id, newest, compacted.compact_revision));
            }
        }
    }

    fn watcher(&mut self, serial: Serial) -> Option<&mut Watcher> {
        self.watchers.get_mut(self.ids.get(&serial)?)
    }

    fn send(&mut self, serial: Serial, batch: &Batch) {
        let Some(&watch_id) = self.ids.get(&serial) else {
            return;
        };
        let Some(watcher) = self.watchers.get_mut(&watch_id) else {
            return;
        };
        watcher.sent(batch);
        let header = Some(self.shared.headers.at(batch.last));
        let head = WatchResponse {
            header,
            watch_id,
            ..Default::default()
        };
        let pieces = match watcher.delivery {
            Delivery::Whole => vec![batch.events().clone()],
            Delivery::Fragments => batch.fragments(FRAGMENT_BYTES),
        };
        let last = pieces.len() - 1;
        self.ready
            .extend(pieces.into_iter().enumerate().map(|(index, events)| Frame {
                head: WatchResponse {
                    fragment: index < last,
                    ..head.clone()
                },
                events,
            }));
    }

    /// Makes the progress notices that are due. To be called when nobody is behind; answers
    /// whether there are any.
    fn tell_progress(&mut self) -> bool {
        if self.progress_asked.is_none() && !self.progress_due {
            return false;
        }
        let published = *self.published.borrow_and_update();
        // What was posted before this revision was published must be sent before it is promised.
        if !self.mailbox.is_empty() {
            return true;
        }
        let header = self.shared.headers.at(published);
        let notice = |watch_id| -> Frame {
            WatchResponse {
                header: Some(header),
                watch_id,
                ..Default::default()
            }
            .into()
        };
        if self
            .progress_asked
            .is_some_and(|revision| published >= revision)
        {
            self.progress_asked = None;
            self.ready.push_back(notice(NO_WATCH));
        }
        self.progress_due = false;
        for (watch_id, watcher) in &mut self.watchers {
            if watcher.progress == Progress::Due {
                watcher.progress = Progress::Quiet;
                self.ready.push_back(notice(*watch_id));
            }
        }
        !self.ready.is_empty()
    }
}

/// Why a watcher cannot be, as etcd's clients read it.
fn reason(error: AuthError) -> String {
    let status = auth_error(error);
    let (code, text) = (status.code(), status.message());
    format!("rpc error: code = {code:?} desc = {text}")
}

impl Drop for Session {
    fn drop(&mut self) {
        for watcher in self.watchers.values() {
            self.shared.hub.leave(&watcher.wants, watcher.serial);
        }
    }
}
