//! The log as its readers see it: every accepted entry, written yet or not.
//!
//! Owns where each entry lies and the bounded cache of the newest payloads. Never blocks, never
//! reads or writes a file.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::outline::{Misfit, Outline};
use super::record::{Kind, Record};
use super::segment::Segment;

/// Where one entry's record lies. Small, because there is one for each entry of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Location {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) payload_bytes: u32,
}

impl Location {
    /// Of an entry that is not on disk yet. Segments are numbered from 1.
    const UNWRITTEN: Self = Self {
        segment: 0,
        offset: 0,
        payload_bytes: 0,
    };

    fn is_written(self) -> bool {
        self.segment != Self::UNWRITTEN.segment
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Tells apart the entries that held the same index one after the other.
    ticket: u64,
    location: Location,
}

/// One entry as a reader gets it.
pub(super) enum Source {
    /// Its payload.
    Cached(Bytes),
    /// Where to read its payload.
    Stored(Arc<Segment>, Location),
}

#[derive(Debug)]
pub(super) struct Ledger {
    outline: Outline,
    /// Of the entries `outline.first..outline.next`.
    slots: VecDeque<Slot>,
    /// Of the newest `cache.len()` entries. All that are unwritten are here.
    cache: VecDeque<Bytes>,
    cache_bytes: usize,
    cache_bytes_max: usize,
    segments: BTreeMap<u64, Arc<Segment>>,
    last_ticket: u64,
}

impl Ledger {
    pub(super) fn new(cache_bytes_max: usize) -> Self {
        Self {
            outline: Outline::default(),
            slots: VecDeque::new(),
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_bytes_max,
            segments: BTreeMap::new(),
            last_ticket: 0,
        }
    }

    /// An empty ledger that goes on behind segments which are gone. Of their entries only the
    /// number is known: `missing` tells whether any is still needed.
    pub(super) fn from_head(outline: Outline, cache_bytes_max: usize) -> Self {
        let lost = Slot {
            ticket: 0,
            location: Location::UNWRITTEN,
        };
        let count = outline.next - outline.first;
        let slots = (0..count).map(|_| lost).collect();
        Self {
            outline,
            slots,
            ..Self::new(cache_bytes_max)
        }
    }

    pub(super) fn outline(&self) -> &Outline {
        &self.outline
    }

    pub(super) fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        self.segments.values()
    }

    pub(super) fn add_segment(&mut self, segment: Arc<Segment>) {
        self.segments.insert(segment.number, segment);
    }

    /// Takes out the oldest segment if the purge left nothing in it. Never the newest one.
    pub(super) fn take_purged_segment(&mut self, purged: u64) -> Option<Arc<Segment>> {
        let second = self.segments.values().nth(1)?;
        if second.opens_at > purged.saturating_add(1) {
            return None;
        }
        self.segments.pop_first().map(|(_, segment)| segment)
    }

    /// Takes a record into account; returns the ticket by which [`Ledger::place`] knows an entry.
    pub(super) fn apply(&mut self, record: &Record) -> Result<u64, Misfit> {
        self.outline.apply(record)?;
        match record.kind {
            Kind::Entry => self.push(record),
            Kind::Truncate => {
                let kept = usize::try_from(self.outline.next - self.outline.first)
                    .expect("fewer entries than before");
                for _ in kept..self.slots.len() {
                    self.slots.pop_back();
                    let dropped = self.cache.pop_back();
                    self.cache_bytes -= dropped.map_or(0, |payload| payload.len());
                }
            }
            Kind::Purge => {
                let kept = usize::try_from(self.outline.next - self.outline.first)
                    .expect("fewer entries than before");
                while self.slots.len() > kept {
                    self.slots.pop_front();
                }
                while self.cache.len() > kept {
                    self.evict_oldest();
                }
            }
            Kind::Head | Kind::Vote | Kind::Committed => {}
        }
        Ok(self.last_ticket)
    }

    fn push(&mut self, record: &Record) {
        self.last_ticket += 1;
        self.slots.push_back(Slot {
            ticket: self.last_ticket,
            location: Location::UNWRITTEN,
        });
        self.cache_bytes += record.payload.len();
        self.cache.push_back(record.payload.clone());
        self.evict();
    }

    /// Notes where an entry was written, unless it was truncated or purged meanwhile.
    pub(super) fn place(&mut self, index: u64, ticket: u64, location: Location) {
        let slot = index
            .checked_sub(self.outline.first)
            .and_then(|at| self.slots.get_mut(usize::try_from(at).ok()?))
            .filter(|slot| slot.ticket == ticket);
        if let Some(slot) = slot {
            slot.location = location;
        }
    }

    /// Brings the cache back to its limit, as far as entries are written.
    pub(super) fn evict(&mut self) {
        while self.cache_bytes > self.cache_bytes_max {
            let oldest = self.slots.len() - self.cache.len();
            if self
                .slots
                .get(oldest)
                .is_none_or(|slot| !slot.location.is_written())
            {
                return;
            }
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        let dropped = self.cache.pop_front();
        self.cache_bytes -= dropped.map_or(0, |payload| payload.len());
    }

    /// Forgets the payloads that a recovery put through.
    pub(super) fn clear_cache(&mut self) {
        self.cache.clear();
        self.cache_bytes = 0;
    }

    /// The first and last entry that no segment holds although the log should have them.
    pub(super) fn missing(&self) -> Option<(u64, u64)> {
        let lost = |slot: &Slot| !slot.location.is_written();
        let first = self.slots.iter().position(lost)? as u64;
        let last = self.slots.iter().rposition(lost)? as u64;
        Some((self.outline.first + first, self.outline.first + last))
    }

    /// The entries that the log holds of `range`, in order.
    pub(super) fn sources(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Source)> {
        let first = self.outline.first;
        let range = range.start.max(first)..range.end.min(self.outline.next);
        let uncached = self.slots.len() - self.cache.len();
        range.map_while(move |index| {
            let at = usize::try_from(index - first).ok()?;
            let source = match at.checked_sub(uncached) {
                Some(at) => Source::Cached(self.cache[at].clone()),
                None => {
                    let location = self.slots[at].location;
                    Source::Stored(Arc::clone(self.segments.get(&location.segment)?), location)
                }
            };
            Some((index, source))
        })
    }

    /// The cached payload bytes, for tests of the limit.
    #[cfg(test)]
    pub(super) fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }
}

impl Source {
    /// Payload bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Cached(payload) => payload.len(),
            Self::Stored(_, location) => location.payload_bytes as usize,
        }
    }
}
