//! A few bytes at a time: loads of up to eight as one word.

/// The eight bytes from `at` on, lowest first, zeros after the last.
pub(crate) fn eight(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    match bytes.get(at..at + 8) {
        Some(whole) => word.copy_from_slice(whole),
        None => {
            let rest = bytes.get(at..).unwrap_or_default();
            word[..rest.len()].copy_from_slice(rest);
        }
    }
    u64::from_le_bytes(word)
}

/// Ones in the lowest `count` of eight bytes.
pub(crate) fn low_bytes(count: usize) -> u64 {
    u64::MAX.checked_shr(64 - 8 * count as u32).unwrap_or(0)
}
