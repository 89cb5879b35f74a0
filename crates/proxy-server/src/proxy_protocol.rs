//! The header of the PROXY protocol, versions 1 and 2: who a connection really comes from.
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>)
//!
//! Owns the reading of it, strictly: what is nearly a header is none, and the writing. Never touches a
//! socket and never decides whom to believe.

mod introduce;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(crate) use introduce::{Ends, introduction};

/// The longest header of version 1, with its end of line.
const V1_BYTES_MAX: usize = 107;
const V1_PREFIX: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, the version, the family, and the length of the rest.
const V2_FIXED_BYTES: usize = 16;
/// The longest rest of version 2 that is read: addresses, and what else is said about a connection.
const V2_REST_BYTES_MAX: usize = 4 * 1024;

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// A header may be on its way.
    Partial,
    /// There is no header.
    Absent,
    /// A header of this many bytes. Without a source the sender speaks for itself, as health checks
    /// do, or does not know.
    Header {
        source: Option<SocketAddr>,
        bytes: usize,
    },
    /// It begins like a header and is none.
    Malformed,
}

/// Looks at the first bytes of a connection.
pub(crate) fn beginning(bytes: &[u8]) -> Beginning {
    let begins = |whole: &[u8]| {
        let length = bytes.len().min(whole.len());
        bytes[..length] == whole[..length]
    };
    if begins(V2_SIGNATURE) {
        if bytes.len() < V2_FIXED_BYTES {
            return Beginning::Partial;
        }
        return v2(bytes).unwrap_or(Beginning::Malformed);
    }
    if !begins(V1_PREFIX) {
        return Beginning::Absent;
    }
    let shown = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    match shown.windows(2).position(|two| two == b"\r\n") {
        Some(end) => v1(&shown[..end]).map_or(Beginning::Malformed, |source| Beginning::Header {
            source,
            bytes: end + 2,
        }),
        None if shown.len() == V1_BYTES_MAX => Beginning::Malformed,
        None => Beginning::Partial,
    }
}

/// The source in a line of version 1.
fn v1(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be passed over.
        return Some(None);
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let source = address(words.next()?)?;
    address(words.next()?)?;
    let source_port = port(words.next()?)?;
    port(words.next()?)?;
    match words.next() {
        None => Some(Some(SocketAddr::new(source, source_port))),
        Some(_) => None,
    }
}

/// Digits only, and no more of them than needed.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| plain && shortest)
}

fn v2(bytes: &[u8]) -> Option<Beginning> {
    let (fixed, rest) = bytes.split_first_chunk::<V2_FIXED_BYTES>()?;
    let [.., version, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version >> 4 != 2 || length > V2_REST_BYTES_MAX {
        return None;
    }
    let Some(rest) = rest.get(..length) else {
        return Some(Beginning::Partial);
    };
    let source = match (version & 0xf, family) {
        // The sender's own connection: whatever addresses there are, they mean nothing.
        (0, _) => None,
        // TCP over IPv4, over IPv6; then Unix sockets, and what has no family.
        (1, 0x11) => Some(v2_source::<4, 12>(rest)?),
        (1, 0x21) => Some(v2_source::<16, 36>(rest)?),
        (1, 0x31 | 0x00) => None,
        _ => return None,
    };
    let bytes = V2_FIXED_BYTES + length;
    Some(Beginning::Header { source, bytes })
}

/// The source among addresses of `IP` bytes each, which are `ALL` bytes with their ports.
fn v2_source<const IP: usize, const ALL: usize>(rest: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; IP]>,
{
    let addresses = rest.first_chunk::<ALL>()?;
    let ip = *addresses.first_chunk::<IP>()?;
    let port = [addresses[2 * IP], addresses[2 * IP + 1]];
    Some(SocketAddr::new(ip.into(), u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v1_header(source: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (ip, to_ip) = (source.ip(), to.ip());
        format!(
            "PROXY {family} {ip} {to_ip} {} {}\r\n",
            source.port(),
            to.port()
        )
        .into_bytes()
    }

    fn v2_header(source: SocketAddr, to: SocketAddr, extra: &[u8]) -> Vec<u8> {
        let mut rest = Vec::new();
        for address in [source, to] {
            match address.ip() {
                IpAddr::V4(ip) => rest.extend(ip.octets()),
                IpAddr::V6(ip) => rest.extend(ip.octets()),
            }
        }
        rest.extend(source.port().to_be_bytes());
        rest.extend(to.port().to_be_bytes());
        rest.extend(extra);
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([0x21, if source.is_ipv4() { 0x11 } else { 0x21 }]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<(u16, u16)>());
        let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<(u16, u16)>());
        prop_oneof![
            v4.prop_map(|(a, b, (p, q))| ((a, p).into(), (b, q).into())),
            v6.prop_map(|(a, b, (p, q))| ((a, p).into(), (b, q).into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_at_any_cut(
            (source, to) in pair(),
            extra in proptest::collection::vec(any::<u8>(), 0..50),
            tail in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            for header in [v1_header(source, to), v2_header(source, to, &extra)] {
                for length in 0..header.len() {
                    prop_assert_eq!(beginning(&header[..length]), Beginning::Partial);
                }
                let bytes = header.len();
                let whole = [header, tail.clone()].concat();
                let expected = Beginning::Header { source: Some(source), bytes };
                prop_assert_eq!(beginning(&whole), expected);
            }
        }

        #[test]
        fn any_bytes_are_survived_and_never_wait_for_ever(
            prefix in 0_usize..3,
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let prefix: &[u8] = [b"".as_slice(), V1_PREFIX, V2_SIGNATURE][prefix];
            let mut bytes = [prefix, &bytes].concat();
            beginning(&bytes);
            // However it begins, so much is enough to tell.
            bytes.resize(V2_FIXED_BYTES + V2_REST_BYTES_MAX, b'x');
            prop_assert_ne!(beginning(&bytes), Beginning::Partial);
        }
    }

    #[test]
    fn what_is_nearly_a_header_is_none() {
        for line in [
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(beginning(line.as_bytes()), Beginning::Malformed, "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(V1_BYTES_MAX));
        assert_eq!(beginning(long.as_bytes()), Beginning::Malformed);
        let header = v2_header(
            "1.2.3.4:5".parse().unwrap(),
            "6.7.8.9:1".parse().unwrap(),
            &[],
        );
        // Version 3, command 2, a datagram, addresses that are not all there.
        for (at, value) in [(12, 0x31), (12, 0x22), (13, 0x12), (15, 11)] {
            let mut header = header.clone();
            header[at] = value;
            assert_eq!(beginning(&header), Beginning::Malformed, "{at} {value}");
        }
        let mut long = header;
        long[14] = 0xff;
        assert_eq!(beginning(&long), Beginning::Malformed);
    }

    #[test]
    fn senders_may_speak_for_themselves() {
        let unknown = b"PROXY UNKNOWN ffff::1 whatever\r\n";
        let bytes = unknown.len();
        let nobody = Beginning::Header {
            source: None,
            bytes,
        };
        assert_eq!(beginning(unknown), nobody);
        let mut local = V2_SIGNATURE.to_vec();
        local.extend([0x20, 0, 0, 0]);
        let nobody = Beginning::Header {
            source: None,
            bytes: 16,
        };
        assert_eq!(beginning(&local), nobody);
        for other in [
            "GET / HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
            "PROPFIND /",
            "\r\n\r\nG",
        ] {
            assert_eq!(beginning(other.as_bytes()), Beginning::Absent, "{other:?}");
        }
    }
}
