//! Rows of a segment's column as a vector of its shape.
//!
//! A range of rows borrows from the segment where its carrier is the shape's lane; else values are widened (a segment may be
//! narrower than the column's range over all segments). Positions are gathered; [`NO_ROW`] is NULL.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use trireme_device_api::{Carrier, Codes, DeviceColumn, DeviceError, Dictionary, Strings, Type, Values};

use crate::isa::{Isa, primitive};
use crate::number::{Convert, Number, by_lane, convert, convert_base, map_values};
use crate::tile::NO_ROW;
use crate::vector::{Data, Shape, Vector};

const CACHE_LINE_BYTES: usize = 64;

/// Which rows to load.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Picked<'p> {
    /// `rows` rows from the first on.
    Range(usize, usize),
    /// These rows; [`NO_ROW`] is NULL.
    Positions(&'p [u32]),
    /// These rows, all of which lie below the number.
    Below(usize, &'p [u32]),
}

impl Picked<'_> {
    fn rows(self) -> usize {
        match self {
            Picked::Range(_, rows) => rows,
            Picked::Positions(positions) | Picked::Below(_, positions) => positions.len(),
        }
    }

    /// Positions in so many rows, known as such where all are.
    fn known(self, rows: usize, isa: Isa) -> Self {
        match self {
            Picked::Positions(positions) if rows <= NO_ROW as usize => match largest(isa, positions) as usize {
                largest if largest < rows => Picked::Below(rows, positions),
                _ => self,
            },
            _ => self,
        }
    }
}

primitive! {
    fn largest[](positions: &[u32]) -> u32 {
        positions.iter().fold(0, |largest, position| largest.max(*position))
    }
}

/// Loads rows of a column.
///
/// # Errors
/// [`DeviceError::Internal`] when the column isn't of the shape.
pub(crate) fn load<'a>(
    column: &'a DeviceColumn,
    shape: &Shape,
    picked: Picked<'_>,
    isa: Isa,
) -> Result<Vector<'a>, DeviceError> {
    let picked = picked.known(column.rows, isa);
    let data = match (&column.values, shape.lane(), &shape.dictionary) {
        (Values::Nulls, ..) => return Ok(Vector::nulls(shape, picked.rows())),
        (Values::Integers { carrier, base }, Some(lane), _) => {
            by_lane!(lane, T => integers::<T>(carrier, *base, picked, isa))
        }
        (Values::Wide(values), Some(lane), _) => {
            by_lane!(lane, T => numbers::<i128, T>(values, T::default(), picked, isa))
        }
        (Values::Float32(values), ..) => Data::F32(plain(values, picked)),
        (Values::Float64(values), ..) => Data::F64(plain(values, picked)),
        (Values::Booleans(values), ..) => Data::Bool(bits(values, picked).into()),
        (Values::Codes { codes, dictionary }, _, Some(expected)) => {
            let codes = match codes {
                Codes::U8(codes) => pick(codes, picked, u32::from, isa),
                Codes::U16(codes) => pick(codes, picked, u32::from, isa),
                Codes::U32(codes) => plain(codes, picked),
            };
            if !Arc::ptr_eq(dictionary, expected) && dictionary.len() > expected.len() {
                return Err(DeviceError::Internal(
                    "a dictionary grew after it was promised to be complete".to_owned(),
                ));
            }
            Data::Codes(codes, Arc::clone(expected))
        }
        (Values::Codes { codes, dictionary }, _, None) => Data::Bytes(decoded(codes, dictionary, picked)),
        (Values::Strings(values), _, None) => Data::Bytes(strings(values, picked)),
        (Values::Intervals(values), ..) => Data::Interval(plain(values, picked).into_owned()),
        _ => {
            return Err(DeviceError::Internal(format!(
                "a column of type {:?} is not carried as its profile promised",
                column.data_type
            )));
        }
    };
    debug_assert!(
        shape.data_type == column.data_type || matches!(shape.data_type, Type::Null) || shape.data_type.is_bytes()
    );
    Ok(Vector {
        data,
        valid: validity(column.validity.as_ref(), picked),
    })
}

fn integers<'a, T: Number>(carrier: &'a Carrier, base: i64, picked: Picked<'_>, isa: Isa) -> Data<'a>
where
    i8: Convert<T>,
    i16: Convert<T>,
    i32: Convert<T>,
    i64: Convert<T>,
{
    let base = T::of(base.into());
    match carrier {
        Carrier::I8(values) => numbers(values, base, picked, isa),
        Carrier::I16(values) => numbers(values, base, picked, isa),
        Carrier::I32(values) => numbers(values, base, picked, isa),
        Carrier::I64(values) => numbers(values, base, picked, isa),
    }
}

