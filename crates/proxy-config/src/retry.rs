//! When a request is tried again, as the proxy reads it.
//!
//! Owns the conditions and what an answer's head says about them. Whether another try is safe, and
//! how many there were, the caller knows.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::compiled::GivenBy;
use crate::router::HeaderCondition;

/// When a request is tried again, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The conditions.
    pub when: RetryOn,
    /// Retries after the first try (so `times + 1` tries at most). 0: never.
    pub times: u32,
    /// The time for each try's response head. `None`: only the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Which statuses and headers the conditions mean that ask for some. `None`: they are not there.
    pub answers: Option<Arc<RetryAnswers>>,
    /// The pause before a retry.
    pub back_off: BackOff,
    /// An answer's `retry-after` is honoured up to this. `None`: it is not looked at.
    pub retry_after: Option<Duration>,
    /// Requests whose method is not idempotent are sent again too.
    pub non_idempotent: bool,
    /// Who says so.
    pub given_by: GivenBy,
}

/// The answers that conditions name one by one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryAnswers {
    /// For `retriable-status-codes`.
    pub status_codes: Box<[u16]>,
    /// For `retriable-headers`: one of them is enough.
    pub headers: Box<[HeaderCondition]>,
}

/// The pauses before retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// The first one is shorter than this.
    pub base: Duration,
    /// None is longer.
    pub max: Duration,
}

impl BackOff {
    /// Envoy's.
    pub const BUILT_IN: Self = Self {
        base: Duration::from_millis(25),
        max: Duration::from_millis(250),
    };

    /// Pauses below this, however many there were.
    pub const fn constant(bound: Duration) -> Self {
        Self {
            base: bound,
            max: bound,
        }
    }
}

impl RetryPolicy {
    /// Where nobody gives one: what is always safe. Requests that were surely not sent, and
    /// idempotent ones whose connection broke before an answer.
    pub const BUILT_IN: Self = Self {
        when: RetryOn {
            connect_failure: true,
            reset: true,
            ..RetryOn::NONE
        },
        times: 2,
        per_try_timeout: None,
        answers: None,
        back_off: BackOff::BUILT_IN,
        retry_after: None,
        non_idempotent: false,
        given_by: GivenBy::BuiltIn,
    };

    /// Whether an answer of this status, with what `header` tells of its head, fulfils a condition.
    pub fn answer<'a>(
        &self,
        status: u16,
        header: &dyn Fn(&str) -> Option<Cow<'a, str>>,
    ) -> AnswerVerdict {
        let when = &self.when;
        let by_status = (when.server_error && status >= 500)
            || (when.gateway_error && matches!(status, 502..=504))
            || (when.retriable_4xx && status == 409);
        let limited = || when.rate_limited && header("x-envoy-ratelimited").is_some();
        if by_status || limited() || self.names(status, header) {
            AnswerVerdict::Failed
        } else if when.grpc.any() && when.grpc.has(header("grpc-status").as_deref()) {
            AnswerVerdict::FailedGrpc
        } else {
            AnswerVerdict::Good
        }
    }

    fn names<'a>(&self, status: u16, header: &dyn Fn(&str) -> Option<Cow<'a, str>>) -> bool {
        self.answers.as_ref().is_some_and(|answers| {
            let holds = |wanted: &HeaderCondition| wanted.holds(header(&wanted.name).as_deref());
            answers.status_codes.contains(&status) || answers.headers.iter().any(holds)
        })
    }
}

/// What an answer means for trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerVerdict {
    /// It is relayed.
    Good,
    /// It fulfils a condition.
    Failed,
    /// It is that of a gRPC call, and its status fulfils a condition.
    FailedGrpc,
}

/// The conditions for a retry (Envoy's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    /// `connect-failure`: no connection could be made.
    pub connect_failure: bool,
    /// `refused-stream`: the upstream refused it before it looked at it.
    pub refused_stream: bool,
    /// `reset`: the upstream closed or reset before a response head.
    pub reset: bool,
    /// `5xx`: any 5xx answer, or none at all.
    pub server_error: bool,
    /// `gateway-error`: 502, 503 or 504.
    pub gateway_error: bool,
    /// `retriable-4xx`: 409.
    pub retriable_4xx: bool,
    /// `envoy-ratelimited`: the answer has that header.
    pub rate_limited: bool,
    /// gRPC statuses.
    pub grpc: GrpcStatuses,
}

/// Some of the gRPC statuses that may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrpcStatuses(u16);

