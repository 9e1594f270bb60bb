//! Definition levels to validity bits. Pages without NULLs cost nothing: bits are made when the first NULL comes.

use std::ops::Range;

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

use super::hybrid::{Run, Runs};
use super::pages::PageError;

/// Bits of the rows so far.
#[derive(Default)]
pub(crate) struct Validity {
    rows: usize,
    /// None while no row is NULL.
    bits: Option<BooleanBufferBuilder>,
}

impl Validity {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn all_valid(&mut self, rows: usize) {
        self.rows += rows;
        if let Some(bits) = &mut self.bits {
            bits.append_n(rows, true);
        }
    }

    /// Rows of a page by its levels (of one bit); returns those that are not NULL.
    pub(crate) fn levels(&mut self, levels: &[u8], rows: usize) -> Result<usize, PageError> {
        let mut runs = Runs::new(levels, 1, rows)?;
        let first = runs.next()?;
        if let Some(Run::Repeat(1, length)) = first
            && length == rows
        {
            self.all_valid(rows);
            return Ok(rows);
        }
        let before = self.rows;
        let bits = self.bits.get_or_insert_with(|| {
            let mut bits = BooleanBufferBuilder::new(before + rows);
            bits.append_n(before, true);
            bits
        });
        let mut valid = 0;
        let mut next = first;
        while let Some(run) = next {
            match run {
                Run::Repeat(level, length) => {
                    bits.append_n(length, level != 0);
                    valid += if level != 0 { length } else { 0 };
                }
                Run::Packed(packed, length) => {
                    bits.append_packed_range(0..length, packed);
                    valid += ones(packed, length);
                }
            }
            next = runs.next()?;
        }
        self.rows += rows;
        Ok(valid)
    }

    /// True when a row is not NULL.
    pub(crate) fn is_valid(&self, row: usize) -> bool {
        self.bits.as_ref().is_none_or(|bits| bits.get_bit(row))
    }

    /// Of the rows from `from` on keeps only `ranges`, which ascend.
    pub(crate) fn keep(&mut self, from: usize, ranges: &[Range<usize>]) {
        self.rows = from + ranges.iter().map(ExactSizeIterator::len).sum::<usize>();
        if let Some(bits) = &mut self.bits {
            keep_bits(bits, from, ranges);
        }
    }

    /// Bits, none when no row is NULL; and the NULLs.
    pub(crate) fn finish(self) -> (Option<BooleanBuffer>, usize) {
        let bits = self.bits.map(|mut bits| bits.finish());
        let nulls = bits.as_ref().map_or(0, |bits| bits.len() - bits.count_set_bits());
        (bits.filter(|_| nulls > 0), nulls)
    }
}

/// Set bits among the first `length`.
pub(crate) fn ones(packed: &[u8], length: usize) -> usize {
    let (whole, rest) = packed.split_at(length / 8);
    let sum: usize = whole.iter().map(|byte| byte.count_ones() as usize).sum();
    let last = rest
        .first()
        .map_or(0, |byte| byte & ((1_u16 << (length % 8)) - 1) as u8);
    sum + last.count_ones() as usize
}

/// Of the bits from `from` on keeps only `ranges`, which ascend.
pub(crate) fn keep_bits(bits: &mut BooleanBufferBuilder, from: usize, ranges: &[Range<usize>]) {
    let all = bits.finish();
    bits.append_buffer(&all.slice(0, from));
    for range in ranges {
        bits.append_buffer(&all.slice(range.start, range.len()));
    }
}
