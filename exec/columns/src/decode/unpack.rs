//! Bit unpacking: 32 values at a time, one specialised function per width, no branch per value.

/// Values of a block.
pub(crate) const BLOCK: usize = 32;

/// Unpacks a block of values of `W` bits, the least significant bit first, from `4 · W` bytes.
#[inline(always)]
fn unpack_width<const W: usize>(packed: &[u8], block: &mut [u32; BLOCK]) {
    let mut words = [0_u32; BLOCK + 1];
    let (chunks, _) = packed[..4 * W].as_chunks::<4>();
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = u32::from_le_bytes(*chunk);
    }
    let mask = if W == 32 { u32::MAX } else { (1_u32 << W) - 1 };
    for (place, value) in block.iter_mut().enumerate() {
        let bit = place * W;
        let (word, shift) = (bit / 32, bit % 32);
        let pair = u64::from(words[word]) | u64::from(words[word + 1]) << 32;
        *value = (pair >> shift) as u32 & mask;
    }
}

macro_rules! by_width {
    ($width:expr, $packed:expr, $block:expr; $($w:literal)*) => {
        match $width {
            $($w => unpack_width::<$w>($packed, $block),)*
            _ => block_of_zeros($block),
        }
    };
}

fn block_of_zeros(block: &mut [u32; BLOCK]) {
    *block = [0; BLOCK];
}

/// Unpacks a block of values of `width` (at most 32) bits from the first `4 · width` bytes, which must be there.
#[inline]
pub(crate) fn unpack(width: usize, packed: &[u8], block: &mut [u32; BLOCK]) {
    by_width!(width, packed, block; 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
}

/// As [`unpack`], from as many bytes as there are; missing bits are 0.
pub(crate) fn unpack_rest(width: usize, packed: &[u8], block: &mut [u32; BLOCK]) {
    let mut padded = [0_u8; 4 * BLOCK];
    let length = packed.len().min(4 * width);
    padded[..length].copy_from_slice(&packed[..length]);
    unpack(width, &padded, block);
}

/// One value of at most 64 bits.
pub(crate) fn value_at(width: usize, packed: &[u8], place: usize) -> u64 {
    let bit = place * width;
    let mut bytes = [0_u8; 16];
    let rest = packed.get(bit / 8..).unwrap_or_default();
    let length = rest.len().min(16);
    bytes[..length].copy_from_slice(&rest[..length]);
    let shifted = (u128::from_le_bytes(bytes) >> (bit % 8)) as u64;
    if width >= 64 {
        shifted
    } else {
        shifted & ((1 << width) - 1)
    }
}
