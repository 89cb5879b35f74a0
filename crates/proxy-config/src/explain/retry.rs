//! The retry policy of a route, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::compiled::{BackOff, GivenBy, RetryPolicy};
use crate::units::Time;

/// The retry policy that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRetry {
    /// The conditions.
    pub when: Vec<String>,
    /// Retries after the first try; 0: never.
    pub times: u32,
    /// The time for each try.
    pub per_try_timeout: Option<Time>,
    /// The pause before the first retry is shorter than the first of these, no pause longer than
    /// the second. `None`: 25ms and 250ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_off: Option<(Time, Time)>,
    /// `retry-after` is honoured up to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Time>,
    /// Requests whose method is not idempotent are sent again too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub non_idempotent: bool,
    /// Who says so.
    pub given_by: GivenBy,
}

impl ExplainedRetry {
    pub(super) fn new(policy: &RetryPolicy) -> Self {
        let BackOff { base, max } = policy.back_off;
        let built_in = policy.back_off == BackOff::BUILT_IN;
        let mut when: Vec<String> = policy.when.words().map(str::to_owned).collect();
        if let Some(answers) = &policy.answers {
            let codes = answers.status_codes.iter();
            when.extend(codes.map(|code| format!("status {code}")));
            when.extend(answers.headers.iter().map(ToString::to_string));
        }
        Self {
            when,
            times: policy.times,
            per_try_timeout: policy.per_try_timeout.map(Time),
            back_off: (!built_in).then_some((Time(base), Time(max))),
            retry_after: policy.retry_after.map(Time),
            non_idempotent: policy.non_idempotent,
            given_by: policy.given_by,
        }
    }
}

impl fmt::Display for ExplainedRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.times {
            0 => write!(f, "no retry")?,
            1 => write!(f, "retry once on {}", self.when.join(", "))?,
            times => write!(f, "retry up to {times} times on {}", self.when.join(", "))?,
        }
        if let Some(timeout) = self.per_try_timeout {
            write!(f, ", {timeout} for each try")?;
        }
        if let Some((base, max)) = self.back_off {
            write!(f, ", pauses from {base} to {max}")?;
        }
        if let Some(longest) = self.retry_after {
            write!(f, ", retry-after up to {longest}")?;
        }
        if self.non_idempotent {
            write!(f, ", whatever the method")?;
        }
        let given_by = match self.given_by {
            GivenBy::Route => "the route says so",
            GivenBy::Defaults => "Defaults say so",
            GivenBy::BuiltIn => "built in",
        };
        writeln!(f, " ({given_by})")
    }
}
