//! What a watcher wants to see, and encoded events that all who want the same share.
//!
//! Owns matching and encoding. Pure; never knows who watches.

use bytes::{Bytes, BytesMut};
use prost::encoding::{encode_key, encode_varint, encoded_len_varint, key_len};
use prost::{Message, encoding::WireType};
use store_api::mvccpb::{Event, event::EventType};
use store_mvcc::{ChangedRow, KeyRange};

/// The number of `WatchResponse.events`.
const EVENTS_FIELD: u32 = 11;
/// A batch is closed at the first whole revision past this size, in bytes: small enough for a
/// client's usual message limit of 4 MiB, if single revisions are.
pub(crate) const BATCH_BYTES: usize = 1 << 20;

/// What a watcher wants to see. Watchers with equal wants share encoded batches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wants {
    pub(crate) range: KeyRange,
    pub(crate) puts: bool,
    pub(crate) deletes: bool,
    /// Events carry the row that was replaced.
    pub(crate) prev_kv: bool,
}

impl Wants {
    pub(crate) fn matches(&self, changed: &ChangedRow) -> bool {
        let kind = if changed.row.is_tombstone() {
            self.deletes
        } else {
            self.puts
        };
        kind && self.range.contains(&changed.row.key)
    }
}

/// Encoded events of whole revisions.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The batch says everything about the revisions from `first` …
    pub(crate) first: i64,
    /// … to `last`, both included.
    pub(crate) last: i64,
    events: Bytes,
    /// Where each event ends in `events`.
    ends: Vec<usize>,
}

impl Batch {
    /// All events.
    pub(crate) fn events(&self) -> &Bytes {
        &self.events
    }

    /// The events in pieces of at most `max` bytes each; an event that is larger by itself makes
    /// a piece of its own.
    pub(crate) fn fragments(&self, max: usize) -> Vec<Bytes> {
        let mut fragments = Vec::new();
        let mut start = 0;
        let mut end = 0;
        for &next in &self.ends {
            if next - start > max && end > start {
                fragments.push(self.events.slice(start..end));
                start = end;
            }
            end = next;
        }
        fragments.push(self.events.slice(start..end));
        fragments
    }
}

/// Collects events into batches.
#[derive(Debug)]
pub(crate) struct Encoder {
    first: i64,
    /// The revision of the newest event.
    newest: i64,
    buffer: BytesMut,
    ends: Vec<usize>,
}

impl Encoder {
    /// An encoder whose first batch begins at revision `first`.
    pub(crate) fn from(first: i64) -> Self {
        Self {
            first,
            newest: first,
            buffer: BytesMut::new(),
            ends: Vec::new(),
        }
    }

    /// To be called before the events of `revision`: answers with the batch up to there if that
    /// is large enough, so that no revision is torn.
    pub(crate) fn close_full(&mut self, revision: i64) -> Option<Batch> {
        let full = revision > self.newest && self.buffer.len() >= BATCH_BYTES;
        if full { self.close(revision - 1) } else { None }
    }

    /// Adds an event of `revision`, the newest so far.
    pub(crate) fn add(&mut self, wants: &Wants, revision: i64, changed: &ChangedRow) {
        self.newest = revision;
        let event = event(wants, changed);
        let length = event.encoded_len();
        let prefix = key_len(EVENTS_FIELD) + encoded_len_varint(length as u64);
        self.buffer.reserve(prefix + length);
        encode_key(EVENTS_FIELD, WireType::LengthDelimited, &mut self.buffer);
        encode_varint(length as u64, &mut self.buffer);
        event.encode_raw(&mut self.buffer);
        self.ends.push(self.buffer.len());
    }

    /// Closes the batch at revision `last`; `None` if there are no events in it.
    pub(crate) fn close(&mut self, last: i64) -> Option<Batch> {
        let first = std::mem::replace(&mut self.first, last + 1);
        if self.ends.is_empty() {
            return None;
        }
        let events = self.buffer.split().freeze();
        Some(Batch {
            first,
            last,
            events,
            ends: std::mem::take(&mut self.ends),
        })
    }
}

/// An event as etcd gives it: a delete carries the key and its revision only.
fn event(wants: &Wants, changed: &ChangedRow) -> Event {
    let kind = if changed.row.is_tombstone() {
        EventType::Delete
    } else {
        EventType::Put
    };
    let prev = changed.prev.as_ref().filter(|_| wants.prev_kv);
    Event {
        r#type: kind.into(),
        kv: Some(store_raft::convert::row_to_pb(&changed.row)),
        prev_kv: prev.map(|row| store_raft::convert::row_to_pb(row)),
    }
}
