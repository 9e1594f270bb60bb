//! What kernels may know of columns before they are loaded: shapes from profiles and zone maps.
//!
//! Bounds are widened a little, so that data which differs by a few values makes no other kernel: a bound is kept to an eighth
//! of its range, which a dense table over the range hardly feels.

use trireme_device_api::{ColumnProfile, DeviceColumn, DeviceError, Field, Fragment, Rows, ScanInput, Type, Values};
use trireme_device_codegen::ir::Elem;
use trireme_device_codegen::shape::{ColumnShape, ScanShape, Storage};

/// Rows per run of equal values from which a column counts as clustered: two values in no order make runs of two.
const CLUSTERED_RUN: f32 = 3.0;

/// Rows that a stream is taken to have before it has been read.
const STREAM_ROWS: u64 = 1 << 20;

/// A column that nobody reads: it is not loaded.
pub(crate) fn unused(data_type: &Type) -> ColumnShape {
    ColumnShape {
        data_type: data_type.clone(),
        storage: Storage::Null,
        nullable: true,
        range: None,
        dictionary: None,
        clustered: false,
    }
}

/// The shape of a scan of which only some columns are read.
///
/// # Errors
/// [`DeviceError::Unsupported`] for a type that lies in no device's memory.
pub(crate) fn scan_shape(scan: &dyn ScanInput, used: &[bool]) -> Result<ScanShape, DeviceError> {
    let rows = (0..scan.segments()).map(|segment| scan.rows(segment) as u64).sum();
    let columns = scan
        .columns()
        .iter()
        .zip(used)
        .enumerate()
        .map(|(index, (profile, used))| {
            if *used {
                column_shape(scan, index, profile)
            } else {
                Ok(unused(&profile.data_type))
            }
        });
    Ok(ScanShape {
        columns: columns.collect::<Result<_, _>>()?,
        rows,
        segments: scan.segments() as u64,
    })
}

fn column_shape(scan: &dyn ScanInput, column: usize, profile: &ColumnProfile) -> Result<ColumnShape, DeviceError> {
    let mut shape = of_profile(profile)?;
    if let (Storage::Integer(_), Some(range)) = (shape.storage, profile.range) {
        // The widest segment decides; a segment without a zone map may have any value.
        let spans = (0..scan.segments())
            .map(|segment| (segment, scan.zone(segment, column)))
            // A part of a scan has the rest as segments without rows: what it is read with must not depend on the part.
            .filter(|(segment, zone)| scan.rows(*segment) > 0 || zone.is_some())
            .map(|(segment, zone)| {
                match zone {
                    // The number of NULLs is a bound: of a part of a row group as well as of all of it.
                    Some(zone) if zone.range.is_none() && zone.null_count >= scan.rows(segment) => 0,
                    Some(zone) => span(zone.range.unwrap_or(range)).min(span(range)),
                    None => span(range),
                }
            });
        shape.storage = Storage::Integer(element(spans.max().unwrap_or(0)));
    }
    let zones = (0..scan.segments()).filter_map(|segment| scan.zone(segment, column));
    let mut any = false;
    shape.clustered = zones
        .inspect(|_| any = true)
        .all(|zone| zone.run_length >= CLUSTERED_RUN)
        && any;
    Ok(shape)
}

fn of_profile(profile: &ColumnProfile) -> Result<ColumnShape, DeviceError> {
    let storage = match &profile.data_type {
        Type::Null => Storage::Null,
        Type::Boolean => Storage::Bits,
        Type::Float32 => Storage::Float32,
        Type::Float64 => Storage::Float64,
        Type::Interval(_) => {
            return Err(DeviceError::Unsupported(
                "columns of intervals are not loaded".to_owned(),
            ));
        }
        data_type if data_type.is_bytes() => match &profile.dictionary {
            Some(dictionary) => Storage::Code(code_element(dictionary.len())),
            None => Storage::Offsets,
        },
        _ => match profile.range {
            None => Storage::Null,
            Some(range) if is_narrow(range) => Storage::Integer(element(span(range))),
            Some(_) => Storage::Wide,
        },
    };
    let whole = profile.data_type.value_range();
    Ok(ColumnShape {
        data_type: profile.data_type.clone(),
        storage,
        nullable: profile.nullable || storage == Storage::Null,
        range: profile.range.zip(whole).map(|(range, whole)| widened(range, whole)),
        dictionary: profile
            .dictionary
            .clone()
            .filter(|_| matches!(storage, Storage::Code(_))),
        clustered: false,
    })
}

/// Whether all values of a range are 64-bit integers.
fn is_narrow((low, high): (i128, i128)) -> bool {
    low >= i128::from(i64::MIN) && high <= i128::from(i64::MAX)
}

fn span((low, high): (i128, i128)) -> u128 {
    u128::try_from(high.saturating_sub(low)).unwrap_or(0)
}

