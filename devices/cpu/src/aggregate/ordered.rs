//! FIRST and LAST as MIN and MAX: of each row a number (or byte string) whose high end is its place in the order and whose
//! low end is the value, NULL included. The smallest of a group is its first row, and brings the value along.
//!
//! ```text
//!  number:  │ packed sort key │ code of the value │ NULL? │          up to 63 or 126 bits
//!  bytes:   │ sort key, escaped │ value │ NULL? │ length of the value, 4 bytes │
//! ```
//!
//! So groups, merging, memory and FILTER are those of MIN and MAX. Among rows that tie in the order any one may be chosen;
//! here it is the one with the smallest (largest) code.

use trireme_device_api::{
    Aggregate, AggregateFunction, DeviceColumn, DeviceError, Expr, Interval, Strings, Type, Values,
};

use crate::aggregate::column::{Whole, booleans, coded, floats, integers, intervals, nulls, strings};
use crate::aggregate::primitive::bounds;
use crate::sort::{KeyOrder, Packed, Plan};
use crate::vector::{Data, Shape, Vector};

/// Bits that a number may have: it is an integer or a decimal without sign.
const WORD_BITS: u32 = 63;
const WIDE_BITS: u32 = 126;

/// One FIRST or LAST.
pub(crate) struct Ordered {
    plan: Plan,
    value: Shape,
    form: Form,
    last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Word,
    Wide,
    Bytes,
}

impl Ordered {
    /// Of values of a shape, ordered by keys.
    pub(crate) fn new(orders: &[KeyOrder], value: &Shape, last: bool) -> Self {
        let plan = Plan::new(orders);
        let bits = plan.bits().zip(value_bits(value)).map(|(key, value)| key + value);
        Self {
            form: match bits {
                Some(0..=WORD_BITS) => Form::Word,
                Some(..=WIDE_BITS) => Form::Wide,
                _ => Form::Bytes,
            },
            plan,
            value: value.clone(),
            last,
        }
    }

    /// The aggregate to compute instead, whose argument is [`Ordered::argument`], and that argument's shape. `index` tells
    /// it from the fragment's other aggregates.
    pub(crate) fn aggregate(&self, aggregate: &Aggregate, index: usize) -> (Aggregate, Shape) {
        let (data_type, range) = match self.form {
            Form::Word => (Type::Int64, Some((0, i64::MAX.into()))),
            Form::Wide => (
                Type::Decimal {
                    precision: 38,
                    scale: 0,
                },
                Some((0, (1 << WIDE_BITS) - 1)),
            ),
            Form::Bytes => (Type::Binary, None),
        };
        let function = if self.last {
            AggregateFunction::Max
        } else {
            AggregateFunction::Min
        };
        let instead = Aggregate {
            function,
            argument: Some(Expr::column(usize::MAX - index, data_type.clone())),
            distinct: false,
            filter: aggregate.filter.clone(),
            order: Vec::new(),
            data_type: data_type.clone(),
        };
        let shape = Shape {
            range,
            ..Shape::of_type(data_type, false)
        };
        (instead, shape)
    }

    /// Keys and values of rows in one.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when vectors are not of their shapes.
    pub(crate) fn argument(
        &self,
        keys: &[Vector<'_>],
        value: &Vector<'_>,
        rows: usize,
    ) -> Result<Vector<'static>, DeviceError> {
        Ok(Vector::new(match self.form {
            Form::Word => {
                let words = self.packed::<u64>(keys, value, rows)?;
                Data::I64(words.into_iter().map(u64::cast_signed).collect())
            }
            Form::Wide => {
                let words = self.packed::<u128>(keys, value, rows)?;
                Data::I128(words.into_iter().map(u128::cast_signed).collect())
            }
            Form::Bytes => {
                let (mut offsets, mut bytes) = (vec![0_u32], Vec::new());
                self.plan.encode_each(keys, 0..rows as u32, |row, key| {
                    bytes.extend_from_slice(key);
                    let start = bytes.len();
                    append(&mut bytes, value, row as usize);
                    let length = (bytes.len() - start) as u32;
                    bytes.extend_from_slice(&length.to_le_bytes());
                    offsets.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                })?;
                let strings = Strings {
                    offsets: offsets.into(),
                    bytes: bytes.into(),
                };
                Data::Strings(strings.addressed()?)
            }
        }))
    }

