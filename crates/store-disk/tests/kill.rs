//! Processes that write without an end and are killed: what they reported as done is there.
//!
//! The test program starts itself again as the writer, which goes on from what it finds.

#![expect(
    clippy::unwrap_used,
    reason = "a test program fails by panicking, its helpers too"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use bytes::Bytes;
use store_disk::{DataDir, Rows, RowsBatch, RowsError, Wal, WalOptions};

const DIR: &str = "SKEIN_TEST_KILL_DIR";
const LIVES: u64 = 6;

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 16 * 1024,
        ..WalOptions::default()
    }
}

fn bytes(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

/// Runs the writer `test` of this file, lets it report `reports` times and kills it; returns the
/// numbers it reported.
fn live_and_die(test: &str, dir: &Path, reports: u64) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--ignored"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let report = |line: String| {
        line.strip_prefix("report ")
            .map(|text| number(text.as_bytes()))
    };
    let mut heard = Vec::new();
    while heard.len() < usize::try_from(reports).unwrap() {
        let line = lines.next().expect("the writer never ends by itself");
        heard.extend(report(line));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // It said so ahead of its death.
    heard.extend(lines.filter_map(report));
    heard
}

#[test]
fn entries_that_a_killed_process_acknowledged_are_there() {
    let temp = tempfile::tempdir().unwrap();
    for life in 0..LIVES {
        let heard = live_and_die("log_writer", temp.path(), 3 + life * 37);
        let data_dir = DataDir::open(temp.path()).unwrap();
        let (wal, _) = Wal::open(&data_dir, options()).unwrap();
        let state = wal.state();
        let (first, last) = (state.first.unwrap(), state.last.unwrap());
        assert!(last >= *heard.last().unwrap(), "{last} < {heard:?}");
        // The last entry of each round is truncated again.
        assert!(number(&state.vote.unwrap()) <= last + 1);
        let entries = wal.read(first..last + 1).unwrap();
        assert_eq!(entries.len() as u64, last + 1 - first);
        assert!(
            entries
                .iter()
                .all(|(index, payload)| number(payload) == *index)
        );
    }
}

#[test]
#[ignore = "the writer that another test starts and kills"]
fn log_writer() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let (wal, _) = Wal::open(&DataDir::open(dir).unwrap(), options()).unwrap();
    let state = wal.state();
    let purged = state.purged.map(|purged| purged.index);
    let mut next = state.last.or(purged).map_or(0, |index| index + 1);
    let (sender, receiver) = mpsc::channel();
    loop {
        for index in next..next + 10 {
            let sender = sender.clone();
            wal.append(
                vec![(index, bytes(index))],
                Box::new(move |outcome| {
                    outcome.unwrap();
                    sender.send(index).unwrap();
                }),
            );
            if index % 7 == 0 {
                wal.save_vote(bytes(index), Box::new(|outcome| outcome.unwrap()));
            }
        }
        next += 10;
        let sender = sender.clone();
        wal.truncate_after(Some(next - 2), Box::new(|outcome| outcome.unwrap()));
        next -= 1;
        if next > 300 {
            wal.purge_to(
                next - 300,
                bytes(next - 300),
                Box::new(|outcome| outcome.unwrap()),
            );
        }
        wal.append(
            Vec::new(),
            Box::new(move |_| sender.send(u64::MAX).unwrap()),
        );
        while receiver.recv().unwrap() != u64::MAX {}
        println!("report {}", next - 1);
    }
}

/// The rows after so many batches.
fn rows_at(batches: u64) -> BTreeMap<Bytes, Bytes> {
    let mut rows = BTreeMap::new();
    for at in 1..=batches {
        let batch = batch(at);
        for key in batch.deletes {
            rows.remove(&key);
        }
        rows.extend(batch.puts);
    }
    rows
}

fn batch(at: u64) -> RowsBatch {
    let value = |key: u64| Bytes::from(format!("{at}-{key}").repeat(20));
    RowsBatch {
        puts: (0..5)
            .map(|step| (bytes(at * 11 % 300 + step), value(step)))
            .collect(),
        deletes: vec![bytes(at * 7 % 300), bytes(at * 5 % 300)],
        applied: bytes(at),
    }
}

#[test]
fn rows_of_a_killed_process_are_those_of_their_position_or_refused() {
    let temp = tempfile::tempdir().unwrap();
    let mut opened = 0;
    for life in 0..LIVES {
        live_and_die("rows_writer", temp.path(), 2 + life);
        let data_dir = DataDir::open(temp.path()).unwrap();
        match Rows::open(&data_dir) {
            Ok((_, loaded)) => {
                let batches = loaded.applied.map_or(0, |applied| number(&applied));
                let found: BTreeMap<_, _> = loaded.rows.into_iter().collect();
                assert!(found == rows_at(batches), "not the rows of {batches}");
                opened += 1;
            }
            Err(RowsError::Damaged { .. } | RowsError::Unfinished { .. }) => {
                Rows::wipe(&data_dir).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(opened > 0, "rows that no restart can use are worth nothing");
}

#[test]
#[ignore = "the writer that another test starts and kills"]
fn rows_writer() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let (rows, loaded) = Rows::open(&DataDir::open(dir).unwrap()).unwrap();
    let first = loaded.applied.map_or(0, |applied| number(&applied)) + 1;
    for at in first.. {
        rows.write(batch(at));
        if at % 50 == 0 {
            rows.flush().unwrap();
            println!("report {at}");
        }
    }
}
