//! Pages as tests read them, by the decoder's own parts.

use super::hybrid::look_up;
use super::plain;

/// Values of indexes into a dictionary.
pub(crate) fn indexed(page: &[u8], count: usize, dictionary: &[u64]) -> Vec<u64> {
    let mut out = Vec::new();
    look_up(page, count, dictionary, &mut out).unwrap();
    out
}

/// DELTA_BINARY_PACKED, modulo 2⁶⁴.
pub(crate) fn deltas(page: &[u8], count: usize) -> Vec<u64> {
    let mut out = Vec::new();
    plain::deltas(&mut &page[..], count, |value| out.push(value.cast_unsigned())).unwrap();
    out
}
