//! Whether a request is tried again, and after how long.
//!
//! Owns the rule: never once a response has begun, never a request that may have had an effect
//! (RFC 9110, 9.2.2), never beyond the budget. Pure; the budget's numbers are `upstream::limits`'.

use std::time::Duration;

use http::{Method, header};
use proxy_config::compiled::{AnswerVerdict, BackOff, RetryPolicy};
use rand::{Rng, RngExt as _};

use super::routed::listed;
use crate::http1::ResponseHead;

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing of the request was sent.
    Unsent,
    /// The upstream refused it before it looked at it.
    Refused,
    /// The connection broke, or what came was no HTTP, before a response head.
    Reset,
    /// The try's own time was over.
    TimedOut,
    /// The upstream's answer fulfils a condition.
    Answer,
    /// The upstream's answer to a gRPC call does, by a status that the config names: it says itself
    /// that the call may be made again.
    Grpc,
}

/// What of a request matters for trying again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replayable {
    /// Sending it twice is as good as once.
    pub(super) idempotent: bool,
    /// Its body can be sent from the start again.
    pub(super) body_kept: bool,
}

/// Whether `policy` wants another try after `failure`, and it is safe.
pub(super) fn wants_retry(policy: &RetryPolicy, failure: Failure, request: Replayable) -> bool {
    let never = policy.times == 0;
    let repeatable = request.idempotent
        || policy.non_idempotent
        || matches!(failure, Failure::Unsent | Failure::Refused | Failure::Grpc);
    if never || !request.body_kept || !repeatable {
        return false;
    }
    let when = &policy.when;
    match failure {
        Failure::Unsent => when.connect_failure || when.server_error || when.gateway_error,
        // As good as never sent, so what is asked for that holds here too.
        Failure::Refused => {
            when.refused_stream || when.connect_failure || when.server_error || when.gateway_error
        }
        Failure::Reset => when.reset || when.server_error,
        Failure::TimedOut => when.server_error || when.gateway_error,
        Failure::Answer | Failure::Grpc => true,
    }
}

/// What an answer fails by, if it does.
pub(super) fn failure_of(policy: &RetryPolicy, answer: &ResponseHead) -> Option<Failure> {
    let header = |name: &str| listed(&answer.headers, name);
    match policy.answer(answer.status.as_u16(), &header) {
        AnswerVerdict::Good => None,
        AnswerVerdict::Failed => Some(Failure::Answer),
        AnswerVerdict::FailedGrpc => Some(Failure::Grpc),
    }
}

/// How long an answer asks to wait, if the policy wants to know and finds it bearable. A date is
/// not understood, as in Envoy.
pub(super) fn retry_after(policy: &RetryPolicy, answer: &ResponseHead) -> Option<Duration> {
    let longest = policy.retry_after?;
    let value = answer.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let wait = Duration::from_secs(value.trim().parse().ok()?);
    (wait <= longest).then_some(wait)
}

/// RFC 9110, 9.2.2.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}

/// The pause before retry number `retry` (from 1): uniform below (2^retry − 1) × base, so that
/// those who failed together do not return together.
pub(super) fn back_off(pauses: BackOff, retry: u32, rng: &mut impl Rng) -> Duration {
    let factor = 2_u32.saturating_pow(retry) - 1;
    let bound = pauses.base.saturating_mul(factor).min(pauses.max);
    bound.mul_f64(rng.random_range(0.0..1.0))
}

#[cfg(test)]
mod tests {
    use proxy_config::compiled::RetryOn;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;

    const SAFE: Replayable = Replayable {
        idempotent: true,
        body_kept: true,
    };

    #[test]
    fn what_was_sent_is_only_repeated_if_it_is_idempotent() {
        let post = Replayable {
            idempotent: false,
            ..SAFE
        };
        assert!(wants_retry(&RetryPolicy::BUILT_IN, Failure::Unsent, post));
        assert!(!wants_retry(&RetryPolicy::BUILT_IN, Failure::Reset, post));
        assert!(wants_retry(&RetryPolicy::BUILT_IN, Failure::Reset, SAFE));
        let half_read = Replayable {
            body_kept: false,
            ..SAFE
        };
        assert!(!wants_retry(
            &RetryPolicy::BUILT_IN,
            Failure::Unsent,
            half_read
        ));
        let off = RetryPolicy {
            times: 0,
            ..RetryPolicy::BUILT_IN
        };
        assert!(!wants_retry(&off, Failure::Unsent, SAFE));
    }

    #[test]
    fn what_may_have_had_its_effect_is_repeated_only_if_the_config_says_so() {
        let post = Replayable {
            idempotent: false,
            ..SAFE
        };
        let any = RetryPolicy {
            when: RetryOn {
                server_error: true,
                ..RetryOn::NONE
            },
            ..RetryPolicy::BUILT_IN
        };
        let bold = RetryPolicy {
            non_idempotent: true,
            ..any.clone()
        };
        let refused = RetryPolicy {
            when: RetryOn {
                refused_stream: true,
                ..RetryOn::NONE
            },
            ..RetryPolicy::BUILT_IN
        };
        assert!(wants_retry(&refused, Failure::Refused, post));
        assert!(!wants_retry(&refused, Failure::Unsent, SAFE));
        for failure in [Failure::Reset, Failure::TimedOut, Failure::Answer] {
            assert!(wants_retry(&any, failure, SAFE) && !wants_retry(&any, failure, post));
            assert!(wants_retry(&bold, failure, post));
        }
        assert!(wants_retry(&any, Failure::Grpc, post));
        let built_in = RetryPolicy::BUILT_IN;
        assert!(!wants_retry(&built_in, Failure::TimedOut, SAFE));
    }

    #[test]
    fn an_answer_s_wish_to_wait_is_heard_within_bounds() {
        let policy = |seconds: Option<u64>| RetryPolicy {
            retry_after: seconds.map(Duration::from_secs),
            ..RetryPolicy::BUILT_IN
        };
        for (longest, value, wait) in [
            (Some(10), "3", Some(3)),
            (Some(10), " 10 ", Some(10)),
            (Some(10), "11", None),
            (Some(10), "-1", None),
            (Some(10), "Wed, 21 Oct 2015 07:28:00 GMT", None),
            (None, "3", None),
        ] {
            let mut answer = ResponseHead::default();
            let headers = &mut answer.headers;
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            let found = retry_after(&policy(longest), &answer);
            assert_eq!(found, wait.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn back_off_grows_to_its_cap_and_is_jittered() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut longest = |retry| {
            (0..200)
                .map(|_| back_off(BackOff::BUILT_IN, retry, &mut rng))
                .max()
                .unwrap()
        };
        for (retry, bound) in [(1, 25), (2, 75), (3, 175), (4, 250), (40, 250)] {
            let bound = Duration::from_millis(bound);
            let longest = longest(retry);
            assert!(
                longest < bound && longest > bound / 2,
                "{retry}: {longest:?}"
            );
        }
    }
}
