//! Makes a device column from vectors: what sinks keep their rows in.
//!
//! A builder belongs to one worker and takes vectors of one [`Shape`] in the lanes they come in; [`concat`] puts the
//! builders of all workers one after another into one column. Rows of a column are named by `u32` positions, so a column
//! of [`MAX_ROWS`] rows or more is refused. Memory is the caller's to reserve: [`ColumnBuilder::growth_bytes`] says how much
//! a push will take.

use std::ops::Range;
use std::sync::Arc;

use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use trireme_device_api::{Carrier, Codes, DeviceColumn, DeviceError, Interval, Strings, Type, Values, ZoneMap};

use crate::vector::{Data, Lane, Shape, Vector};

/// One more row than a column may have: the last position means "no row".
pub(crate) const MAX_ROWS: usize = u32::MAX as usize;

/// Grows by vectors of one shape into a column.
#[derive(Debug)]
pub(crate) struct ColumnBuilder {
    shape: Shape,
    rows: usize,
    store: Store,
    /// A byte per row, from the first NULL on; until then all rows have values.
    valid: Option<Vec<u8>>,
}

/// Values, in the lane of the shape's range.
#[derive(Debug)]
enum Store {
    Bool(Vec<u8>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    I128(Vec<i128>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Codes8(Vec<u8>),
    Codes16(Vec<u16>),
    Codes32(Vec<u32>),
    /// Ends of values, and all values.
    Bytes(Vec<u32>, Vec<u8>),
    Interval(Vec<Interval>),
    Null,
}

/// Runs an expression for whichever plain vector of values the store is; `$none` for bytes and nulls.
macro_rules! each_store {
    ($store:expr, |$values:ident| $body:expr, else $none:expr) => {
        match $store {
            Store::Bool($values) | Store::Codes8($values) => $body,
            Store::I8($values) => $body,
            Store::I16($values) => $body,
            Store::I32($values) => $body,
            Store::I64($values) => $body,
            Store::I128($values) => $body,
            Store::F32($values) => $body,
            Store::F64($values) => $body,
            Store::Codes16($values) => $body,
            Store::Codes32($values) => $body,
            Store::Interval($values) => $body,
            Store::Bytes(..) | Store::Null => $none,
        }
    };
}

impl Store {
    fn new(shape: &Shape) -> Self {
        if let Some(dictionary) = &shape.dictionary {
            return match dictionary.len() {
                0..=0x100 => Store::Codes8(Vec::new()),
                0x101..=0x1_0000 => Store::Codes16(Vec::new()),
                _ => Store::Codes32(Vec::new()),
            };
        }
        match &shape.data_type {
            Type::Null => Store::Null,
            Type::Boolean => Store::Bool(Vec::new()),
            Type::Float32 => Store::F32(Vec::new()),
            Type::Float64 => Store::F64(Vec::new()),
            Type::Interval(_) => Store::Interval(Vec::new()),
            other if other.is_bytes() => Store::Bytes(Vec::new(), Vec::new()),
            other => {
                let (low, high) = shape.range.or_else(|| other.value_range()).unwrap_or((0, 0));
                match Lane::of_range(low, high) {
                    Lane::I8 => Store::I8(Vec::new()),
                    Lane::I16 => Store::I16(Vec::new()),
                    Lane::I32 => Store::I32(Vec::new()),
                    Lane::I64 => Store::I64(Vec::new()),
                    Lane::I128 => Store::I128(Vec::new()),
                }
            }
        }
    }
}

/// Bytes by which `vector` must grow to take `more` values.
fn growth<T>(vector: &Vec<T>, more: usize) -> usize {
    let needed = vector.len() + more;
    if needed <= vector.capacity() {
        return 0;
    }
    (needed.max(vector.capacity() * 2) - vector.capacity()) * size_of::<T>()
}

/// Grows as [`growth`] said.
fn make_room<T>(vector: &mut Vec<T>, more: usize) {
    let needed = vector.len() + more;
    if needed > vector.capacity() {
        vector.reserve_exact(needed.max(vector.capacity() * 2) - vector.len());
    }
}

impl ColumnBuilder {
    /// Of vectors of this shape.
    pub(crate) fn new(shape: &Shape) -> Self {
        Self {
            shape: shape.clone(),
            rows: 0,
            store: Store::new(shape),
            valid: None,
        }
    }

    /// Rows pushed.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Memory that its rows take, without what it holds in advance.
    pub(crate) fn used_bytes(&self) -> usize {
        let values = match &self.store {
            Store::Bytes(ends, bytes) => (ends.len() + 1) * size_of::<u32>() + bytes.len(),
            store => each_store!(store, |values| size_of_val(values.as_slice()), else 0),
        };
        values + self.valid.as_ref().map_or(0, Vec::len)
    }

    /// Memory that pushing `rows` rows of `vector` (or as many NULLs, without one) will take in addition.
    pub(crate) fn growth_bytes(&self, vector: Option<&Vector<'_>>, rows: usize) -> usize {
        let values = match &self.store {
            Store::Bytes(ends, bytes) => {
                let length = match vector.map(|vector| &vector.data) {
                    Some(Data::Bytes(values)) => values.iter().map(|value| value.len()).sum(),
                    Some(Data::Strings(values)) => values.bytes.len(),
                    _ => 0,
                };
                growth(ends, rows) + growth(bytes, length)
            }
            store => each_store!(store, |values| growth(values, rows), else 0),
        };
        let nulls = vector.is_none_or(|vector| vector.valid.is_some() || matches!(vector.data, Data::Null(_)));
        values
            + match &self.valid {
                Some(valid) => growth(valid, rows),
                None if nulls => self.rows + rows,
                None => 0,
            }
    }

    /// Appends a vector of the builder's shape.
    ///
    /// # Errors
    /// Unsupported when the column becomes too long (rows, or 4 GiB of strings); internal when the vector has another shape.
    pub(crate) fn push(&mut self, vector: &Vector<'_>) -> Result<(), DeviceError> {
        let rows = vector.len();
        if matches!(vector.data, Data::Null(_)) {
            return self.push_null(rows);
        }
        self.check_rows(rows)?;
        self.push_values(vector, rows)?;
        match (&mut self.valid, vector.valid.as_deref()) {
            (None, None) => {}
            (Some(valid), None) => {
                make_room(valid, rows);
                valid.resize(self.rows + rows, 1);
            }
            (valid, Some(bytes)) => {
                let valid = valid.get_or_insert_with(|| vec![1; self.rows]);
                make_room(valid, rows);
                valid.extend_from_slice(&bytes[..rows]);
            }
        }
        self.rows += rows;
        Ok(())
    }

    /// Appends NULLs.
    ///
    /// # Errors
    /// Unsupported when the column becomes too long.
    pub(crate) fn push_null(&mut self, rows: usize) -> Result<(), DeviceError> {
        self.check_rows(rows)?;
        let after = self.rows + rows;
        match &mut self.store {
            Store::Bytes(ends, _) => {
                let end = ends.last().copied().unwrap_or(0);
                make_room(ends, rows);
                ends.resize(after, end);
            }
            store => each_store!(store, |values| {
                make_room(values, rows);
                values.resize(after, Default::default());
            }, else ()),
        }
        let valid = self.valid.get_or_insert_with(|| vec![1; self.rows]);
        make_room(valid, rows);
        valid.resize(after, 0);
        self.rows = after;
        Ok(())
    }

    /// The column, with the range and NULL count of its values.
    pub(crate) fn finish(self) -> DeviceColumn {
        let zone = ZoneMap {
            range: self.range(),
            null_count: match (&self.store, &self.valid) {
                (Store::Null, _) => self.rows,
                (_, Some(valid)) => valid.iter().filter(|byte| **byte == 0).count(),
                (_, None) => 0,
            },
            sorted: false,
            run_length: 1.0,
        };
        let no_values = zone.null_count == self.rows && self.rows > 0 && self.shape.dictionary.is_none();
        let values = if no_values {
            Values::Nulls
        } else {
            self.store.into_values(&self.shape)
        };
        let validity = match self.valid {
            Some(valid) if zone.null_count > 0 && !no_values => Some(pack_bits(&valid)),
            _ => None,
        };
        DeviceColumn {
            data_type: self.shape.data_type,
            rows: self.rows,
            values,
            validity,
            zone,
        }
    }

    /// Rows `start..end` as a vector.
    pub(crate) fn view(&self, start: usize, end: usize) -> Vector<'_> {
        let data = match (&self.store, &self.shape.dictionary) {
            (Store::Bool(values), _) => Data::Bool(values[start..end].into()),
            (Store::I8(values), _) => Data::I8(values[start..end].into()),
            (Store::I16(values), _) => Data::I16(values[start..end].into()),
            (Store::I32(values), _) => Data::I32(values[start..end].into()),
            (Store::I64(values), _) => Data::I64(values[start..end].into()),
            (Store::I128(values), _) => Data::I128(values[start..end].into()),
            (Store::F32(values), _) => Data::F32(values[start..end].into()),
            (Store::F64(values), _) => Data::F64(values[start..end].into()),
            (Store::Interval(values), _) => Data::Interval(values[start..end].to_vec()),
            (Store::Codes8(codes), Some(dictionary)) => {
                let codes: Vec<u32> = codes[start..end].iter().map(|code| u32::from(*code)).collect();
                Data::Codes(codes.into(), Arc::clone(dictionary))
            }
            (Store::Codes16(codes), Some(dictionary)) => {
                let codes: Vec<u32> = codes[start..end].iter().map(|code| u32::from(*code)).collect();
                Data::Codes(codes.into(), Arc::clone(dictionary))
            }
            (Store::Codes32(codes), Some(dictionary)) => Data::Codes(codes[start..end].into(), Arc::clone(dictionary)),
            (Store::Bytes(ends, bytes), _) => {
                let value = |row: usize| {
                    let from = if row == 0 { 0 } else { ends[row - 1] };
                    &bytes[from as usize..ends[row] as usize]
                };
                Data::Bytes((start..end).map(value).collect())
            }
            (Store::Null | Store::Codes8(_) | Store::Codes16(_) | Store::Codes32(_), _) => Data::Null(end - start),
        };
        Vector {
            data,
            valid: self.valid.as_ref().map(|valid| valid[start..end].into()),
        }
    }

    fn check_rows(&self, more: usize) -> Result<(), DeviceError> {
        if self.rows + more >= MAX_ROWS {
            return Err(DeviceError::Unsupported(format!(
                "a result of {} rows or more is kept by no fused operator",
                MAX_ROWS
            )));
        }
        Ok(())
    }

    fn push_values(&mut self, vector: &Vector<'_>, rows: usize) -> Result<(), DeviceError> {
        match (&mut self.store, &vector.data) {
            (Store::Bool(to), Data::Bool(from)) => append(to, from),
            (Store::I8(to), Data::I8(from)) => append(to, from),
            (Store::I16(to), Data::I16(from)) => append(to, from),
            (Store::I32(to), Data::I32(from)) => append(to, from),
            (Store::I64(to), Data::I64(from)) => append(to, from),
            (Store::I128(to), Data::I128(from)) => append(to, from),
            (Store::F32(to), Data::F32(from)) => append(to, from),
            (Store::F64(to), Data::F64(from)) => append(to, from),
            (Store::Interval(to), Data::Interval(from)) => append(to, from),
            (Store::Codes8(to), Data::Codes(from, _)) => extend(to, from, |code| code as u8),
            (Store::Codes16(to), Data::Codes(from, _)) => extend(to, from, |code| code as u16),
            (Store::Codes32(to), Data::Codes(from, _)) => append(to, from),
            (Store::Bytes(ends, bytes), Data::Bytes(from)) => {
                let length = from.iter().map(|value| value.len()).sum();
                return push_bytes((ends, bytes), from.iter().copied(), length, vector.valid.as_deref());
            }
            (Store::Bytes(ends, bytes), Data::Strings(from)) => {
                let values = (0..from.len()).map(|row| from.get(row));
                return push_bytes((ends, bytes), values, from.bytes.len(), vector.valid.as_deref());
            }
            (store, data) => {
                return widen(store, data).ok_or_else(|| {
                    DeviceError::Internal(format!(
                        "a vector of {rows} rows in another lane than its shape's, {}",
                        self.shape.data_type.to_arrow()
                    ))
                });
            }
        }
        Ok(())
    }

    fn range(&self) -> Option<(i128, i128)> {
        let valid = self.valid.as_deref();
        match &self.store {
            Store::I8(values) => bounds(values, valid),
            Store::I16(values) => bounds(values, valid),
            Store::I32(values) => bounds(values, valid),
            Store::I64(values) => bounds(values, valid),
            Store::I128(values) => bounds(values, valid),
            _ => None,
        }
    }
}

/// Some rows of one of several builders.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Which of the builders.
    pub(crate) builder: usize,
    /// Its rows.
    pub(crate) rows: Range<usize>,
}

