//! What was durable and is not there any more is refused by name, and a torn tail is not.

use std::io::Write;

use super::*;

/// What a log held once one of its batches was durable.
struct Stage {
    /// Where the batch ends in the segment.
    end: u64,
    state: WalState,
    entries: Vec<(u64, Bytes)>,
}

impl Stage {
    fn at(&self) -> usize {
        usize::try_from(self.end).unwrap()
    }
}

/// A log in one segment, and what it held after each batch.
fn staged() -> (tempfile::TempDir, Vec<Stage>) {
    let log = Log::new();
    let mut end =
        segment::FIRST_RECORD + record::stored_bytes(Outline::default().to_head().payload.len());
    let mut stages = Vec::new();
    let mut note = |log: &Log| {
        let written = log.wal.counters().bytes;
        stages.push(Stage {
            end: end + written,
            state: log.wal.state(),
            entries: log.read_all(),
        });
    };
    note(&log);
    log.vote("vote-1");
    note(&log);
    for round in 0..4_u64 {
        log.append(round * 5..round * 5 + 5, &"entry".repeat(8));
        note(&log);
    }
    log.truncate_after(Some(14));
    note(&log);
    log.append(15..16, "shorter");
    note(&log);
    log.purge_to(3);
    note(&log);
    log.append(16..17, &"x".repeat(700));
    note(&log);
    log.append(17..19, "last");
    note(&log);
    end = stages.last().unwrap().end;
    assert!(end < 4096, "all in one segment");
    (log.close(), stages)
}

fn outcome(temp: tempfile::TempDir) -> Result<(WalState, Vec<(u64, Bytes)>), WalError> {
    let log = Log::open(temp, small())?;
    Ok((log.wal.state(), log.read_all()))
}

/// A log's folder with these bytes as its only segment.
fn with_segment(bytes: &[u8]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join(FOLDER);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(format!("{:016x}.wal", 1)), bytes).unwrap();
    temp
}

fn recover(bytes: &[u8]) -> Result<(Outline, Option<TornTail>), WalError> {
    let temp = with_segment(bytes);
    let found = recovery::recover(&temp.path().join(FOLDER), 0)?.expect("there is a segment");
    Ok((found.ledger.outline().clone(), found.torn))
}

fn matches(outline: &Outline, stage: &Stage) -> bool {
    let first = (!outline.is_empty()).then_some(outline.first);
    let last = (!outline.is_empty()).then(|| outline.next - 1);
    (first, last, &outline.vote, &outline.purged)
        == (
            stage.state.first,
            stage.state.last,
            &stage.state.vote,
            &stage.state.purged,
        )
}

