//! The rules for balancing: rings, slow start, priorities, and what is hashed.

use super::Findings;
use crate::compiled::Balance;
use crate::resource::{ClusterSpec, CookieSpec, HashSpec};

/// A ring has at most so many points at least.
const RING_SIZE_MAX: u32 = 1 << 20;
/// So many endpoints can be in a Maglev table, and that is already too many for it.
const MAGLEV_ENDPOINTS_MAX: usize = 10_000;
/// Envoy's.
const PRIORITY_MAX: u32 = 127;
const AGGRESSION_MAX: u32 = 100;
const OVERPROVISIONING_MAX: u32 = 1000;
/// Envoy's smallest; beyond the largest it means nothing.
const HASH_BALANCE_FACTORS: std::ops::RangeInclusive<u32> = 100..=10_000;
/// So many parts of a request can be hashed.
const HASHES_MAX: usize = 16;

pub(super) fn check_cluster(spec: &ClusterSpec, findings: &mut Findings) {
    if let Some(size) = spec.minimum_ring_size {
        let path = "minimum_ring_size";
        findings.refuse_if(spec.balance != Balance::RingHash, path, || {
            "only `balance: ring_hash` has a ring; leave it out".into()
        });
        findings.refuse_if(!(1..=RING_SIZE_MAX).contains(&size), path, || {
            format!("out of bounds; give 1 to {RING_SIZE_MAX}")
        });
    }
    if let Some(factor) = spec.hash_balance_factor {
        let path = "hash_balance_factor";
        findings.refuse_if(!spec.balance.is_hashing(), path, || {
            "only ring_hash, maglev and ip_hash have it; leave it out, or choose one of these"
                .into()
        });
        findings.refuse_if(!HASH_BALANCE_FACTORS.contains(&factor), path, || {
            "out of bounds; give 100 (nobody above the mean) to 10000 percent".into()
        });
    }
    let maglev = matches!(spec.balance, Balance::Maglev | Balance::IpHash);
    let crowded = maglev && spec.endpoints.len() > MAGLEV_ENDPOINTS_MAX;
    findings.refuse_if(crowded, "balance", || {
        format!(
            "`{}` takes at most {MAGLEV_ENDPOINTS_MAX} endpoints; use ring_hash, or fewer of them",
            spec.balance.as_str()
        )
    });
    if let Some(slow_start) = &spec.slow_start {
        let takes_turns = matches!(spec.balance, Balance::RoundRobin | Balance::LeastRequest);
        findings.refuse_if(!takes_turns, "slow_start", || {
            "only round_robin and least_request have it; leave it out, or choose one of these"
                .into()
        });
        findings.refuse_zero_time("slow_start.window", Some(slow_start.window));
        let aggression = slow_start.aggression.unwrap_or(1);
        findings.refuse_if(
            !(1..=AGGRESSION_MAX).contains(&aggression),
            "slow_start.aggression",
            || format!("out of bounds; give 1 to {AGGRESSION_MAX}"),
        );
        let least = slow_start.min_weight_percent.unwrap_or(1);
        findings.refuse_if(
            !(1..=100).contains(&least),
            "slow_start.min_weight_percent",
            || "out of bounds; give 1 to 100".into(),
        );
    }
    let factor = spec.overprovisioning_factor.unwrap_or(100);
    findings.refuse_if(
        !(100..=OVERPROVISIONING_MAX).contains(&factor),
        "overprovisioning_factor",
        || format!("out of bounds; give 100 to {OVERPROVISIONING_MAX} percent"),
    );
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let path = format!("endpoints[{index}].priority");
        findings.refuse_if(endpoint.priority() > PRIORITY_MAX, path, || {
            format!("out of bounds; give 0 (the first choice) to {PRIORITY_MAX}")
        });
    }
}

pub(super) fn check_hash(policies: &[HashSpec], path: &str, findings: &mut Findings) {
    findings.refuse_if(policies.len() > HASHES_MAX, path, || {
        format!("there are more than {HASHES_MAX}; leave some out")
    });
    for (index, policy) in policies.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let given = [
            policy.header.is_some(),
            policy.cookie.is_some(),
            policy.source_ip == Some(true),
            policy.query_parameter.is_some(),
        ];
        let is_one = given.iter().filter(|given| **given).count() == 1;
        let denied = policy.source_ip == Some(false);
        findings.refuse_if(!is_one || denied, path.clone(), || {
            "it hashes one thing; give `header: name`, `cookie: { name: name }`, `source_ip: true` \
             or `query_parameter: name`"
                .into()
        });
        if let Some(cookie) = &policy.cookie {
            check_cookie(cookie, &format!("{path}.cookie"), findings);
        }
        let odd = |name: &String| {
            let inside = |byte: u8| byte.is_ascii_graphic() && !b"&=#".contains(&byte);
            name.is_empty() || !name.bytes().all(inside)
        };
        findings.refuse_if(
            policy.query_parameter.as_ref().is_some_and(odd),
            format!("{path}.query_parameter"),
            || "no query has it; give its name as it is written there, such as user".into(),
        );
    }
}

fn check_cookie(cookie: &CookieSpec, path: &str, findings: &mut Findings) {
    let unmade = cookie.path.is_some() && cookie.ttl.is_none();
    findings.refuse_if(unmade, format!("{path}.path"), || {
        "only a cookie that is made has a path; add `ttl`, or leave it out".into()
    });
    let ends = |path: &crate::words::PathText| path.as_str().contains(';');
    findings.refuse_if(
        cookie.path.as_ref().is_some_and(ends),
        format!("{path}.path"),
        || "a cookie's path has no `;`; leave it out".into(),
    );
}
