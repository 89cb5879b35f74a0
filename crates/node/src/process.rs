//! What the system says of this process, under the names that every Prometheus client gives it.
//!
//! Reads `/proc` when scraped; what cannot be read is left out.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// The metrics of this process, which began at `started`.
#[derive(Debug)]
pub(crate) struct ProcessCollector {
    pub(crate) started: SystemTime,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut put = |name, help, metric: &dyn Encode| metric.encode(&mut encoder, name, help);
        if let Some(seconds) = cpu_seconds() {
            let help = "User and system time of the process";
            put("process_cpu_seconds", help, &ConstCounter::new(seconds))?;
        }
        if let Some([all, resident]) = memory() {
            let help = "Memory of the process that is in RAM";
            put("process_resident_memory_bytes", help, &gauge(resident))?;
            let help = "Address space of the process";
            put("process_virtual_memory_bytes", help, &gauge(all))?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            let help = "File descriptors that the process has open";
            // One of them is that of the reading.
            let open = open.count().saturating_sub(1);
            put("process_open_fds", help, &gauge(open as u64))?;
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            let help = "File descriptors that the process may have open";
            put("process_max_fds", help, &gauge(most))?;
        }
        if let Ok(since) = self.started.duration_since(UNIX_EPOCH) {
            let help = "When the process began, in seconds since 1970";
            let began = ConstGauge::new(since.as_secs_f64());
            put("process_start_time_seconds", help, &began)?;
        }
        Ok(())
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

/// A metric of any type.
trait Encode {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> fmt::Result;
}

impl<M: EncodeMetric> Encode for M {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> fmt::Result {
        let metric = encoder.encode_descriptor(name, help, None, self.metric_type())?;
        EncodeMetric::encode(self, metric)
    }
}

/// All of it and the part in RAM, in bytes.
fn memory() -> Option<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').map(str::parse::<u64>);
    let mut next = || Some(pages.next()?.ok()? * page_size() as u64);
    Some([next()?, next()?])
}

fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold anything.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    Some((next()? + next()?) as f64 / clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use telemetry::Registry;

    use super::*;

    #[test]
    fn all_that_dashboards_ask_for_is_there_and_plausible() {
        let mut registry = Registry::default();
        let started = UNIX_EPOCH + std::time::Duration::from_secs(1_000);
        registry.register_collector(Box::new(ProcessCollector { started }));
        // So that there is some time to tell.
        while cpu_seconds().unwrap() == 0.0 {
            std::hint::black_box((0..100_000).sum::<u64>());
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
            line.trim().parse().unwrap()
        };
        let resident = value("process_resident_memory_bytes ");
        assert!((1e6..1e11).contains(&resident), "{resident}");
        assert!(value("process_virtual_memory_bytes ") >= resident);
        assert!(value("process_cpu_seconds_total ") > 0.0);
        let open = value("process_open_fds ");
        assert!((1.0..value("process_max_fds ")).contains(&open), "{open}");
        assert_eq!(value("process_start_time_seconds "), 1_000.0);
    }
}