/// What a crash leaves of the last writes: nothing from some byte on.
#[test]
fn a_tail_torn_at_any_byte_leaves_the_acknowledged_prefix_or_is_refused() {
    let (temp, stages) = staged();
    let path = segments(&temp).remove(0);
    let whole = fs::read(&path).unwrap();
    let (begin, end) = (stages[0].end, stages.last().unwrap().end);
    let mut refused = 0;
    for cut in begin..=end {
        let mut torn = whole.clone();
        torn[usize::try_from(cut).unwrap()..].fill(0);
        match recover(&torn) {
            Ok((outline, tail)) => {
                let kept = |stage: &&Stage| torn[..stage.at()] == whole[..stage.at()];
                let expected = stages.iter().rfind(kept).unwrap();
                assert!(matches(&outline, expected), "cut at {cut}: {outline:?}");
                let clean = tail.is_none();
                let unwritten = torn[expected.at()..].iter().all(|byte| *byte == 0);
                assert_eq!(clean, unwritten, "cut at {cut}");
            }
            // Less than a sector is missing, which no disk leaves behind.
            Err(WalError::Damaged { .. }) if cut % 512 != 0 => refused += 1,
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
    assert!(refused > 0);
    assert_eq!(outcome(temp).unwrap().1, stages.last().unwrap().entries);
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let (temp, stages) = staged();
    let path = segments(&temp).remove(0);
    let whole = fs::read(&path).unwrap();
    let end = stages.last().unwrap().at();
    for cut in (0..end).chain([whole.len() - 1]) {
        let error = recover(&whole[..cut]).unwrap_err();
        assert!(
            matches!(error, WalError::Damaged { .. }),
            "cut at {cut}: {error}"
        );
    }
}

#[test]
fn every_flipped_byte_is_refused_with_file_and_offset() {
    let (temp, stages) = staged();
    let path = segments(&temp).remove(0);
    let whole = fs::read(&path).unwrap();
    let all = stages.last().unwrap();
    for at in 0..all.at() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x41;
        match recover(&flipped) {
            // Zeros behind a record, for its alignment.
            Ok((outline, None)) => {
                assert_eq!(whole[at], 0, "byte {at}");
                assert!(matches(&outline, all), "byte {at}");
            }
            Ok((_, torn)) => panic!("byte {at} was taken for {torn:?}"),
            Err(error) => {
                let WalError::Damaged { path, offset, .. } = &error else {
                    panic!("{error}")
                };
                assert!(
                    path.to_string_lossy().ends_with("0000000000000001.wal"),
                    "{error}"
                );
                assert!(*offset <= at as u64, "byte {at}: {error}");
                assert!(error.to_string().contains("--join"), "{error}");
            }
        }
    }
}

/// A lost sector is what a crash leaves, but not ahead of batches that were written after a sync.
#[test]
fn a_sector_lost_ahead_of_later_batches_is_refused() {
    let (temp, stages) = staged();
    let whole = fs::read(segments(&temp).remove(0)).unwrap();
    let last_batch = stages[stages.len() - 2].at();
    let mut lost = 0;
    for sector in (0..last_batch / 512).map(|sector| sector * 512) {
        let mut bad = whole.clone();
        bad[sector..sector + 512].fill(0);
        let error = recover(&bad).unwrap_err();
        assert!(
            matches!(error, WalError::Damaged { .. }),
            "sector at {sector}: {error}"
        );
        lost += 1;
    }
    assert!(lost > 2);
}

#[test]
fn a_torn_tail_is_wiped_and_the_log_goes_on() {
    let (temp, stages) = staged();
    let path = segments(&temp).remove(0);
    // The last batch but its second half, and junk behind it, as sectors in any order leave it.
    let stage = &stages[stages.len() - 2];
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 40], stage.end).unwrap();
    let log = Log::open(temp, small()).unwrap();
    let torn = log.recovered.torn.clone().expect("a torn tail");
    assert_eq!((torn.path, torn.offset), (path.clone(), stage.end));
    assert_eq!(log.read_all(), stage.entries);
    let left = &fs::read(&path).unwrap()[stage.at()..];
    assert!(
        left.iter().all(|byte| *byte == 0),
        "it must never be read as something newer"
    );
    log.append(17..18, "n");
    let log = log.reopen();
    assert_eq!(log.recovered.torn, None);
    assert_eq!(log.read_all().last(), Some(&(17, bytes("n-17"))));
    let written = fs::read(path).unwrap();
    assert!(
        !written.windows(6).any(|bytes| bytes == b"last-1"),
        "nothing of it is left"
    );
}