/// The narrowest element for values of this span, with a base.
fn element(span: u128) -> Elem {
    match span {
        0..=0xff => Elem::I8,
        0x100..=0xffff => Elem::I16,
        0x1_0000..=0xffff_ffff => Elem::I32,
        _ => Elem::I64,
    }
}

fn code_element(codes: usize) -> Elem {
    match codes {
        0..=0x100 => Elem::U8,
        0x101..=0x1_0000 => Elem::U16,
        _ => Elem::U32,
    }
}

/// Bounds at multiples of an eighth of the range, within `whole`.
fn widened((low, high): (i128, i128), whole: (i128, i128)) -> (i128, i128) {
    let bits = u128::BITS - span((low, high)).leading_zeros();
    let step = 1_i128 << bits.saturating_sub(3).min(64);
    let down = low.div_euclid(step).saturating_mul(step);
    let up = high.div_euclid(step).saturating_add(1).saturating_mul(step) - 1;
    // Never out of what a 64-bit integer holds, when the values are not.
    let (least, most) = if is_narrow((low, high)) {
        (i128::from(i64::MIN).max(whole.0), i128::from(i64::MAX).min(whole.1))
    } else {
        whole
    };
    (down.max(least).min(low), up.min(most).max(high))
}

/// The shape of columns of which only the types are known: what a stream, or an earlier fragment's rows, may have.
///
/// # Errors
/// As [`scan_shape`].
pub(crate) fn field_shapes(fields: &[Field], used: &[bool], rows: Option<u64>) -> Result<ScanShape, DeviceError> {
    let columns = fields.iter().zip(used).map(|(field, used)| {
        if *used {
            of_profile(&field_profile(field))
        } else {
            Ok(unused(&field.data_type))
        }
    });
    Ok(ScanShape {
        columns: columns.collect::<Result<_, _>>()?,
        rows: rows.unwrap_or(STREAM_ROWS),
        segments: u64::MAX,
    })
}

/// What the type alone says.
fn field_profile(field: &Field) -> ColumnProfile {
    ColumnProfile {
        data_type: field.data_type.clone(),
        range: field.data_type.value_range(),
        nullable: true,
        dictionary: None,
        distinct: None,
    }
}

/// Rows in the host's memory, as a scan.
pub(crate) struct RowsInput {
    rows: std::sync::Arc<Rows>,
    profiles: Vec<ColumnProfile>,
}

impl RowsInput {
    /// Over rows whose columns are `fields`.
    pub(crate) fn new(rows: std::sync::Arc<Rows>, fields: &[Field]) -> Self {
        let profiles = fields.iter().enumerate().map(|(index, field)| {
            let columns = rows.segments.iter().filter_map(|(_, columns)| columns.get(index));
            profile(field, columns.map(AsRef::as_ref))
        });
        Self {
            profiles: profiles.collect(),
            rows,
        }
    }
}

/// What holds for all of a column's segments.
fn profile<'a>(field: &Field, columns: impl Iterator<Item = &'a DeviceColumn>) -> ColumnProfile {
    let whole = field.data_type.value_range();
    let mut found = ColumnProfile {
        range: None,
        nullable: false,
        ..field_profile(field)
    };
    for column in columns.filter(|column| column.rows > 0) {
        found.nullable |= column.validity.is_some() || matches!(column.values, Values::Nulls);
        if let Values::Codes { dictionary, .. } = &column.values {
            found.dictionary = Some(std::sync::Arc::clone(dictionary));
        }
        if column.zone.null_count < column.rows && !matches!(column.values, Values::Nulls) {
            let range = column.zone.range.or(whole);
            found.range = match (found.range, range) {
                (Some((low, high)), Some((other_low, other_high))) => Some((low.min(other_low), high.max(other_high))),
                (known, range) => known.or(range),
            };
        }
    }
    found
}

impl ScanInput for RowsInput {
    fn columns(&self) -> &[ColumnProfile] {
        &self.profiles
    }

    fn segments(&self) -> usize {
        self.rows.segments.len()
    }

    fn rows(&self, segment: usize) -> usize {
        self.rows.segments[segment].0
    }

    fn zone(&self, segment: usize, column: usize) -> Option<trireme_device_api::ZoneMap> {
        Some(self.rows.segments[segment].1[column].zone)
    }

    fn load(&self, segment: usize, column: usize) -> Result<std::sync::Arc<DeviceColumn>, DeviceError> {
        let (_, columns) = self
            .rows
            .segments
            .get(segment)
            .ok_or_else(|| DeviceError::Internal(format!("there is no segment {segment}")))?;
        columns
            .get(column)
            .cloned()
            .ok_or_else(|| DeviceError::Internal(format!("there is no column {column}")))
    }
}

/// The columns of a fragment's source that it reads.
pub(crate) fn used_by(fragment: &Fragment, width: usize) -> Vec<bool> {
    trireme_device_codegen::used_columns(fragment, width)
}
