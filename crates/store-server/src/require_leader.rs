//! Clients that want nothing from a node without a leader: etcd's metadata `hasleader: true`.
//!
//! Owns what the metadata asks for: calls are refused at once while no leader is known, and watch
//! streams end when none has been known for a while, so that such a client goes to another node.
//! Never looks for a leader itself.

use std::time::Duration;

use store_api::errors;
use store_api::verdict::Proposed;
use store_raft::{RaftStatus, Timings};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;
use tonic::codegen::http::HeaderMap;

/// The metadata, as etcd's clients send it.
const KEY: &str = "hasleader";
/// After so many election timeouts without a leader streams end, as in etcd.
const ELECTIONS: u32 = 3;

/// How long streams outlive their leader.
pub(crate) fn patience() -> Duration {
    Timings::default().election_max * ELECTIONS
}

/// Whether the caller wants a leader to be known.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    headers.get(KEY).is_some_and(|value| value == "true")
}

/// Whether writes could work. A leader that hears no quorum has nobody to lead.
fn has_leader(status: &RaftStatus) -> bool {
    status.leader.is_some() && status.quorum
}

/// Refuses calls that want a leader while none is known.
#[derive(Debug, Clone)]
pub(crate) struct RequireLeader {
    status: watch::Receiver<RaftStatus>,
}

impl RequireLeader {
    pub(crate) fn new(status: watch::Receiver<RaftStatus>) -> Self {
        Self { status }
    }
}

impl RequireLeader {
    /// Refuses a call with these headers, if it wants a leader that there is not.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Status> {
        if is_asked(headers) && !has_leader(&self.status.borrow()) {
            return Err(Proposed::No.mark(errors::no_leader()));
        }
        Ok(())
    }
}

/// Tells `leaderless` when there has been no leader for all the `patience`, and when there is one again. One
/// task does this for all streams, since the status changes with every write. Runs until dropped.
pub(crate) async fn follow(
    mut status: watch::Receiver<RaftStatus>,
    patience: Duration,
    leaderless: &watch::Sender<bool>,
) {
    loop {
        if status.wait_for(|now| !has_leader(now)).await.is_err() {
            return std::future::pending().await;
        }
        if let Ok(Ok(_)) = timeout(patience, status.wait_for(has_leader)).await {
            continue;
        }
        leaderless.send_replace(true);
        if status.wait_for(has_leader).await.is_err() {
            return std::future::pending().await;
        }
        leaderless.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::leading_status;

    fn call(status: &watch::Sender<RaftStatus>, hasleader: Option<&'static str>) -> Option<Status> {
        let mut headers = HeaderMap::new();
        if let Some(value) = hasleader {
            headers.insert(KEY, value.parse().unwrap());
        }
        let required = RequireLeader::new(status.subscribe());
        required.check(&headers).err()
    }

    #[test]
    fn only_who_asks_is_refused_and_only_without_a_leader() {
        let status = watch::Sender::new(leading_status());
        assert!(call(&status, Some("true")).is_none());
        status.send_modify(|status| status.quorum = false);
        let refused = call(&status, Some("true")).unwrap();
        assert_eq!(refused.message(), errors::no_leader().message());
        assert_eq!(refused.code(), errors::no_leader().code());
        status.send_modify(|status| (status.quorum, status.leader) = (true, None));
        assert!(call(&status, Some("true")).is_some());
        assert!(call(&status, Some("false")).is_none());
        assert!(call(&status, None).is_none());
    }

    #[tokio::test]
    async fn a_loss_is_told_and_a_short_one_is_waited_out() {
        let status = watch::Sender::new(leading_status());
        let leaderless = watch::Sender::new(false);
        let mut told = leaderless.subscribe();
        let impatient = follow(status.subscribe(), Duration::ZERO, &leaderless);
        let story = async {
            status.send_modify(|status| status.leader = None);
            told.wait_for(|leaderless| *leaderless).await.unwrap();
            status.send_replace(leading_status());
            told.wait_for(|leaderless| !*leaderless).await.unwrap();
        };
        tokio::select! {
            () = impatient => panic!("it goes on"),
            () = story => {}
        }
        let patient = follow(status.subscribe(), Duration::from_secs(3600), &leaderless);
        let story = async {
            status.send_modify(|status| status.leader = None);
            tokio::task::yield_now().await;
            status.send_replace(leading_status());
            tokio::task::yield_now().await;
        };
        tokio::select! {
            () = patient => panic!("it goes on"),
            () = story => {}
        }
        assert!(!*leaderless.borrow());
    }
}
