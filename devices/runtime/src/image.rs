//! A column's bytes as they lie in device memory: narrowed, rebased, with bits from bit 0.
//!
//! Nothing is copied where the host's layout is the device's already; else values are converted while they are written into
//! the driver's slabs, so that a converted column never stands in the host's memory.

use std::sync::Arc;

use arrow::buffer::{BooleanBuffer, Buffer, ScalarBuffer};
use trireme_device_api::{Carrier, Codes, DeviceColumn, DeviceError, Strings, Values};
use trireme_device_codegen::ir::Elem;
use trireme_device_codegen::shape::{ColumnShape, HANDLE_LENGTH_BITS, Storage};

/// Writes bytes from an offset, a multiple of 16, into a slab of whole elements.
type Convert = Box<dyn Fn(u64, &mut [u8]) + Send + Sync>;

/// One array of a column.
pub(crate) enum Piece {
    /// As the host has it.
    Raw(Buffer),
    /// So many zero bytes.
    Zeros(u64),
    /// So many bytes, converted as they are written.
    Converted(u64, Convert),
}

impl Piece {
    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Piece::Raw(buffer) => buffer.len() as u64,
            Piece::Zeros(bytes) | Piece::Converted(bytes, _) => *bytes,
        }
    }

    /// Writes bytes `offset..` as far as the slab goes.
    pub(crate) fn write(&self, offset: u64, slab: &mut [u8]) {
        match self {
            Piece::Raw(buffer) => {
                let start = place(offset);
                slab.copy_from_slice(&buffer[start..start + slab.len()]);
            }
            Piece::Zeros(_) => slab.fill(0),
            Piece::Converted(_, write) => write(offset, slab),
        }
    }
}

/// A column of one segment, ready to be uploaded.
pub(crate) struct Image {
    /// What is added to each element.
    pub(crate) base: i64,
    /// Values, codes, offsets.
    pub(crate) values: Option<Piece>,
    /// Bits; none when no row is NULL.
    pub(crate) validity: Option<Piece>,
    /// Bytes of strings.
    pub(crate) bytes: Option<Piece>,
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Calls `get` for each element of a slab.
fn each<const N: usize>(offset: u64, slab: &mut [u8], get: impl Fn(usize) -> [u8; N]) {
    let first = place(offset) / N;
    for (index, out) in slab.chunks_exact_mut(N).enumerate() {
        out.copy_from_slice(&get(first + index));
    }
}

fn converted<const N: usize>(rows: usize, get: impl Fn(usize) -> [u8; N] + Send + Sync + 'static) -> Piece {
    Piece::Converted(
        (rows * N) as u64,
        Box::new(move |offset, slab| each(offset, slab, &get)),
    )
}

fn mismatch(column: &DeviceColumn, shape: &ColumnShape) -> DeviceError {
    DeviceError::Internal(format!(
        "a column of {:?} does not lie as {:?}, which its profile promised",
        column.data_type, shape.storage
    ))
}

impl Image {
    /// How a column lies in memory of the shape's storage.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when the column is not what its profile promised; [`DeviceError::Unsupported`] when a string
    /// is too long for a handle.
    pub(crate) fn new(column: &DeviceColumn, shape: &ColumnShape) -> Result<Self, DeviceError> {
        let rows = column.rows;
        let mut image = Self {
            base: 0,
            values: None,
            validity: None,
            bytes: None,
        };
        if shape.storage == Storage::Null {
            return Ok(image);
        }
        if matches!(column.values, Values::Nulls) {
            image.nulls(rows, shape);
            return Ok(image);
        }
        if shape.nullable {
            image.validity = column.validity.as_ref().map(bits);
        }
        match (&column.values, shape.storage) {
            (Values::Integers { carrier, base }, Storage::Integer(elem)) => {
                let (base, values) = integers(column, carrier, *base, (elem, shape));
                image.base = base;
                image.values = Some(values);
            }
            (Values::Wide(values), Storage::Integer(_)) => {
                let values = values.clone();
                let elements = converted(rows, move |row| low_half(values[row]).to_le_bytes());
                image.values = Some(elements);
                if !matches!(shape.storage, Storage::Integer(Elem::I64)) {
                    return image.narrowed(column, shape);
                }
            }
            (Values::Integers { carrier, base }, Storage::Wide) => {
                let (carrier, base) = (carrier.clone(), i128::from(*base));
                image.values = Some(converted(rows, move |row| {
                    (base + i128::from(carrier.get(row))).to_le_bytes()
                }));
            }
            (Values::Wide(values), Storage::Wide) => image.values = Some(Piece::Raw(values.inner().clone())),
            (Values::Float32(values), Storage::Float32) => image.values = Some(Piece::Raw(values.inner().clone())),
            (Values::Float64(values), Storage::Float64) => image.values = Some(Piece::Raw(values.inner().clone())),
            (Values::Booleans(values), Storage::Bits) => image.values = Some(bits(values)),
            (Values::Codes { codes, .. }, Storage::Code(elem)) => image.values = Some(coded(codes, rows, elem)),
            (Values::Strings(strings), Storage::Offsets) => {
                let (offsets, bytes) = text(strings)?;
                image.values = Some(offsets);
                image.bytes = Some(bytes);
            }
            _ => return Err(mismatch(column, shape)),
        }
        Ok(image)
    }

