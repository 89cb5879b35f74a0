//! What the log keeps, through restarts, crashes, damage and failing disks.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use super::*;

mod crash;
mod damage;
mod disks;
mod everyday;
mod group;
mod model;

/// Long enough for any machine, short enough to end a hung test.
const PATIENCE: Duration = Duration::from_secs(30);

fn small() -> WalOptions {
    WalOptions {
        segment_bytes: 4096,
        cache_bytes: 256,
        ..WalOptions::default()
    }
}

fn on(disk: &Arc<impl Disk + 'static>) -> WalOptions {
    WalOptions {
        disk: Arc::clone(disk) as Arc<dyn Disk>,
        ..small()
    }
}

struct Log {
    wal: Wal,
    recovered: Recovered,
    temp: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        Self::with(small())
    }

    fn with(options: WalOptions) -> Self {
        Self::open(tempfile::tempdir().unwrap(), options).unwrap()
    }

    fn open(temp: tempfile::TempDir, options: WalOptions) -> Result<Self, WalError> {
        let data_dir = DataDir::open(temp.path()).unwrap();
        let (wal, recovered) = Wal::open(&data_dir, options)?;
        Ok(Self {
            wal,
            recovered,
            temp,
        })
    }

    fn reopen(self) -> Self {
        self.reopen_with(small()).unwrap()
    }

    fn reopen_with(self, options: WalOptions) -> Result<Self, WalError> {
        let Self { wal, temp, .. } = self;
        drop(wal);
        Self::open(temp, options)
    }

    /// Ends the log, and returns what is left of it on disk.
    fn close(self) -> tempfile::TempDir {
        drop(self.wal);
        self.temp
    }

    fn append(&self, indices: Range<u64>, text: &str) {
        let entries = entries(indices, text);
        wait(|done| self.wal.append(entries, done)).unwrap();
    }

    fn vote(&self, text: &str) {
        wait(|done| self.wal.save_vote(bytes(text), done)).unwrap();
    }

    fn truncate_after(&self, index: Option<u64>) {
        wait(|done| self.wal.truncate_after(index, done)).unwrap();
    }

    fn purge_to(&self, index: u64) {
        wait(|done| self.wal.purge_to(index, bytes(&format!("p{index}")), done)).unwrap();
    }

    fn read_all(&self) -> Vec<(u64, Bytes)> {
        self.wal.read(0..u64::MAX).unwrap()
    }

    fn indices(&self) -> Vec<u64> {
        self.read_all()
            .into_iter()
            .map(|(index, _)| index)
            .collect()
    }

    fn segments(&self) -> Vec<PathBuf> {
        segments(&self.temp)
    }
}

fn segments(temp: &tempfile::TempDir) -> Vec<PathBuf> {
    let found = segment::list(&temp.path().join(FOLDER)).unwrap();
    found.into_iter().map(|(_, path)| path).collect()
}

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn entries(indices: Range<u64>, text: &str) -> Vec<(u64, Bytes)> {
    indices
        .map(|index| (index, bytes(&format!("{text}-{index}"))))
        .collect()
}

/// Runs an operation and waits for its answer.
fn wait(operation: impl FnOnce(Done)) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel();
    operation(Box::new(move |outcome| sender.send(outcome).unwrap()));
    receiver.recv_timeout(PATIENCE).expect("an answer in time")
}

/// An answer that nobody waits for.
fn ignored() -> Done {
    Box::new(drop)
}
