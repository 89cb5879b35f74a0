//! Outlier detection: which endpoints are ejected for what their answers were like, and until when.
//!
//! Owns Envoy's rules ("Outlier detection" in its architecture overview). Never counts requests and
//! never chooses: who is ejected is filtered like one that is unhealthy. Pure: time and randomness
//! are arguments.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proxy_config::compiled::Outlier;
use rand::{Rng, RngExt};

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutlierKind {
    /// Bad answers in a row.
    Consecutive5xx,
    /// Answers 502, 503 or 504 in a row.
    ConsecutiveGatewayFailure,
    /// Failures in a row that were found here.
    ConsecutiveLocalOriginFailure,
    /// It succeeds much less often than the others.
    SuccessRate,
    /// It fails too often.
    FailurePercentage,
}

impl OutlierKind {
    /// All of them, in the order of [`OutlierKind::index`].
    pub const ALL: [Self; 5] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGatewayFailure,
        Self::ConsecutiveLocalOriginFailure,
        Self::SuccessRate,
        Self::FailurePercentage,
    ];

    /// Its place in [`OutlierKind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Envoy's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
        }
    }
}

/// The requests of one endpoint in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Those that came to an end.
    pub requests: u64,
    /// Those of them that ended well.
    pub successes: u64,
}

/// An ejection that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub kind: OutlierKind,
    /// It ends with the first sweep from then on.
    pub until: Instant,
}

/// The ejected endpoints of one cluster.
#[derive(Debug, Default)]
pub struct Outliers {
    endpoints: BTreeMap<SocketAddr, Standing>,
    /// How many are ejected.
    active: usize,
    enforced: [u64; OutlierKind::ALL.len()],
    overflows: u64,
}

/// What is known of one endpoint.
#[derive(Debug, Default)]
struct Standing {
    ejection: Option<Ejection>,
    /// How many ejections it had, less one for each sweep that found it in place: the next one lasts
    /// one more than so many base times.
    times: u32,
}

impl Outliers {
    /// Goes on with these endpoints. What is known of those that stay, stays.
    pub fn follow(&mut self, endpoints: impl Iterator<Item = SocketAddr>) {
        let mut known = std::mem::take(&mut self.endpoints);
        for address in endpoints {
            let standing = known.remove(&address).unwrap_or_default();
            self.endpoints.insert(address, standing);
        }
        self.recount();
    }

    /// Ejects an endpoint that failed too often in a row. False, if it may not be: it is ejected
    /// already, or as many are as may be.
    pub fn eject(
        &mut self,
        policy: &Outlier,
        (address, kind): (SocketAddr, OutlierKind),
        now: Instant,
        rng: &mut (impl Rng + ?Sized),
    ) -> bool {
        let (count, active) = (self.endpoints.len(), self.active);
        let Some(standing) = self.endpoints.get_mut(&address) else {
            return false;
        };
        if standing.ejection.is_some() {
            return false;
        }
        let percent = usize::from(policy.max_ejection_percent);
        if active > 0 && (active + 1) * 100 > count * percent {
            self.overflows += 1;
            return false;
        }
        let until = now + standing.time(policy) + jitter(policy.max_ejection_time_jitter, rng);
        standing.ejection = Some(Ejection { kind, until });
        self.active += 1;
        self.enforced[kind.index()] += 1;
        true
    }