/// The rows of builders of one shape as one column: one builder after another, or in this order.
///
/// # Errors
/// Unsupported when the column becomes too long.
pub(crate) fn concat(
    shape: &Shape,
    mut builders: Vec<ColumnBuilder>,
    order: Option<&[Part]>,
) -> Result<DeviceColumn, DeviceError> {
    let natural: Vec<_>;
    let order = match order {
        Some(order) => order,
        None => {
            builders.retain(|builder| builder.rows > 0);
            if builders.len() < 2 {
                return Ok(builders.pop().unwrap_or_else(|| ColumnBuilder::new(shape)).finish());
            }
            let whole = |(at, builder): (usize, &ColumnBuilder)| Part {
                builder: at,
                rows: 0..builder.rows,
            };
            natural = builders.iter().enumerate().map(whole).collect();
            &natural
        }
    };
    let rows = order.iter().map(|part| part.rows.len()).sum();
    let mut all = ColumnBuilder::new(shape);
    all.check_rows(rows)?;
    if builders.iter().any(|builder| builder.valid.is_some()) {
        let mut valid = Vec::with_capacity(rows);
        for part in order {
            match &builders[part.builder].valid {
                Some(bytes) => valid.extend_from_slice(&bytes[part.rows.clone()]),
                None => valid.resize(valid.len() + part.rows.len(), 1),
            }
        }
        all.valid = Some(valid);
    }
    let length = builders.iter().map(|builder| builder.store.byte_length()).sum();
    all.store.make_room(rows, length);
    for part in order {
        all.store.append(&builders[part.builder].store, part.rows.clone())?;
    }
    all.rows = rows;
    Ok(all.finish())
}

