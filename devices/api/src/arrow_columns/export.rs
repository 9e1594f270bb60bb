//! Device columns to Arrow arrays of exactly their logical type's layout.

use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, NullArray, make_array, make_view};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, IntervalDayTime, IntervalMonthDayNano};

use crate::column::{Carrier, DeviceColumn, Strings, Values};
use crate::error::DeviceError;
use crate::types::{Interval, IntervalKind, TimeUnit, Type};

/// Strings up to so many bytes lie in the view itself.
const INLINE_BYTES: usize = 12;

impl DeviceColumn {
    /// Rows `start..start + rows` as an array of type [`Type::to_arrow`].
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when the rows are not there or the values can't be of the type,
    /// [`DeviceError::Unsupported`] when strings are too long together for their layout.
    pub fn to_arrow(&self, start: usize, rows: usize) -> Result<ArrayRef, DeviceError> {
        if start.checked_add(rows).is_none_or(|end| end > self.rows) {
            let text = format!("rows {start}..+{rows} of a column of {}", self.rows);
            return Err(DeviceError::Internal(text));
        }
        if self.data_type == Type::Null {
            return Ok(Arc::new(NullArray::new(rows)));
        }
        let nulls = match (&self.values, &self.validity) {
            (Values::Nulls, _) => Some(NullBuffer::new_null(rows)),
            (_, Some(valid)) => Some(NullBuffer::new(valid.slice(start, rows))),
            (_, None) => None,
        };
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        let buffers = match &self.values {
            Values::Integers { carrier, base } => vec![self.widened(carrier, *base, start, rows)?],
            Values::Wide(values) => vec![self.wide_natives(values, start, rows)?],
            Values::Float32(values) if self.data_type == Type::Float32 => vec![values.slice(start, rows).into_inner()],
            Values::Float64(values) if self.data_type == Type::Float64 => vec![values.slice(start, rows).into_inner()],
            Values::Booleans(bits) if self.data_type == Type::Boolean => vec![bits.slice(start, rows).sliced()],
            Values::Intervals(values) => vec![self.interval_natives(&values[start..start + rows])?],
            Values::Codes { codes, dictionary } if self.data_type.is_bytes() => {
                let place = |row: usize| codes.get(start + row) as usize;
                self.gathered(dictionary.values(), rows, nulls.as_ref(), place)?
            }
            Values::Strings(strings) if self.data_type.is_bytes() => {
                self.gathered(strings, rows, nulls.as_ref(), |row| start + row)?
            }
            Values::Nulls => return Ok(arrow::array::new_null_array(&self.data_type.to_arrow(), rows)),
            _ => return Err(self.mismatch()),
        };
        let data = ArrayData::builder(self.data_type.to_arrow())
            .len(rows)
            .nulls(nulls)
            .buffers(buffers);
        let data = data.build().map_err(|error| DeviceError::Internal(error.to_string()))?;
        Ok(make_array(data))
    }

    fn mismatch(&self) -> DeviceError {
        DeviceError::Internal(format!(
            "a column's values are not of its type {}",
            self.data_type.to_arrow()
        ))
    }

    fn widened(&self, carrier: &Carrier, base: i64, start: usize, rows: usize) -> Result<Buffer, DeviceError> {
        Ok(match carrier {
            Carrier::I8(values) if self.keeps(base, 1) => values.slice(start, rows).into_inner(),
            Carrier::I16(values) if self.keeps(base, 2) => values.slice(start, rows).into_inner(),
            Carrier::I32(values) if self.keeps(base, 4) => values.slice(start, rows).into_inner(),
            Carrier::I64(values) if self.keeps(base, 8) => values.slice(start, rows).into_inner(),
            Carrier::I8(values) => self.natives(values[start..start + rows].iter().map(|v| base + i64::from(*v)))?,
            Carrier::I16(values) => self.natives(values[start..start + rows].iter().map(|v| base + i64::from(*v)))?,
            Carrier::I32(values) => self.natives(values[start..start + rows].iter().map(|v| base + i64::from(*v)))?,
            Carrier::I64(values) => self.natives(values[start..start + rows].iter().map(|v| base + v))?,
        })
    }

