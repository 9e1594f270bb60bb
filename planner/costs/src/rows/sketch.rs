//! What ANALYZE keeps of a table: how many distinct values each column has, and a sample of whole rows.
//!
//! The sample answers for conditions (all of a table together, so that columns which go together are seen to), for the most
//! common values and, sorted, for equal-depth histograms. Columns are numbered by their distinct values when they are first
//! asked for, and what conditions and groups gave is kept: planning asks the same again and again.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit};
use parking_lot::Mutex;

use super::bits::Bits;

/// What is known of a table.
#[derive(Debug)]
pub struct TableSketch {
    /// Rows.
    pub rows: f64,
    /// Rows of the sample.
    pub sampled: usize,
    /// Columns by name.
    pub columns: Vec<ColumnSketch>,
    answers: Mutex<Answers>,
}

/// What was asked of a sample before.
#[derive(Debug, Default)]
struct Answers {
    /// Rows for which a condition is true; none: it can't be evaluated.
    masks: Keyed<Option<Arc<Bits>>>,
    /// Distinct values of expressions among rows: seen, and seen once.
    distinct: Keyed<Option<Seen>>,
}

/// By numbers that are spread already.
pub(super) type Keyed<T> = HashMap<u64, T, BuildHasherDefault<Plain>>;

/// Distinct values in a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seen {
    pub(super) distinct: f64,
    pub(super) once: f64,
    pub(super) rows: f64,
}

/// Takes a number for its own hash.
#[derive(Debug, Default)]
pub(super) struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Spreads the bits of a number: sums of such numbers name sets.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Bytes of masks that are kept of a table.
const MASK_BYTES: usize = 2 << 20;
const DISTINCT_KEPT: usize = 4_096;

/// What is known of a column.
#[derive(Debug)]
pub struct ColumnSketch {
    /// Name.
    pub name: String,
    /// Distinct values of the whole column.
    pub distinct: Option<f64>,
    /// Of the sample's rows.
    pub values: Values,
    codes: OnceLock<Codes>,
    common: OnceLock<Common>,
}

/// A column's values by number.
#[derive(Debug)]
pub(super) struct Codes {
    /// By row; NULL is a value.
    pub(super) of: Vec<u32>,
    /// By number: the row where it is first.
    pub(super) first: Vec<u32>,
    /// By number: a hash that all columns have of this value; none for NULL.
    pub(super) hashes: Vec<Option<u64>>,
}

/// The most common values of a column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Common {
    /// Their parts of all rows, by the values' hashes.
    pub(super) shares: Keyed<f64>,
    /// The part of all rows that has other values; NULLs are in neither.
    pub(super) rest: f64,
    /// Rows of the sample that have them, the most common first.
    rows: Vec<u32>,
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

/// A value of a column, as text.
struct Shown<'v>(&'v Values, usize);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Values::Ints(values) => write!(f, "{}", values[self.1].unwrap_or_default()),
            Values::Floats(values) => write!(f, "{}", values[self.1].unwrap_or_default()),
            Values::Bytes(_) => f.write_str(&String::from_utf8_lossy(self.0.bytes(self.1).unwrap_or_default())),
            Values::None => Ok(()),
        }
    }
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

    /// The bytes of a row of strings.
    pub fn bytes(&self, row: usize) -> Option<&[u8]> {
        let Values::Bytes(values) = self else { return None };
        let values = values.as_binary::<i64>();
        (row < values.len() && !values.is_null(row)).then(|| values.value(row))
    }

    /// The hash of a row's value; none for NULL.
    fn hash(&self, row: usize) -> Option<u64> {
        match self {
            Values::Ints(values) => values
                .get(row)
                .copied()
                .flatten()
                .map(|value| mix(value as u64 ^ 0x51ab)),
            Values::Floats(values) => {
                let value = values.get(row).copied().flatten()?;
                Some(mix(value.to_bits() ^ 0xf10a))
            }
            Values::Bytes(_) => {
                let mut hasher = DefaultHasher::new();
                self.bytes(row)?.hash(&mut hasher);
                Some(hasher.finish())
            }
            Values::None => None,
        }
    }
}