/// Asks for the values that follow a range: most likely the next tile reads them. A tile's bytes of a column are too few for the
/// processor to see the stream and too many to wait for.
pub(crate) fn read_ahead<T>(values: &[T], start: usize, rows: usize) {
    let end = values.len().min(start + 2 * rows);
    let next = values.get(start + rows..end).unwrap_or_default();
    #[cfg(target_arch = "x86_64")]
    for byte in (0..size_of_val(next)).step_by(CACHE_LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address has no effect but on caches; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(next.as_ptr().cast::<i8>().wrapping_add(byte)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = next;
}

fn numbers<'a, S: Number + Convert<T>, T: Number>(values: &'a [S], base: T, picked: Picked<'_>, isa: Isa) -> Data<'a> {
    let plain_base = base == T::default();
    match picked {
        Picked::Range(start, rows) => {
            read_ahead(values, start, rows);
            let values = &values[start..start + rows];
            match T::slice_of(values) {
                Some(same) if plain_base => T::data(Cow::Borrowed(same)),
                _ if plain_base => T::data(convert(isa, values).into()),
                _ => T::data(convert_base(isa, values, base).into()),
            }
        }
        _ => T::data(
            gather(values, picked, |value: S| {
                let value: T = value.convert();
                value.plus(base)
            })
            .into(),
        ),
    }
}

fn plain<'a, T: Copy + Default>(values: &'a [T], picked: Picked<'_>) -> Cow<'a, [T]> {
    match picked {
        Picked::Range(start, rows) => {
            read_ahead(values, start, rows);
            Cow::Borrowed(&values[start..start + rows])
        }
        _ => gather(values, picked, |value| value).into(),
    }
}

fn pick<'a, S: Copy + Default, T: Copy>(values: &[S], picked: Picked<'_>, f: impl Fn(S) -> T, isa: Isa) -> Cow<'a, [T]>
where
    [T]: ToOwned<Owned = Vec<T>>,
{
    match picked {
        Picked::Range(start, rows) => {
            read_ahead(values, start, rows);
            crate::number::map(isa, &values[start..start + rows], f).into()
        }
        _ => gather(values, picked, f).into(),
    }
}

/// `f` of the values of the rows; a row that isn't there has the default.
fn gather<S: Copy + Default, T>(values: &[S], picked: Picked<'_>, f: impl Fn(S) -> T) -> Vec<T> {
    match picked {
        Picked::Range(start, rows) => values[start..start + rows].iter().map(|value| f(*value)).collect(),
        Picked::Below(rows, positions) if rows <= values.len() => map_values(positions, |row| {
            // SAFETY: the position lies below the number, and so many values are there.
            f(unsafe { *values.get_unchecked(row as usize) })
        }),
        Picked::Positions(positions) | Picked::Below(_, positions) => map_values(positions, |row| {
            f(values.get(row as usize).copied().unwrap_or_default())
        }),
    }
}

fn strings<'a>(values: &'a Strings, picked: Picked<'_>) -> Vec<&'a [u8]> {
    match picked {
        Picked::Range(start, rows) => (start..start + rows).map(|row| values.get(row)).collect(),
        Picked::Positions(rows) | Picked::Below(_, rows) => rows
            .iter()
            .map(|row| {
                if *row == NO_ROW {
                    &[][..]
                } else {
                    values.get(*row as usize)
                }
            })
            .collect(),
    }
}

fn decoded<'a>(codes: &Codes, dictionary: &'a Dictionary, picked: Picked<'_>) -> Vec<&'a [u8]> {
    let value = |row: usize| {
        if dictionary.is_empty() {
            &[][..]
        } else {
            dictionary.get(codes.get(row))
        }
    };
    match picked {
        Picked::Range(start, rows) => (start..start + rows).map(value).collect(),
        Picked::Positions(rows) | Picked::Below(_, rows) => rows
            .iter()
            .map(|row| if *row == NO_ROW { &[][..] } else { value(*row as usize) })
            .collect(),
    }
}

/// A byte per row, 0 or 1.
fn bits(values: &BooleanBuffer, picked: Picked<'_>) -> Vec<u8> {
    match picked {
        Picked::Range(start, rows) => expand(values, start, rows),
        Picked::Positions(rows) | Picked::Below(_, rows) => rows
            .iter()
            .map(|row| u8::from(*row != NO_ROW && values.value(*row as usize)))
            .collect(),
    }
}

/// A byte per row; none when no row is NULL.
pub(crate) fn validity<'a>(valid: Option<&BooleanBuffer>, picked: Picked<'_>) -> Option<Cow<'a, [u8]>> {
    let bytes = match (valid, picked) {
        (Some(valid), _) => bits(valid, picked),
        (None, Picked::Range(..) | Picked::Below(..)) => return None,
        (None, Picked::Positions(rows)) => {
            if !rows.contains(&NO_ROW) {
                return None;
            }
            rows.iter().map(|row| u8::from(*row != NO_ROW)).collect()
        }
    };
    bytes.contains(&0).then(|| bytes.into())
}

/// Eight bits to eight bytes at a time.
fn expand(bits: &BooleanBuffer, start: usize, rows: usize) -> Vec<u8> {
    let bytes = bits.inner().as_slice();
    let first = bits.offset() + start;
    let (mut at, shift) = (first / 8, first % 8);
    let mut out = Vec::with_capacity(rows + 8);
    while out.len() < rows {
        let low = u32::from(bytes.get(at).copied().unwrap_or(0));
        let high = u32::from(bytes.get(at + 1).copied().unwrap_or(0));
        let byte = u64::from(((low | high << 8) >> shift) & 0xff);
        let spread = byte.wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let ones = (spread.wrapping_add(0x7f7f_7f7f_7f7f_7f7f) | spread) >> 7 & 0x0101_0101_0101_0101;
        out.extend_from_slice(&ones.to_le_bytes());
        at += 1;
    }
    out.truncate(rows);
    out
}
