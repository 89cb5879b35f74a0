//! The public crate `etcd-client` against a node, and a second one that joins it:
//! `etcd-client-check PATH-TO-SKEIN`.
//!
//! Owns the nodes that it starts. Exits with 0 only if every call answered as etcd would.

use std::path::Path;
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
    let subnet = format!("127.97.{}", std::process::id() / 120 % 250,);
    let host = std::process::id() % 120 * 2 + 1;
    let (ip, second) = (format!("{subnet}.{host}"), format!("{subnet}.{}", host + 1));
    let node = start(&skein, "n1", &ip, &dir.path().join("n1")).spawn()?;
    let client = connect(&format!("{ip}:2379")).await?;
    keys(client.clone()).await?;
    transactions(client.clone()).await?;
    watches(client.clone()).await?;
    leases(client.clone()).await?;
    cluster(client.clone()).await?;
    refusals(client.clone()).await?;
    member_refusals(client.clone()).await?;
    let joining = start(&skein, "n2", &second, &dir.path().join("n2"))
        .args(["--join", &format!("{ip}:7946")])
        .spawn()?;
    tokio::time::timeout(Duration::from_secs(60), move_leader(client)).await??;
    drop((node, joining));
    println!("etcd-client: every call answered as etcd would");
    Ok(())
}

/// The command of a node on an address of its own.
fn start(skein: &str, name: &str, ip: &str, data: &Path) -> Command {
    let mut command = Command::new(skein);
    command
        .args(["node", "--name", name, "--data-dir"])
        .arg(data);
    for (flag, port) in [
        ("client", 2379),
        ("peer", 2380),
        ("gossip", 7946),
        ("admin", 9901),
    ] {
        command.args([format!("--{flag}-addr"), format!("{ip}:{port}")]);
    }
    command.args(["--proxy-ip", ip]).kill_on_drop(true);
    command
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
    assert_eq!(
        (told.granted_ttl(), told.keys()),
        (60, &[b"leased".to_vec()][..])
    );
    assert!((1..=60).contains(&told.ttl()), "{}", told.ttl());
    assert!(
        client
            .leases()
            .await?
            .leases()
            .iter()
            .any(|lease| lease.id() == id)
    );
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

async fn member_refusals(mut client: Client) -> Checked {
    let own = client.member_list().await?.members()[0].id();
    let none = client
        .member_add(["http://127.0.0.1:1".to_owned()], None)
        .await;
    assert_message(none.err(), "skein: no node that could become a member");
    let bad = client.member_add(["nowhere"], None).await;
    assert_message(bad.err(), "etcdserver: given member URLs are invalid");
    let unknown = client.member_remove(1).await;
    assert_message(unknown.err(), "etcdserver: member not found");
    let last = client.member_remove(own).await;
    assert_message(
        last.err(),
        "etcdserver: re-configuration failed due to not enough started members",
    );
    let voter = client.member_promote(own).await;
    assert_message(voter.err(), "etcdserver: can only promote a learner member");
    let unknown = client
        .member_update(1, ["http://127.0.0.1:1".to_owned()])
        .await;
    assert_message(unknown.err(), "etcdserver: member not found");
    let nobody = client.move_leader(1).await;
    assert_message(nobody.err(), "etcdserver: bad leader transferee");
    client.move_leader(own).await?;
    Ok(())
}

/// Leadership goes to the second node, once it votes.
async fn move_leader(mut client: Client) -> Checked {
    for _ in 0..300 {
        let members = client.member_list().await?;
        let second = members
            .members()
            .iter()
            .find(|member| member.name() == "n2");
        if let Some(second) = second.filter(|member| !member.is_learner()) {
            client.move_leader(second.id()).await?;
            while client.status().await?.leader() != second.id() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let not_leader = client.move_leader(second.id()).await;
            assert_message(not_leader.err(), "etcdserver: not leader");
            // A new leader first has to hear from the others, as in etcd.
            let mut removed = client.member_remove(second.id()).await;
            while matches!(&removed, Err(Error::GRpcStatus(status))
                if status.message() == "etcdserver: unhealthy cluster")
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
                removed = client.member_remove(second.id()).await;
            }
            removed?;
            assert_eq!(client.member_list().await?.members().len(), 1);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the second node did not become a voter within 30 s".into())
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