    fn packed<K: Packed>(&self, keys: &[Vector<'_>], value: &Vector<'_>, rows: usize) -> Result<Vec<K>, DeviceError> {
        let mut packed: Vec<K> = Vec::new();
        self.plan.pack(keys, rows, &mut packed)?;
        let low = K::of(bounds(&self.value).0);
        macro_rules! codes {
            ($values:expr, $code:expr) => {
                self.place(&mut packed, $values.iter().map($code), value)
            };
        }
        match &value.data {
            Data::Null(rows) => self.place(&mut packed, (0..*rows).map(|_| K::default()), value),
            Data::Bool(values) => codes!(values, |value| K::of((*value).into())),
            Data::I8(values) => codes!(values, |value| K::of((*value).into()).minus(low)),
            Data::I16(values) => codes!(values, |value| K::of((*value).into()).minus(low)),
            Data::I32(values) => codes!(values, |value| K::of((*value).into()).minus(low)),
            Data::I64(values) => codes!(values, |value| K::of((*value).into()).minus(low)),
            Data::I128(values) => codes!(values, |value| K::of(*value).minus(low)),
            Data::F32(values) => codes!(values, |value| K::of_code(value.to_bits().into())),
            Data::F64(values) => codes!(values, |value| K::of_code(value.to_bits().into())),
            Data::Codes(values, _) => codes!(values, |value| K::of_code((*value).into())),
            Data::Bytes(_) | Data::Strings(_) | Data::Interval(_) => return Err(misplaced()),
        }
        Ok(packed)
    }

    /// Puts values' codes below their keys.
    fn place<K: Packed>(&self, keys: &mut [K], codes: impl Iterator<Item = K>, value: &Vector<'_>) {
        let bits = value_bits(&self.value).unwrap_or(0);
        if !is_nullable(&self.value) {
            for (key, code) in keys.iter_mut().zip(codes) {
                *key = key.then(bits, code);
            }
            return;
        }
        for (row, (key, code)) in keys.iter_mut().zip(codes).enumerate() {
            let code = if value.is_null(row) {
                K::default()
            } else {
                code.then(1, K::of(1))
            };
            *key = key.then(bits, code);
        }
    }

    /// The values, of the aggregate's results.
    ///
    /// # Errors
    /// Unsupported from 4 GiB of strings on.
    pub(crate) fn values(&self, results: &DeviceColumn) -> Result<DeviceColumn, DeviceError> {
        let data_type = &self.value.data_type;
        if matches!(results.values, Values::Nulls) || *data_type == Type::Null {
            return Ok(nulls(data_type, results.rows));
        }
        let present = (0..results.rows).map(|row| !results.is_null(row));
        if let Values::Strings(found) = &results.values {
            let values: Vec<Option<&[u8]>> = present
                .enumerate()
                .map(|(row, present)| present.then(|| value_of(found.get(row))).flatten())
                .collect();
            return self.of_bytes(&values);
        }
        let bits = value_bits(&self.value).unwrap_or(0);
        let mask = (1_u128 << bits) - 1;
        let mut valid = Vec::with_capacity(results.rows);
        let mut codes = Vec::with_capacity(results.rows);
        for (row, present) in present.enumerate() {
            let word = match &results.values {
                Values::Integers { carrier, base } => u128::from((carrier.get(row) + base).cast_unsigned()),
                Values::Wide(values) => values[row].cast_unsigned(),
                _ => return Err(misplaced()),
            };
            let code = word & mask;
            let nullable = is_nullable(&self.value);
            valid.push(present && (!nullable || code & 1 == 1));
            codes.push(if nullable { code >> 1 } else { code });
        }
        self.of_codes(codes, valid)
    }

    fn of_codes(&self, codes: Vec<u128>, valid: Vec<bool>) -> Result<DeviceColumn, DeviceError> {
        let data_type = &self.value.data_type;
        Ok(match (data_type, &self.value.dictionary) {
            (_, Some(dictionary)) => {
                let code = |(code, valid): (u128, &bool)| if *valid { code as u32 } else { 0 };
                let codes = codes.into_iter().zip(&valid).map(code).collect();
                coded(data_type, dictionary, codes, Some(valid))
            }
            (Type::Boolean, _) => booleans(data_type, codes.iter().map(|code| *code == 1).collect(), Some(valid)),
            (Type::Float32, _) => {
                let value = |code: &u128| f32::from_bits(*code as u32).into();
                floats(data_type, codes.iter().map(value).collect(), Some(valid))
            }
            (Type::Float64, _) => {
                let value = |code: &u128| f64::from_bits(*code as u64);
                floats(data_type, codes.iter().map(value).collect(), Some(valid))
            }
            _ => {
                let low = bounds(&self.value).0;
                let values = codes.into_iter().map(|code| low.wrapping_add(code.cast_signed()));
                integers(data_type, Whole::Wide(values.collect()), Some(valid), "first or last")?
            }
        })
    }

    fn of_bytes(&self, values: &[Option<&[u8]>]) -> Result<DeviceColumn, DeviceError> {
        let shape = &self.value;
        if shape.data_type.is_bytes() && shape.dictionary.is_none() {
            return strings(&shape.data_type, values);
        }
        let word = |value: &Option<&[u8]>| {
            let mut word = [0; 16];
            let value = value.unwrap_or_default();
            let length = value.len().min(16);
            word[..length].copy_from_slice(&value[..length]);
            u128::from_le_bytes(word)
        };
        let valid: Vec<bool> = values.iter().map(Option::is_some).collect();
        if let Type::Interval(_) = shape.data_type {
            let value = |word: u128| Interval {
                months: word as i32,
                days: (word >> 32) as i32,
                nanoseconds: (word >> 64) as i64,
            };
            let values = values.iter().map(|bytes| value(word(bytes))).collect();
            return Ok(intervals(&shape.data_type, values, Some(valid)));
        }
        if shape.data_type.is_integral() {
            let values = values.iter().map(|bytes| word(bytes).cast_signed()).collect();
            return integers(&shape.data_type, Whole::Wide(values), Some(valid), "first or last");
        }
        self.of_codes(values.iter().map(word).collect(), valid)
    }
}

fn is_nullable(shape: &Shape) -> bool {
    shape.nullable || shape.data_type == Type::Null
}

/// Bits of a value's code, whether it is NULL included; none when it has no code.
fn value_bits(shape: &Shape) -> Option<u32> {
    let bits = match &shape.data_type {
        Type::Null => 0,
        Type::Float32 => 32,
        Type::Float64 => 64,
        Type::Interval(_) => return None,
        other if other.is_bytes() && shape.dictionary.is_none() => return None,
        _ => {
            let (low, high) = bounds(shape);
            u128::BITS - high.wrapping_sub(low).cast_unsigned().leading_zeros()
        }
    };
    Some(bits + u32::from(is_nullable(shape)))
}

/// Appends a row's value, and whether it is one.
fn append(bytes: &mut Vec<u8>, vector: &Vector<'_>, row: usize) {
    if !vector.is_null(row) {
        match &vector.data {
            Data::Bool(values) => bytes.push(values[row]),
            Data::I8(values) => bytes.extend(i128::from(values[row]).to_le_bytes()),
            Data::I16(values) => bytes.extend(i128::from(values[row]).to_le_bytes()),
            Data::I32(values) => bytes.extend(i128::from(values[row]).to_le_bytes()),
            Data::I64(values) => bytes.extend(i128::from(values[row]).to_le_bytes()),
            Data::I128(values) => bytes.extend(values[row].to_le_bytes()),
            Data::F32(values) => bytes.extend(values[row].to_bits().to_le_bytes()),
            Data::F64(values) => bytes.extend(values[row].to_bits().to_le_bytes()),
            Data::Codes(codes, _) => bytes.extend(codes[row].to_le_bytes()),
            Data::Bytes(_) | Data::Strings(_) => bytes.extend_from_slice(vector.bytes_at(row)),
            Data::Interval(values) => {
                let value = values[row];
                bytes.extend(value.months.to_le_bytes());
                bytes.extend(value.days.to_le_bytes());
                bytes.extend(value.nanoseconds.to_le_bytes());
            }
            Data::Null(_) => {}
        }
    }
    bytes.push(u8::from(!vector.is_null(row)));
}

/// The value at the end of a composed byte string; none for NULL.
fn value_of(composed: &[u8]) -> Option<&[u8]> {
    let (rest, length) = composed.split_last_chunk::<4>()?;
    let from = rest.len().checked_sub(u32::from_le_bytes(*length) as usize)?;
    match rest[from..].split_last()? {
        (1, value) => Some(value),
        _ => None,
    }
}

fn misplaced() -> DeviceError {
    DeviceError::Internal("the value of a first or last is not of its shape".to_owned())
}
