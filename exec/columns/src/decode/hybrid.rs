//! Runs of Parquet's RLE / bit-packing hybrid: levels, dictionary indices, booleans.

use super::pages::PageError;
use super::unpack::{BLOCK, unpack, unpack_rest};

/// A run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run<'a> {
    /// The same value so many times.
    Repeat(u32, usize),
    /// So many packed values.
    Packed(&'a [u8], usize),
}

/// Runs of `rows` values of `width` bits.
pub(crate) struct Runs<'a> {
    data: &'a [u8],
    width: usize,
    rows: usize,
}

impl<'a> Runs<'a> {
    pub(crate) fn new(data: &'a [u8], width: usize, rows: usize) -> Result<Self, PageError> {
        if width > 32 {
            return Err(PageError::corrupt(format!("values of {width} bits")));
        }
        Ok(Self { data, width, rows })
    }

    /// The next run; none after the last value. Runs are cut at the last value.
    pub(crate) fn next(&mut self) -> Result<Option<Run<'a>>, PageError> {
        if self.rows == 0 {
            return Ok(None);
        }
        let header = varint(&mut self.data)?;
        let (run, length) = if header & 1 == 1 {
            let groups = usize::try_from(header >> 1).unwrap_or(usize::MAX);
            let bytes = groups.saturating_mul(self.width);
            let length = groups.saturating_mul(8).min(self.rows);
            // The last run may be cut short of its padding.
            let (packed, rest) = self.data.split_at(bytes.min(self.data.len()));
            if packed.len().saturating_mul(8) < length * self.width {
                return Err(PageError::corrupt("a run ends early"));
            }
            self.data = rest;
            (Run::Packed(packed, length), length)
        } else {
            let length = usize::try_from(header >> 1).unwrap_or(usize::MAX).min(self.rows);
            let bytes = self.width.div_ceil(8);
            let Some((value, rest)) = self.data.split_at_checked(bytes) else {
                return Err(PageError::corrupt("a run ends early"));
            };
            self.data = rest;
            let mut padded = [0_u8; 4];
            padded[..bytes].copy_from_slice(value);
            (Run::Repeat(u32::from_le_bytes(padded), length), length)
        };
        if length == 0 {
            return Err(PageError::corrupt("an empty run"));
        }
        self.rows -= length;
        Ok(Some(run))
    }
}

/// An unsigned number, 7 bits a byte.
pub(crate) fn varint(data: &mut &[u8]) -> Result<u64, PageError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = data.split_first() else {
            return Err(PageError::corrupt("a number ends early"));
        };
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(PageError::corrupt("a number is too long"))
}

/// Appends the values of a page of dictionary indices: `data` is the width and the runs.
pub(crate) fn look_up<T: Copy + Default>(
    data: &[u8],
    count: usize,
    values: &[T],
    out: &mut Vec<T>,
) -> Result<(), PageError> {
    if count == 0 {
        return Ok(());
    }
    let (Some((width, data)), Some(last)) = (data.split_first(), values.len().checked_sub(1)) else {
        return Err(PageError::corrupt("indices without a dictionary"));
    };
    let width = usize::from(*width);
    let mut runs = Runs::new(data, width, count)?;
    let mut largest = 0_u32;
    let mut block = [0_u32; BLOCK];
    while let Some(run) = runs.next()? {
        match run {
            Run::Repeat(index, length) => {
                largest = largest.max(index);
                out.resize(out.len() + length, values[(index as usize).min(last)]);
            }
            Run::Packed(packed, length) => {
                let start = out.len();
                out.resize(start + length, T::default());
                let (blocks, rest) = out[start..].as_chunks_mut::<BLOCK>();
                let mut packed = packed;
                for slots in blocks {
                    unpack(width, packed, &mut block);
                    packed = &packed[4 * width..];
                    for (slot, index) in slots.iter_mut().zip(&block) {
                        largest = largest.max(*index);
                        *slot = values[(*index as usize).min(last)];
                    }
                }
                unpack_rest(width, packed, &mut block);
                for (slot, index) in rest.iter_mut().zip(&block) {
                    largest = largest.max(*index);
                    *slot = values[(*index as usize).min(last)];
                }
            }
        }
    }
    match largest as usize <= last {
        true => Ok(()),
        false => Err(PageError::corrupt(format!(
            "index {largest} of {} values",
            values.len()
        ))),
    }
}

/// Calls `each` with the indices of a page, which are less than `values`.
pub(crate) fn each_index<E: From<PageError>>(
    data: &[u8],
    count: usize,
    values: usize,
    mut each: impl FnMut(usize, usize) -> Result<(), E>,
) -> Result<(), E> {
    if count == 0 {
        return Ok(());
    }
    let Some((width, data)) = data.split_first() else {
        return Err(PageError::corrupt("indices without a width").into());
    };
    let width = usize::from(*width);
    let mut runs = Runs::new(data, width, count)?;
    let mut block = [0_u32; BLOCK];
    let mut checked = |index: u32, times: usize| match (index as usize) < values {
        true => each(index as usize, times),
        false => Err(PageError::corrupt(format!("index {index} of {values} values")).into()),
    };
    while let Some(run) = runs.next()? {
        match run {
            Run::Repeat(index, length) => checked(index, length)?,
            Run::Packed(packed, length) => {
                for start in (0..length).step_by(BLOCK) {
                    let packed = packed.get(start / 8 * width..).unwrap_or_default();
                    unpack_rest(width, packed, &mut block);
                    for index in &block[..BLOCK.min(length - start)] {
                        checked(*index, 1)?;
                    }
                }
            }
        }
    }
    Ok(())
}
