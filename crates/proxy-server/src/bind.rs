//! Binds listeners: one socket per worker on one address, and nobody else's.
//!
//! Owns the guard against silent sharing. SO_REUSEPORT lets any process of the same user join an
//! address; so the first socket binds without it, which fails if anybody is there, and is opened to
//! its siblings only then. Never accepts.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds per socket until they are accepted; more are not answered.
const BACKLOG: i32 = 1024;
/// What a socket for datagrams may hold.
const UDP_BUFFER_BYTES: usize = 1 << 20;

/// What carries a listener's bytes: each has addresses of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// Where a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
}

impl Place {
    /// Whether the two cannot be bound at the same time.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let (one, two) = (self.address, other.address);
        let same_ip = one.ip() == two.ip();
        self.transport == other.transport
            && one.port() == two.port()
            && one.is_ipv4() == two.is_ipv4()
            && (same_ip || one.ip().is_unspecified() || two.ip().is_unspecified())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Tcp => self.address.fmt(f),
            Transport::Udp => write!(f, "{}/udp", self.address),
        }
    }
}

/// One worker's socket of a listener.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

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

/// So many sockets on `place`, and the place with its port if that was 0.
pub(crate) fn bind(place: Place, sockets: usize) -> Result<(Place, Vec<Bound>), BindError> {
    bind_all(place, sockets).map_err(|error| BindError::new(place.address, &error))
}

fn bind_all(place: Place, count: usize) -> io::Result<(Place, Vec<Bound>)> {
    let first = open(place)?;
    first.bind(&place.address.into())?;
    first.set_reuse_port(true)?;
    let address = first.local_addr()?.as_socket().unwrap_or(place.address);
    let bound = Place { address, ..place };
    let mut sockets = vec![ready(first, place.transport)?];
    while sockets.len() < count {
        let sibling = open(bound)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&bound.address.into())?;
        sockets.push(ready(sibling, place.transport)?);
    }
    Ok((bound, sockets))
}

fn ready(socket: Socket, transport: Transport) -> io::Result<Bound> {
    Ok(match transport {
        Transport::Tcp => {
            socket.listen(BACKLOG)?;
            Bound::Tcp(socket.into())
        }
        Transport::Udp => {
            // Bursts are held while others have their turn; the kernel gives what its limit allows.
            let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
            Bound::Udp(socket.into())
        }
    })
}

fn open(Place { transport, address }: Place) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if transport == Transport::Tcp {
        // Connections of an earlier process that linger must not keep us from the address. (Of UDP,
        // this would let others take it.)
        socket.set_reuse_address(true)?;
    }
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

    const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

    fn at(transport: Transport, address: &str) -> Place {
        let address = address.parse().unwrap();
        Place { transport, address }
    }

    fn local(socket: &Bound) -> SocketAddr {
        match socket {
            Bound::Tcp(socket) => socket.local_addr().unwrap(),
            Bound::Udp(socket) => socket.local_addr().unwrap(),
        }
    }

    #[test]
    fn siblings_share_and_strangers_are_refused() {
        for transport in BOTH {
            let (bound, sockets) = bind(at(transport, "127.0.0.1:0"), 3).unwrap();
            assert_eq!(sockets.len(), 3);
            for socket in &sockets {
                assert_eq!(local(socket), bound.address);
            }
            let refused = bind(bound, 1).unwrap_err();
            assert_eq!(refused, BindError::InUse(bound.address));
            let everywhere = SocketAddr::from(([0, 0, 0, 0], bound.address.port()));
            let all = Place {
                address: everywhere,
                ..bound
            };
            assert_eq!(bind(all, 1).unwrap_err(), BindError::InUse(everywhere));
            assert!(all.overlaps(bound));
            drop(sockets);
            assert!(bind(bound, 2).is_ok());
        }
    }

    #[test]
    fn a_sharing_stranger_is_noticed_too() {
        for transport in BOTH {
            let any = at(transport, "127.0.0.1:0");
            let stranger = open(any).unwrap();
            stranger.set_reuse_port(true).unwrap();
            stranger.bind(&any.address.into()).unwrap();
            let stranger = ready(stranger, transport).unwrap();
            let address = local(&stranger);
            let error = bind(Place { address, ..any }, 1).unwrap_err();
            assert_eq!(error, BindError::InUse(address));
            assert!(error.to_string().contains("in use; stop the process"));
        }
    }

    #[test]
    fn the_transports_have_their_own_ports() {
        let (tcp, _sockets) = bind(at(Transport::Tcp, "127.0.0.1:0"), 1).unwrap();
        let udp = Place {
            transport: Transport::Udp,
            ..tcp
        };
        assert!(!udp.overlaps(tcp));
        // Somebody else's may be there; ours is not in its way.
        let _ = bind(udp, 1);
    }

    #[test]
    fn foreign_addresses_are_named() {
        for transport in BOTH {
            let foreign = at(transport, "192.0.2.1:0");
            let error = BindError::NotAvailable(foreign.address);
            assert_eq!(bind(foreign, 1).unwrap_err(), error);
        }
    }
}
