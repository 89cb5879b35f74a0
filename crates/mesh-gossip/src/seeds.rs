//! The addresses by which a node finds its mesh.
//!
//! Owns parsing and resolving of `HOST:PORT`. Names are resolved again and again, because machines
//! move; a name that fails keeps its last addresses. Never sends a datagram.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// While a name does not resolve, it is tried so often.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// When all names did, they are looked up so often.
const REFRESH_EVERY: Duration = Duration::from_secs(30);

/// Which seed, as it was written, each address comes from.
pub(crate) type SeedAddrs = Arc<BTreeMap<SocketAddr, String>>;

/// Whether `seed` looks like `HOST:PORT`.
pub(crate) fn is_seed(seed: &str) -> bool {
    seed.parse::<SocketAddr>().is_ok()
        || seed.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(':') && port.parse::<u16>().is_ok_and(|p| p > 0)
        })
}

/// The seeds that are addresses already, and the names.
pub(crate) fn split(seeds: &[String]) -> (BTreeMap<SocketAddr, String>, Vec<String>) {
    let mut addresses = BTreeMap::new();
    let mut names = Vec::new();
    for seed in seeds {
        match seed.parse() {
            Ok(address) => {
                addresses.insert(address, seed.clone());
            }
            Err(_) => names.push(seed.clone()),
        }
    }
    (addresses, names)
}

/// Keeps `resolved` up to date for ever, beginning with `fixed`.
pub(crate) async fn keep_resolved(
    fixed: BTreeMap<SocketAddr, String>,
    names: Vec<String>,
    resolved: watch::Sender<SeedAddrs>,
) {
    let mut last: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    loop {
        let mut failed = false;
        for name in &names {
            match tokio::net::lookup_host(name).await {
                Ok(addresses) => {
                    last.insert(name.clone(), addresses.collect());
                }
                Err(error) => {
                    failed = true;
                    tracing::debug!(seed = %name, %error, "seed does not resolve");
                }
            }
        }
        let mut all = fixed.clone();
        for (name, addresses) in &last {
            all.extend(addresses.iter().map(|address| (*address, name.clone())));
        }
        resolved.send_if_modified(|old| {
            let changed = **old != all;
            if changed {
                *old = Arc::new(all);
            }
            changed
        });
        tokio::time::sleep(if failed { RETRY_EVERY } else { REFRESH_EVERY }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_hosts_with_ports() {
        for good in ["10.0.0.1:7946", "[::1]:7946", "node-1:7946", "a.b.c:1"] {
            assert!(is_seed(good), "{good}");
        }
        for bad in [
            "",
            "node-1",
            ":7946",
            "node-1:",
            "node-1:0",
            "node-1:99999",
            "::1:x",
            "fe80::1:1",
        ] {
            assert!(!is_seed(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn names_are_resolved_and_remembered_by_what_was_written() {
        let (fixed, names) = split(&["127.0.0.9:1".to_owned(), "localhost:7".to_owned()]);
        let (tx, mut rx) = watch::channel(SeedAddrs::default());
        let task = tokio::spawn(keep_resolved(fixed, names, tx));
        let all = rx.wait_for(|all| all.len() >= 2).await.unwrap().clone();
        assert_eq!(
            all[&"127.0.0.9:1".parse::<SocketAddr>().unwrap()],
            "127.0.0.9:1"
        );
        assert!(all.values().any(|seed| seed == "localhost:7"));
        task.abort();
    }
}
