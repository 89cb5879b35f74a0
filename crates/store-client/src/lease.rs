//! Leases, with fail-over: granted, kept alive, ended.
//!
//! Owns when a lease is kept alive and how long a keeper tries. Never grants one by itself, and
//! never revokes one.

use std::time::Duration;

use store_api::errors;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::lease_client::LeaseClient;
use tokio::time::sleep;
use tonic::Code;

use crate::call::CallChannel;
use crate::client::Client;
use crate::error::ClientError;

/// A lease is kept alive so many times in its time to live, so that one may fail.
const TIMES_PER_TTL: u32 = 3;
/// The pause after no endpoint could do it.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Whether the same call may succeed a little later.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unavailable { .. } => true,
        ClientError::Answered { code, .. } => *code == Code::ResourceExhausted,
        _ => false,
    }
}

fn lease(channel: CallChannel) -> LeaseClient<CallChannel> {
    LeaseClient::new(channel)
}

impl Client {
    /// Makes a lease. Without an id (0) one is chosen.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, ClientError> {
        self.write(
            |channel| async move { Ok(lease(channel).lease_grant(request).await?.into_inner()) },
        )
        .await
    }

    /// Ends a lease, with its keys.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn lease_revoke(&self, id: i64) -> Result<pb::LeaseRevokeResponse, ClientError> {
        let request = pb::LeaseRevokeRequest { id };
        self.write(
            |channel| async move { Ok(lease(channel).lease_revoke(request).await?.into_inner()) },
        )
        .await
    }

    /// What is left of a lease, and perhaps its keys.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, ClientError> {
        self.read(|channel| async move {
            let answer = lease(channel).lease_time_to_live(request).await?;
            Ok(answer.into_inner())
        })
        .await
    }

    /// All leases.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn lease_leases(&self) -> Result<pb::LeaseLeasesResponse, ClientError> {
        self.read(|channel| async move {
            let request = pb::LeaseLeasesRequest {};
            Ok(lease(channel).lease_leases(request).await?.into_inner())
        })
        .await
    }

    /// Gives a lease its whole time again, once; returns that time.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] if there is no such lease (any more), else as [`Client::read`]:
    /// a keep-alive that was done twice did no harm.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<Duration, ClientError> {
        let request = pb::LeaseKeepAliveRequest { id };
        let answer = self.read(|channel| async move {
            let requests = tokio_stream::once(request);
            let answers = lease(channel).lease_keep_alive(requests).await?;
            let answer = answers.into_inner().message().await?;
            answer.ok_or_else(errors::stopped)
        });
        match u64::try_from(answer.await?.ttl) {
            Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
            _ => Err(ClientError::NotFound {
                message: errors::lease_not_found().message().to_owned(),
            }),
        }
    }

    /// Keeps a lease alive until it is gone or the future is dropped. Where no endpoint answers it
    /// goes on trying: without a quorum the time of leases stands still.
    pub async fn keep_lease(&self, id: i64) -> ClientError {
        loop {
            match self.lease_keep_alive(id).await {
                Ok(ttl) => sleep(ttl / TIMES_PER_TTL).await,
                Err(error) if may_pass(&error) => sleep(RETRY_AFTER).await,
                Err(error) => return error,
            }
        }
    }
}
