//! Device-ready columns: narrow carriers, dictionary codes, validity bits, zone maps.
//!
//! ```text
//!  DeviceColumn (one column of one segment, up to 1 Mi rows)
//!    values   Integers { carrier i8|i16|i32|i64, base }   value = base + carrier[i]
//!             Wide (i128) | Float32 | Float64 | Booleans (bits) | Codes (u8|u16|u32 into a Dictionary) | Strings
//!    validity one bit per row, none where there are no NULLs; the value of a NULL row is unspecified but in range
//!    zone     min, max, null count of the segment
//! ```
//!
//! Within one scan a column has one shape: a string column is codes of one dictionary in all segments, or strings in all.

use std::sync::{Arc, OnceLock};

use arrow::buffer::{BooleanBuffer, Buffer, ScalarBuffer};

use crate::encoded::Loaded;
use crate::error::DeviceError;
use crate::types::{Interval, Type};

/// Rows of a morsel: long enough to forget the hand-over, short enough to share the work. A segment's begin at multiples of them.
pub const MORSEL_ROWS: usize = 32 * 1024;

/// Integers in the smallest carrier that holds them.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Carrier {
    I8(ScalarBuffer<i8>),
    I16(ScalarBuffer<i16>),
    I32(ScalarBuffer<i32>),
    I64(ScalarBuffer<i64>),
}

impl Carrier {
    /// Bytes of one value.
    pub fn width_bytes(&self) -> usize {
        match self {
            Carrier::I8(_) => 1,
            Carrier::I16(_) => 2,
            Carrier::I32(_) => 4,
            Carrier::I64(_) => 8,
        }
    }

    /// Values.
    pub fn len(&self) -> usize {
        match self {
            Carrier::I8(values) => values.len(),
            Carrier::I16(values) => values.len(),
            Carrier::I32(values) => values.len(),
            Carrier::I64(values) => values.len(),
        }
    }

    /// No values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One value, widened.
    pub fn get(&self, row: usize) -> i64 {
        match self {
            Carrier::I8(values) => i64::from(values[row]),
            Carrier::I16(values) => i64::from(values[row]),
            Carrier::I32(values) => i64::from(values[row]),
            Carrier::I64(values) => values[row],
        }
    }
}

/// Dictionary codes in the smallest unsigned carrier.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Codes {
    U8(ScalarBuffer<u8>),
    U16(ScalarBuffer<u16>),
    U32(ScalarBuffer<u32>),
}

impl Codes {
    /// One code.
    pub fn get(&self, row: usize) -> u32 {
        match self {
            Codes::U8(codes) => u32::from(codes[row]),
            Codes::U16(codes) => u32::from(codes[row]),
            Codes::U32(codes) => codes[row],
        }
    }

    /// Bytes of one code.
    pub fn width_bytes(&self) -> usize {
        match self {
            Codes::U8(_) => 1,
            Codes::U16(_) => 2,
            Codes::U32(_) => 4,
        }
    }
}

/// Strings or binary values: `bytes[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone)]
pub struct Strings {
    /// One more than there are values, ascending.
    pub offsets: ScalarBuffer<u32>,
    /// All values, one after another.
    pub bytes: Buffer,
}

impl Strings {
    /// Values.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// No values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One value.
    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// From an iterator of values. Where these may be more than 4 GiB, the result is to be [`Strings::addressed`].
    pub fn from_values<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut offsets = vec![0_u32];
        let mut bytes = Vec::new();
        for value in values {
            bytes.extend_from_slice(value);
            offsets.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        Self {
            offsets: offsets.into(),
            bytes: bytes.into(),
        }
    }

    /// Unless they are more bytes than their offsets can tell.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`].
    pub fn addressed(self) -> Result<Self, DeviceError> {
        self.check_addressed().map(|()| self)
    }

