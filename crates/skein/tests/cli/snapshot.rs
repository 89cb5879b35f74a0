//! `skein snapshot`: what is left behind, and what is refused.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use model::{MeshId, NodeId};
use serde_json::Value;
use store_mvcc::{Command, Machine, Proposal, PutOp};
use store_raft::Outgoing;

use crate::fake_node::{Ending, FakeNode, Script};
use crate::{Ran, finish, skein};

/// What a node would send.
fn archive() -> Vec<u8> {
    let mut machine = Machine::new();
    for at in 0..4 {
        let put = PutOp {
            key: format!("key {at}").into(),
            value: vec![b'x'; 300_000].into(),
            ..PutOp::default()
        };
        let applied = machine.apply(&Proposal::new(Command::Put(put)));
        applied.result.unwrap();
    }
    let taken = UNIX_EPOCH + Duration::from_secs(1_000);
    let outgoing = Outgoing::of(machine.image(), 9, Some(MeshId(7)), NodeId(3), taken);
    outgoing.write(Vec::new()).unwrap()
}

fn node(bytes: &[u8], ending: Ending) -> FakeNode {
    let pieces = bytes.chunks(100_000).map(Bytes::copy_from_slice).collect();
    FakeNode::start(Script {
        snapshot: (pieces, ending),
        ..Script::default()
    })
}

/// `skein snapshot save FILE`, from these nodes.
fn save(file: &Path, nodes: &[&FakeNode], more: &[&str]) -> Ran {
    let endpoints: Vec<_> = nodes.iter().map(|node| node.address.to_string()).collect();
    let file = file.to_str().unwrap();
    let arguments = ["snapshot", "save", file, "-o", "json"];
    let mut command = skein(&[&arguments, more].concat());
    finish(command.env("SKEIN_ENDPOINTS", endpoints.join(",")))
}

fn status(file: &Path) -> Ran {
    let file = file.to_str().unwrap();
    finish(&mut skein(&["snapshot", "status", file, "-o", "json"]))
}

fn files(dir: &tempfile::TempDir) -> usize {
    fs::read_dir(dir.path()).unwrap().count()
}

#[test]
fn a_saved_file_is_the_nodes_and_is_never_overwritten_unasked() {
    let (dir, bytes) = (tempfile::tempdir().unwrap(), archive());
    let file = dir.path().join("a.skein");
    let whole = node(&bytes, Ending::End);
    let saved = save(&file, &[&whole], &[]);
    assert_eq!(saved.code, 0, "{}", saved.err);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    let told = saved.json();
    let fields: [(&str, Value); 9] = [
        ("revision", 5.into()),
        ("config_revision", 0.into()),
        ("keys", 4.into()),
        ("leases", 0.into()),
        ("bytes", bytes.len().into()),
        ("taken_unix", 1_000.into()),
        ("mesh_id", "0000000000000007".into()),
        ("node_id", "0000000000000003".into()),
        ("written_by", env!("CARGO_PKG_VERSION").into()),
    ];
    for (field, expected) in fields {
        assert_eq!(told[field], expected, "{field}");
    }
    assert_eq!(status(&file).json(), told);
    assert_eq!(files(&dir), 1);

    let again = save(&file, &[&whole], &[]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("--force"), "{}", again.err);
    fs::write(&file, "old").unwrap();
    assert_eq!(save(&file, &[&whole], &["--force"]).code, 0);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert_eq!(files(&dir), 1);
    let folder = save(dir.path(), &[&whole], &["--force"]);
    assert_eq!(folder.code, 2, "{}", folder.err);
}