#[test]
fn damage_ahead_of_the_last_segment_is_refused() {
    let log = Log::new();
    for index in 0..200 {
        log.append(index..index + 1, "some entry");
    }
    let temp = log.close();
    let paths = segments(&temp);
    assert!(paths.len() > 2);
    let whole = fs::read(&paths[1]).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    // The end of a segment that was left behind long ago, lost as if it had never been written.
    let mut shorter = whole.clone();
    shorter[used - 40..].fill(0);
    for bad in [
        shorter,
        [&whole[..200], &[0; 512][..], &whole[712..]].concat(),
    ] {
        fs::write(&paths[1], &bad).unwrap();
        let data_dir = DataDir::open(temp.path()).unwrap();
        let error = Wal::open(&data_dir, small()).unwrap_err();
        let WalError::Damaged { path, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(path, &paths[1], "{error}");
    }
}

#[test]
fn a_missing_segment_is_refused() {
    for (missing, hint) in [(0, "missing"), (1, "missing"), (usize::MAX, "gone")] {
        let log = Log::new();
        log.append(0..300, "entry");
        let temp = log.close();
        let paths = segments(&temp);
        assert!(paths.len() > 2);
        for (at, path) in paths.iter().enumerate() {
            if missing == at || missing == usize::MAX {
                fs::remove_file(path).unwrap();
            }
        }
        let error = outcome(temp).unwrap_err();
        assert!(matches!(error, WalError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[test]
fn a_purge_whose_removals_a_crash_cut_short_is_finished_at_the_next_start() {
    let log = Log::new();
    log.append(0..300, "entry");
    let kept: Vec<_> = log
        .segments()
        .into_iter()
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    log.purge_to(290);
    let left = log.segments();
    let temp = log.close();
    // The newest of the removed ones is back, as if its removal had not got to the disk.
    let (old, path) = kept.iter().rfind(|(_, path)| !left.contains(path)).unwrap();
    fs::write(path, old).unwrap();
    let log = Log::open(temp, small()).unwrap();
    assert_eq!(log.segments(), left);
    assert_eq!(log.indices(), (291..300).collect::<Vec<_>>());
}

#[test]
fn a_half_made_segment_is_removed() {
    let log = Log::new();
    log.append(0..10, "entry");
    let temp = log.close();
    let half = temp.path().join(FOLDER).join("0000000000000002.wal.tmp");
    File::create(&half).unwrap().write_all(b"SKEIN").unwrap();
    let log = Log::open(temp, small()).unwrap();
    assert!(!half.exists());
    assert_eq!(log.indices().len(), 10);
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let log = Log::new();
    let temp = log.close();
    let path = segments(&temp).remove(0);
    let mut whole = fs::read(&path).unwrap();
    whole[8] += 1;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&whole[..12]);
    hasher.update(&whole[16..64]);
    whole[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    fs::write(&path, whole).unwrap();
    let error = outcome(temp).unwrap_err();
    assert!(matches!(error, WalError::Newer { .. }), "{error}");
}

/// A client may store a copy of a log in a value; a torn write of it proves nothing.
#[test]
fn a_copy_of_a_log_inside_a_torn_entry_is_not_taken_for_the_log() {
    let large = WalOptions {
        segment_bytes: 64 * 1024,
        ..small()
    };
    let other = Log::with(large.clone());
    for index in 0..60 {
        other.append(index..index + 1, "later batch");
    }
    let copy = fs::read(other.segments().remove(0)).unwrap();
    let used = copy.iter().rposition(|byte| *byte != 0).unwrap();

    let log = Log::with(large.clone());
    log.append(0..5, "entry");
    let end = log.wal.counters().bytes + record::stored_bytes(0);
    let payload = vec![(5, Bytes::from(copy[..=used].to_vec()))];
    wait(|done| log.wal.append(payload, done)).unwrap();
    let temp = log.close();
    let path = segments(&temp).remove(0);
    let mut torn = fs::read(&path).unwrap();
    // One of its sectors did not get to the disk.
    let sector = usize::try_from(end).unwrap().next_multiple_of(512) + 512;
    assert!(torn[sector..sector + 512].iter().any(|byte| *byte != 0));
    torn[sector..sector + 512].fill(0);
    fs::write(&path, torn).unwrap();
    let log = Log::open(temp, large).unwrap();
    assert_eq!(log.read_all(), entries(0..5, "entry"));
    assert!(log.recovered.torn.is_some());
}

#[test]
fn an_entry_damaged_while_the_log_is_open_is_not_returned() {
    let log = Log::new();
    log.append(0..50, "entry");
    let path = log.segments().remove(0);
    let whole = fs::read(&path).unwrap();
    let at = whole
        .windows(7)
        .position(|bytes| bytes == b"entry-3")
        .unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"E", at as u64).unwrap();
    let error = log.wal.read(3..4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error}"
    );
    assert_eq!(log.wal.read(2..3).unwrap(), entries(2..3, "entry"));
}
