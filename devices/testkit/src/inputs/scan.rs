//! Tables in memory, in every layout that [`DeviceColumn`] allows.
//!
//! The same rows may stand in narrow or wide carriers, with or without a base, as codes or strings, with validity bits that
//! start in the middle of a byte, in one segment or many. A variant must give the same answer for all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::buffer::{BooleanBuffer, Buffer, ScalarBuffer};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use trireme_device_api::{
    Carrier, Codes, ColumnProfile, DeviceColumn, DeviceError, Dictionary, Field, Interval, Loaded, ScanInput, Strings,
    Type, Value, Values, ZoneMap,
};

use super::pages;
use crate::values::{Row, belongs, int_to_float, narrow_float};

/// How rows are cut into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segmentation {
    /// One segment.
    One,
    /// Of so many rows, the last of fewer.
    Of(usize),
    /// Random cuts, some segments without rows.
    Random,
}

/// How columns are laid out.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Segments.
    pub segmentation: Segmentation,
    /// Chance that a string column is a dictionary.
    pub dictionary: f64,
    /// Chance that a segment's carrier is wider than it must be, and that bounds are wider than the values.
    pub wide: f64,
    /// Chance that buffers start at an offset.
    pub offset: f64,
    /// What kernels are made from is said of columns as coarsely as can be, so that runs over other rows share kernels:
    /// bounds of the type, or of small values; no zone maps.
    pub alike: bool,
}

/// Bounds that columns of smaller values are said to have, where layouts are alike.
const SMALL: [(i128, i128); 2] = [(-1_024, 1_023), (-0x8000_0000, 0x7fff_ffff)];

/// The narrowest of few bounds around these.
fn coarse(range: (i128, i128), whole: (i128, i128)) -> (i128, i128) {
    let holds = |(low, high): &(i128, i128)| *low <= range.0 && range.1 <= *high;
    let small = SMALL.into_iter().find(holds).unwrap_or(whole);
    (small.0.max(whole.0), small.1.min(whole.1))
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            segmentation: Segmentation::Random,
            dictionary: 0.5,
            wide: 0.3,
            offset: 0.3,
            alike: false,
        }
    }
}

/// A table in memory.
pub struct MemoryScan {
    profiles: Vec<ColumnProfile>,
    segments: Vec<(usize, Vec<Arc<DeviceColumn>>)>,
    zones_known: bool,
    /// Of its first column.
    identity: u64,
    /// By segment, then column: how often it is still not ready, as if a store had to bring it.
    due: Vec<AtomicU64>,
    /// It would rather bring tested columns first.
    late: bool,
    /// Of what is drawn later.
    salt: u64,
}

/// What no other column is called.
static IDENTITIES: AtomicU64 = AtomicU64::new(1);

impl MemoryScan {
    /// Lays rows out.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] when a value doesn't belong to its column.
    pub fn new(fields: &[Field], rows: &[Row], layout: &Layout, rng: &mut impl Rng) -> Result<Self, DeviceError> {
        let cuts = cut(rows.len(), layout.segmentation, rng);
        let mut segments: Vec<(usize, Vec<Arc<DeviceColumn>>)> =
            cuts.windows(2).map(|pair| (pair[1] - pair[0], Vec::new())).collect();
        let mut profiles = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            let values: Vec<&Value> = rows.iter().map(|row| &row[index]).collect();
            if let Some(value) = values.iter().find(|value| !belongs(value, &field.data_type)) {
                return Err(DeviceError::Internal(format!(
                    "{value:?} in a column of {:?}",
                    field.data_type
                )));
            }
            let shape = ColumnShape::of(field, &values, layout, rng);
            for (segment, pair) in segments.iter_mut().zip(cuts.windows(2)) {
                let column = shape.column(&field.data_type, &values[pair[0]..pair[1]], layout, rng);
                segment.1.push(Arc::new(column));
            }
            profiles.push(shape.profile);
        }
        let columns = (profiles.len() * segments.len()) as u64;
        // Of numbers of its own, so that nothing else changes with them; half of the tables are ready at once.
        let salt = (rows.len() * 31 + fields.len()) as u64;
        let far = salt % 2 == 1;
        let due = |slot: u64| AtomicU64::new(if far { (slot * 7 + salt) % 4 } else { 0 });
        Ok(Self {
            due: (0..columns).map(due).collect(),
            late: far && !salt.is_multiple_of(3),
            salt,
            profiles,
            segments,
            zones_known: rng.random_bool(0.8) && !layout.alike,
            identity: IDENTITIES.fetch_add(columns, Ordering::Relaxed),
        })
    }
}

