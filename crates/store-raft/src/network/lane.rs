//! Connections to one member.
//!
//! Owns how they are opened and kept. Purposes have connections of their own, so that a heartbeat
//! or a vote never waits behind a megabyte of entries or a snapshot.

use std::time::Duration;

use store_api::skeinpb::raft_client::RaftClient;
use tls::Dialer;
use tonic::transport::{Channel, Endpoint};

/// The largest message between members. Entries are cut far below it; one entry never reaches it.
pub(crate) const RAFT_MESSAGE_MAX: usize = 32 * 1024 * 1024;

/// A dead host answers no SYN: try no longer than this.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A vanished host's connection is dropped after the sum of both.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Flow-control windows, so that a full pipeline fits on its way.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Entries, votes, transfers.
    Log,
    /// Heartbeats.
    Heartbeat,
    /// Snapshots.
    Snapshot,
}

/// A client that connects when it is first used, and again when the connection broke.
pub(super) fn connect(
    peer_addr: &str,
    tls: Option<&Dialer>,
) -> Result<RaftClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{peer_addr}"))
        .map_err(|error| format!("`{peer_addr}` is not an address: {error}; use HOST:PORT"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let channel = match tls {
        None => endpoint.connect_lazy(),
        Some(dialer) => endpoint.connect_with_connector_lazy(dialer.clone()),
    };
    Ok(RaftClient::new(channel)
        .max_decoding_message_size(RAFT_MESSAGE_MAX)
        .max_encoding_message_size(RAFT_MESSAGE_MAX))
}
