//! Encodings of fixed width made plain: delta, byte stream split. Rare beside dictionaries, so a copy more is no matter.

use std::borrow::Cow;

use bytes::Bytes;
use parquet::basic::Encoding;

use super::hybrid::varint;
use super::pages::PageError;
use super::strings;
use super::unpack::{BLOCK, unpack_rest, value_at};

/// Values of a page that is not dictionary indices, as plain values of `width` bytes each.
pub(crate) fn plain(
    encoding: Encoding,
    page: &Bytes,
    count: usize,
    width: usize,
    is_integer: bool,
) -> Result<Cow<'_, [u8]>, PageError> {
    let due = count
        .checked_mul(width)
        .ok_or_else(|| PageError::corrupt("too many values"))?;
    match encoding {
        Encoding::PLAIN => page.get(..due).map(Cow::Borrowed).ok_or_else(too_few),
        Encoding::BYTE_STREAM_SPLIT => {
            let streams = page.get(..due).ok_or_else(too_few)?;
            let mut values = vec![0; due];
            for (place, stream) in streams.chunks_exact(count.max(1)).enumerate() {
                for (value, byte) in values.chunks_exact_mut(width).zip(stream) {
                    value[place] = *byte;
                }
            }
            Ok(Cow::Owned(values))
        }
        Encoding::DELTA_BINARY_PACKED if is_integer && width == 4 => {
            let mut values = Vec::with_capacity(due);
            deltas(&mut page.as_ref(), count, |value| {
                values.extend_from_slice(&(value as i32).to_le_bytes())
            })?;
            Ok(Cow::Owned(values))
        }
        Encoding::DELTA_BINARY_PACKED if is_integer && width == 8 => {
            let mut values = Vec::with_capacity(due);
            deltas(&mut page.as_ref(), count, |value| {
                values.extend_from_slice(&value.to_le_bytes())
            })?;
            Ok(Cow::Owned(values))
        }
        Encoding::DELTA_BYTE_ARRAY if !is_integer => {
            let mut values = Vec::with_capacity(due);
            strings::each_value(encoding, page, count, |value: &[u8]| {
                values.extend_from_slice(value);
                match value.len() == width {
                    true => Ok(()),
                    false => Err(PageError::corrupt("a value of the wrong length")),
                }
            })?;
            Ok(Cow::Owned(values))
        }
        _ => Err(PageError::Unknown),
    }
}

fn too_few() -> PageError {
    PageError::corrupt("values end early")
}

/// DELTA_BINARY_PACKED: calls `each` with `count` numbers and moves `data` behind them all.
pub(crate) fn deltas(data: &mut &[u8], count: usize, mut each: impl FnMut(i64)) -> Result<(), PageError> {
    let block_values = varint(data)?;
    let miniblocks = varint(data)?;
    let total = varint(data)?;
    let mut value = zigzag(varint(data)?);
    if total != count as u64 {
        return Err(too_few());
    }
    let valid = miniblocks > 0 && block_values <= 1 << 20 && block_values % miniblocks.max(1) == 0;
    let mini_values = (block_values / miniblocks.max(1)) as usize;
    if !valid || mini_values == 0 || !mini_values.is_multiple_of(32) {
        return Err(PageError::corrupt("blocks of deltas of a wrong size"));
    }
    if count > 0 {
        each(value);
    }
    let mut left = count.saturating_sub(1);
    while left > 0 {
        let least = zigzag(varint(data)?);
        let widths = data.get(..miniblocks as usize).ok_or_else(too_few)?;
        *data = &data[miniblocks as usize..];
        for width in widths {
            if left == 0 {
                break;
            }
            let width = usize::from(*width);
            if width > 64 {
                return Err(PageError::corrupt("deltas of more than 64 bits"));
            }
            // The last one may be cut short of its padding.
            let (packed, rest) = data.split_at((mini_values * width / 8).min(data.len()));
            *data = rest;
            let values = left.min(mini_values);
            if packed.len() * 8 < values * width {
                return Err(too_few());
            }
            miniblock(packed, width, values, |delta| {
                value = value.wrapping_add(least).wrapping_add(delta.cast_signed());
                each(value);
            });
            left -= values;
        }
    }
    Ok(())
}

fn miniblock(packed: &[u8], width: usize, values: usize, mut each: impl FnMut(u64)) {
    if width > 32 {
        (0..values).for_each(|place| each(value_at(width, packed, place)));
        return;
    }
    let mut block = [0_u32; BLOCK];
    for start in (0..values).step_by(BLOCK) {
        unpack_rest(width, packed.get(start / 8 * width..).unwrap_or_default(), &mut block);
        for delta in &block[..BLOCK.min(values - start)] {
            each(u64::from(*delta));
        }
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