/// Ascending from 0 to `rows`.
fn cut(rows: usize, segmentation: Segmentation, rng: &mut impl Rng) -> Vec<usize> {
    let mut cuts = vec![0];
    match segmentation {
        Segmentation::One => {}
        Segmentation::Of(size) => cuts.extend((size.max(1)..rows).step_by(size.max(1))),
        Segmentation::Random => {
            for _ in 0..rng.random_range(0..4) {
                cuts.push(rng.random_range(0..=rows));
            }
            // An empty segment, and sometimes a table without segments.
            if rng.random_bool(0.3) {
                cuts.push(cuts[cuts.len() - 1]);
            }
        }
    }
    if rows > 0 || !rng.random_bool(0.3) {
        cuts.push(rows);
    }
    cuts.sort_unstable();
    cuts
}

/// What all segments of a column share.
struct ColumnShape {
    profile: ColumnProfile,
    codes: HashMap<Arc<[u8]>, u32>,
    /// All rows are NULL and no values are stored.
    nulls: bool,
}

impl ColumnShape {
    fn of(field: &Field, values: &[&Value], layout: &Layout, rng: &mut impl Rng) -> Self {
        let data_type = &field.data_type;
        let all_null = values.iter().all(|value| **value == Value::Null);
        let has_null = values.iter().any(|value| **value == Value::Null);
        let nulls = matches!(data_type, Type::Null) || (all_null && !values.is_empty() && rng.random_bool(0.5));
        let mut codes = HashMap::new();
        let mut dictionary = None;
        if data_type.is_bytes() && !nulls && rng.random_bool(layout.dictionary) {
            let (found, all) = dictionary_of(values, data_type, rng);
            codes = found;
            dictionary = Some(Arc::new(all));
        }
        let exact = range_of(values);
        let range = data_type
            .value_range()
            .filter(|_| layout.alike || !all_null)
            .map(|whole| {
                let (low, high) = exact.unwrap_or(whole);
                if layout.alike {
                    coarse(exact.unwrap_or((0, 0)), whole)
                } else if rng.random_bool(layout.wide) {
                    widen((low, high), whole, rng)
                } else {
                    (low, high)
                }
            });
        Self {
            profile: ColumnProfile {
                data_type: data_type.clone(),
                range,
                nullable: has_null || nulls || (!layout.alike && field.nullable && rng.random_bool(0.5)),
                dictionary,
                distinct: rng.random_bool(0.5).then(|| distinct(values)),
            },
            codes,
            nulls,
        }
    }

    fn column(&self, data_type: &Type, values: &[&Value], layout: &Layout, rng: &mut impl Rng) -> DeviceColumn {
        let null_count = values.iter().filter(|value| ***value == Value::Null).count();
        let zone_range = range_of(values).or(self.profile.range.map(|(low, _)| (low, low)));
        let offset = if rng.random_bool(layout.offset) {
            rng.random_range(1..20)
        } else {
            0
        };
        let (stored, range) = if self.nulls {
            (Values::Nulls, None)
        } else if data_type.is_integral() {
            let range = zone_range.unwrap_or((0, 0));
            let range = match self.profile.range {
                Some(whole) if rng.random_bool(layout.wide) => widen(range, whole, rng),
                _ => range,
            };
            (integers(values, range, offset, layout, rng), Some(range))
        } else {
            (self.others(data_type, values, offset, layout, rng), None)
        };
        let validity = (!self.nulls && (null_count > 0 || (self.profile.nullable && rng.random_bool(0.2))))
            .then(|| bits(values.iter().map(|value| **value != Value::Null), offset, rng));
        DeviceColumn {
            data_type: data_type.clone(),
            rows: values.len(),
            values: stored,
            validity,
            zone: ZoneMap {
                range: range.filter(|_| null_count < values.len()),
                null_count,
                sorted: data_type.is_integral() && rng.random_bool(0.7) && ascends(values),
                run_length: if rng.random_bool(0.7) { run_length(values) } else { 1.0 },
            },
        }
    }

