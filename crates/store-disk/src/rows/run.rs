//! Sorted runs of rows: how one is written, and how several are read as one.
//!
//! Owns the stored form of a run. Which runs there are is the manifest's to say.
//!
//! ```text
//! chunk: 0x01 | run u64 | place in the run u32 -> codec record      integers big endian
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::vec;

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::tree::Fault;
use crate::codec::{self, Format};

/// A row that is set, or, without a value, removed.
pub(super) type Change = (Bytes, Option<Bytes>);

/// How much of a run is one value in sled; a larger row has a chunk of its own. sled rewrites up
/// to 16 neighbours at once, and puts what is then above 128 KiB into a file of its own.
const CHUNK_BYTES: usize = 8 * 1024;

const CHUNK_PREFIX: u8 = 1;
const CHUNK_FORMAT: Format = Format {
    magic: *b"SKrc",
    version: 1,
};

/// Changes to rows in the order of their keys, each key once. Never changed once it is written.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Run {
    pub(super) id: u64,
    /// How often its rows were merged.
    pub(super) level: u8,
    chunks: u32,
    /// Removed ones, too.
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl Run {
    /// Removes its chunks, also those of a run that was not finished.
    pub(super) fn remove(&self, tree: &sled::Tree) -> Result<(), Fault> {
        for place in 0..self.chunks {
            tree.remove(chunk_key(self.id, place))?;
        }
        Ok(())
    }
}

/// What sled holds under a chunk's key. It tells its own place, so that no chunk passes for
/// another one.
#[derive(Decode)]
struct Chunk {
    run: u64,
    place: u32,
    rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// [`Chunk`], to be written.
#[derive(Encode)]
struct ChunkRef<'a> {
    run: u64,
    place: u32,
    rows: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// A run on its way to sled.
pub(super) struct RunWriter<'a> {
    tree: &'a sled::Tree,
    run: Run,
    gathered: Vec<Change>,
    gathered_bytes: usize,
}

impl<'a> RunWriter<'a> {
    pub(super) fn new(tree: &'a sled::Tree, id: u64, level: u8) -> Self {
        let run = Run {
            id,
            level,
            chunks: 0,
            rows: 0,
            bytes: 0,
        };
        Self {
            tree,
            run,
            gathered: Vec::new(),
            gathered_bytes: 0,
        }
    }

    /// Takes the next change; its key is above all before it. Tells whether a chunk was written.
    pub(super) fn push(&mut self, (key, value): Change) -> Result<bool, Fault> {
        self.gathered_bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.gathered.push((key, value));
        let full = self.gathered_bytes >= CHUNK_BYTES;
        if full {
            self.write_chunk()?;
        }
        Ok(full)
    }

    /// The run, all of it written; `None` if it is empty.
    pub(super) fn finish(mut self) -> Result<Option<Run>, Fault> {
        if !self.gathered.is_empty() {
            self.write_chunk()?;
        }
        Ok(Some(self.run).filter(|run| run.rows > 0))
    }

    /// Takes back what was written.
    pub(super) fn abandon(self) -> Result<(), Fault> {
        self.run.remove(self.tree)
    }

    fn write_chunk(&mut self) -> Result<(), Fault> {
        let Run { id, chunks, .. } = self.run;
        let rows = self.gathered.iter();
        let record = ChunkRef {
            run: id,
            place: chunks,
            rows: rows
                .map(|(key, value)| (&**key, value.as_deref()))
                .collect(),
        };
        let record = codec::encode(CHUNK_FORMAT, &record);
        self.tree.insert(chunk_key(id, chunks), record)?;
        self.run.chunks += 1;
        self.run.rows += self.gathered.len() as u64;
        self.run.bytes += self.gathered_bytes as u64;
        self.gathered.clear();
        self.gathered_bytes = 0;
        Ok(())
    }
}

/// A run as it is read back.
struct RunReader<'a> {
    tree: &'a sled::Tree,
    run: Run,
    /// The place of the next chunk.
    next: u32,
    rows: vec::IntoIter<(Vec<u8>, Option<Vec<u8>>)>,
    seen: u64,
}

impl RunReader<'_> {
    fn read_chunk(&mut self) -> Result<(), Fault> {
        let (id, place) = (self.run.id, self.next);
        let damaged = |fault: &str| Fault(format!("chunk {place} of run {id} {fault}"));
        let stored = self.tree.get(chunk_key(id, place))?;
        let stored = stored.ok_or_else(|| damaged("is missing"))?;
        let chunk: Chunk = codec::decode(CHUNK_FORMAT, &stored)
            .map_err(|error| damaged(&format!("is damaged: {error}")))?;
        if (chunk.run, chunk.place) != (id, place) {
            return Err(damaged("is another one"));
        }
        self.next += 1;
        self.seen += chunk.rows.len() as u64;
        self.rows = chunk.rows.into_iter();
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Change>, Fault> {
        loop {
            if let Some((key, value)) = self.rows.next() {
                return Ok(Some((key.into(), value.map(Bytes::from))));
            }
            if self.next == self.run.chunks {
                return match self.seen == self.run.rows {
                    true => Ok(None),
                    false => Err(Fault(format!(
                        "run {} has {} rows and should have {}",
                        self.run.id, self.seen, self.run.rows
                    ))),
                };
            }
            self.read_chunk()?;
        }
    }
}

/// The next change of a run: key, the run's place, value. Of equal keys the newest run's is first.
type Head = Reverse<(Bytes, Reverse<usize>, Option<Bytes>)>;

/// Several runs as one: the rows in the order of their keys, each as the newest run has it.
pub(super) struct Merged<'a> {
    runs: Vec<RunReader<'a>>,
    heads: BinaryHeap<Head>,
}

impl<'a> Merged<'a> {
    /// `runs`: the oldest first.
    pub(super) fn new(tree: &'a sled::Tree, runs: &[Run]) -> Result<Self, Fault> {
        let readers = runs.iter().map(|run| RunReader {
            tree,
            run: run.clone(),
            next: 0,
            rows: Vec::new().into_iter(),
            seen: 0,
        });
        let mut merged = Self {
            runs: readers.collect(),
            heads: BinaryHeap::new(),
        };
        for at in 0..merged.runs.len() {
            merged.read(at)?;
        }
        Ok(merged)
    }

    /// The next change; `None` behind the last one.
    pub(super) fn next(&mut self) -> Result<Option<Change>, Fault> {
        let Some(Reverse((key, Reverse(at), value))) = self.heads.pop() else {
            return Ok(None);
        };
        self.read(at)?;
        while let Some(older) = self.heads.peek().filter(|Reverse((it, ..))| *it == key) {
            let Reverse((_, Reverse(at), _)) = *older;
            self.heads.pop();
            self.read(at)?;
        }
        Ok(Some((key, value)))
    }

    fn read(&mut self, at: usize) -> Result<(), Fault> {
        if let Some((key, value)) = self.runs[at].next()? {
            self.heads.push(Reverse((key, Reverse(at), value)));
        }
        Ok(())
    }
}

pub(super) fn chunk_key(run: u64, place: u32) -> Vec<u8> {
    [
        &[CHUNK_PREFIX][..],
        &run.to_be_bytes(),
        &place.to_be_bytes(),
    ]
    .concat()
}

/// The run that a chunk's key names; `None` if it is no such key.
pub(super) fn run_of(key: &[u8]) -> Option<u64> {
    let run = key.strip_prefix(&[CHUNK_PREFIX])?.first_chunk()?;
    Some(u64::from_be_bytes(*run))
}
