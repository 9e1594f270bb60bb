//! Columns as pages of Parquet, in every way that a device must decode: many small pages, each encoded anyhow, with rows before
//! and behind those that are wanted, and dictionaries with values that no row has.

use std::sync::Arc;

use arrow::buffer::Buffer;
use rand::Rng;
use rand::rngs::SmallRng;
use trireme_device_api::{
    DeviceColumn, DevicePool, EncodedColumn, EncodedPage, EncodedType, PageEncoding, Reservation, Unlimited, Values,
};

/// A number of seven bits a byte.
pub fn varint(into: &mut Vec<u8>, mut number: u64) {
    while number > 127 {
        into.push(number.to_le_bytes()[0] | 128);
        number >>= 7;
    }
    into.push(number.to_le_bytes()[0]);
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

/// Values of so many bits, one behind the other.
pub fn pack(into: &mut Vec<u8>, values: &[u64], width: u32) {
    let width = width as usize;
    let mut bits = vec![0_u8; (values.len() * width).div_ceil(8)];
    for (position, value) in values.iter().enumerate() {
        for bit in (0..width).filter(|bit| value >> bit & 1 == 1) {
            let at = position * width + bit;
            bits[at / 8] |= 1 << (at % 8);
        }
    }
    into.extend(bits);
}

/// Runs of equal values and of packed bits, of any lengths.
pub fn runs(rng: &mut impl Rng, values: &[u64], width: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut left = values;
    while let Some(first) = left.first() {
        let equal = left.iter().take_while(|value| *value == first).count();
        if equal > 8 || rng.random_range(0..4) == 0 {
            let run = rng.random_range(1..=equal);
            varint(&mut bytes, (run as u64) << 1);
            bytes.extend(&first.to_le_bytes()[..width.div_ceil(8) as usize]);
            left = &left[run..];
        } else {
            let eights = rng.random_range(1..=left.len().div_ceil(8).min(63));
            let mut run = left[..left.len().min(eights * 8)].to_vec();
            left = &left[run.len()..];
            run.resize(eights * 8, 0);
            varint(&mut bytes, (eights as u64) << 1 | 1);
            pack(&mut bytes, &run, width);
        }
    }
    bytes
}

/// DELTA_BINARY_PACKED, of blocks of any size.
pub fn deltas(rng: &mut impl Rng, values: &[u64]) -> Vec<u8> {
    let minis = rng.random_range(1..=4_usize);
    let mini = 32 * rng.random_range(1..=3_usize);
    let mut bytes = Vec::new();
    for number in [minis * mini, minis, values.len()] {
        varint(&mut bytes, number as u64);
    }
    let first = values.first().map_or(0, |first| zigzag(first.cast_signed()));
    varint(&mut bytes, first);
    let differences: Vec<i64> = values
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]).cast_signed())
        .collect();
    for block in differences.chunks(minis * mini) {
        let least = block.iter().copied().min().unwrap_or(0);
        varint(&mut bytes, zigzag(least));
        let packed: Vec<u64> = block
            .iter()
            .map(|value| value.wrapping_sub(least).cast_unsigned())
            .collect();
        let width = |mini: &[u64]| 64 - mini.iter().max().copied().unwrap_or(0).leading_zeros();
        let mut widths: Vec<u32> = packed.chunks(mini).map(width).collect();
        widths.resize(minis, 0);
        bytes.extend(widths.iter().map(|width| width.to_le_bytes()[0]));
        for (part, width) in packed.chunks(mini).zip(widths) {
            let mut part = part.to_vec();
            part.resize(mini, 0);
            pack(&mut bytes, &part, width);
        }
    }
    bytes
}

/// A column's values as pages hold them.
struct Plain {
    kind: EncodedType,
    /// By row; those of NULL rows are of no meaning.
    values: Vec<u64>,
    /// Bytes of a plain value; 0 where there are none.
    bytes: u32,
    /// For rows that nobody wants.
    spare: u64,
}

impl Plain {
    fn of(column: &DeviceColumn, range: Option<(i128, i128)>) -> Option<Self> {
        let rows = 0..column.rows;
        Some(match &column.values {
            Values::Integers { carrier, base } => {
                let (low, high) = range?;
                let range = (i64::try_from(low).ok()?, i64::try_from(high).ok()?);
                let signed = i32::try_from(low).is_ok() && i32::try_from(high).is_ok();
                let unsigned = u32::try_from(low).is_ok() && u32::try_from(high).is_ok();
                let bytes = if signed || unsigned { 4 } else { 8 };
                let value = |row: usize| base.wrapping_add(carrier.get(row)).cast_unsigned();
                Self {
                    kind: EncodedType::Integers { bytes, signed, range },
                    values: rows.map(value).collect(),
                    bytes,
                    spare: range.0.cast_unsigned(),
                }
            }
            Values::Float32(values) => Self {
                kind: EncodedType::Float32,
                values: values.iter().map(|value| u64::from(value.to_bits())).collect(),
                bytes: 4,
                spare: 7,
            },
            Values::Float64(values) => Self {
                kind: EncodedType::Float64,
                values: values.iter().map(|value| value.to_bits()).collect(),
                bytes: 8,
                spare: 7,
            },
            Values::Codes { codes, dictionary } if !dictionary.is_empty() => Self {
                kind: EncodedType::Codes(u32::try_from(dictionary.len()).ok()?),
                values: rows.map(|row| u64::from(codes.get(row))).collect(),
                bytes: 0,
                spare: 0,
            },
            _ => return None,
        })
    }

