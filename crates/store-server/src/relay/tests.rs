//! What a relay sends, and what it knows of it when a caller, a connection or a leader is gone.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::fixture::leading_status;
use crate::leader_calls::{client, connect};

/// In a proposal, to be found in the bytes that arrive.
const MARK: &[u8] = b"a value that can be found again";

fn proposal() -> pb::Proposal {
    let put = store_mvcc::PutOp::new("k", MARK);
    let command = store_mvcc::Command::Put(put);
    store_raft::convert::proposal_to_pb(&store_mvcc::Proposal::new(command))
}

fn status_where_leads(peer_addr: &str) -> watch::Sender<RaftStatus> {
    let mut status = leading_status();
    status.leader.as_mut().unwrap().peer_addr = peer_addr.to_owned();
    watch::Sender::new(status)
}

fn relay(peer_addr: &str, status: &watch::Sender<RaftStatus>) -> Relay {
    let client = client(connect(peer_addr, None).unwrap());
    Relay::open(
        peer_addr.to_owned(),
        client,
        status.subscribe(),
        Request::new(()),
    )
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer_addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let status = status_where_leads(&peer_addr);
    let relay = relay(&peer_addr, &status);
    let error = relay.propose(proposal(), soon()).await.unwrap_err();
    assert!(matches!(error, RelayError::NotSent), "{error:?}");
    relay.queue.closed().await;
    assert!(relay.has_ended());
}

#[tokio::test]
async fn what_was_sent_before_the_connection_broke_may_be_proposed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer_addr = listener.local_addr().unwrap().to_string();
    let status = status_where_leads(&peer_addr);
    let relay = relay(&peer_addr, &status);
    let reads_and_breaks = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.windows(MARK.len()).any(|part| part == MARK) {
            assert_ne!(socket.read_buf(&mut read).await.unwrap(), 0);
        }
    };
    let (reply, ()) = tokio::join!(relay.propose(proposal(), soon()), reads_and_breaks);
    let error = reply.unwrap_err();
    assert!(matches!(error, RelayError::Lost), "{error:?}");
}

#[tokio::test]
async fn a_node_that_leads_no_longer_is_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer_addr = listener.local_addr().unwrap().to_string();
    let status = status_where_leads(&peer_addr);
    let relay = relay(&peer_addr, &status);
    let (_socket, _) = listener.accept().await.unwrap();
    status.send_modify(|status| status.leader = None);
    relay.queue.closed().await;
    let error = relay.propose(proposal(), soon()).await.unwrap_err();
    assert!(matches!(error, RelayError::NotSent), "{error:?}");
}

#[tokio::test]
async fn a_caller_who_gives_up_takes_its_proposal_back() {
    let (queue, mut waiting) = mpsc::channel(1);
    let relay = Relay { queue };
    let long_ago = Instant::now();
    let error = relay.propose(proposal(), long_ago).await.unwrap_err();
    assert!(matches!(error, RelayError::NotSent), "{error:?}");
    let error = relay.propose(proposal(), long_ago).await.unwrap_err();
    assert!(matches!(error, RelayError::Full), "{error:?}");
    let mut outgoing = Outgoing {
        peer_addr: String::new(),
        status: watch::Sender::new(leading_status()).subscribe(),
        sent: Sent::default(),
        numbered: 0,
        waiting: mpsc::channel(1).1,
    };
    let taken_back = waiting.recv().await.unwrap();
    assert_eq!(outgoing.gather(taken_back).proposals, []);
    assert!(lock(&outgoing.sent).is_empty());
}
