//! Whether a request is tried again, and after how long.
//!
//! Owns the rule: never once a response has begun, never a request that may have had an effect
//! (RFC 9110, 9.2.2), never beyond the budget. Pure; the budget's numbers are `upstream::limits`'.

use std::time::Duration;

use http::{Method, StatusCode};
use proxy_config::compiled::RetryPolicy;
use rand::{Rng, RngExt as _};

/// The first back-off is at most this (Envoy's base interval).
const BACK_OFF_BASE: Duration = Duration::from_millis(25);
/// No back-off is longer (Envoy's: ten times the base).
const BACK_OFF_MAX: Duration = Duration::from_millis(250);

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing of the request was sent.
    Unsent,
    /// The connection broke, or what came was no HTTP, before a response head.
    Reset,
    /// The try's own time was over.
    TimedOut,
    /// The upstream answered with this.
    Status(StatusCode),
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
    if never || !request.body_kept || (failure != Failure::Unsent && !request.idempotent) {
        return false;
    }
    let when = &policy.when;
    match failure {
        Failure::Unsent => when.connect_failure || when.server_error || when.gateway_error,
        Failure::Reset => when.reset || when.server_error,
        Failure::TimedOut => when.server_error || when.gateway_error,
        Failure::Status(status) => {
            let code = status.as_u16();
            (when.server_error && code >= 500)
                || (when.gateway_error && matches!(code, 502..=504))
                || (when.retriable_4xx && code == 409)
        }
    }
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
pub(super) fn back_off(retry: u32, rng: &mut impl Rng) -> Duration {
    let factor = 2_u32.saturating_pow(retry) - 1;
    let bound = BACK_OFF_BASE.saturating_mul(factor).min(BACK_OFF_MAX);
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
    fn statuses_are_retried_as_the_policy_says() {
        let on = |when| RetryPolicy {
            when,
            ..RetryPolicy::BUILT_IN
        };
        let any = on(RetryOn {
            server_error: true,
            ..RetryOn::default()
        });
        let gateway = on(RetryOn {
            gateway_error: true,
            ..RetryOn::default()
        });
        let conflict = on(RetryOn {
            retriable_4xx: true,
            ..RetryOn::default()
        });
        for (policy, yes, no) in [
            (&any, &[500_u16, 503, 599][..], &[200_u16, 404, 409][..]),
            (&gateway, &[502, 503, 504], &[500, 501]),
            (&conflict, &[409], &[404, 500]),
            (&RetryPolicy::BUILT_IN, &[], &[409, 500, 503]),
        ] {
            let wants = |code: &u16| {
                let status = StatusCode::from_u16(*code).unwrap();
                wants_retry(policy, Failure::Status(status), SAFE)
            };
            assert!(yes.iter().all(wants) && !no.iter().any(wants), "{policy:?}");
        }
        assert!(wants_retry(&gateway, Failure::TimedOut, SAFE));
        assert!(!wants_retry(
            &RetryPolicy::BUILT_IN,
            Failure::TimedOut,
            SAFE
        ));
    }

    #[test]
    fn back_off_grows_to_its_cap_and_is_jittered() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut longest = |retry| (0..200).map(|_| back_off(retry, &mut rng)).max().unwrap();
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
