//! Disks that count, wait, fail and forget.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use super::*;

const SECTOR: u64 = 512;

/// Counts syncs, and lets each begin only when it is allowed to.
#[derive(Debug, Default)]
pub(super) struct GatedDisk {
    state: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Gate {
    closed: bool,
    waiting: u64,
    syncs: u64,
}

impl GatedDisk {
    pub(super) fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().closed = closed;
        self.changed.notify_all();
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state.lock().unwrap().syncs
    }

    /// Waits until the writer stands before the closed gate.
    pub(super) fn await_sync(&self) {
        let state = self.state.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(state, PATIENCE, |gate| gate.waiting == 0);
        assert!(!waited.unwrap().1.timed_out(), "no sync came");
    }
}

impl Disk for GatedDisk {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |gate| gate.closed).unwrap();
        state.waiting -= 1;
        file.sync_data()?;
        state.syncs += 1;
        Ok(())
    }
}

/// Which call of a [`FailingDisk`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fails {
    Write,
    Sync,
}

/// Fails one call once, and works again afterwards, as real disks do.
#[derive(Debug)]
pub(super) struct FailingDisk {
    pub(super) fails: Fails,
    pub(super) after: AtomicU64,
}

impl FailingDisk {
    pub(super) fn new(fails: Fails, after: u64) -> Self {
        Self {
            fails,
            after: AtomicU64::new(after),
        }
    }

    fn try_fail(&self, call: Fails) -> io::Result<()> {
        if self.fails == call && self.after.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(io::Error::other("the cable fell out"));
        }
        Ok(())
    }
}

impl Disk for FailingDisk {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.try_fail(Fails::Write)?;
        file.write_all_at(bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.try_fail(Fails::Sync)?;
        file.sync_data()
    }
}

/// Offset and bytes.
type Write = (u64, Vec<u8>);

/// Keeps what was written in a cache until it is synced. At one sync the power goes: of what was
/// in the cache, each sector gets to the file or does not, as the seed has it.
#[derive(Debug)]
pub(super) struct ForgetfulDisk {
    /// By file descriptor.
    cache: Mutex<HashMap<i32, Vec<Write>>>,
    syncs_left: AtomicU64,
    seed: AtomicU64,
}

impl ForgetfulDisk {
    pub(super) fn new(syncs: u64, seed: u64) -> Self {
        let cache = Mutex::new(HashMap::new());
        Self {
            cache,
            syncs_left: AtomicU64::new(syncs),
            seed: AtomicU64::new(seed | 1),
        }
    }

    fn coin(&self) -> bool {
        // xorshift64, by Marsaglia.
        let mut word = self.seed.load(Ordering::SeqCst);
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        self.seed.store(word, Ordering::SeqCst);
        word & 4 != 0
    }
}

impl Disk for ForgetfulDisk {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut cache = self.cache.lock().unwrap();
        cache
            .entry(file.as_raw_fd())
            .or_default()
            .push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        let cached = self
            .cache
            .lock()
            .unwrap()
            .remove(&file.as_raw_fd())
            .unwrap_or_default();
        let left = self.syncs_left.load(Ordering::SeqCst);
        if left == 0 {
            for (offset, bytes) in cached {
                let mut at = 0;
                while at < bytes.len() {
                    let begin = offset + at as u64;
                    let sector_end = (begin / SECTOR + 1) * SECTOR;
                    let end = bytes
                        .len()
                        .min(at + usize::try_from(sector_end - begin).unwrap());
                    if self.coin() {
                        file.write_all_at(&bytes[at..end], begin)?;
                    }
                    at = end;
                }
            }
            return Err(io::Error::other("the power went"));
        }
        self.syncs_left.store(left - 1, Ordering::SeqCst);
        for (offset, bytes) in cached {
            file.write_all_at(&bytes, offset)?;
        }
        Ok(())
    }
}
