//! What ANALYZE keeps of a table: how many distinct values each column has, and a sample of whole rows.
//!
//! The sample answers for conditions (all of a table together, so that columns which go together are seen to), for the most
//! common values and, sorted, for equal-depth histograms.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit};
use parking_lot::RwLock;
use trireme_device_api::Value;

/// Sketches by version of a table's files.
#[derive(Debug, Default)]
pub struct Sketches {
    tables: RwLock<HashMap<u64, Arc<Lazy>>>,
}

/// Reads a sketch, when a plan first asks for it.
pub type Load = Box<dyn Fn() -> Option<TableSketch> + Send + Sync>;

struct Lazy {
    load: Load,
    loaded: OnceLock<Option<Arc<TableSketch>>>,
}

impl fmt::Debug for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy")
            .field("loaded", &self.loaded)
            .finish_non_exhaustive()
    }
}

impl Sketches {
    /// The sketch of files in this version.
    pub fn get(&self, version: u64) -> Option<Arc<TableSketch>> {
        let lazy = Arc::clone(self.tables.read().get(&version)?);
        lazy.loaded.get_or_init(|| (lazy.load)().map(Arc::new)).clone()
    }

    /// Replaces all: what to load when a plan asks for it.
    pub fn set(&self, tables: impl Iterator<Item = (u64, Load)>) {
        let lazy = |load| {
            Arc::new(Lazy {
                load,
                loaded: OnceLock::new(),
            })
        };
        *self.tables.write() = tables.map(|(version, load)| (version, lazy(load))).collect();
    }
}

/// What is known of a table.
#[derive(Debug)]
pub struct TableSketch {
    /// Rows.
    pub rows: f64,
    /// Rows of the sample.
    pub sampled: usize,
    /// Columns by name.
    pub columns: Vec<ColumnSketch>,
}

/// What is known of a column.
#[derive(Debug)]
pub struct ColumnSketch {
    /// Name.
    pub name: String,
    /// Distinct values of the whole column.
    pub distinct: Option<f64>,
    /// Of the sample's rows.
    pub values: Values,
    common: OnceLock<Common>,
}

/// The most common values of a column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Common {
    /// Their parts of all rows.
    pub shares: HashMap<Key, f64>,
    /// The part of all rows that has other values; NULLs are in neither.
    pub rest: f64,
}

impl Common {
    /// The most common ones as text, each with its part of the rows.
    pub fn first(&self, most: usize) -> String {
        let mut shares: Vec<_> = self
            .shares
            .iter()
            .map(|(key, share)| (key.to_string(), *share))
            .collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let shown = shares
            .into_iter()
            .take(most)
            .map(|(key, share)| format!("{key}: {share:.4}"));
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Int(value) => write!(f, "{value}"),
            Key::Float(bits) => write!(f, "{}", f64::from_bits(*bits)),
            Key::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
        }
    }
}

/// Values of the sample's rows.
#[derive(Debug)]
pub enum Values {
    /// Integral types, in their own units; booleans as 0 and 1.
    Ints(Vec<Option<i64>>),
    /// Floats.
    Floats(Vec<Option<f64>>),
    /// Strings and binary.
    Bytes(ArrayRef),
    /// Types that are not sampled.
    None,
}

/// A value of a column, as keys of joins compare it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Of integral types.
    Int(i64),
    /// Bits of a float.
    Float(u64),
    /// Of strings.
    Bytes(Box<[u8]>),
}

impl Values {
    /// Of an Arrow column.
    pub fn of(array: &ArrayRef) -> Self {
        let ints = |array: &ArrayRef| cast(array, &DataType::Int64).ok();
        let whole = match array.data_type() {
            DataType::Boolean | DataType::Date64 => ints(array),
            DataType::Date32 => cast(array, &DataType::Int32).ok().as_ref().and_then(ints),
            DataType::Timestamp(
                TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
                _,
            ) => ints(array),
            kind if kind.is_integer() => ints(array),
            DataType::Decimal128(..) => {
                let unscaled = array.as_primitive::<Decimal128Type>().iter();
                return Values::Ints(
                    unscaled
                        .map(|value| value.and_then(|value| i64::try_from(value).ok()))
                        .collect(),
                );
            }
            kind if kind.is_floating() => {
                let Ok(floats) = cast(array, &DataType::Float64) else {
                    return Values::None;
                };
                return Values::Floats(floats.as_primitive::<Float64Type>().iter().collect());
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::BinaryView => {
                let text = cast(array, &DataType::LargeUtf8).or_else(|_| cast(array, &DataType::LargeBinary));
                return text
                    .and_then(|text| cast(&text, &DataType::LargeBinary))
                    .map_or(Values::None, Values::Bytes);
            }
            _ => None,
        };
        whole.map_or(Values::None, |whole| {
            Values::Ints(whole.as_primitive::<Int64Type>().iter().collect())
        })
    }

    /// The value of a row; none for what is not sampled.
    pub fn get(&self, row: usize) -> Option<Value> {
        match self {
            Values::Ints(values) => {
                let value = values.get(row)?;
                Some(value.map_or(Value::Null, |value| Value::Int(value.into())))
            }
            Values::Floats(values) => Some(values.get(row)?.map_or(Value::Null, Value::Float)),
            Values::Bytes(values) => {
                let values = values.as_binary::<i64>();
                if row >= values.len() {
                    return None;
                }
                Some(match values.is_null(row) {
                    true => Value::Null,
                    false => Value::Bytes(values.value(row).into()),
                })
            }
            Values::None => None,
        }
    }

    /// The bytes of a row of strings.
    pub fn bytes(&self, row: usize) -> Option<&[u8]> {
        let Values::Bytes(values) = self else { return None };
        let values = values.as_binary::<i64>();
        (row < values.len() && !values.is_null(row)).then(|| values.value(row))
    }

    /// A row as a key; none for NULL.
    pub fn key(&self, row: usize) -> Option<Key> {
        match self {
            Values::Ints(values) => values.get(row).copied().flatten().map(Key::Int),
            Values::Floats(values) => values
                .get(row)
                .copied()
                .flatten()
                .map(|value| Key::Float(value.to_bits())),
            Values::Bytes(_) => self.bytes(row).map(|bytes| Key::Bytes(bytes.into())),
            Values::None => None,
        }
    }
}

/// Values seen fewer times in a sample are not common.
const COMMON_LEAST: u32 = 4;
/// Common values that are kept of a column.
const COMMON_MOST: usize = 200;

impl ColumnSketch {
    /// Of a sample's column.
    pub fn new(name: String, distinct: Option<f64>, values: Values) -> Self {
        Self {
            name,
            distinct,
            values,
            common: OnceLock::new(),
        }
    }

