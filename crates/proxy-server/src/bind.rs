//! Binds listeners: one socket per worker on one address, and nobody else's.
//!
//! Owns the guard against silent sharing. SO_REUSEPORT lets any process of the same user join an
//! address; so the first socket binds without it, which fails if anybody is there, and is opened to
//! its siblings only then. Never accepts.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds per socket until they are accepted; more are not answered.
const BACKLOG: i32 = 1024;

/// Why a listener cannot be opened as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Another socket, of this process or another one, has the address.
    #[error(
        "{0} is in use; stop the process that listens there (`ss -ltnp`) or bind another address"
    )]
    InUse(SocketAddr),
    /// No interface has the address.
    #[error("{0} is not an address of this machine; bind one that is, or `:port` for all")]
    NotAvailable(SocketAddr),
    /// A port below 1024 without the right to it.
    #[error(
        "{0} needs a privilege; run with CAP_NET_BIND_SERVICE or bind a port of 1024 or higher"
    )]
    Denied(SocketAddr),
    /// Another listener of the same config binds it.
    #[error("{address} is bound by listener {by} too; give one of them another address")]
    Conflict {
        /// The address.
        address: SocketAddr,
        /// The other listener.
        by: String,
    },
    /// Its certificates cannot be used. What was served before, is still.
    #[error("{0}")]
    Tls(tls::Fault),
    /// Anything else that the system says.
    #[error("{address} cannot be bound: {fault}; check the address and the system's limits")]
    Other {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        fault: String,
    },
}

impl BindError {
    fn new(address: SocketAddr, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::AddrNotAvailable => Self::NotAvailable(address),
            io::ErrorKind::PermissionDenied => Self::Denied(address),
            _ => Self::Other {
                address,
                fault: error.to_string(),
            },
        }
    }
}

/// So many listening sockets on `address`, and the address with its port if that was 0.
pub(crate) fn bind(
    address: SocketAddr,
    sockets: usize,
) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    bind_all(address, sockets).map_err(|error| BindError::new(address, &error))
}

fn bind_all(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = open(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    first.listen(BACKLOG)?;
    let first = TcpListener::from(first);
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        let sibling = open(bound)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&bound.into())?;
        sibling.listen(BACKLOG)?;
        sockets.push(sibling.into());
    }
    Ok((bound, sockets))
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of an earlier process that linger must not keep us from the address.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` means IPv6; IPv4 has listeners of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_share_and_strangers_are_refused() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (bound, sockets) = bind(any, 3).unwrap();
        assert_eq!(sockets.len(), 3);
        for socket in &sockets {
            assert_eq!(socket.local_addr().unwrap(), bound);
        }
        assert_eq!(bind(bound, 1).unwrap_err(), BindError::InUse(bound));
        let everywhere = SocketAddr::from(([0, 0, 0, 0], bound.port()));
        assert_eq!(
            bind(everywhere, 1).unwrap_err(),
            BindError::InUse(everywhere)
        );
        drop(sockets);
        assert!(bind(bound, 2).is_ok());
    }

    #[test]
    fn a_sharing_stranger_is_noticed_too() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let stranger = open(any).unwrap();
        stranger.set_reuse_port(true).unwrap();
        stranger.bind(&any.into()).unwrap();
        stranger.listen(1).unwrap();
        let bound = stranger.local_addr().unwrap().as_socket().unwrap();
        let error = bind(bound, 1).unwrap_err();
        assert_eq!(error, BindError::InUse(bound));
        assert!(error.to_string().contains("in use; stop the process"));
    }

    #[test]
    fn foreign_addresses_are_named() {
        let foreign: SocketAddr = "192.0.2.1:0".parse().unwrap();
        assert_eq!(
            bind(foreign, 1).unwrap_err(),
            BindError::NotAvailable(foreign)
        );
    }
}