    /// A segment without a value.
    fn nulls(&mut self, rows: usize, shape: &ColumnShape) {
        let rows = rows as u64;
        self.validity = Some(Piece::Zeros(rows.div_ceil(8)));
        self.values = Some(Piece::Zeros(match shape.storage {
            Storage::Integer(elem) | Storage::Code(elem) => rows * u64::from(elem.bytes()),
            Storage::Wide => rows * 16,
            Storage::Float32 => rows * 4,
            Storage::Float64 | Storage::Handles => rows * 8,
            Storage::Bits => rows.div_ceil(8),
            Storage::Bytes => rows,
            Storage::Offsets => (rows + 1) * 4,
            Storage::Null => 0,
        }));
        if shape.storage == Storage::Offsets {
            self.bytes = Some(Piece::Zeros(0));
        }
        // A value that the range allows stands where there is none.
        let (low, high) = shape.range.unwrap_or((0, 0));
        self.base = i64::try_from(low).unwrap_or(0);
        if shape.storage == Storage::Wide && !(low..=high).contains(&0) {
            self.values = Some(converted(place(rows), move |_| low.to_le_bytes()));
        }
    }

    /// 128-bit values whose range is narrow.
    fn narrowed(mut self, column: &DeviceColumn, shape: &ColumnShape) -> Result<Self, DeviceError> {
        let (Values::Wide(values), Storage::Integer(elem)) = (&column.values, shape.storage) else {
            return Err(mismatch(column, shape));
        };
        let narrow: ScalarBuffer<i64> = values.iter().map(|value| low_half(*value)).collect();
        let (base, values) = integers(column, &Carrier::I64(narrow), 0, (elem, shape));
        self.base = base;
        self.values = Some(values);
        Ok(self)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the caller knows the range")]
fn low_half(value: i128) -> i64 {
    value as i64
}

/// Bits from bit 0 of their first byte.
pub(crate) fn bits(bits: &BooleanBuffer) -> Piece {
    let bytes = bits.len().div_ceil(8);
    if bits.offset().is_multiple_of(8) {
        let buffer = bits.inner().slice_with_length(bits.offset() / 8, bytes);
        return Piece::Raw(buffer);
    }
    Piece::Raw(bits.sliced().slice_with_length(0, bytes))
}

fn width(carrier: &Carrier) -> u32 {
    match carrier {
        Carrier::I8(_) => 1,
        Carrier::I16(_) => 2,
        Carrier::I32(_) => 4,
        Carrier::I64(_) => 8,
    }
}

fn raw(carrier: &Carrier) -> Piece {
    Piece::Raw(match carrier {
        Carrier::I8(values) => values.inner().clone(),
        Carrier::I16(values) => values.inner().clone(),
        Carrier::I32(values) => values.inner().clone(),
        Carrier::I64(values) => values.inner().clone(),
    })
}

/// The base and the elements.
fn integers(column: &DeviceColumn, carrier: &Carrier, base: i64, (elem, shape): (Elem, &ColumnShape)) -> (i64, Piece) {
    if width(carrier) == elem.bytes() {
        return (base, raw(carrier));
    }
    if width(carrier) < elem.bytes() {
        return (base, widened(carrier.clone(), elem));
    }
    let (low, high) = bounds(column, carrier, base).unwrap_or_else(|| {
        // Of NULLs alone; they have a value that the range allows.
        let low = shape.range.and_then(|(low, _)| i64::try_from(low).ok()).unwrap_or(base);
        (low, low)
    });
    let middle = match elem {
        Elem::I8 => low.saturating_add(1 << 7),
        Elem::I16 => low.saturating_add(1 << 15),
        _ => low.saturating_add(1 << 31),
    };
    (middle, rebased(carrier.clone(), (low, high), base, middle, elem))
}

/// Bounds of the values that are not NULL; none where all are.
fn bounds(column: &DeviceColumn, carrier: &Carrier, base: i64) -> Option<(i64, i64)> {
    if let Some((low, high)) = column.zone.range
        && let (Ok(low), Ok(high)) = (i64::try_from(low), i64::try_from(high))
    {
        return Some((low, high));
    }
    let values = (0..column.rows)
        .filter(|row| !column.is_null(*row))
        .map(|row| base + carrier.get(row));
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

fn widened(carrier: Carrier, elem: Elem) -> Piece {
    let rows = carrier.len();
    macro_rules! widen {
        ($values:expr, $to:ty) => {{
            let values = $values;
            converted(rows, move |row| <$to>::from(values[row]).to_le_bytes())
        }};
    }
    match (carrier, elem) {
        (Carrier::I8(values), Elem::I16) => widen!(values, i16),
        (Carrier::I8(values), Elem::I32) => widen!(values, i32),
        (Carrier::I16(values), Elem::I32) => widen!(values, i32),
        (Carrier::I8(values), _) => widen!(values, i64),
        (Carrier::I16(values), _) => widen!(values, i64),
        (Carrier::I32(values), _) => widen!(values, i64),
        (Carrier::I64(values), _) => Piece::Raw(values.into_inner()),
    }
}

/// Values against another base; those of NULL rows may be out of the bounds, and are brought back.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is left fits the element, which was chosen from the range"
)]
fn rebased(carrier: Carrier, (low, high): (i64, i64), base: i64, middle: i64, elem: Elem) -> Piece {
    let rows = carrier.len();
    macro_rules! rebase {
        ($values:expr, $to:ty) => {{
            let values = $values;
            converted(rows, move |row| {
                let value = base.wrapping_add(i64::from(values[row])).clamp(low, high);
                (value.wrapping_sub(middle) as $to).to_le_bytes()
            })
        }};
    }
    macro_rules! rebase_to {
        ($values:expr) => {
            match elem {
                Elem::I8 => rebase!($values, i8),
                Elem::I16 => rebase!($values, i16),
                _ => rebase!($values, i32),
            }
        };
    }
    match carrier {
        Carrier::I8(values) => rebase_to!(values),
        Carrier::I16(values) => rebase_to!(values),
        Carrier::I32(values) => rebase_to!(values),
        Carrier::I64(values) => rebase_to!(values),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "codes fit the element, which was chosen from their number"
)]
fn coded(codes: &Codes, rows: usize, elem: Elem) -> Piece {
    match (codes, elem) {
        (Codes::U8(codes), Elem::U8) => Piece::Raw(codes.inner().slice_with_length(0, rows)),
        (Codes::U16(codes), Elem::U16) => Piece::Raw(codes.inner().slice_with_length(0, rows * 2)),
        (Codes::U32(codes), Elem::U32) => Piece::Raw(codes.inner().slice_with_length(0, rows * 4)),
        (codes, elem) => {
            let codes = Arc::new(codes.clone());
            match elem {
                Elem::U8 => converted(rows, move |row| (codes.get(row) as u8).to_le_bytes()),
                Elem::U16 => converted(rows, move |row| (codes.get(row) as u16).to_le_bytes()),
                _ => converted(rows, move |row| codes.get(row).to_le_bytes()),
            }
        }
    }
}

/// Offsets from 0, and the bytes that they mean.
fn text(strings: &Strings) -> Result<(Piece, Piece), DeviceError> {
    let (Some(first), Some(last)) = (strings.offsets.first().copied(), strings.offsets.last().copied()) else {
        return Ok((Piece::Zeros(4), Piece::Zeros(0)));
    };
    let longest = strings
        .offsets
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .max();
    if longest.unwrap_or(0) >= 1 << HANDLE_LENGTH_BITS {
        return Err(DeviceError::Unsupported("a string is longer than 16 MiB".to_owned()));
    }
    let bytes = strings.bytes.slice_with_length(first as usize, (last - first) as usize);
    let offsets = if first == 0 {
        Piece::Raw(strings.offsets.inner().clone())
    } else {
        let offsets = strings.offsets.clone();
        converted(offsets.len(), move |row| (offsets[row] - first).to_le_bytes())
    };
    Ok((offsets, Piece::Raw(bytes)))
}
