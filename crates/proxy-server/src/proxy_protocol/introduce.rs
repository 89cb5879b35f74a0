//! The header that an upstream is told by who its client is.

use std::net::{IpAddr, SocketAddr};

use proxy_config::compiled::ProxyProtocolVersion;

use super::V2_SIGNATURE;

/// A proxy speaks for somebody, or for itself (version 2, command LOCAL or PROXY).
const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// The two ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) client: SocketAddr,
    /// What the client connected to.
    pub(crate) local: SocketAddr,
}

/// The header for a client's connection; without one, for this proxy's own.
pub(crate) fn introduction(version: ProxyProtocolVersion, ends: Option<&Ends>) -> Vec<u8> {
    let pair = ends.map(|ends| alike(ends.client, ends.local));
    match version {
        ProxyProtocolVersion::V1 => v1(pair),
        ProxyProtocolVersion::V2 => v2(pair),
    }
}

fn v1(pair: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((client, local)) = pair else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let ports = (client.port(), local.port());
    let (client, local) = (client.ip(), local.ip());
    format!(
        "PROXY {family} {client} {local} {} {}\r\n",
        ports.0, ports.1
    )
    .into_bytes()
}

fn v2(pair: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    let Some((client, local)) = pair else {
        header.extend([V2_LOCAL, 0, 0, 0]);
        return header;
    };
    let (family, length) = match client.is_ipv4() {
        true => (V2_TCP4, 12),
        false => (V2_TCP6, 36),
    };
    header.extend([V2_PROXY, family, 0, length]);
    for end in [client, local] {
        match end.ip() {
            IpAddr::V4(ip) => header.extend(ip.octets()),
            IpAddr::V6(ip) => header.extend(ip.octets()),
        }
    }
    header.extend(client.port().to_be_bytes());
    header.extend(local.port().to_be_bytes());
    header
}

/// Both in one family: an address of IPv4 can be written as IPv6, and not the reverse.
fn alike(client: SocketAddr, local: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let (client, local) = (plain(client), plain(local));
    if client.is_ipv4() == local.is_ipv4() {
        return (client, local);
    }
    let wide = |end: SocketAddr| match end.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
        IpAddr::V6(_) => end,
    };
    (wide(client), wide(local))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Beginning, beginning};
    use super::*;

    fn ends(client: &str, local: &str) -> Ends {
        Ends {
            client: client.parse().unwrap(),
            local: local.parse().unwrap(),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let v4 = ends("192.0.2.1:4711", "[::ffff:192.0.2.2]:80");
        let line = introduction(ProxyProtocolVersion::V1, Some(&v4));
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n");
        let bytes = introduction(ProxyProtocolVersion::V2, Some(&v4));
        let expected =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x67\0\x50";
        assert_eq!(bytes, expected);
        let mixed = ends("192.0.2.1:1", "[2001:db8::2]:2");
        let line = introduction(ProxyProtocolVersion::V1, Some(&mixed));
        assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
            (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(client in address(), local in address()) {
            let ends = Ends { client, local };
            for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
                for told in [None, Some(&ends)] {
                    let header = introduction(version, told);
                    let Beginning::Header { source, bytes } = beginning(&header) else {
                        return Err(TestCaseError::fail(format!("{header:?}")));
                    };
                    prop_assert_eq!(bytes, header.len());
                    let plain = |end: SocketAddr| (end.ip().to_canonical(), end.port());
                    prop_assert_eq!(source.map(plain), told.map(|ends| plain(ends.client)));
                }
            }
        }
    }
}
