//! etcd's calls, typed, with fail-over.
//!
//! Owns which of them are reads and which are writes. Never changes a request.

use bytes::Bytes;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::cluster_client::ClusterClient;
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::call::CallChannel;
use crate::client::Client;
use crate::error::ClientError;

/// The largest answer that is taken, in bytes: a range has no limit of its own.
pub(crate) const ANSWER_MAX: usize = 512 << 20;

/// The end of the range of all keys that begin with `prefix`: etcd's convention, in which `\0`
/// means "no end".
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX);
    match kept {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(b"\0"),
    }
}

fn kv(channel: CallChannel) -> KvClient<CallChannel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_MAX)
}

impl Client {
    /// Reads a key or a range.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, ClientError> {
        self.read(|channel| {
            let request = request.clone();
            async move { Ok(kv(channel).range(request).await?.into_inner()) }
        })
        .await
    }

    /// Writes one key.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, ClientError> {
        self.write(|channel| {
            let request = request.clone();
            async move { Ok(kv(channel).put(request).await?.into_inner()) }
        })
        .await
    }

    /// Deletes a key or a range.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, ClientError> {
        self.write(|channel| {
            let request = request.clone();
            async move { Ok(kv(channel).delete_range(request).await?.into_inner()) }
        })
        .await
    }

    /// Runs a transaction. It counts as a write, whatever is in it.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, ClientError> {
        self.write(|channel| {
            let request = request.clone();
            async move { Ok(kv(channel).txn(request).await?.into_inner()) }
        })
        .await
    }

    /// Forgets the history before a revision.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, ClientError> {
        self.write(|channel| async move { Ok(kv(channel).compact(request).await?.into_inner()) })
            .await
    }

    /// The Raft members, by the answering node's knowledge if `linearizable` is not asked for.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn member_list(
        &self,
        request: pb::MemberListRequest,
    ) -> Result<pb::MemberListResponse, ClientError> {
        self.read(|channel| async move {
            Ok(ClusterClient::new(channel)
                .member_list(request)
                .await?
                .into_inner())
        })
        .await
    }

    /// Removes a member.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn member_remove(
        &self,
        request: pb::MemberRemoveRequest,
    ) -> Result<pb::MemberRemoveResponse, ClientError> {
        self.write(|channel| async move {
            Ok(ClusterClient::new(channel)
                .member_remove(request)
                .await?
                .into_inner())
        })
        .await
    }

    /// Gives a learner a vote.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn member_promote(
        &self,
        request: pb::MemberPromoteRequest,
    ) -> Result<pb::MemberPromoteResponse, ClientError> {
        self.write(|channel| async move {
            Ok(ClusterClient::new(channel)
                .member_promote(request)
                .await?
                .into_inner())
        })
        .await
    }

    /// Hands leadership over. Only the leader takes this call.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn move_leader(
        &self,
        request: pb::MoveLeaderRequest,
    ) -> Result<pb::MoveLeaderResponse, ClientError> {
        self.write(|channel| async move {
            Ok(MaintenanceClient::new(channel)
                .move_leader(request)
                .await?
                .into_inner())
        })
        .await
    }

    /// Goes back to the minor version before, asks whether that can be, or stays after all.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn downgrade(
        &self,
        request: pb::DowngradeRequest,
    ) -> Result<pb::DowngradeResponse, ClientError> {
        self.write(|channel| {
            let request = request.clone();
            async move {
                Ok(MaintenanceClient::new(channel)
                    .downgrade(request)
                    .await?
                    .into_inner())
            }
        })
        .await
    }

    /// The status of the first endpoint that answers.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn status(&self) -> Result<pb::StatusResponse, ClientError> {
        self.read(|channel| async move {
            let request = pb::StatusRequest::default();
            Ok(MaintenanceClient::new(channel)
                .status(request)
                .await?
                .into_inner())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_skips_bytes_that_cannot_grow() {
        assert_eq!(prefix_end(b"a/"), Bytes::from_static(b"a0"));
        assert_eq!(prefix_end(b"a\xff\xff"), Bytes::from_static(b"b"));
        assert_eq!(prefix_end(b"\xff"), Bytes::from_static(b"\0"));
        assert_eq!(prefix_end(b""), Bytes::from_static(b"\0"));
    }
}
