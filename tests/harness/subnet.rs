//! Loopback addresses that belong to one test.

use std::net::{Ipv4Addr, TcpListener};

/// The port on which a claim is held.
const CLAIM_PORT: u16 = 65_000;

/// A block 127.a.b.0/24 that no other test of this machine uses while this lives.
pub(crate) struct Subnet {
    block: [u8; 2],
    _claim: TcpListener,
}

impl Subnet {
    /// Claims a free block.
    pub(crate) fn claim() -> Self {
        for _ in 0..1000 {
            let random = rand::random::<u16>().to_be_bytes();
            let block = [64 | (random[0] & 0x3f), random[1]];
            let address = Ipv4Addr::new(127, block[0], block[1], 254);
            if let Ok(claim) = TcpListener::bind((address, CLAIM_PORT)) {
                return Self {
                    block,
                    _claim: claim,
                };
            }
        }
        panic!("no free block of loopback addresses");
    }

    /// The address with this last byte.
    pub(crate) fn ip(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.block[0], self.block[1], last)
    }
}
