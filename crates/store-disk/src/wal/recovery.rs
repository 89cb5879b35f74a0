//! Reads the log back after a start.
//!
//! Owns the decision what of it stands: every complete batch. What a crash left of the batch that
//! was being written was never reported as durable: it is wiped. Anything else that is unreadable
//! was durable once, so the log is refused: to go on without it could break promises made to
//! other nodes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::ledger::{Ledger, Location};
use super::outline::Outline;
use super::record::{Kind, Record};
use super::scan::{self, Scanner, Step, Stop};
use super::segment::{self, FIRST_RECORD, Segment};
use super::writer::Active;
use super::{TornTail, WalError};

/// Zeros are written in pieces of this size.
const WIPE_BYTES: usize = 64 * 1024;

/// A log read back.
pub(super) struct Recovery {
    pub(super) ledger: Ledger,
    pub(super) active: Active,
    /// Number of the next batch.
    pub(super) batch: u64,
    pub(super) torn: Option<TornTail>,
}

/// Where a segment's complete batches end, and where reading it did.
struct End {
    segment: Arc<Segment>,
    complete: u64,
    stop: Stop,
    dirty_to: u64,
}

struct Replay {
    ledger: Ledger,
    /// Number of the next batch.
    batch: u64,
}

/// Reads the log in `dir`. `None`: there is none.
pub(super) fn recover(dir: &Path, cache_bytes_max: usize) -> Result<Option<Recovery>, WalError> {
    let found = segment::list(dir).map_err(failing("list", dir))?;
    let mut replayed: Option<(Replay, End)> = None;
    for (number, path) in found {
        let segment = Segment::open(path, number)?;
        let (head, position) = read_head(&segment)?;
        let mut replay = match replayed {
            None => Replay {
                ledger: Ledger::from_head(head.outline.clone(), cache_bytes_max),
                batch: head.batch,
            },
            Some((replay, last)) => {
                check_sequence(&replay, &last, &head, &segment)?;
                replay
            }
        };
        let segment = Arc::new(Segment {
            opens_at: head.outline.next,
            ..segment
        });
        replay.batch = head.batch + 1;
        let end = replay.read(segment, position)?;
        replayed = Some((replay, end));
    }
    let Some((replay, end)) = replayed else {
        return Ok(None);
    };
    if let Some((first, last)) = replay.ledger.missing() {
        let fault = format!("entries {first} to {last} are missing");
        return Err(WalError::damaged(dir, 0, fault));
    }
    let torn = settle(&end)?;
    let Replay { mut ledger, batch } = replay;
    ledger.clear_cache();
    let active = Active {
        segment: end.segment,
        position: end.complete,
        zeroed_to: end.complete,
    };
    Ok(Some(Recovery {
        ledger,
        active,
        batch,
        torn,
    }))
}

/// What a segment's first record says.
struct Head {
    outline: Outline,
    batch: u64,
}

/// Reads the head of a segment, and where its second record begins.
fn read_head(segment: &Segment) -> Result<(Head, u64), WalError> {
    let fail = failing("read", &segment.path);
    let mut scanner = Scanner::new(segment, FIRST_RECORD).map_err(&fail)?;
    let head = match scanner.step().map_err(&fail)? {
        Step::Record {
            header, payload, ..
        } if header.kind == Kind::Head => Outline::from_head(payload)
            .map(|outline| Head {
                outline,
                batch: header.batch,
            })
            .map_err(|error| WalError::damaged(&segment.path, FIRST_RECORD, error.to_string())),
        _ => {
            let fault = "the state at the segment's head is unreadable".to_owned();
            Err(WalError::damaged(&segment.path, FIRST_RECORD, fault))
        }
    }?;
    Ok((head, scanner.offset))
}

/// A segment is begun only when all before it is durable, so nothing may be missing in between.
fn check_sequence(
    replay: &Replay,
    last: &End,
    head: &Head,
    next: &Segment,
) -> Result<(), WalError> {
    let expected = last.segment.number + 1;
    if next.number != expected {
        let fault = format!("segment {expected:x}, which goes before it, is missing");
        return Err(WalError::damaged(&next.path, 0, fault));
    }
    if head.batch != replay.batch {
        let fault = format!(
            "the record is unreadable, although {:x} follows",
            next.number
        );
        return Err(WalError::damaged(
            &last.segment.path,
            last.stop.offset,
            fault,
        ));
    }
    if head.outline != *replay.ledger.outline() {
        let fault = "the state at the segment's head differs from the records before it";
        return Err(WalError::damaged(
            &next.path,
            FIRST_RECORD,
            fault.to_owned(),
        ));
    }
    Ok(())
}

