//! How long a request looks for a leader.
//!
//! Owns the reading of the caller's own deadline (`grpc-timeout`). Never ends a request by itself.

use std::time::Duration;

use tokio::time::Instant;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;

use crate::limits::Limits;

/// The metadata of gRPC in which a caller tells how long it waits.
pub(crate) const TIMEOUT_KEY: &str = "grpc-timeout";

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
    let told = headers.get(TIMEOUT_KEY)?.to_str().ok();
    told.and_then(parse).map(|told| told - told / 8)
}

/// Up to eight digits and a unit, as the gRPC protocol has it.
fn parse(told: &str) -> Option<Duration> {
    let (digits, unit) = told.split_at_checked(told.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("4999977u"), Some(Duration::from_micros(4_999_977)));
        assert_eq!(
            parse("99999999H"),
            Some(Duration::from_secs(359_999_996_400))
        );
        for bad in ["", "5", "S", "5s", "-5S", "123456789S", "5\u{e4}", "\u{e4}"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_shorter_of_limit_and_caller_counts() {
        let limits = Limits::default();
        let of = |told: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(TIMEOUT_KEY, told.parse().unwrap());
            Patience::of(&metadata, &limits).leader_by
        };
        let now = Instant::now();
        assert!(of("800m") < now + Duration::from_millis(790));
        assert!(of("60S") >= now + limits.leader_wait);
        assert!(of("60S") < now + Duration::from_secs(50));
        assert!(of("rubbish") >= now + limits.leader_wait);
    }
}