    /// As [`Strings::addressed`].
    ///
    /// # Errors
    /// As [`Strings::addressed`].
    pub fn check_addressed(&self) -> Result<(), DeviceError> {
        match self.offsets.last() {
            Some(&u32::MAX) => Err(DeviceError::Unsupported(
                "more than 4 GiB of strings at once".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Memory held.
    pub fn size_bytes(&self) -> usize {
        self.offsets.len() * 4 + self.bytes.len()
    }
}

/// The distinct values of a column, by code; a snapshot that never changes. Values are distinct; there is no NULL among them.
#[derive(Debug)]
pub struct Dictionary {
    values: Strings,
    ranks: OnceLock<Arc<[u32]>>,
}

impl Dictionary {
    /// Over distinct values.
    pub fn new(values: Strings) -> Self {
        Self {
            values,
            ranks: OnceLock::new(),
        }
    }

    /// Values by code.
    pub fn values(&self) -> &Strings {
        &self.values
    }

    /// Number of codes.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// No codes: all rows are NULL.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of a code.
    pub fn get(&self, code: u32) -> &[u8] {
        self.values.get(code as usize)
    }

    /// The place of each code in byte order, for comparisons, sorting, min and max by code.
    pub fn ranks(&self) -> &Arc<[u32]> {
        self.ranks.get_or_init(|| {
            let count = u32::try_from(self.len()).unwrap_or(u32::MAX);
            let mut order: Vec<u32> = (0..count).collect();
            order.sort_unstable_by(|a, b| self.get(*a).cmp(self.get(*b)));
            let mut ranks = vec![0_u32; order.len()];
            for (rank, code) in (0_u32..).zip(order) {
                ranks[code as usize] = rank;
            }
            ranks.into()
        })
    }
}

/// A column's values.
#[derive(Debug, Clone)]
pub enum Values {
    /// Integral types that fit 64 bits: `base + carrier[i]`, which never overflows.
    Integers {
        /// Carrier.
        carrier: Carrier,
        /// Added to each.
        base: i64,
    },
    /// Integral types that don't.
    Wide(ScalarBuffer<i128>),
    /// 32-bit floats.
    Float32(ScalarBuffer<f32>),
    /// 64-bit floats.
    Float64(ScalarBuffer<f64>),
    /// Booleans, a bit each.
    Booleans(BooleanBuffer),
    /// Strings and binary as codes.
    Codes {
        /// Codes; those of NULL rows are in range unless the dictionary is empty, then 0.
        codes: Codes,
        /// Their values.
        dictionary: Arc<Dictionary>,
    },
    /// Strings and binary.
    Strings(Strings),
    /// Intervals.
    Intervals(Arc<[Interval]>),
    /// The null type, or a column that is NULL throughout.
    Nulls,
}

/// What is known of a segment's values.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ZoneMap {
    /// Smallest and largest value of an integral column, over rows that are not NULL; bounds, not always exact.
    pub range: Option<(i128, i128)>,
    /// Rows that are NULL.
    pub null_count: usize,
    /// Values never descend (NULLs left out).
    pub sorted: bool,
    /// Rows per run of equal values, on average; 1 when unknown.
    pub run_length: f32,
}

/// One column of one segment.
#[derive(Debug, Clone)]
pub struct DeviceColumn {
    /// Logical type.
    pub data_type: Type,
    /// Rows.
    pub rows: usize,
    /// Values.
    pub values: Values,
    /// A set bit is a value; none when no row is NULL. Always none for [`Values::Nulls`].
    pub validity: Option<BooleanBuffer>,
    /// Statistics.
    pub zone: ZoneMap,
}

impl DeviceColumn {
    /// True when the row is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        matches!(self.values, Values::Nulls) || self.validity.as_ref().is_some_and(|valid| !valid.value(row))
    }

    /// Some of its rows, which must be there. Only strings are copied.
    #[must_use]
    pub fn slice(&self, start: usize, rows: usize) -> Self {
        let values = match &self.values {
            Values::Integers { carrier, base } => Values::Integers {
                carrier: match carrier {
                    Carrier::I8(values) => Carrier::I8(values.slice(start, rows)),
                    Carrier::I16(values) => Carrier::I16(values.slice(start, rows)),
                    Carrier::I32(values) => Carrier::I32(values.slice(start, rows)),
                    Carrier::I64(values) => Carrier::I64(values.slice(start, rows)),
                },
                base: *base,
            },
            Values::Wide(values) => Values::Wide(values.slice(start, rows)),
            Values::Float32(values) => Values::Float32(values.slice(start, rows)),
            Values::Float64(values) => Values::Float64(values.slice(start, rows)),
            Values::Booleans(values) => Values::Booleans(values.slice(start, rows)),
            Values::Codes { codes, dictionary } => Values::Codes {
                codes: match codes {
                    Codes::U8(codes) => Codes::U8(codes.slice(start, rows)),
                    Codes::U16(codes) => Codes::U16(codes.slice(start, rows)),
                    Codes::U32(codes) => Codes::U32(codes.slice(start, rows)),
                },
                dictionary: Arc::clone(dictionary),
            },
            Values::Strings(strings) => {
                Values::Strings(Strings::from_values((start..start + rows).map(|row| strings.get(row))))
            }
            Values::Intervals(values) => Values::Intervals(values[start..start + rows].into()),
            Values::Nulls => Values::Nulls,
        };
        let validity = self.validity.as_ref().map(|validity| validity.slice(start, rows));
        let null_count = match (&values, &validity) {
            (Values::Nulls, _) => rows,
            (_, Some(validity)) => rows - validity.count_set_bits(),
            (_, None) => 0,
        };
        Self {
            data_type: self.data_type.clone(),
            rows,
            values,
            validity: validity.filter(|_| null_count > 0),
            zone: ZoneMap {
                null_count,
                ..self.zone
            },
        }
    }

    /// Memory held, without a shared dictionary.
    pub fn size_bytes(&self) -> usize {
        let values = match &self.values {
            Values::Integers { carrier, .. } => carrier.len() * carrier.width_bytes(),
            Values::Wide(values) => values.len() * 16,
            Values::Float32(values) => values.len() * 4,
            Values::Float64(values) => values.len() * 8,
            Values::Booleans(values) => values.len().div_ceil(8),
            Values::Codes { codes, .. } => self.rows * codes.width_bytes(),
            Values::Strings(strings) => strings.size_bytes(),
            Values::Intervals(values) => values.len() * 16,
            Values::Nulls => 0,
        };
        values + self.validity.as_ref().map_or(0, |valid| valid.len().div_ceil(8))
    }
}

/// Where a column's buffers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residency {
    /// Only in its files.
    Store,
    /// In the host's memory.
    Host,
    /// In the memory of a device, by position in the registry.
    Device(usize),
}

/// What holds for a column over all segments of a scan; kernels are prepared from it.
#[derive(Debug, Clone)]
pub struct ColumnProfile {
    /// Logical type.
    pub data_type: Type,
    /// Bounds of the values of an integral column that is not NULL throughout; the type's own when nothing is known.
    pub range: Option<(i128, i128)>,
    /// NULLs may occur.
    pub nullable: bool,
    /// The dictionary of all segments, complete, when the column is codes.
    pub dictionary: Option<Arc<Dictionary>>,
    /// Distinct values, when known.
    pub distinct: Option<usize>,
}

/// A bound scan: segments of columns, loaded when they are needed.
pub trait ScanInput: Send + Sync {
    /// Columns, in the order of [`crate::ScanSource::columns`].
    fn columns(&self) -> &[ColumnProfile];

