//! What outlier detection did, as metrics.
//!
//! Owns their names, which are Envoy's. Never counts.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use proxy_balance::OutlierKind;

use super::{Labels, Sources, encode_counter, encode_gauge};
use crate::upstream::Ejections;

/// What outlier detection did, where it is on.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, sources: &Sources) -> fmt::Result {
    let watched = sources.config.clusters.values();
    let watched = watched.filter(|cluster| cluster.outlier.is_some());
    let told = watched.filter_map(|cluster| {
        let shared = sources.clusters.get(&cluster.key)?;
        Some((&*cluster.key, shared.ejections.read()))
    });
    let told: Vec<(&str, Ejections)> = told.collect();
    let help = "Endpoints that outlier detection has taken out";
    let name = "cluster_outlier_detection_ejections_active";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (key, ejections) in &told {
        encode_gauge(
            &mut metric,
            &[("cluster", *key)],
            ejections.active.len() as u64,
        )?;
    }
    let help = "Ejections, by what for";
    let name = "cluster_outlier_detection_ejections_enforced";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (key, ejections) in &told {
        for kind in OutlierKind::ALL {
            let labels: Labels<'_> = [("cluster", *key), ("type", kind.as_str())];
            encode_counter(&mut metric, &labels, ejections.enforced[kind.index()])?;
        }
    }
    let help = "Ejections that did not happen, because as many endpoints were out as may be";
    let name = "cluster_outlier_detection_ejections_overflow";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (key, ejections) in &told {
        encode_counter(&mut metric, &[("cluster", *key)], ejections.overflows)?;
    }
    Ok(())
}
