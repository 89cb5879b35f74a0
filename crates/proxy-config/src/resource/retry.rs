//! The field `retry` of a route, and of Defaults, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_default;
use super::matching::HeaderSpec;
use crate::units::Time;

/// When and how often to try again. A request is repeated only where that is safe, and within the
/// cluster's retry budget: nothing of it was sent, or its method is idempotent, and its body of at
/// most 64 KiB was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetrySpec {
    /// The conditions, in Envoy's words; to be left out only where `times` is 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<RetryWord>,
    /// Retries after the first try, 0 to 10. 0: never more than one try.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub times: u32,
    /// The time for each try; left out: only the route's timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Time>,
    /// For `retriable-status-codes`: these statuses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status_codes: Vec<u16>,
    /// For `retriable-headers`: answers that have one of these headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderSpec>,
    /// The pause before a retry.
    #[serde(default, skip_serializing_if = "is_default")]
    pub back_off: BackOffSpec,
    /// Where an answer that is not relayed says in `retry-after` how many seconds to wait, that is
    /// done, if it is at most so long. Left out: it is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Time>,
    /// `true`: requests whose method is not idempotent, such as POST, are sent again too, though the
    /// first may have had its effect.
    #[serde(default, skip_serializing_if = "is_default")]
    pub non_idempotent: bool,
}

/// Before retry n the pause is drawn between 0 and (2^n - 1) times `base`, `max` at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackOffSpec {
    /// Left out: 25ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Time>,
    /// Left out: ten times `base`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Time>,
}

fn one() -> u32 {
    1
}

// Serde calls it with a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(number: &u32) -> bool {
    *number == 1
}

/// A condition for a retry.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum RetryWord {
    /// No connection could be made.
    #[serde(rename = "connect-failure")]
    ConnectFailure,
    /// The upstream refused the request before it looked at it (REFUSED_STREAM of HTTP/2).
    #[serde(rename = "refused-stream")]
    RefusedStream,
    /// The upstream closed or reset before a response head.
    #[serde(rename = "reset")]
    Reset,
    /// Any 5xx answer, or none at all.
    #[serde(rename = "5xx")]
    ServerError,
    /// 502, 503 or 504.
    #[serde(rename = "gateway-error")]
    GatewayError,
    /// 409.
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    /// One of `status_codes`.
    #[serde(rename = "retriable-status-codes")]
    RetriableStatusCodes,
    /// An answer with one of `headers`.
    #[serde(rename = "retriable-headers")]
    RetriableHeaders,
    /// An answer with `x-envoy-ratelimited`.
    #[serde(rename = "envoy-ratelimited")]
    RateLimited,
    /// gRPC status 1, told in the response head (a trailers-only answer). As with all gRPC statuses
    /// here, calls are sent again though their method is POST.
    #[serde(rename = "cancelled")]
    Cancelled,
    /// gRPC status 4.
    #[serde(rename = "deadline-exceeded")]
    DeadlineExceeded,
    /// gRPC status 8.
    #[serde(rename = "resource-exhausted")]
    ResourceExhausted,
    /// gRPC status 13.
    #[serde(rename = "internal")]
    Internal,
    /// gRPC status 14.
    #[serde(rename = "unavailable")]
    Unavailable,
}
