//! Who the client is, through the proxies before us.
//!
//! Owns how far X-Forwarded-For is believed (Envoy's `xff_num_trusted_hops` with
//! `use_remote_address`). Never writes a header.

use std::net::IpAddr;

use http::HeaderMap;

pub(super) const X_FORWARDED_FOR: &str = "x-forwarded-for";
pub(super) const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
pub(super) const X_REQUEST_ID: &str = "x-request-id";

/// A request id from outside may have so many bytes; a longer one is replaced.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The client's address: that of the peer or, with `trusted_hops` proxies before us, the one which
/// the outermost of them saw. A list too short or malformed is not believed.
pub(super) fn client_address(headers: &HeaderMap, peer: IpAddr, trusted_hops: u32) -> IpAddr {
    if trusted_hops == 0 {
        return peer;
    }
    let lists = headers.get_all(X_FORWARDED_FOR);
    if lists.iter().any(|list| list.to_str().is_err()) {
        return peer;
    }
    // From the end: the last one is what the hop nearest to us saw.
    let mut claimed = lists.iter().rev().flat_map(|list| {
        let list = list.to_str().unwrap_or_default();
        list.rsplit(',').map(str::trim)
    });
    claimed
        .nth(trusted_hops as usize - 1)
        .and_then(|claimed| claimed.parse().ok())
        .unwrap_or(peer)
}

/// The request id that came along, if it can be kept.
pub(super) fn incoming_request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(X_REQUEST_ID)?.to_str().ok()?;
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()).then_some(id)
}

/// A new request id: a random UUID (RFC 9562, version 4) of these bits.
pub(super) fn new_request_id(bits: u128) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
    let mut id = String::with_capacity(36);
    for place in (0..32).rev() {
        if matches!(place, 23 | 19 | 15 | 11) {
            id.push('-');
        }
        let digit = (bits >> (place * 4)) as usize & 15;
        id.push(char::from(DIGITS[digit]));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_hops_are_believed() {
        let peer: IpAddr = "9.9.9.9".parse().unwrap();
        let of = |lists: &[&str], hops| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(X_FORWARDED_FOR, list.parse().unwrap());
            }
            client_address(&headers, peer, hops).to_string()
        };
        assert_eq!(of(&["1.1.1.1, 2.2.2.2"], 0), "9.9.9.9");
        assert_eq!(of(&["1.1.1.1, 2.2.2.2"], 1), "2.2.2.2");
        assert_eq!(of(&["1.1.1.1", "2.2.2.2"], 2), "1.1.1.1");
        assert_eq!(of(&["1.1.1.1, 2.2.2.2"], 3), "9.9.9.9");
        assert_eq!(of(&["evil, 2.2.2.2"], 2), "9.9.9.9");
        assert_eq!(of(&[], 1), "9.9.9.9");
    }

    #[test]
    fn request_ids_are_uuids() {
        assert_eq!(new_request_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(
            new_request_id(u128::MAX),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
    }

    #[test]
    fn foreign_request_ids_are_kept_unless_they_are_huge() {
        let mut headers = HeaderMap::new();
        assert_eq!(incoming_request_id(&headers), None);
        headers.insert(X_REQUEST_ID, "abc".parse().unwrap());
        assert_eq!(incoming_request_id(&headers), Some("abc"));
        headers.insert(X_REQUEST_ID, "a".repeat(129).parse().unwrap());
        assert_eq!(incoming_request_id(&headers), None);
    }
}
