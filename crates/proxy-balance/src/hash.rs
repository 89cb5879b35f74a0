//! XXH64, the hash of keys and endpoints: Envoy's default for ring hash and Maglev.
//!
//! Owns the function alone (Collet, "xxHash fast digest algorithm", 0.1.1). It needs no protection
//! against chosen keys: who chooses keys that meet only chooses the endpoint that serves them.

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// The hash of `bytes`. A seed makes it another function.
pub fn hash(bytes: &[u8], seed: u64) -> u64 {
    let (stripes, mut rest) = bytes.as_chunks::<32>();
    let mut hash = if stripes.is_empty() {
        seed.wrapping_add(PRIME_5)
    } else {
        converge(stripes, seed)
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    while let Some((lane, behind)) = rest.split_first_chunk::<8>() {
        hash ^= round(0, u64::from_le_bytes(*lane));
        hash = step(hash.rotate_left(27), PRIME_1, PRIME_4);
        rest = behind;
    }
    if let Some((lane, behind)) = rest.split_first_chunk::<4>() {
        hash ^= u64::from(u32::from_le_bytes(*lane)).wrapping_mul(PRIME_1);
        hash = step(hash.rotate_left(23), PRIME_2, PRIME_3);
        rest = behind;
    }
    for byte in rest {
        hash ^= u64::from(*byte).wrapping_mul(PRIME_5);
        hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
    }
    avalanche(hash)
}

fn step(hash: u64, factor: u64, addend: u64) -> u64 {
    hash.wrapping_mul(factor).wrapping_add(addend)
}

fn round(accumulator: u64, lane: u64) -> u64 {
    accumulator
        .wrapping_add(lane.wrapping_mul(PRIME_2))
        .rotate_left(31)
        .wrapping_mul(PRIME_1)
}

/// Four accumulators over stripes of four lanes.
fn converge(stripes: &[[u8; 32]], seed: u64) -> u64 {
    let mut accumulators = [
        seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2),
        seed.wrapping_add(PRIME_2),
        seed,
        seed.wrapping_sub(PRIME_1),
    ];
    for stripe in stripes {
        let (lanes, _) = stripe.as_chunks::<8>();
        for (accumulator, lane) in accumulators.iter_mut().zip(lanes) {
            *accumulator = round(*accumulator, u64::from_le_bytes(*lane));
        }
    }
    let [a, b, c, d] = accumulators;
    let sum = a
        .rotate_left(1)
        .wrapping_add(b.rotate_left(7))
        .wrapping_add(c.rotate_left(12))
        .wrapping_add(d.rotate_left(18));
    accumulators.into_iter().fold(sum, |hash, accumulator| {
        step(hash ^ round(0, accumulator), PRIME_1, PRIME_4)
    })
}

fn avalanche(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published values of the reference implementation.
    #[test]
    fn it_is_xxh64() {
        for (text, seed, expected) in [
            ("", 0, 0xef46_db37_51d8_e999),
            ("a", 0, 0xd24e_c4f1_a98c_6e5b),
            ("abc", 0, 0x44bc_2cf5_ad77_0999),
            ("message digest", 0, 0x066e_d728_fcee_b3be),
            ("abcdefghijklmnopqrstuvwxyz", 0, 0xcfe1_f278_fa89_835c),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                0,
                0xaaa4_6907_d304_7814,
            ),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                0,
                0xe04a_477f_19ee_145d,
            ),
        ] {
            assert_eq!(hash(text.as_bytes(), seed), expected, "{text}");
        }
        assert_ne!(hash(b"a", 1), hash(b"a", 0));
    }
}
