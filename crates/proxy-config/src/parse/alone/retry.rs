//! The rules of retries.

use super::Findings;
use super::matching::check_header;
use crate::resource::{RetrySpec, RetryWord};

/// The most retries of one request.
const RETRIES_MAX: u32 = 10;
/// So many statuses, or headers, can be named.
const ANSWERS_MAX: usize = 32;

pub(super) fn check(retry: &RetrySpec, path: &str, findings: &mut Findings) {
    let needs_condition = retry.times > 0 && retry.when.is_empty();
    findings.refuse_if(needs_condition, format!("{path}.when"), || {
        "there is no condition; give at least one, such as connect-failure, or `times: 0` for no \
         retry"
            .into()
    });
    findings.refuse_if(retry.times > RETRIES_MAX, format!("{path}.times"), || {
        format!("out of bounds; give 0 (never) to {RETRIES_MAX}")
    });
    findings.refuse_zero_time(format!("{path}.per_try_timeout"), retry.per_try_timeout);
    check_answers(retry, path, findings);
    let back_off = &retry.back_off;
    findings.refuse_zero_time(format!("{path}.back_off.base"), back_off.base);
    let base = back_off.base.map_or(25, |time| time.0.as_millis());
    let less = back_off.max.is_some_and(|max| max.0.as_millis() < base);
    findings.refuse_if(less, format!("{path}.back_off.max"), || {
        "it is less than the first pause; give at least `base`, 25ms if that is left out".into()
    });
    findings.refuse_zero_time(format!("{path}.retry_after"), retry.retry_after);
}

/// A condition and what it means come together.
fn check_answers(retry: &RetrySpec, path: &str, findings: &mut Findings) {
    for (word, name, field, count) in [
        (
            RetryWord::RetriableStatusCodes,
            "retriable-status-codes",
            "status_codes",
            retry.status_codes.len(),
        ),
        (
            RetryWord::RetriableHeaders,
            "retriable-headers",
            "headers",
            retry.headers.len(),
        ),
    ] {
        let asked = retry.when.contains(&word);
        findings.refuse_if(asked != (count > 0), format!("{path}.{field}"), || {
            if asked {
                format!("`{name}` does not say which; give them here")
            } else {
                format!("nothing asks for it; add `{name}` to `when`, or leave it out")
            }
        });
        findings.refuse_if(count > ANSWERS_MAX, format!("{path}.{field}"), || {
            format!("there are more than {ANSWERS_MAX}; leave some out")
        });
    }
    for (index, code) in retry.status_codes.iter().enumerate() {
        let odd = !(200..=599).contains(code);
        findings.refuse_if(odd, format!("{path}.status_codes[{index}]"), || {
            "not the status of an answer; give 200 to 599".into()
        });
    }
    for (index, header) in retry.headers.iter().enumerate() {
        check_header(header, &format!("{path}.headers[{index}]"), findings);
    }
}
