//! How long a request looks for a leader.
//!
//! Owns the reading of the caller's own deadline (`grpc-timeout`). Never ends a request by itself.

use std::time::Duration;

use tokio::time::Instant;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;

use crate::limits::Limits;

/// After a failed attempt the next one waits for news about the leader, but at most so long.
const LEADER_NEWS_WAIT: Duration = Duration::from_millis(200);

/// Until when a request looks for a leader. After that it ends, and surely did nothing.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub(crate) leader_by: Instant,
}

impl Patience {
    /// The patience of a request that arrived now. It ends before the caller's, so that the caller
    /// is told that nothing was done, instead of having to guess.
    pub fn of(metadata: &MetadataMap, limits: &Limits) -> Self {
        Self::of_headers(metadata.as_ref(), limits)
    }

    /// The same, of a request that is not gRPC's yet.
    pub(crate) fn of_headers(headers: &HeaderMap, limits: &Limits) -> Self {
        let told = told(headers);
        let wait = told.map_or(limits.leader_wait, |told| told.min(limits.leader_wait));
        Self {
            leader_by: Instant::now() + wait,
        }
    }

    /// The patience of a request of the node's own.
    pub fn own(limits: &Limits) -> Self {
        Self::of(&MetadataMap::new(), limits)
    }

    /// When to look again if there is no news before.
    pub(crate) fn next_look(self) -> Instant {
        (Instant::now() + LEADER_NEWS_WAIT).min(self.leader_by)
    }

    /// Whether it is at its end.
    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.leader_by
    }
}

/// How long the caller waits, less an eighth to answer in.
pub(crate) fn told(headers: &HeaderMap) -> Option<Duration> {
    rpc::caller_waits(headers).map(|told| told - told / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_of_limit_and_caller_counts() {
        let limits = Limits::default();
        let of = |told: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(rpc::TIMEOUT, told.parse().unwrap());
            Patience::of(&metadata, &limits).leader_by
        };
        let now = Instant::now();
        assert!(of("800m") < now + Duration::from_millis(790));
        assert!(of("60S") >= now + limits.leader_wait);
        assert!(of("60S") < now + Duration::from_secs(50));
        assert!(of("rubbish") >= now + limits.leader_wait);
    }
}
