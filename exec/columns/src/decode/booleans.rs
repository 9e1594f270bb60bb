//! Booleans, which stay bits.

use std::ops::Range;

use arrow::array::BooleanBufferBuilder;
use bytes::Bytes;
use parquet::basic::Encoding;

use super::hybrid::{Run, Runs};
use super::pages::{PageError, Target, with_length};
use super::validity::{Validity, keep_bits};

/// Bits being filled.
pub(crate) struct Bits {
    pub(crate) out: BooleanBufferBuilder,
}

impl Target for Bits {
    fn len(&self) -> usize {
        self.out.len()
    }

    fn dictionary(&mut self, _page: &Bytes, _count: usize) -> Result<(), PageError> {
        Err(PageError::Unknown)
    }

    fn append(&mut self, encoding: Encoding, page: &Bytes, count: usize) -> Result<(), PageError> {
        match encoding {
            Encoding::PLAIN if page.len() >= count.div_ceil(8) => self.out.append_packed_range(0..count, page),
            Encoding::PLAIN => return Err(PageError::corrupt("values end early")),
            Encoding::RLE => {
                let (values, _) = with_length(page)?;
                let mut runs = Runs::new(&values, 1, count)?;
                while let Some(run) = runs.next()? {
                    match run {
                        Run::Repeat(value, length) => self.out.append_n(length, value != 0),
                        Run::Packed(packed, length) => self.out.append_packed_range(0..length, packed),
                    }
                }
            }
            _ => return Err(PageError::Unknown),
        }
        Ok(())
    }

    fn spread(&mut self, rows: usize, count: usize, validity: &Validity) {
        let start = self.out.len() - count;
        let first = validity.rows() - rows;
        self.out.append_n(rows - count, false);
        let mut dense = count;
        for row in (0..rows).rev() {
            let value = self.out.get_bit(start + dense.saturating_sub(1));
            self.out.set_bit(start + row, value);
            dense -= usize::from(validity.is_valid(first + row));
        }
    }

    fn keep(&mut self, from: usize, ranges: &[Range<usize>]) {
        keep_bits(&mut self.out, from, ranges);
    }
}