impl Store {
    fn byte_length(&self) -> usize {
        match self {
            Store::Bytes(_, bytes) => bytes.len(),
            _ => 0,
        }
    }

    fn make_room(&mut self, rows: usize, length: usize) {
        match self {
            Store::Bytes(ends, bytes) => {
                make_room(ends, rows);
                make_room(bytes, length);
            }
            store => each_store!(store, |values| make_room(values, rows), else ()),
        }
    }

    fn append(&mut self, other: &Store, rows: Range<usize>) -> Result<(), DeviceError> {
        match (self, other) {
            (Store::Bool(to), Store::Bool(from)) | (Store::Codes8(to), Store::Codes8(from)) => append(to, &from[rows]),
            (Store::I8(to), Store::I8(from)) => append(to, &from[rows]),
            (Store::I16(to), Store::I16(from)) => append(to, &from[rows]),
            (Store::I32(to), Store::I32(from)) => append(to, &from[rows]),
            (Store::I64(to), Store::I64(from)) => append(to, &from[rows]),
            (Store::I128(to), Store::I128(from)) => append(to, &from[rows]),
            (Store::F32(to), Store::F32(from)) => append(to, &from[rows]),
            (Store::F64(to), Store::F64(from)) => append(to, &from[rows]),
            (Store::Codes16(to), Store::Codes16(from)) => append(to, &from[rows]),
            (Store::Codes32(to), Store::Codes32(from)) => append(to, &from[rows]),
            (Store::Interval(to), Store::Interval(from)) => append(to, &from[rows]),
            (Store::Null, Store::Null) => {}
            (Store::Bytes(ends, bytes), Store::Bytes(from_ends, from)) => {
                let start = rows.start.checked_sub(1).map_or(0, |before| from_ends[before]);
                let from_ends = &from_ends[rows];
                let end = from_ends.last().copied().unwrap_or(start);
                let base = check_length(bytes.len() + (end - start) as usize).map(|_| bytes.len() as u32)?;
                ends.extend(from_ends.iter().map(|end| base + (end - start)));
                bytes.extend_from_slice(&from[start as usize..end as usize]);
            }
            _ => {
                return Err(DeviceError::Internal(
                    "columns of different shapes were put together".into(),
                ));
            }
        }
        Ok(())
    }

