//! The certificates of this node's ports: their files, their metrics, what is wrong with them.
//!
//! Owns when an operator is warned. Never reads a file itself: that is the crate `tls`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lifecycle::Tasks;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use telemetry::Registry;
use tls::{Credentials, Dialer, Fault, Standing, Use, date};

use crate::options::NodeOptions;

/// A certificate that ends so soon is warned of.
const ENDS_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// The certificates of one node, by port. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Certificates {
    /// Those of the client port; `None`: it speaks plain text.
    pub(crate) client: Option<Arc<Credentials>>,
    /// Those of the peer port, and of calls to the others'.
    pub(crate) peer: Option<Arc<Credentials>>,
}

impl Certificates {
    /// Reads and checks what the options name.
    pub(crate) fn load(options: &NodeOptions) -> Result<Self, Fault> {
        let client = options.client_files();
        let client = client.map(|files| Credentials::load(files, Use::Clients));
        let (peer, address) = (options.peer_files(), options.peer_addr.ip());
        let peer = peer.map(|files| Credentials::load(files, Use::Peers(address)));
        Ok(Self {
            client: client.transpose()?,
            peer: peer.transpose()?,
        })
    }

    /// How the peer ports of the other nodes are called; `None`: in plain text.
    pub(crate) fn dialer(&self) -> Option<Dialer> {
        self.peer.clone().map(Dialer::peers)
    }

    /// Looks at the files again and again from now on.
    pub(crate) fn follow(&self, tasks: &Tasks) {
        for (port, credentials) in self.ports() {
            let task = match port {
                "client" => "client certificates",
                _ => "peer certificates",
            };
            tasks.spawn(task, Arc::clone(credentials).follow());
        }
    }

    /// What an operator should do something about, if there is anything.
    pub(crate) fn doubt(&self) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        self.ports()
            .find_map(|(port, credentials)| doubt(port, credentials.standing(), now))
    }

    /// Adds their metrics to `registry`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        if self.ports().next().is_some() {
            registry.register_collector(Box::new(self.clone()));
        }
    }

    fn ports(&self) -> impl Iterator<Item = (&'static str, &Arc<Credentials>)> {
        let client = self.client.iter().map(|it| ("client", it));
        client.chain(self.peer.iter().map(|it| ("peer", it)))
    }
}

fn doubt(port: &str, standing: Standing, now: u64) -> Option<String> {
    if let Some(fault) = standing.refused {
        return Some(format!(
            "{fault}; until then the {port} port goes on with the old ones"
        ));
    }
    let ends = date(standing.expires);
    if standing.expires < now {
        Some(format!(
            "the certificate of the {port} port expired on {ends}; renew it"
        ))
    } else if standing.expires < now + ENDS_SOON.as_secs() {
        Some(format!(
            "the certificate of the {port} port expires on {ends}; renew it"
        ))
    } else {
        None
    }
}

/// A metric's name, help and value.
type Figure = (&'static str, &'static str, fn(&Standing) -> u64);

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let figures: [Figure; 3] = [
            (
                "skein_tls_certificate_expiry_seconds",
                "When the port's certificate ends, in seconds since the Unix epoch",
                |standing| standing.expires,
            ),
            (
                "skein_tls_reloads",
                "How often new files of the port's certificates came into force",
                |standing| standing.reloads,
            ),
            (
                "skein_tls_files_refused",
                "1 while the files of the port's certificates cannot be used and older ones are in force",
                |standing| u64::from(standing.refused.is_some()),
            ),
        ];
        for (name, help, value) in figures {
            let kind = ConstGauge::new(0_i64).metric_type();
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (port, credentials) in self.ports() {
                let gauge = ConstGauge::new(number(value(&credentials.standing())));
                gauge.encode(metric.encode_family(&[("port", port)])?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_near_is_warned_of() {
        let doubt = |expires| {
            let standing = Standing {
                expires,
                ..Standing::default()
            };
            doubt("client", standing, 1_000_000_000)
        };
        let week = ENDS_SOON.as_secs();
        assert_eq!(doubt(1_000_000_000 + week), None);
        let soon = doubt(1_000_000_000 + week - 1).unwrap();
        assert!(soon.contains("client port expires on 2001-09-16"), "{soon}");
        let over = doubt(999_999_999).unwrap();
        assert!(over.contains("expired on 2001-09-09 01:46 UTC"), "{over}");
    }
}
