//! The public crate `etcd-client` against one node: `etcd-client-check PATH-TO-SKEIN`.
//!
//! Owns the node that it starts. Exits with 0 only if every call answered as etcd would.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions,
    LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp, WatchOptions,
};
use tokio::process::Command;

type Checked = Result<(), Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Checked {
    let skein = std::env::args()
        .nth(1)
        .ok_or("usage: etcd-client-check PATH-TO-SKEIN")?;
    let dir = tempfile::tempdir()?;
    // An address that nothing else uses, so that the documented ports are free.
    let ip = format!(
        "127.97.{}.{}",
        std::process::id() / 250 % 250,
        std::process::id() % 250 + 1
    );
    let node = Command::new(skein)
        .args(["node", "--name", "n1", "--data-dir"])
        .arg(dir.path().join("data"))
        .args([
            "--client-addr",
            &format!("{ip}:2379"),
            "--peer-addr",
            &format!("{ip}:2380"),
        ])
        .args([
            "--gossip-addr",
            &format!("{ip}:7946"),
            "--admin-addr",
            &format!("{ip}:9901"),
        ])
        .args(["--proxy-ip", &ip])
        .kill_on_drop(true)
        .spawn()?;
    let client = connect(&format!("{ip}:2379")).await?;
    keys(client.clone()).await?;
    transactions(client.clone()).await?;
    watches(client.clone()).await?;
    leases(client.clone()).await?;
    cluster(client.clone()).await?;
    refusals(client).await?;
    drop(node);
    println!("etcd-client: every call answered as etcd would");
    Ok(())
}

/// A client of the node, once it can write.
async fn connect(endpoint: &str) -> Result<Client, Box<dyn std::error::Error>> {
    for _ in 0..300 {
        if let Ok(mut client) = Client::connect([endpoint], None).await
            && client.put("ready", "yes", None).await.is_ok()
        {
            return Ok(client);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the node did not become ready within 30 s".into())
}

async fn keys(mut client: Client) -> Checked {
    for n in 0..10 {
        client
            .put(format!("keys/{n}"), format!("{n}"), None)
            .await?;
    }
    let all = client
        .get("keys/", Some(GetOptions::new().with_prefix()))
        .await?;
    assert_eq!((all.count(), all.kvs().len()), (10, 10));
    let some = client
        .get("keys/", Some(GetOptions::new().with_prefix().with_limit(3)))
        .await?;
    assert_eq!((some.count(), some.kvs().len(), some.more()), (10, 3, true));
    let before = all.header().ok_or("a header")?.revision();
    let put = client
        .put("keys/0", "new", Some(PutOptions::new().with_prev_key()))
        .await?;
    assert_eq!(put.prev_key().ok_or("the previous value")?.value(), b"0");
    let past = client
        .get("keys/0", Some(GetOptions::new().with_revision(before)))
        .await?;
    assert_eq!(past.kvs()[0].value(), b"0");
    let gone = client
        .delete("keys/", Some(DeleteOptions::new().with_prefix()))
        .await?;
    assert_eq!(gone.deleted(), 10);
    client.compact(before, None).await?;
    let past = client
        .get("keys/0", Some(GetOptions::new().with_revision(before - 1)))
        .await;
    assert_message(
        past.err(),
        "etcdserver: mvcc: required revision has been compacted",
    );
    Ok(())
}

async fn transactions(mut client: Client) -> Checked {
    client.put("txn", "a", None).await?;
    let swap = |from: &str, to: &str| {
        Txn::new()
            .when([Compare::value("txn", CompareOp::Equal, from)])
            .and_then([TxnOp::put("txn", to, None)])
            .or_else([TxnOp::get("txn", None)])
    };
    assert!(client.txn(swap("a", "b")).await?.succeeded());
    let failed = client.txn(swap("a", "c")).await?;
    assert!(!failed.succeeded());
    assert_eq!(failed.op_responses().len(), 1);
    Ok(())
}

async fn watches(mut client: Client) -> Checked {
    let first = client.put("watch/1", "x", None).await?;
    let from = first.header().ok_or("a header")?.revision();
    client.delete("watch/1", None).await?;
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(from)
        .with_prev_key();
    let mut stream = client.watch("watch/", Some(options)).await?;
    client.put("watch/2", "y", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await??;
        for event in message.ok_or("the stream ended")?.events() {
            let kv = event.kv().ok_or("a key")?;
            seen.push((event.event_type(), kv.key_str()?.to_owned()));
        }
    }
    let expected = [
        (EventType::Put, "watch/1".to_owned()),
        (EventType::Delete, "watch/1".to_owned()),
        (EventType::Put, "watch/2".to_owned()),
    ];
    assert_eq!(seen, expected);
    Ok(())
}

async fn leases(mut client: Client) -> Checked {
    let granted = client.lease_grant(60, None).await?;
    let id = granted.id();
    assert_eq!(granted.ttl(), 60);
    let leased = PutOptions::new().with_lease(id);
    client.put("leased", "x", Some(leased.clone())).await?;
    let keys = LeaseTimeToLiveOptions::new().with_keys();
    let told = client.lease_time_to_live(id, Some(keys)).await?;
    assert_eq!((told.granted_ttl(), told.keys()), (60, &[b"leased".to_vec()][..]));
    assert!((1..=60).contains(&told.ttl()), "{}", told.ttl());
    assert!(client.leases().await?.leases().iter().any(|lease| lease.id() == id));
    let (mut keeper, mut kept) = client.lease_keep_alive(id).await?;
    for _ in 0..2 {
        keeper.keep_alive().await?;
        let answer = kept.message().await?.ok_or("the stream ended")?;
        assert_eq!((answer.id(), answer.ttl()), (id, 60));
    }
    client.lease_revoke(id).await?;
    assert_eq!(client.get("leased", None).await?.count(), 0);
    assert_eq!(client.lease_time_to_live(id, None).await?.ttl(), -1);
    let gone = client.put("leased", "x", Some(leased)).await;
    assert_message(gone.err(), "etcdserver: requested lease not found");
    Ok(())
}

async fn cluster(mut client: Client) -> Checked {
    let members = client.member_list().await?;
    assert_eq!(members.members().len(), 1);
    assert_eq!(members.members()[0].name(), "n1");
    let status = client.status().await?;
    assert_eq!(status.leader(), members.members()[0].id());
    Ok(())
}

async fn refusals(mut client: Client) -> Checked {
    let empty = client.put("", "x", None).await;
    assert_message(empty.err(), "etcdserver: key is not provided");
    let config = client
        .put("/skein/config/default/Cluster/x", "{}", None)
        .await;
    assert_message(config.err(), "skein: config refused: ");
    Ok(())
}

fn assert_message(error: Option<Error>, expected: &str) {
    match error {
        Some(Error::GRpcStatus(status)) => {
            assert!(
                status.message().starts_with(expected),
                "{}",
                status.message()
            );
        }
        other => panic!("expected `{expected}`, got {other:?}"),
    }
}
