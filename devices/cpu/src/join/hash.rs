//! Hashes of join keys: few instructions, all bits of the key in the upper bits of the hash.

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const MULTIPLIER: u64 = 0xd6e8_feb8_6659_fd93;

/// Both halves of the 128-bit product, folded.
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ (product >> 64) as u64
}

/// Of a packed key.
pub(crate) fn hash_u64(key: u64) -> u64 {
    fold(key ^ SEED, MULTIPLIER)
}

/// Of a packed key of 128 bits.
pub(crate) fn hash_u128(key: u128) -> u64 {
    fold(hash_u64(key as u64) ^ (key >> 64) as u64, MULTIPLIER)
}

/// Of an encoded key.
pub(crate) fn hash_bytes(key: &[u8]) -> u64 {
    let mut hash = SEED ^ key.len() as u64;
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = fold(hash ^ u64::from_le_bytes(word), MULTIPLIER).wrapping_add(SEED);
    }
    let mut word = [0; 8];
    let rest = chunks.remainder();
    word[..rest.len()].copy_from_slice(rest);
    fold(hash ^ u64::from_le_bytes(word), MULTIPLIER)
}
