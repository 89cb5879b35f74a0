//! What the rows keep, and how damage to them shows.

use std::sync::mpsc;
use std::time::Duration;

use super::run::chunk_key;
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

struct Home {
    temp: tempfile::TempDir,
    data_dir: DataDir,
}

impl Home {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(temp.path()).unwrap();
        Self { temp, data_dir }
    }

    fn open(&self) -> Result<(Rows, Loaded), RowsError> {
        Rows::open(&self.data_dir)
    }

    fn rows(&self) -> Rows {
        self.open().unwrap().0
    }

    fn loaded(&self) -> Loaded {
        self.open().unwrap().1
    }

    /// The rows as sled has them, behind the back of their owner.
    fn meddle(&self, change: impl FnOnce(&sled::Db)) {
        let deadline = std::time::Instant::now() + PATIENCE;
        let db = loop {
            match sled::open(self.temp.path().join(FOLDER)) {
                Ok(db) => break db,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
        };
        change(&db);
        db.flush().unwrap();
    }

    fn assert_rebuildable(&self) {
        Rows::wipe(&self.data_dir).unwrap();
        let (rows, loaded) = self.open().unwrap();
        assert_eq!(loaded, Loaded::default());
        rows.rebuild([row("a", "rebuilt")].into_iter(), bytes("9"));
        drop(rows);
        assert_eq!(self.loaded(), of("9", &[("a", "rebuilt")]));
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn row(key: &str, value: &str) -> (Bytes, Bytes) {
    (bytes(key), bytes(value))
}

fn put(applied: &str, rows: &[(&str, &str)]) -> RowsBatch {
    let puts = rows.iter().map(|(key, value)| row(key, value)).collect();
    RowsBatch {
        puts,
        deletes: Vec::new(),
        applied: bytes(applied),
    }
}

fn of(applied: &str, rows: &[(&str, &str)]) -> Loaded {
    let rows = rows.iter().map(|(key, value)| row(key, value)).collect();
    Loaded {
        applied: Some(bytes(applied)),
        rows,
    }
}

#[test]
fn rows_and_position_survive_a_reopening() {
    let home = Home::new();
    let (rows, loaded) = home.open().unwrap();
    assert_eq!(loaded, Loaded::default());
    rows.write(put("1", &[("a", "1"), ("b", "1"), ("c", "1")]));
    rows.flush().unwrap();
    rows.write(put("2", &[("b", "2")]));
    rows.write(RowsBatch {
        deletes: vec![bytes("a"), bytes("absent")],
        ..put("3", &[("", "")])
    });
    drop(rows);
    assert_eq!(home.loaded(), of("3", &[("", ""), ("b", "2"), ("c", "1")]));
    assert_eq!(home.loaded(), of("3", &[("", ""), ("b", "2"), ("c", "1")]));
}

#[test]
fn a_row_that_is_removed_and_set_by_one_batch_is_set() {
    let home = Home::new();
    let rows = home.rows();
    rows.write(RowsBatch {
        deletes: vec![bytes("a")],
        ..put("1", &[("a", "new")])
    });
    drop(rows);
    assert_eq!(home.loaded(), of("1", &[("a", "new")]));
}

#[test]
fn changes_are_written_without_being_asked_for() {
    let home = Home::new();
    let rows = home.rows();
    rows.write(put("1", &[("a", "1")]));
    let deadline = std::time::Instant::now() + PATIENCE;
    while rows.shared.pending_bytes() > 0 {
        assert!(std::time::Instant::now() < deadline, "still pending");
        thread::yield_now();
    }
}

#[test]
fn large_rows_and_many_rows_survive() {
    let home = Home::new();
    let rows = home.rows();
    let large = "x".repeat(1_500_000);
    rows.write(put("1", &[("large", &large)]));
    let many: Vec<_> = (0..5000)
        .map(|at| row(&format!("k{at:05}"), &"v".repeat(200)))
        .collect();
    rows.write(RowsBatch {
        puts: many.clone(),
        deletes: Vec::new(),
        applied: bytes("2"),
    });
    drop(rows);
    let loaded = home.loaded();
    assert_eq!(loaded.applied, Some(bytes("2")));
    assert_eq!(loaded.rows[..5000], many);
    assert_eq!(loaded.rows[5000], row("large", &large));
}

#[test]
fn an_opening_that_never_finished_is_reported_until_the_rows_are_wiped() {
    let home = Home::new();
    drop(home.rows());
    fs::write(home.temp.path().join(OPENING), b"").unwrap();
    for _ in 0..2 {
        let error = home.open().unwrap_err();
        assert!(matches!(error, RowsError::Unfinished { .. }), "{error}");
        assert!(
            error.to_string().contains("rebuilt from snapshot and log"),
            "{error}"
        );
    }
    home.assert_rebuildable();
}

#[test]
fn a_lost_piece_a_changed_piece_and_another_piece_are_damage() {
    type Meddling = fn(&sled::Db);
    let meddlings: [Meddling; 5] = [
        |db| drop(db.remove(chunk_key(0, 1)).unwrap().unwrap()),
        |db| {
            let mut changed = db.get(chunk_key(0, 0)).unwrap().unwrap().to_vec();
            *changed.last_mut().unwrap() ^= 1;
            db.insert(chunk_key(0, 0), changed).unwrap();
        },
        |db| {
            let other = db.get(chunk_key(0, 1)).unwrap().unwrap();
            db.insert(chunk_key(0, 0), other).unwrap();
        },
        |db| drop(db.insert(b"\x00", b"manifest").unwrap()),
        |db| drop(db.insert(b"\x02", b"foreign").unwrap()),
    ];
    for meddle in meddlings {
        let home = Home::new();
        let rows = home.rows();
        let large = "x".repeat(20_000);
        rows.write(put("1", &[("a", &large), ("b", &large)]));
        drop(rows);
        home.meddle(meddle);
        let error = home.open().unwrap_err();
        assert!(matches!(error, RowsError::Damaged { .. }), "{error}");
        home.assert_rebuildable();
    }
}

#[test]
fn files_that_sled_cannot_read_are_damage() {
    for length in [0, 100, 20_000] {
        let home = Home::new();
        let rows = home.rows();
        rows.write(put("1", &[("a", "1")]));
        drop(rows);
        // Waits until sled has let go of its files.
        home.meddle(|_| ());
        for name in ["conf", "db"] {
            fs::write(home.temp.path().join(FOLDER).join(name), vec![0xa5; length]).unwrap();
        }
        let error = home.open().unwrap_err();
        let rebuildable = matches!(
            error,
            RowsError::Damaged { .. } | RowsError::Unfinished { .. }
        );
        assert!(rebuildable, "{error}");
        home.assert_rebuildable();
    }
}

#[test]
fn a_rebuild_replaces_everything_and_changes_go_on_behind_it() {
    let home = Home::new();
    let rows = home.rows();
    rows.write(put("1", &[("a", "old"), ("b", "old")]));
    rows.flush().unwrap();
    rows.write(put("2", &[("pending", "dropped")]));
    rows.rebuild([row("b", "new"), row("c", "new")].into_iter(), bytes("8"));
    rows.write(put("9", &[("d", "later")]));
    rows.flush().unwrap();
    drop(rows);
    assert_eq!(
        home.loaded(),
        of("9", &[("b", "new"), ("c", "new"), ("d", "later")])
    );
}

#[test]
fn a_rebuild_that_does_not_end_leaves_the_rows_unfinished() {
    let home = Home::new();
    let rows = home.rows();
    rows.write(put("1", &[("a", "1")]));
    rows.flush().unwrap();
    let endless = (0..).map(|at| match at {
        50 => panic!("the image is gone"),
        at => row(&format!("k{at}"), "v"),
    });
    rows.rebuild(endless, bytes("2"));
    let error = rows.flush().unwrap_err();
    assert!(error.to_string().contains("the image is gone"), "{error}");
    // The node goes on without the rows.
    rows.write(put("3", &[("b", "3")]));
    assert!(rows.failure().is_some());
    drop(rows);
    let error = home.open().unwrap_err();
    assert!(matches!(error, RowsError::Unfinished { .. }), "{error}");
    // Without the mark, as after a kill, they are as they were before.
    durable::remove_file(&home.temp.path().join(OPENING)).unwrap();
    assert_eq!(home.loaded(), of("1", &[("a", "1")]));
    home.assert_rebuildable();
}

#[test]
fn pending_changes_are_bounded() {
    let home = Home::new();
    let rows = home.rows();
    let (go, gone) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let held = std::iter::once_with(move || {
        begun.send(()).unwrap();
        gone.recv_timeout(PATIENCE).unwrap();
        row("a", "1")
    });
    rows.rebuild(held, bytes("1"));
    begins.recv_timeout(PATIENCE).unwrap();
    let (sender, receiver) = mpsc::channel();
    let caller = {
        let rows = rows.clone();
        thread::spawn(move || {
            let value = Bytes::from(vec![1; ROWS_PENDING_BYTES_MAX / 4]);
            for at in 0..6 {
                let puts = vec![(bytes(&at.to_string()), value.clone())];
                rows.write(RowsBatch {
                    puts,
                    deletes: Vec::new(),
                    applied: bytes("2"),
                });
                sender.send(at).unwrap();
            }
        })
    };
    for at in 0..4 {
        assert_eq!(receiver.recv_timeout(PATIENCE), Ok(at));
    }
    assert!(
        receiver.recv_timeout(Duration::from_millis(50)).is_err(),
        "it must be held up"
    );
    go.send(()).unwrap();
    caller.join().unwrap();
    rows.flush().unwrap();
    drop(rows);
    assert_eq!(home.loaded().rows.len(), 7);
}