    fn into_values(self, shape: &Shape) -> Values {
        let integers = |carrier| Values::Integers { carrier, base: 0 };
        match (self, &shape.dictionary) {
            (Store::Codes8(codes), Some(dictionary)) => Values::Codes {
                codes: Codes::U8(codes.into()),
                dictionary: Arc::clone(dictionary),
            },
            (Store::Codes16(codes), Some(dictionary)) => Values::Codes {
                codes: Codes::U16(codes.into()),
                dictionary: Arc::clone(dictionary),
            },
            (Store::Codes32(codes), Some(dictionary)) => Values::Codes {
                codes: Codes::U32(codes.into()),
                dictionary: Arc::clone(dictionary),
            },
            (Store::Bool(values), _) => Values::Booleans(pack_bits(&values)),
            (Store::I8(values), _) => integers(Carrier::I8(values.into())),
            (Store::I16(values), _) => integers(Carrier::I16(values.into())),
            (Store::I32(values), _) => integers(Carrier::I32(values.into())),
            (Store::I64(values), _) => integers(Carrier::I64(values.into())),
            (Store::I128(values), _) => Values::Wide(values.into()),
            (Store::F32(values), _) => Values::Float32(values.into()),
            (Store::F64(values), _) => Values::Float64(values.into()),
            (Store::Bytes(mut ends, bytes), _) => {
                ends.insert(0, 0);
                Values::Strings(Strings {
                    offsets: ScalarBuffer::from(ends),
                    bytes: bytes.into(),
                })
            }
            (Store::Interval(values), _) => Values::Intervals(values.into()),
            (Store::Null | Store::Codes8(_) | Store::Codes16(_) | Store::Codes32(_), _) => Values::Nulls,
        }
    }
}

