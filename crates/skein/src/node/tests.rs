//! Flags and bootstrap file together make the settings.

use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    node: Node,
}

fn resolve(arguments: &[&str]) -> Result<NodeOptions, Failure> {
    let line = Line::try_parse_from(["node"].iter().chain(arguments)).unwrap();
    line.node.resolve().map(|(options, _)| options)
}

#[test]
fn flags_win_over_the_file_and_the_file_over_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.yaml");
    std::fs::write(
        &file,
        "name: from-file\nworkers: 3\nlabels: { tier: edge, rack: r1 }\njoin: [\"a:1\"]\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let options = resolve(&[
        "--config",
        file,
        "--name",
        "from-flag",
        "--label",
        "rack=r2",
    ])
    .unwrap();
    assert_eq!(options.name.as_str(), "from-flag");
    assert_eq!(options.workers, 3);
    assert_eq!(options.join, ["a:1"]);
    assert_eq!(options.labels["tier"], "edge");
    assert_eq!(options.labels["rack"], "r2");
    assert_eq!(options.client_addr.port(), 2379);
}

#[test]
fn the_stores_limits_come_from_flags_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.yaml");
    let text = "quota: 1GiB\nhistory-keep: 2h\nhistory-max-bytes: 64MiB\nmax-txn-ops: 256\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let from = |more: &[&str]| {
        let arguments = [&["--config", file, "--name", "n"], more].concat();
        resolve(&arguments).unwrap().limits
    };
    let limits = from(&["--quota", "0B", "--max-request-bytes", "2MiB"]);
    assert_eq!(limits.quota_bytes, Limits::default().quota_bytes);
    assert_eq!((limits.request_bytes, limits.txn_ops), (2 << 20, 256));
    let limits = from(&["--history-min-revisions", "5"]);
    assert_eq!(limits.quota_bytes, 1 << 30);
    let expected = HistoryLimits {
        keep: Duration::from_secs(7_200),
        min_revisions: 5,
        max_bytes: 64 << 20,
    };
    assert_eq!(limits.history, expected);
}

#[test]
fn a_misspelled_name_in_the_file_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.yaml");
    std::fs::write(&file, "name: n1\nworker: 3\n").unwrap();
    let fault = resolve(&["--config", file.to_str().unwrap()]).unwrap_err();
    assert_eq!(fault.kind.exit_code(), 2);
    assert!(fault.message.contains("worker"), "{}", fault.message);
    assert!(fault.message.contains("line 2"), "{}", fault.message);
}

#[test]
fn scheduled_snapshots_need_a_folder() {
    let told = resolve(&["--name", "n", "--snapshot-dir", "/backup"]).unwrap();
    let schedule = told.snapshots.expect("a schedule");
    assert_eq!(
        (schedule.every, schedule.keep),
        (SNAPSHOT_EVERY, SNAPSHOT_KEEP)
    );
    let fault = resolve(&["--name", "n", "--snapshot-keep", "3"]).unwrap_err();
    assert!(
        fault.message.contains("--snapshot-dir"),
        "{}",
        fault.message
    );
}

#[test]
fn settings_that_cannot_be_meant_are_usage_errors() {
    let resolve_dead = |text| resolve(&["--name", "n", "--remove-dead-after", text]);
    let day = Some(Duration::from_secs(24 * 3600));
    assert_eq!(resolve_dead("24h").unwrap().limits.remove_dead_after, day);
    assert_eq!(
        resolve_dead("never").unwrap().limits.remove_dead_after,
        None
    );
    let fault = resolve_dead("soon").unwrap_err();
    assert!(fault.message.contains("never"), "{}", fault.message);
    let resolve_compare = |text| {
        let told = resolve(&["--name", "n", "--compare-every", text]);
        told.map(|told| told.compare_every)
    };
    assert_eq!(resolve_compare("24h").unwrap(), day);
    assert_eq!(resolve_compare("never").unwrap(), None);
    assert!(resolve_compare("0s").is_err(), "it would do nothing else");
    let fault = resolve(&["--name", "n", "--client-addr", "192.0.2.7:2379"]).unwrap_err();
    assert_eq!(fault.kind.exit_code(), 2);
    assert!(fault.message.contains("--insecure"), "{}", fault.message);
}
