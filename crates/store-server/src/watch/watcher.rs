//! One watcher of a stream: what it wants, and how far it is.
//!
//! Owns the position: `next` is the first revision whose events it was not sent. Never sends.

use std::sync::Arc;

use bytes::Bytes;
use store_api::errors;
use store_api::etcdserverpb::WatchCreateRequest;
use store_api::etcdserverpb::watch_create_request::FilterType;
use store_mvcc::{Compacted, Image, KeyRange, RangeEnd};

use super::batch::{Batch, Encoder, Wants};
use super::hub::{Member, WatchHub};
use super::mailbox::{Mailbox, Serial};

/// A step of catching up looks at so many revisions at most, so that other streams get their turn.
const STEP_REVISIONS: usize = 4096;

#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) serial: Serial,
    pub(crate) wants: Wants,
    pub(crate) next: i64,
    pub(crate) delivery: Delivery,
    pub(crate) progress: Progress,
    /// It is counted as long as this lives.
    _place: Arc<()>,
}

/// How a batch may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// In one response.
    Whole,
    /// In several, if it is large.
    Fragments,
}

/// Whether a watcher without events is told that it misses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It did not ask for that.
    Unwanted,
    /// It had events since the last tick.
    Lively,
    /// It had none since the last tick.
    Quiet,
    /// It is to be told now.
    Due,
}

/// What a step of catching up came to.
pub(crate) enum Step {
    /// Perhaps events, and more history to read.
    More(Option<Batch>),
    /// Perhaps events; from now on the hub delivers.
    Live(Option<Batch>),
}

/// The keys that a request names. As in etcd, no key at all is the least key.
pub(crate) fn watched(request: &WatchCreateRequest) -> KeyRange {
    let key = if request.key.is_empty() {
        Bytes::from_static(b"\0")
    } else {
        request.key.clone()
    };
    KeyRange::from_etcd(key, request.range_end.clone())
}

impl Watcher {
    /// The watcher that a request describes, beginning after `newest` unless it says otherwise;
    /// or etcd's reason why there can be none.
    pub(crate) fn new(
        request: WatchCreateRequest,
        serial: Serial,
        newest: i64,
        place: Arc<()>,
    ) -> Result<Self, String> {
        let range = watched(&request);
        if matches!(range.end(), RangeEnd::Before(end) if end <= range.start()) {
            return Err("mvcc: watcher range is empty".to_owned());
        }
        if request.start_revision < 0 {
            return Err(errors::compacted().message().to_owned());
        }
        let without = |filter: FilterType| request.filters.contains(&filter.into());
        let wants = Wants {
            range,
            puts: !without(FilterType::Noput),
            deletes: !without(FilterType::Nodelete),
            prev_kv: request.prev_kv,
        };
        Ok(Self {
            _place: place,
            serial,
            wants,
            next: if request.start_revision == 0 {
                newest + 1
            } else {
                request.start_revision
            },
            delivery: if request.fragment {
                Delivery::Fragments
            } else {
                Delivery::Whole
            },
            progress: if request.progress_notify {
                Progress::Quiet
            } else {
                Progress::Unwanted
            },
        })
    }

    /// Reads a piece of history, or registers with the hub when there is no more to read.
    pub(crate) fn catch_up(
        &mut self,
        hub: &WatchHub,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Step, Compacted> {
        let image = hub.image();
        let batch = self.read_history(&image)?;
        if self.next <= image.revision() {
            return Ok(Step::More(batch));
        }
        let member = Member {
            mailbox: mailbox.clone(),
            next: self.next,
        };
        // The hub may have handed out a newer image meanwhile.
        Ok(match hub.join(&self.wants, self.serial, member) {
            Ok(()) => Step::Live(batch),
            Err(_behind) => Step::More(batch),
        })
    }

    fn read_history(&mut self, image: &Image) -> Result<Option<Batch>, Compacted> {
        if self.next > image.revision() {
            return Ok(None);
        }
        let mut encoder = Encoder::from(self.next);
        for (step, change) in image.changes_since(self.next)?.enumerate() {
            let full = encoder.close_full(change.revision);
            if full.is_some() || step == STEP_REVISIONS {
                self.next = change.revision;
                return Ok(full.or_else(|| encoder.close(change.revision - 1)));
            }
            for changed in change
                .rows
                .iter()
                .filter(|changed| self.wants.matches(changed))
            {
                encoder.add(&self.wants, change.revision, changed);
            }
        }
        self.next = image.revision() + 1;
        Ok(encoder.close(image.revision()))
    }

    /// Notes that a batch was sent.
    pub(crate) fn sent(&mut self, batch: &Batch) {
        self.next = self.next.max(batch.last + 1);
        if self.progress != Progress::Unwanted {
            self.progress = Progress::Lively;
        }
    }

    /// A tick of the progress clock.
    pub(crate) fn tick(&mut self) {
        self.progress = match self.progress {
            Progress::Unwanted => Progress::Unwanted,
            Progress::Lively => Progress::Quiet,
            Progress::Quiet | Progress::Due => Progress::Due,
        };
    }
}
