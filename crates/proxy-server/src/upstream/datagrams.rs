//! A socket of one session's datagrams to an endpoint.
//!
//! Owns its making, within the cluster's limit of connections. Never sends.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::rc::Rc;

use tokio::net::UdpSocket;

use super::Upstream;
use super::limits::Permit;
use super::pool::OpenConnection;
use crate::flags::Flag;

/// A socket that hears its endpoint alone, and what counts it.
#[derive(Debug)]
pub(crate) struct Datagrams {
    pub(crate) socket: UdpSocket,
    _permit: Permit,
    _active: OpenConnection,
}

/// A socket to the endpoint of this number. Nothing is waited for.
pub(crate) fn open(upstream: &Rc<Upstream>, endpoint: usize) -> Result<Datagrams, Flag> {
    let counters = upstream.counters();
    let Some(permit) = upstream.shared.connection(&upstream.cluster.limits) else {
        counters.connection_overflows.increment();
        return Err(Flag::UpstreamOverflow);
    };
    counters.connections.increment();
    let socket = reach(upstream.endpoints[endpoint].address).map_err(|error| {
        counters.connect_failures.increment();
        tracing::debug!(%error, "no UDP socket to an upstream");
        Flag::UpstreamConnectFailure
    })?;
    Ok(Datagrams {
        socket,
        _permit: permit,
        _active: OpenConnection::new(upstream.shared.clone(), upstream.worker),
    })
}

fn reach(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = StdUdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    UdpSocket::from_std(socket)
}
