//! What a run of records amounts to, the entries' bytes aside.
//!
//! Owns the rules by which records change the log. The handle, the writer and the recovery all
//! apply the same ones, so they cannot disagree. Never touches a file.

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::record::{Kind, Record};
use crate::codec::{self, CodecError, Format};

const HEAD_FORMAT: Format = Format {
    magic: *b"SKwh",
    version: 1,
};

/// Up to where the log was purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// The last purged index.
    pub index: u64,
    /// What the caller named that entry by.
    pub id: Bytes,
}

/// The log in outline: the entries `first..next` and what is saved beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) purged: Option<Purged>,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
}

/// A record that cannot follow the ones before it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misfit {
    #[error("entry {found} cannot follow entry {}; entries come without a gap", .expected.wrapping_sub(1))]
    Gap { expected: u64, found: u64 },
    #[error("{0} bytes are more than a record may have, {max}; split them", max = super::ENTRY_BYTES_MAX)]
    TooLarge(usize),
    #[error("the state at a segment's head differs from the records before it")]
    Head,
    #[error("the state at a segment's head is unreadable: {0}")]
    Unreadable(#[from] CodecError),
}

#[derive(Encode, Decode)]
struct HeadRecord {
    first: u64,
    next: u64,
    purged: Option<(u64, Vec<u8>)>,
    vote: Option<Vec<u8>>,
    committed: Option<Vec<u8>>,
}

impl Outline {
    /// Whether the log holds no entries.
    pub(super) fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// Whether an entry with this index may be appended. The very first one may have any index.
    pub(super) fn check_entry(&self, index: u64) -> Result<(), Misfit> {
        let free = self.is_empty() && self.purged.is_none();
        if index != u64::MAX && (free || index == self.next) {
            return Ok(());
        }
        Err(Misfit::Gap {
            expected: self.next,
            found: index,
        })
    }

    /// Takes one record into account.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), Misfit> {
        match record.kind {
            Kind::Entry => {
                self.check_entry(record.index)?;
                if self.is_empty() {
                    self.first = record.index;
                }
                self.next = record.index + 1;
            }
            Kind::Vote => self.vote = Some(record.payload.clone()),
            Kind::Committed => self.committed = Some(record.payload.clone()),
            Kind::Truncate => self.next = self.next.min(record.index).max(self.first),
            Kind::Purge => self.purge(record.index, &record.payload),
            Kind::Head if Self::from_head(&record.payload)? == *self => {}
            Kind::Head => return Err(Misfit::Head),
        }
        Ok(())
    }

    /// Whether purging up to `index` changes anything.
    pub(super) fn is_purge_news(&self, index: u64) -> bool {
        self.purged
            .as_ref()
            .is_none_or(|purged| purged.index < index)
    }

    fn purge(&mut self, index: u64, id: &Bytes) {
        if self.is_purge_news(index) {
            self.purged = Some(Purged {
                index,
                id: id.clone(),
            });
            // Beyond the end too: after a snapshot is installed, the log goes on behind it.
            self.first = self.first.max(index.saturating_add(1));
            self.next = self.next.max(self.first);
        }
    }

    /// The record at the head of a new segment.
    pub(super) fn to_head(&self) -> Record {
        let vec = |bytes: &Bytes| bytes.to_vec();
        let head = HeadRecord {
            first: self.first,
            next: self.next,
            purged: self
                .purged
                .as_ref()
                .map(|purged| (purged.index, purged.id.to_vec())),
            vote: self.vote.as_ref().map(vec),
            committed: self.committed.as_ref().map(vec),
        };
        let payload = Bytes::from(codec::encode(HEAD_FORMAT, &head));
        Record {
            kind: Kind::Head,
            index: 0,
            payload,
        }
    }

    /// Reads the payload of a head record.
    pub(super) fn from_head(payload: &[u8]) -> Result<Self, CodecError> {
        let head: HeadRecord = codec::decode(HEAD_FORMAT, payload)?;
        Ok(Self {
            first: head.first,
            next: head.next,
            purged: head.purged.map(|(index, id)| Purged {
                index,
                id: id.into(),
            }),
            vote: head.vote.map(Bytes::from),
            committed: head.committed.map(Bytes::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, index: u64) -> Record {
        Record {
            kind,
            index,
            payload: Bytes::from(index.to_string()),
        }
    }

    fn outline(records: &[(Kind, u64)]) -> Outline {
        let mut outline = Outline::default();
        for (kind, index) in records {
            outline.apply(&record(*kind, *index)).unwrap();
        }
        outline
    }

    #[test]
    fn the_first_entry_may_have_any_index_and_none_may_be_skipped() {
        let mut log = outline(&[(Kind::Entry, 5)]);
        assert_eq!((log.first, log.next), (5, 6));
        let gap = log.apply(&record(Kind::Entry, 7)).unwrap_err();
        assert_eq!(
            gap,
            Misfit::Gap {
                expected: 6,
                found: 7
            }
        );
    }

    #[test]
    fn a_purge_beyond_the_end_empties_the_log_and_fixes_where_it_goes_on() {
        let mut log = outline(&[(Kind::Entry, 0), (Kind::Entry, 1), (Kind::Purge, 9)]);
        assert_eq!((log.first, log.next), (10, 10));
        assert!(log.apply(&record(Kind::Entry, 2)).is_err());
        log.apply(&record(Kind::Entry, 10)).unwrap();
        log.apply(&record(Kind::Purge, 3)).unwrap();
        assert_eq!(log.purged.unwrap().index, 9, "a purge never goes back");
    }

    #[test]
    fn truncation_never_reaches_into_the_purged_part() {
        let log = outline(&[
            (Kind::Entry, 0),
            (Kind::Entry, 1),
            (Kind::Entry, 2),
            (Kind::Purge, 0),
            (Kind::Truncate, 0),
        ]);
        assert_eq!((log.first, log.next), (1, 1));
    }

    #[test]
    fn a_head_restores_the_outline() {
        let log = outline(&[(Kind::Entry, 0), (Kind::Vote, 4), (Kind::Purge, 9)]);
        assert_eq!(Outline::from_head(&log.to_head().payload), Ok(log.clone()));
        let mut other = log.clone();
        other.apply(&log.to_head()).unwrap();
        other.apply(&record(Kind::Vote, 5)).unwrap();
        assert_eq!(other.apply(&log.to_head()), Err(Misfit::Head));
    }
}
