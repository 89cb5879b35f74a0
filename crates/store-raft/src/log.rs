//! openraft's log on the node's write-ahead log.
//!
//! Owns the encoding of entries and the knowledge of how far they are durable. Never does I/O of
//! its own: order, group commit and recovery are the write-ahead log's.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use prost::Message;
use store_api::skeinpb as pb;
use store_disk::{SnapshotStore, Wal, WalCounters};

use crate::snapshot;
use crate::types::{Entry, LogId, Types, VoteId};
use crate::wire;

/// Bytes of entries that one message to a follower carries; a single larger entry goes alone.
const MESSAGE_BYTES: usize = 1024 * 1024;

/// Bytes of entries that are read ahead for apply.
const APPLY_BYTES: usize = 4 * 1024 * 1024;

/// The log of one node. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    wal: Wal,
    snapshots: SnapshotStore,
    durable: Arc<Durable>,
}

/// Up to which index this node's own copy of the state survives a crash.
///
/// A leader applies what a quorum has, perhaps before its own disk has it. What is written about
/// the applied state must not run ahead of the log, so it asks here first.
#[derive(Debug, Default)]
pub(crate) struct Durable(Mutex<DurableTo>);

#[derive(Debug, Default)]
struct DurableTo {
    index: u64,
    /// Counts truncations: an append from before one says nothing about what came after it.
    era: u64,
}

impl Durable {
    fn lock(&self) -> MutexGuard<'_, DurableTo> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last durable index.
    pub(crate) fn index(&self) -> u64 {
        self.lock().index
    }

    /// The state up to `index` is durable in another way: in a snapshot.
    pub(crate) fn raise(&self, index: u64) {
        let mut to = self.lock();
        to.index = to.index.max(index);
    }

    fn era(&self) -> u64 {
        self.lock().era
    }

    fn appended(&self, index: u64, era: u64) {
        let mut to = self.lock();
        if to.era == era {
            to.index = to.index.max(index);
        }
    }

    fn truncated(&self, index: u64) {
        let mut to = self.lock();
        to.index = to.index.min(index);
        to.era += 1;
    }
}

impl LogStore {
    pub(crate) fn new(wal: Wal, snapshots: SnapshotStore) -> Self {
        let durable = Durable::default();
        durable.raise(wal.state().last.unwrap_or(0));
        Self {
            wal,
            snapshots,
            durable: Arc::new(durable),
        }
    }

    pub(crate) fn durable(&self) -> Arc<Durable> {
        self.durable.clone()
    }

    /// Waits until everything that was asked of the log before is durable.
    pub(crate) async fn barrier(&self) -> io::Result<()> {
        completed(|done| self.wal.append(Vec::new(), done)).await
    }

    pub(crate) fn counters(&self) -> WalCounters {
        self.wal.counters()
    }

    /// How much of the log may go when openraft lets go of it up to `upto`: nothing that follows the
    /// older of the two snapshots, which would be of no use without it when the newest is damaged.
    /// A node that has written its first has the rows beside it, and purges all that it is asked
    /// to. `None` if nothing may go.
    fn purgeable(&self, upto: LogId) -> io::Result<Option<LogId>> {
        let state = self.wal.state();
        let Some(older) = self.snapshots.older() else {
            return Ok(Some(upto));
        };
        // A snapshot from the leader goes beyond the log, which begins anew after it.
        let beyond = state.last.is_none_or(|last| last < upto.index);
        if beyond || upto.index <= older.index() {
            return Ok(Some(upto));
        }
        if state
            .purged
            .is_some_and(|purged| purged.index >= older.index())
        {
            return Ok(None);
        }
        Ok(snapshot::meta(&older)?.last_log_id)
    }

    /// The index of the last entry held.
    pub(crate) fn last_index(&self) -> Option<u64> {
        self.wal.state().last
    }

    /// The entries of a range.
    pub(crate) fn entries(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        self.read(range, usize::MAX)
    }