#[test]
fn a_node_that_ends_in_the_middle_leaves_nothing_and_the_next_one_begins_anew() {
    let (dir, bytes) = (tempfile::tempdir().unwrap(), archive());
    let file = dir.path().join("a.skein");
    let half = node(&bytes[..500_000], Ending::Stop);
    let failed = save(&file, &[&half], &[]);
    assert_eq!(failed.code, 1, "{}", failed.err);
    assert_eq!(failed.error()["kind"], "unreachable");
    assert!(failed.err.contains("server stopped"), "{}", failed.err);
    assert_eq!(files(&dir), 0);

    let whole = node(&bytes, Ending::End);
    let saved = save(&file, &[&half, &whole], &[]);
    assert_eq!(saved.code, 0, "{}", saved.err);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert_eq!(files(&dir), 1);

    // One that says nothing any more is given up, too.
    let silent = node(&bytes[..500_000], Ending::Silence);
    let file = dir.path().join("b.skein");
    let saved = save(&file, &[&silent, &whole], &["--timeout", "500ms"]);
    assert_eq!(saved.code, 0, "{}", saved.err);
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn what_arrives_damaged_or_cut_off_is_not_kept() {
    let (dir, bytes) = (tempfile::tempdir().unwrap(), archive());
    let file = dir.path().join("a.skein");
    let mut damaged = bytes.clone();
    damaged[700_000] ^= 1;
    for (bytes, word) in [(&damaged[..], "in block 3"), (&bytes[..500_000], "ends")] {
        let refused = save(&file, &[&node(bytes, Ending::End)], &[]);
        assert_eq!(refused.code, 3, "{}", refused.err);
        assert!(refused.err.contains(word), "{}", refused.err);
        assert_eq!(files(&dir), 0);
    }
}

#[test]
fn an_interrupted_save_leaves_nothing() {
    let (dir, bytes) = (tempfile::tempdir().unwrap(), archive());
    let file = dir.path().join("a.skein");
    let silent = node(&bytes[..500_000], Ending::Silence);
    let mut command = skein(&[
        "snapshot",
        "save",
        file.to_str().unwrap(),
        "--timeout",
        "1h",
    ]);
    command.env("SKEIN_ENDPOINTS", silent.address.to_string());
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    // It has begun to write.
    let begun = || {
        let mut found = fs::read_dir(dir.path()).unwrap();
        found.any(|entry| entry.unwrap().metadata().unwrap().len() >= 500_000)
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !begun() {
        assert!(std::time::Instant::now() < deadline, "it never begins");
        std::thread::sleep(Duration::from_millis(10));
    }
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(told.contains("SIGINT"), "{told}");
    assert_eq!(files(&dir), 0);
}

#[test]
fn a_full_disk_leaves_nothing_and_names_the_file() {
    let (dir, bytes) = (tempfile::tempdir().unwrap(), archive());
    let file = dir.path().join("a.skein");
    let whole = node(&bytes, Ending::End);
    // A limit on the size of files fails writes as a full disk does.
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_skein"))
        .args(["snapshot", "save", file.to_str().unwrap()])
        .env("SKEIN_ENDPOINTS", whole.address.to_string());
    let failed = finish(&mut shell);
    assert_eq!(failed.code, 1, "{}", failed.err);
    assert!(failed.err.contains("a.skein"), "{}", failed.err);
    assert_eq!(files(&dir), 0);
}

#[test]
fn files_that_are_not_whole_are_refused_with_the_damage_named() {
    let (dir, bytes) = (tempfile::tempdir().unwrap(), archive());
    let file = dir.path().join("a.skein");
    let mut flipped = bytes.clone();
    flipped[300_000] ^= 1;
    for (bytes, code, word) in [
        (&flipped[..], 3, "in block 2, at offset 262"),
        (&bytes[..bytes.len() - 600], 3, "the file"),
        (b"something else altogether", 3, "no snapshot of Skein"),
        (b"", 3, "empty"),
    ] {
        fs::write(&file, bytes).unwrap();
        let refused = status(&file);
        assert_eq!(refused.code, code, "{word}: {}", refused.err);
        let error = refused.error();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(word), "{message}");
        assert!(message.contains("a.skein"), "{message}");
        assert_eq!(error["kind"], "refused");
        assert!(refused.out.is_empty());
    }
    let missing = status(&dir.path().join("b.skein"));
    assert_eq!(missing.code, 4, "{}", missing.err);
}
