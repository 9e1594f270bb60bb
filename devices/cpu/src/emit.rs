//! Result batches: vectors of tiles in, Arrow batches of the asked size out.
//!
//! One builder per worker. Integers are widened to the SQL type here and nowhere before. Strings of a small dictionary become
//! views of the dictionary's own bytes; others are copied, so that a batch never holds a column's whole dictionary.
//!
//! ```text
//!  push(tile of 1,700 rows) ─▶ [ 7,100 … 8,192 │ full ─▶ RecordBatch ] [ 608 rows … ]
//! ```

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, NullArray, NullBufferBuilder, RecordBatch, RecordBatchOptions};
use arrow::array::{BooleanBufferBuilder, make_array, make_view};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::{IntervalDayTime, IntervalMonthDayNano, SchemaRef};
use trireme_device_api::{DeviceError, Dictionary, Field, IntervalKind, TimeUnit, Type};

use crate::number::Number;
use crate::vector::{Data, Vector};

/// A batch ends early when the strings of one column are longer than this: 32-bit offsets must hold one tile more.
const STRING_BYTES_MAX: usize = 1 << 30;
/// Bytes of a dictionary, per row of a batch, up to which views point into it.
const SHARED_BYTES_PER_ROW: usize = 4;
/// Strings up to so many bytes lie in the view itself.
const INLINE_BYTES: usize = 12;

/// Collects rows into batches.
pub(crate) struct BatchBuilder {
    schema: SchemaRef,
    columns: Vec<Writer>,
    rows: usize,
    batch_rows: usize,
}

impl BatchBuilder {
    /// For batches of `batch_rows` rows (at least one) with these columns.
    pub(crate) fn new(fields: &[Field], batch_rows: usize) -> Self {
        let batch_rows = batch_rows.max(1);
        Self {
            schema: Field::schema(fields),
            columns: fields.iter().map(|field| Writer::new(field, batch_rows)).collect(),
            rows: 0,
            batch_rows,
        }
    }

    /// Appends rows `from..to` of the vectors, one vector per column; hands out each batch that gets full.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when a vector is not of its field's type or has a NULL where none may be;
    /// [`DeviceError::Unsupported`] when one tile has more than 1 GiB of strings.
    pub(crate) fn push(
        &mut self,
        vectors: &[Vector<'_>],
        from: usize,
        to: usize,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), DeviceError> {
        if vectors.len() != self.columns.len() {
            let text = format!("{} vectors for {} result columns", vectors.len(), self.columns.len());
            return Err(DeviceError::Internal(text));
        }
        let mut start = from;
        while start < to {
            let end = to.min(start + self.batch_rows - self.rows);
            for (column, vector) in self.columns.iter_mut().zip(vectors) {
                column.append(vector, start, end)?;
            }
            self.rows += end - start;
            start = end;
            let full = self.rows == self.batch_rows;
            if (full
                || self
                    .columns
                    .iter()
                    .any(|column| column.store.string_bytes() > STRING_BYTES_MAX))
                && let Some(batch) = self.flush()?
            {
                out(batch);
            }
        }
        Ok(())
    }

    /// What was pushed since the last full batch, if anything.
    ///
    /// # Errors
    /// As [`BatchBuilder::push`].
    pub(crate) fn flush(&mut self) -> Result<Option<RecordBatch>, DeviceError> {
        if self.rows == 0 {
            return Ok(None);
        }
        let rows = std::mem::take(&mut self.rows);
        let arrays = self
            .columns
            .iter_mut()
            .map(|column| column.finish(rows))
            .collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map(Some)
            .map_err(|error| DeviceError::Internal(format!("result columns: {error}")))
    }
}

/// Values in Arrow's layout; unsigned integers by their bits.
enum Store {
    Null,
    Bits(BooleanBufferBuilder),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    I128(Vec<i128>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Strings32(Vec<i32>, Vec<u8>),
    Strings64(Vec<i64>, Vec<u8>),
    Views(Views),
    YearMonth(Vec<i32>),
    DayTime(Vec<IntervalDayTime>),
    MonthDayNano(Vec<IntervalMonthDayNano>),
}

#[derive(Default)]
struct Views {
    views: Vec<u128>,
    /// The values that are not inline and not of `shared`.
    bytes: Vec<u8>,
    /// A dictionary whose bytes are the first block, and the view of each of its codes.
    shared: Option<(Arc<Dictionary>, Vec<u128>)>,
}

/// One column of the batch being built.
struct Writer {
    data_type: Type,
    batch_rows: usize,
    store: Store,
    valid: NullBufferBuilder,
}

impl Writer {
    fn new(field: &Field, batch_rows: usize) -> Self {
        Self {
            data_type: field.data_type.clone(),
            batch_rows,
            store: Store::new(&field.data_type, batch_rows, 0),
            valid: NullBufferBuilder::new(batch_rows),
        }
    }