fn append<T: Copy>(to: &mut Vec<T>, from: &[T]) {
    make_room(to, from.len());
    to.extend_from_slice(from);
}

fn extend<T, U: Copy>(to: &mut Vec<T>, from: &[U], convert: impl Fn(U) -> T) {
    make_room(to, from.len());
    to.extend(from.iter().map(|value| convert(*value)));
}

fn check_length(bytes: usize) -> Result<u32, DeviceError> {
    u32::try_from(bytes)
        .map_err(|_| DeviceError::Unsupported("more than 4 GiB of strings in one column are not fused".into()))
}

/// Appends strings of `length` bytes in all; the values of NULL rows are left out.
fn push_bytes<'v>(
    (ends, bytes): (&mut Vec<u32>, &mut Vec<u8>),
    from: impl ExactSizeIterator<Item = &'v [u8]>,
    length: usize,
    valid: Option<&[u8]>,
) -> Result<(), DeviceError> {
    check_length(bytes.len() + length)?;
    make_room(ends, from.len());
    make_room(bytes, length);
    for (row, value) in from.enumerate() {
        if valid.is_none_or(|valid| valid[row] != 0) {
            bytes.extend_from_slice(value);
        }
        ends.push(bytes.len() as u32);
    }
    Ok(())
}

/// Appends integers of a narrower lane than the store's; none when the data is something else.
fn widen(store: &mut Store, data: &Data<'_>) -> Option<()> {
    macro_rules! from_each {
        ($to:expr, $target:ty, $($lane:ident)*) => {
            match data {
                $(Data::$lane(from) => extend($to, from, |value| <$target>::from(value)),)*
                _ => return None,
            }
        };
    }
    match store {
        Store::I16(to) => from_each!(to, i16, I8),
        Store::I32(to) => from_each!(to, i32, I8 I16),
        Store::I64(to) => from_each!(to, i64, I8 I16 I32),
        Store::I128(to) => from_each!(to, i128, I8 I16 I32 I64),
        _ => return None,
    }
    Some(())
}

/// Bits of a byte per row.
fn pack_bits(bytes: &[u8]) -> BooleanBuffer {
    BooleanBuffer::collect_bool(bytes.len(), |row| bytes[row] != 0)
}

/// Smallest and largest of the values that aren't NULL.
pub(crate) fn bounds<T: Copy + Ord + Into<i128>>(values: &[T], valid: Option<&[u8]>) -> Option<(i128, i128)> {
    let (least, most) = match valid {
        None => {
            let first = *values.first()?;
            values.iter().fold((first, first), |(least, most), value| {
                (least.min(*value), most.max(*value))
            })
        }
        Some(valid) => {
            let first = values[valid.iter().take(values.len()).position(|byte| *byte != 0)?];
            values
                .iter()
                .zip(valid)
                .fold((first, first), |(least, most), (value, byte)| {
                    let value = if *byte != 0 { *value } else { first };
                    (least.min(value), most.max(value))
                })
        }
    };
    Some((least.into(), most.into()))
}

#[cfg(test)]
mod tests;