/// A place in a sample, which has a million rows at most.
pub(super) fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl Codes {
    fn of(values: &Values, rows: usize) -> Self {
        let mut known: HashMap<u64, u32, BuildHasherDefault<Plain>> = HashMap::default();
        let mut codes = Self {
            of: Vec::with_capacity(rows),
            first: Vec::new(),
            hashes: Vec::new(),
        };
        let mut null = None;
        for row in 0..rows {
            let hash = values.hash(row);
            let next = place(codes.first.len());
            let code = match hash {
                Some(hash) => *known.entry(hash).or_insert(next),
                None => *null.get_or_insert(next),
            };
            if code == next {
                codes.first.push(place(row));
                codes.hashes.push(hash);
            }
            codes.of.push(code);
        }
        codes
    }

    /// How often each value is there.
    fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.first.len()];
        self.of.iter().for_each(|code| counts[*code as usize] += 1);
        counts
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
            codes: OnceLock::new(),
            common: OnceLock::new(),
        }
    }

    pub(super) fn codes(&self, sampled: usize) -> &Codes {
        self.codes.get_or_init(|| Codes::of(&self.values, sampled))
    }

    /// The most common values in a sample of so many rows.
    fn common(&self, sampled: usize) -> &Common {
        self.common.get_or_init(|| {
            let codes = self.codes(sampled);
            let counts = codes.counts();
            let present = |code: &u32| codes.hashes[*code as usize].is_some();
            let often = |code: &u32| counts[*code as usize] >= COMMON_LEAST;
            let all_present: u32 = (0..place(counts.len()))
                .filter(present)
                .map(|code| counts[code as usize])
                .sum();
            let mut common: Vec<u32> = (0..place(counts.len())).filter(present).filter(often).collect();
            common.sort_by_key(|code| std::cmp::Reverse(counts[*code as usize]));
            common.truncate(COMMON_MOST);
            let all = sampled.max(1) as f64;
            let counted: u32 = common.iter().map(|code| counts[*code as usize]).sum();
            let share = |code: &u32| Some((codes.hashes[*code as usize]?, f64::from(counts[*code as usize]) / all));
            Common {
                rest: f64::from(all_present - counted) / all,
                shares: common.iter().filter_map(share).collect(),
                rows: common.iter().map(|code| codes.first[*code as usize]).collect(),
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
            answers: Mutex::default(),
        }
    }

    /// The most common values of a column.
    pub fn common(&self, column: usize) -> Option<&Common> {
        Some(self.columns.get(column)?.common(self.sampled))
    }

    /// Numbers all columns' values, so that no plan waits for it.
    pub fn warm(&self) {
        (0..self.columns.len()).for_each(|column| {
            self.common(column);
        });
    }

    /// The most common values of a column as text, each with its part of the rows.
    pub fn common_text(&self, column: usize, most: usize) -> Option<String> {
        let of = self.columns.get(column)?;
        let (common, codes) = (of.common(self.sampled), of.codes(self.sampled));
        let shown = |row: &u32| {
            let hash = codes.hashes[codes.of[*row as usize] as usize]?;
            let share = common.shares.get(&hash)?;
            Some((Shown(&of.values, *row as usize).to_string(), *share))
        };
        let mut shown: Vec<_> = common.rows.iter().filter_map(shown).collect();
        shown.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let text = shown.into_iter().take(most);
        Some(
            text.map(|(value, share)| format!("{value}: {share:.4}"))
                .collect::<Vec<_>>()
                .join(", "),
        )
    }

    /// Where a column stands.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    pub(super) fn codes(&self, column: usize) -> Option<&Codes> {
        let column = self.columns.get(column)?;
        (!matches!(column.values, Values::None)).then(|| column.codes(self.sampled))
    }

    /// The rows that a condition of this name passes, as they were found before or as `find` finds them now. None: it can't
    /// be told.
    pub(super) fn mask(
        &self,
        name: u64,
        find: impl FnOnce() -> Result<Option<Bits>, super::sample::Spent>,
    ) -> Option<Arc<Bits>> {
        if let Some(known) = self.answers.lock().masks.get(&name) {
            return known.clone();
        }
        let found = find().ok()?.map(Arc::new);
        let masks = &mut self.answers.lock().masks;
        if masks.len() >= (MASK_BYTES / (self.sampled / 8 + 64)).max(16) {
            masks.clear();
        }
        masks.insert(name, found.clone());
        found
    }

    /// The same for distinct values.
    pub(super) fn seen(
        &self,
        name: u64,
        find: impl FnOnce() -> Result<Option<Seen>, super::sample::Spent>,
    ) -> Option<Seen> {
        if let Some(known) = self.answers.lock().distinct.get(&name) {
            return *known;
        }
        let found = find().ok()?;
        let distinct = &mut self.answers.lock().distinct;
        if distinct.len() >= DISTINCT_KEPT {
            distinct.clear();
        }
        distinct.insert(name, found);
        found
    }
}

impl Common {
    /// All values of some rows, each by how often it is there.
    pub(super) fn of_rows(codes: &Codes, rows: impl Iterator<Item = usize>, count: usize) -> Self {
        let mut shares: Keyed<f64> = Keyed::default();
        for hash in rows.filter_map(|row| codes.hashes[codes.of[row] as usize]) {
            *shares.entry(hash).or_default() += 1.0 / count as f64;
        }
        Self {
            shares,
            rest: 0.0,
            rows: Vec::new(),
        }
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
        assert!(matches!(&dates, Values::Ints(values) if values[..] == [Some(7), None]));
        assert_eq!(
            (text.bytes(0), text.bytes(1), text.bytes(2)),
            (Some(&b"a"[..]), None, None)
        );
    }

    #[test]
    fn common_values_are_those_that_a_sample_has_often() {
        let values: Int32Array = (0..1_000).map(|row| if row % 4 == 0 { 7 } else { row }).collect();
        let batch = RecordBatch::try_from_iter([("x", Arc::new(values) as ArrayRef)]).unwrap();
        let sketch = TableSketch::new(1_000.0, &batch, &|_| None);
        let common = sketch.common(0).unwrap();
        assert_eq!((common.shares.len(), common.rest), (1, 0.749));
        // A quarter of the rows, and row 7.
        assert_eq!(sketch.common_text(0, 10).unwrap(), "7: 0.2510");
        let bounds = sketch.columns[0].histogram(4);
        assert_eq!(bounds.as_deref().map(|bounds| bounds[1].as_str()), Some("7"));
    }
}