    fn others(
        &self,
        data_type: &Type,
        values: &[&Value],
        offset: usize,
        layout: &Layout,
        rng: &mut impl Rng,
    ) -> Values {
        let float = |value: &&Value| match value {
            Value::Float(value) => *value,
            _ => f64::NAN,
        };
        match data_type {
            Type::Boolean => {
                let set = values.iter().map(|value| match value {
                    Value::Boolean(value) => *value,
                    _ => rng.random_bool(0.5),
                });
                let set: Vec<bool> = set.collect();
                Values::Booleans(bits(set.into_iter(), offset, rng))
            }
            Type::Float32 => Values::Float32(sliced(values.iter().map(|v| narrow_float(float(v))).collect(), offset)),
            Type::Float64 => Values::Float64(sliced(values.iter().map(float).collect(), offset)),
            Type::Interval(_) => Values::Intervals(
                values
                    .iter()
                    .map(|value| match value {
                        Value::Interval(value) => *value,
                        _ => Interval::default(),
                    })
                    .collect(),
            ),
            _ => match &self.profile.dictionary {
                Some(dictionary) => self.coded(dictionary, values, offset, layout, rng),
                None => strings(values, offset),
            },
        }
    }

    fn coded(
        &self,
        dictionary: &Arc<Dictionary>,
        values: &[&Value],
        offset: usize,
        layout: &Layout,
        rng: &mut impl Rng,
    ) -> Values {
        let count = u32::try_from(dictionary.len()).unwrap_or(u32::MAX);
        let codes: Vec<u32> = values
            .iter()
            .map(|value| match value {
                Value::Bytes(bytes) => self.codes.get(bytes).copied().unwrap_or_default(),
                _ if count > 0 => rng.random_range(0..count),
                _ => 0,
            })
            .collect();
        let narrow = !rng.random_bool(layout.wide);
        let codes = if narrow && count <= 1 << 8 {
            Codes::U8(sliced(narrowed(&codes), offset))
        } else if narrow && count <= 1 << 16 {
            Codes::U16(sliced(narrowed(&codes), offset))
        } else {
            Codes::U32(sliced(codes, offset))
        };
        Values::Codes {
            codes,
            dictionary: Arc::clone(dictionary),
        }
    }
}

fn dictionary_of(values: &[&Value], data_type: &Type, rng: &mut impl Rng) -> (HashMap<Arc<[u8]>, u32>, Dictionary) {
    let mut order: Vec<Arc<[u8]>> = Vec::new();
    let mut codes = HashMap::new();
    // Values that no row has are allowed.
    let mut unused = Vec::new();
    if data_type.is_bytes() && rng.random_bool(0.3) {
        unused.push(Value::Bytes(b"no row".as_slice().into()));
    }
    for value in unused.iter().chain(values.iter().copied()) {
        if let Value::Bytes(bytes) = value {
            codes.entry(Arc::clone(bytes)).or_insert_with(|| {
                order.push(Arc::clone(bytes));
                u32::try_from(order.len() - 1).unwrap_or(u32::MAX)
            });
        }
    }
    let dictionary = Dictionary::new(Strings::from_values(order.iter().map(AsRef::as_ref)));
    (codes, dictionary)
}

/// Values never descend; NULLs left out.
fn ascends(values: &[&Value]) -> bool {
    let ints = values.iter().filter_map(|value| match value {
        Value::Int(value) => Some(value),
        _ => None,
    });
    ints.is_sorted()
}

/// Rows per run of equal values.
fn run_length(values: &[&Value]) -> f32 {
    let ends = values.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let mean = int_to_float(values.len() as i128) / int_to_float(ends as i128 + 1);
    narrow_float(mean.max(1.0))
}

/// Distinct values, NULL not among them; floats by their bits.
fn distinct(values: &[&Value]) -> usize {
    let texts = values
        .iter()
        .filter(|value| ***value != Value::Null)
        .map(|value| format!("{value:?}"));
    texts.collect::<HashSet<_>>().len()
}

