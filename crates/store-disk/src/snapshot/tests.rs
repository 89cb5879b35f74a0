//! What snapshot files keep, and how damage to them shows.

use std::io::Write;

use super::block::BLOCK_BYTES;
use super::*;

struct Home {
    temp: tempfile::TempDir,
    store: SnapshotStore,
}

impl Home {
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap())
    }

    fn open(temp: tempfile::TempDir) -> Self {
        let data_dir = DataDir::open(temp.path()).unwrap();
        let store = SnapshotStore::open(&data_dir).unwrap();
        Self { temp, store }
    }

    fn close(self) -> tempfile::TempDir {
        drop(self.store);
        self.temp
    }

    fn reopen(self) -> Self {
        Self::open(self.close())
    }

    fn write(&self, index: u64, data: &[u8]) -> Snapshot {
        let mut writer = self
            .store
            .begin(index, format!("meta {index}").as_bytes())
            .unwrap();
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    fn newest(&self) -> u64 {
        self.store.newest().unwrap().index()
    }
}

fn files(temp: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(temp.path().join(FOLDER))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn data(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    snapshot.blocks().try_fold(Vec::new(), |mut data, block| {
        data.extend_from_slice(&block?);
        Ok(data)
    })
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_snapshot_survives_a_reopening_byte_for_byte() {
    let home = Home::new();
    assert!(home.store.newest().is_none());
    let written: Vec<u8> = (0..BLOCK_BYTES * 3 + 17)
        .map(|at| (at % 251) as u8)
        .collect();
    let snapshot = home.write(7, &written);
    assert_eq!(snapshot.data_bytes(), written.len() as u64);
    let home = home.reopen();
    let snapshot = home.store.newest().unwrap();
    assert_eq!(
        (snapshot.index(), &snapshot.meta()[..]),
        (7, &b"meta 7"[..])
    );
    assert_eq!(snapshot.data_bytes(), written.len() as u64);
    assert_eq!(snapshot.blocks().count(), 4);
    assert!(data(&snapshot).unwrap() == written);
}

#[test]
fn an_empty_snapshot_is_one() {
    let home = Home::new();
    home.write(0, b"");
    let home = home.reopen();
    assert_eq!(data(&home.store.newest().unwrap()).unwrap(), b"");
}

#[test]
fn the_newest_two_are_kept_and_a_replaced_one_stays_readable_for_who_has_it() {
    let home = Home::new();
    let first = home.write(1, b"one");
    for index in 2..6 {
        home.write(index, b"more");
        assert_eq!(home.newest(), index);
    }
    assert_eq!(
        files(&home.temp),
        ["0000000000000004.snap", "0000000000000005.snap"]
    );
    assert_eq!(data(&first).unwrap(), b"one");
    assert_eq!(home.reopen().newest(), 5);
}

#[test]
fn an_older_snapshot_that_is_finished_late_is_not_the_newest() {
    let home = Home::new();
    let mut late = home.store.begin(3, b"").unwrap();
    home.write(9, b"installed");
    late.write_all(b"built").unwrap();
    late.finish().unwrap();
    assert_eq!(home.newest(), 9);
    assert_eq!(home.reopen().newest(), 9);
}

#[test]
fn the_same_position_again_replaces_the_file() {
    let home = Home::new();
    home.write(4, b"old");
    home.write(4, b"new");
    assert_eq!(files(&home.temp).len(), 1);
    assert_eq!(
        data(&home.reopen().store.newest().unwrap()).unwrap(),
        b"new"
    );
}

#[test]
fn an_unfinished_snapshot_is_none() {
    let home = Home::new();
    home.write(1, b"whole");
    let mut dropped = home.store.begin(2, b"").unwrap();
    dropped.write_all(&[1; BLOCK_BYTES]).unwrap();
    drop(dropped);
    assert_eq!(files(&home.temp), ["0000000000000001.snap"]);
    // What a crash leaves behind.
    let left = home.temp.path().join(FOLDER).join("0000000000000002.0.tmp");
    fs::write(&left, b"half").unwrap();
    let home = home.reopen();
    assert_eq!(home.newest(), 1);
    assert!(!left.exists());
}

#[test]
fn any_flipped_byte_and_any_cut_is_damage() {
    let home = Home::new();
    let path = home.write(1, b"some data").path().to_owned();
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        flip(&path, at);
        let error = Snapshot::open(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}");
        fs::write(&path, &whole[..at]).unwrap();
        assert!(Snapshot::open(&path).is_err(), "cut at {at}");
        fs::write(&path, &whole).unwrap();
    }
    Snapshot::open(&path).unwrap();
}

#[test]
fn a_damaged_snapshot_is_named_and_skipped() {
    let home = Home::new();
    home.write(1, b"old");
    let path = home.write(2, b"new").path().to_owned();
    flip(&path, fs::read(&path).unwrap().len() - 3);
    let home = home.reopen();
    assert_eq!(home.newest(), 1);
    let damaged = home.store.damaged();
    assert_eq!((damaged.len(), &damaged[0].path), (1, &path));
    assert!(damaged[0].fault.contains("offset"), "{}", damaged[0].fault);
    assert!(path.exists(), "it is evidence");
    home.write(3, b"newer");
    assert_eq!(
        files(&home.temp),
        ["0000000000000001.snap", "0000000000000003.snap"]
    );
    assert!(home.store.damaged().is_empty());
}

#[test]
fn damage_that_comes_later_shows_in_reading() {
    let home = Home::new();
    let snapshot = home.write(1, &[9; BLOCK_BYTES * 2]);
    let path = snapshot.path().to_owned();
    flip(&path, BLOCK_BYTES + 1000);
    let mut blocks = snapshot.blocks();
    assert!(blocks.next().unwrap().is_ok());
    let error = blocks.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error}"
    );
    assert!(blocks.next().is_none(), "nothing follows an error");
}
