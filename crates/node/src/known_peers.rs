//! The gossip addresses of the peers that this node saw last, on its own disk: whom it asks when it
//! starts again, whatever `--join` names by then.
//!
//! Owns the file, one address per line. Losing it costs nothing but the `--join` seeds being needed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::parts::Parts;

/// The file's name in the data directory.
const FILE: &str = "known-peers";
/// So many addresses are kept; one that lives is enough.
const PEERS_MAX: usize = 64;

/// The addresses in `data_dir`, as seeds. A file that cannot be read names none.
pub(crate) fn load(data_dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(data_dir.join(FILE)).unwrap_or_default();
    let addresses = text
        .lines()
        .filter_map(|line| line.parse::<SocketAddr>().ok());
    addresses
        .take(PEERS_MAX)
        .map(|address| address.to_string())
        .collect()
}

/// Keeps the file up to date for as long as this node runs. It never forgets the last peer: when all
/// others are gone, those are whom to look for.
pub(crate) async fn remember(parts: Arc<Parts>) {
    let mut peers = parts.mesh.peers();
    let mut kept = BTreeSet::new();
    loop {
        let alive: BTreeSet<SocketAddr> = peers
            .borrow_and_update()
            .alive()
            .filter_map(|peer| peer.facts.identity.gossip_addr)
            .take(PEERS_MAX)
            .collect();
        if !alive.is_empty() && !alive.is_subset(&kept) {
            let text: String = alive.iter().map(|address| format!("{address}\n")).collect();
            let path = parts.options.data_dir.join(FILE);
            let saved = tokio::task::spawn_blocking(move || {
                store_disk::replace_file(&path, text.as_bytes())
            });
            match saved.await {
                Ok(Ok(())) => kept = alive,
                Ok(Err(fault)) => tracing::warn!(%fault, "cannot save the known peers"),
                Err(ended) => std::panic::resume_unwind(ended.into_panic()),
            }
        }
        if peers.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_lines_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), Vec::<String>::new());
        std::fs::write(
            dir.path().join(FILE),
            "127.0.0.1:1\n\u{0}garbage\n[::1]:2\n127.0",
        )
        .unwrap();
        assert_eq!(load(dir.path()), ["127.0.0.1:1", "[::1]:2"]);
    }
}
