//! Snapshots that a node saves by itself, every so often, where it was told to.
//!
//! Owns the schedule, the names of the files and how many are kept. Each node that is told to saves
//! its own copy of the store: whichever machine is lost, the others have one. Never takes the room
//! that the store needs, and never touches a file of another name.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::NodeName;
use store_disk::{Archive, UnfinishedFile};
use store_raft::{Outgoing, Store};

use crate::options::SnapshotSchedule;
use crate::parts::Parts;

/// Where there would be less room afterwards, nothing is written: the store may need it.
const ROOM_LEFT: u64 = 256 << 20;
/// The pause after a failure, unless the next snapshot is due before.
const RETRY: Duration = Duration::from_secs(300);
/// The clock is looked at so often: it may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(30);

const ENDING: &str = ".skein";

/// How the snapshots went.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// When the last one was saved, in seconds since the Unix epoch; 0 for none in this life.
    pub(crate) saved_unix: AtomicI64,
    pub(crate) failures: AtomicI64,
}

/// Saves snapshots as long as this node runs, if it was told to.
pub(crate) async fn save(parts: Arc<Parts>) {
    let Some(schedule) = parts.options.snapshots.clone() else {
        return std::future::pending().await;
    };
    let store = parts.opened().await;
    // What is on its way to this node when it starts is worth waiting for.
    store.caught_up().await;
    let shelf = Shelf {
        dir: schedule.dir.clone(),
        name: parts.options.name.clone(),
    };
    let mut failed = None;
    loop {
        let pause = shelf.pause(&schedule, SystemTime::now(), failed);
        if !pause.is_zero() {
            tokio::time::sleep(pause.min(LOOK_EVERY)).await;
            continue;
        }
        let saved = attempt(&store, shelf.clone(), schedule.keep).await;
        failed = saved.is_err().then(SystemTime::now);
        match saved {
            Ok((path, bytes)) => {
                let now = seconds(SystemTime::now());
                let now = i64::try_from(now).unwrap_or(i64::MAX);
                parts.snapshots.saved_unix.store(now, Ordering::Relaxed);
                tracing::info!(path = %path.display(), bytes, "saved a snapshot");
            }
            Err(fault) => {
                parts.snapshots.failures.fetch_add(1, Ordering::Relaxed);
                let dir = shelf.dir.display();
                tracing::error!(%fault, %dir, "no snapshot was saved; the store goes on: see to room and permissions there");
            }
        }
    }
}

async fn attempt(store: &Store, shelf: Shelf, keep: usize) -> io::Result<(PathBuf, u64)> {
    let outgoing = store.archive().await;
    let work = move || {
        let path = shelf.write(&outgoing, SystemTime::now())?;
        shelf.tidy(keep)?;
        Ok((path, outgoing.bytes()))
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}

/// One node's files in a folder that others may use, too.
#[derive(Debug, Clone)]
struct Shelf {
    dir: PathBuf,
    name: NodeName,
}

impl Shelf {
    /// How long until the next one is due.
    fn pause(
        &self,
        schedule: &SnapshotSchedule,
        now: SystemTime,
        failed: Option<SystemTime>,
    ) -> Duration {
        // A time in the future is of a clock that was wrong, then or now.
        let since = |then: SystemTime| now.duration_since(then).unwrap_or(schedule.every);
        let retry = RETRY.min(schedule.every);
        if let Some(failed) = failed {
            return retry.saturating_sub(since(failed));
        }
        // A folder that cannot be read shows when it is written.
        let newest = self.files().ok().and_then(|mut files| files.pop());
        let saved = newest.and_then(|path| fs::metadata(path).ok()?.modified().ok());
        saved.map_or(Duration::ZERO, |saved| {
            schedule.every.saturating_sub(since(saved))
        })
    }

    /// Saves a snapshot, whole and checked, or nothing. Blocks.
    fn write(&self, outgoing: &Outgoing, now: SystemTime) -> io::Result<PathBuf> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.dir)?;
        self.remove_leftovers()?;
        check_room(&self.dir, outgoing.bytes())?;
        let stamp = stamp(seconds(now));
        let path = self.dir.join(format!("{}-{stamp}{ENDING}", self.name));
        let file = outgoing.write(UnfinishedFile::begin(&path)?)?;
        file.sync()?;
        // What the disk kept, and not what was meant to be written.
        Archive::open(file.path()).map_err(|error| io::Error::other(error.to_string()))?;
        file.finish(&path)?;
        Ok(path)
    }

    /// Removes what an earlier life of this node was writing when it was killed.
    fn remove_leftovers(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            // A hidden file: a dot, the name that it was to have, a process's id, an ending.
            let name = path.file_name().and_then(|name| name.to_str());
            let stem = name
                .and_then(|name| name.strip_prefix('.')?.strip_suffix(".part"))
                .and_then(|stem| Some(stem.rsplit_once('.')?.0));
            if stem.is_some_and(|stem| self.is_mine(stem.as_ref())) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Removes all but the newest `keep`.
    fn tidy(&self, keep: usize) -> io::Result<()> {
        let files = self.files()?;
        let surplus = files.len().saturating_sub(keep);
        files[..surplus].iter().try_for_each(fs::remove_file)
    }

    /// This node's snapshots, the oldest first.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| self.is_mine(name)) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn is_mine(&self, file: &std::ffi::OsStr) -> bool {
        let stamp = file.to_str().and_then(|file| {
            let rest = file.strip_prefix(self.name.as_str())?;
            rest.strip_prefix('-')?.strip_suffix(ENDING)
        });
        let digit_or = |at: usize, byte: u8| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        };
        stamp.is_some_and(|stamp| {
            let mut bytes = stamp.bytes().enumerate();
            stamp.len() == 16 && bytes.all(|(at, byte)| digit_or(at, byte))
        })
    }
}

