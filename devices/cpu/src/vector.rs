//! One column of a tile: up to [`TILE_ROWS`] values in the lanes that hold them, borrowed from a segment where possible.
//!
//! Integral types travel in the narrowest lane that their *range* needs, not in the width of their SQL type: a DECIMAL(15, 2)
//! whose values fit 32 bits is an `I32` here. The value is exact in every lane; a consumer accepts any lane and widens.
//!
//! A NULL row's value is unspecified but initialised (codes: in range of a dictionary that isn't empty).

use std::borrow::Cow;
use std::sync::Arc;

use trireme_device_api::{Dictionary, Interval, Strings, Type, Value};

use crate::isa::Isa;
use crate::number::{Number, by_lane, map_values, zip};

/// Rows of a tile: what one step of a typical pipeline reads and writes stays in the first-level cache, and what all its steps do
/// in the second. With half as many, TPC-H Q1 spends a quarter more time, on what is done once per tile.
pub(crate) const TILE_ROWS: usize = 4096;

/// Lanes of integral values, narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    I8,
    I16,
    I32,
    I64,
    I128,
}

impl Lane {
    /// The narrowest lane that holds all values from `low` to `high`.
    pub(crate) fn of_range(low: i128, high: i128) -> Self {
        let fits = |least: i64, most: i64| low >= i128::from(least) && high <= i128::from(most);
        if fits(i8::MIN.into(), i8::MAX.into()) {
            Lane::I8
        } else if fits(i16::MIN.into(), i16::MAX.into()) {
            Lane::I16
        } else if fits(i32::MIN.into(), i32::MAX.into()) {
            Lane::I32
        } else if fits(i64::MIN, i64::MAX) {
            Lane::I64
        } else {
            Lane::I128
        }
    }

    /// The smallest and largest value.
    pub(crate) fn range(self) -> (i128, i128) {
        match self {
            Lane::I8 => (i8::MIN.into(), i8::MAX.into()),
            Lane::I16 => (i16::MIN.into(), i16::MAX.into()),
            Lane::I32 => (i32::MIN.into(), i32::MAX.into()),
            Lane::I64 => (i64::MIN.into(), i64::MAX.into()),
            Lane::I128 => (i128::MIN, i128::MAX),
        }
    }
}