    /// Segments.
    fn segments(&self) -> usize;

    /// Rows of a segment.
    fn rows(&self, segment: usize) -> usize;

    /// What is known of a column of a segment without loading it.
    fn zone(&self, segment: usize, column: usize) -> Option<ZoneMap>;

    /// A number for the content of a column of a segment, that no other content has in this process: what devices name
    /// their copies by. None: don't keep one.
    fn identity(&self, segment: usize, column: usize) -> Option<u64> {
        let _ = (segment, column);
        None
    }

    /// False while loading the column would wait for a store; that it was asked for makes it urgent. [`crate::Inputs::wake`]
    /// is called when this may have changed. Those who may not block ask before they load.
    fn ready(&self, segment: usize, column: usize) -> bool {
        let _ = (segment, column);
        true
    }

    /// True while few rows of the segment, if any, are thought to pass the filters: who tests them on their columns first, and
    /// dismisses the segment when none does, spares the store the others.
    fn late(&self, segment: usize) -> bool {
        let _ = segment;
        false
    }

    /// A reader has no use for a segment that it has not loaded, or not whole: nothing more needs to be fetched for it. It may
    /// be loaded all the same.
    fn dismiss(&self, segment: usize) {
        let _ = segment;
    }

    /// Takes rows of a segment for this reader, where several kernels share a scan so that each row is read by one of them: false
    /// when another has them, and this one leaves them out. Asked once for each [`MORSEL_ROWS`] from `start`, before they are read.
    fn claim(&self, segment: usize, start: usize) -> bool {
        let _ = (segment, start);
        true
    }

    /// What decoding the column of a segment would take, in nanoseconds of one worker, about; 0 when it is decoded already.
    fn decode_ns(&self, segment: usize, column: usize) -> f64 {
        let _ = (segment, column);
        0.0
    }

    /// The column, decoded now if it is not resident. Called from several threads.
    ///
    /// # Errors
    /// When the file can't be read, or memory is short.
    fn load(&self, segment: usize, column: usize) -> Result<Arc<DeviceColumn>, DeviceError>;

    /// The column for a device that decodes pages, where they are fewer bytes than `decoded_bytes` and the column is not
    /// decoded in the host's memory already; else as [`ScanInput::load`] gives it. Called from several threads.
    ///
    /// # Errors
    /// As [`ScanInput::load`].
    fn load_encoded(&self, segment: usize, column: usize, decoded_bytes: usize) -> Result<Loaded, DeviceError> {
        let _ = decoded_bytes;
        Ok(Loaded::Decoded(self.load(segment, column)?, None))
    }
}