/// Smallest and largest.
fn range_of(values: &[&Value]) -> Option<(i128, i128)> {
    let ints = values.iter().filter_map(|value| match value {
        Value::Int(value) => Some(*value),
        _ => None,
    });
    ints.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// Bounds that still hold, within `whole`.
fn widen((low, high): (i128, i128), whole: (i128, i128), rng: &mut impl Rng) -> (i128, i128) {
    if rng.random_bool(0.3) {
        return whole;
    }
    let by = 1_i128 << rng.random_range(0..40);
    (
        low.saturating_sub(by).max(whole.0),
        high.saturating_add(by).min(whole.1),
    )
}

/// Integers that lie in `range`, as a carrier with a base, or wide.
fn integers(values: &[&Value], range: (i128, i128), offset: usize, layout: &Layout, rng: &mut impl Rng) -> Values {
    let (low, high) = range;
    let plain: Vec<i128> = values
        .iter()
        .map(|value| match value {
            Value::Int(value) => *value,
            _ if rng.random_bool(0.5) => low,
            _ => high,
        })
        .collect();
    let fits = |base: i128, bits: u32| {
        let most = (1_i128 << (bits - 1)) - 1;
        low - base >= -most - 1 && high - base <= most
    };
    if i64::try_from(low).is_err() || i64::try_from(high).is_err() {
        return Values::Wide(sliced(plain, offset));
    }
    let middle = low + (high - low) / 2;
    let base = [0, low, middle, low - 1, high][rng.random_range(0..5)];
    let base = if i64::try_from(base).is_ok() && fits(base, 64) {
        base
    } else {
        0
    };
    let narrowest = [8, 16, 32, 64].into_iter().find(|bits| fits(base, *bits)).unwrap_or(64);
    let bits = if rng.random_bool(layout.wide) {
        [narrowest, 64, (narrowest * 2).min(64)][rng.random_range(0..3)]
    } else {
        narrowest
    };
    let differences: Vec<i128> = plain.iter().map(|value| value - base).collect();
    let carrier = match bits {
        8 => Carrier::I8(sliced(narrowed(&differences), offset)),
        16 => Carrier::I16(sliced(narrowed(&differences), offset)),
        32 => Carrier::I32(sliced(narrowed(&differences), offset)),
        _ => Carrier::I64(sliced(narrowed(&differences), offset)),
    };
    Values::Integers {
        carrier,
        base: i64::try_from(base).unwrap_or_default(),
    }
}

fn narrowed<T: Copy, N: TryFrom<T> + Default>(values: &[T]) -> Vec<N> {
    values
        .iter()
        .map(|value| N::try_from(*value).unwrap_or_default())
        .collect()
}

/// The values as a slice of a longer buffer.
fn sliced<T: arrow::datatypes::ArrowNativeType>(values: Vec<T>, offset: usize) -> ScalarBuffer<T> {
    let length = values.len();
    let mut longer = vec![T::default(); offset];
    longer.extend(values);
    ScalarBuffer::from(longer).slice(offset, length)
}

/// Bits that start `offset` bits into their buffer, behind noise.
fn bits(values: impl ExactSizeIterator<Item = bool>, offset: usize, rng: &mut impl Rng) -> BooleanBuffer {
    let length = values.len();
    let noise: Vec<bool> = (0..offset).map(|_| rng.random_bool(0.5)).collect();
    let all: BooleanBuffer = noise.into_iter().chain(values).collect();
    all.slice(offset, length)
}

fn strings(values: &[&Value], offset: usize) -> Values {
    let skipped = vec![b'#'; offset];
    let mut all = Strings::from_values(std::iter::once(skipped.as_slice()).chain(values.iter().map(
        |value| match value {
            Value::Bytes(bytes) => bytes.as_ref(),
            _ => b"".as_slice(),
        },
    )));
    all.offsets = all.offsets.slice(1, values.len() + 1);
    if offset == 0 {
        all.bytes = Buffer::from(all.bytes.as_slice());
    }
    Values::Strings(all)
}

impl ScanInput for MemoryScan {
    fn columns(&self) -> &[ColumnProfile] {
        &self.profiles
    }

    fn segments(&self) -> usize {
        self.segments.len()
    }

    fn rows(&self, segment: usize) -> usize {
        self.segments[segment].0
    }

    fn zone(&self, segment: usize, column: usize) -> Option<ZoneMap> {
        self.zones_known.then(|| self.segments[segment].1[column].zone)
    }

    fn identity(&self, segment: usize, column: usize) -> Option<u64> {
        Some(self.identity + (segment * self.profiles.len() + column) as u64)
    }

    fn ready(&self, segment: usize, column: usize) -> bool {
        let due = &self.due[segment * self.profiles.len() + column];
        let less = |due: u64| due.checked_sub(1);
        due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }

    fn late(&self, _segment: usize) -> bool {
        self.late
    }

    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError> {
        Ok(Arc::clone(&self.segments[segment].1[column]))
    }

    /// Some columns come as pages, however many bytes they are.
    fn load_encoded(&self, segment: usize, column: usize, decoded_bytes: usize) -> Result<Loaded, DeviceError> {
        let slot = (segment * self.profiles.len() + column) as u64;
        let loaded = self.load(segment, column)?;
        let mut rng = SmallRng::seed_from_u64(self.salt << 32 | slot);
        let range = loaded.zone.range.or(self.profiles[column].range);
        if decoded_bytes == 0 || rng.random_bool(0.75) {
            return Ok(Loaded::Decoded(loaded, Some("no pages were drawn")));
        }
        Ok(match pages::encoded(&loaded, range, &mut rng) {
            Some(encoded) => Loaded::Encoded(Arc::new(encoded)),
            None => Loaded::Decoded(loaded, Some("no pages hold such values")),
        })
    }
}