    fn append(&mut self, vector: &Vector<'_>, from: usize, to: usize) -> Result<(), DeviceError> {
        let valid = vector.valid.as_ref().map(|valid| &valid[from..to]);
        match (&vector.data, valid) {
            (Data::Null(_), _) => self.valid.append_n_nulls(to - from),
            (_, Some(valid)) => self.valid.append_buffer(&NullBuffer::new(bits(valid))),
            (_, None) => self.valid.append_n_non_nulls(to - from),
        }
        let appended = match (&vector.data, &mut self.store) {
            (_, Store::Null) => true,
            (Data::Null(_), store) => {
                store.append_default(to - from);
                true
            }
            (Data::Bool(values), Store::Bits(store)) => {
                store.append_buffer(&bits(&values[from..to]));
                true
            }
            (Data::I8(values), store) => store.append_integers(&values[from..to]),
            (Data::I16(values), store) => store.append_integers(&values[from..to]),
            (Data::I32(values), store) => store.append_integers(&values[from..to]),
            (Data::I64(values), store) => store.append_integers(&values[from..to]),
            (Data::I128(values), store) => store.append_integers(&values[from..to]),
            (Data::F32(values), Store::F32(store)) => {
                store.extend_from_slice(&values[from..to]);
                true
            }
            (Data::F64(values), Store::F64(store)) => {
                store.extend_from_slice(&values[from..to]);
                true
            }
            (Data::Codes(codes, dictionary), store) => {
                store.append_codes(&codes[from..to], dictionary, valid, self.batch_rows)
            }
            (Data::Bytes(values), store) => store.append_bytes(values[from..to].iter().copied(), valid),
            (Data::Strings(values), store) => store.append_bytes((from..to).map(|row| values.get(row)), valid),
            (Data::Interval(values), store) => store.append_intervals(&values[from..to]),
            _ => false,
        };
        match (appended, self.store.string_bytes() <= i32::MAX as usize) {
            (true, true) => Ok(()),
            (true, false) => Err(DeviceError::Unsupported(
                "more than 2 GiB of strings in one batch".to_owned(),
            )),
            (false, _) => {
                let text = format!("a vector is not of its result type {}", self.data_type.to_arrow());
                Err(DeviceError::Internal(text))
            }
        }
    }

