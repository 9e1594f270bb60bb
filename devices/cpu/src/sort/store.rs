//! The row columns of a sort: each worker keeps its rows in the lanes they come in, and the finished order picks them out.

use std::sync::Arc;

use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;
use trireme_device_api::{
    Carrier, Codes, DeviceColumn, DeviceError, Dictionary, Interval, Strings, Type, Values, ZoneMap,
};

use crate::vector::{Data, Lane, Shape, Vector};

/// A row: worker and position in its store.
pub(super) type Place = (u32, u32);

/// One column of one worker's rows.
#[derive(Debug)]
pub(super) struct Store {
    lanes: Lanes,
    rows: usize,
    /// A byte per row, from the first NULL on.
    valid: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Lanes {
    Bool(Vec<u8>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    I128(Vec<i128>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Codes(Vec<u32>),
    /// Ends, and all bytes.
    Bytes(Vec<usize>, Vec<u8>),
    Interval(Vec<Interval>),
    Null,
}

/// Runs `$body` with the plain values of a store, or `$other` for bytes and nulls.
macro_rules! each_lane {
    ($lanes:expr, $values:ident => $body:expr, $other:expr) => {
        match $lanes {
            Lanes::Bool($values) => $body,
            Lanes::I8($values) => $body,
            Lanes::I16($values) => $body,
            Lanes::I32($values) => $body,
            Lanes::I64($values) => $body,
            Lanes::I128($values) => $body,
            Lanes::F32($values) => $body,
            Lanes::F64($values) => $body,
            Lanes::Codes($values) => $body,
            Lanes::Interval($values) => $body,
            Lanes::Bytes(..) | Lanes::Null => $other,
        }
    };
}

impl Store {
    pub(super) fn new(shape: &Shape) -> Self {
        let lanes = match (&shape.data_type, &shape.dictionary) {
            (_, Some(_)) => Lanes::Codes(Vec::new()),
            (Type::Null, _) => Lanes::Null,
            (Type::Boolean, _) => Lanes::Bool(Vec::new()),
            (Type::Float32, _) => Lanes::F32(Vec::new()),
            (Type::Float64, _) => Lanes::F64(Vec::new()),
            (Type::Interval(_), _) => Lanes::Interval(Vec::new()),
            (other, _) => match shape.range.or(other.value_range()) {
                None => Lanes::Bytes(Vec::new(), Vec::new()),
                Some((low, high)) => match Lane::of_range(low, high) {
                    Lane::I8 => Lanes::I8(Vec::new()),
                    Lane::I16 => Lanes::I16(Vec::new()),
                    Lane::I32 => Lanes::I32(Vec::new()),
                    Lane::I64 => Lanes::I64(Vec::new()),
                    Lane::I128 => Lanes::I128(Vec::new()),
                },
            },
        };
        Self {
            lanes,
            rows: 0,
            valid: None,
        }
    }

    /// Bytes of the values.
    pub(super) fn size_bytes(&self) -> usize {
        let values = match &self.lanes {
            Lanes::Bytes(ends, bytes) => size_of_val(ends.as_slice()) + bytes.len(),
            lanes => each_lane!(lanes, values => size_of_val(values.as_slice()), 0),
        };
        values + self.valid.as_ref().map_or(0, Vec::len)
    }

    /// Appends all rows of a vector of the store's shape.
    pub(super) fn append(&mut self, vector: &Vector<'_>) -> Result<(), DeviceError> {
        let rows = vector.len();
        match (&mut self.lanes, &vector.data) {
            (lanes, Data::Null(_)) => lanes.append_default(rows),
            (Lanes::Null, _) => {}
            (Lanes::Bool(to), Data::Bool(from)) => to.extend_from_slice(from),
            (Lanes::F32(to), Data::F32(from)) => to.extend_from_slice(from),
            (Lanes::F64(to), Data::F64(from)) => to.extend_from_slice(from),
            (Lanes::Codes(to), Data::Codes(from, _)) => to.extend_from_slice(from),
            (Lanes::Interval(to), Data::Interval(from)) => to.extend_from_slice(from),
            (Lanes::Bytes(ends, bytes), Data::Bytes(_) | Data::Strings(_) | Data::Codes(..)) => {
                for row in 0..rows {
                    if !vector.is_null(row) {
                        bytes.extend_from_slice(vector.bytes_at(row));
                    }
                    ends.push(bytes.len());
                }
            }
            (lanes, data) => lanes.append_integers(data)?,
        }
        match (
            &mut self.valid,
            vector.valid.as_deref(),
            matches!(vector.data, Data::Null(_)),
        ) {
            (None, None, false) => {}
            (Some(valid), None, null) => valid.resize(self.rows + rows, u8::from(!null)),
            (valid, given, null) => {
                let valid = valid.get_or_insert_with(|| vec![1; self.rows]);
                match given {
                    Some(given) if !null => valid.extend_from_slice(&given[..rows]),
                    _ => valid.resize(self.rows + rows, 0),
                }
            }
        }
        self.rows += rows;
        Ok(())
    }

    /// Only these rows, in this order.
    pub(super) fn keep(&mut self, rows: &[u32]) {
        if let Lanes::Bytes(ends, bytes) = &mut self.lanes {
            let mut kept = (Vec::with_capacity(rows.len()), Vec::new());
            for row in rows {
                kept.1.extend_from_slice(value(ends, bytes, *row as usize));
                kept.0.push(kept.1.len());
            }
            (*ends, *bytes) = kept;
        } else {
            each_lane!(&mut self.lanes, values => *values = picked(values, rows), ());
        }
        if let Some(valid) = &mut self.valid {
            *valid = picked(valid, rows);
        }
        self.rows = rows.len();
    }
}

fn picked<T: Copy>(values: &[T], rows: &[u32]) -> Vec<T> {
    rows.iter().map(|row| values[*row as usize]).collect()
}

fn value<'v>(ends: &[usize], bytes: &'v [u8], row: usize) -> &'v [u8] {
    let from = if row == 0 { 0 } else { ends[row - 1] };
    &bytes[from..ends[row]]
}

impl Lanes {
    fn append_default(&mut self, rows: usize) {
        match self {
            Lanes::Bytes(ends, bytes) => ends.resize(ends.len() + rows, bytes.len()),
            lanes => each_lane!(lanes, values => values.resize(values.len() + rows, Default::default()), ()),
        }
    }