    /// Looks at everything once per interval: who may return, and whose rates of this interval are
    /// too bad. Whether anything changed.
    pub fn sweep(
        &mut self,
        policy: &Outlier,
        tallies: &[(SocketAddr, Tally)],
        now: Instant,
        rng: &mut (impl Rng + ?Sized),
    ) -> bool {
        let mut changed = false;
        for standing in self.endpoints.values_mut() {
            match standing.ejection {
                Some(ejection) if ejection.until <= now => {
                    standing.ejection = None;
                    changed = true;
                }
                Some(_) => {}
                None => standing.times = standing.times.saturating_sub(1),
            }
        }
        self.recount();
        let slow = policy.success_rate.iter().flat_map(|rule| {
            let volume = u64::from(rule.request_volume);
            let rates = rates(tallies, volume, rule.minimum_hosts);
            let least = least_rate(&rates, f64::from(rule.stdev_factor) / 1000.0);
            let too_low = move |(_, rate): &(SocketAddr, f64)| *rate < least;
            let chosen = rates.into_iter().filter(too_low);
            chosen.map(|(address, _)| (address, OutlierKind::SuccessRate))
        });
        let failing = policy.failure_percentage.iter().flat_map(|rule| {
            let volume = u64::from(rule.request_volume);
            let rates = rates(tallies, volume, rule.minimum_hosts);
            let most = 100.0 - f64::from(rule.threshold);
            let too_low = move |(_, rate): &(SocketAddr, f64)| *rate <= most;
            let chosen = rates.into_iter().filter(too_low);
            chosen.map(|(address, _)| (address, OutlierKind::FailurePercentage))
        });
        for found in slow.chain(failing) {
            changed |= self.eject(policy, found, now, rng);
        }
        changed
    }

    /// Ends an ejection early, for an endpoint that recovered as others saw. Whether it was ejected.
    pub fn release(&mut self, address: SocketAddr) -> bool {
        let standing = self.endpoints.get_mut(&address);
        let released = standing.is_some_and(|standing| standing.ejection.take().is_some());
        self.recount();
        released
    }

    /// The ejection of an endpoint that is under way.
    pub fn ejection(&self, address: SocketAddr) -> Option<Ejection> {
        self.endpoints.get(&address)?.ejection
    }

    /// All ejections that are under way.
    pub fn ejections(&self) -> impl Iterator<Item = (SocketAddr, Ejection)> + '_ {
        let ejected =
            |(address, standing): (&SocketAddr, &Standing)| Some((*address, standing.ejection?));
        self.endpoints.iter().filter_map(ejected)
    }

    /// How many there were, by [`OutlierKind::index`].
    pub fn enforced(&self) -> [u64; OutlierKind::ALL.len()] {
        self.enforced
    }

    /// How many there were not, because as many were ejected as may be.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    fn recount(&mut self) {
        let ejected = |standing: &&Standing| standing.ejection.is_some();
        self.active = self.endpoints.values().filter(ejected).count();
    }
}

impl Standing {
    /// How long the next ejection lasts; counts it.
    fn time(&mut self, policy: &Outlier) -> Duration {
        let wanted = policy.base_ejection_time.saturating_mul(self.times + 1);
        if wanted <= policy.max_ejection_time {
            self.times += 1;
        }
        wanted.min(policy.max_ejection_time)
    }
}

fn jitter(most: Duration, rng: &mut (impl Rng + ?Sized)) -> Duration {
    if most.is_zero() {
        return most;
    }
    most.mul_f64(rng.random_range(0.0..1.0))
}

/// The share of successes, in percent, of those with so many requests; of nobody, if there are too
/// few of them.
fn rates(tallies: &[(SocketAddr, Tally)], volume: u64, hosts: u32) -> Vec<(SocketAddr, f64)> {
    let enough = tallies
        .iter()
        .filter(|(_, tally)| tally.requests >= volume.max(1));
    let rate = |tally: &Tally| tally.successes as f64 * 100.0 / tally.requests as f64;
    let rates: Vec<_> = enough
        .map(|(address, tally)| (*address, rate(tally)))
        .collect();
    if rates.len() < hosts as usize {
        return Vec::new();
    }
    rates
}

/// The mean, less so many standard deviations.
fn least_rate(rates: &[(SocketAddr, f64)], deviations: f64) -> f64 {
    let count = rates.len().max(1) as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates
        .iter()
        .map(|(_, rate)| (rate - mean).powi(2))
        .sum::<f64>()
        / count;
    mean - deviations * variance.sqrt()
}