    fn finish(&mut self, rows: usize) -> Result<ArrayRef, DeviceError> {
        let nulls = self.valid.finish();
        let hint_bytes = self.store.string_bytes();
        let fresh = Store::new(&self.data_type, self.batch_rows, hint_bytes);
        let buffers = match std::mem::replace(&mut self.store, fresh) {
            Store::Null => return Ok(Arc::new(NullArray::new(rows))),
            Store::Bits(mut bits) => vec![bits.finish().into_inner()],
            Store::I8(values) => vec![values.into()],
            Store::I16(values) => vec![values.into()],
            Store::I32(values) | Store::YearMonth(values) => vec![values.into()],
            Store::I64(values) => vec![values.into()],
            Store::I128(values) => vec![values.into()],
            Store::F32(values) => vec![values.into()],
            Store::F64(values) => vec![values.into()],
            Store::Strings32(offsets, bytes) => vec![offsets.into(), bytes.into()],
            Store::Strings64(offsets, bytes) => vec![offsets.into(), bytes.into()],
            Store::DayTime(values) => vec![Buffer::from_vec(values)],
            Store::MonthDayNano(values) => vec![Buffer::from_vec(values)],
            Store::Views(done) => {
                let shared = done
                    .shared
                    .as_ref()
                    .map(|(dictionary, _)| dictionary.values().bytes.clone());
                let bytes = (!done.bytes.is_empty()).then(|| done.bytes.into());
                let blocks = shared.into_iter().chain(bytes);
                if let Store::Views(next) = &mut self.store {
                    next.shared = done.shared;
                }
                std::iter::once(done.views.into()).chain(blocks).collect()
            }
        };
        let data = ArrayData::builder(self.data_type.to_arrow())
            .len(rows)
            .nulls(nulls)
            .buffers(buffers);
        let data = data
            .build()
            .map_err(|error| DeviceError::Internal(format!("result column: {error}")))?;
        Ok(make_array(data))
    }
}

fn bits(valid: &[u8]) -> BooleanBuffer {
    BooleanBuffer::collect_bool(valid.len(), |row| valid[row] != 0)
}

impl Store {
    fn new(data_type: &Type, rows: usize, string_bytes: usize) -> Self {
        fn sized<T>(rows: usize) -> Vec<T> {
            Vec::with_capacity(rows)
        }
        match data_type {
            Type::Null => Store::Null,
            Type::Boolean => Store::Bits(BooleanBufferBuilder::new(rows)),
            Type::Int8 | Type::UInt8 => Store::I8(sized(rows)),
            Type::Int16 | Type::UInt16 => Store::I16(sized(rows)),
            Type::Int32 | Type::UInt32 | Type::Date32 => Store::I32(sized(rows)),
            Type::Time(TimeUnit::Second | TimeUnit::Millisecond) => Store::I32(sized(rows)),
            Type::Int64 | Type::UInt64 | Type::Time(_) | Type::Timestamp { .. } => Store::I64(sized(rows)),
            Type::Decimal { .. } => Store::I128(sized(rows)),
            Type::Float32 => Store::F32(sized(rows)),
            Type::Float64 => Store::F64(sized(rows)),
            Type::Interval(IntervalKind::YearMonth) => Store::YearMonth(sized(rows)),
            Type::Interval(IntervalKind::DayTime) => Store::DayTime(sized(rows)),
            Type::Interval(IntervalKind::MonthDayNano) => Store::MonthDayNano(sized(rows)),
            Type::Utf8 | Type::Binary => {
                let mut offsets = sized(rows + 1);
                offsets.push(0);
                Store::Strings32(offsets, sized(string_bytes))
            }
            Type::LargeUtf8 | Type::LargeBinary => {
                let mut offsets = sized(rows + 1);
                offsets.push(0);
                Store::Strings64(offsets, sized(string_bytes))
            }
            Type::Utf8View | Type::BinaryView => Store::Views(Views {
                views: sized(rows),
                bytes: sized(string_bytes),
                shared: None,
            }),
        }
    }

    fn string_bytes(&self) -> usize {
        match self {
            Store::Strings32(_, bytes) | Store::Strings64(_, bytes) => bytes.len(),
            Store::Views(views) => views.bytes.len(),
            _ => 0,
        }
    }

    fn append_default(&mut self, rows: usize) {
        fn more<T: Default + Clone>(values: &mut Vec<T>, rows: usize) {
            values.resize(values.len() + rows, T::default());
        }
        match self {
            Store::Null => {}
            Store::Bits(values) => values.append_n(rows, false),
            Store::I8(values) => more(values, rows),
            Store::I16(values) => more(values, rows),
            Store::I32(values) | Store::YearMonth(values) => more(values, rows),
            Store::I64(values) => more(values, rows),
            Store::I128(values) => more(values, rows),
            Store::F32(values) => more(values, rows),
            Store::F64(values) => more(values, rows),
            Store::DayTime(values) => more(values, rows),
            Store::MonthDayNano(values) => more(values, rows),
            Store::Strings32(offsets, bytes) => offsets.resize(offsets.len() + rows, bytes.len() as i32),
            Store::Strings64(offsets, bytes) => offsets.resize(offsets.len() + rows, bytes.len() as i64),
            Store::Views(views) => more(&mut views.views, rows),
        }
    }