    fn append_integers(&mut self, data: &Data<'_>) -> Result<(), DeviceError> {
        macro_rules! from_each {
            ($to:expr, $native:ty) => {
                match data {
                    Data::I8(from) => $to.extend(from.iter().map(|value| *value as $native)),
                    Data::I16(from) => $to.extend(from.iter().map(|value| *value as $native)),
                    Data::I32(from) => $to.extend(from.iter().map(|value| *value as $native)),
                    Data::I64(from) => $to.extend(from.iter().map(|value| *value as $native)),
                    Data::I128(from) => $to.extend(from.iter().map(|value| *value as $native)),
                    _ => {
                        return Err(DeviceError::Internal(
                            "a row column's vector is not of its shape".to_owned(),
                        ))
                    }
                }
            };
        }
        match self {
            Lanes::I8(to) => from_each!(to, i8),
            Lanes::I16(to) => from_each!(to, i16),
            Lanes::I32(to) => from_each!(to, i32),
            Lanes::I64(to) => from_each!(to, i64),
            Lanes::I128(to) => from_each!(to, i128),
            _ => {
                return Err(DeviceError::Internal(
                    "a row column's vector is not of its shape".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

/// The rows at `places` of one column, whose part of each worker is in `parts`.
///
/// # Errors
/// Unsupported when the strings are longer than 4 GiB together.
pub(super) fn gather(shape: &Shape, parts: &[&Store], places: &[Place]) -> Result<DeviceColumn, DeviceError> {
    let valid: Option<Vec<u8>> = parts.iter().any(|part| part.valid.is_some()).then(|| {
        let of = |(worker, row): &Place| {
            let valid = parts[*worker as usize].valid.as_ref();
            valid.map_or(1, |valid| valid[*row as usize])
        };
        places.iter().map(of).collect()
    });
    let valid = valid.filter(|valid| valid.contains(&0));
    let (values, range) = gather_values(shape, parts, places, valid.as_deref())?;
    let null_count = match (&values, &valid) {
        (Values::Nulls, _) => places.len(),
        (_, Some(valid)) => valid.iter().filter(|valid| **valid == 0).count(),
        (_, None) => 0,
    };
    let all_null = matches!(values, Values::Nulls);
    Ok(DeviceColumn {
        data_type: shape.data_type.clone(),
        rows: places.len(),
        values,
        validity: valid.filter(|_| !all_null).map(|valid| bits(&valid)),
        zone: ZoneMap {
            range,
            null_count,
            sorted: false,
            run_length: 1.0,
        },
    })
}

type Ranged = (Values, Option<(i128, i128)>);

fn gather_values(
    shape: &Shape,
    parts: &[&Store],
    places: &[Place],
    valid: Option<&[u8]>,
) -> Result<Ranged, DeviceError> {
    // The values of all workers, which have the same lanes.
    macro_rules! taken {
        ($lane:ident) => {{
            let slices: Vec<&[_]> = parts
                .iter()
                .map(|part| match &part.lanes {
                    Lanes::$lane(values) => values.as_slice(),
                    _ => &[],
                })
                .collect();
            pick(&slices, places)
        }};
    }
    let plain = |values| Ok((values, None));
    match parts.first().map(|part| &part.lanes) {
        None | Some(Lanes::Null) => plain(Values::Nulls),
        Some(Lanes::Bool(_)) => plain(Values::Booleans(bits(&taken!(Bool)))),
        Some(Lanes::F32(_)) => plain(Values::Float32(taken!(F32).into())),
        Some(Lanes::F64(_)) => plain(Values::Float64(taken!(F64).into())),
        Some(Lanes::Interval(_)) => plain(Values::Intervals(taken!(Interval).into())),
        Some(Lanes::I8(_)) => Ok(integers(taken!(I8), valid, Carrier::I8)),
        Some(Lanes::I16(_)) => Ok(integers(taken!(I16), valid, Carrier::I16)),
        Some(Lanes::I32(_)) => Ok(integers(taken!(I32), valid, Carrier::I32)),
        Some(Lanes::I64(_)) => Ok(integers(taken!(I64), valid, Carrier::I64)),
        Some(Lanes::I128(_)) => Ok(wide(taken!(I128), valid)),
        Some(Lanes::Codes(_)) => match &shape.dictionary {
            Some(dictionary) => plain(Values::Codes {
                codes: narrow_codes(taken!(Codes), dictionary),
                dictionary: Arc::clone(dictionary),
            }),
            None => Err(DeviceError::Internal("codes without a dictionary".to_owned())),
        },
        Some(Lanes::Bytes(..)) => plain(Values::Strings(strings(parts, places)?)),
    }
}

fn pick<T: Copy>(parts: &[&[T]], places: &[Place]) -> Vec<T> {
    match parts {
        [only] => places.iter().map(|(_, row)| only[*row as usize]).collect(),
        _ => places
            .iter()
            .map(|(worker, row)| parts[*worker as usize][*row as usize])
            .collect(),
    }
}

fn strings(parts: &[&Store], places: &[Place]) -> Result<Strings, DeviceError> {
    let parts: Vec<(&[usize], &[u8])> = parts
        .iter()
        .map(|part| match &part.lanes {
            Lanes::Bytes(ends, bytes) => (ends.as_slice(), bytes.as_slice()),
            _ => (&[][..], &[][..]),
        })
        .collect();
    let of = |(worker, row): &Place| {
        let (ends, bytes) = parts[*worker as usize];
        value(ends, bytes, *row as usize)
    };
    let total: usize = places.iter().map(|place| of(place).len()).sum();
    if u32::try_from(total).is_err() {
        let text = format!("{total} bytes of strings in one sorted segment (at most 4 GiB)");
        return Err(DeviceError::Unsupported(text));
    }
    let mut bytes: Vec<u8> = Vec::with_capacity(total);
    let mut offsets = Vec::with_capacity(places.len() + 1);
    offsets.push(0_u32);
    for place in places {
        bytes.extend_from_slice(of(place));
        offsets.push(bytes.len() as u32);
    }
    Ok(Strings {
        offsets: offsets.into(),
        bytes: bytes.into(),
    })
}

fn narrow_codes(codes: Vec<u32>, dictionary: &Dictionary) -> Codes {
    match dictionary.len() {
        0..=0x100 => Codes::U8(codes.iter().map(|code| *code as u8).collect::<Vec<_>>().into()),
        0x101..=0x1_0000 => Codes::U16(codes.iter().map(|code| *code as u16).collect::<Vec<_>>().into()),
        _ => Codes::U32(codes.into()),
    }
}

fn bits(bytes: &[u8]) -> BooleanBuffer {
    BooleanBuffer::collect_bool(bytes.len(), |row| bytes[row] != 0)
}

fn bounds<T: Copy + Ord>(values: &[T], valid: Option<&[u8]>) -> Option<(T, T)> {
    let present = |row: usize| valid.is_none_or(|valid| valid[row] != 0);
    let first = values[(0..values.len()).find(|row| present(*row))?];
    let fold = |found: (T, T), value: T| (found.0.min(value), found.1.max(value));
    Some(match valid {
        None => values.iter().fold((first, first), |found, value| fold(found, *value)),
        Some(valid) => values.iter().zip(valid).fold((first, first), |found, (value, valid)| {
            fold(found, if *valid != 0 { *value } else { first })
        }),
    })
}

fn integers<T: ArrowNativeType + Ord + Into<i128>>(
    mut values: Vec<T>,
    valid: Option<&[u8]>,
    carrier: impl Fn(ScalarBuffer<T>) -> Carrier,
) -> Ranged {
    let found = bounds(&values, valid);
    let filler = found.map_or(T::default(), |(low, _)| low);
    if let Some(valid) = valid {
        // A NULL row's value is in range.
        for (value, valid) in values.iter_mut().zip(valid) {
            *value = if *valid != 0 { *value } else { filler };
        }
    }
    let values = Values::Integers {
        carrier: carrier(values.into()),
        base: 0,
    };
    (values, found.map(|(low, high)| (low.into(), high.into())))
}

fn wide(mut values: Vec<i128>, valid: Option<&[u8]>) -> Ranged {
    let found = bounds(&values, valid);
    let (low, high) = found.unwrap_or((0, 0));
    if let Some(valid) = valid {
        for (value, valid) in values.iter_mut().zip(valid) {
            *value = if *valid != 0 { *value } else { low };
        }
    }
    if i64::try_from(low).is_ok() && i64::try_from(high).is_ok() {
        let narrowed = values.iter().map(|value| *value as i64).collect::<Vec<_>>();
        let carrier = Carrier::I64(narrowed.into());
        return (Values::Integers { carrier, base: 0 }, found);
    }
    (Values::Wide(values.into()), found)
}