    /// The most common values in a sample of so many rows.
    fn common(&self, sampled: usize) -> &Common {
        self.common.get_or_init(|| {
            let mut counts: HashMap<Key, u32> = HashMap::new();
            let mut present = 0_u32;
            for key in (0..sampled).filter_map(|row| self.values.key(row)) {
                *counts.entry(key).or_default() += 1;
                present += 1;
            }
            let mut common: Vec<_> = counts.into_iter().filter(|(_, count)| *count >= COMMON_LEAST).collect();
            common.sort_by_key(|(_, count)| Reverse(*count));
            common.truncate(COMMON_MOST);
            let all = sampled.max(1) as f64;
            let counted: u32 = common.iter().map(|(_, count)| *count).sum();
            Common {
                rest: f64::from(present - counted) / all,
                shares: common
                    .into_iter()
                    .map(|(key, count)| (key, f64::from(count) / all))
                    .collect(),
            }
        })
    }

    /// Bounds that cut the sample's values into so many equal parts, as text, smallest first; none of what has no order here.
    pub fn histogram(&self, buckets: usize) -> Option<Vec<String>> {
        let bounds = |values: Vec<String>| {
            let last = values.len().checked_sub(1)?;
            Some((0..=buckets).map(|at| values[at * last / buckets].clone()).collect())
        };
        match &self.values {
            Values::Ints(values) => {
                let mut values: Vec<i64> = values.iter().flatten().copied().collect();
                values.sort_unstable();
                bounds(values.iter().map(ToString::to_string).collect())
            }
            Values::Floats(values) => {
                let mut values: Vec<f64> = values.iter().flatten().copied().collect();
                values.sort_by(f64::total_cmp);
                bounds(values.iter().map(ToString::to_string).collect())
            }
            Values::Bytes(_) | Values::None => None,
        }
    }
}

impl TableSketch {
    /// Of a sample of rows, and the distinct values of columns as far as they were counted.
    pub fn new(rows: f64, sample: &RecordBatch, distinct: &dyn Fn(&str) -> Option<f64>) -> Self {
        let schema = sample.schema();
        let columns = schema.fields().iter().zip(sample.columns()).map(|(field, column)| {
            let name = field.name().clone();
            let distinct = distinct(&name);
            ColumnSketch::new(name, distinct, Values::of(column))
        });
        Self {
            rows,
            sampled: sample.num_rows(),
            columns: columns.collect(),
        }
    }

    /// The most common values of a column.
    pub fn common(&self, column: usize) -> Option<&Common> {
        Some(self.columns.get(column)?.common(self.sampled))
    }

    /// Where a column stands.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Int32Array, StringArray};

    use super::*;

    #[test]
    fn values_keep_their_units_and_nulls() {
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![Some(7), None]));
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let (dates, text) = (Values::of(&dates), Values::of(&text));
        assert_eq!((dates.get(0), dates.get(1)), (Some(Value::Int(7)), Some(Value::Null)));
        assert_eq!(text.get(0), Some(Value::Bytes(b"a".as_slice().into())));
        assert_eq!((text.get(1), text.get(2)), (Some(Value::Null), None));
    }

    #[test]
    fn common_values_are_those_that_a_sample_has_often() {
        let values: Int32Array = (0..1_000).map(|row| if row % 4 == 0 { 7 } else { row }).collect();
        let values: ArrayRef = Arc::new(values);
        let column = ColumnSketch::new("x".to_owned(), None, Values::of(&values));
        // A quarter of the rows, and row 7.
        let shares = HashMap::from([(Key::Int(7), 0.251)]);
        assert_eq!(column.common(1_000), &Common { shares, rest: 0.749 });
        let bounds = column.histogram(4);
        assert_eq!(bounds.as_deref().map(|bounds| bounds[1].as_str()), Some("7"));
    }
}