    fn append_integers<T: Number>(&mut self, values: &[T]) -> bool {
        match self {
            Store::I8(store) => store.extend(values.iter().map(|value| value.wide() as i8)),
            Store::I16(store) => store.extend(values.iter().map(|value| value.wide() as i16)),
            Store::I32(store) => store.extend(values.iter().map(|value| value.wide() as i32)),
            Store::I64(store) => store.extend(values.iter().map(|value| value.wide() as i64)),
            Store::I128(store) => store.extend(values.iter().map(|value| value.wide())),
            _ => return false,
        }
        true
    }

    fn append_intervals(&mut self, values: &[trireme_device_api::Interval]) -> bool {
        match self {
            Store::YearMonth(store) => store.extend(values.iter().map(|value| value.months)),
            Store::DayTime(store) => store.extend(values.iter().map(|value| {
                let milliseconds = value.nanoseconds / 1_000_000;
                IntervalDayTime::new(value.days, milliseconds as i32)
            })),
            Store::MonthDayNano(store) => store.extend(
                values
                    .iter()
                    .map(|value| IntervalMonthDayNano::new(value.months, value.days, value.nanoseconds)),
            ),
            _ => return false,
        }
        true
    }

    fn append_codes(
        &mut self,
        codes: &[u32],
        dictionary: &Arc<Dictionary>,
        valid: Option<&[u8]>,
        batch_rows: usize,
    ) -> bool {
        if dictionary.is_empty() {
            self.append_default(codes.len());
            return self.is_bytes();
        }
        if let Store::Views(views) = self
            && views.append_shared(codes, dictionary, batch_rows)
        {
            return true;
        }
        self.append_bytes(codes.iter().map(|code| dictionary.get(*code)), valid)
    }

    fn is_bytes(&self) -> bool {
        matches!(self, Store::Strings32(..) | Store::Strings64(..) | Store::Views(_))
    }

    /// Values of NULL rows are not copied.
    fn append_bytes<'a>(&mut self, values: impl Iterator<Item = &'a [u8]>, valid: Option<&[u8]>) -> bool {
        let present = values.enumerate().map(|(row, value)| match valid {
            Some(valid) if valid[row] == 0 => &[],
            _ => value,
        });
        match self {
            Store::Strings32(offsets, bytes) => present.for_each(|value| {
                bytes.extend_from_slice(value);
                offsets.push(bytes.len() as i32);
            }),
            Store::Strings64(offsets, bytes) => present.for_each(|value| {
                bytes.extend_from_slice(value);
                offsets.push(bytes.len() as i64);
            }),
            Store::Views(views) => {
                let block = u32::from(views.shared.is_some());
                present.for_each(|value| {
                    views.views.push(make_view(value, block, views.bytes.len() as u32));
                    if value.len() > INLINE_BYTES {
                        views.bytes.extend_from_slice(value);
                    }
                });
            }
            _ => return false,
        }
        true
    }
}

impl Views {
    /// Appends views into the dictionary if its bytes are, or can become, the first block. Views of NULL rows are of some value.
    fn append_shared(&mut self, codes: &[u32], dictionary: &Arc<Dictionary>, batch_rows: usize) -> bool {
        let strings = dictionary.values();
        let known = matches!(&self.shared, Some((known, _)) if Arc::ptr_eq(known, dictionary));
        let small = strings.size_bytes() <= SHARED_BYTES_PER_ROW * batch_rows;
        if !known && small && self.views.is_empty() {
            let view = |code: usize| make_view(strings.get(code), 0, strings.offsets[code]);
            self.shared = Some((Arc::clone(dictionary), (0..strings.len()).map(view).collect()));
        }
        match &self.shared {
            Some((known, views)) if Arc::ptr_eq(known, dictionary) => {
                self.views.extend(codes.iter().map(|code| views[*code as usize]));
                true
            }
            _ => false,
        }
    }
}