    /// The first entries of a range: as many as should be in memory at once.
    pub(crate) fn piece(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        self.read(range, APPLY_BYTES)
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let entries = self.wal.read_up_to(range, bytes_max)?;
        entries
            .into_iter()
            .map(|(_, bytes)| decode(bytes))
            .collect()
    }
}

fn decode(bytes: Bytes) -> io::Result<Entry> {
    let entry = pb::Entry::decode(bytes).map_err(wire::WireError::from)?;
    Ok(wire::entry_from_pb(entry)?)
}

fn decode_log_id(bytes: Bytes) -> io::Result<LogId> {
    let id = pb::LogId::decode(bytes).map_err(wire::WireError::from)?;
    Ok(wire::log_id_from_pb(&id))
}

fn encode(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// Starts an operation and waits for its callback.
async fn completed(start: impl FnOnce(store_disk::Done)) -> io::Result<()> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    start(Box::new(move |result| {
        let _ = sender.send(result);
    }));
    receiver
        .await
        .map_err(|_| io::Error::other("the log's writer is gone"))?
}

/// A callback for what openraft need not wait for: the log refuses everything after a failure, so
/// the failure is not lost.
fn logged(action: &'static str) -> store_disk::Done {
    Box::new(move |result| {
        if let Err(error) = result {
            tracing::error!(%error, action, "the log failed");
        }
    })
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(half_open(&range), usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, MESSAGE_BYTES)
    }

    /// Reads in pieces: a node that catches up applies far more than should be in memory at once.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let pieces = stream::unfold(
            (self.clone(), half_open(&range)),
            |(log, range)| async move {
                if range.is_empty() {
                    return None;
                }
                let end = range.end;
                let (piece, start) = match log.read(range, APPLY_BYTES) {
                    // The log ends before the range does.
                    Ok(entries) if entries.is_empty() => return None,
                    Ok(entries) => {
                        let next = entries.last().map_or(end, |last| last.log_id.index + 1);
                        (entries.into_iter().map(Ok).collect(), next)
                    }
                    Err(error) => (vec![Err(error)], end),
                };
                Some((stream::iter(piece), (log, start..end)))
            },
        );
        pieces.flatten().boxed()
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteId>> {
        let Some(bytes) = self.wal.state().vote else {
            return Ok(None);
        };
        let vote = pb::Vote::decode(bytes).map_err(wire::WireError::from)?;
        Ok(Some(wire::vote_from_pb(Some(&vote))?))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.wal.state();
        let purged = state
            .purged
            .map(|purged| decode_log_id(purged.id))
            .transpose()?;
        let last = match state.last {
            Some(last) => self
                .read(last..last + 1, usize::MAX)?
                .pop()
                .map(|entry| entry.log_id),
            None => purged,
        };
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteId) -> io::Result<()> {
        let vote = encode(&wire::vote_to_pb(vote));
        completed(|done| self.wal.save_vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.wal
                .save_committed(encode(&wire::log_id_to_pb(&committed)));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.wal.state().committed.map(decode_log_id).transpose()
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded = |entry: Entry| (entry.log_id.index, encode(&wire::entry_to_pb(entry)));
        let entries: Vec<_> = entries.into_iter().map(encoded).collect();
        let last = entries.last().map(|(index, _)| *index);
        let (durable, era) = (self.durable.clone(), self.durable.era());
        let done = Box::new(move |result: io::Result<()>| {
            if let (Ok(()), Some(last)) = (&result, last) {
                durable.appended(last, era);
            }
            callback.io_completed(result);
        });
        self.wal.append(entries, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let last = last.map(|id| id.index);
        self.durable.truncated(last.unwrap_or(0));
        self.wal.truncate_after(last, logged("truncate"));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let Some(upto) = self.purgeable(upto)? else {
            return Ok(());
        };
        self.wal.purge_to(
            upto.index,
            encode(&wire::log_id_to_pb(&upto)),
            logged("purge"),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests;
