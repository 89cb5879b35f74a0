//! A retry policy as written to the one that is followed.

use std::sync::Arc;

use super::matching;
use crate::compiled::{BackOff, GivenBy, GrpcStatuses, RetryAnswers, RetryOn, RetryPolicy};
use crate::resource::{BackOffSpec, RetrySpec, RetryWord};

/// Envoy's.
const BACK_OFF_FACTOR: u32 = 10;

pub(super) fn retry(spec: &RetrySpec, given_by: GivenBy) -> RetryPolicy {
    let has = |word| spec.when.contains(&word);
    let grpc = GrpcStatuses::default()
        .with(1, has(RetryWord::Cancelled))
        .with(4, has(RetryWord::DeadlineExceeded))
        .with(8, has(RetryWord::ResourceExhausted))
        .with(13, has(RetryWord::Internal))
        .with(14, has(RetryWord::Unavailable));
    RetryPolicy {
        when: RetryOn {
            connect_failure: has(RetryWord::ConnectFailure),
            refused_stream: has(RetryWord::RefusedStream),
            reset: has(RetryWord::Reset),
            server_error: has(RetryWord::ServerError),
            gateway_error: has(RetryWord::GatewayError),
            retriable_4xx: has(RetryWord::Retriable4xx),
            rate_limited: has(RetryWord::RateLimited),
            grpc,
        },
        times: spec.times,
        per_try_timeout: spec.per_try_timeout.map(|time| time.0),
        answers: answers(spec),
        back_off: back_off(&spec.back_off),
        retry_after: spec.retry_after.map(|time| time.0),
        non_idempotent: spec.non_idempotent,
        given_by,
    }
}

/// They are given where their conditions are.
fn answers(spec: &RetrySpec) -> Option<Arc<RetryAnswers>> {
    let any = !spec.status_codes.is_empty() || !spec.headers.is_empty();
    any.then(|| {
        Arc::new(RetryAnswers {
            status_codes: spec.status_codes.as_slice().into(),
            headers: spec.headers.iter().map(matching::header).collect(),
        })
    })
}

fn back_off(spec: &BackOffSpec) -> BackOff {
    let base = spec.base.map_or(BackOff::BUILT_IN.base, |time| time.0);
    let max = spec.max.map_or(base * BACK_OFF_FACTOR, |time| time.0);
    BackOff { base, max }
}