impl GrpcStatuses {
    /// The words of the statuses that may be asked for.
    const WORDS: [(u8, &'static str); 5] = [
        (1, "cancelled"),
        (4, "deadline-exceeded"),
        (8, "resource-exhausted"),
        (13, "internal"),
        (14, "unavailable"),
    ];

    /// With this one too.
    #[must_use]
    pub fn with(self, status: u8, is_asked: bool) -> Self {
        Self(self.0 | (u16::from(is_asked) << status))
    }

    fn any(self) -> bool {
        self.0 != 0
    }

    fn has(self, status: Option<&str>) -> bool {
        let status = status.and_then(|status| status.parse::<u8>().ok());
        status.is_some_and(|status| status < 16 && self.0 & (1 << status) != 0)
    }
}

impl RetryOn {
    /// No condition at all.
    pub const NONE: Self = Self {
        connect_failure: false,
        refused_stream: false,
        reset: false,
        server_error: false,
        gateway_error: false,
        retriable_4xx: false,
        rate_limited: false,
        grpc: GrpcStatuses(0),
    };

    /// The conditions in the words of the config.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        let words = [
            (self.connect_failure, "connect-failure"),
            (self.refused_stream, "refused-stream"),
            (self.reset, "reset"),
            (self.server_error, "5xx"),
            (self.gateway_error, "gateway-error"),
            (self.retriable_4xx, "retriable-4xx"),
            (self.rate_limited, "envoy-ratelimited"),
        ];
        let grpc =
            GrpcStatuses::WORDS.map(|(status, word)| (self.grpc.0 & (1 << status) != 0, word));
        let all = words.into_iter().chain(grpc);
        all.filter(|(holds, _)| *holds).map(|(_, word)| word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(
        policy: &RetryPolicy,
        status: u16,
        headers: &[(&str, &'static str)],
    ) -> AnswerVerdict {
        let header = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| Cow::Borrowed(*value))
        };
        policy.answer(status, &header)
    }

    fn on(when: RetryOn) -> RetryPolicy {
        RetryPolicy {
            when,
            ..RetryPolicy::BUILT_IN
        }
    }

    #[test]
    fn statuses_fulfil_the_conditions_that_mean_them() {
        let any = on(RetryOn {
            server_error: true,
            ..RetryOn::NONE
        });
        let gateway = on(RetryOn {
            gateway_error: true,
            ..RetryOn::NONE
        });
        let conflict = on(RetryOn {
            retriable_4xx: true,
            ..RetryOn::NONE
        });
        let named = RetryPolicy {
            answers: Some(Arc::new(RetryAnswers {
                status_codes: [429, 404].into(),
                headers: [].into(),
            })),
            ..on(RetryOn::NONE)
        };
        for (policy, yes, no) in [
            (&any, &[500_u16, 503, 599][..], &[200_u16, 404, 409][..]),
            (&gateway, &[502, 503, 504], &[500, 501]),
            (&conflict, &[409], &[404, 500]),
            (&named, &[429, 404], &[200, 503]),
            (&RetryPolicy::BUILT_IN, &[], &[409, 500, 503]),
        ] {
            let failed = |code: &u16| verdict(policy, *code, &[]) == AnswerVerdict::Failed;
            assert!(
                yes.iter().all(failed) && !no.iter().any(failed),
                "{policy:?}"
            );
        }
    }

    #[test]
    fn heads_fulfil_the_conditions_that_look_at_them() {
        let grpc = GrpcStatuses::default().with(14, true).with(4, false);
        let grpc = on(RetryOn {
            grpc,
            ..RetryOn::NONE
        });
        let limited = on(RetryOn {
            rate_limited: true,
            ..RetryOn::NONE
        });
        use AnswerVerdict::{Failed, FailedGrpc, Good};
        for (policy, header, found) in [
            (&grpc, ("grpc-status", "14"), FailedGrpc),
            (&grpc, ("grpc-status", "4"), Good),
            (&grpc, ("grpc-status", "30"), Good),
            (&grpc, ("grpc-status", "x"), Good),
            (&limited, ("x-envoy-ratelimited", ""), Failed),
            (&limited, ("grpc-status", "14"), Good),
            (
                &RetryPolicy::BUILT_IN,
                ("x-envoy-ratelimited", "true"),
                Good,
            ),
        ] {
            assert_eq!(verdict(policy, 200, &[header]), found, "{header:?}");
        }
    }
}