/// Values of a vector.
#[derive(Debug, Clone)]
pub(crate) enum Data<'a> {
    /// 0 or 1.
    Bool(Cow<'a, [u8]>),
    I8(Cow<'a, [i8]>),
    I16(Cow<'a, [i16]>),
    I32(Cow<'a, [i32]>),
    I64(Cow<'a, [i64]>),
    I128(Cow<'a, [i128]>),
    F32(Cow<'a, [f32]>),
    F64(Cow<'a, [f64]>),
    /// Strings as codes.
    Codes(Cow<'a, [u32]>, Arc<Dictionary>),
    /// Strings and binary, borrowed.
    Bytes(Vec<&'a [u8]>),
    /// Strings and binary that an expression made.
    Strings(Strings),
    Interval(Vec<Interval>),
    /// All NULL, so many rows.
    Null(usize),
}

/// One column of a tile.
#[derive(Debug, Clone)]
pub(crate) struct Vector<'a> {
    pub(crate) data: Data<'a>,
    /// 1 where there is a value, 0 where there is NULL; none when no row is NULL ([`Data::Null`] needs none).
    pub(crate) valid: Option<Cow<'a, [u8]>>,
}

/// What is known of a column (or of an expression's value) before any tile is seen: the same for all tiles of a fragment.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) data_type: Type,
    /// Bounds of an integral value; vectors of this shape use exactly the lane `Lane::of_range(range)`.
    pub(crate) range: Option<(i128, i128)>,
    pub(crate) nullable: bool,
    /// Vectors of this shape are [`Data::Codes`] of this dictionary; without one strings are [`Data::Bytes`] or
    /// [`Data::Strings`].
    pub(crate) dictionary: Option<Arc<Dictionary>>,
    /// Distinct values, when known.
    pub(crate) distinct: Option<usize>,
}

impl Shape {
    /// A shape without dictionary, whose integral range is the type's own.
    pub(crate) fn of_type(data_type: Type, nullable: bool) -> Self {
        let range = data_type.value_range();
        Self {
            data_type,
            range,
            nullable,
            dictionary: None,
            distinct: None,
        }
    }

    /// The lane of an integral shape.
    pub(crate) fn lane(&self) -> Option<Lane> {
        self.range.map(|(low, high)| Lane::of_range(low, high))
    }
}

impl Data<'_> {
    /// Rows.
    pub(crate) fn len(&self) -> usize {
        match self {
            Data::Bool(values) => values.len(),
            Data::I8(values) => values.len(),
            Data::I16(values) => values.len(),
            Data::I32(values) => values.len(),
            Data::I64(values) => values.len(),
            Data::I128(values) => values.len(),
            Data::F32(values) => values.len(),
            Data::F64(values) => values.len(),
            Data::Codes(codes, _) => codes.len(),
            Data::Bytes(values) => values.len(),
            Data::Strings(values) => values.len(),
            Data::Interval(values) => values.len(),
            Data::Null(rows) => *rows,
        }
    }
}

impl<'a> Vector<'a> {
    /// Values without NULLs.
    pub(crate) fn new(data: Data<'a>) -> Self {
        Self { data, valid: None }
    }

    /// Numbers without NULLs.
    pub(crate) fn of<T: Number>(values: Vec<T>) -> Self {
        Self::new(T::data(Cow::Owned(values)))
    }

    /// The same values with this validity.
    pub(crate) fn with_valid(mut self, valid: Option<Cow<'a, [u8]>>) -> Self {
        self.valid = valid;
        self
    }

    /// NULL in all rows, as vectors of this shape are.
    pub(crate) fn nulls(shape: &Shape, rows: usize) -> Self {
        let data = match &shape.data_type {
            Type::Null => return Self::new(Data::Null(rows)),
            Type::Boolean => Data::Bool(vec![0; rows].into()),
            Type::Float32 => Data::F32(vec![0.0; rows].into()),
            Type::Float64 => Data::F64(vec![0.0; rows].into()),
            Type::Interval(_) => Data::Interval(vec![Interval::default(); rows]),
            _ => match (shape.lane(), &shape.dictionary) {
                (Some(lane), _) => by_lane!(lane, T => T::data(vec![0; rows].into())),
                (None, Some(dictionary)) => Data::Codes(vec![0; rows].into(), Arc::clone(dictionary)),
                (None, None) => Data::Bytes(vec![&[]; rows]),
            },
        };
        Self::new(data).with_valid(Some(vec![0; rows].into()))
    }

    /// The same vector, borrowed.
    pub(crate) fn borrowed(&self) -> Vector<'_> {
        let data = match &self.data {
            Data::Bool(values) => Data::Bool(Cow::Borrowed(values)),
            Data::I8(values) => Data::I8(Cow::Borrowed(values)),
            Data::I16(values) => Data::I16(Cow::Borrowed(values)),
            Data::I32(values) => Data::I32(Cow::Borrowed(values)),
            Data::I64(values) => Data::I64(Cow::Borrowed(values)),
            Data::I128(values) => Data::I128(Cow::Borrowed(values)),
            Data::F32(values) => Data::F32(Cow::Borrowed(values)),
            Data::F64(values) => Data::F64(Cow::Borrowed(values)),
            Data::Codes(codes, dictionary) => Data::Codes(Cow::Borrowed(codes), Arc::clone(dictionary)),
            Data::Bytes(values) => Data::Bytes(values.clone()),
            Data::Strings(values) => Data::Strings(values.clone()),
            Data::Interval(values) => Data::Interval(values.clone()),
            Data::Null(rows) => Data::Null(*rows),
        };
        Vector {
            data,
            valid: self.valid.as_deref().map(Cow::Borrowed),
        }
    }

    /// Rows.
    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// True when the row is NULL.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        matches!(self.data, Data::Null(_)) || self.valid.as_ref().is_some_and(|valid| valid[row] == 0)
    }

    /// True when some row is NULL.
    pub(crate) fn has_nulls(&self) -> bool {
        match &self.data {
            Data::Null(rows) => *rows > 0,
            _ => self.valid.as_ref().is_some_and(|valid| valid.contains(&0)),
        }
    }

    /// The rows at these positions, which may repeat.
    pub(crate) fn take(&self, rows: &[u32]) -> Vector<'a> {
        fn pick<T: Copy + Default>(values: &[T], rows: &[u32]) -> Vec<T> {
            map_values(rows, |row| values.get(row as usize).copied().unwrap_or_default())
        }
        let data = match &self.data {
            Data::Bool(values) => Data::Bool(pick(values, rows).into()),
            Data::I8(values) => Data::I8(pick(values, rows).into()),
            Data::I16(values) => Data::I16(pick(values, rows).into()),
            Data::I32(values) => Data::I32(pick(values, rows).into()),
            Data::I64(values) => Data::I64(pick(values, rows).into()),
            Data::I128(values) => Data::I128(pick(values, rows).into()),
            Data::F32(values) => Data::F32(pick(values, rows).into()),
            Data::F64(values) => Data::F64(pick(values, rows).into()),
            Data::Codes(codes, dictionary) => Data::Codes(pick(codes, rows).into(), Arc::clone(dictionary)),
            Data::Bytes(values) => Data::Bytes(pick(values, rows)),
            Data::Strings(values) => {
                Data::Strings(Strings::from_values(rows.iter().map(|row| values.get(*row as usize))))
            }
            Data::Interval(values) => Data::Interval(pick(values, rows)),
            Data::Null(_) => Data::Null(rows.len()),
        };
        let valid = self.valid.as_ref().map(|valid| pick(valid, rows).into());
        Vector { data, valid }
    }

    /// Integral values in a lane that is at least as wide as their range; none when they aren't integral.
    pub(crate) fn integers<T: Number>(&self, isa: Isa) -> Option<Cow<'_, [T]>> {
        match T::slice(&self.data) {
            Some(values) => Some(Cow::Borrowed(values)),
            None => T::converted(&self.data, isa).map(Cow::Owned),
        }
    }

    /// Integral values as 64-bit integers; none when they aren't integral or in the widest lane.
    pub(crate) fn to_i64(&self, isa: Isa) -> Option<Cow<'_, [i64]>> {
        if matches!(self.data, Data::I128(_)) {
            None
        } else {
            self.integers(isa)
        }
    }

    /// Integral values as 128-bit integers; none when they aren't integral.
    pub(crate) fn to_i128(&self, isa: Isa) -> Option<Cow<'_, [i128]>> {
        self.integers(isa)
    }

    /// The same values in this lane, which must hold them; values that aren't integral stay as they are.
    pub(crate) fn into_lane(self, lane: Lane, isa: Isa) -> Vector<'a> {
        let data = by_lane!(lane, T => match T::take(self.data) {
            Ok(values) => T::data(values),
            Err(other) => match T::converted(&other, isa) {
                Some(values) => T::data(values.into()),
                None => other,
            },
        });
        Vector {
            data,
            valid: self.valid,
        }
    }

    /// The bytes of a string; empty for other values.
    pub(crate) fn bytes_at(&self, row: usize) -> &[u8] {
        match &self.data {
            Data::Codes(codes, dictionary) if !dictionary.is_empty() => dictionary.get(codes[row]),
            Data::Bytes(values) => values[row],
            Data::Strings(values) => values.get(row),
            _ => &[],
        }
    }

    /// One row.
    pub(crate) fn value(&self, row: usize) -> Value {
        if self.is_null(row) {
            return Value::Null;
        }
        match &self.data {
            Data::Bool(values) => Value::Boolean(values[row] != 0),
            Data::I8(values) => Value::Int(values[row].into()),
            Data::I16(values) => Value::Int(values[row].into()),
            Data::I32(values) => Value::Int(values[row].into()),
            Data::I64(values) => Value::Int(values[row].into()),
            Data::I128(values) => Value::Int(values[row]),
            Data::F32(values) => Value::Float(values[row].into()),
            Data::F64(values) => Value::Float(values[row]),
            Data::Codes(..) | Data::Bytes(_) | Data::Strings(_) => Value::Bytes(self.bytes_at(row).into()),
            Data::Interval(values) => Value::Interval(values[row]),
            Data::Null(_) => Value::Null,
        }
    }
}

/// 1 where both have a value.
pub(crate) fn both_valid<'a>(a: Option<Cow<'a, [u8]>>, b: Option<Cow<'a, [u8]>>, isa: Isa) -> Option<Cow<'a, [u8]>> {
    match (a, b) {
        (None, other) | (other, None) => other,
        (Some(a), Some(b)) => Some(Cow::Owned(zip(isa, &a, &b, |a: u8, b: u8| a & b))),
    }
}