impl Replay {
    /// Takes in the batches of a segment from `position` on, each whole or not at all.
    fn read(&mut self, segment: Arc<Segment>, position: u64) -> Result<End, WalError> {
        let fail = failing("read", &segment.path);
        let mut scanner = Scanner::new(&segment, position).map_err(&fail)?;
        self.ledger.add_segment(Arc::clone(&segment));
        let mut complete = position;
        let mut batch: Vec<(Record, u64, u32)> = Vec::new();
        let stop = loop {
            let (header, offset, payload) = match scanner.step().map_err(&fail)? {
                Step::Record {
                    header,
                    offset,
                    payload,
                } => (header, offset, payload),
                Step::Unreadable(stop) => break stop,
            };
            if header.batch != self.batch || header.kind == Kind::Head {
                break Stop::out_of_order(offset);
            }
            let payload = match header.kind {
                // Entries are read when they are asked for.
                Kind::Entry => Bytes::new(),
                _ => Bytes::copy_from_slice(payload),
            };
            let record = Record {
                kind: header.kind,
                index: header.index,
                payload,
            };
            batch.push((record, offset, header.payload_bytes));
            if header.ends_batch {
                self.apply(&segment, &mut batch)?;
                complete = scanner.offset;
            }
        };
        drop(scanner);
        let tail = scan::inspect_tail(&segment, complete, self.batch).map_err(&fail)?;
        if let Some(later) = tail.later {
            let fault = format!("the record is unreadable, although the one at {later} is intact");
            return Err(WalError::damaged(&segment.path, stop.offset, fault));
        }
        drop(fail);
        Ok(End {
            segment,
            complete,
            stop,
            dirty_to: tail.dirty_to,
        })
    }

    fn apply(
        &mut self,
        segment: &Segment,
        batch: &mut Vec<(Record, u64, u32)>,
    ) -> Result<(), WalError> {
        for (record, offset, payload_bytes) in batch.drain(..) {
            let damaged = |fault: String| WalError::damaged(&segment.path, offset, fault);
            let ticket = self
                .ledger
                .apply(&record)
                .map_err(|misfit| damaged(misfit.to_string()))?;
            if record.kind == Kind::Entry {
                let offset = u32::try_from(offset).map_err(|error| damaged(error.to_string()))?;
                let location = Location {
                    segment: segment.number,
                    offset,
                    payload_bytes,
                };
                self.ledger.place(record.index, ticket, location);
            }
        }
        self.batch += 1;
        Ok(())
    }
}

/// Wipes a torn tail, and makes durable what was read: it may not have been, if the process died
/// between its write and its sync, and from now on it counts as such.
fn settle(end: &End) -> Result<Option<TornTail>, WalError> {
    let End {
        segment,
        complete,
        stop,
        dirty_to,
    } = end;
    let mut torn = None;
    if dirty_to > complete {
        if !scan::is_torn(segment, *stop).map_err(failing("read", &segment.path))? {
            let fault = "the record is whole and does not match its checksum".to_owned();
            return Err(WalError::damaged(&segment.path, stop.offset, fault));
        }
        wipe(&segment.file, *complete, *dirty_to).map_err(failing("wipe", &segment.path))?;
        let tail = TornTail {
            path: segment.path.clone(),
            offset: *complete,
            bytes: dirty_to - complete,
        };
        tracing::warn!(
            path = %tail.path.display(), offset = tail.offset, bytes = tail.bytes,
            "discarded a write that a crash cut short; it had not been reported as done"
        );
        torn = Some(tail);
    }
    segment
        .file
        .sync_data()
        .map_err(failing("sync", &segment.path))?;
    Ok(torn)
}

fn wipe(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = [0; WIPE_BYTES];
    let mut at = from;
    while at < to {
        let count = usize::try_from(to - at).map_or(WIPE_BYTES, |left| left.min(WIPE_BYTES));
        file.write_all_at(&zeros[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

fn failing(action: &'static str, path: &Path) -> impl Fn(io::Error) -> WalError + use<> {
    let path: PathBuf = path.to_owned();
    move |source| WalError::Io {
        action,
        path: path.clone(),
        source,
    }
}
