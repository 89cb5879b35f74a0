//! Snapshots that clients take away: whole, while writes go on, and no burden when they stall.

use serde_json::json;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::*;
use store_raft::read_archive;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::harness::{Mesh, Node, put, until};

/// More than all windows and queues on the way hold.
const LARGE: usize = 12;

async fn fill(node: &Node) {
    for at in 0..LARGE {
        let value = "x".repeat(1 << 20);
        let request = put(&format!("large/{at}"), &value);
        node.kv().put(request).await.unwrap();
    }
}

async fn open(channel: Channel) -> Result<Streaming<SnapshotResponse>, Status> {
    let mut maintenance = MaintenanceClient::new(channel);
    let answers = maintenance.snapshot(SnapshotRequest {}).await?;
    Ok(answers.into_inner())
}

/// The rest of a stream, after what was taken of it.
async fn rest(
    mut taken: Vec<u8>,
    mut answers: Streaming<SnapshotResponse>,
) -> Result<Vec<u8>, Status> {
    while let Some(answer) = answers.message().await? {
        taken.extend_from_slice(&answer.blob);
    }
    Ok(taken)
}

fn read(bytes: &[u8]) -> (store_raft::ArchiveInfo, store_mvcc::Image) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    std::fs::write(&path, bytes).unwrap();
    read_archive(&path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_holds_everything_and_tells_its_length() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let grant = LeaseGrantRequest { ttl: 600, id: 77 };
    let mut leases = LeaseClient::new(node.channel());
    leases.lease_grant(grant).await.unwrap();
    let leased = PutRequest {
        lease: 77,
        ..put("a", "1")
    };
    node.kv().put(leased).await.unwrap();
    node.kv().put(put("a", "2")).await.unwrap();
    let mut answers = open(node.channel()).await.unwrap();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!(first.header.unwrap().member_id, node.store.id().0);
    assert_eq!(first.version, "3.7.0");
    let all = first.remaining_bytes + first.blob.len() as u64;
    let bytes = rest(first.blob.to_vec(), answers).await.unwrap();
    assert_eq!(bytes.len() as u64, all);
    // By this etcd's clients tell a whole file.
    assert_eq!(bytes.len() % 512, 32);
    let (info, image) = read(&bytes);
    assert_eq!((info.node_id, info.bytes), (node.store.id(), all));
    assert_eq!(info.mesh_id, node.store.mesh_id());
    let now = node.store.image();
    assert_eq!(image.revision(), first.header.unwrap().revision);
    assert!(image.rows().eq(now.rows()));
    assert_eq!(image.lease_count(), 1);
    assert_eq!(image.hash(3), now.hash(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_beside_a_slow_reader_and_are_not_in_its_snapshot() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    fill(node).await;
    let mut answers = open(node.channel()).await.unwrap();
    let first = answers.message().await.unwrap().unwrap();
    let revision = first.header.unwrap().revision;
    for at in 0..50 {
        let written = node.kv().put(put("later", &at.to_string())).await;
        assert!(written.unwrap().into_inner().header.unwrap().revision > revision);
    }
    let (_, image) = read(&rest(first.blob.to_vec(), answers).await.unwrap());
    assert_eq!(image.revision(), revision);
    assert_eq!(image.len(), LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_have_turns_and_one_that_went_away_gives_its_back() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    fill(node).await;
    let mut readers = Vec::new();
    // Each over a connection of its own.
    let refused = loop {
        match open(node.channel()).await {
            Ok(reader) => readers.push(reader),
            Err(refused) => break refused,
        }
        assert!(readers.len() < 100, "there is no limit");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(readers.pop());
    let next = until("a turn is free", async || open(node.channel()).await.ok()).await;
    readers.push(next);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_is_no_quiet_end() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    fill(node).await;
    let mut answers = open(node.channel()).await.unwrap();
    let first = answers.message().await.unwrap().unwrap();
    let stopping = node.stop();
    let reading = rest(first.blob.to_vec(), answers);
    let (_, read) = tokio::join!(stopping, reading);
    assert_eq!(read.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_gets_it_line_by_line() {
    use base64::Engine;
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    node.kv().put(put("a", "1")).await.unwrap();
    let told = crate::json::post(node, "/v3/maintenance/snapshot", &json!({})).await;
    assert_eq!(told.status, 200);
    let lines = told.body.lines().filter(|line| line.starts_with('{'));
    let mut bytes = Vec::new();
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let blob = line["result"]["blob"].as_str().unwrap();
        let blob = base64::engine::general_purpose::STANDARD.decode(blob);
        bytes.extend(blob.unwrap());
    }
    assert_eq!(read(&bytes).1.len(), 1);
}