    /// A page's values; indexes are of the last dictionary.
    fn page(&self, held: &[u64], dictionaries: &mut Vec<Vec<u64>>, rng: &mut SmallRng) -> (PageEncoding, Vec<u8>) {
        let integers = matches!(self.kind, EncodedType::Integers { .. });
        match rng.random_range(0..3) {
            0 if self.bytes > 0 => {
                let plain = |value: &u64| value.to_le_bytes()[..self.bytes as usize].to_vec();
                (PageEncoding::Plain, held.iter().flat_map(plain).collect())
            }
            1 if integers => {
                // Numbers of 4 bytes wrap as such.
                let cut = |value: &u64| match self.bytes {
                    4 => value << 32 >> 32,
                    _ => *value,
                };
                let signed = |value: u64| match self.bytes {
                    4 => ((value << 32).cast_signed() >> 32).cast_unsigned(),
                    _ => value,
                };
                let values: Vec<u64> = held.iter().map(|value| signed(cut(value))).collect();
                (PageEncoding::Delta, deltas(rng, &values))
            }
            _ => {
                let last = dictionaries.last();
                let covers = last.is_some_and(|last| held.iter().all(|value| last.contains(value)));
                if !covers || rng.random_bool(0.2) {
                    let mut entries = held.to_vec();
                    entries.push(self.spare);
                    entries.sort_unstable();
                    entries.dedup();
                    dictionaries.push(entries);
                }
                let number = dictionaries.len() - 1;
                let entries = &dictionaries[number];
                let index = |value: &u64| entries.iter().position(|entry| entry == value).unwrap_or(0) as u64;
                let indexes: Vec<u64> = held.iter().map(index).collect();
                let bits = 64 - (entries.len() as u64 - 1).leading_zeros() + rng.random_range(0..3);
                let width = bits.to_le_bytes()[0];
                let bytes = [vec![width], runs(rng, &indexes, bits)].concat();
                (PageEncoding::Dictionary(number), bytes)
            }
        }
    }
}

/// The column as pages, if it is one that pages may hold; `range` are bounds of its values.
pub fn encoded(column: &DeviceColumn, range: Option<(i128, i128)>, rng: &mut SmallRng) -> Option<EncodedColumn> {
    let plain = Plain::of(column, range)?;
    let (mut pages, mut dictionaries) = (Vec::new(), Vec::new());
    let mut first = 0;
    while first < column.rows {
        let keep = rng.random_range(1..=200).min(column.rows - first);
        let nullable =
            column.validity.is_some() && rng.random_bool(0.9) || (first..first + keep).any(|row| column.is_null(row));
        let around = |rng: &mut SmallRng| {
            if rng.random_bool(0.7) {
                0
            } else {
                rng.random_range(1..40_usize)
            }
        };
        let (skip, behind) = (around(rng), around(rng));
        // Rows that nobody wants may be NULL too.
        let spares = |rng: &mut SmallRng, rows: usize| -> Vec<u64> {
            let values = (0..rows).filter(|_| !nullable || rng.random_bool(0.5));
            values.map(|_| plain.spare).collect()
        };
        let before = spares(rng, skip);
        let passed = before.len();
        let rows = (first..first + keep).filter(|row| !column.is_null(*row));
        let held: Vec<u64> = before
            .into_iter()
            .chain(rows.map(|row| plain.values[row]))
            .chain(spares(rng, behind))
            .collect();
        let (encoding, bytes) = plain.page(&held, &mut dictionaries, rng);
        pages.push(EncodedPage {
            encoding,
            bytes: Buffer::from(bytes),
            values: held.len(),
            skip,
            passed,
            keep,
            first,
            nullable,
        });
        first += keep;
    }
    let pool: Arc<dyn DevicePool> = Arc::new(Unlimited);
    Some(EncodedColumn {
        rows: column.rows,
        values: plain.kind,
        pages,
        dictionaries,
        validity: column.validity.clone(),
        reservation: Reservation::new(&pool),
    })
}