    /// True when the carrier already is the layout.
    fn keeps(&self, base: i64, width_bytes: usize) -> bool {
        base == 0 && native_bytes(&self.data_type) == Some(width_bytes)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "values are of the type's range"
    )]
    fn natives(&self, values: impl Iterator<Item = i64>) -> Result<Buffer, DeviceError> {
        fn buffer<T: ArrowNativeType>(values: impl Iterator<Item = T>) -> Buffer {
            Buffer::from_vec(values.collect::<Vec<_>>())
        }
        Ok(match &self.data_type {
            Type::Decimal { .. } => buffer(values.map(i128::from)),
            Type::Int8 => buffer(values.map(|value| value as i8)),
            Type::UInt8 => buffer(values.map(|value| value as u8)),
            Type::Int16 => buffer(values.map(|value| value as i16)),
            Type::UInt16 => buffer(values.map(|value| value as u16)),
            Type::UInt32 => buffer(values.map(|value| value as u32)),
            other => match native_bytes(other) {
                Some(4) => buffer(values.map(|value| value as i32)),
                Some(8) => buffer(values),
                _ => return Err(self.mismatch()),
            },
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "values are of the type's range")]
    fn wide_natives(&self, values: &ScalarBuffer<i128>, start: usize, rows: usize) -> Result<Buffer, DeviceError> {
        match self.data_type {
            Type::Decimal { .. } => Ok(values.slice(start, rows).into_inner()),
            Type::UInt64 => {
                let taken = values[start..start + rows].iter();
                #[expect(clippy::cast_sign_loss, reason = "values are of the type's range")]
                Ok(Buffer::from_vec(taken.map(|value| *value as u64).collect::<Vec<_>>()))
            }
            _ => self.natives(values[start..start + rows].iter().map(|value| *value as i64)),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "values came from 32 bits of milliseconds"
    )]
    fn interval_natives(&self, values: &[Interval]) -> Result<Buffer, DeviceError> {
        let Type::Interval(kind) = self.data_type else {
            return Err(self.mismatch());
        };
        Ok(match kind {
            IntervalKind::YearMonth => Buffer::from_vec(values.iter().map(|value| value.months).collect::<Vec<_>>()),
            IntervalKind::DayTime => {
                let of = |value: &Interval| IntervalDayTime::new(value.days, (value.nanoseconds / 1_000_000) as i32);
                Buffer::from_vec(values.iter().map(of).collect::<Vec<_>>())
            }
            IntervalKind::MonthDayNano => {
                let of = |value: &Interval| IntervalMonthDayNano::new(value.months, value.days, value.nanoseconds);
                Buffer::from_vec(values.iter().map(of).collect::<Vec<_>>())
            }
        })
    }

    /// Buffers of the value at `place(row)` for each row; NULL rows are empty.
    fn gathered(
        &self,
        strings: &Strings,
        rows: usize,
        nulls: Option<&NullBuffer>,
        place: impl Fn(usize) -> usize,
    ) -> Result<Vec<Buffer>, DeviceError> {
        let ends = |row: usize| {
            let place = place(row);
            (strings.offsets[place] as usize, strings.offsets[place + 1] as usize)
        };
        let present = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
        let span = |row: usize| if present(row) { ends(row) } else { (0, 0) };
        if matches!(self.data_type, Type::Utf8View | Type::BinaryView) {
            return views(strings, rows, span);
        }
        let lengths = |row: usize| {
            let (from, to) = span(row);
            to - from
        };
        let total: usize = (0..rows).map(lengths).sum();
        let mut bytes: Vec<u8> = Vec::with_capacity(total);
        for row in 0..rows {
            let (from, to) = span(row);
            bytes.extend_from_slice(&strings.bytes[from..to]);
        }
        let mut end = 0_usize;
        let ends = std::iter::once(0).chain((0..rows).map(|row| {
            end += lengths(row);
            end
        }));
        let offsets = if matches!(self.data_type, Type::Utf8 | Type::Binary) {
            i32::try_from(total).map_err(|_| too_long(total))?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_possible_wrap,
                reason = "the last one fits"
            )]
            Buffer::from_vec(ends.map(|end| end as i32).collect::<Vec<_>>())
        } else {
            #[expect(clippy::cast_possible_wrap, reason = "lengths in memory")]
            Buffer::from_vec(ends.map(|end| end as i64).collect::<Vec<_>>())
        };
        Ok(vec![offsets, Buffer::from_vec(bytes)])
    }
}

fn too_long(bytes: usize) -> DeviceError {
    DeviceError::Unsupported(format!("{bytes} bytes of strings in one batch (at most 2 GiB)"))
}

/// Views share the column's bytes if they use most of them; else a copy, so that a small batch neither holds nor ships them.
#[expect(clippy::cast_possible_truncation, reason = "offsets are 32 bits")]
fn views(strings: &Strings, rows: usize, span: impl Fn(usize) -> (usize, usize)) -> Result<Vec<Buffer>, DeviceError> {
    let outside = |row: usize| {
        let (from, to) = span(row);
        if to - from > INLINE_BYTES { to - from } else { 0 }
    };
    let total: usize = (0..rows).map(outside).sum();
    let most = i32::MAX as usize;
    if total > 0 && total >= strings.bytes.len() / 2 && strings.bytes.len() <= most {
        let view = |row: usize| {
            let (from, to) = span(row);
            make_view(&strings.bytes[from..to], 0, from as u32)
        };
        let views: Vec<u128> = (0..rows).map(view).collect();
        return Ok(vec![Buffer::from_vec(views), strings.bytes.clone()]);
    }
    if total > most {
        return Err(too_long(total));
    }
    let mut bytes: Vec<u8> = Vec::with_capacity(total);
    let mut views = Vec::with_capacity(rows);
    for row in 0..rows {
        let (from, to) = span(row);
        let value = &strings.bytes[from..to];
        views.push(make_view(value, 0, bytes.len() as u32));
        if value.len() > INLINE_BYTES {
            bytes.extend_from_slice(value);
        }
    }
    let mut buffers = vec![Buffer::from_vec(views)];
    if !bytes.is_empty() {
        buffers.push(Buffer::from_vec(bytes));
    }
    Ok(buffers)
}

/// Bytes of a value in Arrow's layout of an integral type.
fn native_bytes(data_type: &Type) -> Option<usize> {
    Some(match data_type {
        Type::Int8 | Type::UInt8 => 1,
        Type::Int16 | Type::UInt16 => 2,
        Type::Int32 | Type::UInt32 | Type::Date32 | Type::Time(TimeUnit::Second | TimeUnit::Millisecond) => 4,
        Type::Int64 | Type::UInt64 | Type::Time(_) | Type::Timestamp { .. } => 8,
        Type::Decimal { .. } => 16,
        _ => return None,
    })
}