fn check_room(dir: &Path, bytes: u64) -> io::Result<()> {
    let disk = rustix::fs::statvfs(dir)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= bytes.saturating_add(ROOM_LEFT) {
        return Ok(());
    }
    let text = format!(
        "{} MiB are free, the snapshot needs {}, and {} are left to the store",
        free >> 20,
        bytes.div_ceil(1 << 20),
        ROOM_LEFT >> 20
    );
    Err(io::Error::new(io::ErrorKind::StorageFull, text))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// A time as `20261121T170500Z`, which orders as times do.
fn stamp(unix: u64) -> String {
    let (mut days, rest) = (unix / 86_400, unix % 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    let day = days + 1;
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use model::NodeId;
    use store_mvcc::Image;

    use super::*;

    fn shelf(dir: &Path) -> Shelf {
        Shelf {
            dir: dir.to_owned(),
            name: "n1".parse().unwrap(),
        }
    }

    fn outgoing() -> Outgoing {
        let image = Image::default();
        Outgoing::of(image, 1, None, NodeId(1), SystemTime::now())
    }

    fn at(unix: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(unix)
    }

    #[test]
    fn stamps_are_dates() {
        assert_eq!(stamp(0), "19700101T000000Z");
        assert_eq!(stamp(951_782_399), "20000228T235959Z");
        assert_eq!(stamp(951_782_400), "20000229T000000Z");
        assert_eq!(stamp(1_709_251_199), "20240229T235959Z");
        assert_eq!(stamp(1_735_689_599), "20241231T235959Z");
        assert_eq!(stamp(4_107_542_400), "21000301T000000Z");
    }

    #[test]
    fn the_newest_stay_and_what_is_anothers_too() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("made");
        let shelf = shelf(&dir);
        for day in 0..5 {
            let path = shelf.write(&outgoing(), at(day * 86_400)).unwrap();
            assert!(Archive::open(&path).is_ok());
        }
        let others = [
            "n1-x-19700101T000000Z.skein",
            "n2-19700101T000000Z.skein",
            "n1-1.skein",
            "n1-19700101T000000Z.skein.old",
        ];
        for name in others {
            fs::write(dir.join(name), "x").unwrap();
        }
        let leftover = dir.join(".n1-19700101T000000Z.skein.77.part");
        fs::write(&leftover, "x").unwrap();
        shelf.write(&outgoing(), at(4 * 86_400)).unwrap();
        assert!(!leftover.exists());
        shelf.tidy(2).unwrap();
        let left = shelf.files().unwrap();
        let names: Vec<_> = left.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(
            names,
            ["n1-19700104T000000Z.skein", "n1-19700105T000000Z.skein"]
        );
        assert!(others.iter().all(|name| dir.join(name).exists()));
    }

    #[test]
    fn one_is_due_so_long_after_the_last_one() {
        let temp = tempfile::tempdir().unwrap();
        let shelf = shelf(temp.path());
        let schedule = SnapshotSchedule {
            dir: temp.path().to_owned(),
            every: Duration::from_secs(3_600),
            keep: 3,
        };
        let now = SystemTime::now();
        assert_eq!(shelf.pause(&schedule, now, None), Duration::ZERO);
        // Also by an earlier life of the node.
        shelf.write(&outgoing(), now).unwrap();
        let pause = shelf.pause(&schedule, now + Duration::from_secs(600), None);
        assert!(
            pause > Duration::from_secs(2_900) && pause <= schedule.every,
            "{pause:?}"
        );
        let later = now + Duration::from_secs(3_700);
        assert_eq!(shelf.pause(&schedule, later, None), Duration::ZERO);
        // A failure is not tried again at once.
        assert_eq!(shelf.pause(&schedule, later, Some(later)), RETRY);
    }

    #[test]
    fn the_stores_room_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let error = check_room(temp.path(), u64::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("left to the store"), "{error}");
        check_room(temp.path(), 0).unwrap();
    }
}
