//! The word for where an endpoint listens.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use super::{FilePath, WordFault, text_form};

const UNIX: &str = "unix:";
/// What the kernel takes as the path of a socket (`sun_path`, without the byte that ends it).
const UNIX_BYTES_MAX: usize = 107;
/// No datagram is ever forwarded to it (RFC 6666), so no real endpoint is there.
const DISCARD_PREFIX: [u16; 4] = [0x100, 0, 0, 0];

/// The address of an endpoint: IP and port, or the path of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A Unix socket of the node.
    Unix(Arc<str>),
}

impl Address {
    /// What the endpoint is known by: its address, or one of 100::/64 that stands for the path of
    /// its socket, the same on all nodes and in all versions.
    pub fn identity(&self) -> SocketAddr {
        match self {
            Self::Ip(address) => *address,
            Self::Unix(path) => {
                let [a, b, c, d] = DISCARD_PREFIX;
                let hash = fnv(path.as_bytes());
                let [e, f, g, h] = [48, 32, 16, 0].map(|bits| (hash >> bits & 0xffff) as u16);
                SocketAddr::from((Ipv6Addr::new(a, b, c, d, e, f, g, h), 1))
            }
        }
    }

    /// The path of the socket, if it is one.
    pub fn socket(&self) -> Option<&Arc<str>> {
        match self {
            Self::Ip(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo).
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl FromStr for Address {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        if let Some(path) = text.strip_prefix(UNIX) {
            let known: FilePath = path.parse().map_err(|_| {
                WordFault(format!(
                    "{text:?} is not a Unix socket; write its path from the root, such as \
                     unix:/run/app.sock"
                ))
            })?;
            if path.len() > UNIX_BYTES_MAX {
                return Err(WordFault(format!(
                    "{text:?} is too long for a Unix socket; give a path of at most \
                     {UNIX_BYTES_MAX} bytes"
                )));
            }
            return Ok(Self::Unix(known.as_str().into()));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 && !address.ip().is_unspecified() => {
                Ok(Self::Ip(address))
            }
            _ => Err(WordFault(format!(
                "{text:?} is not an address to connect to; write ip:port such as 10.0.0.1:8000, or \
                 unix:/path (host names are not supported yet)"
            ))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

text_form!(
    Address,
    "An address, as ip:port, or the path of a Unix socket of the node, as unix:/path.",
    "^(unix:/.*[^/]|.*:[0-9]+)$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_paths_that_the_kernel_takes() {
        let longest = format!("unix:/{}", "a".repeat(UNIX_BYTES_MAX - 1));
        for good in ["unix:/run/app.sock", &longest] {
            let address: Address = good.parse().unwrap();
            assert_eq!(address.to_string(), good);
            assert_eq!(&**address.socket().unwrap(), &good[UNIX.len()..]);
        }
        for (bad, told) in [
            ("unix:", "write its path from the root"),
            ("unix:app.sock", "write its path from the root"),
            ("unix:/run/", "write its path from the root"),
            ("unix:/a\0b", "write its path from the root"),
            (&*format!("{longest}a"), "at most 107 bytes"),
            ("unix:@name", "write its path from the root"),
            ("unix", "or unix:/path"),
        ] {
            let fault = bad.parse::<Address>().unwrap_err().to_string();
            assert!(fault.contains(told), "{bad}: {fault}");
        }
    }

    /// Nodes of different versions tell each other of it.
    #[test]
    fn what_stands_for_a_socket_never_changes() {
        let identity = |text: &str| text.parse::<Address>().unwrap().identity().to_string();
        assert_eq!(
            identity("unix:/run/app.sock"),
            "[100::aa16:27ef:881e:dbbf]:1"
        );
        assert_eq!(identity("10.0.0.1:80"), "10.0.0.1:80");
        assert_ne!(identity("unix:/a"), identity("unix:/b"));
    }
}
