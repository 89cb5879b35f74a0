//! The word for a range of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{WordFault, text_form};

/// Addresses that begin alike, as `10.0.0.0/8`; one alone without `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    first: IpAddr,
    /// So many bits are alike.
    bits: u8,
}

impl Network {
    /// Whether an address is in it. One of IPv4 that is written as IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && begin(address, self.bits) == self.first
    }
}

/// The address with all but its first bits cleared.
fn begin(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Network {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let fault =
            |remedy: &str| WordFault(format!("{text:?} is no range of addresses; {remedy}"));
        let usual = "write one as 10.0.0.0/8 or fd00::/8, or an address";
        let first: IpAddr = address.parse().map_err(|_| fault(usual))?;
        let first = first.to_canonical();
        let bits = match bits {
            None => whole(first),
            Some(digits) => {
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
                let bits = digits.parse().ok().filter(|_| plain);
                bits.filter(|bits| *bits <= whole(first))
                    .ok_or_else(|| fault(usual))?
            }
        };
        let begin = begin(first, bits);
        if begin != first {
            return Err(fault(&format!(
                "it begins at {begin}: write {begin}/{bits}"
            )));
        }
        Ok(Self { first, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match self.bits == whole(self.first) {
            true => Ok(()),
            false => write!(f, "/{}", self.bits),
        }
    }
}

text_form!(
    Network,
    "A range of addresses, as 10.0.0.0/8, or one address.",
    "^[0-9a-fA-F.:]+(/[0-9]+)?$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_begins_alike() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::a00:1"),
            ("0.0.0.0/0", "192.0.2.1", "::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("192.0.2.128/25", "192.0.2.129", "192.0.2.127"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("fd00::1", "fd00::1", "fd00::2"),
        ] {
            let network: Network = range.parse().unwrap();
            assert!(
                network.contains(inside.parse().unwrap()),
                "{range} {inside}"
            );
            assert!(
                !network.contains(outside.parse().unwrap()),
                "{range} {outside}"
            );
            assert_eq!(network.to_string(), range);
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "a/8",
            "10.0.0.1/8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let fault = "10.0.0.1/8".parse::<Network>().unwrap_err().to_string();
        assert!(
            fault.ends_with("it begins at 10.0.0.0: write 10.0.0.0/8"),
            "{fault}"
        );
    }
}
